# SPDX-License-Identifier: GPL-3.0-or-later
"""The panels "Jobs" and "Results"; each is there only while it has something to show."""

from typing import TYPE_CHECKING, Any

import bpy

from . import pump
from .panels import TrellisPanel
from .text import wrapped

if TYPE_CHECKING:
    from .jobs import JobView

NEWEST = 6  # results in sight; the others are a click away


class TRELLIS_PT_jobs(TrellisPanel, bpy.types.Panel):
    """What is being made, and what went wrong."""

    bl_label = "Jobs"
    bl_order = 1

    @classmethod
    def poll(cls, _context: bpy.types.Context) -> bool:
        return bool(pump.get().board.jobs())

    def draw(self, context: bpy.types.Context) -> None:
        column = self.layout.column()
        for view in pump.get().board.jobs():
            _draw_job(column.box(), context, view)


def _draw_job(layout: Any, context: Any, view: "JobView") -> None:
    row = layout.row()
    icon = pump.get().previews.of_file(view.picture)
    if icon:
        row.template_icon(icon, scale=3.0)
    column = row.column(align=True)
    top = column.row()
    top.label(text=f"{view.title} · {view.service}", translate=False)
    if view.at_work:
        _draw_progress(column, top, view)
    else:
        top.operator("trellis.copy_error", text="", icon="COPYDOWN", emboss=False).job_id = view.id
        top.operator("trellis.dismiss", text="", icon="X", emboss=False).job_id = view.id
    if view.error:
        _draw_error(layout, context, view)
    if view.resumable:
        again = layout.operator("trellis.resume_job", text="Resume", icon="PLAY")
        again.job_id = view.id
    if view.uncertain:
        _draw_choices(layout, view)


def _draw_progress(column: Any, top: Any, view: "JobView") -> None:
    column.progress(factor=view.fraction or 0.0, text=view.progress, translate=False)
    log = column.row()
    log.active = False
    log.label(text=view.message, translate=False)
    if view.importing:
        return
    if view.cancellable:
        stop = top.operator("trellis.cancel", text="", icon="X", emboss=False)
    else:  # the tooltip begins with the operator's own name, which promises too much
        stop = column.operator("trellis.cancel", text="Stop Waiting")
    stop.job_id = view.id


def _draw_choices(layout: Any, view: "JobView") -> None:
    """What to do about a job that may be at its service."""
    column = layout.column(align=True)
    row = column.row(align=True)
    row.operator("trellis.resume_job", text="Look Again", icon="VIEWZOOM").job_id = view.id
    row.operator("trellis.send_again", text="Send Again", icon="FILE_REFRESH").job_id = view.id
    column.operator("trellis.adopt_job", text="Adopt…", icon="LINKED").job_id = view.id


def _draw_error(layout: Any, context: Any, view: "JobView") -> None:
    column = layout.column(align=True)
    column.scale_y = 0.8
    first, *rest = wrapped(context, view.error, icon=True)
    column.label(text=first, icon="ERROR", translate=False)
    for line in rest:
        column.label(text=line, icon="BLANK1", translate=False)
    if view.request_id:
        request = column.row()
        request.active = False
        request.label(text=f"Request {view.request_id}", icon="BLANK1", translate=False)


class TRELLIS_PT_results(TrellisPanel, bpy.types.Panel):
    """What was made, newest first."""

    bl_label = "Results"
    bl_order = 2

    @classmethod
    def poll(cls, _context: bpy.types.Context) -> bool:
        return bool(pump.get().board.results())

    def draw(self, context: bpy.types.Context) -> None:
        layout: Any = self.layout
        results = pump.get().board.results()
        _draw_results(layout, context, results[:NEWEST])
        if len(results) > NEWEST:
            header, body = layout.panel("TRELLIS_older", default_closed=True)
            header.label(text="Older")
            if body:
                _draw_results(body, context, results[NEWEST:])


def _draw_results(layout: Any, context: Any, results: "list[JobView]") -> None:
    width = context.region.width / context.preferences.system.ui_scale
    columns = max(1, int((width - 40) // 100))
    grid = layout.grid_flow(
        row_major=True, columns=columns, even_columns=True, even_rows=True, align=False
    )
    for view in results:
        cell = grid.box().column(align=True)
        cell.enabled = not view.importing
        top = cell.row()
        top.template_icon(pump.get().previews.of_file(view.picture), scale=3.6)
        top.operator("trellis.forget", text="", icon="X", emboss=False).job_id = view.id
        bring = cell.operator(
            "trellis.import_result", text=view.title, icon="IMPORT", translate=False
        )
        bring.job_id = view.id


CLASSES = (TRELLIS_PT_jobs, TRELLIS_PT_results)

# SPDX-License-Identifier: GPL-3.0-or-later
"""The panels "Jobs" and "Results"; each is there only while it has something to show, and draws a bounded part of it."""

import functools
from typing import TYPE_CHECKING, Any

import bpy

from . import batches, jobs, money, pump
from .panels import TrellisPanel
from .text import CONTEXT, language, said, tr, wrapped

if TYPE_CHECKING:
    from .jobs import BatchView, JobView

_LINES = 12  # of an expanded log, the last ones; Copy takes them all


class TRELLIS_PT_jobs(TrellisPanel, bpy.types.Panel):
    """What is being made, and what went wrong."""

    bl_label = "Jobs"
    bl_order = 1

    @classmethod
    def poll(cls, _context: bpy.types.Context) -> bool:
        board = pump.get().board
        return bool(board.jobs() or board.batches)

    def draw(self, context: bpy.types.Context) -> None:
        column = self.layout.column()
        board = pump.get().board
        for batch in board.batches.values():
            _draw_batch(column.box(), context, batch)
        shown = board.shown()
        for view in shown:
            _draw_job(column.box(), context, view)
        more = len(board.jobs()) - len(shown)
        if more:
            words = tr("1 more waits") if more == 1 else tr("{count} more wait")
            column.label(text=words.format(count=more), translate=False)


def _draw_batch(layout: Any, context: Any, view: "BatchView") -> None:
    top = layout.row()
    top.label(text=view.title, icon="FILE_FOLDER", translate=False)
    top.operator(
        "trellis.reveal_batch", text="", icon="FOLDER_REDIRECT", emboss=False
    ).batch_id = view.id
    end = "trellis.dismiss_batch" if view.over else "trellis.stop_batch"
    top.operator(end, text="", icon="X", emboss=False).batch_id = view.id
    words = batches.in_words(view)
    if view.over:
        layout.label(text=words, translate=False)
    else:
        layout.progress(factor=view.fraction, text=words, translate=False)
    if view.error:
        _draw_words(layout, context, view.error, most=_LINES)


def _draw_job(layout: Any, context: Any, view: "JobView") -> None:
    row = layout.row()
    icon = pump.get().previews.of_file(view.picture)
    if icon:
        row.template_icon(icon, scale=3.0)
    column = row.column(align=True)
    top = column.row()
    top.label(text=view.title, translate=False)
    if view.at_work:
        _draw_progress(column, top, view)
    else:
        top.operator("trellis.copy_error", text="", icon="COPYDOWN", emboss=False).job_id = view.id
        top.operator("trellis.dismiss", text="", icon="X", emboss=False).job_id = view.id
    _draw_told(column, view)
    if view.expanded:
        _draw_log(layout, context, view)
    if view.error:
        _draw_error(layout, context, view)
    if view.resumable:
        again = layout.operator("trellis.resume_job", text="Resume", text_ctxt=CONTEXT, icon="PLAY")
        again.job_id = view.id
    if view.uncertain:
        _draw_choices(layout, view)
    if view.failed:
        row = layout.row(align=True)
        row.operator("trellis.retry_job", text="Retry", icon="FILE_REFRESH").job_id = view.id
        if view.job:
            row.operator("trellis.use_settings", text="Edit", icon="GREASEPENCIL").job_id = view.id


def _draw_progress(column: Any, top: Any, view: "JobView") -> None:
    column.progress(factor=view.fraction or 0.0, text=view.progress, translate=False)
    if view.importing:
        return
    if view.cancellable:
        stop = top.operator("trellis.cancel", text="", icon="X", emboss=False)
    else:  # the tooltip begins with the operator's own name, which promises too much
        stop = column.operator("trellis.cancel", text="Stop Waiting")
    stop.job_id = view.id


def _draw_told(layout: Any, view: "JobView") -> None:
    """Who makes it, until it tells something: then the last of that, and a triangle that shows more."""
    row = layout.row(align=True)
    if view.log:
        icon = "DISCLOSURE_TRI_DOWN" if view.expanded else "DISCLOSURE_TRI_RIGHT"
        toggle = row.operator("trellis.toggle_log", text="", icon=icon, emboss=False)
        toggle.job_id = view.id
    told = row.row()
    told.active = False
    last = "" if view.expanded or not view.at_work else view.message
    told.label(text=said(last) or view.service, translate=False)
    if view.expanded and view.at_work:
        row.operator("trellis.copy_error", text="", icon="COPYDOWN", emboss=False).job_id = view.id


def _draw_log(layout: Any, context: Any, view: "JobView") -> None:
    """The last lines of what a job has told."""
    column = layout.column(align=True)
    column.scale_y = 0.8
    column.active = False
    log = _log_text(language(), *[*view.log][-_LINES:])
    for line in wrapped(context, log)[-_LINES:]:
        column.label(text=line, translate=False)


@functools.lru_cache(maxsize=64)
def _log_text(_language: str, *entries: str) -> str:
    """Entries of a log in the language that is the interface's now."""
    parts = (entry.partition(" ") for entry in entries)
    return "\n".join(f"{when} {said(words)}" for when, _, words in parts)


def _draw_choices(layout: Any, view: "JobView") -> None:
    """What to do about a job that may be at its service."""
    column = layout.column(align=True)
    row = column.row(align=True)
    row.operator("trellis.resume_job", text="Look Again", icon="VIEWZOOM").job_id = view.id
    row.operator("trellis.send_again", text="Send Again", icon="FILE_REFRESH").job_id = view.id
    column.operator("trellis.adopt_job", text="Adopt…", icon="LINKED").job_id = view.id


def _draw_words(layout: Any, context: Any, error: str, most: int | None = None) -> Any:
    """What went wrong, in a column that is returned, with so many lines at most."""
    column = layout.column(align=True)
    column.scale_y = 0.8
    first, *rest = wrapped(context, said(error), icon=True)[:most]
    column.label(text=first, icon="ERROR", translate=False)
    for line in rest:
        column.label(text=line, icon="BLANK1", translate=False)
    return column


def _draw_error(layout: Any, context: Any, view: "JobView") -> None:
    column = _draw_words(layout, context, view.error)
    if view.request_id:
        request = column.row()
        request.active = False
        words = tr("Request {id}").format(id=view.request_id)
        request.label(text=words, icon="BLANK1", translate=False)


class TRELLIS_PT_results(TrellisPanel, bpy.types.Panel):
    """What was made, newest first, by this file or any other."""

    bl_label = "Results"
    bl_order = 2

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        # Also while the first is made: Blender puts a panel that comes back below one that first came without it
        board = pump.get().board
        return board.page.total > 0 or TRELLIS_PT_jobs.poll(context)

    def draw(self, context: bpy.types.Context) -> None:
        layout: Any = self.layout
        board = pump.get().board
        if board.page.total > jobs.PAGE or board.search:
            layout.prop(context.window_manager, "trellis_search", text="", icon="VIEWZOOM")
        if not board.page.found:
            layout.label(text="Nothing is called so" if board.search else "No models yet")
        _draw_results(layout, context, board.results())
        _draw_pager(layout, board.page)
        spent = money.in_all(board.spent)
        if spent:
            row = layout.row()
            row.active = False
            row.label(text=spent, translate=False)


def _draw_results(layout: Any, context: Any, results: "list[JobView]") -> None:
    width = context.region.width / context.preferences.system.ui_scale
    columns = max(1, int((width - 40) // 100))
    grid = layout.grid_flow(
        row_major=True, columns=columns, even_columns=True, even_rows=True, align=False
    )
    for view in results:
        cell = grid.box().column(align=True)
        cell.enabled = not view.importing
        cell.template_icon(_picture(view), scale=4.4)
        row = cell.row(align=True)
        bring = row.operator("trellis.import_result", text=view.title, translate=False)
        bring.job_id = view.id
        row.context_string_set("trellis_job", view.id)
        row.menu("TRELLIS_MT_result", text="", icon="DOWNARROW_HLT")


def _picture(view: "JobView") -> int:
    """The icon of the model's picture; of what it was made of, until there is one."""
    here = pump.get()
    if not view.thumbnail:
        here.history.thumbnails.want(view.id, view.endpoint, view.files[0])
    icon = here.previews.of_file(view.thumbnail) if view.thumbnail else 0
    return icon or here.previews.of_file(view.picture)


def _draw_pager(layout: Any, page: jobs.Page) -> None:
    if page.found <= jobs.PAGE:
        return
    row = layout.row(align=True)
    newer = row.row(align=True)
    newer.enabled = page.offset > 0
    newer.operator("trellis.turn_page", text="", icon="TRIA_LEFT").way = "NEWER"
    last = page.offset + len(page.jobs)
    words = row.row()
    words.alignment = "CENTER"
    words.label(
        text=tr("{first} to {last} of {count}").format(
            first=page.offset + 1, last=last, count=page.found
        ),
        translate=False,
    )
    older = row.row(align=True)
    older.enabled = last < page.found
    older.operator("trellis.turn_page", text="", icon="TRIA_RIGHT").way = "OLDER"


class TRELLIS_MT_result(bpy.types.Menu):
    """What else can be done with the result that `context.trellis_job` names."""

    bl_label = "Result"

    def draw(self, context: bpy.types.Context) -> None:
        job_id = getattr(context, "trellis_job", "")
        layout: Any = self.layout
        layout.operator_context = "INVOKE_DEFAULT"
        for entry in (
            ("trellis.import_result", "Import at 3D Cursor", "CURSOR"),
            ("trellis.place", "Import Where I Click", "RESTRICT_SELECT_OFF"),
            ("trellis.import_sized", "Import at Another Size…", "FULLSCREEN_ENTER"),
            None,
            ("trellis.run_again", "Run Again", "FILE_REFRESH"),
            ("trellis.use_settings", "Use These Settings", "GREASEPENCIL"),
            None,
            ("trellis.export_result", "Export…", "EXPORT"),
            ("trellis.reveal_result", "Show in Folder", "FILE_FOLDER"),
            None,
            ("trellis.forget", "Remove from List", "REMOVE"),
            ("trellis.delete_result", "Delete…", "TRASH"),
        ):
            if entry is None:
                layout.separator()
            else:
                name, text, icon = entry
                layout.operator(name, text=text, icon=icon).job_id = job_id


CLASSES = (TRELLIS_PT_jobs, TRELLIS_PT_results, TRELLIS_MT_result)

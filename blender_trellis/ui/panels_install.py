# SPDX-License-Identifier: GPL-3.0-or-later
"""The local engine in the preferences, and the question before its installation. Drawing reads memory alone."""

from __future__ import annotations

from typing import Any

import bpy

from . import installs
from .text import said, tr, wrapped

WIDTH = 480  # of the dialog
_OFFLINE = (
    "Blender may not go online: allow it under System, or choose a folder that has the weights."
)


def draw(layout: Any, context: Any) -> None:
    """The section of the preferences."""
    local = installs.get()
    header, body = layout.panel("TRELLIS_local", default_closed=False)
    header.label(text="TRELLIS.2 on This Computer")
    if not body:
        return
    local.look()
    column = body.column(align=True)
    status = local.status
    looking = tr("looking…")
    environment = tr("Environment: {state}").format(
        state=said(status.environment_words()) if status else looking
    )
    weights = tr("Weights: {state}").format(
        state=said(status.weights_words()) if status else looking
    )
    for line in (*wrapped(context, environment), *wrapped(context, weights)):
        column.label(text=line, translate=False)
    if local.at_work:
        _draw_progress(body, context, local.report)
        return
    for line in wrapped(context, said(local.words)):
        column.label(text=line)
    row = body.row()
    row.operator("trellis.install_local", text="Install…", icon="IMPORT")
    if status and (status.environment or status.done or status.there):
        row.operator("trellis.uninstall_local", text="Uninstall…", icon="TRASH")
        row.operator("trellis.unload_local", text="Unload", icon="X")


def draw_button(layout: Any, context: Any) -> None:
    """The way to an installation, for the sidebar: a button, and what became of it."""
    local = installs.get()
    if local.at_work:
        _draw_progress(layout, context, local.report)
        return
    layout.operator("trellis.install_local", text="Install TRELLIS.2…", icon="IMPORT")
    for line in wrapped(context, said(local.words)):
        layout.label(text=line)


def _draw_progress(layout: Any, context: Any, report: Any) -> None:
    row = layout.row()
    words = f"{report.number}/{report.count} " * bool(report.count) + said(report.title)
    if report.fraction is not None:
        words += f" · {report.fraction:.0%}"
    row.progress(text=words, factor=report.fraction or 0.0, translate=False)
    row.operator("trellis.cancel_install", text="Cancel", icon="X")
    column = layout.column(align=True)
    column.active = False
    for line in wrapped(context, said(report.message)):
        column.label(text=line, translate=False)


def draw_question(layout: Any, context: Any, operator: Any) -> None:
    """What the dialog before an installation shows: choices, how many gigabytes they are, and the licences."""
    settings = layout.column()
    settings.use_property_split, settings.use_property_decorate = True, False
    settings.row().prop(operator, "resolution", expand=True)
    for name in ("retexture", "without_gate", "source", "python"):
        settings.prop(operator, name)
    column = layout.column(align=True)
    for line in question(operator):
        for part in wrapped(context, line, dialog=WIDTH):
            column.label(text=part, translate=False)


def question(operator: Any) -> list[str]:
    """The lines of the question."""
    from ..install import weights
    from ..install.weights import gigabytes

    local = installs.get()
    chosen = weights.wanted(operator.resolution, operator.retexture, operator.without_gate)
    there = {file.path for file in local.status.there} if local.status else set()
    files = [file for file in chosen if file.path not in there]
    size = gigabytes(sum(file.bytes for file in files))
    lines = [said(line) for line in local.plan.environment_words()] if local.plan else []
    if local.status and not local.plan and not operator.python:
        lines.append(said(local.words))  # why Blender's own Python will not do
    if files and operator.source:
        lines.append(
            tr("Weights of about {size} are taken over from the folder.").format(size=size)
        )
    elif files:
        lines.append(tr("About {size} of weights are downloaded.").format(size=size))
    licence = tr("Licence {name}: {url}")
    lines += sorted({licence.format(name=file.licence, url=file.licence_url) for file in files})
    if lines and local.plan:
        lines += map(said, local.plan.folder_words())
    if not bpy.app.online_access and (not operator.source or (local.plan and local.plan.steps)):
        lines.append(tr(_OFFLINE))
    return lines or [tr("Everything is installed.")]

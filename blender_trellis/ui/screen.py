# SPDX-License-Identifier: GPL-3.0-or-later
"""Blender's windows: whether there is one, what is drawn again in them, and whether somebody is in the middle of something."""

from __future__ import annotations

import bpy

TAB = "Trellis"  # in the sidebar of the 3D viewport
# An add-on's modal operator may run for the whole session, so it is not waited for any longer. Blender's own always is.
PATIENCE = 15.0  # seconds


def waits() -> bool:
    """Whether operators wait for what they started: where no timer would ever take the result."""
    return bpy.app.background


def redraw() -> int:
    """Ask for a redraw of the sidebars that show the tab, and of nothing else; returns how many."""
    shown = 0
    for window in bpy.context.window_manager.windows:
        for area in window.screen.areas:
            if area.type == "VIEW_3D" and area.spaces.active.show_region_ui:
                for region in area.regions:
                    if region.type == "UI" and region.active_panel_category == TAB:
                        region.tag_redraw()
                        shown += 1
    return shown


def redraw_preferences() -> None:
    """Ask for a redraw of the preferences, wherever they are open."""
    for window in bpy.context.window_manager.windows:
        for area in window.screen.areas:
            if area.type == "PREFERENCES":
                area.tag_redraw()


def undisturbed(waited: float) -> bool:
    """Whether something may be added to the file now: no render reads it, and nobody is in the middle of a gesture."""
    if bpy.app.is_job_running("RENDER"):
        return False
    for window in bpy.context.window_manager.windows:
        for operator in window.modal_operators:
            from_an_addon = hasattr(bpy.types, operator.bl_idname)
            if not from_an_addon or waited < PATIENCE:
                return False
    return True

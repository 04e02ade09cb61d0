# SPDX-License-Identifier: GPL-3.0-or-later
"""What has just happened, in the status bar for a few seconds: nothing opens, nothing takes the mouse or the keyboard.

Not by an operator's report: Blender shows those of operators that a person started, and only prints what a timer reports.
"""

from __future__ import annotations

from typing import Any

import bpy

from . import translations

SECONDS = 8.0
_said: list[tuple[str, str]] = []  # words and icon; the last one is shown


def say(words: str, icon: str = "CHECKMARK") -> None:
    """Show `words` in every window."""
    _said[:] = [(words, icon)]
    if bpy.app.timers.is_registered(_clear):
        bpy.app.timers.unregister(_clear)
    bpy.app.timers.register(_clear, first_interval=SECONDS, persistent=True)
    _redraw()


def shown() -> str:
    """The words in the status bar; "" when there are none."""
    return _said[-1][0] if _said else ""


def draw(header: Any, _context: Any) -> None:
    """What stands in the status bar, which is in every window, and is drawn again when another language was chosen."""
    translations.follow()
    for words, icon in _said:
        header.layout.label(text=words, icon=icon, translate=False)


def _clear() -> None:
    _said.clear()
    _redraw()


def _redraw() -> None:
    """Status bars are in no screen's list of areas, but are drawn again when something was given a name: here its own."""
    manager = bpy.context.window_manager
    manager.name = manager.name


def register() -> None:
    bpy.types.STATUSBAR_HT_header.append(draw)


def unregister() -> None:
    bpy.types.STATUSBAR_HT_header.remove(draw)
    if bpy.app.timers.is_registered(_clear):
        bpy.app.timers.unregister(_clear)
    _said.clear()

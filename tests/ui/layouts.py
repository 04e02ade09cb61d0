# SPDX-License-Identifier: GPL-3.0-or-later
"""What a panel draws, without a window: a stand-in of Blender's layout, whose sections are all open."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import bpy

from blender_trellis.ui import preferences

WIDTH = 300  # pixels of the sidebar


@dataclass
class Drawn:
    """One thing in a panel: a "label", an "operator" or a "menu" by its id, a "prop" by its name, or "progress".

    `alert` and `active` are those of where it stands, `given` the operator's properties, `panel` the section's id of a header.
    """

    kind: str
    name: str
    text: str = ""
    alert: bool = False
    active: bool = True
    panel: str = ""
    given: SimpleNamespace = field(default_factory=SimpleNamespace)


class Layout:
    """A layout; `drawn` is all that was drawn in it and in layouts within it."""

    def __init__(self, parent: Layout | None = None, panel: str = "") -> None:
        self.drawn: list[Drawn] = parent.drawn if parent else []
        self._parent = parent
        self._panel = panel
        self.alert, self.active = False, True

    def row(self, **_: Any) -> Layout:
        return Layout(self, self._panel)

    column = box = grid_flow = split = row

    def panel(self, name: str, **_: Any) -> tuple[Layout, Layout]:
        return Layout(self, name), Layout(self)

    def _draw(self, kind: str, name: str, text: str = "") -> Drawn:
        drawn = Drawn(kind, name, text, panel=self._panel)
        place: Layout | None = self
        while place:
            drawn.alert |= place.alert
            drawn.active &= place.active
            place = place._parent
        self.drawn.append(drawn)
        return drawn

    def label(self, text: str = "", **_: Any) -> None:
        self._draw("label", "", text)

    def prop(self, _data: Any, name: str, **_: Any) -> None:
        self._draw("prop", name)

    def operator(self, name: str, text: str = "", **_: Any) -> SimpleNamespace:
        return self._draw("operator", name, text).given

    def menu(self, name: str, text: str = "", **_: Any) -> None:
        self._draw("menu", name, text)

    def progress(self, text: str = "", **_: Any) -> None:
        self._draw("progress", "", text)

    def template_icon(self, *_: Any, **__: Any) -> None:
        """A picture."""

    separator = template_list = template_icon
    context_string_set = template_icon

    def texts(self, kind: str = "label") -> list[str]:
        return [each.text for each in self.drawn if each.kind == kind]

    def names(self, kind: str = "operator") -> list[str]:
        return [each.name for each in self.drawn if each.kind == kind]


def context(**more: Any) -> SimpleNamespace:
    """The part of Blender's context that is looked at, and what a layout has put into it."""
    return SimpleNamespace(
        **more,
        region=SimpleNamespace(width=WIDTH),
        preferences=SimpleNamespace(  # without a window Blender's own scale is 0
            system=SimpleNamespace(ui_scale=1.0),
            ui_styles=bpy.context.preferences.ui_styles,
        ),
        scene=bpy.context.scene,
        window_manager=bpy.context.window_manager,
        active_object=bpy.context.active_object,
    )


def draw(panel: type[Any], **more: Any) -> Layout:
    """What the panel or menu shows at this moment."""
    layout = Layout()
    panel.draw(SimpleNamespace(layout=layout), context(**more))
    return layout


def draw_preferences(addon: Any) -> Layout:
    """What the add-on's preferences show at this moment."""
    layout = Layout()
    preferences.TRELLIS_AddonPreferences.draw(_Beside(addon, layout), context())
    return layout


class _Beside:
    """The preferences, with a layout."""

    def __init__(self, addon: Any, layout: Layout) -> None:
        self._addon, self.layout = addon, layout

    def __getattr__(self, name: str) -> Any:
        return getattr(self._addon, name)


def invoke(operator: type, **given: Any) -> dict[str, Any]:
    """What a click on a button of an operator does: the words of the question that it asks, {} if it asks none."""
    asked: list[dict[str, Any]] = []
    bases = tuple(each for each in operator.__bases__ if each is not bpy.types.Operator)
    own = {
        name: each for name, each in vars(operator).items() if name not in ("__dict__", "bl_rna")
    }
    clicked: Any = type(operator.__name__, bases, own | {"job_id": "", **given})()
    manager = SimpleNamespace(
        invoke_confirm=lambda _operator, _event, **words: asked.append(words) or {"INTERFACE"}
    )
    done = clicked.invoke(SimpleNamespace(window_manager=manager), None)
    assert done == ({"INTERFACE"} if asked else {"FINISHED"})
    return asked[0] if asked else {}

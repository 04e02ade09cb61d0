# SPDX-License-Identifier: GPL-3.0-or-later
"""The panel "Image to 3D" in the sidebar's tab: what goes in, who makes it, and how. Jobs and results: `panels_jobs.py`.

A draw function reads properties and the pump's board, and nothing that is slower.
"""

from typing import Any

import bpy

from ..endpoints.schema import Schema, schemas
from . import (
    money,
    orders,
    panels_images,
    panels_install,
    panels_scene,
    preferences,
    presets,
    properties,
    pump,
    screen,
)
from .text import said, wrapped

# A sidebar narrower than this has no room for much beside a field, or for a seed of ten digits beside all that belongs to it.
# In units of a scale of 1
_NARROW, _NARROW_FOR_SEED = 200, 320
# In the order of the work; the schema's stages
STAGES = ("image", "structure", "shape", "texture", "mesh", "delivery")


class TrellisPanel:
    """Where all panels of the extension are."""

    bl_space_type = "VIEW_3D"
    bl_region_type = "UI"
    bl_category = screen.TAB


class TRELLIS_PT_generate(TrellisPanel, bpy.types.Panel):
    """The one panel that is always there."""

    bl_label = "Image to 3D"
    bl_order = 0

    def draw(self, context: Any) -> None:
        layout: Any = self.layout
        scene = context.scene
        settings = scene.trellis
        panels_images.draw(layout, context, settings)
        column = layout.column()
        column.prop(settings, "endpoint", text="")
        for line in wrapped(context, settings.notice):
            column.label(text=line, translate=False)
        presets.draw(column, settings)
        blamed = pump.get().board.blamed(settings.endpoint)
        _draw_seed(column, context, settings, blamed)
        _draw_up_front(column, context, settings, blamed)
        _draw_generate(layout, context, scene)
        for stage in STAGES:
            _draw_stage(layout, context, settings, stage, blamed)
        panels_scene.draw_section(layout, settings)
        _draw_costs(layout, context)


def _is_narrow(context: Any, units: int = _NARROW) -> bool:
    return bool(context.region.width < units * context.preferences.system.ui_scale)


def _draw_seed(layout: Any, context: Any, settings: Any, blamed: set[str]) -> None:
    """The seed, and beside it how many models are made from it on; below it where there is no room."""
    endpoint, locked = settings.endpoint, settings.seed_locked
    row = layout.row(align=True)
    number = row.row(align=True)
    number.active = locked  # else another one is drawn when the button is pressed
    number.alert = properties.documented_name(endpoint, "seed") in blamed
    number.prop(settings, "seed")
    row.prop(settings, "seed_locked", text="", icon="LOCKED" if locked else "UNLOCKED")
    row.operator("trellis.new_seed", text="", icon="FILE_REFRESH")
    if schemas()[endpoint]["mesh"]:
        return
    narrow = _is_narrow(context, _NARROW_FOR_SEED)
    several = layout.row() if narrow else row.row(align=True)
    several.alert = properties.documented_name(endpoint, "number_results") in blamed
    if narrow:
        several.prop(settings, "variations")
        return
    several.label(text="", icon="DUPLICATE")
    several.ui_units_x = 3.5
    several.prop(settings, "variations", text="")


def _draw_up_front(layout: Any, context: Any, settings: Any, blamed: set[str]) -> None:
    group = properties.group_of(settings, settings.endpoint)
    known = {
        prop["name"]: (wire, prop) for wire, prop in properties.parameters_of(settings.endpoint)
    }
    for name in properties.UP_FRONT:
        if name in known:
            wire, prop = known[name]
            row = layout.row(align=True)
            row.alert = wire in blamed
            if _is_narrow(context):
                row.prop(group, name, text="")
            else:
                row.prop(group, name, expand=True)
            if properties.changed(group, prop):
                _draw_reset(row).parameter = name


def _draw_reset(layout: Any) -> Any:
    """The mark of what was changed, which gives it its default back; returns what it is to reset."""
    return layout.operator("trellis.reset_parameters", text="", icon="LOOP_BACK", emboss=False)


def _draw_generate(layout: Any, context: Any, scene: bpy.types.Scene) -> None:
    missing = orders.missing(scene)
    row = layout.row()
    row.scale_y = 1.6
    row.enabled = not missing
    row.operator("trellis.generate", text="Generate", icon="PLAY")
    board = pump.get().board
    quiet = layout.column(align=True)
    quiet.active = False
    for line in wrapped(context, money.at_generate(scene.trellis, board)):
        quiet.label(text=line, translate=False)
    if board.fault or missing:
        _draw_missing(layout.column(align=True), context, scene, board.fault or missing)


def _draw_missing(layout: Any, context: Any, scene: Any, why: str) -> None:
    """Why nothing can be generated, and the button that does something about it."""
    for line in wrapped(context, said(why)):
        layout.label(text=line, translate=False)
    if why == orders.OFFLINE:
        opened = layout.operator("screen.userpref_show", text="Open Preferences")
        opened.section = "SYSTEM"
    elif why == orders.NOT_INSTALLED:
        panels_install.draw_button(layout, context)
    elif why == orders.unreachable(scene.trellis.endpoint):  # for want of a key, or a right address
        layout.operator("preferences.addon_show", text="Open Preferences").module = preferences.ROOT


def _draw_costs(layout: Any, context: Any) -> None:
    lines = money.this_month(pump.get().board.spent)
    if not lines:
        return
    header, body = layout.panel("TRELLIS_costs", default_closed=True)
    header.label(text="Costs")
    if body:
        column = body.column(align=True)
        column.label(text="This month:")
        for line in lines:
            for part in wrapped(context, line):
                column.label(text=part, translate=False)


def _draw_stage(layout: Any, context: Any, settings: Any, stage: str, blamed: set[str]) -> None:
    """A section, closed by default, with the stage's parameters; the advanced ones in a section of their own.

    What a job has failed for stands out: the row, and the headers of closed sections above it.
    """
    here = {
        wire: prop
        for wire, prop in properties.parameters_of(settings.endpoint)
        if prop["stage"] == stage and prop["name"] not in properties.UP_FRONT
    }
    if not here:
        return
    group = properties.group_of(settings, settings.endpoint)
    header, body = layout.panel(f"TRELLIS_{stage}", default_closed=True)
    header.alert = not blamed.isdisjoint(here)
    header.label(text=stage.capitalize())
    if any(properties.changed(group, prop) for prop in here.values()):
        _draw_reset(header).stage = stage
    if not body:
        return
    advanced = {wire: prop for wire, prop in here.items() if prop["advanced"]}
    plain = {wire: prop for wire, prop in here.items() if not prop["advanced"]}
    _draw_parameters(body, context, group, plain, blamed)
    if advanced:
        header, inner = body.panel(f"TRELLIS_{stage}_advanced", default_closed=True)
        header.alert = not blamed.isdisjoint(advanced)
        header.label(text="Advanced")
        if inner:
            _draw_parameters(inner, context, group, advanced, blamed)


def _draw_parameters(
    layout: Any, context: Any, group: Any, props: dict[str, Schema], blamed: set[str]
) -> None:
    """Each with its name beside it, or above it where there is no room."""
    narrow = _is_narrow(context)
    column = layout.column()
    column.use_property_split, column.use_property_decorate = not narrow, False
    for wire, prop in props.items():
        name, row = prop["name"], column.row(align=True)
        row.alert = wire in blamed
        # Where no default is documented the service's own applies until something is set
        row.active = prop["default"] is not None or group.is_property_set(name)
        if narrow and prop.get("type") != "boolean":
            both = row.column(align=True)
            both.label(text=prop["title"])
            row = both.row(align=True)
            row.prop(group, name, text="")
        else:
            row.prop(group, name)
        if properties.changed(group, prop):
            _draw_reset(row).parameter = name
        elif not narrow:
            row.label(text="", icon="BLANK1")


CLASSES = (TRELLIS_PT_generate,)

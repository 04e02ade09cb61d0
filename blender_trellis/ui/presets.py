# SPDX-License-Identifier: GPL-3.0-or-later
"""Presets of parameters: the ones that come along, and the user's own, which Blender's preset system keeps as files.

The user's are of one endpoint each, in its folder under `presets/trellis`. A preset says how a model is made, not how it is
delivered: the stage "delivery" is left alone.
"""

import json
from typing import Any

import bpy
from bl_operators.presets import AddPresetBase

from ..endpoints import presets
from . import properties, screen
from .text import tr

MENU = "TRELLIS_MT_presets"


def _folder(settings: Any) -> str:
    """Where Blender keeps the user's presets of the chosen endpoint, below its folders for presets."""
    return f"trellis/{properties.slug(settings.endpoint)}"


def _made(settings: Any) -> dict[str, Any]:
    """The changed parameters that say how a model is made, by common name."""
    chosen = properties.chosen(settings, settings.endpoint)
    return {
        prop["name"]: chosen[documented]
        for documented, prop in properties.parameters_of(settings.endpoint)
        if documented in chosen and prop["stage"] != "delivery"
    }


def _state(settings: Any) -> str:
    return json.dumps([settings.endpoint, _made(settings)], sort_keys=True)


def _remember(settings: Any, name: str) -> None:
    settings.preset, settings.preset_made = name, _state(settings)


def current(settings: Any) -> tuple[str, bool]:
    """What to call the parameters as they are: a preset's name, or "Custom"; and whether it is one of the user's own."""
    if settings.preset and settings.preset_made == _state(settings):
        return settings.preset, True
    made, touched = _made(settings), presets.touched(settings.endpoint)
    wanted = {name: value for name, value in made.items() if name in touched}
    for name, preset in presets.offered(settings.endpoint).items():
        if _by_name(settings.endpoint, presets.values_of(name, settings.endpoint)) == wanted:
            return tr(preset.name), False
    return tr("Custom"), False


def _by_name(endpoint: str, values: dict[str, Any]) -> dict[str, Any]:
    props = dict(properties.parameters_of(endpoint))
    return {props[documented]["name"]: value for documented, value in values.items()}


def _reset(settings: Any, names: set[str] | None = None) -> None:
    """Give the parameters with these common names their defaults back; all that a preset may hold where None."""
    group = properties.group_of(settings, settings.endpoint)
    for _, prop in properties.parameters_of(settings.endpoint):
        if prop["stage"] != "delivery" and (names is None or prop["name"] in names):
            group.property_unset(prop["name"])


class TRELLIS_MT_presets(bpy.types.Menu):
    """The presets of the chosen endpoint. As Blender's own menus of presets do, it looks into their folder when it opens."""

    bl_idname = MENU
    bl_label = "Presets"
    bl_description = "Parameters for a purpose"

    @staticmethod
    def reset_cb(context: Any, _filepath: str) -> None:
        """Blender calls this before it applies one of the user's presets."""
        _reset(context.scene.trellis)

    @staticmethod
    def post_cb(context: Any, filepath: str) -> None:
        """And this afterwards; it redraws nothing by itself."""
        _remember(context.scene.trellis, bpy.path.display_name(filepath, title_case=False))
        screen.redraw()

    def draw(self, context: Any) -> None:
        layout = self.layout
        settings = context.scene.trellis
        for name, preset in presets.offered(settings.endpoint).items():
            layout.operator("trellis.apply_preset", text=preset.name).preset = name
        folders = bpy.utils.preset_paths(_folder(settings))
        if folders:
            layout.separator()
            self.path_menu(
                folders,
                "script.execute_preset",
                filter_ext=lambda extension: extension == ".py",
                display_name=lambda path: bpy.path.display_name(path, title_case=False),
            )


class TRELLIS_OT_apply_preset(bpy.types.Operator):
    bl_idname = "trellis.apply_preset"
    bl_label = "Apply Generation Preset"
    bl_description = "Set the parameters of the chosen endpoint for a purpose"
    bl_options = {"REGISTER", "UNDO"}

    preset: bpy.props.EnumProperty(
        name="Preset",
        description="The purpose",
        items=[(name, each.name, each.help) for name, each in presets.PRESETS.items()],
        default="STANDARD",
    )

    @classmethod
    def description(cls, context: Any, given: Any) -> str:
        """What the preset is for, and what it sets here."""
        endpoint = context.scene.trellis.endpoint
        props = dict(properties.parameters_of(endpoint))
        sets = [
            f"{tr(props[name]['title'])}: {tr(str(value))}"
            for name, value in presets.values_of(given.preset, endpoint).items()
        ]
        help_ = tr("{sentence}.").format(sentence=tr(presets.PRESETS[given.preset].help))
        return "\n".join([help_, *sets])

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        return context.scene is not None

    def execute(self, context: bpy.types.Context) -> set[str]:
        settings = context.scene.trellis
        endpoint = settings.endpoint
        if self.preset not in presets.offered(endpoint):
            self.report({"ERROR"}, tr("This endpoint makes no model that this preset is for"))
            return {"CANCELLED"}
        _reset(settings, presets.touched(endpoint))
        properties.assign(settings, endpoint, presets.values_of(self.preset, endpoint))
        settings.notice = settings.preset = ""
        return {"FINISHED"}


class TRELLIS_OT_preset_add(AddPresetBase, bpy.types.Operator):
    bl_idname = "trellis.preset_add"
    bl_label = "Generation Preset"
    bl_description = "Keep the changed parameters as a preset of your own for this endpoint"
    bl_options = {"REGISTER"}
    preset_menu = MENU

    @classmethod
    def description(cls, _context: Any, given: Any) -> str:
        return tr("Remove this preset of your own") if given.remove_name else ""

    @property
    def preset_subdir(self) -> str:
        return _folder(bpy.context.scene.trellis)

    @property
    def preset_values(self) -> list[str]:
        settings = bpy.context.scene.trellis
        group = f"bpy.context.scene.trellis.{properties.slug(settings.endpoint)}"
        return [f"{group}.{name}" for name in _made(settings)]

    def post_cb(self, context: Any, filepath: str) -> None:
        """Blender calls this when the preset was written or removed."""
        if self.remove_name:
            context.scene.trellis.preset = ""
            screen.redraw()
        else:
            TRELLIS_MT_presets.post_cb(context, filepath)


def draw(layout: Any, settings: Any) -> None:
    """The menu, and the buttons that keep a preset and remove it."""
    name, own = current(settings)
    row = layout.row(align=True)
    row.menu(MENU, text=name, translate=False)
    row.operator("trellis.preset_add", text="", icon="ADD")
    if own:
        remove = row.operator("trellis.preset_add", text="", icon="REMOVE")
        remove.name, remove.remove_name = name, True


CLASSES = (TRELLIS_MT_presets, TRELLIS_OT_apply_preset, TRELLIS_OT_preset_add)

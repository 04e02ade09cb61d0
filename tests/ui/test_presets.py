# SPDX-License-Identifier: GPL-3.0-or-later
"""Presets in the panel: those that come along, and the user's own as files of Blender's preset system."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import bpy
import pytest

from blender_trellis.endpoints.presets import values_of
from blender_trellis.ui import panels, presets, properties
from ui.layouts import Layout, draw

FAL, RUNWARE, LORA = "fal-ai/trellis-2", "runware/trellis-2", "fal-ai/trellis-2-lora"


@pytest.fixture
def scripts(tmp_path, monkeypatch) -> Path:
    """The user's folder of scripts, for this test alone."""
    path = tmp_path / "Skripte 人"
    path.mkdir()
    monkeypatch.setenv("BLENDER_USER_SCRIPTS", str(path))
    assert bpy.utils.user_resource("SCRIPTS") == str(path)
    return path


@pytest.fixture
def settings(extension, scripts):
    settings = bpy.context.scene.trellis
    settings.endpoint = FAL
    return settings


def shown():
    """What the panel calls the parameters, and whether it offers to remove that preset."""
    drawn = draw(panels.TRELLIS_PT_generate).drawn
    (menu,) = [each for each in drawn if each.name == presets.MENU]
    removes = [
        each
        for each in drawn
        if each.name == "trellis.preset_add" and hasattr(each.given, "remove_name")
    ]
    return menu.text, bool(removes)


def menu():
    """The menu's entries: each operator's id with what it is given."""
    layout = Layout()
    kind = presets.TRELLIS_MT_presets
    this = SimpleNamespace(layout=layout, bl_idname=presets.MENU)
    this.path_menu = lambda *given, **more: kind.path_menu(this, *given, **more)
    kind.draw(this, bpy.context)
    return [(each.text, each.name, each.given) for each in layout.drawn if each.kind == "operator"]


def save(name: str) -> None:
    assert bpy.ops.trellis.preset_add(name=name) == {"FINISHED"}


def load(name: str) -> None:
    """Choose one of the user's own in the menu."""
    ((_, operator, given),) = [entry for entry in menu() if entry[0] == name]
    assert operator == "script.execute_preset"
    bpy.ops.script.execute_preset(filepath=given.filepath, menu_idname=given.menu_idname)


@pytest.mark.parametrize("endpoint", ["local/draft", FAL, RUNWARE, "fal-ai/trellis"])
@pytest.mark.parametrize(
    ("preset", "name"),
    [("DRAFT", "Draft"), ("STANDARD", "Standard"), ("GAME", "Web/Game"), ("PRINT", "3D Print")],
)
def test_a_preset_sets_what_it_means_here_and_the_panel_names_it(settings, endpoint, preset, name):
    settings.endpoint = endpoint
    bpy.ops.trellis.apply_preset(preset="DETAILED")
    assert shown() == ("Detailed", False)
    bpy.ops.trellis.apply_preset(preset=preset)
    assert properties.chosen(settings, endpoint) == values_of(preset, endpoint)
    assert shown() == (name, False)


def test_a_preset_that_comes_along_leaves_alone_what_none_of_them_names(settings):
    settings.endpoint = LORA
    group = properties.group_of(settings, LORA)
    group.geometry_lora_url, group.texture_size = "https://example.com/a", "4096"
    bpy.ops.trellis.apply_preset(preset="STANDARD")
    assert properties.chosen(settings, LORA) == {"geometry_lora_url": "https://example.com/a"}
    assert shown() == ("Standard", False)


def test_what_no_preset_means_is_custom(settings):
    properties.group_of(settings, FAL).texture_size = "4096"
    assert shown() == ("Custom", False)


def test_the_menu_tells_what_a_preset_sets(settings):
    (words,) = {
        presets.TRELLIS_OT_apply_preset.description(bpy.context, given)
        for text, _, given in menu()
        if text == "Web/Game"
    }
    assert "real time" in words and "20000" in words and "1024" in words


def test_a_retexture_is_not_printed(settings):
    settings.endpoint = "fal-ai/trellis-2/retexture"
    assert "3D Print" not in [text for text, _, _ in menu()]
    with pytest.raises(RuntimeError, match="makes no model"):
        bpy.ops.trellis.apply_preset(preset="PRINT")


def test_ones_own_preset_comes_back_as_it_was_and_can_be_removed(settings, scripts):
    group = properties.group_of(settings, FAL)
    group.ss_guidance_strength, group.resolution, group.remesh = 9.3, "512", False
    kept = properties.chosen(settings, FAL)
    save("Für Ämter: nah/fern")
    name, own = shown()
    assert own and len([*(scripts / "presets/trellis/fal_ai_trellis_2").glob("*.py")]) == 1
    bpy.ops.trellis.reset_parameters()
    group.texture_size = "4096"
    assert shown() == ("Custom", False)
    load(name)
    assert properties.chosen(settings, FAL) == kept and shown() == (name, True)
    group.texture_size = "1024"
    assert shown() == ("Custom", False)
    load(name)
    assert bpy.ops.trellis.preset_add(name=name, remove_name=True) == {"FINISHED"}
    assert not [*scripts.rglob("*.py")] and not shown()[1]
    assert name not in [text for text, _, _ in menu()]


def test_ones_own_presets_are_those_of_their_endpoint(settings):
    properties.group_of(settings, FAL).texture_size = "1024"
    save("Small")
    settings.endpoint = RUNWARE
    assert not shown()[1] and "Small" not in [text for text, _, _ in menu()]
    # Only what was changed is in it: what Runware does not document stays unset
    properties.group_of(settings, RUNWARE).ss_sampling_steps = 20
    kept = properties.chosen(settings, RUNWARE)
    save("Small")
    bpy.ops.trellis.reset_parameters()
    load("Small")
    assert properties.chosen(settings, RUNWARE) == kept


def test_how_a_model_is_delivered_is_no_matter_of_presets(settings, scripts):
    group = properties.group_of(settings, FAL)
    group.webhook_url, group.texture_size = "https://example.com/secret", "4096"
    save("Sharp")
    (file,) = scripts.rglob("*.py")
    assert "secret" not in file.read_text(encoding="utf-8")
    group.texture_size = "1024"
    load("Sharp")
    assert (group.webhook_url, group.texture_size) == ("https://example.com/secret", "4096")


def test_a_name_that_is_taken_is_refused(settings, scripts):
    save("Mine")
    (file,) = scripts.rglob("*.py")
    before = file.read_bytes()
    properties.group_of(settings, FAL).texture_size = "4096"
    assert bpy.ops.trellis.preset_add(name="Mine") == {"CANCELLED"}
    assert file.read_bytes() == before

# SPDX-License-Identifier: GPL-3.0-or-later
"""Blender's properties are the schema's parameters, and what was changed is what is asked for."""

import bpy
import pytest

from blender_trellis.endpoints import base, get
from blender_trellis.endpoints.schema import schemas
from blender_trellis.ui import panels, properties
from ui import layouts

ENDPOINTS = sorted(schemas())


@pytest.fixture
def settings(extension):
    return bpy.context.scene.trellis


@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_every_parameter_is_a_property_with_its_range_default_and_words(settings, endpoint):
    group = properties.group_of(settings, endpoint)
    found = {prop.identifier: prop for prop in group.bl_rna.properties}
    expected = schemas()[endpoint]["properties"].values()
    assert {prop["name"] for prop in expected} - {"seed", "number_results"} == found.keys() - {
        "rna_type",
        "name",
    }
    for wanted in expected:
        if wanted["name"] in ("seed", "number_results"):
            continue
        prop = found[wanted["name"]]
        assert prop.name == wanted["title"]
        assert prop.description.startswith(wanted["description"])
        assert wanted["unit"] in prop.description
        choices = wanted.get("enum") or ([wanted["const"]] if "const" in wanted else None)
        default = wanted["default"]
        if choices:
            unset = [properties.UNSET] * (default is None)
            assert [item.identifier for item in prop.enum_items] == unset + [
                str(c) for c in choices
            ]
            assert prop.default == str(default or properties.UNSET)
            continue
        kind = {"integer": "INT", "number": "FLOAT", "boolean": "BOOLEAN", "string": "STRING"}
        assert prop.type == kind[wanted["type"]]
        if default is not None:
            assert prop.default == pytest.approx(default)
        if "minimum" in wanted:
            assert prop.hard_min == pytest.approx(wanted["minimum"])
        if "maximum" in wanted:
            assert prop.hard_max == pytest.approx(min(wanted["maximum"], 2**31 - 1))


@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_the_endpoint_accepts_every_property_at_both_ends_of_its_range(settings, endpoint):
    group = properties.group_of(settings, endpoint)
    for end in ("hard_min", "hard_max"):
        for prop in group.bl_rna.properties:
            if prop.type in ("INT", "FLOAT"):
                setattr(group, prop.identifier, getattr(prop, end))
        # Whatever a slider allows must be something that can be asked for
        for documented, value in properties.chosen(settings, endpoint).items():
            limits = schemas()[endpoint]["properties"][documented]
            assert limits.get("minimum", value) <= value <= limits.get("maximum", value)


def test_untouched_parameters_are_not_sent_and_changed_ones_are(settings):
    scene = bpy.context.scene
    settings.seed = 7
    assert properties.parameters(scene, "fal-ai/trellis-2") == {"seed": 7}
    group = properties.group_of(settings, "fal-ai/trellis-2")
    group.ss_guidance_strength = 9.3
    group.resolution = "1536"
    group.remesh = False
    group.ss_sampling_steps = 12  # set, to what it was
    asked = properties.parameters(scene, "fal-ai/trellis-2")
    assert asked == {"seed": 7, "ss_guidance_strength": 9.3, "resolution": 1536, "remesh": False}
    assert type(asked["resolution"]) is int
    body = get("fal-ai/trellis-2").parse(asked).body(["data:"])
    assert body["ss_guidance_strength"] == 9.3 and "ss_sampling_steps" not in body


def test_runware_gets_its_own_names(settings):
    properties.group_of(settings, "runware/trellis-2").ss_sampling_steps = 20
    asked = properties.parameters(bpy.context.scene, "runware/trellis-2")
    assert asked["settings.sparseStructure.steps"] == 20


def test_an_empty_text_counts_as_unset(settings):
    group = properties.group_of(settings, "fal-ai/trellis-2-lora")
    group.geometry_lora_url = "https://example.org/a.safetensors"
    group.geometry_lora_url = ""
    assert "geometry_lora_url" not in properties.chosen(settings, "fal-ai/trellis-2-lora")


def test_another_endpoint_takes_over_what_both_know_and_says_what_had_to_change(settings):
    group = properties.group_of(settings, "fal-ai/trellis-2")
    group.texture_size, group.shape_slat_guidance_strength = "4096", 0.5
    notes = properties.carry(settings, "fal-ai/trellis-2", "runware/trellis-2")
    taken = properties.group_of(settings, "runware/trellis-2")
    assert taken.texture_size == "4096"
    assert taken.shape_slat_guidance_strength == 1.0
    assert len(notes) == 1 and "0.5" in notes[0] and "1" in notes[0]


def test_a_choice_without_a_default_is_sent_only_once_it_was_made(settings):
    group = properties.group_of(settings, "local/trellis-2")
    assert group.pipeline_type == properties.UNSET
    group.pipeline_type = "1024"
    assert properties.chosen(settings, "local/trellis-2") == {"pipeline_type": "1024"}
    group.pipeline_type = properties.UNSET
    assert not properties.chosen(settings, "local/trellis-2")


def test_the_path_of_a_file_may_be_relative_to_the_blend_file(settings, tmp_path):
    group = properties.group_of(settings, "local/trellis-2")
    prop = group.bl_rna.properties["geometry_lora_path"]
    assert prop.subtype == "FILE_PATH"
    bpy.ops.wm.save_as_mainfile(filepath=str(tmp_path / "scene.blend"))
    settings = bpy.context.scene.trellis
    properties.group_of(settings, "local/trellis-2").geometry_lora_path = "//a.safetensors"
    asked = properties.chosen(settings, "local/trellis-2")
    assert asked == {"geometry_lora_path": str(tmp_path / "a.safetensors")}


def test_every_endpoint_can_be_chosen(settings):
    items = settings.bl_rna.properties["endpoint"].enum_items
    assert [item.identifier for item in items] == list(schemas())


def test_what_an_enum_stores_does_not_depend_on_its_order(settings):
    sizes = settings.local_draft.bl_rna.properties["texture_size"].enum_items
    assert [item.value for item in sizes] == [512, 1024, 2048, 4096]


def test_a_typed_seed_is_kept_and_an_unlocked_one_is_drawn_again(settings):
    assert not settings.seed_locked
    settings.seed = 7
    assert settings.seed_locked
    bpy.ops.trellis.new_seed()
    assert settings.seed != 7 and settings.seed_locked
    properties.draw_seed(settings)
    assert not settings.seed_locked


def test_reset_gives_one_parameter_a_stage_or_all_their_defaults_back(settings):
    group = settings.local_draft
    group.texture_size, group.resolution, group.decimation_target = "512", "512", 6000
    bpy.ops.trellis.reset_parameters(parameter="resolution")
    assert properties.chosen(settings, "local/draft").keys() == {
        "texture_size",
        "decimation_target",
    }
    bpy.ops.trellis.reset_parameters(stage="texture")
    assert properties.chosen(settings, "local/draft").keys() == {"decimation_target"}
    bpy.ops.trellis.reset_parameters()
    assert not properties.chosen(settings, "local/draft")
    assert not bpy.ops.trellis.reset_parameters.poll()


def test_settings_survive_saving(settings, tmp_path):
    settings.local_draft.texture_size = "2048"
    settings.seed = 11
    path = str(tmp_path / "Szene 1.blend")
    bpy.ops.wm.save_as_mainfile(filepath=path)
    bpy.ops.wm.read_homefile(use_empty=True)
    bpy.ops.wm.open_mainfile(filepath=path)
    asked = properties.parameters(bpy.context.scene)
    assert asked == {"texture_size": 2048, "seed": 11}


def test_the_panel_shows_every_stage():
    assert panels.STAGES == base.STAGES


def test_in_a_narrow_sidebar_names_stand_above_their_fields(settings, monkeypatch):
    wide = layouts.draw(panels.TRELLIS_PT_generate).drawn
    monkeypatch.setattr(layouts, "WIDTH", 160)
    narrow = layouts.draw(panels.TRELLIS_PT_generate).drawn
    above = [
        narrow[number - 1].text for number, each in enumerate(narrow) if each.name == "texture_size"
    ]
    assert above == ["Size"] and "Size" not in [each.text for each in wide]
    props = [[each.name for each in drawn if each.kind == "prop"] for drawn in (wide, narrow)]
    assert props[0] == props[1]

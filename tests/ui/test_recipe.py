# SPDX-License-Identifier: GPL-3.0-or-later
"""The panel "Recipe" on a generated object, and what its two buttons make of it."""

import json

import bpy
import pytest

import blender_trellis
from blender_trellis.scene.recipe import PROPERTY, Recipe, read, stamp
from blender_trellis.ui import orders, properties
from blender_trellis.ui.panels_recipe import TRELLIS_PT_recipe

from . import layouts


def models():
    return [obj for obj in bpy.context.scene.objects if read(obj)]


def activate(obj):
    bpy.context.view_layer.objects.active = obj


def label_pairs():
    texts = layouts.draw(TRELLIS_PT_recipe).texts()
    return dict(zip(texts[::2], texts[1::2], strict=True))


def shown():
    return TRELLIS_PT_recipe.poll(bpy.context)


@pytest.fixture
def model(fal, extension, until, picture):
    """An active object that fal has made."""
    settings = bpy.context.scene.trellis
    settings.endpoint = "fal-ai/trellis-2"
    settings.fal_ai_trellis_2.resolution = "512"
    settings.fal_ai_trellis_2.tex_slat_sampling_steps = 20
    settings.seed = 77
    bpy.ops.trellis.add_images(filepath=str(picture))
    bpy.ops.trellis.generate()
    until(lambda: bool(models()) and not extension.busy)
    return models()[0]


def test_it_says_how_the_object_was_made(model):
    assert shown()
    pairs = label_pairs()
    assert pairs["Seed"] == "77" and pairs["Made By"] == "TRELLIS.2 · fal"
    assert "512" in pairs.values() and "20" in pairs.values()
    assert pairs["Cost"].endswith("$0.30") and pairs["Date"].startswith("20")
    # endpoint, resolution, steps, seed, cost, date: nothing that is as by default
    assert len(pairs) == 6


def test_it_is_there_for_generated_objects_only(model):
    part = bpy.data.objects.new("part", None)
    bpy.context.scene.collection.objects.link(part)
    activate(part)
    assert not shown()
    part.parent = model
    assert shown()
    activate(None)
    assert not shown()
    stamp(part, Recipe("fal-ai/of-tomorrow", {"novel": 0.5}))
    activate(part)
    assert label_pairs() == {"Made By": "fal-ai/of-tomorrow", "novel": "0.5"}
    part[PROPERTY] = json.dumps({"endpoint": "x", "parameters": 3})
    part.parent = None
    assert not shown()


def test_run_again_sends_the_same(model, fal, until, extension):
    settings = bpy.context.scene.trellis
    settings.endpoint, settings.seed = "local/draft", 5
    settings.images.clear()
    bpy.context.scene.cursor.location = (3, 0, 0)
    assert bpy.ops.trellis.run_again() == {"FINISHED"}
    until(lambda: len(models()) == 2 and not extension.busy)
    first, second = fal.jobs.values()
    assert first.input == second.input and first.endpoint == second.endpoint
    (other,) = (obj for obj in models() if obj != model)
    assert other.location[:] == (3, 0, 0) and read(other).seed == 77
    assert read(other).job_id != read(model).job_id
    assert not settings.placeholders and settings.endpoint == "local/draft"


def test_use_these_settings_fills_the_panel(model, extension, picture):
    settings = bpy.context.scene.trellis
    asked = properties.parameters(bpy.context.scene)
    settings.fal_ai_trellis_2.decimation_target = 9000
    settings.endpoint, settings.seed, settings.seed_locked = "local/draft", 5, False
    settings.images.clear()
    assert bpy.ops.trellis.use_settings() == {"FINISHED"}
    assert settings.endpoint == "fal-ai/trellis-2" and settings.seed_locked
    assert properties.parameters(bpy.context.scene) == asked
    (item,) = settings.images
    assert properties.label_of(item) == picture.name
    order = orders.order_of(bpy.context.scene)
    assert order.title == picture.stem and order.pictures[0].is_file()


def test_without_its_pictures_the_rest_is_used_and_it_is_said(model, extension, capfd):
    settings = bpy.context.scene.trellis
    for path in extension.session.inputs.iterdir():
        path.unlink()
    settings.seed = 5
    assert bpy.ops.trellis.use_settings() == {"FINISHED"}
    assert settings.seed == 77 and "Choose them again" in capfd.readouterr().out


def test_of_a_job_that_this_computer_does_not_know_the_settings_are_used(extension, capfd):
    obj = bpy.data.objects.new("from elsewhere", None)
    bpy.context.scene.collection.objects.link(obj)
    stamp(obj, Recipe("local/draft", {"texture_size": 512}, seed=3, job_id="elsewhere"))
    activate(obj)
    assert bpy.ops.trellis.use_settings() == {"FINISHED"}
    settings = bpy.context.scene.trellis
    assert settings.local_draft.texture_size == "512" and settings.seed == 3
    assert "Choose them again" in capfd.readouterr().out and extension.session.runner is None


def test_a_seed_that_blender_cannot_hold_is_left_out_and_it_is_said(extension, capfd):
    obj = bpy.data.objects.new("of a script", None)
    bpy.context.scene.collection.objects.link(obj)
    stamp(obj, Recipe("local/draft", {"texture_size": 512}, seed=2**31, job_id="elsewhere"))
    activate(obj)
    bpy.context.scene.trellis.seed = 3
    assert bpy.ops.trellis.use_settings() == {"FINISHED"}
    assert bpy.context.scene.trellis.seed == 3
    assert "The seed 2147483648 is larger" in capfd.readouterr().out


def test_what_cannot_be_run_again_is_told(extension, until):
    obj = bpy.data.objects.new("from elsewhere", None)
    bpy.context.scene.collection.objects.link(obj)
    activate(obj)
    stamp(obj, Recipe("local/draft", {"texture_size": 512}, seed=3, job_id="elsewhere"))
    bpy.ops.trellis.run_again()
    (view,) = extension.board.jobs()
    until(lambda: bool(view.error))
    assert "There is no job elsewhere" in view.error
    until(lambda: not extension.busy)
    assert not bpy.context.scene.trellis.placeholders
    stamp(obj, Recipe("fal-ai/of-tomorrow", {}))
    with pytest.raises(RuntimeError, match="fal-ai/of-tomorrow"):
        bpy.ops.trellis.run_again()
    bpy.data.objects.remove(obj)
    with pytest.raises(RuntimeError, match="There is no job nowhere"):
        bpy.ops.trellis.run_again(job_id="nowhere")


def test_in_background_mode_it_waits(config, fal, picture, temporary):
    bpy.ops.wm.read_factory_settings(use_empty=True)
    blender_trellis.register()
    try:
        bpy.ops.trellis.generate(endpoint="fal-ai/trellis-2", filepath=str(picture))
        (model,) = models()
        activate(model)
        assert bpy.ops.trellis.run_again() == {"FINISHED"}
        assert len(models()) == 2 and len(fal.jobs) == 2
    finally:
        blender_trellis.unregister()
        bpy.ops.wm.read_factory_settings(use_empty=True)

# SPDX-License-Identifier: GPL-3.0-or-later
"""The empty that stands where a model will be: from the click to the model, and through whatever the user does meanwhile."""

import math

import bpy
import pytest
from mathutils import Vector

import blender_trellis
from blender_trellis.scene.recipe import read
from blender_trellis.ui import placeholders, places, pump, screen

from .test_dropping import drop


def models():
    return [obj for obj in bpy.context.scene.objects if read(obj)]


def empties():
    return [obj for obj in bpy.data.objects if obj.type == "EMPTY"]


@pytest.fixture
def held(fal, extension, until, picture):
    """The id of a job that fal works on until `finish`; its placeholder stands at (1, 2, 3), 2 m tall, beside a selected cube."""
    fal.script.held = True
    scene = bpy.context.scene
    bpy.ops.mesh.primitive_cube_add()
    scene.trellis.endpoint = "fal-ai/trellis-2"
    scene.trellis.height = 2
    scene.cursor.location = (1, 2, 3)
    bpy.ops.ed.undo_push(message="Before")
    bpy.ops.trellis.generate(
        "EXEC_DEFAULT", True, filepath=str(picture)
    )  # with an undo step, as a click
    until(lambda: len(fal.jobs) == 1)
    return next(iter(extension.board.views))


def finish(fal):
    with fal.lock:
        for job in fal.jobs.values():
            fal.finish(job.request_id)


def test_it_stands_as_tall_as_the_model_will_and_nothing_else_changes(held, picture):
    (empty,) = empties()
    assert empty.location[:] == (1, 2, 3) and empty.empty_display_size == 2
    assert empty.name == picture.stem and empty.show_name
    cube = bpy.context.view_layer.objects.active
    assert cube.type == "MESH" and bpy.context.selected_objects == [cube]


def test_the_model_takes_its_place(held, fal, until, extension):
    finish(fal)
    until(lambda: bool(models()) and not extension.busy)
    (model,) = models()
    assert not empties() and not bpy.context.scene.trellis.placeholders
    assert model.location[:] == (1, 2, 3) and model.scale[:] == (1, 1, 1)


def test_moved_turned_and_scaled_the_model_is_too(held, fal, until):
    (empty,) = empties()
    empty.location, empty.rotation_euler, empty.scale = (7, 8, 9), (0, 0, 1), (2, 2, 2)
    finish(fal)
    until(lambda: bool(models()))
    (model,) = models()
    assert model.location[:] == pytest.approx((7, 8, 9))
    assert model.rotation_euler[:] == pytest.approx((0, 0, 1), abs=1e-6)
    assert model.scale[:] == pytest.approx((2, 2, 2))


def test_in_a_scene_that_is_not_shown_it_is_found_where_it_stands(held, fal, until):
    scene = bpy.context.scene
    bpy.context.window_manager.windows[0].scene = bpy.data.scenes.new("Other")
    finish(fal)
    until(lambda: any(read(obj) for obj in scene.objects))
    (model,) = (obj for obj in scene.objects if read(obj))
    assert model.location[:] == (1, 2, 3)


def test_deleted_it_stays_away_and_the_model_comes_all_the_same(held, fal, until, extension):
    bpy.ops.object.select_all(action="DESELECT")
    empties()[0].select_set(True)
    bpy.ops.object.delete()
    extension.board.dirty = True
    until(lambda: not empties())
    finish(fal)
    until(lambda: bool(models()))
    assert models()[0].location[:] == (1, 2, 3) and not empties()


def test_its_name_says_how_far_the_job_is(extension, until, asked):
    seen = set()
    until(lambda: seen.update(obj.name for obj in empties()) or bool(models()))
    assert any(name.endswith("%") for name in seen), seen


def test_of_a_scene_in_centimetres_it_is_as_tall(extension, fal, picture):
    scene = bpy.context.scene
    fal.script.held = True
    scene.unit_settings.scale_length = 0.01
    scene.trellis.endpoint = "fal-ai/trellis-2"
    bpy.ops.trellis.generate(filepath=str(picture))
    scene.trellis.height = 180
    bpy.ops.trellis.generate(filepath=str(picture))
    assert sorted(round(obj.empty_display_size) for obj in empties()) == [100, 180]


def test_when_the_job_is_cancelled_it_goes(held, until, extension):
    bpy.ops.trellis.cancel(job_id=held)
    until(lambda: held not in extension.board.views and not empties())
    assert not bpy.context.scene.trellis.placeholders


def test_when_the_job_fails_it_goes(extension, until, tmp_path):
    path = tmp_path / "notes.png"
    path.write_text("no picture")
    bpy.ops.trellis.generate(filepath=str(path))
    assert len(empties()) == 1
    until(lambda: bool(extension.board.jobs()[0].error))
    until(lambda: not empties())


def test_undoing_the_click_takes_it_away_and_redoing_brings_it_back(held, fal, until, extension):
    bpy.ops.ed.undo()
    assert not empties() and held in extension.board.views
    bpy.ops.ed.redo()
    until(lambda: not placeholders.outdated())
    assert len(empties()) == 1
    bpy.ops.ed.undo()
    finish(fal)
    until(lambda: bool(models()))
    assert models()[0].location[:] == (1, 2, 3) and not empties()


def test_undoing_the_model_brings_no_placeholder_of_a_job_that_is_over(held, fal, until, extension):
    finish(fal)
    until(lambda: bool(models()) and not extension.busy)
    bpy.ops.ed.undo()
    assert not models()
    until(lambda: not extension.busy)
    assert not empties() and not placeholders.outdated()
    bpy.ops.ed.redo()
    until(lambda: not extension.busy)
    assert len(models()) == 1 and not empties()


@pytest.fixture
def saved(held, tmp_path):
    """The path of a file that was saved while the job was at work."""
    path = str(tmp_path / "scene.blend")
    bpy.ops.wm.save_as_mainfile(filepath=path)
    bpy.ops.wm.read_homefile(use_empty=True)
    return path


def test_a_file_opened_again_while_the_job_is_at_work_still_has_it(saved, fal, until):
    bpy.ops.wm.open_mainfile(filepath=saved)
    until(lambda: not placeholders.outdated())
    (empty,) = empties()
    empty.location = (4, 4, 4)
    finish(fal)
    until(lambda: bool(models()))
    assert models()[0].location[:] == (4, 4, 4) and not empties()


def test_a_file_opened_again_when_the_job_is_over_has_it_swept(saved, fal, until, extension):
    finish(fal)
    until(lambda: not extension.busy)
    bpy.ops.wm.open_mainfile(filepath=saved)
    assert len(empties()) == 1
    until(lambda: not placeholders.outdated())
    assert not empties()


def test_after_a_restart_it_is_still_there_and_the_model_takes_its_place(saved, fal, until):
    blender_trellis.unregister()
    blender_trellis.register()
    bpy.ops.wm.open_mainfile(filepath=saved)
    until(lambda: bool(pump.get().board.views) and not placeholders.outdated())
    (empty,) = empties()
    empty.location = (4, 4, 4)
    finish(fal)
    until(lambda: bool(models()))
    assert models()[0].location[:] == (4, 4, 4) and not empties()


def test_where_there_is_no_journal_one_of_somebody_elses_file_is_swept(extension, until):
    scene = bpy.context.scene
    obj = bpy.data.objects.new("robot · 40%", None)
    scene.collection.objects.link(obj)
    item = scene.trellis.placeholders.add()
    item.job_id, item.object = "elsewhere", obj
    until(lambda: not empties())
    assert extension.session.runner is None and not scene.trellis.placeholders


def test_during_a_gesture_nothing_is_swept(held, until, extension, monkeypatch):
    monkeypatch.setattr(screen, "undisturbed", lambda _waited: False)
    bpy.ops.trellis.cancel(job_id=held)
    until(lambda: held not in extension.board.views)
    until(placeholders.outdated)
    assert len(empties()) == 1 and extension.busy
    monkeypatch.undo()
    until(lambda: not empties())


def test_several_variations_have_one_and_stand_from_there_on(extension, fal, until, picture):
    fal.script.held = True
    settings = bpy.context.scene.trellis
    settings.endpoint, settings.variations = "fal-ai/trellis-2", 2
    bpy.ops.trellis.generate(filepath=str(picture))
    (empty,) = empties()
    empty.location = (5, 0, 0)
    until(lambda: len(fal.jobs) == 2)
    finish(fal)
    until(lambda: len(models()) == 2)
    first, second = sorted(models(), key=lambda obj: obj.location.x)
    assert first.location.x == 5 and second.location.x > 5 and not empties()


def test_a_chosen_place_on_a_slope_has_the_model_upright(extension, fal, until, picture):
    bpy.ops.mesh.primitive_plane_add(size=10, rotation=(math.radians(40), 0, 0))
    drop(picture, at=(0, 0, 0))
    bpy.context.view_layer.update()
    depsgraph = bpy.context.evaluated_depsgraph_get()
    at = places.met(bpy.context.scene, depsgraph, Vector((0, 1, 9)), Vector((0, 0, -1)), 100)
    assert bpy.ops.trellis.place(at=at) == {"FINISHED"}
    bpy.context.scene.trellis.endpoint = "fal-ai/trellis-2"
    bpy.ops.trellis.generate()
    until(lambda: bool(models()))
    (model,) = models()
    assert model.location[:] == pytest.approx((0, 1, math.tan(math.radians(40))), abs=1e-5)
    assert model.rotation_euler[:] == (0, 0, 0)


def test_a_result_is_placed_where_it_is_wished(held, fal, until, extension):
    finish(fal)
    until(lambda: bool(models()) and not extension.busy)
    assert bpy.ops.trellis.place(at=(6, 6, 6), job_id=held) == {"FINISHED"}
    until(lambda: len(models()) == 2)
    assert {tuple(obj.location) for obj in models()} == {(1, 2, 3), (6, 6, 6)}
    assert not bpy.context.scene.trellis.drop_set

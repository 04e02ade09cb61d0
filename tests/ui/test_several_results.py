# SPDX-License-Identifier: GPL-3.0-or-later
"""A job of several models, by a stand-in of Runware: each with its own seed, in one row, each one undo step."""

import bpy
import pytest

import blender_trellis
from blender_trellis import api
from blender_trellis.scene.recipe import read

ENDPOINT = "runware/trellis-2"


def models():
    found = [obj for obj in bpy.context.scene.objects if read(obj)]
    return sorted(found, key=lambda obj: obj.location.x)


def ask(picture):
    """Order two models, to stand at (1, 2, 3), from seed 40 on."""
    scene = bpy.context.scene
    scene.trellis.endpoint = ENDPOINT
    scene.trellis.variations = 2
    scene.trellis.seed, scene.trellis.seed_locked = 40, True
    scene.cursor.location = (1, 2, 3)
    return bpy.ops.trellis.generate(filepath=str(picture))


def assert_in_a_row():
    first, second = models()
    assert first.location[:] == (1, 2, 3)
    # the stand-in's model is 1 wide
    assert second.location[:] == pytest.approx((2.2, 2, 3))
    assert [read(obj).seed for obj in (first, second)] == [40, 41]
    assert len({read(obj).job_id for obj in (first, second)}) == 1


@pytest.fixture
def two(runware, extension, until, picture):
    """The ids of a job whose two models have arrived."""
    bpy.ops.ed.undo_push(message="Before")
    assert ask(picture) == {"FINISHED"}
    until(lambda: len(models()) == 2 and not extension.busy)
    (view,) = extension.board.results()
    return view.id


def test_they_stand_in_a_row_with_their_own_seeds(two, extension):
    assert_in_a_row()
    assert extension.session.runner.journal.get(two).fulfilled
    assert sum(read(obj).cost["amount"] for obj in models()) == pytest.approx(2 * 0.0256)


def test_each_is_one_undo_step(two):
    for left in (1, 0):
        bpy.ops.ed.undo()
        assert len(models()) == left


def test_one_that_is_broken_does_not_keep_the_other_away(two, extension, until, tmp_path):
    (good, _) = extension.session.runner.journal.get(two).files
    extension.session.runner.journal.note(two, files=[str(tmp_path / "gone.glb"), good])
    bpy.data.batch_remove(models())
    bpy.context.scene.cursor.location = (1, 2, 3)
    bpy.ops.trellis.import_result(job_id=two)
    view = extension.board.views[two]
    until(lambda: bool(view.error) and not extension.busy)
    (model,) = models()
    assert read(model).seed == 41 and model.location[:] == (1, 2, 3)
    assert "gone.glb is gone" in view.error


def test_with_the_scene_gone_after_the_first_the_others_wait(runware, extension, until, picture):
    ask(picture)
    until(lambda: len(models()) == 1)
    bpy.ops.wm.read_homefile(use_empty=True)
    until(lambda: not extension.busy)
    assert not models() and len(extension.board.results()) == 1


@pytest.fixture
def background(config, runware, temporary):
    bpy.ops.wm.read_factory_settings(use_empty=True)
    blender_trellis.register()
    yield bpy.context.scene
    blender_trellis.unregister()
    bpy.ops.wm.read_factory_settings(use_empty=True)


def test_in_background_mode_they_stand_in_the_same_row(background, picture):
    assert ask(picture) == {"FINISHED"}
    assert_in_a_row()


@pytest.fixture
def own_runner():
    api._runner.cache_clear()
    yield
    api._runner().close()
    api._runner.cache_clear()


def test_scripts_import_them_in_the_same_row(background, own_runner, picture):
    result = api.generate([picture], endpoint=ENDPOINT, seed=40, numberResults=2)
    background.cursor.location = (1, 2, 3)
    assert len(api.import_result(result)) == 2
    assert_in_a_row()

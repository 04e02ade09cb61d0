# SPDX-License-Identifier: GPL-3.0-or-later
"""Operators in background mode, as scripts call them: they wait, import, and say in words what is wrong."""

import bpy
import pytest

import blender_trellis
from blender_trellis.scene.recipe import read
from blender_trellis.ui import orders


@pytest.fixture
def scene(config, temporary):
    bpy.ops.wm.read_factory_settings(use_empty=True)
    blender_trellis.register()
    bpy.context.scene.trellis.local_draft.resolution = "512"
    yield bpy.context.scene
    blender_trellis.unregister()
    bpy.ops.wm.read_factory_settings(use_empty=True)


def test_generate_waits_and_imports(scene, picture, temporary):
    scene.trellis.local_draft.decimation_target = 6000
    scene.trellis.seed = 42
    scene.cursor.location = (0, 3, 0)
    bpy.ops.trellis.add_images(filepath=str(picture))
    assert bpy.ops.trellis.generate() == {"FINISHED"}
    (model,) = (obj for obj in scene.objects if read(obj))
    assert model.location[:] == (0, 3, 0) and model.name == picture.stem
    assert read(model).seed == 42 and read(model).parameters["decimation_target"] == 6000
    assert not list(temporary.iterdir())
    assert bpy.ops.trellis.import_result(job_id=read(model).job_id) == {"FINISHED"}
    assert sum(read(obj) is not None for obj in scene.objects) == 2


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({}, "There is no image. Add one."),
        ({"filepath": "/nowhere/a.png"}, "There is no image .*a.png. Check the path."),
        (
            {"endpoint": "fal-ai/trellis-9"},
            "There is no endpoint 'fal-ai/trellis-9'. Did you mean fal-ai/trellis",
        ),
    ],
)
def test_what_is_wrong_is_a_runtime_error_in_words(scene, arguments, words):
    with pytest.raises(RuntimeError, match=words):
        bpy.ops.trellis.generate(**arguments)
    assert not scene.objects


def test_too_many_images_are_told_before_anything_is_sent(scene, picture):
    for _ in range(6):
        bpy.ops.trellis.add_images(filepath=str(picture))
    assert orders.missing(scene) == "Remove 2 of the images: this takes 4"


def test_images_are_added_replaced_moved_and_removed(scene, picture, tmp_path):
    settings = scene.trellis
    files = [{"name": name} for name in ("b.png", "c.png")]
    bpy.ops.trellis.add_images(filepath=str(picture))
    bpy.ops.trellis.add_images(directory=str(tmp_path), files=files)
    names = [picture.name, "b.png", "c.png"]
    assert [bpy.path.basename(item.filepath) for item in settings.images] == names
    assert settings.active == 1
    bpy.ops.trellis.move_image(direction="UP")
    assert settings.images[0].filepath == str(tmp_path / "b.png") and settings.active == 0
    bpy.ops.trellis.remove_image()
    assert len(settings.images) == 2
    bpy.ops.trellis.add_images(filepath=str(picture), replace=True)
    assert [item.filepath for item in settings.images] == [str(picture)]
    bpy.ops.trellis.remove_image()
    assert not bpy.ops.trellis.remove_image.poll()


def test_services_need_online_access_and_a_key_and_local_ones_do_not(scene, monkeypatch):
    assert orders.unreachable("local/draft") == ""
    monkeypatch.setenv("TRELLIS_SIDECAR_URL", "https://gpu.example.org")
    expected = "" if bpy.app.online_access else orders.OFFLINE
    assert orders.unreachable("local/draft") == expected
    monkeypatch.setenv("TRELLIS_FAL_QUEUE_URL", "http://127.0.0.1:9")
    assert orders.unreachable("fal-ai/trellis-2") == "Set the key for fal in the preferences"
    monkeypatch.setenv("FAL_KEY", "k")
    assert orders.unreachable("fal-ai/trellis-2") == ""

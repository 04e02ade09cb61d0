# SPDX-License-Identifier: GPL-3.0-or-later
"""All or nothing, and nothing of the user's work disturbed."""

from __future__ import annotations

import itertools
from pathlib import Path

import bpy
import pytest
from mathutils import Vector

from blender_trellis import errors
from blender_trellis.scene.append import append, beside
from blender_trellis.scene.importer import import_blocking, write_blend
from blender_trellis.scene.recipe import Recipe
from scene import glbs


def counts() -> dict[str, list[str]]:
    """The names of every datablock of the file, by kind."""
    kinds = {p.identifier for p in bpy.data.bl_rna.properties if p.type == "COLLECTION"}
    kinds.discard("all_ids")  # 5.2 has them all once more
    return {kind: sorted(item.name_full for item in getattr(bpy.data, kind)) for kind in kinds}


@pytest.fixture
def model(folder: Path, recipe: Recipe) -> Path:
    pictures = {"baseColor": glbs.picture(1, 64), "normal": glbs.picture(2, 64)}
    glb = glbs.write(folder / "m.glb", [glbs.sphere(16, 32)], glbs.Material(pictures))
    return write_blend(glb, recipe, folder / "m.blend", name="Model")


@pytest.fixture
def user_object() -> bpy.types.Object:
    """Something of the user's, selected and active."""
    obj = bpy.data.objects.new("Mine", bpy.data.meshes.new("Mine"))
    obj.data.from_pydata([(0, 0, 0), (1, 0, 0), (0, 1, 0)], [], [(0, 1, 2)])
    bpy.context.scene.collection.objects.link(obj)
    obj.select_set(True)
    bpy.context.view_layer.objects.active = obj
    return obj


def test_becomes_the_selection_in_object_mode(model: Path, user_object: bpy.types.Object) -> None:
    (obj,) = append(model, scene=bpy.context.scene)
    assert bpy.context.view_layer.objects.active == obj
    assert list(bpy.context.view_layer.objects.selected) == [obj]


@pytest.mark.parametrize("mode", ["EDIT", "SCULPT", "VERTEX_PAINT", "WEIGHT_PAINT"])
def test_other_modes_are_left_alone(model: Path, user_object: bpy.types.Object, mode: str) -> None:
    bpy.ops.object.mode_set(mode=mode)
    (obj,) = append(model, scene=bpy.context.scene)
    assert user_object.mode == mode
    assert bpy.context.view_layer.objects.active == user_object
    assert list(bpy.context.view_layer.objects.selected) == [user_object]
    assert obj.name in bpy.context.scene.objects


def test_goes_to_the_scene_that_asked(model: Path, user_object: bpy.types.Object) -> None:
    other = bpy.data.scenes.new("Other")
    other.cursor.location = (3, 2, 1)
    (obj,) = append(model, scene=other)
    assert tuple(obj.location) == (3, 2, 1)
    assert list(other.objects) == [obj]
    assert other.view_layers[0].objects.active == obj
    assert list(bpy.context.scene.objects) == [user_object]
    assert bpy.context.view_layer.objects.active == user_object


def test_import_disturbs_nothing_else(
    model: Path, user_object: bpy.types.Object, recipe: Recipe
) -> None:
    scene = bpy.context.scene
    scene.frame_set(17)
    scene.cursor.location = (1, 2, 3)
    before = counts()
    import_blocking(model.with_suffix(".glb"), recipe, name="Model", location=(0, 0, 0))
    assert scene.frame_current == 17
    assert tuple(scene.cursor.location) == (1, 2, 3)
    added = {
        kind: len(now) - len(before[kind]) for kind, now in counts().items() if now != before[kind]
    }
    assert added == {"objects": 1, "meshes": 1, "materials": 1, "images": 2, "collections": 1}


def truncate(blend: Path) -> None:
    blend.write_bytes(blend.read_bytes()[: blend.stat().st_size // 2])


def empty(blend: Path) -> None:
    blend.write_bytes(b"")


def remove(blend: Path) -> None:
    blend.unlink()


def without_collection(blend: Path) -> None:
    bpy.data.libraries.write(str(blend), {bpy.context.scene})


def text(blend: Path) -> None:
    blend.write_text("BLENDER is a word")


@pytest.mark.parametrize("spoil", [truncate, empty, remove, without_collection, text])
def test_broken_file_leaves_nothing(model: Path, user_object: bpy.types.Object, spoil) -> None:  # type: ignore[no-untyped-def]
    spoil(model)
    before = counts()
    with pytest.raises(errors.ResultError):
        append(model, scene=bpy.context.scene)
    assert counts() == before
    assert list(bpy.context.scene.collection.children) == []
    assert bpy.context.view_layer.objects.active == user_object
    assert list(bpy.context.view_layer.objects.selected) == [user_object]


def test_failure_after_loading_takes_everything_back(
    model: Path, user_object: bpy.types.Object
) -> None:
    before = counts()
    with pytest.raises((TypeError, ValueError)):
        append(model, scene=bpy.context.scene, location=("not", "a", "place"))  # type: ignore[arg-type]
    assert counts() == before
    assert list(bpy.context.scene.collection.children) == []
    assert list(bpy.context.view_layer.objects.selected) == [user_object]


@pytest.mark.parametrize("parts", [1, 2])
@pytest.mark.parametrize("scale_length", [1.0, 0.01])
def test_several_models_stand_in_a_row_along_x_with_gaps(
    folder: Path, recipe: Recipe, parts: int, scale_length: float
) -> None:
    scene = bpy.context.scene
    scene.unit_settings.scale_length = scale_length
    shapes = [glbs.box((3, 1, 1), (number * 2, 0, 0)) for number in range(parts)]
    glb = glbs.write(folder / "wide.glb", shapes)
    place, spans = (1.0, 2.0, 3.0), []
    for _ in range(3):
        objects = import_blocking(glb, recipe, name="Wide", location=place)
        place = tuple(beside(objects))
        assert place[1:] == (2.0, 3.0)
        bpy.context.view_layer.update()
        corners = [
            (obj.matrix_world @ Vector(corner)).x
            for obj in objects
            if obj.type == "MESH"
            for corner in obj.bound_box
        ]
        spans.append((min(corners), max(corners)))
    width = spans[0][1] - spans[0][0]
    assert width == pytest.approx((1 + 2 * parts) / scale_length)
    for (_, end), (start, _) in itertools.pairwise(spans):
        assert start - end == pytest.approx(width / 5, rel=1e-4)


def test_without_select_the_selection_stays(model: Path, user_object: bpy.types.Object) -> None:
    (obj,) = append(model, scene=bpy.context.scene, select=False)
    assert not obj.select_get()
    assert bpy.context.view_layer.objects.active == user_object
    assert list(bpy.context.view_layer.objects.selected) == [user_object]

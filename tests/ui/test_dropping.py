# SPDX-License-Identifier: GPL-3.0-or-later
"""Pictures that are dropped: they become the views, and the model stands where they fell."""

import math
from pathlib import Path
from types import SimpleNamespace

import bpy
import pytest
from mathutils import Matrix, Vector

from blender_trellis.ui import operators_drop, operators_scene, orders, places

from . import layouts

DOWN = Vector((0, 0, -1))


def drop(*paths: Path, **more: object) -> set[str]:
    files = [{"name": path.name} for path in paths]
    return bpy.ops.trellis.drop_images(directory=str(paths[0].parent), files=files, **more)


def test_pictures_dropped_on_the_panel_take_the_place_of_the_others(extension, picture):
    settings = bpy.context.scene.trellis
    bpy.ops.trellis.add_images(filepath=str(picture.with_name("old.png")))
    assert drop(picture, picture.with_name("side.png")) == {"FINISHED"}
    assert [Path(item.filepath) for item in settings.images] == [
        picture,
        picture.with_name("side.png"),
    ]
    assert settings.active == 0 and not settings.drop_set
    bpy.context.scene.cursor.location = (4, 5, 6)
    assert orders.order_of(bpy.context.scene).wish["location"] == (4, 5, 6)


def wanted() -> tuple[float, ...]:
    """Where the next model is to stand."""
    return orders.order_of(bpy.context.scene).wish["location"]


def test_a_drop_is_for_one_model_and_leaves_the_place_that_was_chosen(extension, fal, picture):
    fal.script.held = True
    bpy.context.scene.trellis.endpoint = "fal-ai/trellis-2"
    bpy.ops.trellis.place(at=(7, 8, 9))
    drop(picture, at=(1, 2, 3))
    bpy.ops.trellis.generate(filepath=str(picture))  # another picture, not the one that was dropped
    assert wanted() == (1, 2, 3)
    assert bpy.ops.trellis.generate() == {"FINISHED"}
    assert wanted() == (7, 8, 9)


def test_a_drop_goes_with_its_pictures(extension, picture):
    for replace in (True, False):
        drop(picture, at=(1, 2, 3))
        bpy.ops.trellis.add_images(filepath=str(picture))  # a further view
        assert wanted() == (1, 2, 3)
        if not replace:
            bpy.ops.trellis.remove_image()
            bpy.ops.trellis.remove_image()
        bpy.ops.trellis.add_images(filepath=str(picture), replace=replace)
        assert wanted() == (0, 0, 0)


def test_a_drop_point_is_shown_and_can_be_forgotten(extension, picture):
    from blender_trellis.ui.panels import TRELLIS_PT_generate

    bpy.ops.trellis.place(at=(7, 8, 9))
    drop(picture, at=(1, 2, 3))
    assert "trellis.clear_drop" in layouts.draw(TRELLIS_PT_generate).names()
    assert bpy.ops.trellis.clear_drop() == {"FINISHED"}
    assert orders.order_of(bpy.context.scene).wish["location"] == (0, 0, 0)
    assert "trellis.clear_drop" not in layouts.draw(TRELLIS_PT_generate).names()
    with pytest.raises(RuntimeError, match="Drop an image on the viewport, or choose a place"):
        bpy.ops.trellis.clear_drop()


def test_blender_offers_the_operator_for_pictures(extension):
    handler = operators_drop.TRELLIS_FH_images
    assert handler.is_registered
    assert {".png", ".jpg", ".webp"} <= set(handler.bl_file_extensions.split(";"))
    assert hasattr(bpy.types, "TRELLIS_OT_drop_images")


def met(
    origin: tuple[float, float, float], direction: Vector, farthest: float = 100
) -> Vector | None:
    scene = bpy.context.scene
    scene.view_layers[0].update()
    depsgraph = bpy.context.evaluated_depsgraph_get()
    return places.met(scene, depsgraph, Vector(origin), direction.normalized(), farthest)


def test_the_nearest_surface_under_the_mouse_is_met(extension):
    bpy.ops.mesh.primitive_plane_add(size=2, location=(0, 0, 2), rotation=(math.pi / 4, 0, 0))
    assert met((0, 0.5, 10), DOWN)[:] == pytest.approx((0, 0.5, 2.5))


def test_the_ground_is_met_where_there_is_no_surface(extension):
    assert met((3, 0, 4), Vector((0, 3, -4)))[:] == pytest.approx((3, 3, 0), abs=1e-6)


@pytest.mark.parametrize("direction", [Vector((0, 0, 1)), Vector((1, 0, 0)), Vector((1, 0, -1e-3))])
def test_nothing_is_met_above_the_horizon_nor_far_away(extension, direction):
    assert met((0, 0, 1), direction) is None


def test_in_quad_view_the_line_of_sight_is_that_of_the_view_under_the_mouse(extension):
    """It looks down and is four units wide; the mouse is left of its middle, and above it."""
    matrix = Matrix.Translation((0, 0, -10))
    view = SimpleNamespace(
        is_perspective=False,
        view_perspective="ORTHO",
        view_matrix=matrix,
        perspective_matrix=Matrix.Diagonal((0.5, 0.5, -0.01, 1)) @ matrix,
        view_distance=10.0,
    )
    region = SimpleNamespace(x=100, y=50, width=200, height=200, data=view)
    depsgraph = bpy.context.evaluated_depsgraph_get()
    place = places.under(bpy.context.scene, depsgraph, region, (150, 200))
    assert place[:] == pytest.approx((-1, 1, 0), abs=1e-5)


@pytest.mark.parametrize(
    ("kind", "alt", "done"),
    [
        ("LEFTMOUSE", True, "PASS_THROUGH"),
        ("MOUSESMARTZOOM", False, "PASS_THROUGH"),
        ("MIDDLEMOUSE", False, "PASS_THROUGH"),
        ("MOUSEMOVE", False, "RUNNING_MODAL"),
    ],
)
def test_the_view_can_be_turned_while_a_place_is_chosen(kind, alt, done):
    event = SimpleNamespace(type=kind, alt=alt, value="PRESS", mouse_x=-1, mouse_y=-1)
    assert operators_scene.TRELLIS_OT_place.modal(None, bpy.context, event) == {done}

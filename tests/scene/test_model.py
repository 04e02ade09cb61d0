# SPDX-License-Identifier: GPL-3.0-or-later
"""What a GLB looks like once it stands in the scene: shape, place, shading, material, textures, recipe."""

from __future__ import annotations

from pathlib import Path

import bpy
import numpy as np
import pytest

from blender_trellis.scene.importer import import_blocking
from blender_trellis.scene.recipe import PROPERTY, Recipe, read
from scene import glbs


def vertices(obj: bpy.types.Object) -> np.ndarray:
    return np.array([obj.matrix_world @ v.co for v in obj.data.vertices])


def principled(obj: bpy.types.Object) -> bpy.types.Node:
    nodes = obj.data.materials[0].node_tree.nodes
    return next(node for node in nodes if node.type == "BSDF_PRINCIPLED")


def texture(socket: bpy.types.NodeSocket) -> bpy.types.Image:
    node = socket.links[0].from_node
    while node.type != "TEX_IMAGE":
        node = next(s for s in node.inputs if s.is_linked).links[0].from_node
    return node.image


def test_stands_at_the_cursor_on_its_bottom_centre(folder: Path, recipe: Recipe) -> None:
    glb = glbs.write(folder / "box.glb", [glbs.box((1, 2, 4), (5, 6, 7))])
    scene = bpy.context.scene
    scene.cursor.location = (10, 20, 30)
    (obj,) = import_blocking(glb, recipe, name="Box")
    bpy.context.view_layer.update()
    points = vertices(obj)
    # glTF's y is up and its z is to the front: depth 4 lies along Blender's y
    assert points.min(0) == pytest.approx([9.5, 18, 30], abs=1e-5)
    assert points.max(0) == pytest.approx([10.5, 22, 32], abs=1e-5)
    assert tuple(obj.location) == (10, 20, 30)
    assert tuple(obj.scale) == (1, 1, 1)
    assert obj.rotation_mode == "XYZ"
    assert tuple(obj.rotation_euler) == (0, 0, 0)


def test_front_of_the_gltf_is_the_front_in_blender(folder: Path, recipe: Recipe) -> None:
    shape = glbs.box((1, 1, 1))
    tip = shape.positions[:, 2] > 0
    shape.positions[tip, 2] += 3 * (shape.positions[tip, 1] > 0)
    (obj,) = import_blocking(glbs.write(folder / "b.glb", [shape]), recipe, name="B")
    points = vertices(obj)
    assert points[:, 1].min() == pytest.approx(-2)
    assert points[points[:, 1] < -1.99][:, 2] == pytest.approx(1)


@pytest.mark.parametrize(("scale_length", "tall"), [(1.0, 1.8), (0.01, 180.0)])
def test_height_is_in_metres(
    folder: Path, recipe: Recipe, scale_length: float, tall: float
) -> None:
    bpy.context.scene.unit_settings.scale_length = scale_length
    glb = glbs.write(folder / "s.glb", [glbs.sphere(12, 24, 0.3, (0, 5, 0))])
    (obj,) = import_blocking(glb, recipe, name="S", height=1.8, location=(0, 0, 0))
    points = vertices(obj)
    assert points[:, 2].min() == pytest.approx(0, abs=1e-4)
    assert points[:, 2].max() == pytest.approx(tall, rel=1e-5)
    assert tuple(obj.scale) == (1, 1, 1)


def test_seam_is_closed_and_smooth_without_custom_normals(folder: Path, recipe: Recipe) -> None:
    glb = glbs.write(folder / "s.glb", [glbs.sphere(16, 32)])
    (obj,) = import_blocking(glb, recipe, name="S", location=(0, 0, 0))
    mesh = obj.data
    # a closed sphere: V - E + F = 2, where every edge has two faces
    assert len(mesh.vertices) - len(mesh.edges) + len(mesh.polygons) == 2
    assert len(mesh.edges) * 2 == len(mesh.polygons) * 3
    assert not mesh.has_custom_normals
    assert all(face.use_smooth for face in mesh.polygons)
    assert len(mesh.uv_layers) == 1


def test_hard_edges_stay_hard(folder: Path, recipe: Recipe) -> None:
    (obj,) = import_blocking(glbs.write(folder / "b.glb", [glbs.box((1, 1, 1))]), recipe, name="B")
    mesh = obj.data
    normals = np.array([mesh.corner_normals[i].vector for i in range(len(mesh.loops))])
    assert np.abs(normals).max(1) == pytest.approx(1)


def test_normals_that_the_shape_does_not_have_are_kept(folder: Path, recipe: Recipe) -> None:
    # plain smooth normals of any box point along (1, 1, 1), these stand on the sphere around it
    shape = glbs.box((1, 2, 4))
    shape.normals = shape.positions / np.linalg.norm(shape.positions, axis=1, keepdims=True)
    (obj,) = import_blocking(glbs.write(folder / "b.glb", [shape]), recipe, name="B")
    mesh = obj.data
    assert len(mesh.vertices) == 8
    normals = np.array([mesh.corner_normals[i].vector for i in range(len(mesh.loops))])
    expected = np.tile(np.array([1, 4, 2]) / 21**0.5, (len(normals), 1))
    assert np.abs(normals) == pytest.approx(expected, abs=1e-3)
    assert obj.data.name == "B"


def test_one_mesh_is_one_object_named_after_the_picture(folder: Path, recipe: Recipe) -> None:
    glb = glbs.write(folder / "s.glb", [glbs.sphere(8, 16)])
    for suffix in ("", ".001"):
        (obj,) = import_blocking(glb, recipe, name="Katze 猫")
        assert obj.name == obj.data.name == "Katze 猫" + suffix
        assert [c.name for c in obj.users_collection] == ["Katze 猫" + suffix]
        assert obj.parent is None
    assert len(bpy.context.scene.collection.children) == 2
    assert len(bpy.data.objects) == len(bpy.data.meshes) == len(bpy.data.materials) == 2
    assert not bpy.data.libraries
    assert len(bpy.data.scenes) == 1


def test_several_meshes_hang_on_one_empty(folder: Path, recipe: Recipe) -> None:
    second = glbs.box((1, 1, 1))
    second.translation = (4, 0, 0)
    glb = glbs.write(folder / "two.glb", [glbs.box((2, 2, 2)), second])
    root, *parts = import_blocking(glb, recipe, name="Two", location=(1, 1, 1), height=4)
    bpy.context.view_layer.update()
    assert root.type == "EMPTY"
    assert tuple(root.location) == (1, 1, 1)
    assert [p.parent for p in parts] == [root, root]
    assert all(tuple(p.location) == (0, 0, 0) and tuple(p.scale) == (1, 1, 1) for p in parts)
    points = np.concatenate([vertices(p) for p in parts])
    assert points.min(0) == pytest.approx([1 - 5.5, 1 - 2, 1], abs=1e-5)
    assert points.max(0) == pytest.approx([1 + 5.5, 1 + 2, 5], abs=1e-5)
    assert read(root) == recipe
    assert [read(p) for p in parts] == [None, None]
    assert len(bpy.data.objects) == 3


def test_cameras_lights_and_empties_of_the_glb_do_not_arrive(folder: Path, recipe: Recipe) -> None:
    glb = glbs.write(
        folder / "c.glb",
        [glbs.box((1, 1, 1))],
        nodes=[{"mesh": 0}, {"camera": 0}, {"name": "empty"}],
        scenes=[{"nodes": [0, 1, 2]}, {"nodes": [2]}],
        cameras=[{"type": "perspective", "perspective": {"yfov": 1, "znear": 0.1}}],
    )
    assert len(import_blocking(glb, recipe, name="Box")) == 1
    assert len(bpy.data.objects) == 1
    assert not bpy.data.cameras
    assert len(bpy.data.collections) == 1


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_textures_are_packed_as_they_were(folder: Path, recipe: Recipe, kind: str) -> None:
    roles = ("baseColor", "metallicRoughness", "normal")
    pictures = {role: glbs.picture(i, 32, kind) for i, role in enumerate(roles)}
    glb = glbs.write(folder / "t.glb", [glbs.sphere(8, 16)], glbs.Material(pictures))
    (obj,) = import_blocking(glb, recipe, name="T")
    shader = principled(obj)
    found = {
        "baseColor": texture(shader.inputs["Base Color"]),
        "metallicRoughness": texture(shader.inputs["Roughness"]),
        "normal": texture(shader.inputs["Normal"]),
    }
    assert texture(shader.inputs["Metallic"]) == found["metallicRoughness"]
    assert {role: image.packed_file.data for role, image in found.items()} == pictures
    assert all(tuple(image.size) == (32, 32) for image in found.values())
    spaces = [image.colorspace_settings.name for image in found.values()]
    assert spaces == ["sRGB", "Non-Color", "Non-Color"]
    names = ["T base colour", "T metallic roughness", "T normal"]
    assert [image.name for image in found.values()] == names
    assert obj.data.materials[0].name == "T"


@pytest.mark.parametrize(("mode", "linked"), [("OPAQUE", False), ("MASK", True), ("BLEND", True)])
def test_alpha_is_what_the_glb_says(folder: Path, recipe: Recipe, mode: str, linked: bool) -> None:
    material = glbs.Material(
        {"baseColor": glbs.picture(1, alpha=True)},
        {"alphaMode": mode, "doubleSided": True},
    )
    glb = glbs.write(folder / "a.glb", [glbs.sphere(8, 16)], material)
    (obj,) = import_blocking(glb, recipe, name="A")
    socket = principled(obj).inputs["Alpha"]
    assert socket.is_linked is linked
    assert linked or socket.default_value == 1.0
    assert obj.data.materials[0].surface_render_method == "DITHERED"
    assert not obj.data.materials[0].use_backface_culling


def test_specular_is_plain_unless_the_glb_says_otherwise(folder: Path, recipe: Recipe) -> None:
    extension = {"KHR_materials_specular": {"specularFactor": 0.2}}
    shapes = [glbs.sphere(8, 16)]
    plain = glbs.write(folder / "p.glb", shapes)
    tinted = glbs.write(
        folder / "t.glb",
        shapes,
        glbs.Material(extra={"extensions": extension}),
        extensionsUsed=list(extension),
    )
    for glb, level in ((plain, 0.5), (tinted, 0.1)):
        (obj,) = import_blocking(glb, recipe, name="S")
        shader = principled(obj)
        assert shader.inputs["Specular IOR Level"].default_value == pytest.approx(level)
        assert tuple(shader.inputs["Specular Tint"].default_value) == (1, 1, 1, 1)


def test_recipe_is_on_the_object(folder: Path, recipe: Recipe) -> None:
    (obj,) = import_blocking(glbs.write(folder / "s.glb", [glbs.box((1, 1, 1))]), recipe, name="S")
    assert read(obj) == recipe
    assert set(obj.keys()) == {PROPERTY}


@pytest.mark.parametrize(
    "junk", ["", "{", "[]", "3", '{"seed": 1}', '{"endpoint": "x", "images": 3}', 7]
)
def test_foreign_property_is_no_recipe(junk: str | int) -> None:
    obj = bpy.data.objects.new("x", None)
    obj[PROPERTY] = junk
    assert read(obj) is None
    assert read(bpy.data.objects.new("y", None)) is None
    assert read(None) is None


def test_recipe_of_a_later_version_is_read(recipe: Recipe) -> None:
    text = recipe.to_json().replace('{"endpoint"', '{"new": 1, "endpoint"', 1)
    assert Recipe.from_json(text) == recipe

# SPDX-License-Identifier: GPL-3.0-or-later
"""An object's mesh out to a service and back: the same shape at the same place, however the object is transformed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import addon_utils
import bpy
import numpy as np
import pytest
from mathutils import Euler, Matrix, Vector

from blender_trellis import errors
from blender_trellis.scene import retexture
from blender_trellis.scene.append import append
from blender_trellis.scene.importer import write_blend
from blender_trellis.scene.recipe import Recipe, read
from scene import glbs

WEDGE = [(0, 0, 0), (3, 0, 0), (0, 2, 0), (0, 0, 1), (3, 0, 0.5)]  # unlike from every side
FACES = [(0, 2, 1), (0, 1, 4, 3), (0, 3, 2), (1, 2, 4), (2, 3, 4)]


@pytest.fixture
def wedge() -> bpy.types.Object:
    mesh = bpy.data.meshes.new("Wedge mesh")
    mesh.from_pydata(WEDGE, [], FACES)
    mesh.uv_layers.new(name="Mine")
    mesh.materials.append(bpy.data.materials.new("Old paint"))
    obj = bpy.data.objects.new("Wedge", mesh)
    bpy.context.scene.collection.objects.link(obj)
    return obj


def plain(obj: bpy.types.Object) -> None:
    """As it was made."""


def turned(obj: bpy.types.Object) -> None:
    """Far from the origin, so that 32 bits are few."""
    obj.location, obj.rotation_euler, obj.scale = (300, -2, 5), (0.4, 1.1, -2), (0.5, 3, 1.5)


def sheared(obj: bpy.types.Object) -> None:
    """Below a parent with another rotation and uneven scale, which no location, rotation and scale can say."""
    parent = bpy.data.objects.new("Parent", None)
    bpy.context.scene.collection.objects.link(parent)
    parent.rotation_euler, parent.scale, parent.location = (1, 0.2, 0.7), (2, 0.3, 1), (4, 5, 6)
    obj.parent, obj.matrix_parent_inverse = parent, Matrix.Rotation(0.6, 4, "X")
    obj.location, obj.rotation_euler, obj.scale = (1, 2, 3), (0.4, 1.1, -2), (0.5, 3, 1.5)


def mirrored(obj: bpy.types.Object) -> None:
    sheared(obj)
    obj.scale.x *= -1


def world(obj: bpy.types.Object) -> np.ndarray:
    """(vertices, 3): where they are, modifiers applied."""
    depsgraph = bpy.context.evaluated_depsgraph_get()
    evaluated = obj.evaluated_get(depsgraph)
    return np.array([obj.matrix_world @ vertex.co for vertex in evaluated.data.vertices])


def volume(obj: bpy.types.Object) -> float:
    obj.data.calc_loop_triangles()
    points = np.array([vertex.co for vertex in obj.data.vertices])
    return enclosed(points[[t.vertices[:] for t in obj.data.loop_triangles]])


def enclosed(triangles: np.ndarray) -> float:
    """The volume within (triangles, 3, 3); negative where the faces look inwards."""
    a, b, c = triangles.swapaxes(0, 1)
    return float(np.einsum("ij,ij->", a, np.cross(b, c)) / 6)


def assert_same_shape(points: np.ndarray, others: np.ndarray) -> None:
    """Every point has one of the others at its place, and the other way round."""
    distances = np.linalg.norm(points[:, None] - others[None], axis=-1)
    assert distances.min(0).max() < 1e-4 and distances.min(1).max() < 1e-4
    assert points.min(0) == pytest.approx(others.min(0), abs=1e-4)
    assert points.max(0) == pytest.approx(others.max(0), abs=1e-4)


@pytest.fixture
def service(folder: Path, recipe: Recipe) -> Callable[[Path], Path]:
    """Makes the prepared .blend of what was sent."""

    def paint(glb: Path) -> Path:
        painted = folder / "painted.glb"
        painted.write_bytes(glbs.repaint(glb.read_bytes()))
        return write_blend(painted, recipe, folder / "painted.blend", name="New paint")

    return paint


@pytest.fixture
def there_and_back(
    service: Callable[[Path], Path], folder: Path
) -> Callable[[bpy.types.Object], None]:
    def go(obj: bpy.types.Object) -> None:
        sent = json.loads(json.dumps(retexture.export(obj, folder / "sent.glb")))
        blend = service(folder / "sent.glb")
        objects = append(blend, scene=bpy.context.scene, location=(9, 9, 9), select=False)
        retexture.put_back(objects, obj, sent)

    return go


def counts() -> dict[str, int]:
    kinds = ("objects", "meshes", "collections", "materials", "images", "scenes", "libraries")
    return {kind: len(getattr(bpy.data, kind)) for kind in kinds}


@pytest.mark.parametrize("transform", [plain, turned, sheared, mirrored])
def test_it_comes_back_to_its_place_with_a_new_texture(
    wedge: bpy.types.Object,
    there_and_back: Callable[[bpy.types.Object], None],
    recipe: Recipe,
    transform: Callable[[bpy.types.Object], None],
) -> None:
    transform(wedge)
    before, matrix, size, had = world(wedge), wedge.matrix_world.copy(), volume(wedge), counts()
    there_and_back(wedge)
    bpy.context.view_layer.update()
    assert_same_shape(world(wedge), before)
    assert wedge.matrix_world == matrix
    assert volume(wedge) == pytest.approx(size, rel=1e-4)
    assert len(wedge.data.polygons) == 6  # triangles, as services return them
    assert wedge.data.uv_layers.keys() == ["UVMap"]
    assert [material.name for material in wedge.data.materials] == ["New paint"]
    assert read(wedge) == recipe
    assert counts() == had | {"materials": had["materials"] + 1, "images": 2}
    assert not bpy.context.scene.collection.children


@pytest.mark.parametrize("transform", [sheared, mirrored])
def test_the_file_that_leaves_has_the_shape_and_nothing_else(
    wedge: bpy.types.Object, folder: Path, transform: Callable[[bpy.types.Object], None]
) -> None:
    transform(wedge)
    retexture.export(wedge, folder / "sent.glb")
    gltf, shape = glbs.read((folder / "sent.glb").read_bytes())
    assert [set(node) for node in gltf["nodes"]] == [{"mesh", "name"}]  # that is, no transform
    assert not {"materials", "images", "animations", "skins", "cameras"} & set(gltf)
    for name in (b"Wedge", b"Parent", b"paint"):
        assert name not in (folder / "sent.glb").read_bytes()
    # glTF's y is up, Blender's z
    sent = shape.positions[:, [0, 2, 1]] * (1, -1, 1)
    assert_same_shape(sent, world(wedge))
    assert volume(wedge) > 0 and enclosed(sent[shape.triangles]) > 0


def test_sending_changes_neither_file_nor_selection(wedge: bpy.types.Object, folder: Path) -> None:
    other = bpy.data.objects.new("Other", None)
    bpy.context.scene.collection.objects.link(other)
    other.select_set(True)
    bpy.context.view_layer.objects.active = wedge
    wedge.keyframe_insert("location", frame=1)
    wedge.location = (7, 7, 7)  # without a key: lost when another frame is looked at
    had = counts()
    retexture.export(wedge, folder / "sent.glb")
    assert counts() == had and wedge.location[:] == (7, 7, 7)
    assert list(bpy.context.view_layer.objects.selected) == [other]
    assert bpy.context.view_layer.objects.active == wedge
    assert list(bpy.context.scene.collection.objects) == [wedge, other]


def test_selection_stays_when_it_comes_back(
    wedge: bpy.types.Object, there_and_back: Callable[[bpy.types.Object], None]
) -> None:
    other = bpy.data.objects.new("Other", None)
    bpy.context.scene.collection.objects.link(other)
    other.select_set(True)
    bpy.context.view_layer.objects.active = other
    there_and_back(wedge)
    assert list(bpy.context.view_layer.objects.selected) == [other]
    assert bpy.context.view_layer.objects.active == other


def test_what_is_moved_meanwhile_stays_moved(
    wedge: bpy.types.Object, service: Callable[[Path], Path], folder: Path
) -> None:
    turned(wedge)
    local = np.array(WEDGE)
    sent = retexture.export(wedge, folder / "sent.glb")
    objects = append(service(folder / "sent.glb"), scene=bpy.context.scene, select=False)
    wedge.matrix_world = Matrix.LocRotScale(Vector((1, 2, 3)), Euler((1, 1, 1)), Vector((2, 1, 1)))
    retexture.put_back(objects, wedge, sent)
    bpy.context.view_layer.update()
    assert_same_shape(world(wedge), np.array([wedge.matrix_world @ Vector(co) for co in local]))


def test_modifiers_are_applied_once_and_kept(
    wedge: bpy.types.Object, there_and_back: Callable[[bpy.types.Object], None]
) -> None:
    sheared(wedge)
    copies = wedge.modifiers.new("Copies", "ARRAY")
    copies.count = 3
    unused = wedge.modifiers.new("Only rendered", "SUBSURF")
    unused.show_viewport = False
    hair = wedge.modifiers.new("Hair", "PARTICLE_SYSTEM")
    before = world(wedge)
    assert len(before) == 15
    there_and_back(wedge)
    assert_same_shape(world(wedge), before)
    assert len(wedge.data.polygons) == 18
    assert [modifier.name for modifier in wedge.modifiers] == ["Copies", "Only rendered", "Hair"]
    assert not copies.show_viewport and not copies.show_render and copies.count == 3
    assert unused.show_render and not unused.show_viewport
    assert hair.show_viewport and hair.show_render


def test_all_but_the_mesh_stays(
    wedge: bpy.types.Object, there_and_back: Callable[[bpy.types.Object], None]
) -> None:
    sheared(wedge)
    collection = bpy.data.collections.new("Props")
    bpy.context.scene.collection.children.link(collection)
    collection.objects.link(wedge)
    wedge["price"] = 7
    twin = wedge.copy()
    collection.objects.link(twin)
    parent, collections, mesh = wedge.parent, set(wedge.users_collection), wedge.data
    there_and_back(wedge)
    assert wedge.name == "Wedge" and wedge["price"] == 7 and wedge.parent == parent
    assert set(wedge.users_collection) == collections
    assert twin.data == mesh and [m.name for m in mesh.materials] == ["Old paint"]
    assert read(twin) is None


def test_the_new_mesh_takes_the_name_of_one_that_nobody_needs(
    wedge: bpy.types.Object, there_and_back: Callable[[bpy.types.Object], None]
) -> None:
    there_and_back(wedge)
    assert [mesh.name for mesh in bpy.data.meshes] == ["Wedge mesh"]


def test_a_material_of_the_object_does_not_hide_the_new_one(
    wedge: bpy.types.Object, there_and_back: Callable[[bpy.types.Object], None]
) -> None:
    wedge.material_slots[0].link = "OBJECT"
    wedge.material_slots[0].material = bpy.data.materials.new("Own")
    there_and_back(wedge)
    assert [slot.material.name for slot in wedge.material_slots] == ["New paint"]


def test_several_meshes_become_one(wedge: bpy.types.Object, folder: Path, recipe: Recipe) -> None:
    sent = retexture.export(wedge, folder / "sent.glb")
    parts = [glbs.box((1, 1, 1)), glbs.box((1, 2, 1), (4, 0, 0))]
    painted = glbs.write(folder / "p.glb", parts, glbs.Material({"baseColor": glbs.picture(1)}))
    blend = write_blend(painted, recipe, folder / "p.blend", name="Two")
    objects = append(blend, scene=bpy.context.scene, select=False)
    assert len(objects) == 3
    objects[2].data.materials[0] = bpy.data.materials.new("Second")
    retexture.put_back(objects, wedge, sent)
    assert len(wedge.data.vertices) == 48 and len(wedge.data.polygons) == 24
    assert len(wedge.data.materials) == 2 and wedge.data.materials[1].name == "Second"
    slots = [polygon.material_index for polygon in wedge.data.polygons]
    assert slots == [0] * 12 + [1] * 12
    (layer,) = wedge.data.uv_layers
    assert {tuple(uv.vector) for uv in layer.uv} == {(0, 0), (0, 1), (1, 0), (1, 1)}
    points = world(wedge)
    # 5 long, 2 tall and 1 deep, as long as the wedge: 3
    assert np.ptp(points, axis=0) == pytest.approx([3, 0.6, 1.2], abs=1e-4)
    assert (points.min(0) + points.max(0)) / 2 == pytest.approx([1.5, 1, 0.5], abs=1e-4)
    assert len(bpy.data.meshes) == 1 and len(bpy.data.objects) == 1


def without_faces(obj: bpy.types.Object) -> None:
    obj.data.clear_geometry()


def flattened(obj: bpy.types.Object) -> None:
    obj.scale = (1, 0, 1)


def pointlike(obj: bpy.types.Object) -> None:
    for vertex in obj.data.vertices:
        vertex.co = (1, 1, 1)


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (without_faces, "Wedge has no faces to texture"),
        (flattened, "Wedge is scaled to nothing"),
        (pointlike, "Wedge has no size"),
    ],
)
def test_what_cannot_be_sent_is_told_in_words(
    wedge: bpy.types.Object,
    folder: Path,
    spoil: Callable[[bpy.types.Object], None],
    words: str,
) -> None:
    spoil(wedge)
    had = counts()
    with pytest.raises(errors.InputError, match=words):
        retexture.export(wedge, folder / "sent.glb")
    assert counts() == had and not list(folder.iterdir())


def test_without_blenders_exporter_it_says_what_to_enable(
    wedge: bpy.types.Object, folder: Path
) -> None:
    addon_utils.disable("io_scene_gltf2")
    had = counts()
    try:
        with pytest.raises(errors.InputError, match=r"add-on glTF 2\.0 is switched off"):
            retexture.export(wedge, folder / "sent.glb")
    finally:
        addon_utils.enable("io_scene_gltf2")
    assert counts() == had

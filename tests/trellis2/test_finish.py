# SPDX-License-Identifier: GPL-3.0-or-later
"""From a raw surface and its colours to a GLB, and what Blender makes of that GLB."""

from __future__ import annotations

import io
import json
import struct
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import bpy
import numpy as np
import pytest
from PIL import Image

pytest.importorskip("igl", reason="the local engine needs libigl and scipy")

from blender_trellis.generation.glb import Summary, check
from blender_trellis.scene.prepare import coordinates, prepare
from blender_trellis.scene.recipe import Recipe
from blender_trellis.sidecar.engines.trellis2.mesh import (
    PLAN,
    Atlas,
    MeshOptions,
    Surface,
    finish,
    paint,
)
from trellis2 import shapes

Array = np.ndarray[Any, Any]

FACES = 3000


@pytest.fixture(autouse=True)
def empty_file() -> Iterator[None]:
    bpy.ops.wm.read_factory_settings(use_empty=True)
    yield
    bpy.ops.wm.read_factory_settings(use_empty=True)


def options(**changes: Any) -> MeshOptions:
    wished = {"decimation_target": FACES, "texture_size": 512, "remesh": False, "resolution": 64}
    return MeshOptions(**{**wished, **changes})


def silent(message: str, done: float) -> None: ...


def surface() -> Surface:
    """A bumpy ball, with a smaller one above, to the right and in front of it."""
    large, small = shapes.blob(24), shapes.sphere(12, 0.1)
    moved = shapes.surface(small.points + np.float32([0.36, -0.3, 0.36]), small.faces)
    whole = shapes.together(large, moved)
    return shapes.surface(whole.points * 0.9, whole.faces)


def by_place(points: Array, alpha: float = 1.0) -> Array:
    """Colours that tell where they are; rough towards +X, metallic towards +Z."""
    x, _, z = points.T
    ends = [np.clip(z + 0.5, 0, 1), np.clip(x + 0.5, 0, 1), np.full(len(points), alpha)]
    return np.concatenate([points + 0.5, np.stack(ends, 1)], 1)


def glb(field: Any = by_place, **changes: Any) -> bytes:
    return finish(surface(), field, options(**changes), silent)


def document(data: bytes) -> dict[str, Any]:
    (length,) = struct.unpack_from("<I", data, 12)
    return dict(json.loads(data[20 : 20 + length]))


def stored_images(data: bytes) -> list[Array]:
    """The pictures in a GLB, (S, S, channels)."""
    (length,) = struct.unpack_from("<I", data, 12)
    found, binary = document(data), data[28 + length :]
    views = [found["bufferViews"][image["bufferView"]] for image in found["images"]]
    parts = [binary[view["byteOffset"] :][: view["byteLength"]] for view in views]
    return [np.asarray(Image.open(io.BytesIO(part))) for part in parts]


def checked(data: bytes, folder: Path) -> Summary:
    path = folder / "model.glb"
    path.write_bytes(data)
    return check(path)


def imported(data: bytes, folder: Path) -> bpy.types.Object:
    """The model as the add-on prepares it, in an empty file."""
    checked(data, folder)
    recipe = Recipe("local/trellis-2", {}, seed=1)
    model = prepare(folder / "model.glb", recipe, name="Model", height=None, metres_per_unit=1.0)
    (obj,) = model.objects
    return obj


def pixels(image: bpy.types.Image) -> Array:
    """(S, S, 4), rows from the bottom, 0..255."""
    values = np.empty(len(image.pixels), np.float32)
    image.pixels.foreach_get(values)
    return np.rint(values.reshape(*image.size, 4) * 255).astype(int)


def textures() -> tuple[bpy.types.Image, bpy.types.Image]:
    """Base colour, and metallic and roughness."""
    named = {image.name: image for image in bpy.data.images}
    return named["Model base colour"], named["Model metallic roughness"]


def principled(obj: bpy.types.Object) -> bpy.types.Node:
    (material,) = obj.data.materials
    return next(n for n in material.node_tree.nodes if n.type == "BSDF_PRINCIPLED")


def seen(obj: bpy.types.Object, image: bpy.types.Image) -> tuple[Array, Array]:
    """The middles of the faces, (F, 3), and what the texture shows there, (F, 4)."""
    mesh = obj.data
    corners = np.empty(len(mesh.loops), np.int32)
    mesh.loops.foreach_get("vertex_index", corners)
    uvs = np.empty(len(mesh.loops) * 2, np.float32)
    mesh.uv_layers[0].data.foreach_get("uv", uvs)
    middle = (uvs.reshape(-1, 3, 2).mean(1) * image.size[0]).astype(int)
    places = coordinates(mesh)[corners].reshape(-1, 3, 3).mean(1)
    return places, pixels(image)[middle[:, 1], middle[:, 0]]


def test_the_glb_is_whole_and_has_no_more_faces_than_wished(tmp_path: Path) -> None:
    data = glb()
    found = checked(data, tmp_path)
    assert (found.meshes, found.images) == (1, 2)
    assert 0.8 * FACES < found.triangles <= FACES
    assert {image.shape for image in stored_images(data)} == {(512, 512, 4), (512, 512, 3)}


def test_blender_shows_the_colours_where_they_were(tmp_path: Path) -> None:
    data = glb()
    obj = imported(data, tmp_path)
    triangles = checked(data, tmp_path).triangles
    assert len(obj.data.polygons) == triangles and obj.matrix_world == obj.matrix_world.Identity(4)
    # seams are closed again: every edge has its two faces
    assert len(obj.data.edges) * 2 == triangles * 3
    assert len(obj.material_slots) == 1
    colour, other = textures()
    for image, stored in zip((colour, other), stored_images(data), strict=True):
        got = pixels(image)[::-1, :, : stored.shape[2]]
        assert np.abs(got - stored.astype(int)).max() == 0
    assert colour.colorspace_settings.name == "sRGB"
    assert other.colorspace_settings.name == "Non-Color"
    # The middle of the bottom was put to the origin: the rest is as it was
    places, shown = seen(obj, colour)
    first = places - (shown[:, :3] / 255 - 0.5)
    assert np.abs(first - np.median(first, axis=0)).max() < 0.03
    places = places - np.median(first, axis=0)
    _, shown = seen(obj, other)
    assert shown[:, 1] / 255 - 0.5 == pytest.approx(places[:, 0], abs=0.03)
    assert shown[:, 2] / 255 - 0.5 == pytest.approx(places[:, 2], abs=0.03)


def test_faces_point_outwards_and_are_smooth_in_blender(tmp_path: Path) -> None:
    obj = imported(finish(shapes.sphere(24), by_place, options(), silent), tmp_path)
    mesh = obj.data
    assert not mesh.has_custom_normals
    centre = coordinates(mesh).mean(0)
    outwards = np.array([np.array(face.center) - centre for face in mesh.polygons])
    outwards /= np.linalg.norm(outwards, axis=1, keepdims=True)
    normals = np.array([face.normal for face in mesh.polygons])
    assert np.einsum("ij,ij->i", outwards, normals).min() > 0.9


@pytest.mark.parametrize(("alpha", "mode"), [(1.0, "OPAQUE"), (0.7, "OPAQUE"), (0.3, "BLEND")])
def test_only_what_is_mostly_transparent_lets_light_through(
    tmp_path: Path, alpha: float, mode: str
) -> None:
    data = glb(lambda points: by_place(points, alpha))
    assert document(data)["materials"][0]["alphaMode"] == mode
    assert (stored_images(data)[0][..., 3] == round(alpha * 255)).all()
    socket = principled(imported(data, tmp_path)).inputs["Alpha"]
    assert socket.is_linked == (mode == "BLEND")


@pytest.mark.parametrize("remesh", [False, True])
def test_only_a_closed_shell_hides_its_inside(remesh: bool) -> None:
    open_bowl = shapes.below(shapes.sphere(24), 0.1)
    data = finish(open_bowl, by_place, options(remesh=remesh, resolution=32), silent)
    assert document(data)["materials"][0]["doubleSided"] is not remesh


def test_webp_is_smaller_and_blender_reads_it(tmp_path: Path) -> None:
    # also of what is wholly transparent, whose colours WebP would drop
    def field(points: Array) -> Array:
        return by_place(points, 0.0)

    data, plain = (glb(field, texture_format=kind) for kind in ("webp", "png"))
    found = document(data)
    assert found["extensionsRequired"] == found["extensionsUsed"] == ["EXT_texture_webp"]
    assert {image["mimeType"] for image in found["images"]} == {"image/webp"}
    assert len(data) < len(plain)
    imported(data, tmp_path)
    for image, stored in zip(textures(), stored_images(plain), strict=True):
        got = pixels(image)[::-1, :, : stored.shape[2]]
        assert np.abs(got - stored.astype(int)).mean() < 3


@pytest.mark.parametrize("how", ["no field", "untextured"])
def test_without_a_texture_there_is_only_the_shape(tmp_path: Path, how: str) -> None:
    data = glb(None) if how == "no field" else glb(untextured=True)
    found = document(data)
    assert not {"materials", "textures", "images", "samplers"} & set(found)
    assert set(found["meshes"][0]["primitives"][0]["attributes"]) == {"POSITION", "NORMAL"}
    obj = imported(data, tmp_path)
    assert len(obj.data.polygons) == checked(data, tmp_path).triangles
    assert not obj.data.uv_layers and not bpy.data.images


def test_texture_coordinates_that_a_mesh_has_can_be_painted_on(tmp_path: Path) -> None:
    """A square of two triangles that fills the texture, seen from above: colours by place, nothing laid out anew."""
    corners = np.float32([[-0.4, -0.4, 0], [0.4, -0.4, 0], [0.4, 0.4, 0], [-0.4, 0.4, 0]])
    square = shapes.surface(corners, np.array([[0, 1, 2], [0, 2, 3]]))
    places = np.array([[0, 64], [64, 64], [64, 0], [0, 0]], float)
    atlas = Atlas(np.arange(4), places, square.faces, 64)
    data = paint(square, atlas, by_place, options(texture_size=64), silent)
    colour, _ = stored_images(data)
    columns = 0.1 + 0.8 * (np.arange(64) + 0.5) / 64
    assert colour[5, :, 0] / 255 == pytest.approx(columns, abs=0.003)
    assert colour[::-1][:, 5, 1] / 255 == pytest.approx(columns, abs=0.003)
    obj = imported(data, tmp_path)
    places, shown = seen(obj, textures()[0])
    assert shown[:, :2] / 255 - 0.5 == pytest.approx(places[:, :2], abs=0.02)


def test_progress_grows_from_part_to_part() -> None:
    told: list[tuple[str, float]] = []
    finish(surface(), by_place, options(), lambda message, done: told.append((message, done)))
    done = [fraction for _, fraction in told]
    assert sum(PLAN.values()) == pytest.approx(1)
    assert done == sorted(done) and done[0] >= 0 and done[-1] <= 1 + 1e-9


@pytest.mark.parametrize("part", PLAN)
def test_what_progress_raises_ends_every_part(part: str) -> None:
    class Stop(Exception):
        pass

    begin = sum(list(PLAN.values())[: list(PLAN).index(part)])

    def step(message: str, done: float) -> None:
        if done >= begin:
            raise Stop

    threads = threading.active_count()
    with pytest.raises(Stop):
        finish(surface(), by_place, options(), step)
    assert threading.active_count() == threads

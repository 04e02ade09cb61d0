# SPDX-License-Identifier: GPL-3.0-or-later
"""New textures for a mesh: it is read from any GLB, and comes back as it was, in the unit cube."""

from __future__ import annotations

import io
import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("torch", reason="TRELLIS.2's engine needs torch")

import torch

from blender_trellis.sidecar.engines.gltf import encode
from blender_trellis.sidecar.engines.stages import EngineError
from blender_trellis.sidecar.engines.trellis2.incoming import Model, read
from scene import glbs
from trellis2.made import RETEXTURE, Made, Studio, extras

torch.set_num_threads(1)

THIN = glbs.box((1, 0.04, 0.05))
"""With few voxels."""


def _glb(folder: Path, *shapes: glbs.Shape, **top: Any) -> bytes:
    return glbs.write(folder / "mesh.glb", shapes, **top).read_bytes()


def _edited(data: bytes, edit: Any) -> bytes:
    """The GLB with its JSON changed by `edit`."""
    length = struct.unpack_from("<I", data, 12)[0]
    document = json.loads(data[20 : 20 + length])
    edit(document)
    text = json.dumps(document).encode()
    text += b" " * (-len(text) % 4)
    rest = data[20 + length :]
    head = struct.pack("<4sII", b"glTF", 2, 20 + len(text) + len(rest))
    return head + struct.pack("<I4s", len(text), b"JSON") + text + rest


def _places(model: Model) -> np.ndarray[Any, Any]:
    """The corners of its faces, (F, 9)."""
    return model.points[model.faces].reshape(-1, 9)


# -- Reading ---------------------------------------------------------------------------------------


def test_a_mesh_stands_in_the_unit_cube_with_z_up(tmp_path: Path) -> None:
    model = read(_glb(tmp_path, glbs.box((2, 4, 1), (10, 20, 30))))
    low, high = model.points.min(0), model.points.max(0)
    # glTF's Y, the longest, is Blender's Z
    np.testing.assert_allclose(high - low, [0.499995, 0.2499975, 0.99999], atol=1e-6)
    np.testing.assert_allclose(high + low, 0, atol=1e-6)
    assert len(model.faces) == 12 and model.uvs is not None and model.uvs.shape == (24, 2)
    points, faces = model.welded()
    assert len(points) == 8 and faces.max() == 7


def _outward(model: Model) -> bool:
    """Whether it is wound outwards, and its normals point there."""
    a, b, c = model.points[model.faces].transpose(1, 0, 2)
    flat = np.cross(b - a, c - a)
    assert model.normals is not None
    along = (flat[:, None] * model.normals[model.faces]).sum(-1)
    return bool((a * flat).sum() > 0 and (along > 0).all())


@pytest.mark.parametrize(
    "transform",
    [
        {"translation": [3, 2, 1], "rotation": [0, 0, 0.70710678, 0.70710678], "scale": [4, 1, 2]},
        {"matrix": [0, 4, 0, 0, -1, 0, 0, 0, 0, 0, 2, 0, 3, 2, 1, 1]},
        {"rotation": [0, 0, 0.70710678, 0.70710678], "scale": [-4, 1, 2]},  # mirrored
    ],
)
def test_a_nodes_transformation_is_applied(tmp_path: Path, transform: dict[str, Any]) -> None:
    def edit(document: dict[str, Any]) -> None:
        document["nodes"][0] = {"mesh": 0, **transform}

    model = read(_edited(_glb(tmp_path, glbs.box((1, 1, 1))), edit))
    # scaled along X, which the rotation makes glTF's Y and Blender's Z
    np.testing.assert_allclose(np.ptp(model.points, axis=0), [0.25, 0.5, 1], atol=1e-4)
    assert _outward(model)


def test_children_stand_within_their_parents_and_all_parts_are_one(tmp_path: Path) -> None:
    def edit(document: dict[str, Any]) -> None:
        document["nodes"] = [
            {"children": [1, 2], "scale": [2, 2, 2]},
            {"mesh": 0, "translation": [0, 0, 0]},
            {"mesh": 1, "translation": [3, 0, 0]},
            {"mesh": 0, "translation": [99, 0, 0]},  # in no scene
        ]
        document["scenes"] = [{"nodes": [0]}]
        document["scene"] = 0

    data = _glb(tmp_path, glbs.box((1, 1, 1)), glbs.sphere(4, 8))
    model = read(_edited(data, edit))
    assert len(model.faces) == 12 + 8 * 6 and model.faces.max() == len(model.points) - 1
    np.testing.assert_allclose(np.ptp(model.points, axis=0), [1, 0.25, 0.25], atol=1e-4)


def test_uvs_outside_of_the_unit_square_are_none(tmp_path: Path) -> None:
    box = glbs.box((1, 1, 1))
    box.uvs = box.uvs * 2
    assert read(_glb(tmp_path, box)).uvs is None


def _loop(document: dict[str, Any]) -> None:
    document["nodes"][0]["children"] = [0]


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (lambda document: document["accessors"][0].update(bufferView=99), "cannot be read"),
        (lambda document: document["accessors"][0].update(count=10**7), "cannot be read"),
        (lambda document: document["bufferViews"][0].update(byteOffset=-8), "cannot be read"),
        (
            lambda document: document.update(extensionsRequired=["KHR_draco_mesh_compression"]),
            "export it without compression",
        ),
        (lambda document: document["meshes"][0]["primitives"][0].update(mode=1), "no faces"),
        (lambda document: document.update(nodes=[], scenes=[{"nodes": []}]), "no faces"),
        (lambda document: document.pop("meshes"), "cannot be read"),
        (lambda document: document["nodes"][0].update(scale=[0, 0, 0]), "no size"),
        (lambda document: document["nodes"][0].update(translation=["x", 0, 0]), "cannot be read"),
        (lambda document: document.update(nodes=["node"]), "cannot be read"),
        (lambda document: document["accessors"][0].update(count=10**30), "cannot be read"),
    ],
)
def test_a_mesh_that_makes_no_sense_is_refused_in_words(
    tmp_path: Path, edit: Any, said: str
) -> None:
    data = _edited(_glb(tmp_path, glbs.box((1, 1, 1))), edit)
    with pytest.raises(EngineError, match=said) as caught:
        read(data)
    assert caught.value.field == "mesh_url"


def test_a_tree_that_bites_its_tail_ends(tmp_path: Path) -> None:
    data = _glb(tmp_path, glbs.box((1, 1, 1)))
    assert len(read(_edited(data, _loop)).faces) == 12


@pytest.mark.parametrize("length", [0, 5, 12, 19, 40, 300])
def test_a_file_that_ends_early_is_refused_in_words(tmp_path: Path, length: int) -> None:
    with pytest.raises(EngineError, match="cannot be read"):
        read(_glb(tmp_path, glbs.box((1, 1, 1)))[:length])


# -- Retexturing -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Studio:
    return Studio(tmp_path_factory.mktemp("home"))


def _retexture(studio: Studio, mesh: bytes, **changes: Any) -> Made:
    return studio.make(endpoint=RETEXTURE, mesh=mesh, texture_size=64, **changes)


def _same_shape(one: Model, other: Model) -> None:
    """Equal but for the order of points, with equal normals."""
    assert one.normals is not None and other.normals is not None
    np.testing.assert_allclose(_places(one), _places(other), atol=2e-5)
    np.testing.assert_allclose(one.normals[one.faces], other.normals[other.faces], atol=1e-5)


def test_a_mesh_keeps_its_faces_its_normals_and_its_uvs(studio: Studio, tmp_path: Path) -> None:
    needle = glbs.sphere(12, 16)
    needle.positions *= np.float32([1, 0.05, 0.05])
    mesh = _glb(tmp_path, needle)
    before, after = read(mesh), read(_retexture(studio, mesh).data)
    _same_shape(before, after)
    assert before.uvs is not None and after.uvs is not None
    np.testing.assert_allclose(before.uvs[before.faces], after.uvs[after.faces], atol=1e-6)


def test_a_mesh_without_uvs_gets_some_and_keeps_its_hard_edges(
    studio: Studio, tmp_path: Path
) -> None:
    mesh = encode(
        generator="test",
        extras={},
        positions=THIN.positions,
        normals=THIN.normals,
        faces=THIN.triangles,
    )
    before, after = read(mesh), read(_retexture(studio, mesh).data)
    assert before.uvs is None and after.uvs is not None
    _same_shape(before, after)
    a, b, c = after.uvs[after.faces].transpose(1, 0, 2)
    across, down = b - a, c - a
    areas = np.abs(across[:, 0] * down[:, 1] - across[:, 1] * down[:, 0])
    assert (areas > 1e-4).all(), "every face has its place in the texture"


def test_only_the_texture_is_sampled_and_a_repetition_calls_nothing(
    studio: Studio, tmp_path: Path
) -> None:
    mesh = _glb(tmp_path, glbs.box((0.04, 1, 0.05)))
    texture = {"tex_slat_flow_model_512": 12, "tex_slat_decoder": 1}
    first = _retexture(studio, mesh, seed=5, colour="green")
    shape = {"image_cond_model": 1, "shape_slat_encoder": 1}
    assert first.forwards == texture | shape
    assert _retexture(studio, mesh, seed=5, colour="green").forwards == {}
    other = _retexture(studio, mesh, seed=6, colour="green")
    assert other.forwards == texture and other.binary != first.binary
    fine = _retexture(studio, mesh, seed=5, resolution=1024)
    assert fine.forwards["tex_slat_flow_model_1024"] == 12
    assert fine.extras["pipeline"] == "1024"


def test_the_textures_show_what_the_decoder_says_of_the_surface(
    studio: Studio, tmp_path: Path
) -> None:
    """Not of the void around it, which would be black."""
    data = _retexture(studio, _glb(tmp_path, THIN)).data
    length = struct.unpack_from("<I", data, 12)[0]
    document = json.loads(data[20 : 20 + length])
    binary = data[28 + length :]
    for image in document["images"]:
        view = document["bufferViews"][image["bufferView"]]
        picture = binary[view["byteOffset"] : view["byteOffset"] + view["byteLength"]]
        pixels = np.asarray(Image.open(io.BytesIO(picture)))
        assert pixels.shape[:2] == (64, 64) and pixels.std() > 0
        assert (pixels.max(-1) > 0).mean() > 0.99
    assert extras(data)["seed"] == 51

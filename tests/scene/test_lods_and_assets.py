# SPDX-License-Identifier: GPL-3.0-or-later
"""Coarser copies of a model, and the model as an asset: what arrives, what is seen of it, and that it is all or nothing."""

from __future__ import annotations

from pathlib import Path

import bpy
import numpy as np
import pytest

from blender_trellis import errors
from blender_trellis.scene import assets
from blender_trellis.scene.append import append
from blender_trellis.scene.importer import import_blocking
from blender_trellis.scene.recipe import Recipe, read
from blender_trellis.scene.worker import ImportWorker
from scene import glbs
from scene.test_append import counts


@pytest.fixture
def glb(folder: Path) -> Path:
    material = glbs.Material({"baseColor": glbs.picture(1, 64)})
    return glbs.write(folder / "s.glb", [glbs.sphere(32, 64)], material)


def lods_of(root: bpy.types.Object) -> list[bpy.types.Object]:
    return sorted(root.children, key=lambda obj: obj.name)


def test_each_lod_has_its_share_of_the_faces(glb: Path, recipe: Recipe) -> None:
    (obj,) = import_blocking(glb, recipe, name="Kugel", height=2, lods=(0.1, 0.5, 0.25))
    levels = lods_of(obj)
    assert [each.name for each in levels] == ["Kugel_LOD1", "Kugel_LOD2", "Kugel_LOD3"]
    faces = len(obj.data.polygons)
    shares = [len(each.data.polygons) / faces for each in levels]
    assert shares == pytest.approx([0.5, 0.25, 0.1], rel=0.02)
    for each in levels:
        assert each.data.materials[:] == obj.data.materials[:] and each.data.uv_layers
        assert all(face.use_smooth for face in each.data.polygons)
        # closed, as the model is
        assert len(each.data.edges) * 2 == len(each.data.polygons) * 3
        points = np.array([vertex.co for vertex in each.data.vertices])
        assert points.min(0) == pytest.approx([-1, -1, 0], abs=0.05)
        assert points.max(0) == pytest.approx([1, 1, 2], abs=0.05)


def test_lods_are_switched_off_and_go_where_the_model_goes(glb: Path, recipe: Recipe) -> None:
    scene = bpy.context.scene
    scene.view_layers.new("Second")
    (obj,) = import_blocking(glb, recipe, name="S", lods=(0.5,))
    (level,) = lods_of(obj)
    (own,) = level.users_collection
    assert own.name == "S LODs" and obj.users_collection[0].children[:] == [own]
    for layer in scene.view_layers:
        layer.update()
        assert obj.name in layer.objects and level.name not in layer.objects
        (model,) = layer.layer_collection.children
        model.children[own.name].exclude = False
    obj.location = (3, 4, 5)
    bpy.context.view_layer.update()
    assert level.matrix_world.translation[:] == (3, 4, 5)
    assert read(level) is None and read(obj) == recipe


def divided(shape: glbs.Shape) -> glbs.Shape:
    """Every triangle as four."""
    corners = shape.triangles.ravel()
    soup = [each[corners].reshape(-1, 3, each.shape[1]) for each in (shape.positions, shape.uvs)]
    parts = []
    for a, b, c in (each.swapaxes(0, 1) for each in soup):
        ab, bc, ca = (a + b) / 2, (b + c) / 2, (c + a) / 2
        quarters = np.stack([a, ab, ca, ab, b, bc, ca, bc, c, ab, bc, ca], 1)
        parts.append(quarters.reshape(-1, a.shape[1]).astype(np.float32))
    normals = np.repeat(shape.normals[corners[::3]], 12, axis=0)
    return glbs.Shape(
        parts[0], normals, parts[1], np.arange(len(normals), dtype=np.uint32).reshape(-1, 3)
    )


def test_hard_edges_are_not_torn_open_and_stay_hard(folder: Path, recipe: Recipe) -> None:
    shape = glbs.box((1, 1, 1))
    for _ in range(3):
        shape = divided(shape)
    glb = glbs.write(folder / "b.glb", [shape])
    (obj,) = import_blocking(glb, recipe, name="B", lods=(0.25,))
    (level,) = lods_of(obj)
    mesh = level.data
    assert len(obj.data.polygons) == 12 * 4**3 and len(mesh.polygons) == 12 * 4**2
    assert len(mesh.edges) * 2 == len(mesh.polygons) * 3
    normals = np.array([corner.vector for corner in mesh.corner_normals])
    assert np.abs(normals).max(1) == pytest.approx(1, abs=1e-3)


def test_of_several_meshes_each_gets_its_lods(folder: Path, recipe: Recipe) -> None:
    shapes = [glbs.sphere(16, 32), glbs.sphere(8, 16, 0.5, (3, 0, 0))]
    glb = glbs.write(folder / "two.glb", shapes)
    root, *parts = import_blocking(glb, recipe, name="Two", lods=(0.5, 0.2))
    assert len(parts) == 2
    levels = [each for each in lods_of(root) if each not in parts]
    assert len(levels) == 4 and {each.name[-5:] for each in levels} == {"_LOD1", "_LOD2"}


@pytest.mark.parametrize("ratio", [0.0, 1.0, -1.0, float("nan")])
def test_an_impossible_share_is_refused(glb: Path, recipe: Recipe, ratio: float) -> None:
    with pytest.raises(errors.ParameterError, match="share"):
        import_blocking(glb, recipe, name="x", lods=(ratio,))
    assert not bpy.data.objects


def test_one_undo_takes_the_lods_away_and_redo_brings_them_switched_off(
    glb: Path, recipe: Recipe
) -> None:
    bpy.ops.ed.undo_push(message="Before")
    import_blocking(glb, recipe, name="S", lods=(0.5,), asset=("chair",))
    bpy.ops.ed.undo_push(message="Import")
    bpy.ops.ed.undo()
    assert not bpy.data.objects and not bpy.data.collections
    bpy.ops.ed.redo()
    assert len(bpy.data.objects) == 2 and list(bpy.context.view_layer.objects) == [
        bpy.data.objects["S"]
    ]
    assert bpy.data.objects["S"].asset_data


def test_what_fails_after_loading_takes_the_lods_back(
    glb: Path, recipe: Recipe, folder: Path
) -> None:
    with ImportWorker() as worker:
        worker.request(glb, recipe, name="S", lods=(0.5,), asset=())
        blend = worker.wait().blend
        before = counts()
        with pytest.raises((TypeError, ValueError)):
            append(blend, scene=bpy.context.scene, location=("not", "a", "place"))  # type: ignore[arg-type]
    assert counts() == before and not bpy.context.scene.collection.children[:]


def pixels_of(item: bpy.types.ID) -> np.ndarray:
    width, height = item.preview.image_size
    pixels = np.empty(width * height * 4, np.float32)
    item.preview.image_pixels_float.foreach_get(pixels)
    return pixels.reshape(height, width, 4)


def test_an_asset_keeps_picture_and_tags_when_the_file_is_opened_again(
    glb: Path, recipe: Recipe, folder: Path, temporary: Path
) -> None:
    import_blocking(glb, recipe, name="Stuhl", asset=("chair", "wood"))
    assert not list(temporary.iterdir())
    assert len(bpy.data.images) == 1, "its texture, and not the picture of the asset"
    bpy.ops.wm.save_as_mainfile(filepath=str(folder / "f.blend"))
    bpy.ops.wm.open_mainfile(filepath=str(folder / "f.blend"))
    obj = bpy.data.objects["Stuhl"]
    assert [tag.name for tag in obj.asset_data.tags] == ["chair", "wood"]
    alpha = pixels_of(obj)[:, :, 3]
    assert alpha.shape == (256, 256) and 0.3 < (alpha > 0.5).mean() < 0.9
    # the file lies in no library
    assert int(obj.asset_data.catalog_id.replace("-", ""), 16) == 0
    assert not (folder / assets.CATALOGUES).exists()


def test_of_several_meshes_the_collection_is_the_asset(folder: Path, recipe: Recipe) -> None:
    shapes = [glbs.box((1, 1, 1)), glbs.box((1, 1, 1), (3, 0, 0))]
    glb = glbs.write(folder / "two.glb", shapes)
    root, *_ = import_blocking(glb, recipe, name="Two", asset=(), lods=(0.5,))
    (model,) = root.users_collection
    assert model.asset_data and not root.asset_data
    (levels,) = model.children
    assert levels.hide_viewport and levels.hide_render


@pytest.fixture
def library(folder: Path) -> Path:
    """The folder of an asset library, in which the present file lies."""
    path = folder / "Bibliothek 家"
    path.mkdir()
    libraries = bpy.context.preferences.filepaths.asset_libraries
    libraries.new(name="Furniture", directory=str(path))
    bpy.ops.wm.save_as_mainfile(filepath=str(path / "f.blend"))
    return path


def test_in_a_library_assets_are_in_the_catalogue_trellis(
    glb: Path, recipe: Recipe, library: Path
) -> None:
    known = "11111111-2222-3333-4444-555555555555:Old:Old"
    path = library / assets.CATALOGUES
    path.write_text(f"# mine\nVERSION 1\n{known}\n", encoding="utf-8")
    for _ in range(2):
        import_blocking(glb, recipe, name="S", asset=())
    first, second = (obj.asset_data.catalog_id for obj in bpy.data.objects)
    assert first == second
    assert path.read_text(encoding="utf-8").splitlines() == [
        "# mine",
        "VERSION 1",
        known,
        f"{first}:Trellis:Trellis",
    ]
    assert sorted(each.name for each in library.iterdir()) == [assets.CATALOGUES, "f.blend"]


def test_a_library_whose_list_cannot_be_read_costs_only_the_catalogue(
    glb: Path, recipe: Recipe, library: Path
) -> None:
    path = library / assets.CATALOGUES
    path.write_bytes(b"\xff\xfe\xff")
    (obj,) = import_blocking(glb, recipe, name="S", asset=())
    assert obj.asset_data and path.read_bytes() == b"\xff\xfe\xff"


def test_a_file_beside_a_library_is_in_none(library: Path, folder: Path) -> None:
    assert assets.library_of(str(library / "sub" / "f.blend")) == library.resolve()
    assert assets.library_of(str(folder / "f.blend")) is None
    assert assets.library_of("") is None

# SPDX-License-Identifier: GPL-3.0-or-later
"""The painting of textures: texels in triangles, nearest points, what a texture says at any point, what is between charts."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import pytest

pytest.importorskip("igl", reason="the local engine needs libigl and scipy")

from scipy.spatial import Delaunay

from blender_trellis.sidecar.engines.trellis2.mesh import Atlas, MeshOptions, Surface, unwrap
from blender_trellis.sidecar.engines.trellis2.mesh.bake import Nearest, Textures, bake
from blender_trellis.sidecar.engines.trellis2.mesh.raster import cover
from trellis2 import shapes

Array = np.ndarray[Any, Any]

SIZE = 512
MODULE = sys.modules[bake.__module__]  # the package has a function of the same name


def silent(message: str, done: float) -> None: ...


def laid_out(surface: Surface, size: int = SIZE) -> Atlas:
    wished = MeshOptions(decimation_target=1, texture_size=size, remesh=False, resolution=64)
    return unwrap(surface, wished, silent)


def smooth(points: Array) -> Array:
    """Six different values that change slowly from place to place."""
    waves = [
        np.sin(7 * points @ np.array(way)) for way in np.random.default_rng(2).normal(size=(6, 3))
    ]
    return 0.5 + 0.45 * np.stack(waves, 1)


def constant(*values: float) -> Any:
    return lambda points: np.tile(np.float64(values), (len(points), 1))


def painted(
    surface: Surface, field: Any, original: Surface | None = None, size: int = SIZE
) -> Textures:
    return bake(surface, laid_out(surface, size), original, field, silent)


def looked_up(picture: Array, texels: Array) -> Array:
    """(N, channels) of `picture` at `texels` (N, 2), linear between the texels' middles, as renderers do it."""
    place = texels - 0.5
    low = np.floor(place).astype(int)
    part = place - low
    total = np.zeros((len(texels), picture.shape[2]))
    for right in (0, 1):
        for down in (0, 1):
            column, row = np.clip(low + np.array([right, down]), 0, len(picture) - 1).T
            weight = np.abs(1 - right - part[:, 0]) * np.abs(1 - down - part[:, 1])
            total += weight[:, None] * picture[row, column]
    return total


def six(textures: Textures) -> Array:
    """(S, S, 6) in the order of a field: colour, metallic, roughness, alpha."""
    colour, other = textures.colour, textures.metallic_roughness
    return np.concatenate([colour[..., :3], other[..., [2, 1]], colour[..., 3:]], -1)


@pytest.mark.parametrize("at_once", [10**6, 100])
def test_every_texel_of_a_triangulated_square_is_in_one_triangle_and_where_it_should_be(
    at_once: int,
) -> None:
    rng = np.random.default_rng(3)
    rim = [[x, y] for x in (0, 32, 64) for y in (0, 32, 64) if (x, y) != (32, 32)]
    points = np.concatenate([rim, rng.uniform(0, 64, (400, 2))])
    points[8:30] = np.floor(points[8:30]) + 0.5  # corners right at the middles of texels
    corners = points[Delaunay(points).simplices]
    found = list(cover(corners, 64, at_once))
    texel = np.concatenate([f.texel for f in found])
    assert sorted(texel) == list(range(64 * 64))
    face, weights = (np.concatenate([getattr(f, k) for f in found]) for k in ("face", "weights"))
    assert weights.min() >= 0 and weights.sum(1) == pytest.approx(1)
    inside = np.isin(np.arange(len(corners)), face[np.bincount(face)[face] > 1])[face]
    places = np.einsum("nk,nkc->nc", weights, corners[face])
    middles = np.stack([texel % 64, texel // 64], 1) + 0.5
    assert places[inside] == pytest.approx(middles[inside], abs=1e-9)


def test_triangles_too_small_for_a_texel_get_the_one_they_lie_in_if_it_is_free() -> None:
    large = np.array([[0, 0], [8, 0], [0, 8]], float)
    alone = np.array([[12.6, 3.1], [12.9, 3.2], [12.7, 3.4]])
    inside = alone - [11, 2]
    (*_, last) = cover(np.array([large, alone, inside]), 16, 100)
    assert last.texel.tolist() == [3 * 16 + 12] and last.face.tolist() == [1]
    assert last.weights.min() >= 0 and last.weights.sum() == pytest.approx(1)


def test_nearest_points_are_the_same_however_the_surface_is_cut(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    blob = shapes.blob(16)
    points = np.random.default_rng(4).uniform(-0.6, 0.6, (3000, 3))
    whole = Nearest(blob, silent)(points)
    monkeypatch.setattr(MODULE, "_BLOCK", 100)
    assert Nearest(blob, silent)(points) == pytest.approx(whole, abs=1e-12)
    # against all vertices: none is nearer, and the points lie on the surface
    to_vertices = np.linalg.norm(points[:300, None] - blob.points, axis=2).min(1)
    away = np.linalg.norm(points - whole, axis=1)
    assert (away[:300] <= to_vertices + 1e-9).all()
    assert np.linalg.norm(Nearest(blob, silent)(whole) - whole, axis=1).max() < 1e-7


def test_a_texture_says_what_the_field_says_at_any_point() -> None:
    sphere = shapes.sphere(40)
    atlas = laid_out(sphere)
    values = six(bake(sphere, atlas, None, smooth, silent)) / 255
    rng = np.random.default_rng(6)
    corners = sphere.points[sphere.faces].astype(np.float64)
    areas = np.linalg.norm(
        np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1
    )
    face = rng.choice(len(areas), 20_000, p=areas / areas.sum())
    weights = rng.dirichlet((1, 1, 1), len(face))
    points = np.einsum("nk,nkc->nc", weights, corners[face])
    texels = np.einsum("nk,nkc->nc", weights, atlas.texels[atlas.faces][face])
    error = np.abs(looked_up(values, texels) - smooth(points))
    # half of a step of 8 bits is 0.002; at the rims of charts the nearest texel stands in for one that is not there
    assert error.mean() < 0.0025
    assert np.percentile(error, 99) < 0.01
    assert error.max() < 0.05


def test_colours_are_taken_from_the_original_surface() -> None:
    """The field is right on the original alone, which lies outside of the mesh that is painted."""

    def on_the_original(points: Array) -> Array:
        right = np.abs(np.linalg.norm(points, axis=1) - 0.4) < 2e-3
        return np.where(right[:, None], smooth(points), 0)

    inner = shapes.sphere(20, 0.37)
    assert painted(inner, smooth, shapes.sphere(40)).colour.min() > 0
    values = six(painted(inner, on_the_original, shapes.sphere(40)))
    assert values.min() > 0
    assert not np.array_equal(values, six(painted(inner, smooth)))


def test_no_texel_between_charts_is_left_out() -> None:
    textures = painted(shapes.blob(20), constant(0.8, 0.2, 0.4, 0.6, 0.7, 1.0))
    assert (textures.colour == [204, 51, 102, 255]).all()
    assert (
        textures.metallic_roughness == [0, 178, 153]
    ).all()  # glTF: green roughness, blue metallic


def test_texels_between_charts_have_the_colour_of_the_nearest_chart() -> None:
    sphere = shapes.sphere(10)
    atlas = laid_out(sphere, 64)
    values = six(bake(sphere, atlas, None, smooth, silent)).astype(int)
    texels = np.concatenate([f.texel for f in cover(atlas.texels[atlas.faces], 64, 10**6)])
    there = np.stack([texels // 64, texels % 64], 1)
    for row, column in np.argwhere(~np.isin(np.arange(64 * 64), texels).reshape(64, 64))[::7]:
        away = ((there - [row, column]) ** 2).sum(1)
        nearest = there[away == away.min()]
        assert (values[nearest[:, 0], nearest[:, 1]] == values[row, column]).all(1).any()


def test_values_outside_of_the_range_are_cut_and_others_rounded() -> None:
    textures = painted(shapes.sphere(6), constant(-0.3, 1.7, 0.5, 0.1, 1.0, 0.999), size=64)
    assert (textures.colour == [0, 255, 128, 255]).all()
    assert (textures.metallic_roughness == [0, 255, 26]).all()


def test_how_much_of_the_surface_is_transparent_is_counted_without_the_gaps() -> None:
    def half(points: Array) -> Array:
        values = np.ones((len(points), 6))
        values[:, 5] = np.where(points[:, 2] > 0, 0.2, 1.0)
        return values

    assert painted(shapes.sphere(20), half).transparent == pytest.approx(0.5, abs=0.01)
    assert painted(shapes.sphere(20), constant(*[0.6] * 6)).transparent == 0


def test_progress_grows_and_what_it_raises_ends_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MODULE, "_AT_ONCE", 5000)
    sphere, asked, told = shapes.sphere(20), [0], list[float]()
    atlas = laid_out(sphere)

    def field(points: Array) -> Array:
        asked[0] += 1
        return smooth(points)

    bake(sphere, atlas, sphere, field, lambda message, done: told.append(done))
    assert told == sorted(told) and told[0] <= 0.15 and 0.9 < told[-1] <= 1
    assert len(told) > asked[0] > 20

    class Stop(Exception):
        pass

    def stop(message: str, done: float) -> None:
        if done > 0.5:
            raise Stop

    before, asked[0] = asked[0], 0
    with pytest.raises(Stop):
        bake(sphere, atlas, sphere, field, stop)
    assert 0 < asked[0] < 0.6 * before

# SPDX-License-Identifier: GPL-3.0-or-later
"""The layout of a surface in its texture: charts that lie apart, nowhere over each other, all within it."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("igl", reason="the local engine needs libigl and scipy")

from scipy.ndimage import maximum_filter, minimum_filter

from blender_trellis.sidecar.engines.stages import EngineError
from blender_trellis.sidecar.engines.trellis2.mesh import Atlas, MeshOptions, unwrap
from blender_trellis.sidecar.engines.trellis2.mesh.edges import components
from blender_trellis.sidecar.engines.trellis2.mesh.raster import cover
from blender_trellis.sidecar.engines.trellis2.mesh.surface import Surface
from trellis2 import shapes

SIZE = 512


def laid_out(surface: Surface, size: int = SIZE, **changes: float) -> Atlas:
    options = {"decimation_target": 1, "remesh": False, "resolution": 64, **changes}
    return unwrap(surface, MeshOptions(texture_size=size, **options), lambda message, done: None)


def helicoid(turns: int = 3) -> Surface:
    """A ramp that winds upwards around an axis: all of it is seen from above, the lower turns behind the upper ones."""
    angle, radius = np.meshgrid(np.linspace(0, turns * 2 * np.pi, turns * 40), [0.1, 0.2, 0.3, 0.4])
    points = np.stack([radius * np.cos(angle), radius * np.sin(angle), angle * 0.008], -1)
    number = np.arange(angle.size).reshape(angle.shape)
    a, b, c, d = number[:-1, :-1], number[1:, :-1], number[1:, 1:], number[:-1, 1:]
    faces = np.concatenate([np.stack([a, b, c], -1), np.stack([a, c, d], -1)]).reshape(-1, 3)
    return shapes.surface(points.reshape(-1, 3), faces)


def soup(count: int) -> Surface:
    """Triangles that have nothing to do with each other."""
    points = np.random.default_rng(5).uniform(-0.5, 0.5, (count * 3, 3))
    return shapes.surface(points, np.arange(count * 3).reshape(-1, 3))


SURFACES = {
    "sphere": shapes.sphere(),
    "blob": shapes.blob(30),
    "torus": shapes.torus(),
    "box": shapes.box((-0.4, -0.3, -0.2), (0.4, 0.3, 0.2), 3),
    "helicoid": helicoid(),
    "soup": soup(400),
    "one triangle": soup(1),
}


def charts(atlas: Atlas) -> np.ndarray:
    """(F,) which faces hang together in the texture."""
    a, b, c = atlas.faces.T
    point = components(len(atlas.vertex), np.concatenate([a, b]), np.concatenate([b, c]))
    return point[a]


def doubled_areas(atlas: Atlas) -> np.ndarray:
    """(F,) of the faces in the texture, negative where the corners run clockwise in a picture with its rows downwards."""
    a, b, c = np.moveaxis(atlas.texels[atlas.faces], 1, 0)
    return (b - a)[:, 0] * (c - a)[:, 1] - (b - a)[:, 1] * (c - a)[:, 0]


def claims(atlas: Atlas) -> tuple[np.ndarray, np.ndarray]:
    """Texels and the faces that claim them."""
    found = list(cover(atlas.texels[atlas.faces], atlas.size, 10_000))
    return np.concatenate([f.texel for f in found]), np.concatenate([f.face for f in found])


@pytest.mark.parametrize("name", SURFACES)
def test_all_faces_lie_in_the_texture_unmirrored_and_nowhere_over_each_other(name: str) -> None:
    surface = SURFACES[name]
    atlas = laid_out(surface)
    assert np.array_equal(atlas.vertex[atlas.faces], surface.faces)
    assert atlas.texels.min() >= 0 and atlas.texels.max() <= SIZE
    # seen from outside the corners run anticlockwise, and the texture's rows run downwards
    assert doubled_areas(atlas).max() < 0
    texels, _ = claims(atlas)
    assert len(texels) > 0.3 * SIZE**2 or name in ("soup", "one triangle")
    assert np.bincount(texels).max() == 1


def test_charts_keep_two_texels_from_each_other_and_from_the_rim() -> None:
    atlas = laid_out(SURFACES["blob"])
    texels, faces = claims(atlas)
    chart = charts(atlas)
    assert chart.max() > 10
    names = np.zeros(SIZE**2, np.int64)
    names[texels] = 1 + chart[faces]
    names = names.reshape(SIZE, SIZE)
    highest = maximum_filter(names, 5)
    lowest = minimum_filter(np.where(names, names, names.max() + 1), 5)
    assert not ((names > 0) & (highest != lowest)).any()
    rim = np.ones((SIZE, SIZE), bool)
    rim[2:-2, 2:-2] = False
    assert not names[rim].any()


def test_texels_are_dealt_out_by_area() -> None:
    """A face gets what others of its size get, but for how steeply its chart shows it."""
    surface = SURFACES["blob"]
    atlas = laid_out(surface)
    corners = surface.points[surface.faces].astype(np.float64)
    crosses = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    density = np.abs(doubled_areas(atlas)) / np.linalg.norm(crosses, axis=1)
    density /= np.median(density)
    assert np.percentile(density, 1) > 0.35 and np.percentile(density, 99) < 1.8


def test_a_narrower_cone_makes_more_charts() -> None:
    sphere = SURFACES["sphere"]
    counts = [
        len(np.unique(charts(laid_out(sphere, cone_half_angle=np.radians(angle)))))
        for angle in (90, 45, 20)
    ]
    assert 2 <= counts[0] < counts[1] < counts[2] < 120


def test_a_box_that_may_not_be_seen_at_an_angle_falls_into_its_sides() -> None:
    box = SURFACES["box"]
    atlas = laid_out(box, cone_half_angle=np.radians(30))
    assert len(np.unique(charts(atlas))) == 6
    corners = box.points[box.faces].astype(np.float64)
    crosses = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    scale = np.abs(doubled_areas(atlas)) / np.linalg.norm(crosses, axis=1)
    assert scale == pytest.approx(scale.mean(), rel=1e-5)


def test_further_passes_straighten_and_keep_every_promise() -> None:
    blob = SURFACES["blob"]

    def seams(atlas: Atlas) -> float:
        return len(atlas.vertex) - len(blob.points)

    rough = laid_out(blob, smooth_strength=0)
    smooth = laid_out(blob, smooth_strength=3)
    assert seams(smooth) < seams(rough)
    refined = laid_out(blob, refine_iterations=5, global_iterations=3)
    for atlas in (smooth, refined):
        assert doubled_areas(atlas).max() < 0
        assert np.bincount(claims(atlas)[0]).max() == 1


def test_faces_without_area_are_carried_along() -> None:
    sphere = SURFACES["sphere"]
    flat = np.array([[0, 0, 1], [5, 9, 5], [7, 7, 7]], np.int32)
    both = Surface(sphere.points, np.concatenate([sphere.faces, flat]))
    atlas = laid_out(both)
    assert np.array_equal(atlas.vertex[atlas.faces], both.faces)
    assert np.isfinite(atlas.texels).all()
    assert atlas.texels.min() >= 0 and atlas.texels.max() <= SIZE
    assert doubled_areas(atlas)[:-3].max() < 0


def test_many_charts_share_a_small_texture_and_too_many_are_refused() -> None:
    pieces = soup(1500)
    atlas = laid_out(pieces, 128)
    assert atlas.texels.min() >= 0 and atlas.texels.max() <= 128
    assert np.bincount(claims(atlas)[0]).max() == 1
    with pytest.raises(EngineError, match="more pieces than its texture has room for"):
        laid_out(pieces, 32)


def test_the_same_surface_is_laid_out_the_same() -> None:
    one, other = (laid_out(SURFACES["blob"]) for _ in range(2))
    assert np.array_equal(one.texels, other.texels) and np.array_equal(one.faces, other.faces)

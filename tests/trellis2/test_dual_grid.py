# SPDX-License-Identifier: GPL-3.0-or-later
"""The dual grid, to and from meshes: against the golden vectors, and against slow checks of every voxel with every triangle."""

from __future__ import annotations

import itertools
from collections import Counter

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the golden vectors are read with torch")
optimize = pytest.importorskip("scipy.optimize", reason="the local engine needs scipy")
spatial = pytest.importorskip("scipy.spatial", reason="the local engine needs scipy")

from blender_trellis.sidecar.engines.trellis2 import scan  # noqa: E402
from blender_trellis.sidecar.engines.trellis2.dual_grid import (  # noqa: E402
    connect,
    extract,
    place,
    voxelise,
)
from blender_trellis.sidecar.engines.trellis2.volume import Floats, Ints  # noqa: E402
from trellis2.vectors import Vector  # noqa: E402

SIDE = 16
"""Voxels a side in the slow checks."""


def test_a_decoded_shape_becomes_the_official_mesh() -> None:
    vector = Vector.read("shape_decoder")
    coords, head = (vector.outputs[key].numpy() for key in ("coords", "head"))
    vertices, faces = extract(coords[:, 1:], head, vector.config["args"]["resolution"])
    vector.close(vertices, "vertices")
    vector.close(faces, "faces")
    assert (vertices.dtype, faces.dtype) == (np.float32, np.int32)


def test_an_exact_sphere_becomes_the_official_mesh() -> None:
    vector = Vector.read("dual_grid_mesh")
    coords, dual, flags, weights = (
        vector.inputs[key].numpy()
        for key in ("coords", "dual_vertices", "intersected", "split_weight")
    )
    vector.close(place(coords, dual, 24), "vertices")
    faces = connect(coords, flags, weights[:, 0])
    vector.close(faces, "faces")
    assert set(_edges(faces).values()) == {2}
    vector.close(connect(coords, flags), "faces_no_split", rule="faces")


def test_a_quad_that_lacks_a_voxel_is_dropped() -> None:
    around = np.array([[4, 4, 4], [4, 5, 4], [5, 5, 4], [5, 4, 4]], np.int32)
    flags = np.zeros((4, 3), np.uint8)
    flags[0, 2] = 1
    assert connect(around, flags, np.ones(4)).tolist() == [[0, 1, 3], [3, 1, 2]]
    assert connect(around, flags, np.array([2, 1, 2, 1])).tolist() == [[0, 1, 2], [0, 2, 3]]
    for lacking in (1, 2, 3):
        there = np.delete(np.arange(4), lacking)
        assert connect(around[there], flags[there], np.ones(3)).shape == (0, 3)


def test_no_voxels_and_a_single_one_make_no_faces() -> None:
    for count in (0, 1):
        coords = np.full((count, 3), 5, np.int32)
        vertices, faces = extract(coords, np.full((count, 7), 9.0, np.float32), 16)
        assert vertices.shape == (count, 3)
        assert faces.shape == (0, 3)


def test_logits_of_any_size_are_taken() -> None:
    coords = np.array([[0, 0, 0], [1535, 1535, 1535]], np.int32)
    head = np.array([[-1e4] * 7, [1e4] * 7], np.float32)
    vertices, _ = extract(coords, head, 1536)
    expected = [[-0.5 - 0.5 / 1536] * 3, [0.5 + 0.5 / 1536] * 3]
    np.testing.assert_allclose(vertices, expected, atol=1e-6)


def test_faces_at_the_far_end_of_the_finest_grid_find_their_voxels() -> None:
    around = np.array([[1534, 4, 4], [1535, 4, 4], [1535, 4, 5], [1534, 4, 5]], np.int32)
    flags = np.zeros((4, 3), np.uint8)
    flags[0, 1] = 1
    assert connect(around, flags, np.ones(4)).tolist() == [[0, 1, 3], [3, 1, 2]]


def test_a_mesh_becomes_the_official_dual_grid() -> None:
    """Where triangles touch grid planes exactly rounding decides, so of the vertices not all can agree."""
    vector = Vector.read("mesh_to_dual_grid")
    vertices, faces = (vector.inputs[key].numpy() for key in ("vertices", "faces"))
    coords, dual, flags = voxelise(vertices, faces, 32)
    expected = [tuple(row) for row in vector.outputs["voxels"].tolist()]
    row = {tuple(voxel): i for i, voxel in enumerate(coords.tolist())}
    common = [voxel for voxel in expected if voxel in row]
    assert len(common) >= 0.98 * max(len(expected), len(row))
    ours = np.array([row[voxel] for voxel in common])
    theirs = np.array([expected.index(voxel) for voxel in common])
    equal = flags[ours] == vector.outputs["intersected"].numpy()[theirs]
    assert equal.all(1).mean() >= 0.98
    apart = place(coords, dual, 32)[ours] + 0.5 - vector.outputs["dual_vertices"].numpy()[theirs]
    close = np.abs(apart) <= vector.json["tolerance"]["dual_vertices"]["atol"]
    assert close.all(1).mean() >= 0.98


def _turned(points: Floats, seed: int) -> Floats:
    """`points` turned and moved so that nothing lies on the grid."""
    random = np.random.default_rng(seed)
    turn, _ = np.linalg.qr(random.normal(size=(3, 3)))
    return points @ turn.T + random.uniform(-0.03, 0.03, 3)


def _box() -> tuple[Floats, Ints]:
    points = np.array([*itertools.product((-1, 1), repeat=3)]) * [0.21, 0.15, 0.26]
    quads = [(0, 1, 3, 2), (4, 6, 7, 5), (0, 4, 5, 1), (2, 3, 7, 6), (0, 2, 6, 4), (1, 5, 7, 3)]
    faces = [face for a, b, c, d in quads for face in ((a, b, c), (a, c, d))]
    return _turned(points, 1), np.array(faces)


def _ellipsoid(rings: int = 9, sides: int = 14) -> tuple[Floats, Ints]:
    polar = np.linspace(0, np.pi, rings + 1)[1:-1, None]
    angle = np.arange(sides) * 2 * np.pi / sides
    ball = [np.sin(polar) * np.cos(angle), np.sin(polar) * np.sin(angle), np.cos(polar) + 0 * angle]
    points = np.concatenate([np.stack(ball, -1).reshape(-1, 3), [[0, 0, 1], [0, 0, -1]]])
    top, bottom, last = len(points) - 2, len(points) - 1, (rings - 2) * sides
    faces = []
    for i in range(sides):
        j = (i + 1) % sides
        faces += [(top, i, j), (bottom, last + j, last + i)]
        for ring in range(0, last, sides):
            a, b, c, d = ring + i, ring + j, ring + sides + i, ring + sides + j
            faces += [(a, c, b), (b, c, d)]
    return _turned(points * [0.28, 0.2, 0.33], 2), np.array(faces)


def _sheet() -> tuple[Floats, Ints]:
    """An open surface: a bent square."""
    points = np.array([[-0.3, -0.3, 0], [0.3, -0.3, 0.1], [0.3, 0.3, 0], [-0.3, 0.3, 0.05]])
    return _turned(points, 3), np.array([[0, 1, 2], [0, 2, 3]])


MESHES = {"box": _box, "ellipsoid": _ellipsoid, "sheet": _sheet}


def _edges(faces: Ints) -> Counter[tuple[int, int]]:
    pairs = (pair for a, b, c in faces.tolist() for pair in ((a, b), (b, c), (c, a)))
    return Counter((min(pair), max(pair)) for pair in pairs)


def _near(triangle: Floats) -> Ints:
    """All voxels of the box around `triangle`, and one more on every side."""
    low, high = np.floor(triangle.min(0)).astype(int) - 1, np.floor(triangle.max(0)).astype(int) + 2
    ranges = [np.arange(*ends) for ends in zip(low, high, strict=True)]
    return np.stack(np.meshgrid(*ranges, indexing="ij"), -1).reshape(-1, 3)


def _meeting(triangle: Floats, voxels: Ints) -> Ints:
    """Those of `voxels` that `triangle`, in voxels, meets: no direction of thirteen parts the two."""
    edges = np.roll(triangle, -1, axis=0) - triangle
    directions = [*np.eye(3), np.cross(edges[0], edges[1])]
    directions += [np.cross(axis, edge) for axis in np.eye(3) for edge in edges]
    meet = np.ones(len(voxels), bool)
    for direction in directions:
        places = (triangle[None] - voxels[:, None] - 0.5) @ direction
        reach = np.abs(direction).sum() / 2
        meet &= (places.min(1) <= reach) & (places.max(1) >= -reach)
    return voxels[meet]


def _crossed(triangle: Floats, starts: Ints, axis: int) -> tuple[Ints, Floats]:
    """Those of the voxel edges from `starts` along `axis` that `triangle` crosses, and where: by signed volumes."""

    def volume(a: Floats, b: Floats, c: Floats, d: Floats) -> Floats:
        return np.einsum("...k,...k->...", np.cross(b - a, c - a), d - a)

    a, b, c = triangle
    begin, end = starts.astype(float), starts + np.eye(3)[axis]
    below, above = volume(a, b, c, begin), volume(a, b, c, end)
    turns = np.stack([volume(begin, end, *pair) for pair in ((a, b), (b, c), (c, a))])
    crossed = (below * above < 0) & ((turns > 0).all(0) | (turns < 0).all(0))
    share = below[crossed] / (below[crossed] - above[crossed])
    return starts[crossed], begin[crossed] + share[:, None] * np.eye(3)[axis]


def _slow(vertices: Floats, faces: Ints) -> tuple[dict[tuple[int, ...], Floats], set[Ints]]:
    """The dual vertex of each voxel that has a crossed edge, and the flags, from every triangle with every voxel."""
    points = (vertices + 0.5) * SIDE
    terms: dict[tuple[int, ...], list[tuple[Floats, Floats]]] = {}
    flags = set()
    planes = []
    for triangle in points[faces]:
        normal = np.cross(triangle[1] - triangle[0], triangle[2] - triangle[0])
        normal /= np.linalg.norm(normal)
        planes.append(np.outer(normal, normal))
        for axis in range(3):
            starts, places = _crossed(triangle, _near(triangle), axis)
            others = [i for i in range(3) if i != axis]
            for start, where in zip(starts, places, strict=True):
                for shift in itertools.product((0, 1), repeat=2):
                    voxel = start.copy()
                    voxel[others] -= shift
                    terms.setdefault(tuple(voxel), []).append((planes[-1], where))
                    terms[tuple(voxel)].append((0.01 * np.eye(3), where))
                flags.add((axis, *voxel))
    for triangle, plane in zip(points[faces], planes, strict=True):
        for voxel in map(tuple, _meeting(triangle, _near(triangle))):
            if voxel in terms:
                terms[voxel].append((plane, triangle[0]))
    for i, j in (edge for edge, count in _edges(faces).items() if count == 1):
        along = (points[j] - points[i]) / np.linalg.norm(points[j] - points[i])
        steps = points[i] + np.linspace(0, 1, 100_001)[:, None] * (points[j] - points[i])
        passed = {tuple(voxel) for voxel in np.unique(np.floor(steps).astype(int), axis=0)}
        for voxel in passed & terms.keys():
            terms[voxel].append((0.2 * (np.eye(3) - np.outer(along, along)), points[i]))
    return {voxel: _least(voxel, parts) for voxel, parts in terms.items()}, flags


def _least(voxel: tuple[int, ...], terms: list[tuple[Floats, Floats]]) -> Floats:
    a = sum(quadric for quadric, _ in terms)
    b = sum(quadric @ (where - voxel) for quadric, where in terms)
    factor = np.linalg.cholesky(a)
    right = np.linalg.solve(factor, b)
    return optimize.lsq_linear(factor.T, right, (0, 1), method="bvls", tol=1e-14).x


@pytest.mark.parametrize("name", MESHES)
@pytest.mark.parametrize("at_once", [2**19, 10])
def test_voxels_flags_and_vertices_are_those_of_a_slow_check(
    name: str, at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scan, "_AT_ONCE", at_once)
    vertices, faces = MESHES[name]()
    coords, dual, flags = voxelise(vertices, faces, SIDE)
    expected, flagged = _slow(vertices, faces)
    found = [tuple(voxel) for voxel in coords.tolist()]
    assert found == sorted(expected)
    assert {(axis, *coords[row]) for row, axis in np.argwhere(flags)} == flagged
    np.testing.assert_allclose(dual, [expected[voxel] for voxel in found], atol=1e-5)
    assert (coords.dtype, dual.dtype, flags.dtype) == (np.int32, np.float32, np.uint8)


@pytest.mark.parametrize("name", MESHES)
def test_a_voxel_is_left_out_only_if_no_edge_of_it_is_crossed(name: str) -> None:
    """A corner may reach into a voxel through a side of it: such a voxel is part of no face."""
    vertices, faces = MESHES[name]()
    found = {tuple(voxel) for voxel in voxelise(vertices, faces, SIDE)[0].tolist()}
    triangles = (vertices[faces] + 0.5) * SIDE
    met = {tuple(voxel) for triangle in triangles for voxel in _meeting(triangle, _near(triangle))}
    assert found <= met
    assert len(met - found) < (0.25 if name == "sheet" else 0.05) * len(met)
    corners = np.array([*itertools.product((0, 1), repeat=3)])
    for voxel in met - found:
        for axis in range(3):
            starts = voxel + corners[corners[:, axis] == 0]
            assert not any(len(_crossed(triangle, starts, axis)[0]) for triangle in triangles)


@pytest.mark.parametrize("name", MESHES)
def test_dual_vertices_lie_in_their_voxels_near_the_mesh_and_all_over_it(name: str) -> None:
    side = 48
    vertices, faces = MESHES[name]()
    coords, dual, _ = voxelise(vertices, faces, side)
    assert ((dual >= 0) & (dual <= 1)).all()
    found = (coords + dual) / side - 0.5
    count = 200_000 // len(faces)
    shares = np.random.default_rng(4).dirichlet([1, 1, 1], count)
    samples = (shares @ vertices[faces]).reshape(-1, 3)
    towards, _ = spatial.KDTree(samples).query(found)
    assert towards.max() < 1 / side
    back, _ = spatial.KDTree(found).query(samples)
    assert back.max() < np.sqrt(3) / side


def test_seams_of_a_mesh_that_shares_no_vertices_change_vertices_alone() -> None:
    vertices, faces = _ellipsoid()
    coords, _, flags = voxelise(vertices, faces, SIDE)
    apart = vertices[faces].reshape(-1, 3)
    coords_apart, dual, flags_apart = voxelise(apart, np.arange(len(apart)).reshape(-1, 3), SIDE)
    assert np.array_equal(coords, coords_apart)
    assert np.array_equal(flags, flags_apart)
    assert ((dual >= 0) & (dual <= 1)).all()


def test_nothing_and_what_has_no_area_have_no_voxels() -> None:
    vertices = np.array([[0.1, 0.1, 0.1], [0.3, 0.2, 0.4], [0.3, 0.2, 0.4]])
    for faces in (np.empty((0, 3), np.int64), np.array([[0, 1, 2], [1, 1, 1]])):
        coords, dual, flags = voxelise(vertices, faces, 64)
        assert coords.shape == dual.shape == flags.shape == (0, 3)


def test_what_is_outside_is_left_out() -> None:
    vertices, faces = _box()
    coords, dual, _ = voxelise(vertices * 3, faces, SIDE)
    assert len(coords)
    assert coords.min() >= 0
    assert coords.max() < SIDE
    assert ((dual >= 0) & (dual <= 1)).all()
    assert len(voxelise(vertices + 5, faces, SIDE)[0]) == 0


def test_a_fine_grid_needs_no_dense_array() -> None:
    """At 1024 a dense array of bytes has 1 GB; a box has some hundred thousand voxels."""
    vertices, faces = _box()
    coords, dual, _ = voxelise(vertices * 0.3, faces, 1024)
    assert 50_000 < len(coords) < 400_000
    low, high = place(coords, dual, 1024).min(0), place(coords, dual, 1024).max(0)
    np.testing.assert_allclose(
        [low, high], [0.3 * vertices.min(0), 0.3 * vertices.max(0)], atol=1e-3
    )


def test_the_work_can_be_ended() -> None:
    class EndedError(Exception):
        pass

    def check() -> None:
        raise EndedError

    with pytest.raises(EndedError):
        voxelise(*_box(), SIDE, check)

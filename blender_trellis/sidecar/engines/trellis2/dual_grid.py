# SPDX-License-Identifier: GPL-3.0-or-later
"""The flexible dual grid: a surface as one vertex in each voxel that it crosses and three flags of crossed voxel edges.

Of a voxel's twelve edges it flags the three that end at its corner of greatest x, y and z: flag a is of the edge parallel to
axis a. Where an edge is crossed, the vertices of the four voxels around it are a quad of the surface. To and from meshes, in
numpy. Source of the method: TRELLIS.2 (https://arxiv.org/abs/2512.14692).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from .scan import batches, crossings, overlaps, traversed
from .volume import Floats, Index, Ints, pack, unpack

_AROUND = np.array(
    [
        [[0, 0, 0], [0, 0, 1], [0, 1, 1], [0, 1, 0]],
        [[0, 0, 0], [1, 0, 0], [1, 0, 1], [0, 0, 1]],
        [[0, 0, 0], [0, 1, 0], [1, 1, 0], [1, 0, 0]],
    ],
    np.int32,
)
"""For the flagged edge along each axis the four voxels around it, in the order of the quad, from the voxel that flags it."""

_SPLITS = np.array([[0, 1, 2, 0, 2, 3], [0, 1, 3, 3, 1, 2]])
"""A quad's two triangles, cut from 0 to 2 or from 1 to 3."""

_BOUNDARY = 0.2
"""Weight of the distance to the mesh's open edges, against that to its planes."""

_PULL = 0.01
"""Weight of the distance to the points where voxel edges are crossed: it settles what planes leave open."""

_PAIRS = ((0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (2, 2))
"""The six different places of a symmetric 3×3 matrix, and below it, for each of the nine, which one it equals."""
_SYMMETRIC = np.array([[0, 1, 2], [1, 3, 4], [2, 4, 5]])


def extract(coords: Ints, head: Floats, resolution: int) -> tuple[Floats, Ints]:
    """The mesh of what `ShapeDecoder` returns.

    Args:
        coords: (N, 3) integers.
        head: (N, 7) for each voxel three logits of the dual vertex, three of the flags, and one of the weight for splits.
        resolution: voxels a side of the unit cube.

    Returns:
        vertices (N, 3), float32, in about -0.5 to 0.5, one for each voxel, and faces (F, 3), int32. Faces are not wound alike: a
        flag does not say from which side its edge is crossed.
    """
    head = np.asarray(head, np.float32)
    # tanh does not overflow where exp would: 2 · sigmoid(x) - 0.5 = tanh(x / 2) + 0.5
    dual = np.tanh(head[:, :3] / 2) + np.float32(0.5)
    weights = np.logaddexp(np.float32(0), head[:, 6])
    return place(coords, dual, resolution), connect(coords, head[:, 3:6] > 0, weights)


def place(coords: Ints, dual: Floats, resolution: int) -> Floats:
    """Dual vertices (N, 3), float32, in the unit cube around the origin, of `dual`, from 0 to 1 within each voxel."""
    return ((coords + dual) / np.float32(resolution) - np.float32(0.5)).astype(np.float32)


def connect(coords: Ints, flags: Ints, weights: Floats | None = None) -> Ints:
    """The faces (F, 3), int32, between the dual vertices of the voxels `coords` (N, 3) with `flags` (N, 3).

    A quad that lacks a voxel is left out. It is cut between the two opposite corners whose `weights` (N,) have the larger
    product; without weights, which a mesh's own dual grid lacks, from its first corner.
    """
    row, axis = np.nonzero(flags)
    index = Index(coords)
    quads = np.stack(
        [row, *(index.find(coords[row] + _AROUND[axis, corner]) for corner in (1, 2, 3))], -1
    )
    quads = quads[(quads >= 0).all(1)]
    second = np.zeros(len(quads), np.intp)
    if weights is not None:
        a, b, c, d = weights[quads].T
        second[a * c <= b * d] = 1
    return np.take_along_axis(quads, _SPLITS[second], 1).reshape(-1, 3).astype(np.int32)


def voxelise(
    vertices: Floats, faces: Ints, resolution: int, check: Callable[[], None] = lambda: None
) -> tuple[Ints, Floats, Ints]:
    """The dual grid of a mesh.

    A voxel belongs to it if the mesh crosses one of its edges. Its vertex is where the squared distances to the planes of
    the triangles that it meets are least: each counts once, and once more for every crossing; open edges (those of a single
    triangle) and the crossings themselves count a little.

    Args:
        vertices: (V, 3) in -0.5 to 0.5; what is outside is left out. Triangles hang together where they share vertices.
        faces: (F, 3).
        resolution: voxels a side of the unit cube.
        check: called every now and then; what it raises ends the work.

    Returns:
        coords (M, 3), int32, sorted by x, y, z; the dual vertices (M, 3), float32, from 0 to 1 within each voxel; and the
        flags (M, 3), uint8.
    """
    points = (np.asarray(vertices, np.float64) + 0.5) * resolution
    triangles, normals = _in_order(points[faces])
    found = [_crossings(triangles, axis, resolution, check) for axis in range(3)]
    flagging = [np.unique(along.flagging) for along in found]
    keys = np.unique(np.concatenate([_around(k, axis) for axis, k in enumerate(flagging)]))
    flags = np.stack([np.isin(keys, k, assume_unique=True) for k in flagging], -1)
    sums = _Sums(unpack(keys))
    for axis, along in enumerate(found):
        for part in batches(np.ones(len(along.depth), np.int64)):
            check()
            _add_crossings(sums, normals, along, axis, part)
    for triangle, voxels in overlaps(triangles, normals, resolution):
        check()
        sums.add(voxels, _outer(normals[triangle]), triangles[triangle, 0])
    starts, ends = _open_edges(points, faces)
    for edge, voxels in traversed(starts, ends):
        check()
        away = np.eye(3) - _outer(_directions(ends[edge] - starts[edge]))
        sums.add(voxels, _BOUNDARY * away, starts[edge])
    return sums.coords, sums.minimum(), flags.astype(np.uint8)


@dataclass(frozen=True)
class _Crossings:
    """Where triangles cross voxel edges parallel to one axis."""

    triangle: Ints
    flagging: Ints
    """Keys of the voxels that flag the edges."""
    depth: Floats
    """The crossings' coordinates along the axis."""


def _crossings(
    triangles: Floats, axis: int, resolution: int, check: Callable[[], None]
) -> _Crossings:
    owners, flagging, depths = [np.empty(0, np.int32)], [np.empty(0, np.int64)], [np.empty(0)]
    for triangle, voxel, depth in crossings(triangles, axis, resolution):
        check()
        owners.append(triangle.astype(np.int32))
        flagging.append(pack(voxel))
        depths.append(depth)
    return _Crossings(*(np.concatenate(parts) for parts in (owners, flagging, depths)))


def _add_crossings(sums: _Sums, normals: Floats, found: _Crossings, axis: int, part: slice) -> None:
    """The triangle's plane and, weakly, the point itself, for each of the four voxels around a crossed edge."""
    voxels = unpack(found.flagging[part])
    points = voxels + 1.0
    points[:, axis] = found.depth[part]
    quadrics = _outer(normals[found.triangle[part]]) + _PULL * np.eye(3)
    for step in _AROUND[axis]:
        sums.add(voxels + step, quadrics, points)


def _around(keys: Ints, axis: int) -> Ints:
    """The keys of the four voxels around the edges along `axis` that the voxels with `keys` flag."""
    steps = pack(_AROUND[axis]) - pack(_AROUND[axis, :1])
    return (keys[:, None] + steps).ravel()


def _in_order(triangles: Floats) -> tuple[Floats, Floats]:
    """Those of `triangles` (F, 3, 3) that have an area, and their normals of length 1.

    They are sorted by x, as voxels are: what is worked on together then lies together in memory.
    """
    triangles = triangles[np.argsort(triangles[:, :, 0].min(1))]
    normals = np.cross(triangles[:, 1] - triangles[:, 0], triangles[:, 2] - triangles[:, 0])
    wide = normals.any(1)
    return triangles[wide], _directions(normals[wide])


def _open_edges(points: Floats, faces: Ints) -> tuple[Floats, Floats]:
    """The ends (n, 3) of the edges of a single triangle."""
    following = np.roll(faces, -1, axis=1)
    low, high = np.minimum(faces, following), np.maximum(faces, following)
    keys, count = np.unique(low.astype(np.int64) * len(points) + high, return_counts=True)
    low, high = np.divmod(keys[count == 1], len(points))
    starts, ends = points[low], points[high]
    long = (starts != ends).any(1)
    return starts[long], ends[long]


def _directions(vectors: Floats) -> Floats:
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def _outer(vectors: Floats) -> Floats:
    """The product (n, 3, 3) of each of `vectors` (n, 3) with itself."""
    return vectors[:, :, None] * vectors[:, None]


class _Sums:
    """For each voxel the sum of squared distances as a quadratic function of a point within it: xᵀAx - 2bᵀx."""

    def __init__(self, coords: Ints) -> None:
        self.coords = coords
        self._index = Index(coords)
        self._a = np.zeros((len(_PAIRS), len(coords)))
        self._b = np.zeros((3, len(coords)))

    def add(self, voxels: Ints, quadrics: Floats, points: Floats) -> None:
        """Add (x - point)ᵀ · quadric · (x - point) to those of `voxels` that exist: (n, 3), (n, 3, 3), (n, 3)."""
        row = self._index.find(voxels)
        there = row >= 0
        if not there.any():
            return
        row, quadrics, points = row[there], quadrics[there], points[there]
        pulls = np.einsum("nij,nj->ni", quadrics, points - self.coords[row])
        first, end = row.min(), row.max() + 1
        row, count = row - first, end - first
        for entry, (i, j) in enumerate(_PAIRS):
            self._a[entry, first:end] += np.bincount(row, quadrics[:, i, j], count)
        for axis in range(3):
            self._b[axis, first:end] += np.bincount(row, pulls[:, axis], count)

    def minimum(self) -> Floats:
        """The point (N, 3) of each voxel, from 0 to 1, where its sum is least."""
        found = np.empty((len(self.coords), 3), np.float32)
        for part in batches(np.ones(len(found), np.int64)):
            a = self._a[:, part][_SYMMETRIC].transpose(2, 0, 1)
            found[part] = _minimum(a, self._b[:, part].T)
        return found


def _minimum(a: Floats, b: Floats) -> Floats:
    """The x (n, 3) from 0 to 1 with the least xᵀAx - 2bᵀx: `a` (n, 3, 3), positive definite, and `b` (n, 3)."""
    found = np.linalg.solve(a, b[..., None])[..., 0]
    outside = ((found < 0) | (found > 1)).any(1)
    found[outside] = _minimum_on_sides(a[outside], b[outside])
    return found


def _minimum_on_sides(a: Floats, b: Floats) -> Floats:
    """The same where the least of all lies outside: the best of the least on each side, edge and corner of the cube."""
    found, least = np.zeros_like(b), np.full(len(b), np.inf)
    for held in itertools.product((None, 0.0, 1.0), repeat=3):
        fixed = [i for i, value in enumerate(held) if value is not None]
        if not fixed:
            continue
        equations, right = a.copy(), b.copy()
        equations[:, fixed] = np.eye(3)[fixed]
        right[:, fixed] = [held[i] for i in fixed]
        x = np.linalg.solve(equations, right[..., None])[..., 0]
        x[:, fixed] = right[:, fixed]  # without what rounding adds, which may lie outside
        value = np.einsum("ni,nij,nj->n", x, a, x) - 2 * np.einsum("ni,ni->n", b, x)
        better = (value < least) & ((x >= 0) & (x <= 1)).all(1)
        found[better], least[better] = x[better], value[better]
    return found

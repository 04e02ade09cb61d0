# SPDX-License-Identifier: GPL-3.0-or-later
"""A solid becomes a closed 2-manifold triangle mesh.

The solid is sampled on a voxel grid whose spacing is chosen for the wanted number of vertices. Where voxels meet only
along an edge or at a corner, more are filled in until none do (the set is then "well-composed": L. Latecki, "3D
well-composed pictures", 1997), so the faces between inside and outside voxels form a closed 2-manifold. Its vertices are
then moved onto the solid's surface, which cannot change how they are connected.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ....pixels.grids import Bools, Floats, Ints, components
from .structure import Solid

_MOST_VOXELS = 160_000_000
"""Keeps the grid within about half a gigabyte."""

Step = Callable[[str], None]


@dataclass(frozen=True)
class Mesh:
    """A closed triangle mesh in the solid's space."""

    points: Floats
    """(V, 3)"""
    faces: Ints
    """(F, 3), counter-clockwise seen from outside."""
    normals: Floats
    """(V, 3), unit length."""
    spacing: float
    """Size of a voxel."""


def extract(solid: Solid, most: int, finest: float, step: Step) -> Mesh:
    """The surface of `solid` with at most `most` vertices and voxels no smaller than `finest`."""
    grid, voxels = _grid_for(solid, most, finest, step)
    points, quads = _boundary(voxels)
    points = np.asarray(points[:, [1, 2, 0]] * grid.spacing, np.float32) + grid.origin
    step("Joining the faces")
    points, quads = _largest(points, quads)
    points = _fitted(solid, points, quads, grid.spacing, step)
    faces = _triangles(points, quads)
    return Mesh(points, faces, _normals(points, faces), grid.spacing)


@dataclass(frozen=True)
class _Grid:
    """Nodes of the voxel grid; voxels are indexed [z, x, y], each centred at a node."""

    xs: Floats
    ys: Floats
    zs: Floats
    spacing: float

    @property
    def origin(self) -> Floats:
        """The voxels' outermost corner."""
        low = np.array([self.xs[0], self.ys[0], self.zs[0]], np.float32)
        return np.asarray(low - np.float32(self.spacing / 2))


def _grid_for(solid: Solid, most: int, finest: float, step: Step) -> tuple[_Grid, Bools]:
    box = 8 * float(np.prod(solid.extent))
    finest = max(finest, (box / _MOST_VOXELS) ** (1 / 3))
    spacing = max(finest, (box / 400_000) ** (1 / 3))
    count = _vertex_count(_voxels(solid, _nodes(solid, spacing)))
    step("Choosing the grid")
    aim = 0.94 * most
    while True:
        spacing = max(finest, spacing * float(np.sqrt(count / aim)))
        grid = _nodes(solid, spacing)
        voxels = _voxels(solid, grid)
        count = _vertex_count(voxels)
        step("Filling the grid")
        if count <= most:
            return grid, voxels
        # A grid at the limit of the resolution may still have too many: coarser by at least a little.
        finest, spacing = 0.0, spacing * 1.005


def _nodes(solid: Solid, spacing: float) -> _Grid:
    """Two empty voxels on every side; one node lies at y = 0, where thin parts are."""
    xs, ys, zs = (
        (np.arange(-n, n + 1) * spacing).astype(np.float32)
        for n in (int(np.ceil(half / spacing)) + 2 for half in solid.extent)
    )
    return _Grid(xs, ys, zs, spacing)


def _voxels(solid: Solid, grid: _Grid) -> Bools:
    """Which voxels (Z, X, Y) are inside, well-composed."""
    front, back = solid.node_depths(grid.xs, grid.zs, grid.spacing)
    across = solid.node_across(grid.ys, grid.zs, grid.spacing)
    middle = len(grid.ys) // 2
    voxels = np.empty((len(grid.zs), len(grid.xs), len(grid.ys)), bool)
    np.less(across[:, None, :middle], front[:, :, None], out=voxels[..., :middle])
    np.less(across[:, None, middle:], back[:, :, None], out=voxels[..., middle:])
    for axis in range(3):  # the outermost voxels stay empty, so that the surface closes
        np.moveaxis(voxels, axis, 0)[[0, -1]] = False
    _compose(voxels)
    return voxels


def _vertex_count(voxels: Bools) -> int:
    return len(_mixed_corners(voxels))


def _mixed_corners(voxels: Bools) -> Ints:
    """Flat indices, in an array one smaller along every axis, of the 2×2×2 blocks that are neither full nor empty."""
    some, every = voxels, voxels
    for axis in range(3):
        head = (slice(None),) * axis + (slice(1, None),)
        tail = (slice(None),) * axis + (slice(None, -1),)
        some, every = some[head] | some[tail], every[head] & every[tail]
    return np.flatnonzero(some & ~every)


_CORNERS = np.array([(a, b, c) for a in (0, 1) for b in (0, 1) for c in (0, 1)])


def _critical_table() -> tuple[Bools, npt.NDArray[np.uint8]]:
    """For every filling of a 2×2×2 block (bit k: corner k): whether voxels meet only at an edge or a corner, and one
    corner to fill in against it."""
    critical, cure = np.zeros(256, bool), np.zeros(256, np.uint8)
    for code in range(256):
        full = [bool(code >> k & 1) for k in range(8)]
        for k in range(8):
            for other in range(k + 1, 8):
                if full[k] != full[other]:
                    continue
                differ = [axis for axis in range(3) if _CORNERS[k][axis] != _CORNERS[other][axis]]
                if len(differ) == 2:
                    rest = [k ^ (4 >> differ[0]), k ^ (4 >> differ[1])]
                    bad = all(full[r] != full[k] for r in rest)
                elif len(differ) == 3:
                    rest = [r for r in range(8) if r not in (k, other)]
                    bad = all(full[r] != full[k] for r in rest)
                else:
                    continue
                if bad and not critical[code]:
                    critical[code] = True
                    cure[code] = 1 << (rest[0] if full[k] else k)
    return critical, cure


_CRITICAL, _CURE = _critical_table()


def _compose(voxels: Bools) -> None:
    """Fill in voxels, in place, until the set is well-composed."""
    shape = np.array(voxels.shape) - 1
    strides = np.array([voxels.shape[1] * voxels.shape[2], voxels.shape[2], 1])
    offsets = _CORNERS @ strides
    flat = voxels.reshape(-1)
    blocks = np.stack(np.unravel_index(_mixed_corners(voxels), tuple(shape)), -1)
    at = blocks @ strides
    while len(at):
        codes = _codes(flat, at, offsets)
        critical = _CRITICAL[codes]
        cure = _CURE[codes[critical]]
        bit = np.log2(cure).astype(np.int64)
        changed = np.unique(at[critical] + offsets[bit])
        flat[changed] = True
        at = np.unique((changed[:, None] - offsets).ravel())


def _codes(flat: Bools, at: Ints, offsets: Ints) -> npt.NDArray[np.uint8]:
    codes = np.zeros(len(at), np.uint8)
    for k, offset in enumerate(offsets):
        codes |= flat[at + offset].astype(np.uint8) << np.uint8(k)
    return codes


def _boundary(voxels: Bools) -> tuple[Floats, Ints]:
    """Corners (V, 3) in voxels [z, x, y] and quads (Q, 4) of the faces between inside and outside, wound outwards."""
    corners = _mixed_corners(voxels)
    shape = tuple(n - 1 for n in voxels.shape)
    points = np.stack(np.unravel_index(corners, shape), -1).astype(np.float32) + 1
    quads = []
    for axis in range(3):
        head = (slice(None),) * axis + (slice(1, None),)
        tail = (slice(None),) * axis + (slice(None, -1),)
        for leaving in (True, False):
            inner, outer = (tail, head) if leaving else (head, tail)
            where = np.argwhere(voxels[inner] & ~voxels[outer])
            # The four blocks round the face between voxels i and i+1 along the axis.
            one, two = [(1, 2), (2, 0), (0, 1)][axis]
            quad = np.repeat(where[:, None], 4, axis=1)
            for k, (a, b) in enumerate(((-1, -1), (0, -1), (0, 0), (-1, 0))):
                quad[:, k, one] += a
                quad[:, k, two] += b
            flat = np.ravel_multi_index(tuple(np.moveaxis(quad, -1, 0)), shape)
            quads.append(flat if leaving else flat[:, ::-1])
    found = np.searchsorted(corners, np.concatenate(quads))
    # [z, x, y] is a cyclic permutation of x, y, z: the winding stays.
    return points, found


def _largest(points: Floats, quads: Ints) -> tuple[Floats, Ints]:
    """Without components of less than a fiftieth of the largest's faces."""
    names = components(len(points), quads[:, :3].ravel(), quads[:, 1:].ravel())
    sizes = np.bincount(names[quads[:, 0]], minlength=len(points))
    quads = quads[(sizes >= 0.02 * sizes.max())[names[quads[:, 0]]]]
    used = np.zeros(len(points), bool)
    used[quads] = True
    return points[used], (np.cumsum(used) - 1)[quads]


def _fitted(solid: Solid, points: Floats, quads: Ints, spacing: float, step: Step) -> Floats:
    """Vertices moved from the voxels' corners onto the surface, evenly spread."""
    a, b = quads.ravel(), np.roll(quads, -1, axis=1).ravel()  # every edge once each way
    degree = np.bincount(a, minlength=len(points)).astype(np.float32)[:, None]
    for round_ in range(4):
        for _ in range(3 if round_ == 0 else 1):
            total = [np.bincount(a, weights=points[b, k], minlength=len(points)) for k in range(3)]
            points = (points + np.stack(total, -1).astype(np.float32) / degree) / 2
        for _ in range(2):
            points = points + _towards(solid, points, np.float32(0.8 * spacing))
        step("Fitting the surface")
    return points


def _towards(solid: Solid, points: Floats, most: np.float32) -> Floats:
    """A Newton step onto the surface, no longer than `most`."""
    value, gradient = solid.field(points)
    move = gradient * (-value / np.maximum((gradient**2).sum(-1), 1e-8))[:, None]
    length = np.sqrt((move**2).sum(-1, keepdims=True))
    return move * np.minimum(1, most / np.maximum(length, 1e-12))


def _triangles(points: Floats, quads: Ints) -> Ints:
    """Every quad cut along its shorter diagonal."""
    corner = points[quads]
    first = ((corner[:, 0] - corner[:, 2]) ** 2).sum(-1)
    second = ((corner[:, 1] - corner[:, 3]) ** 2).sum(-1)
    turned = np.where((first <= second)[:, None], quads, np.roll(quads, -1, axis=1))
    return np.concatenate([turned[:, [0, 1, 2]], turned[:, [0, 2, 3]]])


def _normals(points: Floats, faces: Ints) -> Floats:
    """Vertex normals, faces weighted by area."""
    corner = points[faces]
    cross = np.cross(corner[:, 1] - corner[:, 0], corner[:, 2] - corner[:, 0])
    total = np.zeros((len(points), 3))
    for axis in range(3):
        weights = np.repeat(cross[:, axis], 3)
        total[:, axis] = np.bincount(faces.ravel(), weights=weights, minlength=len(points))
    length = np.linalg.norm(total, axis=1, keepdims=True)
    return np.where(length > 0, total / np.maximum(length, 1e-30), [0, 0, 1]).astype(np.float32)

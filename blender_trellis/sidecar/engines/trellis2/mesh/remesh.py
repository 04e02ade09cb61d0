# SPDX-License-Identifier: GPL-3.0-or-later
"""A surface is rebuilt as the boundary of a solid: closed, a 2-manifold, wound one way, about as fine as its own voxels.

What is inside is decided at the nodes of a grid, of which only those near the surface exist, and marching cubes makes the
boundary, with its points where the grid's edges pierce the surface. What nearly closed parts of the surface enclose is
inside, their holes being closed first: no second wall arises, and the result lies on the surface. Open sheets, and walls
thinner than a voxel, get a shell; that of a sheet stands off on both sides, that of a wall is drawn onto its own two sides.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import igl
import numpy as np

from ...stages import EngineError
from .closed import closable
from .cubes import CORNERS, COUNT, EDGES, TRIANGLES
from .holes import close
from .inside import LEAST_BAND, Inside, coordinates, inside, margin, widened
from .progress import part
from .scan import strides
from .surface import Bools, Floats, Ints, MeshOptions, Step

_OFFSET = np.array([0.1357, 0.4142, 0.7321])
"""Of the grid, in voxels: what people build lies on round numbers, where nodes should not."""
_FREE = 0.02
"""Part of a grid edge at either end in which no point is put, so that no two coincide."""
_MOST_PROJECT = 0.95
"""The two sides of a shell must not meet."""
_CHUNK = 100_000


def remesh(points: Floats, faces: Ints, options: MeshOptions, step: Step) -> tuple[Floats, Ints]:
    """The oriented surface as a closed 2-manifold.

    Raises:
        EngineError: nothing of it is as large as a voxel.
    """
    faces, closed = closable(points, faces, part(step, 0.0, 0.1))
    band = max(options.remesh_band, LEAST_BAND)
    low = points.min(0).astype(np.float64) - (margin(band) + _OFFSET) / options.resolution
    units, solid = close((points - low) * options.resolution, faces[closed])
    faces = np.concatenate([solid, faces[~closed]])
    closed = np.arange(len(faces)) < len(solid)
    solids = inside(units, faces, closed, band, part(step, 0.1, 0.5))
    boundary = _Boundary.of(solids, part(step, 0.5, 0.8))
    if not len(boundary.lower):
        raise EngineError(
            "The model is smaller than a voxel, so it cannot be remeshed. Try without remeshing."
        )
    step("Making faces", 0.8)
    made, shell = boundary.points(solids)
    triangles = boundary.faces()
    if shell.any():
        near = _near(made[shell], units, faces, band)
        share = np.where(closed[near], _MOST_PROJECT, min(options.remesh_project, _MOST_PROJECT))
        made[shell] = _drawn(made[shell], units, faces[near], share, part(step, 0.8, 1.0))
    return made / options.resolution + low, triangles


@dataclass(frozen=True)
class _Boundary:
    """The cubes and the grid's edges through which the boundary of a solid passes."""

    size: int
    nodes: Ints
    """(N,) at the corners of all `cubes`, sorted"""
    full: Bools
    """(N,) and whether they are inside."""
    cubes: Ints
    """(C,) by their lowest node."""
    axis: Ints
    """(E,) of the edges, along which axis they run"""
    lower: Ints
    """(E,) and where in `nodes` their lower end is."""

    @classmethod
    def of(cls, solid: Inside, step: Step) -> _Boundary:
        """The boundary of `solid`, followed until it is closed."""
        nodes = solid.seeds()
        for _ in range(solid.size):
            step("Following the boundary", 0.0)
            full = solid(nodes)
            axis, lower = _mixed(nodes, full, solid.size)
            cubes = _round(nodes[lower], axis, solid.size)
            more = np.union1d(nodes, widened(cubes, solid.size, range(2)))
            if len(more) == len(nodes):
                break
            nodes = more
        return cls(solid.size, nodes, full, cubes, axis, lower)

    def points(self, solid: Inside) -> tuple[Floats, Bools]:
        """Where (E, 3), in the grid's units, the edges cross the boundary, and whether (E,) that of a shell."""
        at = coordinates(self.nodes[self.lower], self.size).astype(np.float64)
        shell = np.zeros(len(at), bool)
        for axis in range(3):
            which = np.flatnonzero(self.axis == axis)
            lower = self.lower[which]
            part, shell[which] = solid.crossing(axis, self.nodes[lower], self.full[lower])
            at[which, axis] += np.clip(part, _FREE, 1 - _FREE)
        return at, shell

    def faces(self) -> Ints:
        """(F, 3), of the points."""
        number = np.full((3, len(self.nodes)), -1, np.int32)
        number[self.axis, self.lower] = np.arange(len(self.axis))
        offsets = CORNERS @ np.array(strides(self.size))
        corner = np.stack([np.searchsorted(self.nodes, self.cubes + k) for k in offsets], -1)
        code = (self.full[corner] << np.arange(8)).sum(1)
        cube = np.repeat(np.arange(len(code)), COUNT[code])
        first = np.cumsum(COUNT[code]) - COUNT[code]
        edge = TRIANGLES[code[cube], np.arange(len(cube)) - first[cube]]
        ends, axes = np.array(EDGES).T
        return number[axes[edge], corner[cube[:, None], ends[edge]]]


def _mixed(nodes: Ints, full: Bools, size: int) -> tuple[Ints, Ints]:
    """Edges of which one end is inside and one is not: their axis, and where in `nodes` the lower end is."""
    axes, lowers = [], []
    for axis, stride in enumerate(strides(size)):
        upper = np.minimum(np.searchsorted(nodes, nodes + stride), len(nodes) - 1)
        lower = np.flatnonzero((nodes[upper] == nodes + stride) & (full[upper] != full))
        axes.append(np.full(len(lower), axis))
        lowers.append(lower)
    return np.concatenate(axes), np.concatenate(lowers)


def _round(lower: Ints, axis: Ints, size: int) -> Ints:
    """The four cubes at each of the edges, without repetition."""
    found = []
    for along in range(3):
        u, v = (strides(size)[(along + k) % 3] for k in (1, 2))
        some = lower[axis == along]
        found += [some, some - u, some - v, some - u - v]
    return np.unique(np.concatenate(found))


def _near(made: Floats, points: Floats, faces: Ints, band: float) -> Bools:
    """Faces (F,) among which are those nearest to each of the points `made`, which are at most `band` away from one."""
    block = math.ceil(band) + 3
    size = math.ceil(points.max() / block) + 4

    def numbers(places: Floats) -> Ints:
        return (places // block + 2).astype(np.int64) @ np.array(strides(size))

    blocks = widened(np.unique(numbers(made)), size, range(-2, 3))
    sides = np.linalg.norm(points[faces] - points[np.roll(faces, 1, axis=1)], axis=2)
    return np.isin(numbers(points), blocks)[faces].any(1) | (sides.max(1) > block)


def _drawn(made: Floats, points: Floats, faces: Ints, share: Floats, step: Step) -> Floats:
    """Points (N, 3) moved towards the surface, by the `share` (F,) of the face that is nearest."""
    tree = igl.AABB()
    faces = faces.astype(np.int64)
    tree.init(points, faces)
    drawn = np.empty_like(made)
    for first in range(0, len(made), _CHUNK):
        step("Drawing thin walls together", first / len(made))
        some = slice(first, first + _CHUNK)
        _, face, nearest = tree.squared_distance(points, faces, made[some])
        drawn[some] = made[some] + share[face, None] * (nearest - made[some])
    return drawn

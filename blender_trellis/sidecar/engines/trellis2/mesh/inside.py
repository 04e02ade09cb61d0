# SPDX-License-Identifier: GPL-3.0-or-later
"""What counts as inside at the nodes of a grid: what closed surfaces enclose, and what is near the rest.

The rest are open sheets, and walls so thin that no node may lie in them; it gets a shell.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import igl
import numpy as np

from .edges import spread
from .orient import corners, crosses
from .progress import part
from .scan import Scan, scan, strides
from .surface import Bools, Floats, Ints, Step

_THIN_BAND = 1.0
"""Voxels by which the shell of a thin wall stands off, before it is drawn onto the wall."""
LEAST_BAND = 0.9
"""Every point has a node within 0.87 voxels, so a thinner shell could tear."""
_OPPOSITE = -0.2
"""Cosine between the normals of two faces that are the two sides of a thin wall, and not one bulge, at most."""
_CHUNK = 50_000


@dataclass(frozen=True)
class Inside:
    """A solid of closed surfaces and shells. Nodes are numbers, (x · size + y) · size + z."""

    size: int
    scans: tuple[Scan, Scan, Scan]
    """Of the closed surfaces, along x, y and z."""
    near: Ints
    """(N,) nodes near the rest, sorted."""
    gap: Floats
    """(N,) their distance from the shell about it, in voxels, negative in the shell."""

    def __call__(self, nodes: Ints) -> Bools:
        return (self.scans[2].winding(nodes.astype(np.float64)) >= 1) | (self._gap(nodes) < 0)

    def seeds(self) -> Ints:
        """Nodes (M,) among which are those at all places where the boundary may pass."""
        found = [self.near]
        for lines in self.scans:
            edge = np.unique(lines.at.astype(np.int64))
            inside = [lines.winding((edge + end).astype(np.float64)) >= 1 for end in (0, 1)]
            lower = lines.nodes(edge[inside[0] != inside[1]])
            found += [lower, lower + strides(self.size)[lines.axis]]
        return np.unique(np.concatenate(found))

    def crossing(self, axis: int, lower: Ints, inside: Bools) -> tuple[Floats, Bools]:
        """Where (E,), from 0 to 1, edges cross the boundary, and whether (E,) a shell makes it.

        Args:
            lower: (E,) the edges' lower nodes.
            inside: (E,) whether this end is inside; the other one is not, or the other way round.
        """
        lines = self.scans[axis]
        edge = lines.edges(lower)
        begin, end = (np.searchsorted(lines.at, edge + k) for k in (0.0, 1.0))
        # Of several, that which is met first from outside.
        index = np.clip(np.where(inside, end - 1, begin), 0, max(len(lines.at) - 1, 0))
        solid = np.full(len(edge), np.inf)
        there = begin < end
        solid[there] = lines.at[index[there]] - edge[there]
        solid[there & inside] = 1 - solid[there & inside]
        ends = self._gap(lower), self._gap(lower + strides(self.size)[axis])
        outer = np.minimum(np.where(inside, ends[1], ends[0]), 1)
        inner = np.where(inside, ends[0], ends[1])
        shell = np.where(inner < 0, outer / (outer - np.minimum(inner, -1e-9)), np.inf)
        first = np.minimum(solid, shell)
        first[np.isinf(first)] = 0.5
        return np.where(inside, 1 - first, first), shell < solid

    def _gap(self, nodes: Ints) -> Floats:
        if not len(self.near):
            return np.full(len(nodes), np.inf)
        index = np.minimum(np.searchsorted(self.near, nodes), len(self.near) - 1)
        return np.where(self.near[index] == nodes, self.gap[index], np.inf)


def margin(band: float) -> int:
    """Voxels round the surface that the grid needs."""
    return math.ceil(band) + 4


def inside(points: Floats, faces: Ints, closed: Bools, band: float, step: Step) -> Inside:
    """What is inside a surface with `points` (V, 3) in the grid's units, at least `margin` above 0, and `faces` (F, 3).

    Args:
        closed: (F,) faces that together close; the others are sheets.
        band: voxels by which the shell of a sheet stands off.
    """
    size = math.ceil(points.max()) + margin(band)
    solid = faces[closed]
    scans = []
    for axis in range(3):
        step("Scanning the surface", 0.2 * axis)
        scans.append(scan(points, solid, size, axis))
    thin = _thin(points, solid, scans)
    near, gap = [], []
    for some, width, low in ((solid[thin], _THIN_BAND, 0.6), (faces[~closed], band, 0.8)):
        if len(some):
            nodes, distance = _around(points, some, size, width, part(step, low, low + 0.2))
            near.append(nodes)
            gap.append(distance - width)
    return Inside(size, (scans[0], scans[1], scans[2]), *_least(near, gap))


def _thin(points: Floats, faces: Ints, scans: list[Scan]) -> Bools:
    """Faces (F,) of walls that lie between two neighbouring nodes, and the faces round them."""
    found = np.zeros(len(faces), bool)
    for lines in scans:
        edge = lines.at.astype(np.int64)
        first = np.flatnonzero((edge[1:] == edge[:-1]) & (lines.levels[1:-1] >= 1))
        ends = (lines.winding((edge[first] + end).astype(np.float64)) for end in (0, 1))
        first = first[(np.maximum(*ends) < 1)]
        sides = lines.face[first], lines.face[first + 1]
        one, other = (crosses(corners(points, faces[side])) for side in sides)
        lengths = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
        opposite = (one * other).sum(1) < _OPPOSITE * lengths
        for side in sides:
            found[side[opposite]] = True
    touched = np.zeros(len(points), bool)
    touched[faces[found]] = True
    return np.asarray(touched[faces].any(1))


def _around(points: Floats, faces: Ints, size: int, band: float, step: Step) -> tuple[Ints, Floats]:
    """Nodes at most a voxel further than `band` from `faces`, sorted, and their distance."""
    seeds = [_along(points, faces, size)]
    for axis in range(3):
        lines = scan(points, faces, size, axis)
        lower = lines.nodes(np.unique(lines.at.astype(np.int64)))
        seeds += [lower, lower + strides(size)[axis]]
    reach = math.ceil(band) + 1
    nodes = widened(np.unique(np.concatenate(seeds)), size, range(-reach, reach + 1))
    tree = igl.AABB()
    tree.init(points, faces.astype(np.int64))
    distance = np.empty(len(nodes))
    for first in range(0, len(nodes), _CHUNK):
        step("Measuring the distance to what is open or thin", first / len(nodes))
        some = slice(first, first + _CHUNK)
        places = coordinates(nodes[some], size).astype(np.float64)
        distance[some] = np.sqrt(tree.squared_distance(points, faces.astype(np.int64), places)[0])
    near = distance < band + 1
    return nodes[near], distance[near]


def _along(points: Floats, faces: Ints, size: int) -> Ints:
    """A node near every place on the sides of `faces`: a needle may pass between the grid's lines."""
    begin, end = points[faces].reshape(-1, 3), points[np.roll(faces, -1, axis=1)].reshape(-1, 3)
    count = np.ceil(np.linalg.norm(end - begin, axis=1)).astype(np.int64) + 1
    side = np.repeat(np.arange(len(count)), count)
    part = spread(np.zeros_like(count), count) / count[side]
    places = begin[side] + part[:, None] * (end - begin)[side]
    return places.astype(np.int64) @ np.array(strides(size))


def widened(nodes: Ints, size: int, by: range) -> Ints:
    """All nodes that are `by` steps away from one of `nodes` along x, y and z, sorted."""
    for stride in strides(size):
        nodes = np.unique(np.concatenate([nodes + k * stride for k in by]))
    return nodes


def coordinates(nodes: Ints, size: int) -> Ints:
    """(N, 3)"""
    return np.stack([nodes // size**2, nodes // size % size, nodes % size], -1)


def _least(near: list[Ints], gap: list[Floats]) -> tuple[Ints, Floats]:
    """All nodes, sorted, and the least gap of each."""
    if not near:
        return np.empty(0, np.int64), np.empty(0)
    nodes, gaps = np.concatenate(near), np.concatenate(gap)
    order = np.argsort(nodes, kind="stable")
    first = np.flatnonzero(np.diff(nodes[order], prepend=-1))
    return nodes[order][first], np.minimum.reduceat(gaps[order], first)

# SPDX-License-Identifier: GPL-3.0-or-later
"""Which faces of a surface lie in one chart of the texture: neighbours whose normals lie in one cone.

Charts grow by merging: in each round, every two neighbours that suit each other best become one. All do so at once, which
numpy is quick at. xatlas took twenty times as long for 200,000 faces, silently, holding the interpreter, for more seams.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .edges import components, edges
from .surface import Floats, Ints, MeshOptions, Step, Surface

_STEEPEST = np.radians(75)
"""A chart is seen straight along its axis, so a face at this angle is shown at a quarter of its width."""
_TINY, _TINY_STEEPEST = 8, np.radians(85)
"""Charts of fewer faces than this are not worth their padding: they may join a neighbour even at this angle."""
_ROUNDNESS = 0.2
"""What the outline of a chart counts beside its cone: both are about 1 where a merger begins to be a bad one."""


@dataclass(frozen=True)
class Dual:
    """The faces of a surface as a graph: which two share an edge."""

    normals: Floats
    """(F, 3), of length 1, or 0 where a face has no area."""
    areas: Floats
    """(F,)"""
    outlines: Floats
    """(F,) length of a face's three edges."""
    one: Ints
    """(E,) half-edges: of every edge that two faces share, wound alike, the one in the first face"""
    other: Ints
    """(E,) and the one in the second."""
    lengths: Floats
    """(E,) of these edges."""

    @property
    def a(self) -> Ints:
        """(E,) the first face at each shared edge."""
        return self.one // 3

    @property
    def b(self) -> Ints:
        """(E,) the second."""
        return self.other // 3


def dual(surface: Surface) -> Dual:
    """The graph of the faces of `surface`."""
    corners = surface.points[surface.faces].astype(np.float64)
    crosses = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    sides = np.linalg.norm(np.roll(corners, -1, axis=1) - corners, axis=2)
    mesh = edges(surface.faces)
    one = mesh.order[mesh.first[mesh.paired]]
    other = mesh.order[mesh.first[mesh.paired] + 1]
    areas = np.linalg.norm(crosses, axis=1) / 2
    return Dual(_unit(crosses), areas, sides.sum(1), one, other, sides.ravel()[one])


def cluster(graph: Dual, options: MeshOptions, step: Step) -> Ints:
    """The chart of every face, (F,), from 0 without gaps. Each is connected, and its normals are about in one cone of half
    angle `options.cone_half_angle`, or `_STEEPEST` if that is less, but for a few faces that no better one wants.

    `step` is called after each of some forty rounds.
    """
    limit = min(options.cone_half_angle, float(_STEEPEST))
    charts: Ints = np.arange(len(graph.areas))
    for _ in range(options.global_iterations):
        charts = _merge(graph, charts, limit, step)
        straighten = [False] * options.refine_iterations + [True] * options.smooth_strength
        for done, straight in enumerate(straighten):
            charts = _exchange(graph, charts, limit, straighten=straight)
            step("Moving the borders of charts", done / len(straighten))
        charts = connected(graph, charts)
    return _merge(graph, charts, float(_TINY_STEEPEST), step, tiny=_TINY)


def connected(graph: Dual, charts: Ints) -> Ints:
    """`charts` (F,), each split into its connected parts."""
    same = charts[graph.a] == charts[graph.b]
    # 64 bits, since numbers of charts are multiplied by numbers of points
    return components(len(charts), graph.a[same], graph.b[same]).astype(np.int64)


def axes(graph: Dual, charts: Ints) -> Floats:
    """From where each chart is seen, (C, 3): its mean normal by area."""
    return _unit(_sums(charts, graph.normals * graph.areas[:, None]))


def _merge(graph: Dual, charts: Ints, limit: float, step: Step, tiny: int | None = None) -> Ints:
    """`charts` joined until no two neighbours fit into a cone of half angle `limit`; only ones below `tiny` faces if given."""
    a, b, shared = charts[graph.a], charts[graph.b], graph.lengths
    sums = _sums(charts, graph.normals * graph.areas[:, None])
    areas = np.bincount(charts, graph.areas)
    outlines = np.bincount(charts, graph.outlines) - 2 * _inner(a, b, shared, len(areas))
    begun = len(areas)
    while True:
        a, b, shared = _pairs(a, b, shared, len(areas))
        cost = _ROUNDNESS * (outlines[a] + outlines[b] - 2 * shared)
        cost /= np.sqrt(np.maximum(areas[a] + areas[b], 1e-30))
        steep = _joint_cones(graph.normals, charts, sums, a, b)
        fits = steep <= limit
        if tiny is not None:
            sizes = np.bincount(charts)
            fits &= np.minimum(sizes[a], sizes[b]) < tiny
        if not fits.any():
            return charts
        into = _agreed(a[fits], b[fits], (cost + steep / limit)[fits], len(areas))
        _, new = np.unique(into, return_inverse=True)
        charts, a, b = new[charts], new[a], new[b]
        sums, areas = _sums(new, sums), np.bincount(new, areas)
        outlines = np.bincount(new, outlines) - 2 * _inner(a, b, shared, len(areas))
        step("Cutting the surface into charts", 1 - len(areas) / begun)


def _exchange(graph: Dual, charts: Ints, limit: float, *, straighten: bool) -> Ints:
    """`charts` with faces at borders given to a neighbour: to straighten, the one that most of the face's outline touches,
    else the one whose axis is nearest to the face's normal."""
    face = np.concatenate([graph.a, graph.b])
    offered = charts[np.concatenate([graph.b, graph.a])]
    frontal = _dot(graph.normals[face], axes(graph, charts)[offered])
    if straighten:
        _, place = np.unique(face * len(charts) + offered, return_inverse=True)
        worth = np.asarray(np.bincount(place, np.tile(graph.lengths, 2))[place], np.float64)
    else:
        worth = frontal
    allowed = (frontal >= np.cos(limit)) | (offered == charts[face])
    worst_first = np.argsort(np.where(allowed, worth, -1))
    result = charts.copy()
    result[face[worst_first]] = offered[worst_first]  # of several, the last one stays
    return result


def _inner(a: Ints, b: Ints, shared: Floats, count: int) -> Floats:
    """(C,) length of the edges that have one chart on both sides."""
    same = a == b
    return np.asarray(np.bincount(a[same], shared[same], count), np.float64)


def _pairs(a: Ints, b: Ints, shared: Floats, count: int) -> tuple[Ints, Ints, Floats]:
    """Every two neighbours once, (P,) each, with the length of the edges between them."""
    apart = a != b
    key = np.minimum(a, b)[apart] * count + np.maximum(a, b)[apart]
    order = np.argsort(key)
    key = key[order]
    first = np.flatnonzero(np.diff(key, prepend=-1))
    total = np.add.reduceat(shared[apart][order], first) if len(first) else shared[:0]
    return key[first] // count, key[first] % count, total


def _joint_cones(normals: Floats, charts: Ints, sums: Floats, a: Ints, b: Ints) -> Floats:
    """(P,) half angle of a cone that holds the normals of both charts of a pair, and is at most some degrees too wide."""
    seen = _unit(sums)
    cosines = np.ones(len(sums))
    np.minimum.at(
        cosines, charts, np.where(_dot(normals, normals) > 0, _dot(normals, seen[charts]), 1)
    )
    half = np.arccos(np.clip(cosines, -1, 1))
    joint = _unit(sums[a] + sums[b])
    turns = [np.arccos(np.clip(_dot(joint, seen[chart]), -1, 1)) for chart in (a, b)]
    return np.maximum(half[a] + turns[0], half[b] + turns[1])


def _agreed(a: Ints, b: Ints, cost: Floats, count: int) -> Ints:
    """Into which chart each one goes, (C,): of two that are each other's cheapest, the second into the first."""
    worst_first = np.argsort(-cost)
    ends = np.stack([a, b], 1)
    best = np.empty(count, np.int64)
    best[ends[worst_first].ravel()] = np.repeat(worst_first, 2)  # of several, the last one stays
    pair = np.flatnonzero((best[a] == np.arange(len(a))) & (best[b] == np.arange(len(a))))
    into = np.arange(count)
    into[b[pair]] = a[pair]
    return into


def _sums(charts: Ints, vectors: Floats) -> Floats:
    """(C, 3) sums of `vectors` (F, 3) by chart."""
    return np.stack([np.bincount(charts, vectors[:, k]) for k in range(3)], 1)


def _dot(a: Floats, b: Floats) -> Floats:
    return np.asarray(np.einsum("ij,ij->i", a, b))


def _unit(vectors: Floats) -> Floats:
    return vectors / np.maximum(np.sqrt(_dot(vectors, vectors)), 1e-30)[:, None]

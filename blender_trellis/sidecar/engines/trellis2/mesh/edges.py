# SPDX-License-Identifier: GPL-3.0-or-later
"""How the triangles of a mesh hang together: half-edges and the edges that they lie on, boundary loops, components.

Half-edge 3f + k runs from corner k of face f to its next corner.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from .surface import Bools, Ints


@dataclass(frozen=True)
class Edges:
    """The half-edges of a mesh, grouped by the edge that they lie on."""

    start: Ints
    """(3F,) the point at which each half-edge begins"""
    end: Ints
    """(3F,) and ends."""
    order: Ints
    """(3F,) half-edges, those of an edge side by side, those that run from its lower point before the others."""
    first: Ints
    """(E,) where each edge's half-edges begin in `order`"""
    count: Ints
    """(E,) how many there are"""
    rising: Ints
    """(E,) and how many of them run from the lower point to the higher."""

    @property
    def paired(self) -> Bools:
        """(E,) whether an edge has two faces that are wound alike."""
        return (self.count == 2) & (self.rising == 1)


def edges(faces: Ints) -> Edges:
    """The edges of `faces` (F, 3)."""
    start = faces.ravel().astype(np.int64)
    end = np.roll(faces, -1, axis=1).ravel().astype(np.int64)
    falling = start > end
    key = (np.minimum(start, end) << 32 | np.maximum(start, end)) << 1
    key |= falling
    order = np.argsort(key)
    edge = key[order] >> 1
    first = np.flatnonzero(np.diff(edge, prepend=-1))
    count = np.diff(first, append=len(edge))
    rising = np.add.reduceat(~falling[order], first, dtype=np.int64) if len(first) else first
    return Edges(start, end, order, first, count, rising)


def boundary(mesh: Edges) -> Ints:
    """Half-edges of the edges that have one face only."""
    return mesh.order[mesh.first[mesh.count == 1]]


def surplus(mesh: Edges) -> Ints:
    """Half-edges that no half-edge in the other direction makes up for: the boundary as a chain, which is always closed."""
    falling = mesh.count - mesh.rising
    more = np.abs(mesh.rising - falling)
    begin = mesh.first + np.where(mesh.rising > falling, 0, mesh.rising)
    return mesh.order[spread(begin, more)]


def loops(mesh: Edges, halves: Ints) -> list[Ints]:
    """The closed walks among `halves`, each one the half-edges in their order."""
    following = _following(mesh, halves)
    left = np.ones(len(halves), bool)
    closed = []
    for begin in _closed_starts(following):
        walk, at = [], begin
        while left[at]:
            left[at] = False
            walk.append(at)
            at = following[at]
        closed.append(halves[np.array(walk, np.int64)])
    return closed


def _following(mesh: Edges, halves: Ints) -> Ints:
    """For each of `halves` which of them comes next, -1 for none. Where several meet, each gets one of them."""
    ends, starts = np.argsort(mesh.end[halves]), np.argsort(mesh.start[halves])
    arriving = _numbered(mesh.end[halves][ends])
    leaving = _numbered(mesh.start[halves][starts])
    _, one, other = np.intersect1d(arriving, leaving, assume_unique=True, return_indices=True)
    following = np.full(len(halves), -1)
    following[ends[one]] = starts[other]
    return following


def _numbered(points: Ints) -> Ints:
    """Of sorted `points` keys that differ also where a point comes again."""
    first = np.flatnonzero(np.diff(points, prepend=-1))
    again = np.arange(len(points)) - np.repeat(first, np.diff(first, append=len(points)))
    return points << 20 | again


def _closed_starts(following: Ints) -> Ints:
    """One half-edge of every closed walk."""
    if not len(following):
        return following
    walk = components(len(following), *_links(following))
    whole = np.ones(walk.max() + 1, bool)
    whole[walk[following < 0]] = False
    begin: Ints = np.unique(walk, return_index=True)[1]
    return begin[whole]


def _links(following: Ints) -> tuple[Ints, Ints]:
    there = np.flatnonzero(following >= 0)
    return there, following[there]


def components(count: int, one: Ints, other: Ints) -> Ints:
    """Which component each of `count` things belongs to, where `one[i]` and `other[i]` are connected."""
    links = (one.astype(np.int32), other.astype(np.int32))
    graph = coo_array((np.ones(len(one), np.int8), links), shape=(count, count)).tocsr()
    return np.asarray(connected_components(graph, directed=False)[1])


def spread(begin: Ints, count: Ints) -> Ints:
    """begin[0], begin[0] + 1, … (count[0] numbers), then those of begin[1], and so on."""
    steps: Ints = np.arange(count.sum())
    return steps + np.repeat(begin - np.cumsum(count) + count, count)

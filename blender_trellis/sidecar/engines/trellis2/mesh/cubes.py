# SPDX-License-Identifier: GPL-3.0-or-later
"""The cases of marching cubes (W. Lorensen and H. Cline, 1987), derived such that the surface is always a closed 2-manifold.

On a face of the cube whose corners are inside and outside by turns, the inside ones are kept apart. Both cubes at that
face do so, hence their outlines match; every cut edge of a cube is passed by one outline once, hence the triangles about
a point form one ring; and no outline is cut along a line within a face, where the neighbour might do so too.
"""

from __future__ import annotations

import numpy as np

from .surface import Ints

CORNERS = np.array([(c & 1, c >> 1 & 1, c >> 2 & 1) for c in range(8)])
"""(8, 3): corner c lies at these steps along x, y and z from the cube's lowest corner."""

EDGES = [(c, axis) for axis in range(3) for c in range(8) if not c >> axis & 1]
"""The 12 edges: the lower end, a corner, and the axis along which they run."""


def _sides() -> list[list[int]]:
    """The corners of the six faces, counter-clockwise seen from outside."""
    sides = []
    for axis in range(3):
        u, v = 1 << (axis + 1) % 3, 1 << (axis + 2) % 3
        ring = [0, u, u | v, v]
        sides += [[c | 1 << axis for c in ring], ring[::-1]]
    return sides


_SIDES = _sides()


def _edge(one: int, other: int) -> int:
    return EDGES.index((min(one, other), (one ^ other).bit_length() - 1))


def _outlines(code: int) -> list[list[int]]:
    """Closed walks over cut edges about the corners of `code` (bit c: corner c is inside), the inside on their left as
    seen from outside the surface."""
    following = {}
    for side in _SIDES:
        for k in range(4):
            if code >> side[k] & 1 and not code >> side[k - 1] & 1:
                last = k
                while code >> side[(last + 1) % 4] & 1:
                    last += 1
                enters = _edge(side[k - 1], side[k])
                following[enters] = _edge(side[last % 4], side[(last + 1) % 4])
    walks = []
    while following:
        at = next(iter(following))
        walk = []
        while at in following:
            walk.append(at)
            at = following.pop(at)
        walks.append(walk)
    return walks


def _share_side(one: int, other: int) -> bool:
    """Whether two edges lie in one face of the cube."""
    ends = {EDGES[k][0] for k in (one, other)} | {
        EDGES[k][0] | 1 << EDGES[k][1] for k in (one, other)
    }
    return any(ends <= set(side) for side in _SIDES)


def _triangles(walk: list[int]) -> list[tuple[int, int, int]] | None:
    """`walk` cut into triangles along lines that do not lie in a face of the cube, if it can be."""
    if len(walk) == 3:
        return [(walk[0], walk[1], walk[2])]
    for k in range(1, len(walk) - 1):
        one, other = walk[: k + 1], walk[k:]
        if any(len(rest) > 2 and _share_side(rest[0], rest[-1]) for rest in (one, other)):
            continue
        cut = [[] if len(rest) == 2 else _triangles(rest) for rest in (one, other)]
        if cut[0] is not None and cut[1] is not None:
            return [*cut[0], (walk[0], walk[k], walk[-1]), *cut[1]]
    return None


def _table() -> tuple[Ints, Ints]:
    count, table = np.zeros(256, np.int64), np.zeros((256, 5, 3), np.int64)
    for code in range(256):
        found = [triangle for walk in _outlines(code) for triangle in _triangles(walk) or ()]
        count[code] = len(found)
        table[code, : len(found)] = np.array(found).reshape(-1, 3)
    return count, table


COUNT, TRIANGLES = _table()
"""(256,) triangles of each case, and (256, 5, 3) the edges on which their corners lie, counter-clockwise from outside."""

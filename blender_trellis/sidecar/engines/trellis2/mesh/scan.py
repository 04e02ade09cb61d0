# SPDX-License-Identifier: GPL-3.0-or-later
"""Where the lines of a grid pierce a surface, exactly: scan conversion.

A face covers a line if the line's row lies between two of its edges' ends and its column between the two edges that cross
the row. Both faces at an edge compute the same crossing, and intervals include their lower end only. Hence, if as many
faces run along each edge in one direction as in the other, the surface has no gaps for a line to slip through: along each
one the winding number is a whole number, and 0 at either end.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .edges import spread
from .surface import Floats, Ints

_CHUNK = 200_000


@dataclass(frozen=True)
class Scan:
    """Points at which the grid's lines along one axis pierce the surface, ordered by line and along it."""

    size: int
    """Nodes of the grid along each axis."""
    axis: int
    at: Floats
    """(N,) (u · size + v) · size + d, where u and v are the line's numbers along the next two axes, d is along this one."""
    face: Ints
    """(N,) the face that is pierced."""
    levels: Ints
    """(N + 1,) the winding number before each of the points, and after the last."""

    def winding(self, at: Floats) -> Ints:
        """Winding number (M,) at the places `at` (M,)."""
        return np.asarray(self.levels[np.searchsorted(self.at, at)])

    def nodes(self, edge: Ints) -> Ints:
        """Numbers, (x · size + y) · size + z, of the lower nodes of this axis' grid edges `edge` (whole parts of `at`)."""
        size, stride = self.size, strides(self.size)
        line, along = np.divmod(edge, size)
        u, v = np.divmod(line, size)
        axis = self.axis
        return along * stride[axis] + u * stride[(axis + 1) % 3] + v * stride[(axis + 2) % 3]

    def edges(self, nodes: Ints) -> Ints:
        """What `nodes` undoes."""
        size, axis = self.size, self.axis
        x, y, z = nodes // size**2, nodes // size % size, nodes % size
        along, u, v = ((x, y, z)[(axis + k) % 3] for k in range(3))
        return (u * size + v) * size + along


def strides(size: int) -> tuple[int, int, int]:
    """By how much the numbers of two nodes that follow each other along x, y, z differ."""
    return size**2, size, 1


def scan(points: Floats, faces: Ints, size: int, axis: int) -> Scan:
    """The lines along `axis` through a surface with `points` (V, 3) in the grid's units, between 0 and `size`."""
    along, u, v = (np.ascontiguousarray(points[:, (axis + k) % 3]) for k in range(3))
    found = []
    for first in range(0, max(1, len(faces)), _CHUNK):
        some = _pierced(along, u, v, faces[first : first + _CHUNK], size)
        found.append((some[0], some[1] + first, some[2]))
    at, face, sign = (np.concatenate(column) for column in zip(*found, strict=True))
    order = np.argsort(at)
    levels = -np.cumsum(np.concatenate([[0], sign[order]]))
    return Scan(size, axis, at[order], face[order], levels)


def _pierced(
    along: Floats, u: Floats, v: Floats, faces: Ints, size: int
) -> tuple[Floats, Ints, Ints]:
    """`Scan.at`, `Scan.face`, and 1 where the face looks along the axis, else -1."""
    rows = np.ceil(v).astype(np.int64)
    lowest = rows[faces].min(1)
    count = rows[faces].max(1) - lowest
    face = np.repeat(np.arange(len(faces)), count)
    row = spread(lowest, count)
    # Where the outline crosses the row upwards and where downwards: (u, along).
    up, down = np.empty((len(face), 2)), np.empty((len(face), 2))
    for k in range(3):
        a, b = faces[face, k], faces[face, (k + 1) % 3]
        for ends, crossing in (((a, b), up), ((b, a), down)):
            which = np.flatnonzero((rows[ends[0]] <= row) & (row < rows[ends[1]]))
            # In one order for both faces at an edge, so that both round alike.
            one, other = np.minimum(a, b)[which], np.maximum(a, b)[which]
            part = (row[which] - v[one]) / (v[other] - v[one])
            for which_of, value in enumerate((u, along)):
                crossing[which, which_of] = value[one] + part * (value[other] - value[one])
    ends = np.ceil(np.stack([up[:, 0], down[:, 0]])).astype(np.int64)
    count = np.abs(ends[0] - ends[1])
    pair, column = np.repeat(np.arange(len(face)), count), spread(ends.min(0), count)
    up, down = up[pair], down[pair]
    part = (column - down[:, 0]) / (up[:, 0] - down[:, 0])
    depth = down[:, 1] + part * (up[:, 1] - down[:, 1])
    sign = np.where(up[:, 0] > down[:, 0], 1, -1)
    at: Floats = depth + (column * size + row[pair]) * size
    return at, face[pair], sign

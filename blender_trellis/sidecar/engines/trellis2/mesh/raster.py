# SPDX-License-Identifier: GPL-3.0-or-later
"""Triangles on a grid of texels: which texels' centres lie in which triangle, and where in it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from .edges import spread
from .surface import Floats, Ints


def spans(corners: Floats) -> tuple[Ints, Ints, Floats, Floats]:
    """Where triangles (F, 3, 2) meet the middles of rows of texels, y = row + ½.

    Returns:
        face, row, and from which x to which x, (S,) each. Triangles that share an edge give exactly the same x there, so
        that every texel's centre lies in one of them.
    """
    corners = np.take_along_axis(corners, corners[..., 1].argsort(1)[..., None], 1)
    (x0, y0), (x1, y1), (x2, y2) = corners.astype(np.float64).transpose(1, 2, 0)
    first = np.ceil(y0 - 0.5).astype(np.int64)
    rows = np.ceil(y2 - 0.5).astype(np.int64) - first
    face, row = np.repeat(np.arange(len(rows)), rows), spread(first, rows)
    middle = row + 0.5

    def crossing(xa: Floats, ya: Floats, xb: Floats, yb: Floats) -> Floats:
        slope = (xb - xa) / np.where(yb > ya, yb - ya, 1)
        return xa[face] + (middle - ya[face]) * slope[face]

    long = crossing(x0, y0, x2, y2)
    short = np.where(middle < y1[face], crossing(x0, y0, x1, y1), crossing(x1, y1, x2, y2))
    return face, row, np.minimum(long, short), np.maximum(long, short)


@dataclass(frozen=True)
class Covered:
    """Texels whose centres lie in triangles."""

    texel: Ints
    """(N,) row times the grid's width plus column."""
    face: Ints
    """(N,) the triangle."""
    weights: Floats
    """(N, 3) barycentric coordinates of the texel's centre, each at least 0, their sum 1."""
    done: float
    """What part of all has come before."""


def cover(corners: Floats, size: int, at_once: int) -> Iterator[Covered]:
    """The texels of a grid of `size` squared that triangles `corners` (F, 3, 2; texels) cover, about `at_once` at a time.

    A triangle too small to have any texel's centre in it gets the one that its middle lies in, unless that is another's.
    """
    face, row, left, right = spans(corners)
    first = np.maximum(np.ceil(left - 0.5).astype(np.int64), 0)
    counts = np.maximum(np.minimum(np.ceil(right - 0.5).astype(np.int64), size) - first, 0)
    counts[(row < 0) | (row >= size)] = 0
    parts = np.searchsorted(np.cumsum(counts), np.arange(0, max(counts.sum(), 1), at_once))
    free, without = np.ones(size * size, bool), np.ones(len(corners), bool)
    without[face[counts > 0]] = False
    for begin, end in zip(parts, [*parts[1:], len(face)], strict=True):
        part = slice(begin, end)
        texel = np.repeat(row[part] * size, counts[part]) + spread(first[part], counts[part])
        owner = np.repeat(face[part], counts[part])
        free[texel] = False
        done = begin / len(face)
        yield Covered(texel, owner, _weights(corners[owner], size, texel), done)
    small = np.flatnonzero(without)
    middle = np.clip(corners[small].mean(1), 0, size - 1).astype(np.int64)
    texel, one = np.unique(middle[:, 1] * size + middle[:, 0], return_index=True)
    texel, owner = texel[free[texel]], small[one[free[texel]]]
    yield Covered(texel, owner, _weights(corners[owner], size, texel), 1.0)


def _weights(corners: Floats, size: int, texel: Ints) -> Floats:
    """(N, 3) of the centres of `texel` (N,) in `corners` (N, 3, 2); outside they are those of some point of the triangle."""
    a, b, c = corners.astype(np.float64).transpose(1, 2, 0)
    x, y = texel % size + 0.5 - a[0], texel // size + 0.5 - a[1]
    b, c = b - a, c - a
    twice = b[0] * c[1] - b[1] * c[0]
    twice = np.where(np.abs(twice) < 1e-12, np.inf, twice)
    second, third = (x * c[1] - y * c[0]) / twice, (y * b[0] - x * b[1]) / twice
    weights = np.maximum(np.stack([1 - second - third, second, third], 1), 0)
    return np.asarray(weights / weights.sum(1, keepdims=True))

# SPDX-License-Identifier: GPL-3.0-or-later
"""Scan conversion: which voxels of a grid do triangles and line segments meet? All lengths are in voxels, voxel 0 begins at 0."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from .volume import Floats, Ints

_AT_ONCE = 2**19
"""Items that are worked on together: enough to outweigh Python, few enough to need little memory."""


def batches(counts: Ints) -> Iterator[slice]:
    """Slices of `counts` (n,), each with a sum of about half a million at most."""
    ends = np.cumsum(counts)
    start = done = 0
    while start < len(ends):
        stop = max(start + 1, int(np.searchsorted(ends, done + _AT_ONCE, "right")))
        yield slice(start, stop)
        start, done = stop, int(ends[stop - 1])


def crossings(triangles: Floats, axis: int, resolution: int) -> Iterator[tuple[Ints, Ints, Floats]]:
    """Where `triangles` (F, 3, 3) cross the inner lines of the grid that are parallel to `axis`.

    A line that passes through the common edge of two triangles crosses one of them.

    Yields:
        The triangle (n,), the last of the four voxels around the crossed edge (n, 3), int32, less 1 across the axis (so the
        voxel that has the edge at its greatest corner), and the place on the line (n,).
    """
    across, up = (axis + 1) % 3, (axis + 2) % 3
    order = np.argsort(triangles[:, :, up], axis=1)
    upwards = np.take_along_axis(triangles, order[..., None], 1)
    first, last = _lines(upwards[:, 0, up], upwards[:, 2, up], resolution)
    for part in batches(last - first + 1):
        triangle, y = _ranges(first[part], last[part])
        triangle += part.start
        left, right = _ends(upwards[triangle], y, axis)
        begin, end = _lines(left[:, across], right[:, across], resolution)
        for rows in batches(end - begin + 1):
            row, x = _ranges(begin[rows], end[rows])
            row += rows.start
            depth = _at(left[row], right[row], x, across)[:, axis]
            inside = (depth >= 0) & (depth < resolution)
            row, x, depth = row[inside], x[inside], depth[inside]
            voxel = np.empty((len(row), 3), np.int32)
            voxel[:, axis], voxel[:, across], voxel[:, up] = depth, x - 1, y[row] - 1
            yield triangle[row], voxel, depth


def _lines(low: Floats, high: Floats, resolution: int) -> tuple[Ints, Ints]:
    """The first and the last of the grid's inner lines above `low` and not above `high`."""
    first = np.clip(np.floor(low) + 1, 1, resolution)
    last = np.clip(np.floor(high), 0, resolution - 1)
    return first.astype(np.int64), np.maximum(last, first - 1).astype(np.int64)


def _ends(triangles: Floats, y: Ints, axis: int) -> tuple[Floats, Floats]:
    """The left and the right ends (n, 3) of the cuts at `y` through `triangles` (n, 3, 3), their corners sorted upwards."""
    across, up = (axis + 1) % 3, (axis + 2) % 3
    low, middle, high = triangles.swapaxes(0, 1)
    long = _at(low, high, y, up)
    below = (y <= middle[:, up])[:, None]
    short = np.where(below, _at(low, middle, y, up), _at(middle, high, y, up))
    swapped = (long[:, across] > short[:, across])[:, None]
    return np.where(swapped, short, long), np.where(swapped, long, short)


def _at(a: Floats, b: Floats, value: Ints, axis: int) -> Floats:
    """The points (n, 3) between `a` and `b` where the coordinate along `axis` is `value`; `a` where it is the same in both."""
    length = b[:, axis] - a[:, axis]
    share = np.divide(value - a[:, axis], length, out=np.zeros(len(length)), where=length != 0)
    return a + share[:, None] * (b - a)


def _ranges(first: Ints, last: Ints) -> tuple[Ints, Ints]:
    """The whole numbers first…last of all ranges, one after another: (index of the range, number)."""
    counts = np.maximum(last - first + 1, 0)
    owner = np.repeat(np.arange(len(counts)), counts)
    start = np.cumsum(counts) - counts
    return owner, np.arange(len(owner)) - start[owner] + first[owner]


def overlaps(triangles: Floats, normals: Floats, resolution: int) -> Iterator[tuple[Ints, Ints]]:
    """The triangle (n,) and the voxel (n, 3) of all pairs that meet; `normals` (F, 3) are not 0.

    Seen along the axis that it faces most, a triangle is cut into strips and those into cells; it is not steep, so that above
    a cell it meets few voxels.
    """
    facing = np.abs(normals).argmax(1)
    for along in range(3):
        across, up = (along + 1) % 3, (along + 2) % 3
        chosen = np.flatnonzero(facing == along)
        first, last = _cells(
            triangles[chosen, :, up].min(1), triangles[chosen, :, up].max(1), resolution
        )
        for part in batches(last - first + 1):
            strip, y = _ranges(first[part], last[part])
            owner = chosen[strip + part.start]
            begin, end = _cells(*_extent(triangles[owner][:, :, [across, up]], y), resolution)
            for strips in batches(end - begin + 1):
                cell, x = _ranges(begin[strips], end[strips])
                cell += strips.start
                cells = np.stack([x, y[cell]], -1)
                yield _above(triangles, normals, owner[cell], cells, along)


def _cells(low: Floats, high: Floats, resolution: int) -> tuple[Ints, Ints]:
    """The first and the last cell from `low` to `high`, within the grid."""
    first = np.clip(np.floor(low), 0, resolution)
    last = np.clip(np.floor(high), -1, resolution - 1)
    return first.astype(np.int64), np.maximum(last, first - 1).astype(np.int64)


def _extent(triangles: Floats, y: Ints) -> tuple[Floats, Floats]:
    """How far `triangles` (n, 3, 2) reach to the left and right between the lines `y` and `y` + 1, which they meet."""
    left, right = np.full(len(y), np.inf), np.full(len(y), -np.inf)
    for i in range(3):
        a, b = triangles[:, i], triangles[:, (i + 1) % 3]
        low, high = np.minimum(a[:, 1], b[:, 1]), np.maximum(a[:, 1], b[:, 1])
        outside = (high < y) | (low > y + 1)
        for line in (y, y + 1):
            x = _at(a, b, np.clip(line, low, high), 1)[:, 0]
            left = np.minimum(left, np.where(outside, np.inf, x))
            right = np.maximum(right, np.where(outside, -np.inf, x))
    return left, right


def _above(
    triangles: Floats, normals: Floats, owner: Ints, cells: Ints, along: int
) -> tuple[Ints, Ints]:
    """The voxels above `cells` (n, 2), seen along an axis, that the triangles `owner` (n,) meet: (triangle, voxel)."""
    across, up = (along + 1) % 3, (along + 2) % 3
    corners, slopes = triangles[owner], normals[owner]
    slopes = -slopes[:, [across, up]] / slopes[:, [along]]
    middle = cells + 0.5 - corners[:, 0, [across, up]]
    depth = corners[:, 0, along] + (slopes * middle).sum(1)
    reach = np.abs(slopes).sum(1) / 2
    low = np.maximum(depth - reach, corners[:, :, along].min(1))
    high = np.minimum(depth + reach, corners[:, :, along].max(1))
    cell, z = _ranges(np.floor(low).astype(np.int64), np.floor(high).astype(np.int64))
    voxels = np.empty((len(cell), 3), np.int32)
    voxels[:, along], voxels[:, [across, up]] = z, cells[cell]
    local = corners[cell] - voxels[:, None]
    meet = _meet(local[:, :, [up, along]]) & _meet(local[:, :, [along, across]])
    return owner[cell[meet]], voxels[meet]


def _meet(triangles: Floats) -> Floats:
    """Whether no edge of `triangles` (n, 3, 2) parts them from the square from 0 to 1: (n,)."""
    apart = np.zeros(len(triangles), bool)
    u, v = triangles[..., 0].T - 0.5, triangles[..., 1].T - 0.5
    for a, b, c in ((0, 1, 2), (1, 2, 0), (2, 0, 1)):
        # Across the edge from a to b lie it, the opposite corner, and the square around the origin
        across_u, across_v = v[a] - v[b], u[b] - u[a]
        edge = across_u * u[a] + across_v * v[a]
        corner = across_u * u[c] + across_v * v[c]
        reach = (np.abs(across_u) + np.abs(across_v)) / 2
        apart |= (np.minimum(edge, corner) > reach) | (np.maximum(edge, corner) < -reach)
    return ~apart


def traversed(starts: Floats, ends: Floats) -> Iterator[tuple[Ints, Ints]]:
    """The segment (n,) and the voxel (n, 3) of all pairs that meet in more than a point: `starts` and `ends` (S, 3)."""
    first = np.floor(np.minimum(starts, ends)).astype(np.int64) + 1
    last = np.ceil(np.maximum(starts, ends)).astype(np.int64) - 1
    for part in batches((last - first + 1).clip(0).sum(1) + 2):
        a, way = starts[part], ends[part] - starts[part]
        everyone = np.arange(len(a))
        segments, shares = [everyone, everyone], [np.zeros(len(a)), np.ones(len(a))]
        for axis in range(3):
            segment, value = _ranges(first[part, axis], last[part, axis])
            segments.append(segment)
            shares.append((value - a[segment, axis]) / way[segment, axis])
        segment, share = np.concatenate(segments), np.concatenate(shares)
        order = np.lexsort((share, segment))
        segment, share = segment[order], share[order]
        between = np.flatnonzero((segment[1:] == segment[:-1]) & (share[1:] > share[:-1]))
        segment, share = segment[between], (share[between] + share[between + 1]) / 2
        points = a[segment] + share[:, None] * way[segment]
        yield segment + part.start, np.floor(points).astype(np.int32)

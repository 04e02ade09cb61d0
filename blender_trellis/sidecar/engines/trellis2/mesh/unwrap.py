# SPDX-License-Identifier: GPL-3.0-or-later
"""Lays a surface out in a square texture: every chart of `charts` is seen straight along its axis, and `pack` places it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .charts import Dual, axes, cluster, connected, dual
from .pack import Borders, place
from .progress import part
from .raster import spans
from .surface import Floats, Ints, MeshOptions, Step, Surface

_STEEPEST = np.cos(np.radians(85))
"""A face that is seen at a wider angle than this has no room in its chart."""
_TURNS = 16
"""Directions, over a right angle, that are tried to find the smallest box around a chart."""


@dataclass(frozen=True)
class Atlas:
    """Places in the texture; a point on a seam appears once for every chart that it is part of."""

    vertex: Ints
    """(N,) index into the surface's points."""
    texels: Floats
    """(N, 2) column and row in the texture, in texels from its top left corner."""
    faces: Ints
    """(F, 3) indices into `vertex`, in the surface's order of faces."""
    size: int
    """Texels a side."""


def unwrap(surface: Surface, options: MeshOptions, step: Step) -> Atlas:
    """`surface` laid out in a texture of `options.texture_size` texels a side.

    `step` is called several times a second.

    Raises:
        EngineError: the texture is too small for the number of charts.
    """
    step("Cutting the surface into charts", 0.0)
    size = options.texture_size
    graph = dual(surface)
    charts = cluster(graph, options, part(step, 0, 0.5))
    step("Cutting what lies over itself", 0.5)
    charts = _unfold(surface, graph, charts, size)
    step("Laying the charts flat", 0.7)
    key, corner = np.unique(
        charts[:, None] * len(surface.points) + surface.faces, return_inverse=True
    )
    chart, vertex = np.divmod(key, len(surface.points))
    corner = corner.reshape(-1, 3)
    flat = _flat(surface.points[vertex], _frames(axes(graph, charts))[chart])
    flat = _upright(flat, chart)
    borders = _borders(flat, corner, charts, graph)
    scale, corners = place(borders, size, max(2, size // 1024), part(step, 0.75, 1))
    return Atlas(vertex, flat * scale + corners[chart], corner, size)


def _frames(axis: Floats) -> Floats:
    """What is right and what is down, (C, 2, 3), in the picture of who looks against `axis` (C, 3)."""
    aside = np.eye(3)[np.abs(axis).argmin(1)]
    right = np.cross(aside, axis)
    right /= np.maximum(np.linalg.norm(right, axis=1, keepdims=True), 1e-30)
    return np.stack([right, np.cross(right, axis)], 1)


def _flat(points: Floats, frames: Floats) -> Floats:
    """(N, 2) of points (N, 3), each in its frame (N, 2, 3)."""
    return np.einsum("nk,nik->ni", points.astype(np.float64), frames)


def _unfold(surface: Surface, graph: Dual, charts: Ints, size: int) -> Ints:
    """`charts` split until none lies over itself and no face in one is seen too steeply or from behind."""
    # About as fine as the texture will be: thinner overlaps hide no texel
    lines = size * np.sqrt(0.6 / max(float(graph.areas.sum()), 1e-30))
    suspects = np.arange(len(charts))
    while len(suspects):
        axis = axes(graph, charts)
        frontal = np.einsum("ij,ij->i", graph.normals[suspects], axis[charts[suspects]])
        steep = suspects[(frontal < _STEEPEST) & (graph.areas[suspects] > 0)]
        steep = steep[np.bincount(charts)[charts[steep]] > 1]
        under = _under(surface, charts, axis, suspects, lines)
        changed = np.unique(charts[np.concatenate([steep, under])])
        suspects = np.flatnonzero(np.isin(charts, changed))
        sheets = charts.copy()
        sheets[under] = charts[under] + len(axis)
        sheets[steep] = 2 * len(axis) + np.arange(len(steep))
        charts = connected(graph, sheets)
    return charts


def _under(surface: Surface, charts: Ints, axis: Floats, suspects: Ints, lines: float) -> Ints:
    """Those of the faces `suspects` that lie under another one of their chart, on some line."""
    corners = surface.points[surface.faces[suspects]].astype(np.float64) * lines
    chart = charts[suspects]
    depth = np.einsum("fk,fk->f", corners.mean(1), axis[chart])
    frames = _frames(axis)[chart]
    face, row, left, right = spans(np.einsum("fck,fik->fci", corners, frames))
    line = chart[face] * (np.ptp(row) + 1) + row - row.min() if len(row) else row
    order = np.lexsort((left, line))
    face, line, left, right = face[order], line[order], left[order], right[order]
    # How far the spans before reach on the same line, and which one of them does: lines are put one beside the other
    beside = np.cumsum(np.diff(line, prepend=-1) > 0) * (np.ptp(right) + np.ptp(left) + 1)
    reach = np.maximum.accumulate(right + beside)
    farthest = np.maximum.accumulate(np.where(right + beside == reach, np.arange(len(face)), 0))
    over = np.flatnonzero((left + beside)[1:] < reach[:-1] - 1e-6) + 1
    one, other = face[over], face[farthest[over - 1]]
    return suspects[np.unique(np.where(depth[one] < depth[other], one, other))]


def _upright(flat: Floats, chart: Ints) -> Floats:
    """`flat` (N, 2) with every chart turned so that the box around it is smallest, and stands, with its corner at (0, 0).

    `chart` (N,) is ascending.
    """
    first = np.flatnonzero(np.diff(chart, prepend=-1))
    best = np.full(len(first), np.inf)
    turn = np.zeros(len(first))
    for angle in np.linspace(0, np.pi / 2, _TURNS, endpoint=False):
        turned = flat @ _rotation(angle)
        box = np.maximum.reduceat(turned, first) - np.minimum.reduceat(turned, first)
        smaller = box.prod(1) < best
        best[smaller] = box.prod(1)[smaller]
        turn[smaller] = angle + np.where(box[:, 0] > box[:, 1], np.pi / 2, 0)[smaller]
    flat = np.einsum("ni,nij->nj", flat, np.moveaxis(_rotation(turn), -1, 0)[chart])
    return np.asarray(flat - np.minimum.reduceat(flat, first)[chart])


def _rotation(angle: float | Floats) -> Floats:
    return np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])


def _borders(flat: Floats, corner: Ints, charts: Ints, graph: Dual) -> Borders:
    """The sides of faces that have no other face of the same chart beside them."""
    inside = charts[graph.a] == charts[graph.b]
    border = np.ones(corner.size, bool)
    border[graph.one[inside]] = border[graph.other[inside]] = False
    sides = np.stack([corner, np.roll(corner, -1, 1)], -1).reshape(-1, 2)[border]
    a, b, c = flat[corner].transpose(1, 2, 0)
    doubled = (b - a)[0] * (c - a)[1] - (b - a)[1] * (c - a)[0]
    areas = np.bincount(charts, np.abs(doubled)) / 2
    return Borders(flat[sides], np.repeat(charts, 3)[border], areas)

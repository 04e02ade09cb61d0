# SPDX-License-Identifier: GPL-3.0-or-later
"""Surfaces of known shape, for tests and measurements of the mesh stage."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np

from blender_trellis.sidecar.engines.trellis2.mesh.surface import Surface

Array = np.ndarray[Any, Any]


def surface(points: Array, faces: Array) -> Surface:
    return Surface(np.asarray(points, np.float32), np.asarray(faces, np.int32))


def sphere(detail: int = 20, radius: float = 0.4) -> Surface:
    """An octahedron's sides, each cut into detail² triangles and blown up: 8 · detail² faces."""
    points, faces = [], []
    rows = np.arange(detail + 1)
    i, j = (a.ravel() for a in np.meshgrid(rows, rows, indexing="ij"))
    there = i + j <= detail
    number = np.cumsum(there) - 1
    i, j = i[there], j[there]
    flat = np.stack([detail - i - j, i, j], -1)

    def at(a: Array, b: Array) -> Array:
        return number[a * (detail + 1) + b]

    up, down = i + j < detail, (i + j < detail - 1)
    one = np.stack([at(i[up], j[up]), at(i[up] + 1, j[up]), at(i[up], j[up] + 1)], -1)
    a, b = i[down], j[down]
    two = np.stack([at(a + 1, b), at(a + 1, b + 1), at(a, b + 1)], -1)
    for signs in itertools.product((1, -1), repeat=3):
        triangles = np.concatenate([one, two])
        points.append(flat * signs)
        faces.append(
            (triangles if np.prod(signs) > 0 else triangles[:, ::-1]) + len(flat) * len(faces)
        )
    return _welded(np.concatenate(points), np.concatenate(faces), radius)


def _welded(whole: Array, faces: Array, radius: float) -> Surface:
    unique, back = np.unique(whole, axis=0, return_inverse=True)
    length = np.linalg.norm(unique, axis=1, keepdims=True)
    return surface(radius * unique / length, back.ravel()[faces])


def blob(detail: int = 20, resolution: int = 64, seed: int = 1) -> Surface:
    """A sphere with bumps, and on it noise of a third of a voxel."""
    round_ = sphere(detail, 1.0)
    x, y, z = np.moveaxis(round_.points.astype(np.float64), -1, 0)
    noise = np.random.default_rng(seed).normal(size=len(x)) / (3 * resolution)
    radius = 0.36 + 0.05 * np.sin(5 * x + 2 * z) * np.cos(7 * y) + 0.02 * np.sin(23 * z) + noise
    return surface(round_.points * radius[:, None], round_.faces)


def torus(around: int = 80, through: int = 40, large: float = 0.3, small: float = 0.1) -> Surface:
    """2 · around · through faces."""
    a = np.arange(around)[:, None] * 2 * np.pi / around
    b = np.arange(through)[None] * 2 * np.pi / through
    reach = large + small * np.cos(b)
    points = np.stack(
        np.broadcast_arrays(reach * np.cos(a), reach * np.sin(a), small * np.sin(b)), -1
    )
    number = np.arange(around * through).reshape(around, through)
    right, above = np.roll(number, -1, 0), np.roll(number, -1, 1)
    across = np.roll(right, -1, 1)
    faces = np.concatenate(
        [np.stack([number, right, across], -1), np.stack([number, across, above], -1)]
    )
    return surface(points.reshape(-1, 3), faces.reshape(-1, 3))


def box(
    low: tuple[float, float, float], high: tuple[float, float, float], detail: int = 1
) -> Surface:
    """A cuboid, each side cut into detail² squares: 12 · detail² faces."""
    points, faces = [], []
    steps = np.arange(detail + 1)
    i, j = (a.ravel() for a in np.meshgrid(steps, steps, indexing="ij"))
    number = np.arange((detail + 1) ** 2).reshape(detail + 1, detail + 1)
    a, b, c, d = number[:-1, :-1], number[1:, :-1], number[1:, 1:], number[:-1, 1:]
    quads = np.concatenate([np.stack([a, b, c], -1), np.stack([a, c, d], -1)]).reshape(-1, 3)
    for axis, end in itertools.product(range(3), (0, detail)):
        side = np.empty((len(i), 3), np.int64)
        side[:, axis], side[:, (axis + 1) % 3], side[:, (axis + 2) % 3] = end, i, j
        points.append(side)
        faces.append((quads if end else quads[:, ::-1]) + len(side) * len(faces))
    unique, back = np.unique(np.concatenate(points), axis=0, return_inverse=True)
    place = np.array(low) + unique / detail * (np.array(high) - np.array(low))
    return surface(place, back.ravel()[np.concatenate(faces)])


def together(*surfaces: Surface) -> Surface:
    """All of them as one, points at the same place welded."""
    points = np.concatenate([one.points for one in surfaces])
    starts = np.cumsum([0, *(len(one.points) for one in surfaces[:-1])])
    faces = np.concatenate([one.faces + start for one, start in zip(surfaces, starts, strict=True)])
    unique, back = np.unique(points, axis=0, return_inverse=True)
    return surface(unique, back.ravel()[faces])


def flipped(whole: Surface, share: float, seed: int = 1) -> Surface:
    """With `share` of the faces wound the other way."""
    faces = whole.faces.copy()
    which = np.random.default_rng(seed).random(len(faces)) < share
    faces[which] = faces[which][:, ::-1]
    return Surface(whole.points, faces)


def below(whole: Surface, height: float) -> Surface:
    """Without the faces whose middle is above `height`."""
    return Surface(whole.points, whole.faces[whole.points[whole.faces].mean(1)[:, 2] < height])

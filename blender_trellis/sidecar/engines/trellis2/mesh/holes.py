# SPDX-License-Identifier: GPL-3.0-or-later
"""Holes are filled with a fan of triangles about their middle."""

from __future__ import annotations

import math

import numpy as np

from .edges import Edges, boundary, edges, loops, surplus
from .surface import Floats, Ints

SMALL = 0.03
"""Perimeter below which a hole is a fault; that of the official pipeline, in a cube of side 1."""


def fill(points: Floats, faces: Ints, most: float = SMALL) -> tuple[Floats, Ints]:
    """`points` and `faces` of an oriented mesh, and fans in the holes whose perimeter is below `most`."""
    mesh = edges(faces)
    return _fans(points, faces, mesh, boundary(mesh), most)


def close(points: Floats, faces: Ints) -> tuple[Floats, Ints]:
    """`points` and `faces`, and fans in all holes, so that every edge is run along as often in one direction as in the other.

    Holes are then gaps between faces wound alike, so that more than one fan may lie at an edge.
    """
    mesh = edges(faces)
    return _fans(points, faces, mesh, surplus(mesh), math.inf)


def _fans(
    points: Floats, faces: Ints, mesh: Edges, halves: Ints, most: float
) -> tuple[Floats, Ints]:
    middles, fans = [], []
    for loop in loops(mesh, halves):
        rim = points[mesh.start[loop]].astype(np.float64)
        lengths = np.linalg.norm(np.roll(rim, -1, axis=0) - rim, axis=1)
        if lengths.sum() >= most or len(loop) < 3:
            continue
        # The edges' middles weighted by length: dense parts of the rim do not pull.
        weights = (lengths + np.roll(lengths, 1)) / 2
        middles.append((rim * weights[:, None]).sum(0) / max(weights.sum(), 1e-30))
        apex = np.full(len(loop), len(points) + len(middles) - 1)
        fans.append(np.stack([mesh.end[loop], mesh.start[loop], apex], -1))
    if not fans:
        return points, faces
    return (
        np.concatenate([points, np.array(middles, points.dtype)]),
        np.concatenate([faces, *fans]).astype(faces.dtype),
    )

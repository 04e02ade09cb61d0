# SPDX-License-Identifier: GPL-3.0-or-later
"""Which parts of a surface enclose something, told by the winding number on both their sides."""

from __future__ import annotations

import igl
import numpy as np

from .edges import components, edges
from .orient import corners, crosses, turn, volumes, whole
from .surface import Bools, Floats, Ints, Step

_NEARLY = 0.38
"""Mean winding number on both sides of an open patch from which on it is nearly closed. It is 0.5 for a closed one, 0.35 for
a hemisphere, 0 for a plane sheet, and 1 for a wall within a solid."""
_WALL = 0.8
_SAMPLES = 64
"""Faces of a patch at which it is measured."""
_ABOVE = 1e-4
_CHUNK = 20_000


def closable(points: Floats, faces: Ints, step: Step) -> tuple[Ints, Bools]:
    """`faces` (F, 3) of an oriented surface with cavities turned inside out, and which of them (F,) are of patches that
    enclose something but for their holes.

    A closed patch within another one bounds a cavity; one within that is a body again.
    """
    mesh = edges(faces)
    first = mesh.first[mesh.paired]
    patches = components(len(faces), mesh.order[first] // 3, mesh.order[first + 1] // 3)
    closed = whole(mesh, patches)
    if closed.all() and len(closed) == 1:
        return faces, np.ones(len(faces), bool)
    _, sheet = volumes(points, faces, patches, closed)
    if sheet.all():
        return faces, np.zeros(len(faces), bool)
    mean = _both_sides(points, faces, patches, sheet, step)
    # In how many others a patch lies; what is left over is its own share.
    depth = np.where(closed, np.round(mean - 0.5), np.floor(mean + 1 - _WALL))
    solid = closed | ((mean - depth >= _NEARLY) & ~sheet)
    return turn(faces, (solid & (depth % 2 == 1))[patches]), solid[patches]


def _both_sides(points: Floats, faces: Ints, patches: Ints, sheet: Bools, step: Step) -> Floats:
    """Each patch's mean winding number on both its sides, with regard to all patches but those of `sheet`.

    The sides of a sheet are chance, and it would only disturb.
    """
    order = np.argsort(patches, kind="stable")
    size = np.bincount(patches)
    rank = np.arange(len(faces)) - np.repeat(np.cumsum(size) - size, size)
    chosen = order[rank % np.repeat(-(-size // _SAMPLES), size) == 0]
    at = corners(points, faces[chosen])
    normals = crosses(at)
    areas = np.maximum(np.linalg.norm(normals, axis=1), 1e-30)
    normals *= _ABOVE / areas[:, None]
    tree = igl.FastWindingNumberBVH()
    tree.init(points.astype(np.float64), faces[~sheet[patches]].astype(np.int64))
    mean = np.empty(len(chosen))
    for first in range(0, len(chosen), _CHUNK):
        step("Finding what is closed", first / len(chosen))
        some = slice(first, first + _CHUNK)
        middle = at[some].mean(1)
        sides = [tree.winding_number(middle + side * normals[some]) for side in (1, -1)]
        mean[some] = (sides[0] + sides[1]) / 2
    total = np.bincount(patches[chosen], mean * areas, minlength=len(size))
    return np.asarray(total / np.bincount(patches[chosen], areas, minlength=len(size)))

# SPDX-License-Identifier: GPL-3.0-or-later
"""All faces wound one way, and outwards.

A dual grid's faces are wound at random by construction, and what comes after (decimation above all) needs neighbours to
agree. Winding spreads over edges with two faces; what hangs together so is a patch, and edges with more faces part patches.
"""

from __future__ import annotations

import igl
import numpy as np

from .edges import Edges, components, edges
from .surface import Bools, Floats, Ints

_FLAT = 1e-3
"""An open patch whose volume, over its area to the power of 3/2, is below this has no outside. A sphere has 0.09."""


def orient(points: Floats, faces: Ints) -> Ints:
    """`faces` (F, 3) with the winding made consistent in every patch, outwards.

    A patch that has no consistent winding (a Möbius strip) is wound alike but for a seam.
    """
    mesh = edges(faces)
    flipped, patches = _agreed(faces, mesh)
    agreed = turn(faces, flipped)
    volume, sheet = volumes(points, agreed, patches, whole(mesh, patches))
    mostly = 2 * np.bincount(patches, flipped) > np.bincount(patches)
    return turn(agreed, np.where(sheet, mostly, volume < 0)[patches])


def turn(faces: Ints, which: Bools) -> Ints:
    """`faces` (F, 3), those of `which` (F,) wound the other way."""
    turned = faces.copy()
    turned[which] = faces[which][:, ::-1]
    return turned


def corners(points: Floats, faces: Ints) -> Floats:
    """(F, 3, 3), in double precision."""
    return points.astype(np.float64)[faces]


def crosses(at: Floats) -> Floats:
    """Normals (F, 3) of faces with corners `at` (F, 3, 3), twice as long as the faces are large."""
    return np.cross(at[:, 1] - at[:, 0], at[:, 2] - at[:, 0])


def face_areas(points: Floats, faces: Ints) -> Floats:
    """(F,)"""
    return np.asarray(np.linalg.norm(crosses(corners(points, faces)), axis=1) / 2)


def whole(mesh: Edges, patches: Ints) -> Bools:
    """Which patches have two faces at every edge; `patches` is the patch of each face of `mesh`."""
    found = np.ones(patches.max() + 1, bool)
    found[patches[mesh.order[np.repeat(mesh.count != 2, mesh.count)] // 3]] = False
    return found


def volumes(points: Floats, faces: Ints, patches: Ints, closed: Bools) -> tuple[Floats, Bools]:
    """What each patch encloses, signed, seen from its own middle (so a cup counts as what it holds), and which are open and
    enclose next to nothing."""
    at = corners(points, faces)
    normals = crosses(at)
    areas = np.linalg.norm(normals, axis=1) / 2
    size = np.maximum(np.bincount(patches, areas), 1e-30)
    middles = at.mean(1)
    middle = [np.bincount(patches, areas * middles[:, k]) / size for k in range(3)]
    heights = (middles - np.stack(middle, -1)[patches]) * normals
    volume = np.bincount(patches, heights.sum(1)) / 6
    return volume, ~closed & (np.abs(volume) < _FLAT * size**1.5)


def _agreed(faces: Ints, mesh: Edges) -> tuple[Bools, Ints]:
    """Which faces to turn so that each patch agrees with itself (F,), and the patches (F,).

    Every face stands twice in a graph, once as it is and once turned; two neighbours are connected where they agree. A
    patch then is a pair of components, and either one says how to turn its faces.
    """
    first = mesh.first[mesh.count == 2]
    one, other = mesh.order[first] // 3, mesh.order[first + 1] // 3
    across = np.where(mesh.paired[mesh.count == 2], 0, len(faces))
    graph = components(
        2 * len(faces),
        np.concatenate([one, one + len(faces)]),
        np.concatenate([other + across, other + (len(faces) - across)]),
    )
    as_is, turned = graph[: len(faces)], graph[len(faces) :]
    patches = np.unique(np.minimum(as_is, turned), return_inverse=True)[1]
    flipped = as_is > turned
    twisted = np.flatnonzero(as_is == turned)
    if len(twisted):
        wound = igl.bfs_orient(faces[twisted].astype(np.int64))[0]
        flipped[twisted] = (wound != faces[twisted]).any(1)
    return flipped, patches

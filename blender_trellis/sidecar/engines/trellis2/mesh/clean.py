# SPDX-License-Identifier: GPL-3.0-or-later
"""What no mesh should have is taken away: faces without area, faces that are there twice, crumbs, edges with many faces."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from .edges import Edges, components, edges, spread, surplus
from .orient import corners, face_areas
from .surface import Bools, Floats, Ints

CRUMB = 1e-5
"""Area below which a component is dropped; that of the official pipeline, in a cube of side 1."""
_NO_AREA = 1e-13
"""A millionth of the face of a voxel at the finest resolution."""
_ROUNDS = 20
_APART = 0.01
"""How far the twins of a point are drawn apart, in the size of their faces."""


def clean(points: Floats, faces: Ints) -> tuple[Floats, Ints]:
    """Without faces that have no area or are there twice, and without points that no face uses."""
    points, faces = without_flat(points, faces)
    order, first, _ = _alike(faces)
    return compact(points, faces[np.sort(order[first])])


def compact(points: Floats, faces: Ints) -> tuple[Floats, Ints]:
    """Without points that no face uses."""
    used = np.zeros(len(points), bool)
    used[faces] = True
    return points[used], (np.cumsum(used) - 1)[faces].astype(faces.dtype)


def parts(count: int, faces: Ints) -> Ints:
    """(F,) the component of each face; faces that share a point hang together. `count` is the number of points."""
    one, other = faces[:, :2].ravel(), faces[:, 1:].ravel()
    return np.unique(components(count, one, other)[faces[:, 0]], return_inverse=True)[1]


def without_crumbs(points: Floats, faces: Ints, least: float = CRUMB) -> tuple[Floats, Ints]:
    """Without components whose area is below `least`; the largest stays in any case."""
    part = parts(len(points), faces)
    size = np.bincount(part, face_areas(points, faces))
    keep = size >= min(least, size.max())
    return compact(points, faces[keep[part]])


def without_flat(points: Floats, faces: Ints) -> tuple[Floats, Ints]:
    """Without faces that have no area; each is drawn together along its shortest side, so that no gap opens."""
    for _ in range(_ROUNDS):
        faces = faces[(faces != np.roll(faces, 1, axis=1)).all(1)]
        flat = face_areas(points, faces) < _NO_AREA
        if not flat.any():
            break
        at = corners(points, faces[flat])
        short = np.linalg.norm(np.roll(at, -1, axis=1) - at, axis=2).argmin(1)
        row = np.arange(len(short))
        one, other = faces[flat][row, short], faces[flat][row, (short + 1) % 3]
        label = components(len(points), one, other)
        heads = np.unique(label, return_index=True)[1]
        faces = heads[label][faces].astype(faces.dtype)
    return points, faces


def _alike(faces: Ints) -> tuple[Ints, Ints, Ints]:
    """Faces in an order in which those with the same points stand together, where each such group begins, and its size.

    In a group, those whose points rise but for one step come before those wound the other way.
    """
    low = np.sort(faces, axis=1).astype(np.int64)
    pair = low[:, 0] << 32 | low[:, 1]
    order = np.lexsort((low[:, 2] << 1 | ~_rising(faces), pair))
    new = (np.diff(pair[order], prepend=-1) != 0) | (np.diff(low[order, 2], prepend=-1) != 0)
    first = np.flatnonzero(new)
    return order, first, np.diff(first, append=len(faces))


def _rising(faces: Ints) -> Bools:
    return np.asarray((faces < np.roll(faces, -1, axis=1)).sum(1) == 2)


# -- Splitting: the faces stay, and points are doubled until the mesh is a 2-manifold ------------


def split(points: Floats, faces: Ints, crumb: float = 0.0) -> tuple[Floats, Ints]:
    """The same faces as a 2-manifold, with holes where there were some; closed if as many faces ran along each edge in one
    direction as in the other.

    Edges are cut along which more than two faces meet, or two that are wound differently, and points at which surfaces
    touch are doubled. Faces with the solid between them stay together, so bodies that touch come apart. Twins of a point
    are drawn apart by a hundredth of their faces' size, so that welding does not undo it.

    Args:
        crumb: what comes apart from a larger part is dropped if its area is below this.
    """
    faces = _without_flaps(faces)
    if not len(faces):
        return points, faces
    mesh = edges(faces)
    air = np.zeros(len(mesh.order), bool)
    pairs = _pairs(points, faces, mesh, air)
    new, origin = _separated(mesh, pairs)
    crowd = _crowds(edges(new))
    if crowd:
        # A hollow that touches the outside is told apart by the air between its own faces.
        air[np.concatenate(crowd)] = True
        pairs = _pairs(points, faces, mesh, air)
        new, origin = _separated(mesh, pairs)
    keep = _not_crumbs(points, faces, new, crumb)
    if not keep.all():
        return split(points, faces[keep], crumb)
    return _with_middles(_drawn_apart(points, new, origin), new, pairs)


def _without_flaps(faces: Ints) -> Ints:
    """Without pairs of faces that lie back to back; and with one of several alike, unless the mesh is closed by them all."""
    order, first, count = _alike(faces)
    if (count == 1).all():
        return faces
    rising = np.add.reduceat(_rising(faces)[order], first, dtype=np.int64)
    more = np.abs(2 * rising - count)
    if more.max() > 1 and len(surplus(edges(faces))):
        more = np.minimum(more, 1)
    begin = first + np.where(2 * rising > count, 0, rising)
    return faces[np.sort(order[spread(begin, more)])]


def _pairs(points: Floats, faces: Ints, mesh: Edges, air: Bools) -> tuple[Ints, Ints]:
    """Half-edges (P,) and those (P,) in the other direction that they are to stay with.

    Args:
        air: (3F,) half-edges at whose edge faces with air between them stay together, instead of solid.
    """
    first = mesh.first[mesh.paired]
    one, other = [mesh.order[first]], [mesh.order[first + 1]]
    for crowd in _crowds(mesh):
        found = np.array(_around(points, faces, mesh, crowd, bool(air[crowd[0]])), np.int64)
        if len(found):
            one.append(found[:, 0])
            other.append(found[:, 1])
    return np.concatenate(one), np.concatenate(other)


def _crowds(mesh: Edges) -> list[Ints]:
    """The half-edges of each edge at which faces must be parted."""
    which = np.flatnonzero((mesh.count > 1) & ~mesh.paired)
    return [mesh.order[mesh.first[k] : mesh.first[k] + mesh.count[k]] for k in which]


def _around(
    points: Floats, faces: Ints, mesh: Edges, crowd: Ints, air: bool
) -> list[tuple[int, int]]:
    """Pairs among the half-edges `crowd` of one edge, by the angle at which their faces stand."""
    low, high = sorted((mesh.start[crowd[0]], mesh.end[crowd[0]]))
    axis = (points[high] - points[low]).astype(np.float64)
    axis /= max(np.linalg.norm(axis), 1e-30)
    across = points[faces[crowd // 3, (crowd + 2) % 3]] - points[low].astype(np.float64)
    across -= np.outer(across @ axis, axis)
    right = across[np.linalg.norm(across, axis=1).argmax()]
    angle = np.arctan2(across @ np.cross(axis, right), across @ right)
    rising = mesh.start[crowd] == low
    if len(crowd) == 3:
        return _straightest(crowd, rising, across)
    # Going round, the solid lies behind a face that runs upwards along the edge, and before one that runs downwards.
    opens = rising if air else ~rising
    ring = np.lexsort((~opens, angle)).tolist()
    found: list[tuple[int, int]] = []
    k = 0
    while len(ring) > 1 and k <= len(ring):
        if opens[ring[0]] and not opens[ring[1]]:
            found.append((int(crowd[ring[0]]), int(crowd[ring[1]])))
            ring, k = ring[2:], 0
        else:
            ring, k = ring[1:] + ring[:1], k + 1
    return found


def _straightest(crowd: Ints, rising: Bools, across: Floats) -> list[tuple[int, int]]:
    """Where a wall meets a surface from within, the surface stays whole."""
    unit = across / np.maximum(np.linalg.norm(across, axis=1, keepdims=True), 1e-30)
    candidates = [(i, j) for i in range(3) for j in range(3) if rising[i] and not rising[j]]
    if not candidates:
        return []
    i, j = min(candidates, key=lambda pair: float(unit[pair[0]] @ unit[pair[1]]))
    return [(int(crowd[i]), int(crowd[j]))]


def _following(halves: Ints) -> Ints:
    """The next half-edges in the same faces."""
    return np.asarray(halves - halves % 3 + (halves + 1) % 3)


def _not_crumbs(points: Floats, faces: Ints, new: Ints, least: float) -> Bools:
    """Which faces (F,) are, as `new`, in a part of at least the area `least`, or the largest of what were one as `faces`."""
    whole, part = parts(len(points), faces), parts(int(new.max()) + 1, new)
    size = np.bincount(part, face_areas(points, faces))
    largest = np.zeros(whole.max() + 1)
    np.maximum.at(largest, whole, size[part])
    return np.asarray((size[part] >= least) | (size[part] == largest[whole]))


def _separated(mesh: Edges, pairs: tuple[Ints, Ints]) -> tuple[Ints, Ints]:
    """Faces (F, 3) of new points, one for all corners that hang together over `pairs`; the old point of each."""
    one, other = pairs
    corner = components(
        len(mesh.start),
        np.concatenate([one, _following(one)]),
        np.concatenate([_following(other), other]),
    )
    head = np.unique(corner, return_index=True)[1]
    return corner.reshape(-1, 3), mesh.start[head]


def _drawn_apart(points: Floats, faces: Ints, origin: Ints) -> Floats:
    """`points[origin]`, those that come more than once moved a little into their own faces."""
    placed = points[origin].astype(np.float64)
    twin = np.bincount(origin, minlength=len(points))[origin] > 1
    if twin.any():
        use = np.flatnonzero(twin[faces.ravel()])
        point, middle = faces.ravel()[use], placed[faces[use // 3]].mean(1)
        count = np.maximum(np.bincount(point, minlength=len(placed)), 1)
        for k in range(3):
            total = np.bincount(point, middle[:, k], minlength=len(placed))
            placed[twin, k] += _APART * (total / count - placed[:, k])[twin]
    return placed.astype(points.dtype)


def _with_middles(points: Floats, faces: Ints, pairs: tuple[Ints, Ints]) -> tuple[Floats, Ints]:
    """With a point in the middle of edges between whose ends there are others, for all but one of them."""
    partner = np.full(faces.size, -1)
    partner[pairs[0]], partner[pairs[1]] = pairs[1], pairs[0]
    middles: list[Floats] = []
    ring: dict[int, int] = {}
    for crowd in _crowds(edges(faces)):
        for half in _units(crowd, partner)[1:]:
            sides = [half, partner[half]] if partner[half] >= 0 else [half]
            a, b = points[faces[half // 3, [half % 3, (half + 1) % 3]]]
            tips = points[faces[np.array(sides) // 3, (np.array(sides) + 2) % 3]].mean(0)
            ring |= dict.fromkeys(map(int, sides), len(points) + len(middles))
            middles.append((1 - _APART) * (a + b) / 2 + _APART * tips)
    if not middles:
        return points, faces
    cut = np.unique(np.array(list(ring)) // 3)
    fans = [triangle for face in cut for triangle in _fan(faces[face], 3 * int(face), ring)]
    whole = np.delete(faces, cut, axis=0)
    added = np.array(middles, points.dtype)
    return np.concatenate([points, added]), np.concatenate([whole, np.array(fans)])


def _units(crowd: Ints, partner: Ints) -> list[int]:
    """One half-edge of each pair in `crowd`, and those without a partner."""
    return [half for half in crowd.tolist() if partner[half] < 0 or half < partner[half]]


def _fan(face: Ints, first: int, middles: dict[int, int]) -> list[tuple[int, int, int]]:
    """`face`, whose half-edges are `first` and the next two, with points in the middle of some of its sides."""
    outline: list[int] = []
    for k in range(3):
        outline.append(int(face[k]))
        if first + k in middles:
            outline.append(middles[first + k])
            begin = len(outline) - 1
    outline = outline[begin:] + outline[:begin]
    return [(outline[0], b, c) for b, c in pairwise(outline[1:])]

# SPDX-License-Identifier: GPL-3.0-or-later
"""Decimation by quadric error (M. Garland and P. Heckbert, 1997) to a number of faces.

fast_simplification is quick but does not look whether a collapse pinches the surface off; what it leaves is split into a
manifold again. That works because merging points maps closed surfaces to closed surfaces.
"""

from __future__ import annotations

import math

import fast_simplification
import numpy as np

from .clean import compact, parts, split, without_flat
from .orient import face_areas
from .surface import Floats, Ints, Step

_AGGRESSION = 5.0
"""How fast the error that is allowed grows. At 7, the library's default, it pinches twenty times as much, for little."""
_BLOCK = 250_000
"""Faces in one call, which the library makes without letting other threads run: a fraction of a second."""
_LEAST_SHARE = 0.25
"""Part of its faces that a block keeps, at least: its rim is kept whole, and must not stand out too much."""
_MOST_SHARE = 0.7
"""And at most, or a round would achieve nothing."""
_PINCHED = 40
"""Faces of average size: what comes off and is smaller than that is no more than the detail that was to be given up."""
_CRUMB = 1e-3
"""Nor anything of more than this share of the whole area."""
_ATTEMPTS = 6


def simplify(points: Floats, faces: Ints, target: int, step: Step) -> tuple[Floats, Ints]:
    """The oriented mesh with at most `target` faces, a 2-manifold (with holes where there are some; closed stays closed)."""
    aim = target
    for attempt in range(_ATTEMPTS):
        fewer = _mended(*_decimated(points, faces, aim, _AGGRESSION + attempt, step))
        if not len(fewer[1]):
            break  # the last bodies have collapsed
        points, faces = fewer
        if len(faces) <= target:
            return points, faces
        aim = max(4, aim // 2, aim - 2 * (len(faces) - target))
        if attempt > 1:
            points, faces = _largest(points, faces, target)
    return _largest(points, faces, target)


def _mended(points: Floats, faces: Ints) -> tuple[Floats, Ints]:
    # As they will be kept: rounding may take a face's area.
    points, faces = without_flat(points.astype(np.float32), faces)
    areas = face_areas(points, faces)
    return split(points, faces, min(_PINCHED / max(len(areas), 1), _CRUMB) * areas.sum())


def _decimated(
    points: Floats, faces: Ints, target: int, aggression: float, step: Step
) -> tuple[Floats, Ints]:
    begun, rounds = len(faces), 0
    while (before := len(faces)) > target:
        step("Simplifying", math.log(begun / before) / math.log(begun / target))
        if before > max(_BLOCK, 2 * target if target <= _BLOCK else target):
            share = _share(before, target)
            points, faces = _blockwise(points, faces, share, aggression, rounds % 3)
        else:
            aim = max(target, before // 2)
            points, faces = _fewer(points, faces, aim, aggression)
        rounds += 1
        if len(faces) > 0.99 * before:
            break
    return points, faces


def _share(before: int, target: int) -> float:
    """Part of the faces that blocks keep: in the end the whole mesh is done, without rims, unless that took seconds."""
    if target > _BLOCK:
        return max(target / before, _LEAST_SHARE)
    return min(max(2 * target / before, _LEAST_SHARE), _MOST_SHARE)


def _blockwise(
    points: Floats, faces: Ints, share: float, aggression: float, axis: int
) -> tuple[Floats, Ints]:
    """`share` of the faces left, in slabs across `axis` whose rims are kept, so that they fit together again."""
    order = np.argsort(points[faces[:, 0], axis])
    slabs = []
    for block in np.array_split(order, -(-len(faces) // _BLOCK)):
        part = compact(points, faces[block])
        slabs.append(_fewer(*part, int(share * len(block)), aggression, keep_rim=True))
    starts = np.cumsum([0, *(len(slab[0]) for slab in slabs[:-1])])
    found, number = np.unique(
        np.concatenate([slab[0] for slab in slabs]), axis=0, return_inverse=True
    )
    pieces = [slab[1] + start for slab, start in zip(slabs, starts, strict=True)]
    return found, number.ravel()[np.concatenate(pieces)].astype(faces.dtype)


def _fewer(
    points: Floats, faces: Ints, target: int, aggression: float, keep_rim: bool = False
) -> tuple[Floats, Ints]:
    fewer: tuple[Floats, Ints] = fast_simplification.simplify(
        points, faces, target_count=target, agg=aggression, preserve_border=keep_rim
    )
    return fewer


def _largest(points: Floats, faces: Ints, target: int) -> tuple[Floats, Ints]:
    """The largest components that together have at most `target` faces; the largest one in any case."""
    part = parts(len(points), faces)
    size = np.bincount(part, face_areas(points, faces))
    order = np.argsort(-size)
    fits = np.cumsum(np.bincount(part)[order]) <= target
    fits[0] = True
    keep = np.zeros(len(size), bool)
    keep[order[fits]] = True
    return compact(points, faces[keep[part]])

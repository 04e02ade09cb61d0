# SPDX-License-Identifier: GPL-3.0-or-later
"""Paints the textures: every texel gets the colours at the point of the original surface that lies nearest to it."""

from __future__ import annotations

from dataclasses import dataclass

import igl
import numpy as np
import numpy.typing as npt
from scipy.ndimage import distance_transform_edt

from .progress import part
from .raster import cover
from .surface import Field, Floats, Ints, Step, Surface
from .unwrap import Atlas

_AT_ONCE = 100_000
"""Points looked up in one call: some tenths of a second, in which igl lets nobody else run."""
_BLOCK = 120_000
"""Faces in one search tree: likewise."""


@dataclass(frozen=True)
class Textures:
    """The finished pictures, 8 bits a channel, rows from the top."""

    colour: npt.NDArray[np.uint8]
    """(S, S, 4) base colour, as the field has it, and alpha."""
    metallic_roughness: npt.NDArray[np.uint8]
    """(S, S, 3) nothing, roughness, metallic: glTF's order."""
    transparent: float
    """The share of the surface's texels that are more transparent than not."""


def bake(
    surface: Surface, atlas: Atlas, original: Surface | None, field: Field, step: Step
) -> Textures:
    """The textures of `surface`, laid out as `atlas`.

    Args:
        original: where `field` is asked: at its nearest points; None: at the texels' own.
        step: called several times a second.
    """
    size = atlas.size
    nearest = Nearest(original, part(step, 0, 0.15)) if original is not None else None
    values = np.zeros((size * size, 6), np.uint8)
    empty = np.ones(size * size, bool)
    for covered in cover(atlas.texels[atlas.faces], size, _AT_ONCE):
        step("Painting the textures", 0.15 + 0.8 * covered.done)
        corners = surface.points[surface.faces[covered.face]]
        points = np.einsum("nk,nkc->nc", covered.weights, corners)
        # Trees and tables are walked faster where neighbours come one after another
        order = np.lexsort(np.floor(points * 256).astype(np.int16).T)
        texel, points = covered.texel[order], points[order]
        if nearest is not None:
            points = nearest(points)
        values[texel] = np.rint(np.clip(field(points), 0, 1) * 255)
        empty[texel] = False
    transparent = np.count_nonzero(values[~empty, 5] < 128) / max(np.count_nonzero(~empty), 1)
    step("Filling the gaps between charts", 0.96)
    values = _filled(values.reshape(size, size, 6), empty.reshape(size, size))
    blank = np.zeros_like(values[..., 0])
    return Textures(
        np.ascontiguousarray(values[..., [0, 1, 2, 5]]),
        np.stack([blank, values[..., 4], values[..., 3]], -1),
        transparent,
    )


def _filled(values: npt.NDArray[np.uint8], empty: npt.NDArray[np.bool_]) -> npt.NDArray[np.uint8]:
    """`values` (S, S, channels) with those of the nearest texel that is not empty in every one that is."""
    if empty.all():
        return values
    rows, columns = distance_transform_edt(empty, return_distances=False, return_indices=True)
    return np.asarray(values[rows, columns])


class Nearest:
    """Finds the nearest points of a surface, which is cut into blocks with a search tree each."""

    def __init__(self, surface: Surface, step: Step) -> None:
        step("Looking through the surface", 0.0)
        blocks = _halved(surface.points[surface.faces].mean(1), np.arange(len(surface.faces)))
        self._blocks: list[tuple[igl.AABB, Floats, Ints]] = []
        for block in blocks:
            used, faces = np.unique(surface.faces[block], return_inverse=True)
            points = surface.points[used].astype(np.float64)
            faces = faces.reshape(-1, 3).astype(np.int64)
            self._blocks.append((igl.AABB(), points, faces))
            self._blocks[-1][0].init(points, faces)
            step("Looking through the surface", len(self._blocks) / len(blocks))
        self._low = np.stack([points.min(0) for _, points, _ in self._blocks])
        self._high = np.stack([points.max(0) for _, points, _ in self._blocks])

    def __call__(self, points: Floats) -> Floats:
        """The points of the surface (N, 3) that are nearest to `points` (N, 3)."""
        points = np.ascontiguousarray(points, np.float64)
        result, best = np.empty_like(points), np.full(len(points), np.inf)
        away = np.maximum(self._low[:, None] - points, points - self._high[:, None])
        away = np.square(np.maximum(away, 0)).sum(2)  # (blocks, N), squared, to their boxes
        home = away.argmin(0)
        for k in range(len(self._blocks)):
            self._search(k, np.flatnonzero(home == k), points, best, result)
        away[home, np.arange(len(points))] = np.inf
        for k in range(len(self._blocks)):
            self._search(k, np.flatnonzero(away[k] < best), points, best, result)
        return result

    def _search(
        self, block: int, chosen: Ints, points: Floats, best: Floats, result: Floats
    ) -> None:
        """Bring `best` (N,), squared, and `result` (N, 3) up to date for the `chosen` of `points`."""
        tree, corners, faces = self._blocks[block]
        if len(chosen):
            squared, _, found = tree.squared_distance(corners, faces, points[chosen])
            better = squared < best[chosen]
            best[chosen[better]], result[chosen[better]] = squared[better], found[better]


def _halved(middles: Floats, block: Ints) -> list[Ints]:
    """`block`, indices into `middles` (F, 3), halved across its longest side until no part is larger than `_BLOCK`."""
    if len(block) <= _BLOCK:
        return [block]
    axis = int(np.ptp(middles[block], axis=0).argmax())
    order = block[np.argpartition(middles[block, axis], len(block) // 2)]
    one, other = np.array_split(order, 2)
    return _halved(middles, one) + _halved(middles, other)

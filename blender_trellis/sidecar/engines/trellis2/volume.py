# SPDX-License-Identifier: GPL-3.0-or-later
"""Sparse voxels as numpy arrays: finding them, and sampling what they hold. No torch."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[Any]
Ints = npt.NDArray[Any]

_BITS = 20
_MASK = (1 << _BITS) - 1

_AT_ONCE = 2**17
"""Points that are sampled together, so that what is computed of them stays in the processor's cache."""


def pack(coords: Ints) -> Ints:
    """A key (N,), int64, for each of `coords` (N, 3), from -1 to 2^20 - 2; keys sort as x, y, z do."""
    x, y, z = (coords[:, axis].astype(np.int64) + 1 for axis in range(3))
    return (x << 2 * _BITS) + (y << _BITS) + z


def unpack(keys: Ints) -> Ints:
    """The coordinates (N, 3), int32, of `keys`."""
    axes = (keys >> 2 * _BITS, (keys >> _BITS) & _MASK, keys & _MASK)
    return np.stack(axes, -1).astype(np.int32) - np.int32(1)


class Index:
    """Finds voxels by their coordinates, `coords` (N, 3), which must differ."""

    def __init__(self, coords: Ints) -> None:
        keys = pack(coords)
        self._order = np.argsort(keys, kind="stable")
        self._keys = keys[self._order]

    def find(self, coords: Ints) -> Ints:
        """The rows (M,) of the voxels at `coords` (M, 3), -1 where there is none."""
        if len(self._keys) == 0:
            return np.full(len(coords), -1)
        wanted = pack(coords)
        at = np.minimum(np.searchsorted(self._keys, wanted), len(self._keys) - 1)
        return np.where(self._keys[at] == wanted, self._order[at], -1)


class Volume:
    """Attributes of sparse voxels, to be sampled at points of the unit cube around the origin.

    Args:
        coords: (M, 3) integers from 0 to `resolution` - 1.
        attributes: (M, C) of the voxels; each voxel's stand at its middle.
        resolution: voxels a side of the cube.
    """

    def __init__(self, coords: Ints, attributes: Floats, resolution: int) -> None:
        self._index = Index(coords)
        self._attributes = np.asarray(attributes, np.float32)
        self._resolution = resolution

    def __call__(self, points: Floats) -> Floats:
        """Trilinear samples (N, C), float32, at `points` (N, 3) in -0.5 to 0.5.

        Of the eight voxels around a point those that exist share the whole weight; where there is none the result is 0.
        """
        sampled = np.zeros((len(points), self._attributes.shape[1]), np.float32)
        for start in range(0, len(points) if len(self._attributes) else 0, _AT_ONCE):
            part = slice(start, start + _AT_ONCE)
            self._sample(points[part], sampled[part])
        return sampled

    def _sample(self, points: Floats, out: Floats) -> None:
        place = (np.asarray(points, np.float64) + 0.5) * self._resolution - 0.5
        # What is farther out than this has no voxels around it, wherever it is
        place = np.clip(place, -1, self._resolution)
        low = np.floor(place)
        beyond = (place - low).astype(np.float32)
        cell = low.astype(np.int32)
        total = np.zeros(len(points), np.float32)
        for corner in itertools.product((0, 1), repeat=3):
            row = self._index.find(cell + np.array(corner, np.int32))
            weight = np.where(corner, beyond, 1 - beyond).prod(1)
            weight[row < 0] = 0
            total += weight
            out += weight[:, None] * self._attributes[row]
        out /= np.maximum(total, 1e-12)[:, None]

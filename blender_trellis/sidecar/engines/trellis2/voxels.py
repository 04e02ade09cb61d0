# SPDX-License-Identifier: GPL-3.0-or-later
"""Sparse voxels as tensors: finding neighbours, parents and children, and the convolution that visits only what is there.

A voxel is a row of `coords` (N, 3), int32, not negative. A *slot* is a child's place under its parent, 8·parent + octant, where
bits 0, 1, 2 of the octant are the child's halves in x, y and z.
"""

from __future__ import annotations

import itertools

import torch
from torch import Tensor, nn

_BITS = 20
_MASK = (1 << _BITS) - 1

_SHIFTS = tuple(itertools.product((-1, 0, 1), repeat=3))
"""The 27 places of a 3×3×3 kernel, in the order of its weights."""

_MIDDLE = _SHIFTS.index((0, 0, 0))

_KEPT = 2**22
"""Up to so many voxels a grid keeps its tables of neighbours (27 int32 each, 450 MB at most), one for each part.

Larger ones look neighbours up anew for each part: only the finest level is so large, and it has one convolution.
"""


def pack(coords: Tensor) -> Tensor:
    """A key (N,), int64, for each of `coords` (N, 3); keys sort as x, y, z do.

    One is added to each coordinate, so that a step of -1 from 0 is a key of its own and not another voxel's.
    """
    x, y, z = (coords.long() + 1).unbind(-1)
    return (x << 2 * _BITS) + (y << _BITS) + z


def unpack(keys: Tensor) -> Tensor:
    """The coordinates (N, 3), int32, of `keys`."""
    axes = (keys >> 2 * _BITS, (keys >> _BITS) & _MASK, keys & _MASK)
    return (torch.stack(axes, -1) - 1).int()


def distinct(coords: Tensor) -> Tensor:
    """The different rows of `coords`, sorted by x, y, z."""
    return unpack(torch.unique(pack(coords)))


class Grid:
    """Voxels that can be found by their coordinates, which must differ."""

    def __init__(self, coords: Tensor) -> None:
        self.coords = coords
        self._keys = pack(coords)
        self._sorted, self._order = self._keys.sort()
        self._tables: dict[tuple[int, int], Tensor] = {}

    def __len__(self) -> int:
        return len(self.coords)

    def neighbours(self, part: slice) -> Tensor:
        """The row of each neighbour of the voxels in `part` (27, n), int32; -1 where there is none."""
        if len(self) > _KEPT:
            return self._look_up(self._keys[part])
        where = part.start, part.stop
        if where not in self._tables:
            self._tables[where] = self._look_up(self._keys[part])
        return self._tables[where]

    def _look_up(self, keys: Tensor) -> Tensor:
        found = []
        for x, y, z in _SHIFTS:
            wanted = keys + ((x << 2 * _BITS) + (y << _BITS) + z)
            at = torch.searchsorted(self._sorted, wanted).clamp_(max=len(self) - 1)
            found.append(torch.where(self._sorted[at] == wanted, self._order[at], -1).int())
        return torch.stack(found)


def children(coords: Tensor, slots: Tensor) -> Tensor:
    """The coordinates (M, 3) of the voxels in `slots` (M,) under `coords` (N, 3), each of half its parent's size."""
    halves = torch.stack([slots & 1, slots >> 1 & 1, slots >> 2 & 1], -1)
    return 2 * coords.index_select(0, slots >> 3) + halves.int()


def parents(coords: Tensor) -> tuple[Tensor, Tensor]:
    """The voxels of twice the size that contain `coords` (M, 3): their coordinates, sorted by x, y, z, and M slots."""
    keys, parent = torch.unique(pack(coords >> 1), return_inverse=True)
    x, y, z = (coords & 1).unbind(-1)
    return unpack(keys), (8 * parent + (x + 2 * y + 4 * z)).int()


class Convolution(nn.Module):
    """A 3×3×3 cross-correlation over the voxels there are: absent ones count as 0, and none comes into being."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(outputs, 3, 3, 3, inputs))
        self.bias = nn.Parameter(torch.empty(outputs))

    def forward(self, x: Tensor, grid: Grid, part: slice) -> Tensor:
        """The result (n, outputs), float32, for the voxels in `part`, from the features `x` (N, inputs) of all.

        Products are of the weights' precision, sums of float32.
        """
        table = grid.neighbours(part)
        kernel = self.weight.flatten(1, 3)
        # In the middle every voxel is its own neighbour
        total = self.bias.float() + (x[part] @ kernel[:, _MIDDLE].T).float()
        for i, neighbour in enumerate(table):
            if i == _MIDDLE:
                continue
            here = (neighbour >= 0).nonzero().squeeze(1)
            there = x.index_select(0, neighbour[here])
            total.index_add_(0, here, (there @ kernel[:, i].T).float())
        return total

# SPDX-License-Identifier: GPL-3.0-or-later
"""Sparse voxels: neighbours, parents and children, and the convolution against torch's own."""

from __future__ import annotations

import itertools
import random

import pytest

torch = pytest.importorskip("torch", reason="the local engine needs torch")

from blender_trellis.sidecar.engines.trellis2 import voxels  # noqa: E402
from blender_trellis.sidecar.engines.trellis2.voxels import (  # noqa: E402
    Convolution,
    Grid,
    children,
    distinct,
    pack,
    parents,
    unpack,
)

torch.set_num_threads(1)

FINEST = 1535
"""The largest coordinate of the finest resolution."""


def _some(count: int, side: int, seed: int = 1) -> torch.Tensor:
    """Different voxels (count, 3) in a cube of `side`, in no order."""
    chosen = torch.tensor(random.Random(seed).sample(range(side**3), count))
    return torch.stack([chosen // side**2, chosen // side % side, chosen % side], -1).int()


def _convolution(inputs: int, outputs: int, dtype: torch.dtype = torch.float32) -> Convolution:
    torch.manual_seed(2)
    layer = Convolution(inputs, outputs)
    torch.nn.init.normal_(layer.weight, std=(27 * inputs) ** -0.5)
    torch.nn.init.normal_(layer.bias)
    return layer.to(dtype).requires_grad_(False)


def _dense(layer: Convolution, x: torch.Tensor, coords: torch.Tensor, side: int) -> torch.Tensor:
    """torch's conv3d over the whole cube, read at `coords`."""
    place = tuple(coords.long().T)
    cube = torch.zeros(side, side, side, x.shape[1])
    cube[place] = x
    weight = layer.weight.permute(0, 4, 1, 2, 3)
    full = torch.nn.functional.conv3d(cube.movedim(-1, 0)[None], weight, layer.bias, padding=1)
    return full[0].movedim(0, -1)[place]


@pytest.mark.parametrize("count", [6**3, 60])
def test_the_convolution_is_torchs_where_voxels_are(count: int) -> None:
    coords = _some(count, 6)
    x, layer = torch.randn(count, 5), _convolution(5, 4)
    result = layer(x, Grid(coords), slice(0, count))
    torch.testing.assert_close(result, _dense(layer, x, coords, 6), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kept", [2**22, 0])
def test_a_convolution_in_parts_is_the_same(kept: int, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = Grid(_some(100, 6))
    x, layer = torch.randn(100, 5), _convolution(5, 4)
    expected = layer(x, whole, slice(0, 100))
    monkeypatch.setattr(voxels, "_KEPT", kept)
    grid = Grid(whole.coords)
    parts = [layer(x, grid, slice(start, min(start + 7, 100))) for start in range(0, 100, 7)]
    torch.testing.assert_close(torch.cat(parts), expected, atol=1e-6, rtol=1e-6)


def test_low_precision_is_summed_in_float32() -> None:
    """Ones times 1/8, 27 times over, beside a bias of 256: bfloat16 sums would stay at 256."""
    layer = Convolution(1, 1).requires_grad_(False)
    layer.weight.fill_(0.125)
    layer.bias.fill_(256)
    coords = torch.tensor([*itertools.product(range(3), repeat=3)], dtype=torch.int32)
    x = torch.ones(27, 1, dtype=torch.bfloat16)
    result = layer.to(torch.bfloat16)(x, Grid(coords), slice(13, 14))
    assert result.dtype == torch.float32
    assert result.item() == 256 + 27 / 8


def test_a_voxel_alone_sees_only_itself() -> None:
    x, layer = torch.randn(1, 5), _convolution(5, 4)
    result = layer(x, Grid(torch.tensor([[3, 0, 5]], dtype=torch.int32)), slice(0, 1))
    torch.testing.assert_close(result, x @ layer.weight[:, 1, 1, 1].T + layer.bias)


def test_no_voxels_are_no_error() -> None:
    nothing = torch.empty(0, 3, dtype=torch.int32)
    result = _convolution(5, 4)(torch.empty(0, 5), Grid(nothing), slice(0, 0))
    assert result.shape == (0, 4)
    assert distinct(nothing).shape == (0, 3)
    coarse, slots = parents(nothing)
    assert children(coarse, slots).shape == (0, 3)


def test_neighbours_at_the_rim_of_the_finest_grid_are_not_confused() -> None:
    ends = [0, 1, FINEST - 1, FINEST]
    coords = torch.tensor([*itertools.product(ends, repeat=3)], dtype=torch.int32)
    table = Grid(coords).neighbours(slice(0, len(coords)))
    row = {tuple(voxel): i for i, voxel in enumerate(coords.tolist())}
    for column, voxel in enumerate(coords.tolist()):
        for line, shift in enumerate(itertools.product((-1, 0, 1), repeat=3)):
            wanted = tuple(a + b for a, b in zip(voxel, shift, strict=True))
            assert table[line, column] == row.get(wanted, -1)


def test_keys_sort_as_coordinates_do_and_give_them_back() -> None:
    coords = torch.cat([_some(500, 1536), torch.full((1, 3), FINEST, dtype=torch.int32)])
    keys = pack(coords)
    assert torch.equal(unpack(keys), coords)
    assert coords[keys.argsort()].tolist() == sorted(coords.tolist())
    assert distinct(coords.repeat(2, 1)).tolist() == sorted(coords.tolist())


def test_children_and_parents_are_each_others_inverse() -> None:
    coords = _some(300, 1536)
    coarse, slots = parents(coords)
    assert torch.equal(children(coarse, slots), coords)
    halved = {(x // 2, y // 2, z // 2) for x, y, z in coords.tolist()}
    assert [tuple(row) for row in coarse.tolist()] == sorted(halved)


def test_octants_count_x_first() -> None:
    parent = torch.tensor([[5, 6, 7]], dtype=torch.int32)
    found = children(parent, torch.arange(8, dtype=torch.int32)).tolist()
    assert found == [[10 + i % 2, 12 + i // 2 % 2, 14 + i // 4] for i in range(8)]

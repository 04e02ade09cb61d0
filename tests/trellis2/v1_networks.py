# SPDX-License-Identifier: GPL-3.0-or-later
"""The networks of TRELLIS v1, composed of the engine's own blocks: what the official v1 computed then holds for those blocks too.

The engine runs no v1. Only what v1 has and TRELLIS.2 has not is written out here: positions that are added to tokens, modulation
by each block for itself, attention within windows, pooling, group norm. Import this only after `pytest.importorskip("torch")`.

Sources: https://github.com/microsoft/TRELLIS (MIT), for facts; and the `what` of each vector.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from blender_trellis.sidecar.engines.trellis2 import dit, vae
from blender_trellis.sidecar.engines.trellis2.attention import attend
from blender_trellis.sidecar.engines.trellis2.voxels import (
    Convolution,
    Grid,
    children,
    pack,
    parents,
)

WHOLE = slice(None)
"""All voxels at once, where the engine can work on some at a time."""


def weights(params: Mapping[str, list[int]]) -> dict[str, Tensor]:
    """Values for parameters of these shapes by the formula in the v1 vectors, named as the modules below.

    The official names have one more `conv`, around each convolution. One of 1×1×1 is a linear layer here, whose weights spconv
    (2.3.8, `SparseConvolution.forward`) reads as (inputs, outputs), although it states the shape (outputs, 1, 1, 1, inputs).
    """
    made = {}
    for k, name in enumerate(sorted(params), 1):
        shape = params[name]
        u = _hashed(math.prod(shape), seed=k * 0x9E3779B9) / 2**32 - 0.5
        if name.endswith("gamma") or (len(shape) == 1 and name.endswith("weight")):
            values = 1 + 0.2 * u
        elif len(shape) == 1:
            values = 0.2 * u
        else:
            values = u * math.sqrt(12 / math.prod(shape[1:]))
        tensor = torch.from_numpy(values).float().view(*shape)
        if len(shape) == 5 and shape[1:4] == [1, 1, 1]:
            tensor = tensor.view(shape[4], shape[0]).T
        made[name.replace(".conv.", ".")] = tensor
    return made


def _hashed(count: int, seed: int) -> np.ndarray:
    """The `lowbias32` hashes of `seed`, `seed` + 1, … (https://nullprogram.com/blog/2018/07/31/), modulo 2³²."""
    x = np.arange(count, dtype=np.uint32) + np.uint32(seed % 2**32)
    for shift, factor in ((16, 0x7FEB352D), (15, 0x846CA68B)):
        x = (x ^ x >> shift) * np.uint32(factor)
    return x ^ x >> 16


def _positions(coords: Tensor, channels: int) -> Tensor:
    """What is added to tokens at `coords` (N, 3): for each axis the sines, then the cosines, of the angles of `dit.rotation`."""
    each = channels // 6
    by = dit.rotation(coords, channels)
    sine, cosine = (table[:, : 3 * each].unflatten(1, (3, each)) for table in (by.sine, by.cosine))
    return F.pad(torch.cat((sine, cosine), -1).flatten(1), (0, channels - 6 * each))


def _unturned(count: int, width: int) -> dit.Rotation:
    """No rotation of `count` tokens with heads of `width` channels."""
    return dit.Rotation(torch.ones(count, width // 2), torch.zeros(count, width // 2))


def _without_norm(attention: dit._SelfAttention | dit._CrossAttention) -> None:
    attention.q_rms_norm = attention.k_rms_norm = nn.Identity()


class _Block(dit._Block):
    """The engine's block with a modulation of its own, and none of the cross-attention's norms."""

    def __init__(self, channels: int, condition_channels: int, heads: int, hidden: int) -> None:
        super().__init__(channels, condition_channels, heads, hidden)
        del self.modulation
        self.register_buffer("modulation", torch.zeros(6 * channels), persistent=False)
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(channels, 6 * channels))
        _without_norm(self.cross_attn)


class _Flow(nn.Module):
    def __init__(
        self,
        model_channels: int,
        cond_channels: int,
        num_blocks: int,
        num_heads: int,
        mlp_ratio: int,
        in_channels: int,
        out_channels: int,
        io_block_channels: Sequence[int] = (),
        **_: object,
    ) -> None:
        super().__init__()
        (outer_channels,) = io_block_channels or (model_channels,)
        self.width = model_channels // num_heads
        self.t_embedder = dit._TimestepEmbedder(model_channels)
        self.input_layer = nn.Linear(in_channels, outer_channels)
        self.blocks = nn.ModuleList(
            _Block(model_channels, cond_channels, num_heads, mlp_ratio * model_channels)
            for _ in range(num_blocks)
        )
        self.out_layer = nn.Linear(outer_channels, out_channels)

    def _through_blocks(self, h: Tensor, coords: Tensor, time: Tensor, condition: Tensor) -> Tensor:
        h = h + _positions(coords, h.shape[1])
        for block in self.blocks:
            modulation = block.adaLN_modulation(time)[0]
            block(h, modulation, condition[0], _unturned(len(h), self.width), [WHOLE])
        return h

    def _out(self, h: Tensor) -> Tensor:
        velocity: Tensor = self.out_layer(F.layer_norm(h, h.shape[1:]))
        return velocity


class StructureFlow(_Flow):
    """Official name: SparseStructureFlowModel."""

    @torch.no_grad()
    def forward(self, x: Tensor, t: float, condition: Tensor) -> Tensor:
        """The velocity of x (1, C, R, R, R) at the time t, 1 to 0, given condition tokens (1, L, channels)."""
        coords = torch.cartesian_prod(*(torch.arange(side) for side in x.shape[2:]))
        h = self.input_layer(x[0].flatten(1).T)
        h = self._through_blocks(h, coords, self.t_embedder(t), condition)
        return self._out(h).T.reshape(x.shape)


class SlatFlow(_Flow):
    """Official name: SLatFlowModel, of two levels: voxels pass through convolutions, their parents through the blocks."""

    def __init__(self, **args: Any) -> None:
        super().__init__(**args)
        inner, (outer,) = args["model_channels"], args["io_block_channels"]
        self.input_blocks = nn.ModuleList(
            _ResidualBlock(outer, width, time_channels=inner) for width in (outer, inner)
        )
        self.out_blocks = nn.ModuleList(
            _ResidualBlock(2 * width, outer, time_channels=inner) for width in (inner, outer)
        )

    @torch.no_grad()
    def forward(self, feats: Tensor, coords: Tensor, t: float, condition: Tensor) -> Tensor:
        """The velocity of feats (N, C) at voxels (N, 3) at the time t, 1 to 0, given condition tokens (1, L, channels)."""
        time = self.t_embedder(t)
        coarse, slots = parents(coords)
        parent = slots >> 3
        grid, coarser = Grid(coords), Grid(coarse)

        fine = self.input_blocks[0](self.input_layer(feats), grid, time)
        down = self.input_blocks[1](_pooled(fine, parent, len(coarse)), coarser, time)
        h = self._through_blocks(down, coarse, time, condition)
        h = self.out_blocks[0](torch.cat((h, down), 1)[parent], grid, time)
        h = self.out_blocks[1](torch.cat((h, fine), 1), grid, time)
        return self._out(h)


def _pooled(x: Tensor, parent: Tensor, count: int) -> Tensor:
    """The sum over each parent's children, divided by one more than there are: official v1 counts its initial zero."""
    total = x.new_zeros(count, x.shape[1]).index_add_(0, parent, x)
    return total / (parent.bincount(minlength=count)[:, None] + 1)


class _ResidualBlock(vae._Resampler):
    """Norm, convolution, a norm that time modulates, convolution, beside a skip; the change of level comes before it."""

    def __init__(self, inputs: int, outputs: int, time_channels: int) -> None:
        super().__init__(inputs, outputs, outputs)
        self.emb_layers = nn.Sequential(nn.SiLU(), nn.Linear(time_channels, 2 * outputs))
        same = inputs == outputs
        self.skip_connection = nn.Identity() if same else nn.Linear(inputs, outputs)

    def forward(self, x: Tensor, grid: Grid, time: Tensor) -> Tensor:
        scale, shift = self.emb_layers(time)[0].chunk(2)
        h = self.conv1(self._activated(x, _whole), grid, WHOLE)
        h = F.silu(dit._Block._normed(h, shift, scale))
        y: Tensor = self.conv2(h, grid, WHOLE) + self.skip_connection(x)
        return y


def _whole(_: int) -> Iterator[slice]:
    yield WHOLE


class MeshDecoder(nn.Module):
    """Official name: SLatMeshDecoder, up to what FlexiCubes reads: 8 distances, 24 deformations, 21 weights, 48 colours."""

    def __init__(
        self,
        model_channels: int,
        latent_channels: int,
        num_blocks: int,
        num_heads: int,
        mlp_ratio: int,
        window_size: int,
        **_: object,
    ) -> None:
        super().__init__()
        middle, last = model_channels // 4, model_channels // 8
        self.input_layer = nn.Linear(latent_channels, model_channels)
        shifts = [window_size // 2 * (i % 2) for i in range(num_blocks)]
        self.blocks = nn.ModuleList(
            _WindowedBlock(model_channels, num_heads, mlp_ratio, window_size, shift)
            for shift in shifts
        )
        self.upsample = nn.ModuleList(
            [_Subdivision(model_channels, middle), _Subdivision(middle, last)]
        )
        self.out_layer = nn.Linear(last, 8 + 24 + 21 + 48)

    @torch.no_grad()
    def forward(self, feats: Tensor, coords: Tensor) -> tuple[Tensor, Tensor]:
        """The voxels (64N, 3), int32, of a quarter of the size of `coords` (N, 3), and their values (64N, 101)."""
        h = self.input_layer(feats)
        h = h + _positions(coords, h.shape[1])
        for block in self.blocks:
            h = block(h, coords)
        for subdivision in self.upsample:
            h, coords = subdivision(h, coords)
        return coords, self.out_layer(h)


class _WindowedBlock(nn.Module):
    """Attention among the voxels of each cubic window, then an MLP."""

    def __init__(self, channels: int, heads: int, mlp_ratio: int, window: int, shift: int) -> None:
        super().__init__()
        self.window, self.shift = window, shift
        self.attn = dit._SelfAttention(channels, heads)
        _without_norm(self.attn)
        self.mlp = dit._Mlp(channels, mlp_ratio * channels)

    def forward(self, x: Tensor, coords: Tensor) -> Tensor:
        unturned = _unturned(len(x), x.shape[1] // self.attn.heads)
        q, k, v = self.attn.project(vae._normalised(x), unturned)
        windows = pack((coords + self.shift) // self.window)
        attended = torch.empty_like(x)
        for window in windows.unique():
            own = windows == window
            attended[own] = attend(q[:, own], k[:, own], v[:, own])
        x = x + self.attn.to_out(attended)
        y: Tensor = x + self.mlp(vae._normalised(x))
        return y


class _Subdivision(nn.Module):
    """All eight children of each voxel, whose features pass two convolutions beside a skip."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.act_layers = nn.ModuleList([_GroupNorm(32, inputs)])
        first, second = Convolution(inputs, outputs), Convolution(outputs, outputs)
        self.out_layers = nn.ModuleList([first, _GroupNorm(32, outputs), nn.SiLU(), second])
        self.skip_connection = nn.Linear(inputs, outputs)

    def forward(self, x: Tensor, coords: Tensor) -> tuple[Tensor, Tensor]:
        sorted_by_xyz = torch.tensor([0, 4, 2, 6, 1, 5, 3, 7])
        slots = (8 * torch.arange(len(x))[:, None] + sorted_by_xyz).flatten().int()
        grid = Grid(children(coords, slots))
        first, norm, silu, second = self.out_layers
        h = first(F.silu(self.act_layers[0](x))[slots >> 3], grid, WHOLE)
        h = second(silu(norm(h)), grid, WHOLE)
        return h + self.skip_connection(x[slots >> 3]), grid.coords


class _GroupNorm(nn.GroupNorm):
    """Over groups of the channels of all voxels (N, C) together."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.T[None])[0].T

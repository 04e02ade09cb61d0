# SPDX-License-Identifier: GPL-3.0-or-later
"""TRELLIS.2's autoencoders: latents to occupancy, to a dual grid, to PBR attributes, and a dual grid to a latent.

Modules are built of the `args` of the official per-model json, and their parameters bear the official names. Arguments that
choose among kinds of blocks are not read: the released models have one kind, and another one's weights would not fit.

Sources: https://github.com/microsoft/TRELLIS.2 and, of StructureDecoder, https://github.com/microsoft/TRELLIS (both MIT).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from .voxels import Convolution, Grid, children, distinct, parents

Parts = Callable[[int], Iterator[slice]]
"""The parts in which so many rows are worked on."""


class _Autoencoder(nn.Module):
    """What the four have in common: how they are interrupted, and in which precision they compute."""

    blocks: nn.ModuleList
    check: Callable[[], None] = staticmethod(lambda: None)
    """Called before each block, and each part of one; what it raises ends the work."""

    torso = torch.float32

    def to_torso(self, dtype: torch.dtype) -> None:
        """Convolutions and linear layers inside the blocks, and what passes between blocks, become `dtype`.

        Norms and the layers before and after the blocks become float32.
        """
        self.torso = dtype
        low = {module for module in self._torso() if _is_product(module)}
        for module in self.modules():
            for parameter in module.parameters(recurse=False):
                parameter.data = parameter.data.to(dtype if module in low else torch.float32)

    def _torso(self) -> Iterator[nn.Module]:
        return self.blocks.modules()


def _is_product(module: nn.Module) -> bool:
    return isinstance(module, (nn.Linear, nn.Conv3d, Convolution))


class StructureDecoder(_Autoencoder):
    """The first stage's latent to occupancy, on a dense grid (official name: SparseStructureDecoder)."""

    def __init__(
        self,
        out_channels: int,
        latent_channels: int,
        num_res_blocks: int,
        channels: Sequence[int],
        num_res_blocks_middle: int = 2,
        **_: object,
    ) -> None:
        super().__init__()
        first, last = channels[0], channels[-1]
        self.input_layer = nn.Conv3d(latent_channels, first, 3, padding=1)
        middle = [_DenseBlock(first) for _ in range(num_res_blocks_middle)]
        self.middle_block = nn.ModuleList(middle)
        self.blocks = nn.ModuleList()
        for i, width in enumerate(channels):
            self.blocks.extend(_DenseBlock(width) for _ in range(num_res_blocks))
            if i < len(channels) - 1:
                self.blocks.append(_DenseUpsampler(width, channels[i + 1]))
        output = nn.Conv3d(last, out_channels, 3, padding=1)
        self.out_layer = nn.Sequential(_ChannelNorm(last), nn.SiLU(), output)

    @torch.no_grad()
    def forward(self, z: Tensor) -> Tensor:
        """Logits (1, 1, 64, 64, 64), float32, of occupancy from the latent `z` (1, 8, 16, 16, 16)."""
        h = self.input_layer(z).to(self.torso)
        for block in (*self.middle_block, *self.blocks):
            self.check()
            h = block(h)
        logits: Tensor = self.out_layer(h.float())
        return logits

    def _torso(self) -> Iterator[nn.Module]:
        yield from self.middle_block.modules()
        yield from self.blocks.modules()


def occupied(logits: Tensor, pool: int = 1) -> Tensor:
    """The occupied voxels (N, 3), int32, sorted by x, y, z, of `logits` (1, 1, R, R, R) of occupancy.

    With `pool`, those of a grid coarser by that factor, where a voxel is occupied if any part of it is.
    """
    size = logits.shape[-1] // pool
    cells = logits.view(size, pool, size, pool, size, pool)
    return (cells.amax((1, 3, 5)) > 0).nonzero().int()


class _ChannelNorm(nn.LayerNorm):
    """LayerNorm, in float32, over the channels of a dense grid (1, C, X, Y, Z)."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.movedim(1, -1).float()).movedim(-1, 1)


class _DenseBlock(nn.Module):
    """Two convolutions beside an identity."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm1 = _ChannelNorm(width)
        self.norm2 = _ChannelNorm(width)
        self.conv1 = nn.Conv3d(width, width, 3, padding=1)
        self.conv2 = nn.Conv3d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        h: Tensor = self.conv1(F.silu(self.norm1(x)).to(x.dtype))
        h = self.conv2(F.silu(self.norm2(h)).to(x.dtype))
        return x + h


class _DenseUpsampler(nn.Module):
    """A convolution to eight times the channels, which become the eight halves of each voxel."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv = nn.Conv3d(inputs, 8 * outputs, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        size = x.shape[-1]
        h: Tensor = self.conv(x).view(-1, 2, 2, 2, size, size, size)
        return h.permute(0, 4, 1, 5, 2, 6, 3).reshape(1, -1, 2 * size, 2 * size, 2 * size)


class _SparseAutoencoder(_Autoencoder):
    """Levels of blocks on sparse voxels. `rows` voxels are worked on at a time, or all.

    Fewer need less memory, and a processor is fastest with some ten thousand, which stay in its cache.
    """

    rows: int | None = None

    def _parts(self, count: int) -> Iterator[slice]:
        step = self.rows or max(count, 1)
        for start in range(0, count, step):
            self.check()
            yield slice(start, min(start + step, count))

    def _levels(self) -> Iterator[tuple[list[nn.Module], nn.Module | None]]:
        """For each level its blocks, and what leads to the next one."""
        for level in self.blocks:
            blocks = list(level.children())
            leads_on = bool(blocks) and isinstance(blocks[-1], _Resampler)
            resampler = blocks.pop() if leads_on else None
            yield blocks, resampler

    def _out(self, layer: nn.Linear, h: Tensor) -> Tensor:
        """`layer`, after a norm without weights, of the last level's features."""
        out = torch.empty(len(h), layer.out_features, device=h.device)
        for part in self._parts(len(h)):
            out[part] = layer(_normalised(h[part], eps=1e-5))
        return out


class _SparseDecoder(_SparseAutoencoder):
    """A latent to features of voxels 2^L times finer, where L is the number of levels but the last."""

    def __init__(
        self,
        latent_channels: int,
        model_channels: Sequence[int],
        num_blocks: Sequence[int],
        outputs: int,
        subdivides: bool,
    ) -> None:
        super().__init__()
        self.from_latent = nn.Linear(latent_channels, model_channels[0])
        self.output_layer = nn.Linear(model_channels[-1], outputs)
        self.blocks = nn.ModuleList()
        for i, (width, count) in enumerate(zip(model_channels, num_blocks, strict=True)):
            level = nn.ModuleList(_Block(width) for _ in range(count))
            if i < len(model_channels) - 1:
                level.append(_Upsampler(width, model_channels[i + 1], subdivides))
            self.blocks.append(level)

    def _run(
        self, feats: Tensor, coords: Tensor, subdivisions: Sequence[Tensor] | None
    ) -> tuple[Tensor, Tensor, list[Tensor]]:
        """The output layer's values, the finest coordinates, and the slots of each subdivision."""
        h, grid = self.from_latent(feats).to(self.torso), Grid(coords)
        done: list[Tensor] = []
        for blocks, upsampler in self._levels():
            for block in blocks:
                h = block(h, grid, self._parts)
            if isinstance(upsampler, _Upsampler):
                given = None if subdivisions is None else subdivisions[len(done)]
                slots = upsampler.slots(h, self._parts) if given is None else given
                finer = Grid(children(grid.coords, slots))
                h, grid = upsampler(h, grid, finer, slots, self._parts), finer
                done.append(slots)
        return self._out(self.output_layer, h), grid.coords, done


class ShapeDecoder(_SparseDecoder):
    """A shape latent to a dual grid 16 times finer (official name: FlexiDualGridVaeDecoder)."""

    def __init__(
        self,
        model_channels: Sequence[int],
        latent_channels: int,
        num_blocks: Sequence[int],
        **_: object,
    ) -> None:
        super().__init__(latent_channels, model_channels, num_blocks, outputs=7, subdivides=True)

    @torch.no_grad()
    def forward(self, feats: Tensor, coords: Tensor) -> tuple[Tensor, Tensor, list[Tensor]]:
        """The dual grid of the latent `feats` (N, C), float32, at `coords` (N, 3), int32.

        Returns:
            coords (M, 3), int32; the values (M, 7), float32, that `dual_grid.extract` reads; and the subdivisions, which
            `TextureDecoder` repeats: for each level the slots (int32) of the children that it keeps.
        """
        head, finest, subdivisions = self._run(feats, coords, None)
        return finest, head, subdivisions

    @torch.no_grad()
    def upsample(self, feats: Tensor, coords: Tensor, levels: int) -> Tensor:
        """The voxels (M, 3), int32, after `levels` subdivisions, 2^levels times finer."""
        h, grid = self.from_latent(feats).to(self.torso), Grid(coords)
        for done, (blocks, upsampler) in enumerate(self._levels(), 1):
            for block in blocks:
                h = block(h, grid, self._parts)
            assert isinstance(upsampler, _Upsampler), f"there are fewer than {levels} subdivisions"
            slots = upsampler.slots(h, self._parts)
            finer = Grid(children(grid.coords, slots))
            if done == levels:
                break
            h, grid = upsampler(h, grid, finer, slots, self._parts), finer
        return finer.coords


class TextureDecoder(_SparseDecoder):
    """A texture latent to PBR attributes of the shape's voxels (official name: SparseUnetVaeDecoder)."""

    def __init__(
        self,
        out_channels: int,
        model_channels: Sequence[int],
        latent_channels: int,
        num_blocks: Sequence[int],
        pred_subdiv: bool = False,
        **_: object,
    ) -> None:
        super().__init__(latent_channels, model_channels, num_blocks, out_channels, pred_subdiv)

    @torch.no_grad()
    def forward(self, feats: Tensor, coords: Tensor, subdivisions: Sequence[Tensor]) -> Tensor:
        """Base colour, metallic, roughness and alpha (M, 6), float32, about 0 to 1, of the latent `feats` (N, C) at `coords`.

        Args:
            subdivisions: those of `ShapeDecoder` or of `ShapeEncoder`; the result is in the order of the decoder's finest
                voxels, or of the voxels that the encoder was given.
        """
        return self._run(feats, coords, subdivisions)[0] * 0.5 + 0.5


class ShapeEncoder(_SparseAutoencoder):
    """A dual grid to a shape latent 16 times coarser (official name: FlexiDualGridVaeEncoder)."""

    def __init__(
        self,
        model_channels: Sequence[int],
        latent_channels: int,
        num_blocks: Sequence[int],
        **_: object,
    ) -> None:
        super().__init__()
        self.input_layer = nn.Linear(6, model_channels[0])
        self.to_latent = nn.Linear(model_channels[-1], 2 * latent_channels)
        self.blocks = nn.ModuleList()
        for i, (width, count) in enumerate(zip(model_channels, num_blocks, strict=True)):
            level = nn.ModuleList(_Block(width) for _ in range(count))
            if i < len(model_channels) - 1:
                level.append(_Downsampler(width, model_channels[i + 1]))
            self.blocks.append(level)

    @torch.no_grad()
    def forward(self, feats: Tensor, coords: Tensor) -> tuple[Tensor, Tensor, list[Tensor]]:
        """The latent of a dual grid: `feats` (M, 6) are the dual vertex within its voxel and the flags, both less 0.5.

        Returns:
            The latent's mean (N, C), float32; its coords (N, 3), int32, sorted by x, y, z; and the subdivisions, coarse to
            fine, by which `TextureDecoder` returns to `coords`.
        """
        h, grid = self.input_layer(feats).to(self.torso), Grid(coords)
        subdivisions: list[Tensor] = []
        for blocks, downsampler in self._levels():
            for block in blocks:
                h = block(h, grid, self._parts)
            if downsampler is not None:
                coarse, slots = parents(grid.coords)
                coarser = Grid(coarse)
                h, grid = downsampler(h, grid, coarser, slots, self._parts), coarser
                subdivisions.insert(0, slots)
        mean, _ = self._out(self.to_latent, h).chunk(2, -1)
        return mean.contiguous(), grid.coords, subdivisions


def quantise(coords: Tensor, low_resolution: int, high_resolution: int) -> Tensor:
    """The latent voxels (N, 3) for `high_resolution` that hold the voxels `coords` (M, 3) of `low_resolution`, sorted."""
    # The middle of each voxel, (c + 0.5) / low · (high / 16), in whole numbers
    return distinct((2 * coords.long() + 1) * (high_resolution // 16) // (2 * low_resolution))


def _normalised(x: Tensor, norm: nn.LayerNorm | None = None, eps: float = 1e-6) -> Tensor:
    """LayerNorm of `x` (n, C), in float32, with the weights of `norm` if there is one."""
    if norm is not None:
        return F.layer_norm(x.float(), x.shape[-1:], norm.weight, norm.bias, norm.eps)
    return F.layer_norm(x.float(), x.shape[-1:], eps=eps)


class _Block(nn.Module):
    """ConvNeXt: a convolution, then a perceptron at each voxel, beside an identity."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = Convolution(width, width)
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.mlp = nn.Sequential(
            nn.Linear(width, 4 * width), nn.SiLU(), nn.Linear(4 * width, width)
        )

    def forward(self, x: Tensor, grid: Grid, parts: Parts) -> Tensor:
        out = torch.empty_like(x)
        for part in parts(len(x)):
            h = _normalised(self.conv(x, grid, part), self.norm)
            out[part] = x[part] + self.mlp(h.to(x.dtype))
        return out


class _Resampler(nn.Module):
    """What both ways have in common: norm, convolution, the change of level, norm, convolution, beside a skip."""

    def __init__(self, inputs: int, middle: int, outputs: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(inputs, eps=1e-6)
        self.conv1 = Convolution(inputs, middle)
        self.conv2 = Convolution(outputs, outputs)

    def _activated(self, x: Tensor, parts: Parts) -> Tensor:
        out = torch.empty_like(x)
        for part in parts(len(x)):
            out[part] = F.silu(_normalised(x[part], self.norm1))
        return out


class _Upsampler(_Resampler):
    """To voxels of half the size: eight times the channels are shared out among the children that there are."""

    def __init__(self, inputs: int, outputs: int, subdivides: bool) -> None:
        super().__init__(inputs, 8 * outputs, outputs)
        if subdivides:
            self.to_subdiv = nn.Linear(inputs, 8)

    def slots(self, x: Tensor, parts: Parts) -> Tensor:
        """The children to keep, (M,), int32, parent by parent."""
        kept = torch.empty(len(x), 8, dtype=torch.bool, device=x.device)
        for part in parts(len(x)):
            kept[part] = self.to_subdiv(x[part]) > 0
        return kept.flatten().nonzero().squeeze(1).int()

    def forward(self, x: Tensor, grid: Grid, finer: Grid, slots: Tensor, parts: Parts) -> Tensor:
        h = self._shared_out(self._activated(x, parts), grid, slots, parts)
        out = torch.empty_like(h)
        pieces = x.view(8 * len(x), x.shape[1] // 8)
        repeats = out.shape[1] // pieces.shape[1]
        for part in parts(len(out)):
            skip = pieces.index_select(0, slots[part]).repeat_interleave(repeats, 1)
            out[part] = skip + self.conv2(h, finer, part)
        return out

    def _shared_out(self, h: Tensor, grid: Grid, slots: Tensor, parts: Parts) -> Tensor:
        """The second convolution's input. The first one's results, large, are only ever there for a part of the parents."""
        width = self.conv2.weight.shape[-1]
        out = h.new_empty(len(slots), width)
        ordered, order = slots.sort()
        for part in parts(len(h)):
            ends = ordered.new_tensor([8 * part.start, 8 * part.stop])
            first, last = torch.searchsorted(ordered, ends).tolist()
            pieces = self.conv1(h, grid, part).view(-1, width)
            pieces = pieces.index_select(0, ordered[first:last] - 8 * part.start)
            out[order[first:last]] = F.silu(_normalised(pieces)).to(out.dtype)
        return out


class _Downsampler(_Resampler):
    """To voxels of twice the size: the channels of the eight children, 0 where there is none, one after another."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs // 8, outputs)

    def forward(self, x: Tensor, grid: Grid, coarser: Grid, slots: Tensor, parts: Parts) -> Tensor:
        h = self._activated(x, parts)
        middle, before = self.conv1.weight.shape[0], x.shape[1]
        gathered = h.new_zeros(8 * len(coarser), middle)
        pieces = x.new_zeros(8 * len(coarser), before)
        for part in parts(len(x)):
            place = slots[part].long()
            gathered[place] = self.conv1(h, grid, part).to(h.dtype)
            pieces[place] = x[part]
        h = gathered.view(len(coarser), 8 * middle)
        for part in parts(len(h)):
            h[part] = F.silu(_normalised(h[part])).to(h.dtype)
        out = torch.empty_like(h)
        skip = pieces.view(*h.shape, before // middle)
        for part in parts(len(h)):
            out[part] = skip[part].float().mean(-1) + self.conv2(h, coarser, part)
        return out

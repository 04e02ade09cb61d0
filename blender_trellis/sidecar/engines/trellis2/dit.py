# SPDX-License-Identifier: GPL-3.0-or-later
"""The diffusion transformers of all stages: one trunk, which sees voxels as a grid (structure) or as a list (latents).

Modules are named as in the official checkpoints. Inference only, and of one object at a time.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from itertools import chain
from types import MappingProxyType
from typing import NamedTuple

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from ..stages import EngineError
from .attention import attend

_ONLY: Mapping[str, object] = MappingProxyType(
    {
        "pe_mode": "rope",
        "rope_freq": [1.0, 10000.0],
        "share_mod": True,
        "qk_rms_norm": True,
        "qk_rms_norm_cross": True,
    }
)
"""Arguments of a model's json of which the published models use one value, which is built in."""

_OF_NO_EFFECT = ("initialization", "dtype", "use_checkpoint")
"""Arguments that matter to training alone; what is computed in low precision is said by `to_torso`."""


class Rotation(NamedTuple):
    """Cosine and sine (N, head width / 2) of the angle by which position turns each pair of channels."""

    cosine: Tensor
    sine: Tensor


def rotation(coords: Tensor, width: int) -> Rotation:
    """Rotary embedding of integer voxel coordinates (N, 3) for heads of `width` channels.

    A third of the pairs each turns with x, y and z, at frequencies from 1 down to nearly 1/10000; pairs that are left over
    do not turn.
    """
    pairs = width // 2
    each = pairs // 3
    steps = torch.arange(each, dtype=torch.float32, device=coords.device)
    frequencies = 1 / 10000 ** (steps / each)
    angles = (coords.float()[:, :, None] * frequencies).flatten(1)
    angles = F.pad(angles, (0, pairs - 3 * each))
    return Rotation(angles.cos(), angles.sin())


def _turned(x: Tensor, by: Rotation) -> Tensor:
    """`x` (N, heads, width), whose channels 2i and 2i+1 are a pair, turned according to its position; float32."""
    first, second = x.float().view(*x.shape[:-1], -1, 2).unbind(-1)
    cosine, sine = by.cosine[:, None], by.sine[:, None]
    turned = (first * cosine - second * sine, first * sine + second * cosine)
    return torch.stack(turned, -1).flatten(-2)


class _RmsNorm(nn.Module):
    """Each head's channels, scaled to a mean square of one, times gamma; computed in float32."""

    def __init__(self, heads: int, width: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(heads, width))

    def forward(self, x: Tensor) -> Tensor:
        scale = math.sqrt(x.shape[-1])
        return (F.normalize(x.float(), dim=-1) * self.gamma * scale).to(x.dtype)


class _Linear(nn.Linear):
    """Computes in the precision of what it is given; its weights may be kept in less."""

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight.to(x.dtype), self.bias.to(x.dtype))


class _SelfAttention(nn.Module):
    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.to_qkv = _Linear(channels, 3 * channels)
        self.q_rms_norm = _RmsNorm(heads, channels // heads)
        self.k_rms_norm = _RmsNorm(heads, channels // heads)
        self.to_out = _Linear(channels, channels)

    def project(self, x: Tensor, by: Rotation) -> Tensor:
        """Queries, keys and values (3, heads, N, width) of tokens (N, C)."""
        q, k, v = self.to_qkv(x).unflatten(-1, (3, self.heads, -1)).unbind(1)
        q, k = _turned(self.q_rms_norm(q), by), _turned(self.k_rms_norm(k), by)
        return torch.stack((q.to(v.dtype), k.to(v.dtype), v)).transpose(1, 2)


class _CrossAttention(nn.Module):
    def __init__(self, channels: int, condition_channels: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.to_q = _Linear(channels, channels)
        self.to_kv = _Linear(condition_channels, 2 * channels)
        self.q_rms_norm = _RmsNorm(heads, channels // heads)
        self.k_rms_norm = _RmsNorm(heads, channels // heads)
        self.to_out = _Linear(channels, channels)

    def queries(self, x: Tensor) -> Tensor:
        """(heads, N, width) of tokens (N, C)."""
        q: Tensor = self.q_rms_norm(self.to_q(x).unflatten(-1, (self.heads, -1)))
        return q.transpose(0, 1)

    def keys_values(self, condition: Tensor) -> tuple[Tensor, Tensor]:
        """Twice (heads, L, width) of the condition (L, channels of it)."""
        k, v = self.to_kv(condition).unflatten(-1, (2, self.heads, -1)).unbind(1)
        return self.k_rms_norm(k).transpose(0, 1), v.transpose(0, 1)


class _Mlp(nn.Module):
    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(
            _Linear(channels, hidden), nn.GELU(approximate="tanh"), _Linear(hidden, channels)
        )

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.mlp(x)
        return y


class _Block(nn.Module):
    """Self-attention, cross-attention to the picture and an MLP; time modulates the first and the last."""

    def __init__(self, channels: int, condition_channels: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.modulation = nn.Parameter(torch.zeros(6 * channels))
        self.self_attn = _SelfAttention(channels, heads)
        self.norm2 = nn.LayerNorm(channels, eps=1e-6)
        self.cross_attn = _CrossAttention(channels, condition_channels, heads)
        self.mlp = _Mlp(channels, hidden)

    def forward(
        self, h: Tensor, modulation: Tensor, condition: Tensor, by: Rotation, parts: list[slice]
    ) -> None:
        """Change the tokens `h` (N, C) in place, some rows at a time: the whole of a wide layer is never in memory."""
        shift, scale, gate, shift_mlp, scale_mlp, gate_mlp = (self.modulation + modulation).chunk(6)

        heads = self.self_attn.heads
        q, k, v = h.new_empty(3, heads, len(h), h.shape[1] // heads)
        for part in parts:
            seen = self._normed(h[part], shift, scale)
            turn = Rotation(by.cosine[part], by.sine[part])
            q[:, part], k[:, part], v[:, part] = self.self_attn.project(seen, turn)
        for part in parts:
            attended = self.self_attn.to_out(attend(q[:, part], k, v))
            h[part] += (gate * attended).to(h.dtype)
        del q, k, v

        keys, values = (each.contiguous() for each in self.cross_attn.keys_values(condition))
        for part in parts:
            seen = self.norm2(h[part].float()).to(h.dtype)
            attended = attend(self.cross_attn.queries(seen), keys, values)
            h[part] += self.cross_attn.to_out(attended)

        for part in parts:
            seen = self._normed(h[part], shift_mlp, scale_mlp)
            h[part] += (gate_mlp * self.mlp(seen)).to(h.dtype)

    @staticmethod
    def _normed(h: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
        normed = F.layer_norm(h.float(), h.shape[-1:], eps=1e-6)
        return (normed * (1 + scale) + shift).to(h.dtype)


class _TimestepEmbedder(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(256, channels), nn.SiLU(), nn.Linear(channels, channels))

    def forward(self, t: float) -> Tensor:
        """(1, C) for a time from 0 to 1, which the network knows as 0 to 1000."""
        device = next(self.parameters()).device
        half = torch.arange(128, dtype=torch.float32, device=device)
        angles = torch.exp(-math.log(10000) * half / 128) * (1000 * t)
        y: Tensor = self.mlp(torch.cat((angles.cos(), angles.sin()))[None])
        return y


class _Flow(nn.Module):
    """The trunk: tokens (N, C) with integer coordinates (N, 3) to velocities (N, C)."""

    check: Callable[[], None]
    """Called before every block; what it raises ends the run."""

    rows: int | None
    """Tokens that attend or pass through an MLP at a time; None: all."""

    def __init__(
        self,
        *,
        resolution: int,
        in_channels: int,
        out_channels: int,
        model_channels: int,
        cond_channels: int,
        num_blocks: int,
        num_heads: int,
        mlp_ratio: float,
        **others: object,
    ) -> None:
        """Take the arguments in a model's json.

        Raises:
            EngineError: an argument asks for another kind of network.
        """
        super().__init__()
        _require_known(others)
        self.check = lambda: None
        self.rows = None
        self.resolution = resolution
        self._dtype = torch.float32
        self._width = model_channels // num_heads
        self.t_embedder = _TimestepEmbedder(model_channels)
        self.adaLN_modulation = nn.Sequential(
            nn.SiLU(), nn.Linear(model_channels, 6 * model_channels)
        )
        self.input_layer = nn.Linear(in_channels, model_channels)
        hidden = int(model_channels * mlp_ratio)
        self.blocks = nn.ModuleList(
            _Block(model_channels, cond_channels, num_heads, hidden) for _ in range(num_blocks)
        )
        self.out_layer = nn.Linear(model_channels, out_channels)

    def to_torso(self, dtype: torch.dtype) -> None:
        """Compute the blocks' Linear layers, and with them the residual stream, in `dtype`; all else is float32."""
        self._dtype = dtype
        torso = {id(parameter) for parameter in self._torso()}
        for parameter in self.parameters():
            wanted = dtype if id(parameter) in torso else torch.float32
            parameter.data = parameter.data.to(wanted)

    def kept_as_stored(self) -> set[str]:
        """The parameters that may stay in the file's precision without a loss: half the memory where float32 is computed."""
        if self._dtype != torch.float32:
            return set()
        torso = {id(parameter) for parameter in self._torso()}
        return {name for name, each in self.named_parameters() if id(each) in torso}

    def _torso(self) -> Iterator[nn.Parameter]:
        linears = (module for module in self.blocks.modules() if isinstance(module, nn.Linear))
        return chain.from_iterable(linear.parameters() for linear in linears)

    def _velocity(self, tokens: Tensor, coords: Tensor, t: float, condition: Tensor) -> Tensor:
        dtype = self._dtype
        modulation = self.adaLN_modulation(self.t_embedder(t))[0]
        by = rotation(coords, self._width)
        h = self.input_layer(tokens).to(dtype)
        seen = condition[0].to(dtype)
        rows = self.rows or len(h)
        parts = [slice(start, start + rows) for start in range(0, len(h), rows)]
        for block in self.blocks:
            self.check()
            block(h, modulation, seen, by, parts)
        h = F.layer_norm(h.to(tokens.dtype), h.shape[-1:])
        velocity: Tensor = self.out_layer(h)
        return velocity


def _require_known(others: Mapping[str, object]) -> None:
    for name, value in others.items():
        if name not in _OF_NO_EFFECT and (name not in _ONLY or value != _ONLY[name]):
            raise EngineError(
                f"The model's settings say {name} = {value!r}, which this engine does not know. "
                "Use the published TRELLIS.2 models or others of the same architecture."
            )


class StructureFlow(_Flow):
    """Stage 1: the velocity of a dense grid of latents."""

    @torch.no_grad()
    def forward(self, x: Tensor, t: float, condition: Tensor) -> Tensor:
        """The velocity of x (1, C, R, R, R) at the time t, 1 (noise) to 0, given condition tokens (1, L, channels)."""
        side = torch.arange(self.resolution, device=x.device)
        coords = torch.cartesian_prod(side, side, side)
        velocity = self._velocity(x[0].flatten(1).T, coords, t, condition)
        return velocity.T.reshape(1, -1, *x.shape[2:])


class SlatFlow(_Flow):
    """Stages 2 and 3: the velocity of the latents of a list of voxels."""

    @torch.no_grad()
    def forward(
        self,
        feats: Tensor,
        coords: Tensor,
        t: float,
        condition: Tensor,
        concat: Tensor | None = None,
    ) -> Tensor:
        """The velocity of feats (N, C) at voxels (N, 3) at the time t, 1 (noise) to 0, given (1, L, channels).

        Args:
            concat: (N, C') further features of the voxels that the network sees but does not change: for the texture, the
                normalised latents of the shape.
        """
        tokens = feats if concat is None else torch.cat((feats, concat), -1)
        return self._velocity(tokens, coords, t, condition)

# SPDX-License-Identifier: GPL-3.0-or-later
"""DINOv3's vision transformer as TRELLIS.2 uses it: a picture to the tokens that condition every flow.

Modules are named as in Hugging Face's checkpoint; `convert` brings the others to it. Inference only, in float32.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from ..stages import EngineError
from .attention import attend

_TIMM = {
    r"^cls_token$": "embeddings.cls_token",
    r"^reg_token$": "embeddings.register_tokens",
    r"^patch_embed\.proj\.": "embeddings.patch_embeddings.",
    r"^blocks\.": "layer.",
    r"\.attn\.proj\.": ".attention.o_proj.",
    r"\.attn\.([qv])_bias$": r".attention.\1_proj.bias",
    r"\.attn\.": ".attention.",
    r"\.gamma_([12])$": r".layer_scale\1.lambda1",
    r"\.mlp\.fc1\.": ".mlp.up_proj.",
    r"\.mlp\.fc2\.": ".mlp.down_proj.",
}
"""timm's names and Hugging Face's, to be replaced in this order."""

_UNUSED = ("embeddings.mask_token", "norm.weight", "norm.bias")
"""Of training, and of the final norm, which TRELLIS.2 replaces by one without weights."""


def convert(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state dict that `DinoV3` loads, from one of Hugging Face (of any version of transformers) or timm.

    timm's vit_*_dinov3 without "qkvb" in its name lacks the biases of queries and values, because in the published weights
    they are all zero.
    """
    converted: dict[str, Tensor] = {}
    for key, value in state.items():
        name = key.removeprefix("model.")
        if "cls_token" in state:
            for timm, ours in _TIMM.items():
                name = re.sub(timm, ours, name)
        if name in _UNUSED:
            continue
        if not name.endswith("attention.qkv.weight"):
            converted[name] = value
            continue
        stem = name.removesuffix("qkv.weight")
        for part, weight in zip("qkv", value.chunk(3), strict=True):
            converted[f"{stem}{part}_proj.weight"] = weight
        for part in "qv":
            converted.setdefault(f"{stem}{part}_proj.bias", value.new_zeros(value.shape[1]))
    return converted


def rotation(rows: int, columns: int, width: int, theta: float) -> tuple[Tensor, Tensor]:
    """Cosine and sine (rows x columns, width) by which heads of `width` channels are turned at each patch.

    The first quarter of the channels turns with the row, the second with the column, either from -1 to 1 across the
    picture; the second half of the channels holds the partners of the first, with the same angles.
    """
    down, right = ((2 * torch.arange(n) + 1) / n - 1 for n in (rows, columns))
    positions = torch.cartesian_prod(down, right)
    frequencies = 1 / theta ** torch.arange(0, 1, 4 / width)
    angles = (2 * math.pi * positions[:, :, None] * frequencies).flatten(1).tile(2)
    return angles.cos(), angles.sin()


def _turned(x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    """`x` (heads, tokens, width) with its last tokens, the patches, turned."""
    patches = x[:, -len(cosine) :]
    first, second = patches.chunk(2, -1)
    patches = patches * cosine + torch.cat((-second, first), -1) * sine
    return torch.cat((x[:, : -len(cosine)], patches), 1)


class _Attention(nn.Module):
    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self._heads = heads
        self.q_proj = nn.Linear(channels, channels)
        self.k_proj = nn.Linear(channels, channels, bias=False)
        self.v_proj = nn.Linear(channels, channels)
        self.o_proj = nn.Linear(channels, channels)

    def forward(self, x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
        q, k, v = (
            project(x).unflatten(-1, (self._heads, -1)).transpose(0, 1)
            for project in (self.q_proj, self.k_proj, self.v_proj)
        )
        q, k = _turned(q, cosine, sine), _turned(k, cosine, sine)
        y: Tensor = self.o_proj(attend(q, k, v))
        return y


class _LayerScale(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.lambda1 = nn.Parameter(torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.lambda1


class _Mlp(nn.Module):
    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.up_proj = nn.Linear(channels, hidden)
        self.down_proj = nn.Linear(hidden, channels)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.down_proj(F.gelu(self.up_proj(x)))
        return y


class _Layer(nn.Module):
    def __init__(self, channels: int, heads: int, hidden: int, eps: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(channels, eps=eps)
        self.attention = _Attention(channels, heads)
        self.layer_scale1 = _LayerScale(channels)
        self.norm2 = nn.LayerNorm(channels, eps=eps)
        self.mlp = _Mlp(channels, hidden)
        self.layer_scale2 = _LayerScale(channels)

    def forward(self, h: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
        attended: Tensor = self.layer_scale1(self.attention(self.norm1(h), cosine, sine))
        h = h + attended
        mixed: Tensor = self.layer_scale2(self.mlp(self.norm2(h)))
        return h + mixed


class _Embeddings(nn.Module):
    def __init__(self, channels: int, registers: int, patch: int) -> None:
        super().__init__()
        self.cls_token = nn.Parameter(torch.zeros(1, 1, channels))
        self.register_tokens = nn.Parameter(torch.zeros(1, registers, channels))
        self.patch_embeddings = nn.Conv2d(3, channels, patch, stride=patch)

    def forward(self, image: Tensor) -> Tensor:
        patches = self.patch_embeddings(image).flatten(2).transpose(1, 2)
        return torch.cat((self.cls_token, self.register_tokens, patches), 1)


class DinoV3(nn.Module):
    """A picture to tokens: class, registers, then the patches row by row."""

    check: Callable[[], None]
    """Called before every layer; what it raises ends the run."""

    def __init__(
        self,
        *,
        hidden_size: int = 1024,
        num_hidden_layers: int = 24,
        num_attention_heads: int = 16,
        intermediate_size: int = 4096,
        num_register_tokens: int = 4,
        patch_size: int = 16,
        rope_theta: float = 100.0,
        layer_norm_eps: float = 1e-5,
        use_gated_mlp: bool = False,
        **_others: object,
    ) -> None:
        """Take Hugging Face's config.json; without arguments it is the ViT-L/16 of TRELLIS.2.

        Raises:
            EngineError: another kind of network is asked for.
        """
        super().__init__()
        if use_gated_mlp:
            raise EngineError(
                "This DINOv3 model has a gated MLP, which this engine does not know. Use DINOv3 ViT-L/16."
            )
        self.check = lambda: None
        self.patch_size = patch_size
        self._width = hidden_size // num_attention_heads
        self._theta = rope_theta
        self.embeddings = _Embeddings(hidden_size, num_register_tokens, patch_size)
        self.layer = nn.ModuleList(
            _Layer(hidden_size, num_attention_heads, intermediate_size, layer_norm_eps)
            for _ in range(num_hidden_layers)
        )

    @torch.no_grad()
    def forward(self, image: Tensor) -> Tensor:
        """(1, tokens, C) of a normalised picture (1, 3, H, W), whose sides are multiples of the patch size."""
        rows, columns = (side // self.patch_size for side in image.shape[2:])
        turn = rotation(rows, columns, self._width, self._theta)
        cosine, sine = (table.to(image.device) for table in turn)
        h = self.embeddings(image)[0]
        for layer in self.layer:
            self.check()
            h = layer(h, cosine, sine)
        return F.layer_norm(h, h.shape[-1:])[None]

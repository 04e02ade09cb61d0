# SPDX-License-Identifier: GPL-3.0-or-later
"""The picture that the networks see: the subject on black, cut out square."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..stages import EngineError

_LONGEST = 1024
"""Larger pictures are reduced to so many pixels a side."""

_SOLID = 0.8 * 255
"""The subject's bounds are those of the pixels of more alpha."""

# Of ImageNet, on which DINOv3's input is normalised.
_MEAN = (0.485, 0.456, 0.406)
_DEVIATION = (0.229, 0.224, 0.225)


def prepare(image: Image.Image) -> Image.Image:
    """The subject of `image` in RGB, on black and square, without a margin; as the official `preprocess_image`.

    Args:
        image: of any mode; its alpha is the subject's mask. A picture without alpha is subject throughout.

    Raises:
        EngineError: the mask leaves nothing.
    """
    image = image.convert("RGBA")
    scale = _LONGEST / max(image.size)
    if scale < 1:
        size = [max(int(side * scale), 1) for side in image.size]
        image = image.resize((size[0], size[1]), Image.Resampling.LANCZOS)
    rows, columns = np.nonzero(np.asarray(image)[:, :, 3] > _SOLID)
    if len(rows) == 0:
        raise EngineError(
            "The picture shows no subject: all of it is transparent or background. Use another picture or mask."
        )
    left, top, right, bottom = columns.min(), rows.min(), columns.max(), rows.max()
    # The bounds are those of the outermost pixels' corners, so a subject of one pixel has no extent: give it one.
    half = max(int(max(right - left, bottom - top)) // 2, 1)
    x, y = float(left + right) / 2, float(top + bottom) / 2
    square = image.crop((x - half, y - half, x + half, y + half))
    pixels = np.asarray(square, np.float32) / 255
    return Image.fromarray((pixels[:, :, :3] * pixels[:, :, 3:] * 255).astype(np.uint8))


def to_tensor(image: Image.Image, size: int) -> Tensor:
    """A picture of mode RGB as (1, 3, size, size) float32, normalised for DINOv3."""
    scaled = image.resize((size, size), Image.Resampling.LANCZOS)
    pixels = torch.from_numpy(np.array(scaled, np.float32)) / 255
    normalised = (pixels - torch.tensor(_MEAN)) / torch.tensor(_DEVIATION)
    return normalised.permute(2, 0, 1)[None].contiguous()

# SPDX-License-Identifier: GPL-3.0-or-later
"""The matte: which pixels of a picture are the subject, for engines whose networks must not see a background.

By the picture's own transparency where it has any; else by U²-Net if that is installed; else by colour, as Draft does.

U²-Net (Qin et al. 2020, https://github.com/xuebinqin/U-2-Net): code and weights Apache-2.0, says its author in that
repository's issue 208; it was trained on DUTS-TR, whose own terms he leaves to the user. Not IS-Net, which is newer: its
repository puts code and metric under Apache-2.0, and says nothing of the weights.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from ...pixels.cutout import clean, separate
from .stages import EngineError

FILE = "u2net.onnx"
"""The network's file, 176 MB, as published at https://github.com/danielgatis/rembg/releases/tag/v0.0.0."""

_SIDE = 320
"""The network looks at a square of so many pixels, whatever the picture's shape."""

# Of ImageNet: what the network was trained with, after a division by the picture's brightest value
_MEAN = (0.485, 0.456, 0.406)
_DEVIATION = (0.229, 0.224, 0.225)

_FLAT = 0.05
"""A network's answer that varies less, of 0 to 1, shows no subject."""

_NOTHING = (
    "No subject was found in the picture. Use one in which the subject stands out from its "
    "background, or a PNG with a transparent background."
)

Mask = npt.NDArray[Any]


def cut_out(image: Image.Image, network: Path, say: Callable[[str], None]) -> Image.Image:
    """`image` (RGB or RGBA) as RGBA, whose alpha is the subject's; the colours stay as they are.

    Args:
        network: where `FILE` is, if it is there.
        say: gets a sentence that tells how it was done.

    Raises:
        EngineError: there is no subject, or the network's file is broken.
    """
    if _has_transparency(image):
        say("Subject by the picture's own transparency")
        return image
    colours = image.convert("RGB")
    why_not, runtime = _runtime(network)
    if runtime:
        mask = _by_network(colours, network, runtime)
        say("Subject cut out by U²-Net")
    else:
        mask = _by_colour(colours)
        say(f"Subject cut out by colour ({why_not})")
    mask = clean(np.pad(mask, 1))[1:-1, 1:-1]
    if not (mask > 0.5).any():
        raise EngineError(_NOTHING, "image_urls")
    cut = colours.convert("RGBA")
    cut.putalpha(Image.fromarray(np.round(mask * 255).astype(np.uint8)))
    return cut


def manner(image: Image.Image, network: Path) -> str:
    """How `cut_out` does it, in short: while that is the same, so is what it makes of the same picture."""
    if _has_transparency(image):
        return "transparency"
    if _runtime(network)[1] is None:
        return "colour"
    state = network.stat()
    return f"{network.name} {state.st_size} {state.st_mtime_ns}"


def _has_transparency(image: Image.Image) -> bool:
    return image.mode == "RGBA" and image.getchannel("A").getextrema()[0] < 255  # type: ignore[operator]


def _runtime(network: Path) -> tuple[str, ModuleType | None]:
    """What runs the network; else why it cannot be run."""
    if not network.is_file():
        return f"there is no {network.name}", None
    # Builds from 1.29 on send telemetry, unless it is forbidden before they are imported
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    try:
        return "", importlib.import_module("onnxruntime")
    except ImportError as error:
        return f"onnxruntime: {error}", None


def _by_network(picture: Image.Image, network: Path, runtime: ModuleType) -> Mask:
    """Coverage (H, W) by the subject."""
    small = picture.resize((_SIDE, _SIDE), Image.Resampling.LANCZOS)
    pixels = np.asarray(small, np.float32)
    pixels = (pixels / max(pixels.max(), 1.0) - _MEAN) / _DEVIATION
    batch = np.ascontiguousarray(pixels.transpose(2, 0, 1)[None], np.float32)
    try:
        runtime.disable_telemetry_events()  # for Windows, where that variable is not heeded
        session = runtime.InferenceSession(str(network), providers=["CPUExecutionProvider"])
        # The first of its seven outputs is the one that the others lead to
        answer = session.run(None, {session.get_inputs()[0].name: batch})[0][0, 0]
    except Exception as error:  # its errors have no class in common
        raise EngineError(
            f"The matte's network cannot be used ({error}). Delete {network}, and install TRELLIS.2 again to have it anew."
        ) from error
    low, high = float(answer.min()), float(answer.max())
    if not high - low > _FLAT:
        raise EngineError(_NOTHING, "image_urls")
    mask = Image.fromarray(((answer - low) / (high - low)).astype(np.float32))
    return np.clip(np.asarray(mask.resize(picture.size, Image.Resampling.BICUBIC)), 0, 1)


def _by_colour(picture: Image.Image) -> Mask:
    """Coverage (H, W) by the subject: all of the picture where no background is found."""
    found = separate(picture)
    return np.ones((picture.height, picture.width), np.float32) if found is None else found

# SPDX-License-Identifier: GPL-3.0-or-later
"""A picture becomes a view: the subject's silhouette, and its colours continued beyond the rim."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image

from ....pixels.cutout import LEAST, clean, separate
from ....pixels.grids import Floats, fill, grown
from ..stages import EngineError

_MARGIN = 0.12
"""Empty space kept round the subject, as a share of its longer side: distances outside it need some."""


@dataclass(frozen=True)
class View:
    """A picture cropped to its subject plus a margin; mask and colour cover the same rectangle."""

    mask: Floats
    """(H, W) coverage by the subject, 0 to 1; its contour is at 0.5."""
    colour: Image.Image
    """RGB, of any size; outside the subject its rim's colours go on."""
    box: tuple[float, float, float, float]
    """left, top, right, bottom of the subject in the mask's pixels."""
    slab: bool
    """The picture had no background: it is shown as a plate instead of being inflated."""

    @property
    def size(self) -> tuple[float, float]:
        """Width and height of the subject in the mask's pixels."""
        return self.box[2] - self.box[0], self.box[3] - self.box[1]


def see(picture: Image.Image, resolution: int, finest: int) -> View:
    """Cut the subject of `picture` (RGB or RGBA) out.

    Args:
        resolution: the longer side, in pixels, at which the silhouette is analysed.
        finest: the longer side to which the colours are reduced.

    Raises:
        EngineError: there is no subject.
    """
    longer = max(picture.size)
    scale = min(max(longer, 256), resolution) / longer
    size = (max(2, round(picture.width * scale)), max(2, round(picture.height * scale)))
    small = picture.resize(size, Image.Resampling.BICUBIC)
    mask, slab = _mask(small)
    mask = clean(np.pad(mask, 1))[1:-1, 1:-1]
    inside = mask > 0.5
    if inside.sum() < 12:
        raise EngineError(_NOTHING, "image_urls")
    return _crop(picture, mask, finest, slab)


_NOTHING = (
    "No subject was found in the picture. Use one in which the subject stands out from its "
    "background, or a PNG with a transparent background."
)


def _mask(picture: Image.Image) -> tuple[Floats, bool]:
    """Coverage (H, W) by the subject, and whether the whole picture is the subject."""
    if picture.mode == "RGBA":
        alpha = np.asarray(picture.getchannel("A"), np.float32) / 255
        if alpha.max() < 0.5:
            raise EngineError(
                "The picture is wholly transparent. Use one that shows the subject.", "image_urls"
            )
        # Rounding, or a rim of a few soft pixels, does not make a picture a cut-out.
        if (alpha < 0.5).mean() > 0.002:
            return alpha, False
    found = separate(picture.convert("RGB"))
    if found is None:
        return np.ones((picture.height, picture.width), np.float32), True
    if (found > 0.5).mean() < LEAST:
        raise EngineError(_NOTHING, "image_urls")
    return found, False


def _crop(picture: Image.Image, mask: Floats, finest: int, slab: bool) -> View:
    rows, columns = np.flatnonzero((mask > 0.5).any(1)), np.flatnonzero((mask > 0.5).any(0))
    top, bottom = int(rows[0]), int(rows[-1]) + 1
    left, right = int(columns[0]), int(columns[-1]) + 1
    margin = max(4, int(np.ceil(_MARGIN * max(right - left, bottom - top))))
    height, width = mask.shape
    padded = np.pad(mask, margin)
    # In the padded mask the subject's box starts `margin` later, which is where the crop starts.
    cropped = padded[top : bottom + 2 * margin, left : right + 2 * margin]
    scale = picture.width / width, picture.height / height
    area = (left - margin, top - margin, right + margin, bottom + margin)
    pixels = tuple(round(side * scale[i % 2]) for i, side in enumerate(area))
    colour = _colour(picture, cropped, pixels, finest)  # type: ignore[arg-type]
    box = (margin, margin, margin + right - left, margin + bottom - top)
    return View(cropped, colour, box, slab)


def _colour(
    picture: Image.Image, mask: Floats, area: tuple[int, int, int, int], finest: int
) -> Image.Image:
    """The picture's colours on `area`. Rim pixels mix with the background, so what lies inside replaces them."""
    width, height = area[2] - area[0], area[3] - area[1]
    scale = min(1.0, finest / max(width, height))
    size = (max(2, round(width * scale)), max(2, round(height * scale)))
    crop = picture.convert("RGB").crop(area).resize(size, Image.Resampling.BICUBIC)
    solid = mask > 0.9
    # Deep enough to leave out a rim light too, which would be stretched over the whole turn to the back
    rim = max(2, round(0.006 * max(mask.shape)))
    inner = ~grown(~solid, rim)
    # Parts thinner than the erosion keep their own colours.
    known = inner | (solid & ~grown(inner, rim + 1))
    if not known.any():
        known = mask > 0.5
    alpha = Image.fromarray(known.astype(np.uint8) * 255)
    crop.putalpha(alpha.resize(size, Image.Resampling.NEAREST))
    return fill(crop)

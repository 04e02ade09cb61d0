# SPDX-License-Identifier: GPL-3.0-or-later
"""The subject of an opaque picture: a model of the background's colours is fitted to the border and flooded inwards.

The background is a few smooth colour fields (a wall, a floor), each a polynomial of the position, so gradients and
vignettes belong to it. A soft shadow is background darkened without change of hue and without an edge.
"""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageFilter

from .grids import Bools, Doubles, Floats, Ints, grown, label, resize, squared

_LONGEST = 640
"""Separation works on a picture of at most this many pixels a side; the contour is refined by resampling."""

LEAST = 1e-3
"""Share of an opaque picture that a subject covers at least; less is noise that resembles no background."""


_ON_THE_RIM = 0.35
"""Share of the picture's rim that a subject may cover; where more is unlike the background, that was not a plain one."""


def cut_out(picture: Image.Image) -> Image.Image | None:
    """An RGB picture as RGBA whose alpha is the subject's, cropped to the subject; None if none can be told apart for
    sure: a cut-out that is wrong is worse than none.

    The crop leaves a little room, so that the contour is whole. The colours stay as they are.
    """
    found = separate(picture)
    if found is None:
        return None
    mask = clean(np.pad(found, 1))[1:-1, 1:-1]
    subject = mask > 0.5
    rim = np.concatenate([subject[0], subject[-1], subject[:, 0], subject[:, -1]])
    if subject.mean() < LEAST or rim.mean() > _ON_THE_RIM:
        return None
    cut = picture.convert("RGBA")
    cut.putalpha(Image.fromarray(np.round(mask * 255).astype(np.uint8)))
    rows, columns = np.flatnonzero(subject.any(1)), np.flatnonzero(subject.any(0))
    top, bottom, left, right = (int(k) for k in (rows[0], rows[-1], columns[0], columns[-1]))
    room = 2 + max(bottom - top, right - left) // 32
    box = (left - room, top - room, right + 1 + room, bottom + 1 + room)
    within = (max(box[0], 0), max(box[1], 0), min(box[2], cut.width), min(box[3], cut.height))
    return cut.crop(within)


def separate(picture: Image.Image) -> Floats | None:
    """Coverage (H, W) by the subject of an RGB picture, zero where none is found; None if no background is found."""
    scale = min(1.0, _LONGEST / max(picture.size))
    size = (max(2, round(picture.width * scale)), max(2, round(picture.height * scale)))
    small = picture.resize(size, Image.Resampling.BOX).filter(ImageFilter.GaussianBlur(0.8))
    colours = np.asarray(small, np.float32)
    fields = _border_fields(colours)
    if not fields:
        return None
    for degree in (1, 2, 3):  # each round knows more of the background and may bend more
        background, _ = _flood(colours, fields)
        if background.mean() < 0.02:
            return None
        fields = _refit(colours, fields, background, degree)
    background, unlike = _flood(colours, fields)
    without_shadows, _ = _flood(colours, fields, shadows=False)
    if (~background).sum() < 0.3 * (~without_shadows).sum():  # a grey subject has passed for shadow
        background = without_shadows
    subject = _softened(~background, unlike)
    return np.clip(resize(subject, (picture.height, picture.width)), 0, 1)


def clean(mask: Floats) -> Floats:
    """Without specks, pinholes and components far smaller than the largest."""
    # Pixels that touch at a corner, as in a thin slanting line, belong together.
    labels, areas = label(grown(mask > 0.5, 1))
    if areas.max() == 0:
        return mask
    dropped = (areas < 0.02 * areas.max())[labels] & (labels > 0)
    holes, sizes = label(mask <= 0.5)
    small = sizes < 3e-4 * areas.max()
    small[0] = False
    kept = np.where(small[holes], np.float32(1), mask)
    return np.where(dropped, np.float32(0), kept)


class _Field:
    """One smooth colour field: a polynomial of the position per channel, and its spread."""

    def __init__(self, colours: Floats, where: Ints, degree: int) -> None:
        """Fit to the pixels `where` (flat indices) of `colours` (H, W, 3), robustly: outliers are trimmed."""
        rows, columns = colours.shape[:2]
        self._shape, self._degree = (rows, columns), degree
        values = colours.reshape(-1, 3)[where].astype(np.float64)
        terms = self._terms(where // columns, where % columns)
        keep = np.ones(len(where), bool)
        for _ in range(4):
            weighted = terms[keep]
            # A little ridge keeps terms that these pixels cannot tell apart from running away.
            normal = weighted.T @ weighted + 1e-3 * len(weighted) * np.eye(terms.shape[1])
            normal[0, 0] -= 1e-3 * len(weighted)
            self._factors = np.linalg.solve(normal, weighted.T @ values[keep])
            residual = np.abs(values - terms @ self._factors).max(1)
            middle = float(np.median(residual))
            keep = residual <= max(3 * middle, 2.0)
        self.spread = 1.5 * middle

    def _terms(self, rows: Ints, columns: Ints) -> Doubles:
        y = 2 * rows / max(1, self._shape[0] - 1) - 1
        x = 2 * columns / max(1, self._shape[1] - 1) - 1
        powers = [
            (i, j)
            for total in range(self._degree + 1)
            for i in range(total + 1)
            for j in [total - i]
        ]
        return np.stack([x**i * y**j for i, j in powers], -1)

    def image(self) -> Floats:
        """The field's colours everywhere, (H, W, 3). It is smooth, so a coarse grid is enough."""
        rows, columns = (np.linspace(0, n - 1, 48) for n in self._shape)
        r, c = np.meshgrid(rows, columns, indexing="ij")
        coarse = (self._terms(r.ravel(), c.ravel()) @ self._factors).reshape(48, 48, 3)
        bands = [resize(coarse[..., k].astype(np.float32), self._shape) for k in range(3)]
        return np.clip(np.stack(bands, -1), 0, 255)


def _border_fields(colours: Floats) -> list[_Field]:
    """The smooth fields that the border shows."""
    rows, columns = colours.shape[:2]
    width = max(1, round(0.015 * max(rows, columns)))
    frame = np.zeros((rows, columns), np.int64)
    frame[:width], frame[-width:] = 1, 2
    frame[width:-width, :width], frame[width:-width, -width:] = 3, 4
    where = np.flatnonzero(frame)
    where = where[:: max(1, len(where) // 8000)]
    side = frame.ravel()[where]
    whole = _Field(colours, where, 2)
    if whole.spread < 8:
        return [whole]
    values = colours.reshape(-1, 3)[where]
    names = _cluster(values, 5)
    fields, explained = [], 0.0
    for name in range(names.max() + 1):
        mine = names == name
        shares = [mine[side == s].mean() if (side == s).any() else 0 for s in (1, 2, 3, 4)]
        # What touches one side only may be the subject, cut off by the frame.
        if mine.mean() > 0.05 and (sum(share > 0.1 for share in shares) >= 2 or max(shares) > 0.9):
            field = _Field(colours, where[mine], 1)
            if field.spread < 14:
                fields.append(field)
                explained += mine.mean()
    return fields if explained > 0.4 else []


def _cluster(values: Floats, count: int) -> Ints:
    """k-means of colours (N, 3) from the median and the farthest points on: a name (N,) each."""
    centres = np.median(values, axis=0)[None]
    while len(centres) < count:
        away = ((values[:, None] - centres) ** 2).sum(-1).min(1)
        if np.percentile(away, 97) < 25**2:
            break
        far = np.argsort(away, kind="stable")[int(0.97 * len(away))]
        centres = np.concatenate([centres, values[far][None]])
    for _ in range(8):
        names = ((values[:, None] - centres) ** 2).sum(-1).argmin(1)
        centres = np.stack(
            [values[names == k].mean(0) if (names == k).any() else c for k, c in enumerate(centres)]
        )
    return np.asarray(names)


def _flood(colours: Floats, fields: list[_Field], *, shadows: bool = True) -> tuple[Bools, Floats]:
    """What is background, and how unlike the background everything is (below 1: alike).

    Background is like one of the fields, or (with `shadows`) their shadow, and connected to the border, or a clear hole.
    """
    unlike = np.full(colours.shape[:2], np.inf, np.float32)
    shadow = np.zeros(colours.shape[:2], bool)
    for field in fields:
        image = field.image()
        limit = float(np.clip(9 + 4 * field.spread, 12, 40))
        difference = colours - image
        np.minimum(unlike, np.sqrt(squared(difference)) / limit, out=unlike)
        if shadows:
            shadow |= _shadowed(colours, image, limit)
    alike = unlike < 1
    open_ = _reached(alike | (shadow & ~_edges(colours)))
    # The shadow just under the subject has edges: close to shadow that was found, its colour alone tells it, if the
    # subject has another one.
    if (shadow & ~open_).sum() < 0.25 * (~open_).sum():
        near = grown(open_ & ~alike, max(2, round(0.03 * max(shadow.shape))))
        open_ = _reached(alike | open_ | (shadow & near))
    holes, areas = label(alike & ~open_)
    depth = np.bincount(holes.ravel(), weights=unlike.ravel(), minlength=len(areas))
    clear = (areas > 2e-3 * colours.shape[0] * colours.shape[1]) & (depth < 0.5 * areas)
    clear[0] = False
    return _drop_faint(open_ | clear[holes], unlike), unlike


def _reached(mask: Bools) -> Bools:
    """The components of `mask` that touch the picture's border."""
    labels, _ = label(mask)
    rim = np.unique(np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]]))
    return np.asarray(np.isin(labels, rim[rim > 0]))


def _shadowed(colours: Floats, image: Floats, limit: float) -> Bools:
    """Darker than the field, by about one factor for all three channels: other light than the wall's may fill a shadow."""
    light = np.einsum("...k,...k->...", colours, image) / np.maximum(squared(image), 1)
    tint = np.sqrt(squared(colours - light[..., None] * image))
    return np.asarray((light < 1.02) & (light > 0.3) & (tint < 1.5 * limit), bool)


def _edges(colours: Floats) -> Bools:
    """Where a channel changes within few pixels, widened by one so that a thin gap does not let the flood in."""
    steep = np.zeros(colours.shape, np.float32)
    steep[1:-1] += np.abs(colours[2:] - colours[:-2])
    steep[:, 1:-1] += np.abs(colours[:, 2:] - colours[:, :-2])
    return grown(steep.max(-1) > 12, 1)


def _drop_faint(background: Bools, unlike: Floats) -> Bools:
    """Hysteresis: an island of the subject must be clearly unlike the background somewhere."""
    labels, areas = label(~background)
    sure = np.bincount(labels.ravel(), weights=(unlike.ravel() > 1.8), minlength=len(areas))
    faint = sure < 0.02 * areas
    faint[0] = False
    return background | faint[labels]


def _refit(colours: Floats, fields: list[_Field], background: Bools, degree: int) -> list[_Field]:
    """The fields fitted again, to all that is now known to be background."""
    away = np.stack([squared(colours - field.image()) for field in fields])
    names = np.where(background & (away.min(0) < 40**2), away.argmin(0), -1).ravel()
    result = []
    for name, field in enumerate(fields):
        where = np.flatnonzero(names == name)
        if len(where) < 50:
            result.append(field)
            continue
        result.append(_Field(colours, where[:: max(1, len(where) // 8000)], degree))
    return result


def _softened(subject: Bools, unlike: Floats) -> Floats:
    """A soft mask: within two pixels of the background, coverage is read from how much of its colour is mixed in."""
    # A majority of nine: single pixels go.
    picture = Image.fromarray(subject.astype(np.uint8) * 255).filter(ImageFilter.BoxBlur(1))
    solid = np.asarray(picture) > 127
    inner = ~grown(~solid, 2)
    most = unlike
    for _ in range(2):
        padded = np.pad(most, ((0, 0), (2, 2)), mode="edge")
        rows = [padded[:, k : k + most.shape[1]] for k in range(5)]
        most = np.maximum.reduce(rows).T
    share = np.clip(unlike / np.maximum(most, 1e-3), 0, 1)
    return np.where(inner, 1, np.where(solid, share, 0)).astype(np.float32)

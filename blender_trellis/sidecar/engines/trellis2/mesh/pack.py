# SPDX-License-Identifier: GPL-3.0-or-later
"""Places charts in a square texture: each falls as low as it can, like the pieces of Tetris, tall ones first.

Source: Lévy, Petitjean, Ray and Maillot, "Least Squares Conformal Maps for Automatic Texture Atlas Generation", 2002,
section 4.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from ...stages import EngineError
from .edges import spread
from .progress import part
from .surface import Floats, Ints, Step

_FILLED = 0.75
"""The share of the texture that charts and gaps together are expected to fill; where the search begins."""
_FULL = 0.985
"""A texture that is filled to this share of its height is full."""
_TRIES, _LAST_TRY = 5, 30
_NOTHING = 2**20
"""A row beyond every texture's."""


@dataclass(frozen=True)
class Borders:
    """The borders of charts as segments in each chart's plane. Every chart begins at (0, 0) in it."""

    ends: Floats
    """(S, 2, 2): start and end of a segment, each x and y."""
    chart: Ints
    """(S,)"""
    areas: Floats
    """(C,) area of each chart in its plane."""


@dataclass(frozen=True)
class _Silhouettes:
    """What charts occupy, column of texels by column, one chart after another."""

    first: Ints
    """(C + 1,) where each chart's columns begin."""
    low: Ints
    """(K,) the first row that a chart touches in a column, and in those `gap` to either side, less `gap`."""
    high: Ints
    """(K,) the row after the last that it touches in the column; below `low` in the gap to either side."""


def place(borders: Borders, size: int, gap: int, step: Step) -> tuple[float, Ints]:
    """The scale, in texels a unit, at which the charts about fill a texture, and their corners in it, (C, 2) column and row.

    Args:
        size: texels a side of the texture.
        gap: texels that stay free at least between two charts, and at the rim; fewer where there are too many charts.
        step: called several times a second.

    Raises:
        EngineError: there are more charts than the texture has room for.
    """
    gap = min(gap, int(size * np.sqrt(0.5 / len(borders.areas))) - 1)
    if gap < 0:
        raise _no_room()
    largest = (size - 2 * gap - 2) / float(borders.ends.max())
    scale = min(largest, _guess(borders, size, gap))
    best: tuple[float, Ints] | None = None
    for attempt in range(_LAST_TRY):
        shapes = _silhouettes(borders, scale, gap)
        corners, height = _fall(
            shapes, size, gap, part(step, 1 - 0.5**attempt, 1 - 0.5 ** (attempt + 1))
        )
        if height <= size and (best is None or scale > best[0]):
            best = scale, corners
        full = height > size * _FULL or scale == largest
        if best is not None and (attempt + 1 >= _TRIES or (height <= size and full)):
            return best
        # The height grows with the square of the scale, but for the gaps
        scale = min(largest, scale * float(np.sqrt(size * (1 + _FULL) / 2 / height)))
    raise _no_room()


def _no_room() -> EngineError:
    return EngineError(
        "The mesh falls into more pieces than its texture has room for. "
        "Choose a larger texture, fewer faces or a wider angle of its charts."
    )


def _guess(borders: Borders, size: int, gap: int) -> float:
    """The positive root of: charts' areas and half of the gaps around them = what is expected to be filled."""
    lengths = np.linalg.norm(borders.ends[:, 1] - borders.ends[:, 0], axis=1)
    area = float(borders.areas.sum())
    # A chart also occupies whole texels: half a texel more on either side
    half = (gap + 1) * float(lengths.sum()) / 4
    return (np.sqrt(half**2 + area * _FILLED * size**2) - half) / area


def _silhouettes(borders: Borders, scale: float, gap: int) -> _Silhouettes:
    """What the charts occupy at `scale`."""
    ends = borders.ends * scale
    left, right = ends[..., 0].min(1), ends[..., 0].max(1)
    column = np.floor(left).astype(np.int64)
    columns = np.floor(right).astype(np.int64) - column + 1
    segment, column = np.repeat(np.arange(len(ends)), columns), spread(column, columns)
    start, along = ends[segment, 0], ends[segment, 1] - ends[segment, 0]
    # The part of the segment within the column
    steep = np.where(along[:, 0] == 0, 1, along[:, 0])
    cuts = np.stack([column, column + 1], 1) - start[:, :1]
    cuts = np.where(along[:, :1] == 0, [[0.0, 1.0]], np.clip(cuts / steep[:, None], 0, 1))
    rows = start[:, 1:] + cuts * along[:, 1:]
    lowest, highest = np.floor(rows.min(1)), np.floor(rows.max(1)) + 1

    chart = borders.chart[segment]
    widths = np.zeros(len(borders.areas), np.int64)
    np.maximum.at(widths, chart, column + 1)
    first = np.concatenate([[0], np.cumsum(widths + 2 * gap)])
    low = np.full(first[-1], _NOTHING, np.int32)
    high = np.full(first[-1], -_NOTHING, np.int32)
    place = first[chart] + gap + column
    np.minimum.at(low, place, lowest.astype(np.int32))
    np.maximum.at(high, place, highest.astype(np.int32))
    near = [np.roll(low, shift) for shift in range(-gap, gap + 1)]
    return _Silhouettes(first, np.minimum.reduce(near) - gap, high)


def _fall(shapes: _Silhouettes, size: int, gap: int, step: Step) -> tuple[Ints, int]:
    """Corners (C, 2) of the charts in a texture `size` wide, and the height of what they fill."""
    heights = np.maximum.reduceat(shapes.high, shapes.first[:-1])
    corners = np.empty((len(heights), 2), np.int64)
    horizon = np.zeros(size, np.int32)
    # By width, the parts of the horizon under a chart at every place, (width, places): quick, since places lie side by side
    windows: dict[int, Ints] = {}
    for done, chart in enumerate(np.argsort(-heights, kind="stable")):
        if done % 64 == 0:
            step(f"Packing {len(heights)} charts", done / len(heights))
        columns = slice(shapes.first[chart], shapes.first[chart + 1])
        low, high = shapes.low[columns], shapes.high[columns]
        if len(low) not in windows:
            windows[len(low)] = sliding_window_view(horizon, len(low)).T
        y = (windows[len(low)] - low[:, None]).max(0)
        x = int(y.argmin())
        corners[chart] = x + gap, y[x]
        reached = horizon[x : x + len(low)]
        np.maximum(reached, high + y[x], out=reached)
    return corners, int(horizon.max()) + gap

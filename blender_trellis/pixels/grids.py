# SPDX-License-Identifier: GPL-3.0-or-later
"""Arrays over a picture's plane: resizing, blurring, labelling, distances, sampling. Nothing here knows of models."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

# The names say the type of the values (float32, float64, bool, int64); numpy's stubs disagree about it between versions
Floats = npt.NDArray[Any]
Doubles = npt.NDArray[Any]
Bools = npt.NDArray[Any]
Ints = npt.NDArray[Any]


def resize(
    values: Floats, shape: tuple[int, ...], how: Image.Resampling = Image.Resampling.BICUBIC
) -> Floats:
    """`values` (H, W) brought to `shape` (rows, columns)."""
    rows, columns = shape
    if values.shape == shape:
        return values
    picture = Image.fromarray(np.ascontiguousarray(values, np.float32))
    return np.asarray(picture.resize((columns, rows), how), np.float32)


def blur(values: Floats, sigma: float) -> Floats:
    """Gaussian blur of `values` (H, W), `sigma` in pixels; a wide one is computed on a reduced array."""
    if sigma < 0.2:
        return values
    rows, columns = values.shape
    factor = max(1.0, min(sigma / 2, rows, columns))
    shape = (max(1, round(rows / factor)), max(1, round(columns / factor)))
    small = resize(values, shape, Image.Resampling.BOX)
    sigma /= factor
    radius = int(np.ceil(2.5 * sigma))
    kernel = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2).astype(np.float32)
    kernel /= kernel.sum()
    for _ in range(2):
        padded = np.pad(small, ((radius, radius), (0, 0)), mode="edge")
        total = np.zeros_like(small)
        for i, weight in enumerate(kernel):
            total += weight * padded[i : i + len(small)]
        small = np.ascontiguousarray(total.T)
    return resize(small, (rows, columns))


def grown(mask: Bools, radius: int) -> Bools:
    """`mask` dilated by a square reaching `radius` pixels each way. Erosion is ~grown(~mask, radius)."""
    for _ in range(2):
        padded = np.pad(mask, ((0, 0), (radius + 1, radius)))
        sums = np.cumsum(padded, axis=1, dtype=np.int32)
        mask = (sums[:, 2 * radius + 1 :] > sums[:, : -2 * radius - 1]).T
    return mask


def squared(vectors: Floats) -> Floats:
    """Squared lengths of vectors along the last axis."""
    return np.asarray(np.einsum("...k,...k->...", vectors, vectors))


def components(count: int, a: Ints, b: Ints) -> Ints:
    """The connected components of a graph of `count` nodes with edges a–b: for every node, the smallest node it reaches."""
    root = np.arange(count)
    while True:
        low, high = np.minimum(root[a], root[b]), np.maximum(root[a], root[b])
        apart = low != high
        if not apart.any():
            return root
        a, b = low[apart], high[apart]
        root[b] = a
        while True:
            above = root[root]
            if np.array_equal(above, root):
                break
            root = above


def expand(first: Ints, counts: Ints) -> tuple[Ints, Ints]:
    """The ranges first…first+count one after another: (index of the range, value), each (counts.sum(),)."""
    owner = np.repeat(np.arange(len(counts)), counts)
    start = np.cumsum(counts) - counts
    return owner, np.arange(len(owner)) - start[owner] + first[owner]


def label(mask: Bools) -> tuple[npt.NDArray[np.int32], Ints]:
    """4-connected components of `mask` (H, W): labels from 1 (0 outside), and the area of each label (0's is 0)."""
    rows, columns = mask.shape
    stride = columns + 1  # one empty column, so that no run goes on in the next row
    flat = np.zeros(rows * stride + 1, bool)
    flat[:-1].reshape(rows, stride)[:, :columns] = mask
    edges = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    if flat[0]:
        edges = np.concatenate(([0], edges))
    starts, ends = edges[0::2], edges[1::2]
    first = np.searchsorted(ends, starts + stride, "right")
    last = np.searchsorted(starts, ends + stride, "left")
    upper, lower = expand(first, np.maximum(last - first, 0))
    roots = components(len(starts), upper, lower)
    _, names = np.unique(roots, return_inverse=True)
    labels = np.zeros(len(flat), np.int32)
    labels[flat] = np.repeat(names + 1, ends - starts)
    areas = np.bincount(names + 1, weights=ends - starts, minlength=1).astype(np.int64)
    return labels[:-1].reshape(rows, stride)[:, :columns], areas


def signed_distance(soft: Floats, reach: int) -> Floats:
    """Distance in pixels to the contour soft = 0.5, positive where soft is more, cut at ±`reach`.

    The contour is sampled where it crosses the pixel rows and columns, with sub-pixel accuracy.
    """
    squared = np.minimum(_from_rows(soft, reach), _from_rows(soft.T, reach).T)
    return np.where(soft > 0.5, 1, -1).astype(np.float32) * np.sqrt(squared)


def _from_rows(soft: Floats, reach: int) -> Floats:
    """Squared distance to where the contour crosses the rows."""
    rows, columns = soft.shape
    high = soft - np.float32(0.5)
    crossing = (high[:, 1:] > 0) != (high[:, :-1] > 0)
    rise = np.where(crossing, high[:, :-1] - high[:, 1:], 1)
    place = np.arange(columns - 1, dtype=np.float32) + high[:, :-1] / rise
    far = np.float32(4 * reach + columns)
    left = np.full(soft.shape, -far)
    left[:, 1:][crossing] = place[crossing]
    right = np.full(soft.shape, far + columns)
    right[:, :-1][crossing] = place[crossing]
    left = np.maximum.accumulate(left, axis=1)
    right = np.minimum.accumulate(right[:, ::-1], axis=1)[:, ::-1]
    here = np.arange(columns, dtype=np.float32)
    along = np.minimum(np.minimum(here - left, right - here), reach) ** 2
    best = along.copy()
    for k in range(1, min(reach, rows - 1) + 1):
        shifted = along + np.float32(k * k)
        np.minimum(best[k:], shifted[:-k], out=best[k:])
        np.minimum(best[:-k], shifted[k:], out=best[:-k])
    return np.minimum(best, np.float32(reach * reach))


def fill(picture: Image.Image) -> Image.Image:
    """An RGBA picture's opaque colours continued over its transparent pixels (pull and push over a pyramid): RGB."""
    levels = [picture]
    while max(levels[-1].size) > 1:
        width, height = levels[-1].size
        half = levels[-1].resize((-(-width // 2), -(-height // 2)), Image.Resampling.BOX)
        half.putalpha(half.getchannel("A").point([0, 0] + [255] * 254))
        levels.append(half)
    filled = levels[-1].convert("RGB")
    for level in reversed(levels[:-1]):
        filled = filled.resize(level.size, Image.Resampling.BILINEAR)
        filled.paste(level.convert("RGB"), mask=level.getchannel("A"))
    return filled


@dataclass(frozen=True)
class Plane:
    """Values (H, W, C) on a rectangle of the model's space: `left` and `top` are its outer corner, `step` a pixel's size."""

    values: Floats
    left: float
    top: float
    step: tuple[float, float]

    def at(self, u: Floats, v: Floats) -> Floats:
        """Bilinear samples (N, C) at `u` to the right and `v` up, each (N,); beyond the rim its values go on."""
        rows, columns, channels = self.values.shape
        column = np.clip((u - self.left) / self.step[0] - 0.5, 0, columns - 1.001)
        row = np.clip((self.top - v) / self.step[1] - 0.5, 0, rows - 1.001)
        i, j = row.astype(np.int64), column.astype(np.int64)
        down, right = (
            (row - i)[:, None].astype(np.float32),
            (column - j)[:, None].astype(np.float32),
        )
        flat, at = self.values.reshape(-1, channels), i * columns + j
        upper = flat[at] * (1 - right) + flat[at + 1] * right
        lower = flat[at + columns] * (1 - right) + flat[at + columns + 1] * right
        return np.asarray(upper * (1 - down) + lower * down, np.float32)

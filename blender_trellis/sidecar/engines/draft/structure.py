# SPDX-License-Identifier: GPL-3.0-or-later
"""Silhouettes become a solid: one view is inflated, several are intersected as a visual hull.

Both are one formula. A point (x, y, z) is inside where across(y, z) < depth(x, z):

- depth is the square of how far the solid reaches from its middle surface towards front and back, as a share of the
  most it could. It comes from the front silhouette alone, by solving Poisson's equation on it: its square root has a
  round profile, a sphere over a disc.
- across is the square of the distance from the middle surface. It is y² for one view; with a view from the side it is
  measured between the outermost rims of the side silhouette in the same height, which cuts it as well.

A hull's silhouettes thus stay as pictured, and its sections are round instead of the plain intersection's rectangles.
The more the contours follow the picture's axes, the squarer the sections: a box stays a box.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image

from ....pixels.grids import Bools, Floats, Plane, blur, grown, resize, signed_distance
from ..stages import EngineError
from .silhouette import View

_REACH = 10
"""Pixels to which distances from a contour are computed; a voxel spans at most some six."""
_PLUMPNESS = 0.85
"""How deep an inflated shape is beside the round one."""
_PLATE = 0.05
"""Half the thickness of a picture that has no background."""
_RELIEF = 0.03
"""Height of the relief seen in brightness, as a share of the model's longer side."""


@dataclass(frozen=True)
class Solid:
    """The shape and the pictures' place on it. The model's longer side (a hull's height) is 1 here."""

    front: Plane
    """depth towards the front and its slopes (3), towards the back (3), distance to the contour and its slopes (3)."""
    side: Plane | None
    """across and its slopes (3), half the interval's width (1), distance to the contour and its slopes (3)."""
    half: float
    """Half the depth of the whole."""
    extent: tuple[float, float, float]
    """Half sizes along x, y, z of a box that holds it."""
    thin: tuple[Floats, ...]
    """(H, W) of front, and of side if there is one: where the silhouette is thin."""

    def node_depths(self, xs: Floats, zs: Floats, step: float) -> tuple[Floats, Floats]:
        """depth at the nodes, (Z, X) towards the front and the back; thin parts are widened to `step`."""
        u, v = np.meshgrid(xs, zs)
        values = self.front.at(u.ravel(), v.ravel())[:, [0, 3]].T.reshape(2, len(zs), len(xs))
        half = np.full(len(zs), self.half, np.float32)
        if self.side is not None:
            half = self.side.at(np.zeros_like(zs), zs)[:, 3]
        wide = ((0.8 * step / np.maximum(half, step)) ** 2).astype(np.float32)[:, None]
        least = np.where(_pooled(self.thin[0], self.front, xs, zs, step), wide, np.float32(-np.inf))
        return np.maximum(values[0], least), np.maximum(values[1], least)

    def node_across(self, ys: Floats, zs: Floats, step: float) -> Floats:
        """across at the nodes, (Z, Y); infinite outside the side silhouette."""
        if self.side is None:
            return np.broadcast_to((ys / self.half) ** 2, (len(zs), len(ys))).astype(np.float32)
        u, v = np.meshgrid(ys, zs)
        values = self.side.at(u.ravel(), v.ravel())[:, [0, 3, 4]].T.reshape(3, len(zs), len(ys))
        thin = _pooled(self.thin[1], self.side, ys, zs, step)
        widened = values[0] * np.minimum(values[1] / np.float32(0.8 * step), 1) ** 2
        return np.where(thin, widened, np.where(values[2] > 0, values[0], np.float32(np.inf)))

    def field(self, points: Floats) -> tuple[Floats, Floats]:
        """A function whose zero is the surface, positive inside, (N,), and its gradient (N, 3), at `points` (N, 3)."""
        x, y, z = points.T
        front = self.front.at(x, z)
        depth = np.where((y < 0)[:, None], front[:, 0:3], front[:, 3:6])
        gradient = np.empty_like(points)
        if self.side is None:
            scale = np.float32(self.half / 2)
            value = scale * (depth[:, 0] - (y / self.half) ** 2)
            gradient[:, 0], gradient[:, 2] = scale * depth[:, 1], scale * depth[:, 2]
            gradient[:, 1] = -y / self.half
            return value, gradient
        side = self.side.at(y, z)
        half = side[:, 3] / 2
        value = half * (depth[:, 0] - side[:, 0])
        gradient[:, 0], gradient[:, 1] = half * depth[:, 1], -half * side[:, 1]
        gradient[:, 2] = half * (depth[:, 2] - side[:, 2])
        for contour, axis in ((front[:, 6:9], 0), (side[:, 4:7], 1)):
            nearer = contour[:, 0] < value
            value = np.where(nearer, contour[:, 0], value)
            other = np.zeros_like(gradient)
            other[:, axis], other[:, 2] = contour[:, 1], contour[:, 2]
            gradient = np.where(nearer[:, None], other, gradient)
        return value, gradient


def inflate(view: View, relief: Floats | None, pixels: int) -> Solid:
    """The solid of one view. `relief` is a height (any H, W over the view's rectangle) in the model's units."""
    mask, plane = _canvas(view, pixels, 1 / max(view.size))
    contour = signed_distance(mask, _REACH) * np.float32(plane.step[0])
    square = _inflation(mask, contour, plane.step[0])
    plate = square / (1 + np.maximum(square, 0) / np.float32(_PLATE**2))
    square = plate if view.slab else square * np.float32(_PLUMPNESS**2)
    deep = np.sqrt(np.maximum(square, 0))
    raised = square
    if relief is not None:
        # The relief fades towards the rim, where front and back meet.
        height = resize(relief, mask.shape) * np.minimum(deep / np.float32(0.08), 1)
        raised = np.where(square > 0, np.maximum(deep + height, 0.5 * deep) ** 2, square)
    half = float(np.sqrt(max(float(square.max()), float(raised.max()), 0)))
    if half == 0:
        raise EngineError(
            "The subject is too thin to become a solid. Use a larger picture of it.", "image_urls"
        )
    maps = [*_sloped(raised / half**2, plane), *_sloped(square / half**2, plane)]
    maps += _sloped(contour, plane)
    front = Plane(np.stack(maps, -1), plane.left, plane.top, plane.step)
    size = [side / max(view.size) / 2 for side in view.size]
    return Solid(front, None, half, (size[0], half, size[1]), (_thin(mask),))


def hull(views: dict[str, View], pixels: int, warn: Callable[[str], None]) -> Solid:
    """The solid of a front and a right view, refined by back and left ones."""
    front, right = views["front"], views["right"]
    mask, plane = _canvas(front, pixels, 1 / front.size[1])
    if "back" in views:
        mask = _agreed(mask, front, views["back"], "back", warn)
    other, beside = _canvas(right, pixels, 1 / right.size[1])
    if "left" in views:
        other = _agreed(other, right, views["left"], "left", warn)
    across, half_width = _across(other, beside)
    contour = signed_distance(mask, _REACH) * np.float32(plane.step[0])
    depth = _roundness(mask, other, _inflation(mask, contour, plane.step[0]), contour)
    edge = signed_distance(other, _REACH) * np.float32(beside.step[0])
    sloped = _sloped(depth, plane)
    first = np.stack([*sloped, *sloped, *_sloped(contour, plane)], -1)
    second = np.stack([*_sloped(across, beside), half_width, *_sloped(edge, beside)], -1)
    extent = (front.size[0] / front.size[1] / 2, right.size[0] / right.size[1] / 2, 0.5)
    return Solid(
        Plane(first, plane.left, plane.top, plane.step),
        Plane(second, beside.left, beside.top, beside.step),
        extent[1],
        extent,
        (_thin(mask), _thin(other)),
    )


def brightness_relief(view: View) -> tuple[Floats, Floats]:
    """Heights seen in the picture's brightness: (coarse for the mesh, fine for the normal map), in the model's units."""
    grey = np.asarray(view.colour.convert("L"), np.float32) / 255
    # One unit is the subject's longer side, in the colour picture's pixels.
    unit = max(view.size) * view.colour.height / view.mask.shape[0]
    wide = blur(grey, 0.03 * unit)
    coarse = blur(grey, 0.007 * unit) - wide
    fine = blur(grey, max(0.7, 0.001 * unit)) - wide
    height = [np.float32(_RELIEF) * np.tanh(np.float32(1.5) * part) for part in (coarse, fine)]
    return height[0], height[1] - height[0]


def _canvas(view: View, pixels: int, scale: float) -> tuple[Floats, Plane]:
    """The view's mask at about `pixels` along the subject's longer side, and its place; `scale` is units per pixel."""
    rows, columns = view.mask.shape
    factor = pixels / max(view.size)
    shape = max(8, round(rows * factor)), max(8, round(columns * factor))
    left, top, right, bottom = view.box
    step = scale * columns / shape[1], scale * rows / shape[0]
    mask = np.clip(resize(view.mask, shape), 0, 1)
    plane = Plane(mask[..., None], -scale * (left + right) / 2, scale * (top + bottom) / 2, step)
    return mask, plane


def _sloped(values: Floats, plane: Plane) -> list[Floats]:
    """Values and their slopes to the right and up."""
    down, right = np.gradient(values)
    return [
        values.astype(np.float32),
        (right / plane.step[0]).astype(np.float32),
        (-down / plane.step[1]).astype(np.float32),
    ]


def _inflation(mask: Floats, contour: Floats, step: float) -> Floats:
    """Square of the half depth of the inflated silhouette, negative outside; a disc gives a sphere.

    Solves Δw = -4, w = 0 outside (w = r² - ρ² for a disc of radius r), on a pyramid from coarse to fine.
    """
    longest = max(mask.shape)
    sizes = [min(longest, size) for size in (16, 32, 64, 128, 256)]
    w = np.zeros((2, 2), np.float32)
    for size in sizes:
        shape = tuple(max(4, round(side * size / longest)) for side in mask.shape)
        inside = (resize(mask, shape, Image.Resampling.BOX) > 0.5).astype(np.float32)
        source = np.float32(4 * (step * longest / size) ** 2)
        w = _relaxed(resize(w, shape), inside, source, 120 if size < 256 else 60)
    coarse = step * longest / sizes[-1]
    # Near the contour w grows with the distance: its slope there is taken from the coarse solution, the contour from
    # the fine one, so that the rim is as fine as the picture.
    wide = resize(np.maximum(w, 0), mask.shape)
    band = np.float32(4 * coarse)
    slope_at = resize(contour, w.shape, Image.Resampling.BOX)
    known = (slope_at > 1.5 * coarse) & (slope_at < 5 * coarse)
    if not known.any():
        known = slope_at > 0
    slope = _spread(np.where(known, w / np.maximum(slope_at, 0.3 * np.float32(coarse)), 0), known)
    rim = contour * np.maximum(resize(slope, mask.shape), np.float32(0.2 * coarse))
    share = np.clip(contour / band, 0, 1)
    share = share * share * (3 - 2 * share)
    return np.asarray(
        np.where(contour > 0, rim * (1 - share) + np.maximum(wide, 0.3 * rim) * share, rim)
    )


def _relaxed(w: Floats, inside: Floats, source: np.float32, rounds: int) -> Floats:
    """Jacobi iterations for the five-point Laplacian."""
    w = np.pad(w * inside, 1)
    inside = inside / np.float32(4)
    for _ in range(rounds):
        total = w[:-2, 1:-1] + w[2:, 1:-1]
        total += w[1:-1, :-2]
        total += w[1:-1, 2:]
        total += source
        w[1:-1, 1:-1] = total * inside
    return w[1:-1, 1:-1]


def _spread(values: Floats, known: Bools) -> Floats:
    """Known values continued smoothly over the rest: weighted blurs from narrow to wide."""
    weight = known.astype(np.float32)
    total, weights = np.zeros_like(values), np.zeros_like(values)
    for sigma, trust in ((1.0, 1.0), (3.0, 1e-2), (10.0, 1e-4), (40.0, 1e-6)):
        total += np.float32(trust) * np.maximum(blur(values * weight, sigma), 0)
        weights += np.float32(trust) * np.maximum(blur(weight, sigma), 0)
    middle = np.float32(values[known].mean())
    return (total + np.float32(1e-9) * middle) / (weights + np.float32(1e-9))


def _thin(mask: Floats) -> Floats:
    """Where an opening takes the silhouette away: parts that a voxel grid's nodes might miss."""
    solid = mask > 0.5
    radius = round(0.7 * _REACH)
    opened = grown(~grown(~solid, radius), radius)
    return (solid & ~opened).astype(np.float32)


def _pooled(values: Floats, plane: Plane, xs: Floats, zs: Floats, step: float) -> Bools:
    """Whether `values` is anywhere 1 in the square of side `step` round each node, (Z, X)."""
    sums = np.zeros((values.shape[0] + 1, values.shape[1] + 1), np.float64)
    sums[1:, 1:] = values.cumsum(0, dtype=np.float64).cumsum(1)
    edges = []
    for places, at, sign, count, size in (
        (zs, plane.top, -1, values.shape[0], plane.step[1]),
        (xs, plane.left, 1, values.shape[1], plane.step[0]),
    ):
        middle = sign * (places - at) / size
        low = np.clip(np.round(middle - step / size / 2), 0, count).astype(np.int64)
        high = np.clip(np.round(middle + step / size / 2), 0, count).astype(np.int64)
        edges.append((low, high))
    (top, bottom), (left, right) = edges
    found = sums[bottom][:, right] - sums[top][:, right] - sums[bottom][:, left]
    return np.asarray(found + sums[top][:, left] > 0.5)


def _agreed(
    mask: Floats, view: View, other: View, name: str, warn: Callable[[str], None]
) -> Floats:
    """Intersection of a mask with the opposite view's, mirrored and brought to its box."""
    rows, columns = mask.shape
    scale = columns / view.mask.shape[1], rows / view.mask.shape[0]
    mirrored = Image.fromarray(np.ascontiguousarray(other.mask[:, ::-1]))
    left, top, right, bottom = other.box
    width = other.mask.shape[1]
    box = (width - right, top, width - left, bottom)
    here = [side * scale[i % 2] for i, side in enumerate(view.box)]
    size = max(1, round(here[2] - here[0])), max(1, round(here[3] - here[1]))
    fitted = mirrored.resize(size, Image.Resampling.BICUBIC, box=box)
    canvas = Image.new("F", (columns, rows))
    canvas.paste(fitted, (round(here[0]), round(here[1])))
    both = np.minimum(mask, np.clip(np.asarray(canvas, np.float32), 0, 1))
    if (both > 0.5).sum() < 0.85 * (mask > 0.5).sum():
        warn(
            f"The {name} view's outline does not fit the opposite one and is not used for the shape"
        )
        return mask
    return both


def _across(mask: Floats, plane: Plane) -> tuple[Floats, Floats]:
    """Square of the place between the outermost rims in the same height (0 in the middle, 1 at them), and half their
    distance. The rims are evened out over the height, always outwards: ledges in them would become ledges all round."""
    columns = mask.shape[1]
    solid = mask > 0.5
    filled = solid.any(1)
    window = max(2, round(0.03 * filled.sum()))
    kernel = np.hanning(2 * window + 3)[1:-1]
    ends = []
    for side, outside in ((solid.argmax(1), columns), (columns - solid[:, ::-1].argmax(1), -1)):
        best = np.minimum if outside > 0 else np.maximum
        rim = np.pad(np.where(filled, side, outside), 2 * window, constant_values=outside)
        rim = best.reduce(np.lib.stride_tricks.sliding_window_view(rim, 2 * window + 1), axis=1)
        known = np.flatnonzero(rim != outside)
        rim = np.interp(np.arange(len(rim)), known, rim[known])
        ends.append(np.convolve(rim, kernel / kernel.sum(), "valid"))
    first, last = ends
    half = np.maximum((last - first) / 2, 0.5)[:, None]
    place = (np.arange(columns) + 0.5 - ((first + last) / 2)[:, None]) / half
    width = np.broadcast_to(half * plane.step[0], mask.shape)
    return (place**2).astype(np.float32), width.astype(np.float32)


def _roundness(mask: Floats, side: Floats, square: Floats, contour: Floats) -> Floats:
    """depth of a hull: the inflation relative to the deepest place in the same height, to the power of the roundness."""
    boxy = max(_axis_aligned(mask), _axis_aligned(side))
    power = float(np.clip((0.75 - boxy) / 0.35, 0.02, 1))
    deepest = np.maximum(blur(np.maximum(square, 0).max(1, keepdims=True), 1.0), 1e-6)
    relative = np.clip(square / deepest, 0, 1) ** np.float32(power)
    return np.where(
        contour > 0, np.maximum(relative, 1e-4), np.minimum(contour * 10, -1e-4)
    ).astype(np.float32)


def _axis_aligned(mask: Floats) -> float:
    """Share of the contour that runs within 10° of a picture axis."""
    down, right = np.gradient(blur(mask, 2.0))
    length = np.hypot(down, right)
    along = np.minimum(np.abs(down), np.abs(right)) < 0.18 * length
    return float(length[along].sum() / max(float(length.sum()), 1e-6))

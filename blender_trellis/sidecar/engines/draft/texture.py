# SPDX-License-Identifier: GPL-3.0-or-later
"""The pictures are painted onto the charts: base colour, and a normal map with the relief too fine for the mesh."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFilter

from ....pixels.grids import Floats, Ints, Plane, blur, expand, fill, resize, squared
from .atlas import BACK, FRONT, LEFT, OUTWARDS, RIGHT, RIGHTWARDS, UPWARDS, Atlas, spans
from .silhouette import View
from .structure import brightness_relief
from .surface import Mesh

Bytes = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Source:
    """A picture of the model from one direction."""

    direction: int
    plane: Plane
    """Red, green, blue (0 to 255), slope of the fine relief to the right and up."""
    trust: float
    """How much it counts beside others that see a place as well."""


def sources(views: dict[str, View], extent: tuple[float, float, float]) -> list[Source]:
    """The given pictures, and mirrored ones for what no picture shows. `extent` is the solid's, see `Solid`."""
    found = {
        direction: _source(direction, views[name], extent)
        for direction, name in ((FRONT, "front"), (RIGHT, "right"), (BACK, "back"), (LEFT, "left"))
        if name in views
    }
    if RIGHT in found and LEFT not in found:
        found[LEFT] = _mirrored(found[RIGHT], LEFT)
    if BACK not in found:
        backside = replace(views["front"], colour=_backside(views["front"]))
        found[BACK] = _mirrored(_source(FRONT, backside, extent), BACK)
    return [found[direction] for direction in sorted(found)]


def _source(direction: int, view: View, extent: tuple[float, float, float]) -> Source:
    """A view in its place: its subject's box fills the solid's extent."""
    across = extent[0] if direction in (FRONT, BACK) else extent[1]
    left, top, right, bottom = view.box
    unit = 2 * across / (right - left), 2 * extent[2] / (bottom - top)
    rows, columns = view.mask.shape
    step = unit[0] * columns / view.colour.width, unit[1] * rows / view.colour.height
    _, fine = brightness_relief(view)
    # Towards the rim a pixel is stretched over the turning surface, and its relief with it: it fades there.
    inner = np.clip(2 * blur(view.mask, 0.008 * max(view.size)) - 1, 0, 1)
    fine = fine * resize(inner, fine.shape)
    down, rightwards = np.gradient(fine)
    unit_height = unit[1] * max(view.size)  # the relief's heights are shares of the longer side
    slopes = [rightwards * (unit_height / step[0]), -down * (unit_height / step[1])]
    values = np.dstack([np.asarray(view.colour, np.float32), *slopes]).astype(np.float32)
    plane = Plane(values, -unit[0] * (left + right) / 2, unit[1] * (top + bottom) / 2, step)
    return Source(direction, plane, 1.0)


def _mirrored(source: Source, direction: int) -> Source:
    """What the opposite side shows if the model is symmetrical."""
    plane = source.plane
    values = np.ascontiguousarray(plane.values[:, ::-1])
    values[..., 3] *= -1
    left = -(plane.left + plane.values.shape[1] * plane.step[0])
    return Source(direction, Plane(values, left, plane.top, plane.step), 0.5)


def _backside(view: View) -> Image.Image:
    """The front's colours without what makes it a front: blurred and darkened, but at the rim, where both sides meet."""
    width, height = view.colour.size
    unit = max(view.size) * height / view.mask.shape[0]
    factor = max(1, round(unit / 128))
    size = max(1, width // factor), max(1, height // factor)
    small = view.colour.resize(size, Image.Resampling.BOX)
    small = small.filter(ImageFilter.GaussianBlur(0.07 * unit / factor))
    blurred = small.resize((width, height), Image.Resampling.BICUBIC)
    blurred = blurred.point([round(0.9 * k) for k in range(256)] * 3)
    # A blurred mask is a half at the rim and grows inwards.
    inside = blur(view.mask, 0.03 * max(view.size))
    share = resize(np.clip(2.5 * inside - 1.25, 0, 1), (height, width)) * 255
    mask = Image.fromarray(np.clip(share, 0, 255).astype(np.uint8))
    return Image.composite(blurred, view.colour, mask)


def bake(
    mesh: Mesh, atlas: Atlas, painter: Painter, bands: int, step: Callable[[str], None]
) -> tuple[Image.Image, Image.Image]:
    """Base colour and normal map, both RGB and of the atlas's size. Calls `step` after each of `bands` parts."""
    size = atlas.size
    # Red, green, blue, then the tangent-space normal, then whether the texel is covered.
    texels = np.zeros((size * size, 7), np.uint8)
    corners = atlas.texels[atlas.faces]
    middle = np.full((len(atlas.faces), 2), 1 / 3, np.float32)
    for band in range(bands):
        part = slice(*(len(atlas.faces) * k // bands for k in (band, band + 1)))
        for face, texel, weights in _covered(corners[part], size):
            texels[texel] = painter.look(face + part.start, weights, atlas)
        # Faces too small to cover a texel's centre still colour the one they lie in.
        centre = np.clip(corners[part].mean(1).astype(np.int64), 0, size - 1) @ np.array([1, size])
        bare = np.flatnonzero(texels[centre, 6] == 0)
        texels[centre[bare]] = painter.look(bare + part.start, middle[bare], atlas)
        step("Painting the texture")
    pictures = []
    for channels in ([0, 1, 2, 6], [3, 4, 5, 6]):
        pictures.append(fill(Image.fromarray(texels[:, channels].reshape(size, size, 4))))
        step("Filling between the charts")
    return pictures[0], pictures[1]


class Painter:
    """Blends the sources for points of the surface: those that see a place, most frontal first."""

    def __init__(self, mesh: Mesh, seen: list[Source]) -> None:
        self._mesh, self._seen = mesh, seen
        weights = np.stack([_weights(mesh, source) for source in seen], -1)
        self._weights = _evened(mesh, weights)  # (V, sources)

    def look(self, face: Ints, weights: Floats, atlas: Atlas) -> Bytes:
        """The texels (N, 7), see `bake`, that lie in `face` (N,) at barycentric `weights` (N, 2) of its 2nd and 3rd
        corner."""
        corner = self._mesh.faces[face]
        second, third = weights[:, :1], weights[:, 1:]
        points, shares = (
            at[corner[:, 0]] * (1 - second - third)
            + at[corner[:, 1]] * second
            + at[corner[:, 2]] * third
            for at in (self._mesh.points, self._weights)
        )
        colour, tilt = self._blend(points, shares, atlas.direction[face])
        texels = np.full((len(face), 7), 255, np.uint8)
        texels[:, :3] = np.clip(colour + 0.5, 0, 255)
        texels[:, 3:6] = tilt * 127.5 + 128
        return texels

    def _blend(self, points: Floats, weights: Floats, chart: Ints) -> tuple[Floats, Floats]:
        """Colour (N, 3) and tangent-space normal (N, 3) at `points` (N, 3) in charts seen from `chart` (N,).

        `weights` (N, sources) say how well each source sees them.
        """
        colour = np.zeros((len(points), 3), np.float32)
        slope = np.zeros((len(points), 2), np.float32)
        shares = weights / weights.sum(1, keepdims=True)
        for k, source in enumerate(self._seen):
            right, up = RIGHTWARDS[source.direction], UPWARDS[source.direction]
            used = np.flatnonzero(shares[:, k] > 0.004)  # less is not seen in 8 bits
            place, share = points[used], shares[used, k, None]
            values = source.plane.at(place @ right, place @ up)
            colour[used] += share * values[:, :3]
            own = (chart[used] == source.direction)[:, None]
            slope[used] += np.where(own, share, 0) * values[:, 3:]
        tilt = np.concatenate([-slope, np.ones((len(points), 1), np.float32)], 1)
        tilt /= np.sqrt(squared(tilt))[:, None]
        return colour, tilt


def _weights(mesh: Mesh, source: Source) -> Floats:
    """How well each vertex is seen in a source, (V,)."""
    direction, cell = source.direction, 1.5 * mesh.spacing
    axes = np.stack([UPWARDS[direction], RIGHTWARDS[direction]])
    places = np.floor((mesh.points @ axes.T) / np.float32(cell)).astype(np.int64)
    row, column = (places - places.min(0)).T
    depth = mesh.points @ OUTWARDS[direction]
    # How near the mesh comes to the viewer, in cells about as large as a face.
    nearest = np.full((row.max() + 1, column.max() + 1), -np.inf, np.float32)
    np.maximum.at(nearest, (row, column), depth)
    hidden = depth < nearest[row, column] - 3 * cell
    facing = np.maximum(mesh.normals @ OUTWARDS[direction] + np.float32(0.05), np.float32(0.03))
    weight = facing**4 * np.float32(source.trust)
    return np.asarray(np.where(hidden, weight * np.float32(1e-3), weight), np.float32)


def _evened(mesh: Mesh, values: Floats) -> Floats:
    """Values at the vertices (V, K) averaged with their neighbours', a few times: seams become transitions."""
    a, b = mesh.faces.ravel(), np.roll(mesh.faces, 1, axis=1).ravel()
    count = len(mesh.points)
    degree = np.bincount(a, minlength=count)
    for _ in range(4):
        around = [
            np.bincount(a, weights=column[b], minlength=count) / degree for column in values.T
        ]
        values = (values + np.stack(around, -1).astype(np.float32)) / 2
    return values


def _covered(corners: Floats, size: int) -> Iterator[tuple[Ints, Ints, Floats]]:
    """The texels whose centres lie in triangles `corners` (F, 3, 2), some 300 000 at a time: face, texel, barycentric
    weights of the 2nd and 3rd corner. No texel lies in two triangles that share an edge."""
    face, row, left, right = spans(corners)
    begin = np.ceil(left - 0.5).astype(np.int64)
    counts = np.ceil(right - 0.5).astype(np.int64) - begin
    origin, one, two = corners[:, 0], corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    area = one[:, 0] * two[:, 1] - two[:, 0] * one[:, 1]
    area = np.where(area == 0, np.float32(1), area)
    ends = np.cumsum(counts)
    total = int(ends[-1]) if len(ends) else 0
    cuts = np.searchsorted(ends, np.arange(0, total + 300_000, 300_000))
    for start, stop in pairwise(np.append(cuts, len(ends)).tolist()):
        span, column = expand(begin[start:stop], counts[start:stop])
        f, r = face[start:stop][span], row[start:stop][span]
        inside = (column >= 0) & (column < size) & (r >= 0) & (r < size)
        f, r, column = f[inside], r[inside], column[inside]
        dx, dy = column + 0.5 - origin[f, 0], r + 0.5 - origin[f, 1]
        second = (dx * two[f, 1] - two[f, 0] * dy) / area[f]
        third = (one[f, 0] * dy - one[f, 1] * dx) / area[f]
        weights = np.clip(np.stack([second, third], 1), 0, 1).astype(np.float32)
        yield f, r * size + column, weights

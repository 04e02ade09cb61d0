# SPDX-License-Identifier: GPL-3.0-or-later
"""The mesh is cut into charts, each seen straight from one direction, and the charts are packed into the unit square."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ....pixels.grids import Doubles, Floats, Ints, components, expand
from .surface import Mesh

# For each direction from which the model is looked at: where the picture's right, its up and the viewer are. All are
# right-handed, so no chart is mirrored and one convention of the normal map serves them all.
FRONT, RIGHT, BACK, LEFT, TOP, BOTTOM = range(6)
RIGHTWARDS = np.array(
    [[1, 0, 0], [0, 1, 0], [-1, 0, 0], [0, -1, 0], [1, 0, 0], [1, 0, 0]], np.float32
)
UPWARDS = np.array([[0, 0, 1], [0, 0, 1], [0, 0, 1], [0, 0, 1], [0, 1, 0], [0, -1, 0]], np.float32)
OUTWARDS = np.array(
    [[0, -1, 0], [1, 0, 0], [0, 1, 0], [-1, 0, 0], [0, 0, 1], [0, 0, -1]], np.float32
)


@dataclass(frozen=True)
class Atlas:
    """Texture coordinates; a vertex on a seam appears once for every chart that it is part of."""

    vertex: Ints
    """(N,) index into the mesh's points."""
    texels: Floats
    """(N, 2) column and row in the texture, in texels from its top left corner."""
    faces: Ints
    """(F, 3) indices into `vertex`, in the mesh's order of faces."""
    direction: Ints
    """(F,) from where the face's chart is seen."""
    size: int
    """Texels a side."""


def unwrap(mesh: Mesh, directions: list[int], size: int) -> Atlas:
    """Charts of `mesh`, seen from `directions`, packed for a texture of `size` texels a side."""
    corner = mesh.points[mesh.faces]
    normals = np.cross(corner[:, 1] - corner[:, 0], corner[:, 2] - corner[:, 0])
    normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-30)
    a, b = _neighbours(mesh)
    towards = np.asarray(directions)[_labels(normals, a, b, directions)]
    chart = _charts(mesh, towards, a, b, size)
    _, first, chart = np.unique(chart, return_index=True, return_inverse=True)
    count = len(mesh.points)
    keys, faces = np.unique((chart[:, None] * count + mesh.faces).ravel(), return_inverse=True)
    owner, vertex = keys // count, keys % count
    seen = towards[first][owner]
    flat = np.stack(
        [
            (mesh.points[vertex] * RIGHTWARDS[seen]).sum(1),
            -(mesh.points[vertex] * UPWARDS[seen]).sum(1),
        ],
        -1,
    )
    texels = _packed(flat, owner, towards[first], size)
    return Atlas(vertex, texels, faces.reshape(-1, 3), towards, size)


def _neighbours(mesh: Mesh) -> tuple[Ints, Ints]:
    """The two faces of every edge, (E,) each."""
    ends = np.stack([mesh.faces, np.roll(mesh.faces, -1, axis=1)], -1).reshape(-1, 2)
    order = np.argsort(ends.min(1) * len(mesh.points) + ends.max(1), kind="stable") // 3
    return np.asarray(order[0::2]), np.asarray(order[1::2])


def _labels(normals: Floats, a: Ints, b: Ints, directions: list[int]) -> Ints:
    """For every face the index of a direction that it faces, (F,): the most frontal one, evened out with its neighbours'."""
    facing = normals @ OUTWARDS[directions].T
    # What is seen too steeply would have no room in the texture.
    allowed = facing > (0.02 if len(directions) == 2 else 0.3)
    names = facing.argmax(1)
    for _ in range(4):
        votes = np.where(allowed, facing, -9.0)
        for one, other in ((a, b), (b, a)):
            for k in range(len(directions)):
                hits = one[names[other] == k]
                votes[:, k] += 0.4 * np.bincount(hits, minlength=len(names))
        names = np.where(allowed.any(1), votes.argmax(1), facing.argmax(1))
    return np.asarray(names)


def _charts(mesh: Mesh, towards: Ints, a: Ints, b: Ints, size: int) -> Ints:
    """For every face a name of its chart, (F,): connected, seen from one direction, nowhere folded over itself."""
    sheet = np.zeros(len(towards), np.int64)
    flat = np.stack(
        [
            (mesh.points[mesh.faces] * RIGHTWARDS[towards][:, None]).sum(-1),
            (mesh.points[mesh.faces] * UPWARDS[towards][:, None]).sum(-1),
        ],
        -1,
    )
    # As fine as the texture at its densest, and finer for small ones; the largest hold nothing that small.
    lines = min(max(size, 1024), 2048) / float(np.ptp(mesh.points, axis=0).max())
    suspects = np.arange(len(towards))
    while True:
        same = (towards[a] == towards[b]) & (sheet[a] == sheet[b])
        roots = components(len(towards), a[same], b[same])
        # What stays lies apart; what is moved away may still be folded in itself.
        folded = suspects[_folded(flat[suspects] * np.float32(lines), roots[suspects])]
        if not len(folded):
            return roots
        # Faces that lie now before, now behind each other are not told apart by line: they part company altogether.
        tangled = len(folded) == len(suspects)
        sheet[folded] = sheet.max() + 1 + np.arange(len(folded)) if tangled else sheet[folded] + 1
        suspects = folded


def _folded(flat: Floats, chart: Ints) -> Ints:
    """Which of the faces (F, 3, 2) lie over another one of their chart on a scan line: without them none does."""
    face, row, left, right = spans(flat)
    if not len(face):
        return np.asarray(face)
    line = (chart[face] - chart.min()) * (row.max() - row.min() + 1) + row - row.min()
    order = np.lexsort((left, line))
    face, line, left, right = (values[order] for values in (face, line, left, right))
    # The running maximum of `right` on each line, all lines in one go.
    width = float(right.max() - left.min()) + 1
    _, rank = np.unique(line, return_inverse=True)
    reached = np.maximum.accumulate(right - left.min() + rank * width) - rank * width + left.min()
    over = (line[1:] == line[:-1]) & (reached[:-1] - left[1:] > 1e-6)
    return np.asarray(np.unique(face[1:][over]))


def spans(corners: Floats) -> tuple[Ints, Ints, Doubles, Doubles]:
    """Where triangles (F, 3, 2) meet the lines y = k + ½: face, k, and from which x to which x, (S,) each.

    Triangles that share an edge give exactly the same x there.
    """
    x, y = corners[..., 0].astype(np.float64), corners[..., 1].astype(np.float64)
    first = np.ceil(y.min(1) - 0.5).astype(np.int64)
    rows = np.maximum(np.ceil(y.max(1) - 0.5).astype(np.int64) - first, 0)
    face, row = expand(first, rows)
    centre = row + 0.5
    left, right = np.full(len(row), np.inf), np.full(len(row), -np.inf)
    every = np.arange(len(y))
    for k in range(3):
        # The lower end first, so that both faces at an edge compute the same crossing.
        swap = y[:, k] > y[:, k - 1]
        low, high = np.where(swap, k - 1, k), np.where(swap, k, k - 1)
        x0, y0, x1, y1 = x[every, low], y[every, low], x[every, high], y[every, high]
        slope = (x1 - x0) / np.where(y1 > y0, y1 - y0, 1)
        crossing = x0[face] + (centre - y0[face]) * slope[face]
        hit = (centre >= y0[face]) & (centre < y1[face])
        left = np.where(hit, np.minimum(left, crossing), left)
        right = np.where(hit, np.maximum(right, crossing), right)
    used = right > left
    return face[used], row[used], left[used], right[used]


def _packed(flat: Floats, owner: Ints, seen: Ints, size: int) -> Floats:
    """Points of the charts' planes (N, 2) moved into the texture; `owner` (N,), ascending, is the chart."""
    starts = np.searchsorted(owner, np.arange(len(seen)))
    low = np.minimum.reduceat(flat, starts)
    extent = np.maximum.reduceat(flat, starts) - low
    padding = max(2, size // 256)
    best: tuple[float, Floats, Floats] | None = None
    # The back may be shown smaller than the front where that leaves the front more room.
    for share in (1.0, 0.75, 0.5) if not {RIGHT, LEFT} & set(seen.tolist()) else (1.0,):
        factor = np.where(seen == BACK, share, 1.0).astype(np.float32)[:, None]
        scale, corner = _shelves(extent * factor, size, padding)
        if best is None or scale * (1 + 0.5 * share) > best[0]:
            best = scale * (1 + 0.5 * share), factor * np.float32(scale), corner
    assert best is not None
    _, scales, corners = best
    return ((flat - low[owner]) * scales[owner] + corners[owner]).astype(np.float32)


def _shelves(extent: Floats, size: int, padding: int) -> tuple[float, Floats]:
    """The largest scale at which boxes (C, 2) fit into rows from top to bottom, and their corners (C, 2) in texels."""
    order = np.lexsort((-extent[:, 0], -extent[:, 1]))
    low, high = 0.0, 1.02 * (size - 2 * padding) / float(extent.max())
    corners = None
    for _ in range(14):
        scale = (low + high) / 2
        placed = _placed(np.ceil(extent[order] * scale).astype(int) + 2 * padding, size)
        if placed is None:
            high = scale
        else:
            low, corners = scale, placed
    if corners is None:  # more charts than texels: they share what there is
        return low, np.full(extent.shape, size / 2, np.float32)
    result = np.empty(extent.shape, np.float32)
    result[order] = corners + padding
    return low, result


def _placed(boxes: Ints, size: int) -> Floats | None:
    """Corners of boxes (C, 2), highest first, in rows; None if they do not fit."""
    x = y = row = 0
    corners = []
    for width, height in boxes.tolist():
        if x + width > size:
            x, y, row = 0, y + row, 0
        row = row or height
        if x + width > size or y + row > size:
            return None
        corners.append((x, y))
        x += width
    return np.array(corners, np.float32)

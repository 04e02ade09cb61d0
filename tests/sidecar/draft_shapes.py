# SPDX-License-Identifier: GPL-3.0-or-later
"""Pictures made in code, a small GLB reader and mesh measures for the Draft engine's tests."""

from __future__ import annotations

import io
import json
import struct
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from blender_trellis.sidecar.engines.draft import DraftEngine
from blender_trellis.sidecar.engines.stages import Progress, Report

Array = npt.NDArray[Any]

REQUEST = {"resolution": 512, "decimation_target": 8000, "texture_size": 512, "seed": 3}


def run(*images: Image.Image, reports: list[Report] | None = None, **changes: int) -> bytes:
    """The engine's GLB for `images`, with REQUEST changed by `changes`."""
    request = {**REQUEST, **changes}
    engine = DraftEngine()
    listen = (lambda report: None) if reports is None else reports.append
    progress = Progress(engine.plan(request, len(images)), listen, lambda: False)
    return engine.run(request, images, progress)


@dataclass
class Model:
    """What a GLB holds, in Blender's axes (Z up)."""

    document: dict[str, Any]
    points: Array  # (N, 3), as stored, with the seams' duplicates
    normals: Array  # (N, 3)
    uvs: Array  # (N, 2), v from the top
    faces: Array  # (F, 3)
    colour: Array  # (H, W, 3)
    normal_map: Array  # (H, W, 3)

    def merged(self) -> tuple[Array, Array]:
        """Points and faces with equal position and normal made one."""
        both = np.concatenate([self.points, self.normals], 1)
        unique, inverse = np.unique(both, axis=0, return_inverse=True)
        return unique[:, :3], inverse.reshape(-1)[self.faces]

    def colour_at(self, place: Array, facing: Array) -> Array:
        """Base colour (3,) of the face facing `facing` whose middle is nearest to `place`."""
        corner = self.points[self.faces]
        normals = np.cross(corner[:, 1] - corner[:, 0], corner[:, 2] - corner[:, 0])
        away = ((corner.mean(1) - place) ** 2).sum(1)
        away[normals @ facing <= 0] = np.inf
        u, v = self.uvs[self.faces[away.argmin()]].mean(0)
        height, width = self.colour.shape[:2]
        return self.colour[int(v * height), int(u * width)].astype(float)


def read(data: bytes) -> Model:
    """Read a GLB of one primitive with embedded PNGs, checking its container."""
    magic, version, length = struct.unpack_from("<4sII", data)
    assert (magic, version, length) == (b"glTF", 2, len(data)) and length % 4 == 0
    size, kind = struct.unpack_from("<I4s", data, 12)
    assert kind == b"JSON" and size % 4 == 0
    document = json.loads(data[20 : 20 + size])
    rest, kind = struct.unpack_from("<I4s", data, 20 + size)
    assert kind == b"BIN\0" and rest % 4 == 0 and 28 + size + rest == length
    binary = data[28 + size :]

    def view(index: int) -> bytes:
        at = document["bufferViews"][index]
        assert at["byteOffset"] % 4 == 0
        return binary[at["byteOffset"] : at["byteOffset"] + at["byteLength"]]

    def accessor(index: int) -> Array:
        at = document["accessors"][index]
        kind = {5126: "<f4", 5123: "<u2", 5125: "<u4"}[at["componentType"]]
        values = np.frombuffer(view(at["bufferView"]), kind).reshape(at["count"], -1)
        assert values.min(0).tolist() == at["min"] and values.max(0).tolist() == at["max"]
        return values

    def image(index: int) -> Array:
        source = document["images"][document["textures"][index]["source"]]
        assert source["mimeType"] == "image/png"
        picture = Image.open(io.BytesIO(view(source["bufferView"])))
        assert picture.mode == "RGB"
        return np.asarray(picture)

    primitive = document["meshes"][0]["primitives"][0]
    attributes = primitive["attributes"]
    material = document["materials"][primitive["material"]]

    def z_up(vectors: Array) -> Array:
        return np.stack([vectors[:, 0], -vectors[:, 2], vectors[:, 1]], 1)

    return Model(
        document,
        z_up(accessor(attributes["POSITION"])),
        z_up(accessor(attributes["NORMAL"])),
        accessor(attributes["TEXCOORD_0"]),
        accessor(primitive["indices"]).reshape(-1, 3).astype(np.int64),
        image(material["pbrMetallicRoughness"]["baseColorTexture"]["index"]),
        image(material["normalTexture"]["index"]),
    )


def assert_solid(model: Model, genus: int | None = None, parts: int = 1) -> None:
    """One closed, outward wound 2-manifold in the unit cube, of `parts` components with `genus` handles in all."""
    points, faces = model.merged()
    assert len(np.unique(points, axis=0)) == len(points), "one place, two normals"
    assert len(np.unique(np.sort(faces, 1), axis=0)) == len(faces), "a face twice"
    a, b, c = (points[faces[:, k]].astype(float) for k in range(3))
    assert (np.linalg.norm(np.cross(b - a, c - a), axis=1) > 0).all(), "a face without area"
    edges = np.stack([faces, np.roll(faces, -1, 1)], -1).reshape(-1, 2)
    directed, counts = np.unique(edges, axis=0, return_counts=True)
    assert (counts == 1).all(), "an edge wound twice the same way"
    there = set(map(tuple, directed.tolist()))
    assert {(y, x) for x, y in there} == there, "an edge with one face"
    assert fans(faces, len(points)) == 1, "faces that meet only at a vertex"
    assert np.einsum("ij,ij->i", a, np.cross(b, c)).sum() / 6 > 0
    extent = points.max(0) - points.min(0)
    assert np.abs(points).max() <= 0.5 and extent.max() > 0.99
    assert np.abs(points.max(0) + points.min(0)).max() < 1e-5, "not centred"
    assert parts == len(np.unique(spread(len(points), edges)))
    euler = len(points) - len(edges) // 2 + len(faces)
    if genus is not None:
        assert euler == 2 * parts - 2 * genus
    lengths = np.linalg.norm(model.normals, axis=1)
    assert np.abs(lengths - 1).max() < 1e-4


def spread(count: int, edges: Array) -> Array:
    """For every node the smallest one that it is connected with."""
    names = np.arange(count)
    while True:
        before = names.copy()
        np.minimum.at(names, edges[:, 0], names[edges[:, 1]])
        np.minimum.at(names, edges[:, 1], names[edges[:, 0]])
        names = names[names]
        if (names == before).all():
            return names


def fans(faces: Array, count: int) -> int:
    """The most separate fans of faces that any vertex has."""
    corners = faces.ravel()
    after, before = np.roll(faces, -1, 1).ravel(), np.roll(faces, 1, 1).ravel()
    # Two corners at one vertex are neighbours where the edge leaving one is the edge entering the other.
    leaving = np.argsort(corners * count + after)
    entering = np.argsort(corners * count + before)
    roots = spread(len(corners), np.stack([leaving, entering], 1))
    return int(np.bincount(corners[np.unique(roots)]).max())


def volume(model: Model) -> float:
    a, b, c = (model.points[model.faces[:, k]].astype(float) for k in range(3))
    return float(np.einsum("ij,ij->i", a, np.cross(b, c)).sum() / 6)


def projected(model: Model, right: int, up: int, sign: float, size: int) -> Array:
    """Coverage (size, size) of the unit square by the mesh, seen along the third axis."""
    canvas = Image.new("L", (size, size))
    draw = ImageDraw.Draw(canvas)
    flat = np.stack([sign * model.points[:, right] + 0.5, 0.5 - model.points[:, up]], -1) * size
    for triangle in flat[model.faces].reshape(-1, 6).tolist():
        draw.polygon(triangle, fill=255)
    return np.asarray(canvas) > 0


def overlap(model: Model, size: int) -> int:
    """How many sample points of a grid (`size` a side) lie in more than one UV triangle, shrunken a little."""
    corner = model.uvs[model.faces].astype(float) * size
    corner += 0.02 * (corner.mean(1, keepdims=True) - corner)
    low = np.floor(corner.min(1)).astype(int)
    span = int((np.ceil(corner.max(1)) - low).max()) + 1
    counts = np.zeros((size + 1) * (size + 1), int)
    a, b, c = corner[:, 0], corner[:, 1], corner[:, 2]
    for dy in range(span):
        for dx in range(span):
            p = low + [dx, dy] + 0.5
            side = [
                (q[:, 0] - o[:, 0]) * (p[:, 1] - o[:, 1])
                - (q[:, 1] - o[:, 1]) * (p[:, 0] - o[:, 0])
                for o, q in ((a, b), (b, c), (c, a))
            ]
            inside = ((side[0] > 0) & (side[1] > 0) & (side[2] > 0)) | (
                (side[0] < 0) & (side[1] < 0) & (side[2] < 0)
            )
            counts += np.bincount(
                (low[inside, 1] + dy) * (size + 1) + low[inside, 0] + dx, minlength=len(counts)
            )
    return int((counts > 1).sum())


RED, BLUE = (220, 30, 30), (30, 30, 220)


def cutout(*shapes: tuple[str, Any], size: tuple[int, int] = (400, 400)) -> Image.Image:
    """A transparent picture with shapes (ImageDraw's method, coordinates) upper half red and lower half blue.

    A method's name with "-" before it cuts the shape out.
    """
    mask = Image.new("L", size)
    draw = ImageDraw.Draw(mask)
    for name, where in shapes:
        getattr(draw, name.lstrip("-"))(where, fill=0 if name.startswith("-") else 255)
    picture = Image.new("RGBA", size, (*BLUE, 255))
    picture.paste((*RED, 255), (0, 0, size[0], size[1] // 2))
    picture.putalpha(mask)
    return picture


def photo(picture: Image.Image, noise: float) -> Image.Image:
    """The cut-out before a wall of two colours running into each other, with noise, as a decoded JPEG."""
    width, height = picture.size
    y, x = np.mgrid[0:height, 0:width] / max(width, height)
    wall = np.stack([150 + 60 * x, 170 + 40 * y, 200 - 50 * x * y], -1)
    canvas = Image.fromarray(wall.astype(np.uint8))
    canvas.paste(picture.convert("RGB"), mask=picture.getchannel("A"))
    grain = np.random.default_rng(5).normal(0, noise, (height, width, 3))
    noisy = Image.fromarray(np.clip(np.asarray(canvas) + grain, 0, 255).astype(np.uint8))
    file = io.BytesIO()
    noisy.save(file, "JPEG", quality=70)
    return Image.open(file).convert("RGB")


def union(a: Array, b: Array) -> float:
    """Intersection over union of two masks."""
    return float((a & b).sum() / (a | b).sum())


def outline(alpha: Image.Image, size: int) -> Array:
    """The subject of an alpha channel as the model must show it: centred, its longer side filling `size`."""
    box = alpha.point(lambda k: 255 * (k > 127)).getbbox()
    assert box is not None
    subject = alpha.crop(box)
    longer = max(subject.size)
    square = Image.new("L", (longer, longer))
    square.paste(subject, ((longer - subject.width) // 2, (longer - subject.height) // 2))
    return np.asarray(square.resize((size, size), Image.Resampling.BICUBIC)) > 127

# SPDX-License-Identifier: GPL-3.0-or-later
"""A small picture of a GLB without Blender: its triangles as points in their texture's colours, lit from the front.

It is made for telling models apart in an overview. Source: glTF 2.0 specification, sections 3.8 (textures) and 3.9 (materials).
"""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from .gltf import Array, Gltf

_FINER = 2  # times the picture's resolution, so that edges are smooth when it is scaled down
_DENSITY = 1.2  # points for each pixel that a triangle covers
_MARGIN = 0.06  # of the picture's side
_YAW, _PITCH = np.radians(-30), np.radians(20)
_LIGHT = np.array([0.35, 0.55, 0.76])
_AMBIENT = 0.45
_GREY = 0.7  # of what has no colour


def draw(path: Path, side: int) -> Image.Image:
    """The model in a GLB, as RGBA of `side` × `side` pixels, seen a little from above and from its right.

    Raises:
        OSError: it cannot be read.
        ValueError: it has nothing that can be drawn, or is in a form that is not known here, as compressed ones are.
    """
    try:
        parts = list(_Model(path).parts())
    except (KeyError, IndexError, TypeError, struct.error) as error:
        raise ValueError(f"{path.name} is in an unknown form: {error!r}") from error
    if not parts:
        raise ValueError(f"{path.name} has no triangles")
    canvas = side * _FINER
    camera = _camera()
    seen = [(corners @ camera.T, colours) for corners, colours in parts]
    low = np.min([corners.min((0, 1)) for corners, _ in seen], axis=0)
    high = np.max([corners.max((0, 1)) for corners, _ in seen], axis=0)
    scale = canvas * (1 - 2 * _MARGIN) / max(*(high - low)[:2], 1e-9)
    points = [_points((corners - (low + high) / 2) * scale, look) for corners, look in seen]
    place, colour = (np.concatenate(each) for each in zip(*points, strict=True))
    # The nearest are written last. Sixteen bits of depth are enough, and are sorted by their digits
    depth = place[:, 2] - place[:, 2].min()
    steps = (depth * (65535 / max(depth.max(), 1e-9))).astype(np.uint16)
    order = np.argsort(steps, kind="stable")
    x, y = (place[order, :2] * (1, -1) + canvas / 2).astype(np.int32).clip(0, canvas - 2).T
    # Each covers two by two pixels, so that nothing behind is seen between them
    corners = np.array([0, 1, canvas, canvas + 1], np.int32)
    pixels = np.zeros(canvas * canvas, np.uint32)
    pixels[(y * canvas + x)[:, None] + corners] = _packed(colour[order])[:, None]
    seen_pixels = pixels.view(np.uint8).reshape(canvas, canvas, 4)
    picture = Image.fromarray(seen_pixels).convert("RGBa")
    return picture.resize((side, side), Image.Resampling.BOX).convert("RGBA")


def _packed(colours: Array) -> Array:
    """Opaque colours (N, 3) as one number each, whose bytes are R, G, B, A."""
    whole = np.full((len(colours), 4), 255, np.uint8)
    whole[:, :3] = colours
    return whole.view(np.uint32)[:, 0]


def _camera() -> Array:
    """The rotation from the model's axes, Y up and Z to the front, to those of the picture, Z towards the eye."""
    (cos_y, sin_y), (cos_p, sin_p) = ((np.cos(a), np.sin(a)) for a in (_YAW, _PITCH))
    turn = np.array([[cos_y, 0, sin_y], [0, 1, 0], [-sin_y, 0, cos_y]])
    tilt = np.array([[1, 0, 0], [0, cos_p, -sin_p], [0, sin_p, cos_p]])
    return np.asarray(tilt @ turn)


def _points(corners: Array, look: _Look) -> tuple[Array, Array]:
    """Points (N, 3) spread over triangles (F, 3, 3), at least as many as these cover pixels, and their colours (N, 3)."""
    edges = corners[:, 1:] - corners[:, :1]
    normals = np.cross(edges[:, 0], edges[:, 1])
    covered = np.abs(normals[:, 2]) / 2
    counts = np.ceil(covered * _DENSITY).astype(int).clip(1)
    face = np.repeat(np.arange(len(corners)), counts)
    # Roberts' R2 sequence, which leaves smaller gaps than random numbers; folded into the triangle
    number = np.arange(len(face))
    u, v = (number * 0.7548776662466927) % 1, (number * 0.5698402909980532) % 1
    outside = u + v > 1
    u, v = np.where(outside, 1 - u, u), np.where(outside, 1 - v, v)
    weights = np.stack([1 - u - v, u, v], 1)
    place = np.einsum("nk,nkc->nc", weights, corners[face])
    length = np.linalg.norm(normals, axis=1)
    facing = np.abs(normals @ _LIGHT) / np.maximum(length, 1e-12)  # both sides are lit alike
    light = _AMBIENT + (1 - _AMBIENT) * facing
    return place, (look.at(face, weights) * light[face, None]).clip(0, 255).astype(np.uint8)


class _Look:
    """What colours a primitive's triangles: a factor, and a texture where it has one."""

    def __init__(self, factor: Array, texture: Array | None, uvs: Array | None) -> None:
        self._factor, self._texture, self._uvs = factor, texture, uvs

    def at(self, face: Array, weights: Array) -> Array:
        """Colours (N, 3), 0 to 255, of points of faces (N,) by their weights (N, 3)."""
        if self._texture is None or self._uvs is None:
            return np.broadcast_to(255 * self._factor, (len(face), 3))
        uv = np.einsum("nk,nkc->nc", weights, self._uvs[face]) % 1
        height, width = self._texture.shape[:2]
        x = (uv[:, 0] * width).astype(int).clip(0, width - 1)
        y = (uv[:, 1] * height).astype(int).clip(0, height - 1)
        return self._texture[y, x] * self._factor


class _Model:
    """A GLB as its primitives."""

    def __init__(self, path: Path) -> None:
        self._gltf = Gltf(path.read_bytes())
        self._textures: dict[int, Array] = {}

    def parts(self) -> Iterator[tuple[Array, _Look]]:
        """Each primitive's triangles (F, 3, 3), placed, and their look."""
        for primitive, placed in self._gltf.triangles():
            faces = self._gltf.faces(primitive)
            corners = self._gltf.values(primitive["attributes"]["POSITION"])[faces]
            yield corners @ placed[:3, :3].T + placed[:3, 3], self._look(primitive, faces)

    def _look(self, primitive: dict[str, Any], faces: Array) -> _Look:
        material = {}
        if "material" in primitive:
            material = self._gltf.document["materials"][primitive["material"]]
        surface = material.get("pbrMetallicRoughness", {})
        named = surface.get("baseColorTexture")
        plain = [1, 1, 1] if named or "material" in primitive else [_GREY] * 3
        # Colours are mixed as they are stored; a factor is linear, and the square root is near enough to sRGB
        factor = np.sqrt(np.array(surface.get("baseColorFactor", plain)[:3]))
        if not named:
            return _Look(factor, None, None)
        uvs = self._gltf.values(primitive["attributes"][f"TEXCOORD_{named.get('texCoord', 0)}"])
        return _Look(factor, self._texture(named["index"]), uvs[faces])

    def _texture(self, number: int) -> Array:
        """A texture's pixels (H, W, 3)."""
        if number not in self._textures:
            document = self._gltf.document
            texture = document["textures"][number]
            webp = texture.get("extensions", {}).get("EXT_texture_webp", {})
            image = document["images"][webp.get("source", texture.get("source"))]
            with Image.open(io.BytesIO(self._gltf.content(image["bufferView"]))) as picture:
                self._textures[number] = np.asarray(picture.convert("RGB"))
        return self._textures[number]

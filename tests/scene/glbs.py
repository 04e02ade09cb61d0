# SPDX-License-Identifier: GPL-3.0-or-later
"""GLB files made in code: boxes and spheres, textures of noise, materials as the test asks. Y is up, as glTF has it."""

from __future__ import annotations

import io
import json
import struct
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image


@dataclass
class Shape:
    """Triangles with a normal and a UV per vertex; `translation` is its node's."""

    positions: np.ndarray
    normals: np.ndarray
    uvs: np.ndarray
    triangles: np.ndarray
    translation: Sequence[float] = (0.0, 0.0, 0.0)


@dataclass
class Material:
    """`textures` maps baseColor, metallicRoughness and normal to encoded image bytes."""

    textures: dict[str, bytes] = field(default_factory=dict)
    extra: dict[str, Any] = field(default_factory=dict)


def picture(seed: int, size: int = 16, kind: str = "PNG", *, alpha: bool = False) -> bytes:
    """Noise as an encoded image."""
    pixels = np.random.default_rng(seed).integers(0, 256, (size, size, 4 if alpha else 3), np.uint8)
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, kind, **({"lossless": True} if kind == "WEBP" else {}))
    return out.getvalue()


def sphere(
    rings: int, segments: int, radius: float = 0.5, centre: Sequence[float] = (0.0, 0.0, 0.0)
) -> Shape:
    """A UV sphere whose seam vertices exist twice, equal in place and normal, as generators write them."""
    v, u = np.meshgrid(np.linspace(0, 1, rings + 1), np.linspace(0, 1, segments + 1), indexing="ij")
    theta, phi = np.pi * v, 2 * np.pi * (u % 1.0)
    normals = np.stack(
        [np.sin(theta) * np.cos(phi), np.cos(theta), np.sin(theta) * np.sin(phi)], -1
    )
    normals[0], normals[-1] = (0, 1, 0), (0, -1, 0)
    normals = normals.reshape(-1, 3).astype(np.float32)
    a = (np.arange(rings)[:, None] * (segments + 1) + np.arange(segments)).ravel()
    b = a + segments + 1
    upper, lower = np.stack([a, a + 1, b + 1], -1), np.stack([a, b + 1, b], -1)
    triangles = np.concatenate([upper[segments:], lower[:-segments]])
    uvs = np.stack([u, v], -1).reshape(-1, 2).astype(np.float32)
    return Shape(normals * radius + np.float32(centre), normals, uvs, triangles.astype(np.uint32))


def box(size: Sequence[float], centre: Sequence[float] = (0.0, 0.0, 0.0)) -> Shape:
    """A box with hard edges: every corner exists three times."""
    positions, normals, triangles = [], [], []
    for axis in range(3):
        for sign in (-1.0, 1.0):
            normal = np.zeros(3)
            normal[axis] = sign
            across, up = np.roll(np.eye(3), 1, 0)[axis], np.roll(np.eye(3), 2, 0)[axis]
            first = len(positions)
            corners = [(-1, -1), (1, -1), (1, 1), (-1, 1)]
            face = [normal + i * across + j * up for i, j in corners]
            if np.dot(np.cross(face[1] - face[0], face[2] - face[0]), normal) < 0:
                face.reverse()
            positions += face
            normals += [normal] * 4
            triangles += [[first, first + 1, first + 2], [first, first + 2, first + 3]]
    uvs = np.tile([[0, 0], [1, 0], [1, 1], [0, 1]], (6, 1))
    return Shape(
        (np.array(positions) * 0.5 * np.array(size) + np.array(centre)).astype(np.float32),
        np.array(normals, np.float32),
        uvs.astype(np.float32),
        np.array(triangles, np.uint32),
    )


class _Buffer:
    def __init__(self) -> None:
        self.data = bytearray()
        self.views: list[dict[str, int]] = []
        self.accessors: list[dict[str, Any]] = []

    def view(self, data: bytes) -> int:
        self.data += b"\0" * (-len(self.data) % 4)
        self.views.append({"buffer": 0, "byteOffset": len(self.data), "byteLength": len(data)})
        self.data += data
        return len(self.views) - 1

    def accessor(self, array: np.ndarray, kind: str) -> int:
        component = 5125 if array.dtype == np.uint32 else 5126
        entry: dict[str, Any] = {
            "bufferView": self.view(array.tobytes()),
            "componentType": component,
            "count": array.size if kind == "SCALAR" else len(array),
            "type": kind,
        }
        if kind == "VEC3":
            entry |= {"min": array.min(0).tolist(), "max": array.max(0).tolist()}
        self.accessors.append(entry)
        return len(self.accessors) - 1


def _material(material: Material, buffer: _Buffer, gltf: dict[str, Any]) -> dict[str, Any]:
    slots = {}
    for role, data in material.textures.items():
        webp = data[8:12] == b"WEBP"
        mime = "image/webp" if webp else "image/png"
        gltf["images"].append({"bufferView": buffer.view(data), "mimeType": mime})
        source = {"source": len(gltf["images"]) - 1}
        gltf["textures"].append({"extensions": {"EXT_texture_webp": source}} if webp else source)
        if webp:
            gltf["extensionsUsed"] = gltf["extensionsRequired"] = ["EXT_texture_webp"]
        slots[role + "Texture"] = {"index": len(gltf["textures"]) - 1}
    out: dict[str, Any] = {"name": "material_0", **material.extra}
    if "normalTexture" in slots:
        out["normalTexture"] = slots.pop("normalTexture")
    out["pbrMetallicRoughness"] = slots
    return out


def write(
    path: Path, shapes: Sequence[Shape], material: Material | None = None, **top: Any
) -> Path:
    """Write `shapes`, a node each, that share `material`; `top` adds or replaces keys of the JSON."""
    buffer = _Buffer()
    gltf: dict[str, Any] = {"asset": {"version": "2.0"}, "images": [], "textures": []}
    gltf["materials"] = [_material(material or Material(), buffer, gltf)]
    gltf["meshes"], gltf["nodes"] = [], []
    for index, shape in enumerate(shapes):
        attributes = {
            "POSITION": buffer.accessor(shape.positions, "VEC3"),
            "NORMAL": buffer.accessor(shape.normals, "VEC3"),
            "TEXCOORD_0": buffer.accessor(shape.uvs, "VEC2"),
        }
        primitive = {
            "attributes": attributes,
            "indices": buffer.accessor(shape.triangles, "SCALAR"),
            "material": 0,
        }
        gltf["meshes"].append({"name": f"geometry_{index}", "primitives": [primitive]})
        node = {"mesh": index, "name": f"part {index}", "translation": list(shape.translation)}
        gltf["nodes"].append(node)
    count = len(shapes)
    gltf["nodes"].append(
        {"name": "world", "children": list(range(count)), "translation": [0, 1, 0]}
    )
    gltf |= {"scenes": [{"nodes": [count]}], "scene": 0}
    gltf |= {"bufferViews": buffer.views, "accessors": buffer.accessors} | top
    gltf["buffers"] = [{"byteLength": len(buffer.data)}]
    gltf = {key: value for key, value in gltf.items() if value != []}
    text = json.dumps(gltf).encode()
    text += b" " * (-len(text) % 4)
    binary = bytes(buffer.data) + b"\0" * (-len(buffer.data) % 4)
    total = 12 + 8 + len(text) + 8 + len(binary)
    path.write_bytes(
        struct.pack("<4sII", b"glTF", 2, total)
        + struct.pack("<I4s", len(text), b"JSON")
        + text
        + struct.pack("<I4s", len(binary), b"BIN\0")
        + binary
    )
    return path


def read(glb: bytes) -> tuple[dict[str, Any], Shape]:
    """The JSON and the one mesh of a GLB of Blender's exporter."""
    (length,) = struct.unpack_from("<I", glb, 12)
    gltf, binary = json.loads(glb[20 : 20 + length]), glb[28 + length :]

    def array(number: int) -> np.ndarray:
        accessor = gltf["accessors"][number]
        view = gltf["bufferViews"][accessor["bufferView"]]
        kind = {5123: np.uint16, 5125: np.uint32, 5126: np.float32}[accessor["componentType"]]
        width = {"SCALAR": 1, "VEC2": 2, "VEC3": 3}[accessor["type"]]
        flat = np.frombuffer(binary, kind, accessor["count"] * width, view.get("byteOffset", 0))
        return flat.reshape(-1, width)

    (mesh,) = gltf["meshes"]
    (primitive,) = mesh["primitives"]
    has = {name: array(number) for name, number in primitive["attributes"].items()}
    triangles = array(primitive["indices"]).reshape(-1, 3).astype(np.uint32)
    return gltf, Shape(has["POSITION"], has["NORMAL"], has["TEXCOORD_0"], triangles)


def repaint(glb: bytes) -> bytes:
    """What a service makes of a mesh that it was sent: the same shape, one unit long, somewhere else, with a texture."""
    _, shape = read(glb)
    low, high = shape.positions.min(0), shape.positions.max(0)
    shape.positions = (shape.positions - (low + high) / 2) / (high - low).max() + 7
    material = Material({"baseColor": picture(1), "normal": picture(2)})
    with tempfile.TemporaryDirectory() as folder:
        return write(Path(folder) / "painted.glb", [shape], material).read_bytes()

# SPDX-License-Identifier: GPL-3.0-or-later
"""Writes one textured mesh as binary glTF 2.0 (Khronos Group, "glTF 2.0 Specification", 2021)."""

from __future__ import annotations

import json
import struct
from typing import Any

import numpy as np
import numpy.typing as npt

from .grids import Floats, Ints

_ARRAY_BUFFER, _ELEMENT_ARRAY_BUFFER = 34962, 34963
_COMPONENTS = {"float32": 5126, "uint16": 5123, "uint32": 5125}
_LINEAR_MIPMAP_LINEAR, _LINEAR, _CLAMP_TO_EDGE = 9987, 9729, 33071


def encode(
    *,
    positions: Floats,
    normals: Floats,
    uvs: Floats,
    faces: Ints,
    colour: bytes,
    normal: bytes,
    extras: dict[str, Any],
) -> bytes:
    """A GLB with one node and mesh, both named "model".

    Args:
        positions: (N, 3), Y up; normals: (N, 3); uvs: (N, 2), from the top left; faces: (F, 3).
        colour: base colour, PNG; normal: tangent-space normals, PNG.
        extras: kept in `asset.extras`.
    """
    binary = _Binary()
    attributes = {
        "POSITION": binary.accessor(positions, "VEC3", _ARRAY_BUFFER),
        "NORMAL": binary.accessor(normals, "VEC3", _ARRAY_BUFFER),
        "TEXCOORD_0": binary.accessor(uvs, "VEC2", _ARRAY_BUFFER),
    }
    # 65535 restarts a primitive, so 16 bits do for at most that many vertices.
    wide = np.uint16 if len(positions) <= 65535 else np.uint32
    indices = binary.accessor(faces.astype(wide).reshape(-1, 1), "SCALAR", _ELEMENT_ARRAY_BUFFER)
    images = [
        {"name": name, "mimeType": "image/png", "bufferView": binary.view(data)}
        for name, data in (("base_color", colour), ("normal", normal))
    ]
    document = {
        "asset": {
            "version": "2.0",
            "generator": "Trellis for Blender, Draft engine",
            "extras": extras,
        },
        "scene": 0,
        "scenes": [{"nodes": [0]}],
        "nodes": [{"name": "model", "mesh": 0}],
        "meshes": [
            {
                "name": "model",
                "primitives": [{"attributes": attributes, "indices": indices, "material": 0}],
            }
        ],
        "materials": [_MATERIAL],
        "textures": [{"source": 0, "sampler": 0}, {"source": 1, "sampler": 0}],
        "images": images,
        "samplers": [
            {
                "minFilter": _LINEAR_MIPMAP_LINEAR,
                "magFilter": _LINEAR,
                "wrapS": _CLAMP_TO_EDGE,
                "wrapT": _CLAMP_TO_EDGE,
            }
        ],
        "accessors": binary.accessors,
        "bufferViews": binary.views,
        "buffers": [{"byteLength": len(binary.data)}],
    }
    return _container(json.dumps(document, separators=(",", ":")).encode(), bytes(binary.data))


_MATERIAL = {
    "name": "model",
    "pbrMetallicRoughness": {
        "baseColorTexture": {"index": 0},
        "metallicFactor": 0.0,
        "roughnessFactor": 0.7,
    },
    "normalTexture": {"index": 1},
    "alphaMode": "OPAQUE",
    "doubleSided": False,
}


class _Binary:
    """The binary chunk as it grows, with its views and accessors."""

    def __init__(self) -> None:
        self.data = bytearray()
        self.views: list[dict[str, Any]] = []
        self.accessors: list[dict[str, Any]] = []

    def view(self, data: bytes, target: int | None = None) -> int:
        self.views.append({"buffer": 0, "byteOffset": len(self.data), "byteLength": len(data)})
        if target is not None:
            self.views[-1]["target"] = target
        self.data += data
        self.data += bytes(-len(self.data) % 4)
        return len(self.views) - 1

    def accessor(self, values: npt.NDArray[Any], kind: str, target: int) -> int:
        """Accessor of `values` (N, components)."""
        little = values.astype(values.dtype.newbyteorder("<"))
        self.accessors.append(
            {
                "bufferView": self.view(little.tobytes(), target),
                "componentType": _COMPONENTS[values.dtype.name],
                "count": len(values),
                "type": kind,
                "min": values.min(0).tolist(),
                "max": values.max(0).tolist(),
            }
        )
        return len(self.accessors) - 1


def _container(document: bytes, binary: bytes) -> bytes:
    document += b" " * (-len(document) % 4)
    length = 12 + 8 + len(document) + 8 + len(binary)
    return b"".join(
        [
            struct.pack("<4sII", b"glTF", 2, length),
            struct.pack("<I4s", len(document), b"JSON"),
            document,
            struct.pack("<I4s", len(binary), b"BIN\0"),
            binary,
        ]
    )

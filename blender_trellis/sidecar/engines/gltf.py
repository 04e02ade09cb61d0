# SPDX-License-Identifier: GPL-3.0-or-later
"""Writes one textured mesh as binary glTF 2.0 (Khronos Group, "glTF 2.0 Specification", 2021)."""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

_ARRAY_BUFFER, _ELEMENT_ARRAY_BUFFER = 34962, 34963
_COMPONENTS = {"float32": 5126, "uint16": 5123, "uint32": 5125}
_LINEAR_MIPMAP_LINEAR, _LINEAR, _CLAMP_TO_EDGE = 9987, 9729, 33071
_WEBP = "EXT_texture_webp"

Array = npt.NDArray[Any]


@dataclass(frozen=True, kw_only=True)
class Material:
    """How the surface looks. The pictures are encoded, as PNG or WebP; a texture's values are multiplied by its factor."""

    colour: bytes
    """Base colour, sRGB, and alpha if it has that."""
    metallic_roughness: bytes | None = None
    """Roughness in green, metallic in blue."""
    normal: bytes | None = None
    """Tangent-space normals."""
    metallic: float = 1.0
    roughness: float = 1.0
    alpha_mode: Literal["OPAQUE", "BLEND"] = "OPAQUE"
    double_sided: bool = False


def encode(
    *,
    generator: str,
    extras: dict[str, Any],
    positions: Array,
    normals: Array,
    faces: Array,
    uvs: Array | None = None,
    material: Material | None = None,
) -> bytes:
    """A GLB with one node, mesh and material, each named "model"; without a material if there is none.

    Args:
        generator: the program's name; extras: kept in `asset.extras`.
        positions: (N, 3) float32, Y up; normals: (N, 3) float32; faces: (F, 3).
        uvs: (N, 2) float32, from the top left.
    """
    binary = _Binary()
    attributes = {
        "POSITION": binary.accessor(positions, "VEC3", _ARRAY_BUFFER),
        "NORMAL": binary.accessor(normals, "VEC3", _ARRAY_BUFFER),
    }
    if uvs is not None:
        attributes["TEXCOORD_0"] = binary.accessor(uvs, "VEC2", _ARRAY_BUFFER)
    # 65535 restarts a primitive, so 16 bits do for at most that many vertices.
    wide = np.uint16 if len(positions) <= 65535 else np.uint32
    indices = binary.accessor(faces.astype(wide).reshape(-1, 1), "SCALAR", _ELEMENT_ARRAY_BUFFER)
    primitive: dict[str, Any] = {"attributes": attributes, "indices": indices}
    document = {
        "asset": {"version": "2.0", "generator": generator, "extras": extras},
        "scene": 0,
        "scenes": [{"nodes": [0]}],
        "nodes": [{"name": "model", "mesh": 0}],
        "meshes": [{"name": "model", "primitives": [primitive]}],
    }
    if material is not None:
        primitive["material"] = 0
        document |= _look(material, binary)
    document |= {
        "accessors": binary.accessors,
        "bufferViews": binary.views,
        "buffers": [{"byteLength": len(binary.data)}],
    }
    return _container(json.dumps(document, separators=(",", ":")).encode(), bytes(binary.data))


def _look(material: Material, binary: _Binary) -> dict[str, Any]:
    """The document's entries for `material`, whose pictures go into `binary`."""
    images: list[dict[str, Any]] = []
    textures: list[dict[str, Any]] = []

    def texture(name: str, data: bytes) -> dict[str, int]:
        webp = data[8:12] == b"WEBP"
        source = {"source": len(images)}
        textures.append(({"extensions": {_WEBP: source}} if webp else source) | {"sampler": 0})
        kind = "image/webp" if webp else "image/png"
        images.append({"name": name, "mimeType": kind, "bufferView": binary.view(data)})
        return {"index": len(textures) - 1}

    surface: dict[str, Any] = {"baseColorTexture": texture("base_color", material.colour)}
    if material.metallic_roughness is not None:
        picture = texture("metallic_roughness", material.metallic_roughness)
        surface["metallicRoughnessTexture"] = picture
    surface |= {"metallicFactor": material.metallic, "roughnessFactor": material.roughness}
    entry: dict[str, Any] = {"name": "model", "pbrMetallicRoughness": surface}
    if material.normal is not None:
        entry["normalTexture"] = texture("normal", material.normal)
    entry |= {"alphaMode": material.alpha_mode, "doubleSided": material.double_sided}
    sampler = {
        "minFilter": _LINEAR_MIPMAP_LINEAR,
        "magFilter": _LINEAR,
        "wrapS": _CLAMP_TO_EDGE,
        "wrapT": _CLAMP_TO_EDGE,
    }
    found: dict[str, Any] = {"materials": [entry], "textures": textures, "images": images}
    found["samplers"] = [sampler]
    if any("extensions" in item for item in textures):
        found |= {"extensionsUsed": [_WEBP], "extensionsRequired": [_WEBP]}
    return found


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

    def accessor(self, values: Array, kind: str, target: int) -> int:
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

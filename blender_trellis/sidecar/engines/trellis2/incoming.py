# SPDX-License-Identifier: GPL-3.0-or-later
"""A model that is to be textured anew: read from a GLB, and placed as the networks know models.

Source: glTF 2.0 specification, sections 3.5 (transformations), 3.6 (accessors), 3.7 (meshes) and 4 (GLB).
"""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..stages import EngineError
from .mesh import Atlas, MeshOptions, Surface, unwrap
from .mesh.surface import Step
from .volume import Floats, Ints

_FILL = 0.99999
"""The side of the unit cube that a model's longest side fills; officially so."""

_KINDS = {5121: "<u1", 5123: "<u2", 5125: "<u4", 5126: "<f4"}
_WIDTHS = {"SCALAR": 1, "VEC2": 2, "VEC3": 3}


@dataclass(frozen=True)
class Model:
    """A triangle mesh in Blender's axes, Z up. Points on UV seams stand once for each place in the texture.

    `uvs` is (V, 2), v from the top, None where the model has no UVs for all of it in the unit square. `normals` is (V, 3),
    None where it lacks some.
    """

    points: Floats
    faces: Ints
    uvs: Floats | None = None
    normals: Floats | None = None

    def welded(self) -> tuple[Floats, Ints]:
        """Points and faces with equal points made one."""
        points, index = np.unique(self.points, axis=0, return_inverse=True)
        return points, index.reshape(-1)[self.faces].astype(np.int32)

    def laid_out(self, options: MeshOptions, step: Step) -> tuple[Surface, Atlas, Floats | None]:
        """The mesh, its places in the texture, by its UVs or by new ones, and the normals (N, 3) of those places."""
        if self.uvs is not None:
            surface = Surface(self.points.astype(np.float32), self.faces)
            texels = np.asarray(self.uvs * options.texture_size, np.float64)
            vertex = np.arange(len(self.points))
            atlas = Atlas(vertex, texels, self.faces, options.texture_size)
            return surface, atlas, self.normals
        points, faces = self.welded()
        surface = Surface(points.astype(np.float32), faces)
        atlas = unwrap(surface, options, step)
        if self.normals is None:
            return surface, atlas, None
        # Faces that share a place in the texture may still have an edge with two normals between them
        pairs = np.stack([atlas.faces.ravel(), self.faces.ravel()], 1)
        pairs, corner = np.unique(pairs, axis=0, return_inverse=True)
        place, own = pairs.T
        corner = corner.reshape(-1, 3)
        split = Atlas(atlas.vertex[place], atlas.texels[place], corner, atlas.size)
        return surface, split, self.normals[own]


_NOTHING = Model(np.zeros((0, 3)), np.zeros((0, 3), np.int32))


def read(data: bytes) -> Model:
    """The model in a GLB, centred in the cube from -0.5 to 0.5, which its longest side fills.

    Raises:
        EngineError: it cannot be read, or has no faces.
    """
    try:
        model = _Document.of(data).model()
    except (
        struct.error,
        ValueError,
        LookupError,
        TypeError,
        AttributeError,
        OverflowError,
        RecursionError,
    ) as error:
        raise EngineError(f"The model cannot be read: {error}", "mesh_url") from error
    if len(model.faces) == 0 or not np.isfinite(model.points).all():
        raise EngineError("The model has no faces to give a texture.", "mesh_url")
    used = model.points[model.faces].reshape(-1, 3)
    low, high = used.min(0), used.max(0)
    if not (high > low).any():
        raise EngineError("The model has no size.", "mesh_url")
    scale = _FILL / float((high - low).max())
    points = ((model.points - (low + high) / 2) * scale).astype(np.float32)
    return replace(model, points=points)


class _Document:
    def __init__(self, document: dict[str, Any], binary: bytes) -> None:
        self._document = document
        self._binary = binary

    @classmethod
    def of(cls, data: bytes) -> _Document:
        magic, version, _ = struct.unpack_from("<4sII", data)
        if magic != b"glTF" or version != 2:
            raise ValueError("it is no GLB of version 2")
        size = struct.unpack_from("<I", data, 12)[0]
        document = json.loads(data[20 : 20 + size])
        if required := document.get("extensionsRequired"):
            known = {"KHR_texture_transform", "EXT_texture_webp", "KHR_materials_unlit"}
            if unknown := sorted(set(required) - known):
                raise ValueError(f"it needs {', '.join(unknown)}; export it without compression")
        return cls(document, data[28 + size :])

    def model(self) -> Model:
        """All triangles of the scene, as one mesh."""
        nodes, parts = self._document.get("nodes", []), []
        scenes = self._document.get("scenes")
        roots = range(len(nodes))
        if scenes:
            roots = scenes[self._document.get("scene", 0)].get("nodes", [])
        waiting = [(root, np.eye(4)) for root in roots]
        for _ in range(len(nodes)):  # a tree visits none twice
            if not waiting:
                break
            number, above = waiting.pop()
            matrix = above @ _matrix(nodes[number])
            waiting += [(child, matrix) for child in nodes[number].get("children", [])]
            if "mesh" in nodes[number]:
                mesh = self._document["meshes"][nodes[number]["mesh"]]
                parts += [self._part(each, matrix) for each in mesh["primitives"]]
        parts = [part for part in parts if len(part.faces)]
        if not parts:
            return _NOTHING
        starts = np.cumsum([0, *(len(part.points) for part in parts)])
        faces = [part.faces + start for part, start in zip(parts, starts[:-1], strict=True)]
        return Model(
            np.concatenate([part.points for part in parts]),
            np.concatenate(faces).astype(np.int32),
            _joined([part.uvs for part in parts]),
            _joined([part.normals for part in parts]),
        )

    def _part(self, primitive: dict[str, Any], matrix: Floats) -> Model:
        if primitive.get("mode", 4) != 4:  # no triangles
            return _NOTHING
        attributes = primitive["attributes"]
        points = self._accessor(attributes["POSITION"])
        points = _z_up(points @ matrix[:3, :3].T + matrix[:3, 3])
        if "indices" in primitive:
            corners = self._accessor(primitive["indices"])[:, 0].astype(np.int64)
        else:
            corners = np.arange(len(points))
        faces = corners[: len(corners) // 3 * 3].reshape(-1, 3)
        if faces.size and not 0 <= faces.min() <= faces.max() < len(points):
            raise ValueError("a face has a corner that does not exist")
        if np.linalg.det(matrix[:3, :3]) < 0:
            faces = faces[:, ::-1]
        uvs = None
        if "TEXCOORD_0" in attributes:
            found = self._accessor(attributes["TEXCOORD_0"])
            inside = found.shape == (len(points), 2) and 0 <= found.min() <= found.max() <= 1
            uvs = found if inside else None
        normals = None
        if "NORMAL" in attributes:
            turned = self._accessor(attributes["NORMAL"]) @ np.linalg.pinv(matrix[:3, :3])
            lengths = np.linalg.norm(turned, axis=1, keepdims=True)
            normals = _z_up(turned / np.maximum(lengths, 1e-30))
        return Model(points, faces, uvs, normals)

    def _accessor(self, number: int) -> Floats:
        """Its values (N, width), float64; whole numbers as they are unless they stand for 0 to 1."""
        accessor = self._document["accessors"][number]
        if "sparse" in accessor or "bufferView" not in accessor:
            raise ValueError("it has sparse data, which is not read here")
        view = self._document["bufferViews"][accessor["bufferView"]]
        kind = np.dtype(_KINDS[accessor["componentType"]])
        count, width = accessor["count"], _WIDTHS[accessor["type"]]
        stride = view.get("byteStride", width * kind.itemsize)
        start = view.get("byteOffset", 0) + accessor.get("byteOffset", 0)
        values: Floats = np.ndarray(
            (count, width), kind, self._binary, start, (stride, kind.itemsize)
        )
        most = np.iinfo(kind).max if accessor.get("normalized") else 1
        return values.astype(np.float64) / most


def _joined(parts: list[Floats | None]) -> Floats | None:
    there = [part for part in parts if part is not None]
    return np.concatenate(there) if len(there) == len(parts) else None


def _z_up(vectors: Floats) -> Floats:
    """From glTF's axes to Blender's."""
    return np.stack([vectors[:, 0], -vectors[:, 2], vectors[:, 1]], 1)


def _matrix(node: dict[str, Any]) -> Floats:
    """A node's transformation (4, 4)."""
    if "matrix" in node:
        return np.array(node["matrix"], float).reshape(4, 4).T
    x, y, z, w = node.get("rotation", (0, 0, 0, 1))
    turn = np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
            [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
            [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
        ]
    )
    matrix = np.eye(4)
    matrix[:3, :3] = turn * np.array(node.get("scale", (1, 1, 1)))
    matrix[:3, 3] = node.get("translation", (0, 0, 0))
    return matrix

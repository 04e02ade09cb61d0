# SPDX-License-Identifier: GPL-3.0-or-later
"""A GLB as its triangles: the numbers of their corners, and where the scene has them. What cannot be read raises what it happens
to raise: KeyError, IndexError, TypeError, ValueError and the like.

Source: glTF 2.0 specification, sections 3.5 (nodes), 3.6 (accessors), 3.7 (meshes) and 4 (GLB).
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

_TRIANGLES = 4
_KINDS = {5121: "<u1", 5123: "<u2", 5125: "<u4", 5126: "<f4"}
_WIDTHS = {"SCALAR": 1, "VEC2": 2, "VEC3": 3, "VEC4": 4}

Array = npt.NDArray[Any]


class Gltf:
    """The file `data`; `document` is its description."""

    def __init__(self, data: bytes) -> None:
        length = struct.unpack_from("<I", data, 12)[0]
        self.document: dict[str, Any] = json.loads(data[20 : 20 + length])
        self._binary = memoryview(data)[28 + length :]

    def triangles(self) -> Iterator[tuple[dict[str, Any], Array]]:
        """Each primitive that consists of triangles, with the matrix (4, 4) that places it in the scene; as often as it stands
        there."""
        nodes, scenes = self.document.get("nodes", []), self.document.get("scenes")
        roots = range(len(nodes))
        if scenes:
            roots = scenes[self.document.get("scene", 0)].get("nodes", [])
        waiting = [(root, np.eye(4)) for root in roots]
        for _ in range(len(nodes)):  # a tree visits none twice
            if not waiting:
                break
            number, above = waiting.pop()
            node = nodes[number]
            placed = above @ _matrix(node)
            waiting += [(child, placed) for child in node.get("children", [])]
            if "mesh" in node:
                for primitive in self.document["meshes"][node["mesh"]]["primitives"]:
                    if primitive.get("mode", _TRIANGLES) == _TRIANGLES:
                        yield primitive, placed

    def faces(self, primitive: dict[str, Any]) -> Array:
        """The corners (F, 3) of its triangles: indices into its attributes, int64."""
        if "indices" in primitive:
            corners = self.values(primitive["indices"])[:, 0].astype(np.int64)
        else:
            points = self.document["accessors"][primitive["attributes"]["POSITION"]]
            corners = np.arange(points["count"])
        return corners[: len(corners) // 3 * 3].reshape(-1, 3)

    def values(self, number: int) -> Array:
        """Those of an accessor (N, width), float64; whole numbers as they are unless they stand for 0 to 1."""
        accessor = self.document["accessors"][number]
        if "sparse" in accessor or "bufferView" not in accessor:
            raise ValueError("it has sparse data, which is not read here")
        view = self.document["bufferViews"][accessor["bufferView"]]
        kind, width = np.dtype(_KINDS[accessor["componentType"]]), _WIDTHS[accessor["type"]]
        start = view.get("byteOffset", 0) + accessor.get("byteOffset", 0)
        stride = view.get("byteStride", width * kind.itemsize)
        shape, strides = (accessor["count"], width), (stride, kind.itemsize)
        values: Array = np.ndarray(shape, kind, self._binary, start, strides)
        most = np.iinfo(kind).max if accessor.get("normalized") else 1
        return values.astype(np.float64) / most

    def content(self, number: int) -> bytes:
        """What a buffer view holds."""
        view = self.document["bufferViews"][number]
        start = view.get("byteOffset", 0)
        return bytes(self._binary[start : start + view["byteLength"]])


def _matrix(node: dict[str, Any]) -> Array:
    """A node's transformation (4, 4)."""
    if "matrix" in node:
        return np.array(node["matrix"], np.float64).reshape(4, 4).T
    x, y, z, w = node.get("rotation", (0, 0, 0, 1))
    turn = np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
            [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
            [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
        ]
    )
    made = np.eye(4)
    made[:3, :3] = turn * np.array(node.get("scale", (1, 1, 1)))
    made[:3, 3] = node.get("translation", (0, 0, 0))
    return made

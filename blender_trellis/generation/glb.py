# SPDX-License-Identifier: GPL-3.0-or-later
"""Checks that a file is a whole, self-contained GLB before anything else opens it.

Source: glTF 2.0 specification, sections 3.6 (buffers, accessors) and 4 (GLB file format).
"""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from ..errors import ResultError

MAGIC = b"glTF"
_JSON, _BIN = 0x4E4F534A, 0x004E4942
_MAX_JSON = 64 * 2**20
_COMPONENT_BYTES = {5120: 1, 5121: 1, 5122: 2, 5123: 2, 5125: 4, 5126: 4}
_COMPONENTS = {"SCALAR": 1, "VEC2": 2, "VEC3": 3, "VEC4": 4, "MAT2": 4, "MAT3": 9, "MAT4": 16}


@dataclass(frozen=True)
class Summary:
    """What a GLB holds. `vertices` and `triangles` count every primitive once."""

    bytes: int
    meshes: int
    vertices: int
    triangles: int
    images: int


def check(path: Path) -> Summary:
    """What the GLB at `path` holds.

    Raises:
        ResultError: it is not a GLB, it is cut off, a count points outside of it, or it refers to other files.
    """
    try:
        with path.open("rb") as file:
            document, binary = _chunks(file, path.stat().st_size)
        return _Document(document, binary).summary(path.stat().st_size)
    except _Broken as reason:
        raise ResultError(
            f"The service delivered a broken GLB: {reason}. Generate again."
        ) from reason
    except (KeyError, IndexError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise ResultError(
            f"The service delivered a GLB whose description makes no sense ({type(error).__name__}: {error}). "
            "Generate again."
        ) from error


class _Broken(Exception):
    """Why a file is no good, as the end of a sentence."""


def _require(condition: bool, reason: str) -> None:
    if not condition:
        raise _Broken(reason)


def _chunks(file: BinaryIO, size: int) -> tuple[Any, int]:
    """The parsed JSON chunk, and the length of the BIN chunk."""
    header = file.read(12)
    _require(header[:4] == MAGIC, "it does not begin with the letters glTF")
    _require(len(header) == 12, "it ends within its header")
    version, length = struct.unpack("<II", header[4:])
    _require(version == 2, f"its version is {version}, not 2")
    _require(length == size, f"it says that it has {length} bytes and has {size}")
    document, binary, position, number = None, 0, 12, 0
    while position < size:
        head = file.read(8)
        _require(len(head) == 8, "it ends within a chunk's header")
        chunk_length, kind = struct.unpack("<II", head)
        position += 8 + chunk_length
        _require(chunk_length % 4 == 0, "a chunk is not aligned to four bytes")
        _require(position <= size, "a chunk is longer than the file")
        if number == 0:
            _require(kind == _JSON, "its first chunk is not JSON")
            _require(chunk_length <= _MAX_JSON, "its JSON is larger than any real model's")
            document = json.loads(file.read(chunk_length).decode("utf-8"))
        else:
            _require(kind != _JSON, "it has a second JSON chunk")
            if kind == _BIN:
                _require(number == 1, "its BIN chunk is not the second")
                binary = chunk_length
            file.seek(position)
        number += 1
    _require(isinstance(document, dict), "it holds no description of a model")
    return document, binary


class _Document:
    """A glTF document whose buffers lie in a BIN chunk of `binary` bytes."""

    def __init__(self, document: dict[str, Any], binary: int) -> None:
        self._lists = {
            key: document.get(key, [])
            for key in ("buffers", "bufferViews", "accessors", "images", "meshes")
        }
        self._binary = binary

    def _at(self, key: str, index: Any) -> dict[str, Any]:
        items = self._lists[key]
        inside = isinstance(index, int) and not isinstance(index, bool) and 0 <= index < len(items)
        _require(inside, f"it names entry {index!r} of {len(items)} {key}")
        item = items[index]
        _require(isinstance(item, dict), f"an entry of its {key} is no object")
        return dict(item)

    def summary(self, size: int) -> Summary:
        """Checks everything, and counts."""
        for number, buffer in enumerate(self._lists["buffers"]):
            _require(number == 0 and "uri" not in buffer, "it refers to a buffer outside of itself")
            # The BIN chunk may be up to three bytes longer, for its alignment
            _require(
                0 <= buffer["byteLength"] <= self._binary, "its buffer is longer than its BIN chunk"
            )
        for number in range(len(self._lists["bufferViews"])):
            self._view(number)
        for number in range(len(self._lists["accessors"])):
            self._accessor(number)
        for image in self._lists["images"]:
            uri = image.get("uri", "data:")
            _require(uri.startswith("data:"), "it refers to an image outside of itself")
            if "bufferView" in image:
                self._view(image["bufferView"])
        vertices = triangles = 0
        for mesh in self._lists["meshes"]:
            for primitive in mesh["primitives"]:
                counted = self._primitive(primitive)
                vertices, triangles = vertices + counted[0], triangles + counted[1]
        _require(vertices > 0, "it holds no mesh")
        return Summary(
            size, len(self._lists["meshes"]), vertices, triangles, len(self._lists["images"])
        )

    def _view(self, index: Any) -> dict[str, Any]:
        view = self._at("bufferViews", index)
        self._at("buffers", view["buffer"])
        start, length = view.get("byteOffset", 0), view["byteLength"]
        _require(
            start >= 0 and length >= 0 and start + length <= self._binary,
            "a buffer view reaches outside of the file",
        )
        return view

    def _accessor(self, index: Any) -> dict[str, Any]:
        accessor = self._at("accessors", index)
        count = accessor["count"]
        _require(isinstance(count, int) and count >= 0, "an accessor's count is no number")
        size = _COMPONENT_BYTES[accessor["componentType"]] * _COMPONENTS[accessor["type"]]
        if "bufferView" in accessor:
            view = self._view(accessor["bufferView"])
            stride = view.get("byteStride", size)
            start = accessor.get("byteOffset", 0)
            _require(start >= 0 and stride >= size, "an accessor's stride or offset is wrong")
            needed = start + (count - 1) * stride + size if count else 0
            _require(needed <= view["byteLength"], "an accessor reads outside of its buffer view")
        else:  # sparse, zero-filled or compressed by an extension: no bytes to check, but none to run out of either
            _require(count <= 2**28, "an accessor's count is beyond any real model's")
        return accessor

    def _primitive(self, primitive: dict[str, Any]) -> tuple[int, int]:
        counts = {
            name: self._accessor(index)["count"] for name, index in primitive["attributes"].items()
        }
        vertices = counts["POSITION"]
        _require(set(counts.values()) == {vertices}, "a mesh's attributes differ in length")
        indices = primitive.get("indices")
        corners = vertices if indices is None else self._accessor(indices)["count"]
        return vertices, corners // 3 if primitive.get("mode", 4) == 4 else 0

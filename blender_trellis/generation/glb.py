# SPDX-License-Identifier: GPL-3.0-or-later
"""Checks that a file is a whole, self-contained GLB, and no more than a computer can carry, before anything else opens it.

Source: glTF 2.0 specification, sections 3.5 (nodes), 3.6 (buffers, accessors), 3.7 (meshes) and 4 (GLB file format).
"""

from __future__ import annotations

import base64
import io
import json
import struct
from array import array
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

from PIL import Image

from ..errors import ResultError

MAGIC = b"glTF"
_JSON, _BIN = 0x4E4F534A, 0x004E4942
# Beyond any model that people make, and well within what a computer bears: a file of a few kilobytes can name one node, mesh or
# run of numbers so often that Blender never ends
_MAX_JSON = 16 * 2**20
_MAX_ENTRIES = 10_000
_MAX_COPIES = 256  # of meshes: Blender takes the square of their number to import them
_MAX_DEPTH = 100
_MAX_ELEMENTS = 2**26
_MAX_PIXELS = 8192**2
_TRIANGLES = 4  # 5 and 6 are strips and fans of them
_COMPONENT_BYTES = {5120: 1, 5121: 1, 5122: 2, 5123: 2, 5125: 4, 5126: 4}
_COMPONENTS = {"SCALAR": 1, "VEC2": 2, "VEC3": 3, "VEC4": 4, "MAT2": 4, "MAT3": 9, "MAT4": 16}
_INDICES = {5121: "B", 5123: "H", 5125: "I"}  # by component type: what `array` calls it
_TYPES = {"POSITION": "VEC3", "NORMAL": "VEC3", "TEXCOORD_0": "VEC2"}
_REFERENCES = {  # by list: the keys of its entries that are indices, and into which list
    "scenes": {"nodes": "nodes"},
    "nodes": {"children": "nodes", "mesh": "meshes", "skin": "skins", "camera": "cameras"},
    "textures": {"source": "images", "sampler": "samplers"},
    "skins": {"joints": "nodes", "skeleton": "nodes"},
}
_LISTS = {"buffers", "bufferViews", "accessors", "images", "meshes", "materials", "animations"}
_LISTS |= {"samplers", "cameras", *_REFERENCES}


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
        ResultError: it is not a GLB, it is cut off, an index or a count points outside of it, it refers to other files, a picture
            in it is none, or it unfolds to more than any model has.
    """
    try:
        with path.open("rb") as file:
            size = path.stat().st_size
            document, start, length = _chunks(file, size)
            return _Document(document, file, start, length).summary(size)
    except _Broken as reason:
        raise ResultError(
            f"The service delivered a broken GLB: {reason}. Generate again."
        ) from reason
    except (KeyError, IndexError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise ResultError(
            f"The service delivered a GLB whose description makes no sense ({type(error).__name__}: {str(error)[:100]}). "
            "Generate again."
        ) from error


class _Broken(Exception):
    """Why a file is no good, as the end of a sentence."""


def _require(condition: bool, reason: str) -> None:
    if not condition:
        raise _Broken(reason)


def _whole(value: Any, what: str) -> int:
    _require(type(value) is int and value >= 0, f"{what} is no whole number")
    return int(value)


def _no_number(name: str) -> NoReturn:
    raise _Broken(f"its description has {name} for a number")


def _chunks(file: BinaryIO, size: int) -> tuple[Any, int, int]:
    """The parsed JSON chunk, and the BIN chunk's place and length."""
    header = file.read(12)
    _require(header[:4] == MAGIC, "it does not begin with the letters glTF")
    _require(len(header) == 12, "it ends within its header")
    version, length = struct.unpack("<II", header[4:])
    _require(version == 2, f"its version is {version}, not 2")
    _require(length == size, f"it says that it has {length} bytes and has {size}")
    document, start, binary, position, number = None, 0, 0, 12, 0
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
            text = file.read(chunk_length).decode("utf-8")
            document = json.loads(text, parse_constant=_no_number)
        else:
            _require(kind != _JSON, "it has a second JSON chunk")
            if kind == _BIN:
                _require(number == 1, "its BIN chunk is not the second")
                start, binary = position - chunk_length, chunk_length
            file.seek(position)
        number += 1
    _require(isinstance(document, dict), "it holds no description of a model")
    return document, start, binary


def _triangles(mode: Any, corners: int) -> int:
    """How many there are in a part of this kind (3.7.2.1); none in points and lines."""
    _require(type(mode) is int and 0 <= mode <= 6, "a part of a mesh is of no known kind")
    # What is left over would be written beyond the end of what Blender has made for it
    _require(mode != _TRIANGLES or corners % 3 == 0, "a triangle lacks a corner")
    return corners // 3 if mode == _TRIANGLES else max(corners - 2, 0) if mode > _TRIANGLES else 0


class _Document:
    """A glTF document whose buffer is the BIN chunk of `length` bytes at `start` of `file`."""

    def __init__(self, document: dict[str, Any], file: BinaryIO, start: int, length: int) -> None:
        self._document = document
        self._lists: dict[str, list[Any]] = {key: document.get(key, []) for key in _LISTS}
        self._file = file
        self._start = start
        self._binary = length
        self._elements = 0
        self._highest: dict[int, int] = {}

    def _at(self, key: str, index: Any) -> dict[str, Any]:
        items = self._lists[key]
        inside = type(index) is int and 0 <= index < len(items)
        _require(inside, f"it names entry {str(index)[:20]} of {len(items)} {key}")
        return dict(items[index])

    def summary(self, size: int) -> Summary:
        """Checks everything, and counts."""
        version = self._document["asset"]["version"]
        _require(version == "2.0", f"it is of glTF version {str(version)[:20]}, not 2.0")
        for key, items in self._lists.items():
            _require(isinstance(items, list), f"its {key} are no list")
            _require(len(items) <= _MAX_ENTRIES, f"it has {len(items)} {key}")
            _require(
                all(isinstance(each, dict) for each in items), f"one of its {key} is no object"
            )
        for number, buffer in enumerate(self._lists["buffers"]):
            _require(number == 0 and "uri" not in buffer, "it refers to a buffer outside of itself")
            # The BIN chunk may be up to three bytes longer, for its alignment
            length = _whole(buffer["byteLength"], "its buffer's length")
            _require(length <= self._binary, "its buffer is longer than its BIN chunk")
        _require(bool(self._lists["meshes"]), "it holds no mesh")
        for number in range(len(self._lists["bufferViews"])):
            self._view(number)
        for number in range(len(self._lists["accessors"])):
            self._accessor(number)
        for image in self._lists["images"]:
            self._image(image)
        self._references()
        self._hierarchy()
        counts = [self._mesh(mesh) for mesh in self._lists["meshes"]]
        self._repetitions()
        vertices = sum(count[0] for count in counts)
        triangles = sum(count[1] for count in counts)
        _require(triangles > 0, "it holds no mesh")
        return Summary(size, len(counts), vertices, triangles, len(self._lists["images"]))

    def _references(self) -> None:
        """Every index of the lists' entries, and of the materials' textures, is one of an entry that is there."""
        for key, named in _REFERENCES.items():
            for item in self._lists[key]:
                for name, target in named.items():
                    several = item.get(name, [])
                    for index in several if isinstance(several, list) else [several]:
                        self._at(target, index)
        if "scene" in self._document:
            self._at("scenes", self._document["scene"])
        for material in self._lists["materials"]:
            for slots in (material, material.get("pbrMetallicRoughness", {})):
                for name, slot in slots.items():
                    if name.endswith("Texture"):
                        self._at("textures", slot["index"])

    def _hierarchy(self) -> None:
        """The nodes are trees (3.5.2): else a walk through them is endless, or doubles at each step."""
        children = [node.get("children", []) for node in self._lists["nodes"]]
        below = [child for several in children for child in several]
        _require(len(below) == len(set(below)), "one of its nodes hangs on two others")
        roots = set(range(len(children))).difference(below)
        for scene in self._lists["scenes"]:
            tops = scene.get("nodes", [])
            once = len(tops) == len(set(tops)) and roots.issuperset(tops)
            _require(once, "one of its nodes is in a scene twice")
        level, seen, depth = list(roots), 0, 0
        while level:
            seen, depth = seen + len(level), depth + 1
            level = [child for node in level for child in children[node]]
        _require(seen == len(children), "its nodes hang on each other in a ring")
        _require(depth <= _MAX_DEPTH, f"its nodes are nested {depth} deep")

    def _image(self, image: dict[str, Any]) -> None:
        """A picture within the file, as Blender reads it: PNG, JPEG or WebP, and not so large that it fills the memory."""
        if "bufferView" in image:
            _require("uri" not in image, "a picture of it is at two places")
            view = self._view(image["bufferView"])
            data = self._read(view.get("byteOffset", 0), view["byteLength"])
        else:
            # Without ";base64," Blender takes it for a path
            start, found, text = str(image["uri"]).partition(";base64,")
            inside = start.startswith("data:") and found
            _require(bool(inside), "it refers to an image outside of itself")
            data = base64.b64decode(text, validate=True)
        try:
            with Image.open(io.BytesIO(data), formats=("PNG", "JPEG", "WEBP")) as picture:
                width, height = picture.size
                picture.verify()
        except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
            raise _Broken("a picture of it has more pixels than any texture") from error
        except (OSError, SyntaxError, ValueError) as error:
            raise _Broken("a picture of it is broken, or not PNG, JPEG or WebP") from error
        _require(width * height <= _MAX_PIXELS, f"a picture of it has {width} × {height} pixels")

    def _read(self, start: int, length: int) -> bytes:
        self._file.seek(self._start + start)
        return self._file.read(length)

    def _view(self, index: Any) -> dict[str, Any]:
        view = self._at("bufferViews", index)
        self._at("buffers", view["buffer"])
        start = _whole(view.get("byteOffset", 0), "a buffer view's offset")
        length = _whole(view["byteLength"], "a buffer view's length")
        _require(start + length <= self._binary, "a buffer view reaches outside of the file")
        return view

    def _accessor(self, index: Any) -> dict[str, Any]:
        accessor = self._at("accessors", index)
        count = _whole(accessor["count"], "an accessor's count")
        size = _COMPONENT_BYTES[accessor["componentType"]] * _COMPONENTS[accessor["type"]]
        if "bufferView" in accessor:
            view = self._view(accessor["bufferView"])
            stride = _whole(view.get("byteStride", size), "a stride")
            start = _whole(accessor.get("byteOffset", 0), "an accessor's offset")
            _require(stride >= size, "an accessor's stride is too short")
            needed = start + (count - 1) * stride + size if count else 0
            _require(needed <= view["byteLength"], "an accessor reads outside of its buffer view")
        if "sparse" in accessor:
            self._sparse(accessor, size)
        return accessor

    def _sparse(self, accessor: dict[str, Any], size: int) -> None:
        """The values that replace some of an accessor's, and their places (3.6.2.3)."""
        sparse = accessor["sparse"]
        count = _whole(sparse["count"], "an accessor's count")
        _require(count <= accessor["count"], "an accessor replaces more than it has")
        places = _COMPONENT_BYTES[sparse["indices"]["componentType"]]
        for part, each in ((sparse["indices"], places), (sparse["values"], size)):
            start = _whole(part.get("byteOffset", 0), "an accessor's offset")
            length = self._view(part["bufferView"])["byteLength"]
            _require(start + count * each <= length, "an accessor reads outside of its buffer view")

    def _used(self, index: Any, kind: str = "") -> int:
        """The count of an accessor that will be unpacked, once more."""
        accessor = self._accessor(index)
        _require(
            kind in ("", accessor["type"]), f"numbers of the kind {kind} are {accessor['type']}"
        )
        self._unpack(accessor["count"])
        return int(accessor["count"])

    def _unpack(self, elements: int) -> None:
        self._elements += elements
        _require(self._elements <= _MAX_ELEMENTS, "it unfolds to more than any real model has")

    def _mesh(self, mesh: dict[str, Any]) -> tuple[int, int]:
        """Vertices and triangles."""
        _require(len(mesh["primitives"]) <= _MAX_ENTRIES, "a mesh has too many parts")
        counts = [self._primitive(primitive) for primitive in mesh["primitives"]]
        return sum(count[0] for count in counts), sum(count[1] for count in counts)

    def _primitive(self, primitive: dict[str, Any]) -> tuple[int, int]:
        vertices = self._attributes(primitive["attributes"])
        for target in primitive.get("targets", []):
            self._attributes(target, vertices)
        if "material" in primitive:
            self._at("materials", primitive["material"])
        corners = vertices
        if "indices" in primitive:
            corners = self._used(primitive["indices"], "SCALAR")
            highest = self._highest_of(primitive["indices"])
            _require(highest < vertices, f"a face names vertex {highest} of {vertices}")
        return vertices, _triangles(primitive.get("mode", _TRIANGLES), corners)

    def _attributes(self, attributes: dict[str, Any], vertices: int | None = None) -> int:
        """How many vertices they describe, all the same number."""
        counts = {self._used(at, _TYPES.get(name, "")) for name, at in attributes.items()}
        if vertices is None:
            vertices = int(self._accessor(attributes["POSITION"])["count"])
        _require(counts <= {vertices}, "a mesh's attributes differ in length")
        return vertices

    def _highest_of(self, index: int) -> int:
        """The highest number among a mesh's indices; -1 where there is none, or none to be read."""
        accessor = self._accessor(index)
        if "bufferView" not in accessor or index in self._highest:
            return self._highest.get(index, -1)
        view = self._view(accessor["bufferView"])
        code = _INDICES[accessor["componentType"]]
        size = _COMPONENT_BYTES[accessor["componentType"]]
        # 3.6.2.4: only vertex attributes may have one
        _require(view.get("byteStride", size) == size, "a mesh's indices have a stride")
        start = view.get("byteOffset", 0) + accessor.get("byteOffset", 0)
        numbers = array(code, self._read(start, accessor["count"] * size))
        self._highest[index] = max(numbers, default=-1)
        return self._highest[index]

    def _repetitions(self) -> None:
        """What is unpacked besides each mesh once: a mesh for each of its nodes and their copies, bones, movements."""
        sizes = []
        for mesh in self._lists["meshes"]:
            parts = [self._accessor(part["attributes"]["POSITION"]) for part in mesh["primitives"]]
            sizes.append(sum(part["count"] for part in parts))
        copies = 0
        for node in self._lists["nodes"]:
            extension = node.get("extensions", {}).get("EXT_mesh_gpu_instancing", {})
            numbers = [self._used(at) for at in extension.get("attributes", {}).values()]
            if "mesh" in node:
                copies += max(numbers, default=1)
                self._unpack(sizes[node["mesh"]] * max(numbers, default=1))
        _require(copies <= _MAX_COPIES, f"it has {copies} copies of its meshes")
        for skin in self._lists["skins"]:
            if "inverseBindMatrices" in skin:
                self._used(skin["inverseBindMatrices"], "MAT4")
        for animation in self._lists["animations"]:
            for channel in animation["channels"]:
                sampler = animation["samplers"][channel["sampler"]]
                self._used(sampler["input"], "SCALAR")
                self._used(sampler["output"])

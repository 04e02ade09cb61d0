# SPDX-License-Identifier: GPL-3.0-or-later
"""The GLB checker: what it accepts, and every way in which a file may lie about itself."""

from __future__ import annotations

import copy
import json
import random
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from blender_trellis.errors import ResultError
from blender_trellis.generation import glb

POSITIONS = struct.pack("<9f", 0, 0, 0, 1, 0, 0, 0, 1, 0)
INDICES = struct.pack("<3H2x", 0, 1, 2)
DOCUMENT: dict[str, Any] = {
    "asset": {"version": "2.0"},
    "buffers": [{"byteLength": 44}],
    "bufferViews": [
        {"buffer": 0, "byteLength": 36},
        {"buffer": 0, "byteOffset": 36, "byteLength": 6},
    ],
    "accessors": [
        {"bufferView": 0, "componentType": 5126, "count": 3, "type": "VEC3"},
        {"bufferView": 1, "componentType": 5123, "count": 3, "type": "SCALAR"},
    ],
    "meshes": [{"primitives": [{"attributes": {"POSITION": 0}, "indices": 1}]}],
    "nodes": [{"mesh": 0}],
}


def pack(document: Any, binary: bytes = POSITIONS + INDICES) -> bytes:
    text = json.dumps(document).encode()
    text += b" " * (-len(text) % 4)
    chunks = struct.pack("<II", len(text), 0x4E4F534A) + text
    if binary:
        chunks += struct.pack("<II", len(binary), 0x004E4942) + binary
    return b"glTF" + struct.pack("<II", 2, 12 + len(chunks)) + chunks


@pytest.fixture
def check(tmp_path: Path) -> Callable[[bytes], glb.Summary]:
    def check(content: bytes) -> glb.Summary:
        path = tmp_path / "model.part"
        path.write_bytes(content)
        return glb.check(path)

    return check


Check = Callable[[bytes], glb.Summary]


def test_a_good_file_is_counted(check: Check) -> None:
    content = pack(DOCUMENT)
    assert check(content) == glb.Summary(len(content), 1, 3, 1, 0)


def _changed(change: Callable[[dict[str, Any]], Any]) -> bytes:
    document = copy.deepcopy(DOCUMENT)
    change(document)
    return pack(document)


BROKEN: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "does not begin with the letters glTF"),
    "html": (b"<html>502 Bad Gateway</html>", "does not begin with the letters glTF"),
    "magic alone": (b"glTF", "ends within its header"),
    "version": (pack(DOCUMENT).replace(b"glTF\2", b"glTF\1"), "its version is 1"),
    "cut off": (pack(DOCUMENT)[:-10], "it says that it has"),
    "longer": (pack(DOCUMENT) + b"\0\0\0\0", "it says that it has"),
    "no JSON": (b"glTF" + struct.pack("<II", 2, 12), "holds no description"),
    "BIN first": (
        b"glTF" + struct.pack("<IIII", 2, 24, 4, 0x004E4942) + b"\0\0\0\0",
        "first chunk is not JSON",
    ),
    "chunk too long": (
        b"glTF" + struct.pack("<IIII", 2, 24, 2**31, 0x4E4F534A) + b"{}  ",
        "chunk is longer than the file",
    ),
    "chunk unaligned": (
        b"glTF" + struct.pack("<IIII", 2, 22, 2, 0x4E4F534A) + b"{}",
        "not aligned",
    ),
    "not JSON": (b"glTF" + struct.pack("<IIII", 2, 24, 4, 0x4E4F534A) + b"{{{{", "makes no sense"),
    "not UTF-8": (
        b"glTF" + struct.pack("<IIII", 2, 24, 4, 0x4E4F534A) + b"\xff\xfe\xff\xfe",
        "makes no sense",
    ),
    "a list": (pack([1, 2]), "holds no description"),
    "no mesh": (_changed(lambda d: d.pop("meshes")), "holds no mesh"),
    "buffer too long": (
        _changed(lambda d: d["buffers"][0].update(byteLength=48)),
        "buffer is longer",
    ),
    "buffer elsewhere": (
        _changed(lambda d: d["buffers"][0].update(uri="file:///etc/passwd")),
        "refers to a buffer outside",
    ),
    "image elsewhere": (
        _changed(lambda d: d.update(images=[{"uri": "../../secret.png"}])),
        "refers to an image outside",
    ),
    "view outside": (
        _changed(lambda d: d["bufferViews"][1].update(byteOffset=40)),
        "a buffer view reaches outside",
    ),
    "negative offset": (
        _changed(lambda d: d["bufferViews"][1].update(byteOffset=-4)),
        "offset is no whole number",
    ),
    "count too high": (
        _changed(lambda d: d["accessors"][0].update(count=4)),
        "reads outside of its buffer view",
    ),
    "count huge": (
        _changed(lambda d: d["accessors"][0].update(count=2**62)),
        "reads outside of its buffer view",
    ),
    "count without view": (
        _changed(
            lambda d: (
                d["accessors"][0].update(count=2**40, bufferView=None)
                or d["accessors"][0].pop("bufferView")
            )
        ),
        "more than any real",
    ),
    "count text": (_changed(lambda d: d["accessors"][0].update(count="3")), "no whole number"),
    "stride zero": (
        _changed(lambda d: d["bufferViews"][0].update(byteStride=0)),
        "stride is too short",
    ),
    "component": (_changed(lambda d: d["accessors"][0].update(componentType=1)), "makes no sense"),
    "attribute missing": (
        _changed(lambda d: d["meshes"][0]["primitives"][0]["attributes"].update(POSITION=7)),
        "names entry 7 of 2 accessors",
    ),
    "attribute negative": (
        _changed(lambda d: d["meshes"][0]["primitives"][0]["attributes"].update(POSITION=-1)),
        "names entry -1 of 2 accessors",
    ),
    "a triangle cut off": (
        # Blender 4.2 to 5.2 writes beyond the end of the mesh, and dies
        _changed(lambda d: d["accessors"][1].update(count=2)),
        "a triangle lacks a corner",
    ),
    "corner outside": (
        pack(DOCUMENT, POSITIONS + struct.pack("<3H2x", 0, 1, 3)),
        "a face names vertex 3 of 3",
    ),
    "node of two": (
        _changed(lambda d: d.update(nodes=[{"children": [1, 1]}, {"mesh": 0}])),
        "hangs on two others",
    ),
    "nodes in a ring": (
        _changed(lambda d: d.update(nodes=[{"children": [1]}, {"children": [0], "mesh": 0}])),
        "in a ring",
    ),
    "nodes deep": (
        _changed(
            lambda d: d.update(nodes=[*({"children": [i + 1]} for i in range(200)), {"mesh": 0}])
        ),
        "nested 201 deep",
    ),
    "a node in a scene twice": (
        _changed(lambda d: d.update(scenes=[{"nodes": [0, 0]}])),
        "in a scene twice",
    ),
    "many nodes": (_changed(lambda d: d.update(nodes=[{}] * 20_000)), "it has 20000 nodes"),
    "one mesh in many places": (
        _changed(lambda d: d.update(nodes=[{"mesh": 0}] * 300)),
        "it has 300 copies of its meshes",
    ),
    "one mesh a thousand times": (
        _changed(lambda d: d["meshes"][0].update(primitives=d["meshes"][0]["primitives"] * 20_000)),
        "too many parts",
    ),
    "zeros without end": (
        _changed(
            lambda d: (
                d["accessors"].append({"componentType": 5126, "count": 2**26, "type": "VEC3"})
                or d["meshes"][0]["primitives"][0].update(attributes={"POSITION": 2})
            )
        ),
        "more than any real model",
    ),
    "a picture that is a path": (
        # without ";base64," Blender takes it for one
        _changed(lambda d: d.update(images=[{"uri": "data:/../../secret.png"}])),
        "refers to an image outside",
    ),
    "a picture that is none": (
        _changed(lambda d: d.update(images=[{"bufferView": 0}])),
        "not PNG, JPEG or WebP",
    ),
    "NaN": (
        _changed(lambda d: d["nodes"][0].update(scale=[float("nan")] * 3)),
        "has NaN for a number",
    ),
    "material outside": (
        _changed(lambda d: d["meshes"][0]["primitives"][0].update(material=0)),
        "names entry 0 of 0 materials",
    ),
    "glTF 1": (_changed(lambda d: d["asset"].update(version="1.0")), "of glTF version 1.0"),
    "deep nesting": (
        b"glTF" + struct.pack("<IIII", 2, 20 + 200_000, 200_000, 0x4E4F534A) + b"[" * 200_000,
        "makes no sense",
    ),
}


def _picture(width: int, height: int) -> bytes:
    """The head of a PNG, and no pixels."""
    head = b"IHDR" + struct.pack(">II5B", width, height, 8, 2, 0, 0, 0)
    chunks = [head, b"IDAT", b"IEND"]
    parts = (
        struct.pack(">I", len(each) - 4) + each + struct.pack(">I", zlib.crc32(each))
        for each in chunks
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


@pytest.mark.parametrize(
    ("width", "height", "words"),
    [
        (16, 16, ""),
        (9000, 9000, "has 9000 × 9000 pixels"),
        (10_000, 10_000, "more pixels than any texture"),
        (2**30, 2**30, "more pixels than any texture"),
    ],
)
def test_a_picture_that_would_fill_the_memory_is_refused(
    check: Check, width: int, height: int, words: str
) -> None:
    data = _picture(width, height)
    document = copy.deepcopy(DOCUMENT)
    document["bufferViews"].append({"buffer": 0, "byteOffset": 44, "byteLength": len(data)})
    document["buffers"][0]["byteLength"] += len(data)
    document["images"] = [{"bufferView": 2}]
    content = pack(document, POSITIONS + INDICES + data + b"\0" * (-len(data) % 4))
    if not words:
        assert check(content).images == 1
        return
    with pytest.raises(ResultError, match=words):
        check(content)


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_file_is_refused_with_the_reason(check: Check, name: str) -> None:
    content, words = BROKEN[name]
    with pytest.raises(ResultError) as caught:
        check(content)
    assert words in str(caught.value)
    assert str(caught.value).endswith("Generate again.")


def test_mutations_never_escape_the_error_tree(check: Check) -> None:
    """Whatever bytes arrive, the answer is a summary or a ResultError."""
    source = random.Random(20260101)
    good = pack(DOCUMENT)
    refused = 0
    for _ in range(3000):
        content = bytearray(good)
        for _ in range(source.randint(1, 8)):
            content[source.randrange(len(content))] = source.randrange(256)
        try:
            check(bytes(content))
        except ResultError:
            refused += 1
    assert refused > 1500

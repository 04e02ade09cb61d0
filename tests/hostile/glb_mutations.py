# SPDX-License-Identifier: GPL-3.0-or-later
"""Mutated GLBs: each begins as a good one and is spoiled in its bytes, its chunks, its JSON, its numbers, pictures or nodes."""

from __future__ import annotations

import io
import json
import struct
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
from PIL import Image

from hostile.mutations import ODD, mutated, spoiled, text_of
from scene import glbs

JSON, BIN = 0x4E4F534A, 0x004E4942


@dataclass
class Parts:
    """A GLB taken apart; `chunks` are put behind its own two."""

    gltf: Any
    binary: bytearray
    text: bytes | None = None
    chunks: tuple[tuple[int, bytes], ...] = ()

    @classmethod
    def of(cls, data: bytes) -> Parts:
        (length,) = struct.unpack_from("<I", data, 12)
        return cls(json.loads(data[20 : 20 + length]), bytearray(data[28 + length :]))

    def whole(self) -> bytes:
        """The file, with chunks and header that fit."""
        text = json.dumps(self.gltf).encode() if self.text is None else self.text
        text += b" " * (-len(text) % 4)
        binary = bytes(self.binary) + b"\0" * (-len(self.binary) % 4)
        chunks = b"".join(
            struct.pack("<II", len(data), kind) + data
            for kind, data in ((JSON, text), (BIN, binary), *self.chunks)
        )
        return struct.pack("<4sII", b"glTF", 2, 12 + len(chunks)) + chunks


@cache
def good() -> tuple[bytes, ...]:
    """Whole models, of the kinds that services deliver and a few more."""
    plain = glbs.Material()
    textured = glbs.Material({"baseColor": glbs.picture(1), "normal": glbs.picture(2)})
    modern = glbs.Material({"baseColor": glbs.picture(3, 32, "WEBP", alpha=True)})
    many = [glbs.box((1, 1, 1), (number, 0, 0)) for number in range(3)]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.glb"
        made = [
            glbs.write(path, shapes, material).read_bytes()
            for shapes, material in (
                ([glbs.box((1, 2, 1))], textured),
                ([glbs.sphere(8, 12)], modern),
                (many, textured),
                ([glbs.sphere(4, 6)], plain),
            )
        ]
    return (*made, _lively(made[0]))


def _lively(data: bytes) -> bytes:
    """With all that our models never have: a skin, an animation, a camera, a light, morph targets, small indices."""
    parts = Parts.of(data)
    gltf, start = parts.gltf, len(parts.binary)
    numbers = (
        np.arange(8 * 16, dtype=np.float32).tobytes()
        + (np.arange(36, dtype=np.uint16) % 24).tobytes()
    )
    parts.binary += numbers
    gltf["buffers"][0]["byteLength"] = len(parts.binary)
    first = len(gltf["bufferViews"])
    gltf["bufferViews"] += [
        {"buffer": 0, "byteOffset": start, "byteLength": 512},
        {"buffer": 0, "byteOffset": start + 512, "byteLength": 72, "target": 34963},
    ]
    accessors = gltf["accessors"]
    own = len(accessors)
    accessors += [
        {"bufferView": first, "componentType": 5126, "count": 2, "type": "MAT4"},
        {"bufferView": first, "componentType": 5126, "count": 4, "type": "SCALAR"},
        {"bufferView": first, "componentType": 5126, "count": 4, "type": "VEC3"},
        {"bufferView": first + 1, "componentType": 5123, "count": 36, "type": "SCALAR"},
        {
            "componentType": 5126, "count": 24, "type": "VEC3",
            "sparse": {
                "count": 2,
                "indices": {"bufferView": first + 1, "componentType": 5123},
                "values": {"bufferView": first},
            },
        },
    ]  # fmt: skip
    primitive = gltf["meshes"][0]["primitives"][0]
    primitive |= {"indices": own + 3, "targets": [{"POSITION": own + 4}]}
    gltf["nodes"] += [{"name": "bone", "camera": 0}, {"name": "other bone"}]
    bones = [len(gltf["nodes"]) - 2, len(gltf["nodes"]) - 1]
    gltf["nodes"][0] |= {"skin": 0, "children": bones, "rotation": [0, 0, 0, 1], "scale": [1, 2, 1]}
    gltf["nodes"][bones[1]]["extensions"] = {"KHR_lights_punctual": {"light": 0}}
    gltf["skins"] = [{"joints": bones, "inverseBindMatrices": own}]
    gltf["cameras"] = [{"type": "perspective", "perspective": {"yfov": 0.8, "znear": 0.1}}]
    gltf["extensionsUsed"] = ["KHR_lights_punctual", "KHR_materials_ior"]
    gltf["extensions"] = {"KHR_lights_punctual": {"lights": [{"type": "point", "intensity": 3}]}}
    gltf["materials"][0]["extensions"] = {"KHR_materials_ior": {"ior": 1.4}}
    gltf["animations"] = [
        {
            "samplers": [{"input": own + 1, "output": own + 2}],
            "channels": [{"sampler": 0, "target": {"node": 0, "path": "translation"}}],
        }
    ]
    return parts.whole()


def make(random: Random) -> tuple[str, bytes]:
    """What was done, and the file."""
    data = random.choice(good())
    way = random.choice(_WAYS)
    return way.__name__.strip("_"), way(random, data)


def _bytes(random: Random, data: bytes) -> bytes:
    return spoiled(random, data)


def _header(random: Random, data: bytes) -> bytes:
    at = random.choice([0, 4, 8, 12, 16])
    (length,) = struct.unpack_from("<I", data, 12)
    at = random.choice([at, 20 + length, 24 + length])
    (there,) = struct.unpack_from("<I", data, at)
    value = random.choice([0, 1, there + 4, there - 4, there ^ 1, 2**31, 2**32 - 1, JSON, BIN])
    return data[:at] + struct.pack("<I", value % 2**32) + data[at + 4 :]


def _chunks(random: Random, data: bytes) -> bytes:
    """Others, or in another order; the header fits."""
    parts = Parts.of(data)
    own = [(JSON, json.dumps(parts.gltf).encode()), (BIN, bytes(parts.binary))]
    match random.randrange(5):
        case 0:
            own.reverse()
        case 1:
            own.append(random.choice(own))
        case 2:
            own.insert(random.randrange(3), (random.getrandbits(32), b"\0" * random.randrange(64)))
        case 3:
            own.pop()
        case _:
            own[1] = (BIN, own[1][1][: random.randrange(len(own[1][1]))])
    chunks = b""
    for kind, content in own:
        padded = content + b" " * (-len(content) % 4)
        chunks += struct.pack("<II", len(padded), kind) + padded
    return struct.pack("<4sII", b"glTF", 2, 12 + len(chunks)) + chunks


def _json(random: Random, data: bytes) -> bytes:
    parts = Parts.of(data)
    parts.gltf = mutated(random, parts.gltf, random.choice([1, 1, 1, 2, 5]))
    return parts.whole()


def _text(random: Random, data: bytes) -> bytes:
    parts = Parts.of(data)
    if random.random() < 0.5:
        parts.text = text_of(random, mutated(random, parts.gltf))
    else:
        parts.text = spoiled(random, json.dumps(parts.gltf).encode())
    return parts.whole()


def _accessors(random: Random, data: bytes) -> bytes:
    """One of the numbers by which bytes become coordinates."""
    parts = Parts.of(data)
    for _ in range(random.choice([1, 1, 2])):
        accessor = random.choice(parts.gltf["accessors"])
        count = random.choice([24, 36, 108])
        view = random.choice(parts.gltf["bufferViews"])
        holder, name, values = random.choice(
            [
                (accessor, "count", [0, 1, count - 1, count, count + 1, 2**20, 2**28, 2**62]),
                (accessor, "byteOffset", [0, 1, 2, 4, 12, 10**6, -4]),
                (accessor, "componentType", [5120, 5121, 5122, 5123, 5124, 5125, 5126, 5130]),
                (accessor, "type", ["SCALAR", "VEC2", "VEC3", "VEC4", "MAT2", "MAT3", "MAT4"]),
                (accessor, "bufferView", [*range(len(parts.gltf["bufferViews"]) + 1)]),
                (accessor, "normalized", [True, 1]),
                (view, "byteOffset", [0, 1, 4, len(parts.binary) - 4, len(parts.binary), 2**32]),
                (view, "byteLength", [0, 1, 4, len(parts.binary), 2**32]),
                (view, "byteStride", [0, 1, 3, 4, 6, 8, 12, 16, 252, 2**16]),
                (view, "buffer", [1, -1, "0"]),
            ]
        )  # fmt: skip
        holder[name] = random.choice([*values, random.choice(ODD)])
        if random.random() < 0.15:
            accessor.pop("bufferView", None)
    return parts.whole()


def _faces(random: Random, data: bytes) -> bytes:
    """Corners that are no vertices."""
    parts = Parts.of(data)
    mesh = random.choice(parts.gltf["meshes"])
    accessor = parts.gltf["accessors"][mesh["primitives"][0]["indices"]]
    view = parts.gltf["bufferViews"][accessor["bufferView"]]
    size = {5123: 2, 5125: 4}[accessor["componentType"]]
    for _ in range(random.choice([1, 3, 30])):
        at = view["byteOffset"] + size * random.randrange(accessor["count"])
        value = random.choice([0, 1, 23, 24, 1000, 2**31, 2**32 - 1]) % 2 ** (8 * size)
        parts.binary[at : at + size] = value.to_bytes(size, "little")
    return parts.whole()


def _coordinates(random: Random, data: bytes) -> bytes:
    """Places and normals that are none, or very far off."""
    parts = Parts.of(data)
    primitive = random.choice(parts.gltf["meshes"])["primitives"][0]
    accessor = parts.gltf["accessors"][random.choice(list(primitive["attributes"].values()))]
    start = parts.gltf["bufferViews"][accessor["bufferView"]]["byteOffset"]
    for _ in range(random.choice([1, 4, 40])):
        at = start + 4 * random.randrange(accessor["count"] * 2)
        number = random.choice([float("nan"), float("inf"), -float("inf"), 3e38, -3e38, 1e-45, 0.0])
        struct.pack_into("<f", parts.binary, at, number)
    return parts.whole()


def _pictures(random: Random, data: bytes) -> bytes:
    """Pictures that are broken, of another kind, or huge."""
    parts = Parts.of(data)
    images = parts.gltf.get("images")
    if not images:
        return _json(random, data)
    image = random.choice(images)
    view = parts.gltf["bufferViews"][image["bufferView"]]
    start, length = view["byteOffset"], view["byteLength"]
    whole = bytes(parts.binary[start : start + length])
    match random.randrange(6):
        case 0:
            picture = spoiled(random, whole)
        case 1:
            picture = random.choice(
                [b"", b"<html></html>", random.randbytes(300), b"RIFF\xff\xff\xff\xffWEBP"]
            )
        case 2:
            out = io.BytesIO()
            kind = random.choice(["GIF", "TIFF", "BMP", "JPEG", "TGA", "PPM"])
            Image.new("RGB", (8, 8)).save(out, kind)
            picture = out.getvalue()
        case 3:  # says that it is huge
            side = random.choice([0, 9000, 20_000, 2**31 - 1])
            head = b"IHDR" + struct.pack(">II5B", side, side, 8, 2, 0, 0, 0)
            picture = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + head + whole[29:]
        case 4:
            image["mimeType"] = random.choice(["image/webp", "image/jpeg", "text/html", "", None])
            picture = whole
        case _:
            image.pop("bufferView")
            image["uri"] = random.choice(
                ["data:image/png;base64,AAAA", "data:,x", "data:/../../../etc/passwd", "x.png", "", "data:;base64,!!"]
            )  # fmt: skip
            return parts.whole()
    view |= {"byteOffset": len(parts.binary), "byteLength": len(picture)}
    parts.binary += picture
    parts.gltf["buffers"][0]["byteLength"] = len(parts.binary)
    return parts.whole()


def _nodes(random: Random, data: bytes) -> bytes:
    """Trees that are none, endless, deep, wide, squashed or repeated."""
    parts = Parts.of(data)
    nodes = parts.gltf["nodes"]
    node = random.choice(nodes)
    first = len(nodes)
    match random.randrange(8):
        case 0:
            node.setdefault("children", []).append(random.randrange(len(nodes) + 1))
        case 1:  # each hangs twice on the one above: two to the power of their number
            count = random.choice([3, 40])
            nodes += [{"children": [first + i + 1] * 2} for i in range(count)] + [{"mesh": 0}]
        case 2:
            count = random.choice([20, 500, 3000])
            nodes += [{"children": [first + i + 1]} for i in range(count)] + [{"mesh": 0}]
        case 3:
            nodes += [{"mesh": 0}] * random.choice([30, 300, 20_000])
        case 4:
            number = random.choice([0, 1e-30, 1e30, 1e308, -1, float("inf"), float("nan")])
            node["matrix"] = [number] * 16
        case 5:
            node[random.choice(["scale", "translation"])] = random.choice(
                [[0, 0, 0], [1e38] * 3, [1e308] * 3, [-1, 1, 1], [1], [1, 2, 3, 4], ["a"] * 3]
            )
        case 6:
            node["rotation"] = random.choice([[0, 0, 0, 0], [1e38] * 4, [0, 0, 1], [2, 0, 0, 1]])
        case _:
            count = {"TRANSLATION": random.randrange(len(parts.gltf["accessors"]))}
            node["extensions"] = {"EXT_mesh_gpu_instancing": {"attributes": count}}
            parts.gltf["extensionsUsed"] = ["EXT_mesh_gpu_instancing"]
    if random.random() < 0.5:
        parts.gltf["scenes"][0]["nodes"] = [*range(min(len(nodes), 50))]
    return parts.whole()


def _primitives(random: Random, data: bytes) -> bytes:
    """Other attributes, kinds of faces, numbers of parts; extensions whose data are not there."""
    parts = Parts.of(data)
    mesh = random.choice(parts.gltf["meshes"])
    primitive = mesh["primitives"][0]
    some = random.randrange(len(parts.gltf["accessors"]) + 1)
    match random.randrange(8):
        case 0:
            primitive["mode"] = random.choice([0, 1, 2, 3, 4, 5, 6, 7, -1, "4"])
        case 1:
            names = [
                "POSITION",
                "NORMAL",
                "TANGENT",
                "TEXCOORD_1",
                "COLOR_0",
                "JOINTS_0",
                "WEIGHTS_0",
                "_OWN",
                "x" * 200,
            ]
            primitive["attributes"][random.choice(names)] = some
        case 2:
            primitive["attributes"].pop(random.choice(list(primitive["attributes"])))
        case 3:
            mesh["primitives"] = [primitive] * random.choice([0, 2, 50, 30_000])
        case 4:
            primitive.pop("indices")
        case 5:
            primitive["indices"] = some
        case 6:
            draco = {
                "bufferView": random.randrange(len(parts.gltf["bufferViews"])),
                "attributes": {"POSITION": 0},
            }
            primitive["extensions"] = {"KHR_draco_mesh_compression": draco}
            parts.gltf["extensionsUsed"] = ["KHR_draco_mesh_compression"]
        case _:
            primitive["targets"] = [{"POSITION": some}] * random.choice([1, 5, 5000])
    return parts.whole()


def _materials(random: Random, data: bytes) -> bytes:
    parts = Parts.of(data)
    material = parts.gltf["materials"][0]
    names = ["clearcoat", "transmission", "specular", "sheen", "ior", "volume", "unlit", "anisotropy", "emissive_strength",
             "pbrSpecularGlossiness"]  # fmt: skip
    name = f"KHR_materials_{random.choice(names)}"
    texture = {
        "index": random.choice([0, 1, 99]),
        "extensions": {"KHR_texture_transform": {"scale": [0, 1e38]}},
    }
    match random.randrange(3):
        case 0:
            inner = {
                "ior": random.choice(ODD),
                "clearcoatTexture": texture,
                "specularColorFactor": random.choice(ODD),
            }
            material["extensions"] = {name: random.choice([{}, inner, random.choice(ODD)])}
        case 1:
            parts.gltf["materials"][0] = mutated(random, material, 3)
        case _:
            material["name"] = random.choice(["x" * 5000, "\0", "../..", "é人", " "])
            material["emissiveTexture"] = texture
    parts.gltf["extensionsUsed"] = [name]
    return parts.whole()


_WAYS: list[Callable[[Random, bytes], bytes]] = [
    _bytes, _header, _chunks, _json, _json, _json, _text, _accessors, _accessors, _faces, _coordinates, _pictures,
    _nodes, _primitives, _materials,
]  # fmt: skip

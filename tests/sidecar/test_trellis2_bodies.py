# SPDX-License-Identifier: GPL-3.0-or-later
"""What the sidecar takes for TRELLIS.2, asked over HTTP: every parameter, meshes as data URIs, LoRA files on its own disk."""

from __future__ import annotations

import asyncio
import base64
import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from blender_trellis.endpoints import get
from blender_trellis.endpoints.schema import schemas
from blender_trellis.services import wire
from blender_trellis.sidecar.app import build
from blender_trellis.sidecar.engines.stages import EngineError
from blender_trellis.sidecar.executors import LocalExecutor
from blender_trellis.sidecar.server import Server
from blender_trellis.sidecar.store import Store
from blender_trellis.sidecar.worker import _images, _mesh
from scene import glbs

GENERATE, RETEXTURE = "local/trellis-2", "local/trellis-2/retexture"
PICTURE = wire.data_uri(glbs.picture(1), "image/png")
GLB = "model/gltf-binary"


@pytest.fixture
def client(shared_sidecar: tuple[str, str]) -> Iterator[httpx.Client]:
    url, token = shared_sidecar
    headers = {"Authorization": f"Key {token}"}
    with httpx.Client(base_url=url, headers=headers, timeout=60) as client:
        yield client


def body(endpoint: str, glb: bytes, **changes: Any) -> dict[str, Any]:
    mesh = {"mesh_url": wire.data_uri(glb, GLB)} if endpoint == RETEXTURE else {}
    return {"image_urls": [PICTURE], "seed": 3} | mesh | changes


def refused(client: httpx.Client, endpoint: str, sent: dict[str, Any]) -> dict[str, Any]:
    reply = client.post(f"/{endpoint}", json=sent)
    assert reply.status_code == 422, reply.text
    (item,) = reply.json()["detail"]
    assert item["type"]
    found: dict[str, Any] = item
    return found


def wrong(about: dict[str, Any]) -> list[Any]:
    """Values that a parameter does not take."""
    if "enum" in about:
        return ["no such choice", 0, None]
    if about["type"] == "boolean":
        return ["perhaps", 2, None]
    if about["type"] == "string":
        return ["", 5, None]
    edges = [about[edge] for edge in ("minimum", "maximum")]
    return [edges[0] - 1, edges[1] + 1, "many", None]


PARAMETERS = [
    (endpoint, name, value)
    for endpoint in (GENERATE, RETEXTURE)
    for name, about in schemas()[endpoint]["properties"].items()
    for value in wrong(about)
]


def test_every_parameter_is_refused_by_name_outside_its_range(
    client: httpx.Client, small_glb: bytes
) -> None:
    """In one test, since there are some two hundred."""
    for endpoint, name, value in PARAMETERS:
        item = refused(client, endpoint, body(endpoint, small_glb, **{name: value}))
        assert item["loc"] == ["body", name] and item["msg"], (endpoint, name, value)
    assert len({name for _, name, _ in PARAMETERS}) == 40


@pytest.mark.parametrize("count", [0, 9])
@pytest.mark.parametrize("endpoint", [GENERATE, RETEXTURE])
def test_one_to_eight_pictures(
    client: httpx.Client, small_glb: bytes, endpoint: str, count: int
) -> None:
    item = refused(client, endpoint, body(endpoint, small_glb, image_urls=[PICTURE] * count))
    assert item["loc"] == ["body", "image_urls"] and item["msg"] == "give 1 to 8 pictures"


def cut(glb: bytes, **changes: Any) -> str:
    """A data URI of the GLB with another head."""
    head = {"magic": b"glTF", "version": 2, "length": len(glb)} | changes
    return wire.data_uri(struct.pack("<4sII", *head.values()) + glb[12:], GLB)


@pytest.mark.parametrize(
    "mesh",
    [
        None,
        5,
        ["data:model/gltf-binary;base64,"],
        "https://example.com/chair.glb",
        "file:///etc/passwd",
        "data:model/gltf-binary;base64,",
        "data:model/gltf-binary;base64,Z2xURg==",
        "data:model/gltf-binary;base64," + "!" * 40,
        "data:model/obj;base64,Z2xURgIAAAA=",
    ],
)
def test_what_is_no_data_uri_of_a_glb_is_refused(client: httpx.Client, mesh: Any) -> None:
    item = refused(client, RETEXTURE, {"image_urls": [PICTURE], "mesh_url": mesh})
    assert item["loc"] == ["body", "mesh_url"]
    assert item["msg"].startswith("give a whole GLB as a data URI: data:model/gltf-binary;base64,")


def test_a_glb_must_be_whole_and_of_version_2(client: httpx.Client, small_glb: bytes) -> None:
    for mesh in (
        cut(small_glb, magic=b"glTf"),
        cut(small_glb, version=1),
        cut(small_glb, length=len(small_glb) + 4),
        wire.data_uri(small_glb[:-1], GLB),
        wire.data_uri(small_glb + b"\0", GLB),
    ):
        item = refused(client, RETEXTURE, body(RETEXTURE, small_glb, mesh_url=mesh))
        assert item["loc"] == ["body", "mesh_url"]


def test_a_mesh_is_refused_where_none_is_taken_and_missed_where_one_is(
    client: httpx.Client, small_glb: bytes
) -> None:
    mesh = wire.data_uri(small_glb, GLB)
    assert refused(client, GENERATE, body(GENERATE, b"", mesh_url=mesh))["loc"][1] == "mesh_url"
    assert refused(client, RETEXTURE, {"image_urls": [PICTURE]})["loc"][1] == "mesh_url"


@pytest.mark.parametrize("part", ["sparse_structure", "geometry", "texture"])
def test_a_lora_must_be_a_file_of_the_computer_that_computes(
    client: httpx.Client, tmp_path: Path, part: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here.safetensors").write_bytes(b"")
    for path in (tmp_path / "gone.safetensors", tmp_path, "here.safetensors", "~", "\0"):
        sent = body(GENERATE, b"", **{f"{part}_lora_path": str(path)})
        item = refused(client, GENERATE, sent)
        assert item["loc"] == ["body", f"{part}_lora_path"]
        assert item["msg"].startswith(f"there is no file {path} on the computer that computes")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "jobs")


def post(store: Store, endpoint: str, sent: dict[str, Any]) -> dict[str, Any]:
    """What the server keeps of a request that it takes; no job is begun, since the application's life never begins."""

    async def send() -> httpx.Response:
        server = Server(store, LocalExecutor(store.folder(".")), 60, lambda: None)
        app = build(server, clients={"t": ""}, hosts={"here"}, stop=lambda: None)
        headers = {"Authorization": "Key t"}
        async with httpx.AsyncClient(
            transport=httpx.ASGITransport(app), base_url="http://here", headers=headers
        ) as client:
            return await client.post(f"/{endpoint}", json=sent)

    reply = asyncio.run(send())
    assert reply.status_code == 200, reply.text
    path = store.folder(reply.json()["request_id"]) / "request.json"
    kept: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return kept


@pytest.mark.parametrize("endpoint", [GENERATE, RETEXTURE])
def test_what_the_endpoint_makes_of_every_parameter_is_taken(
    store: Store, tmp_path: Path, small_glb: bytes, endpoint: str
) -> None:
    lora = tmp_path / "Größe 家.safetensors"
    lora.write_bytes(b"")
    values = {
        name: str(lora) if about.get("format") else about.get("enum", [about["default"]])[-1]
        for name, about in schemas()[endpoint]["properties"].items()
    }
    mesh = wire.data_uri(small_glb, GLB) if endpoint == RETEXTURE else ""
    request = get(endpoint).parse(values | {"seed": 5})
    sent = request.body([PICTURE] * 8, mesh)
    kept = post(store, endpoint, sent)
    assert kept == sent
    assert len(_images(kept["image_urls"])) == 8
    if mesh:
        assert _mesh(kept["mesh_url"]) == small_glb


def test_a_seed_is_drawn_where_none_is_given(store: Store) -> None:
    seeds = [post(store, GENERATE, {"image_urls": [PICTURE]})["seed"] for _ in range(2)]
    assert seeds[0] != seeds[1] and all(0 <= seed < 2**31 for seed in seeds)


def test_what_reads_as_a_number_is_kept_as_one(store: Store) -> None:
    given = {"ss_sampling_steps": "20", "remesh": "no", "pipeline_type": 1024, "seed": 7.0}
    kept = post(store, GENERATE, {"image_urls": [PICTURE], **given})
    del kept["image_urls"]
    assert kept == {"ss_sampling_steps": 20, "remesh": False, "pipeline_type": "1024", "seed": 7}
    assert {type(value) for value in kept.values()} == {int, bool, str}


def test_a_mesh_that_is_broken_within_is_told_by_the_worker(small_glb: bytes) -> None:
    text = base64.b64encode(small_glb).decode()
    with pytest.raises(EngineError, match="The mesh cannot be read") as caught:
        _mesh(f"data:{GLB};base64,{text[:100]}*{text[101:]}")
    assert caught.value.field == "mesh_url"

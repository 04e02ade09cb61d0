# SPDX-License-Identifier: GPL-3.0-or-later
"""What goes out to fal and Runware, whole: the real runner against the stand-ins, and every request compared with what the
services document. What is expected is written out by hand; nothing of it is computed from the product's own endpoints."""

from __future__ import annotations

import base64
import io
import json
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from blender_trellis import api
from blender_trellis.config import Config
from blender_trellis.endpoints.schema import schemas
from blender_trellis.errors import CancelledError, ImageError, LeftError
from blender_trellis.generation.job import Event, State
from blender_trellis.generation.request import Request
from blender_trellis.generation.runner import Runner
from blender_trellis.services import check_key, sidecar
from blender_trellis.services.queue import QueueService
from blender_trellis.services.runware import RunwareService
from harness import run_trellis
from scene import glbs
from services.fal_standin import FalStandIn
from services.runware_standin import RunwareStandIn
from services.standin import Call

JOB = "bd373968-8512-4315-a95f-95a4401fea3e"
URL = "https://example.com/pictures/front%20view.png"
FAL_KEY = "Key 11111111-2222-3333-4444-555555555555:0123456789abcdef"
RUNWARE_KEY = "Bearer rw_0123456789abcdefghijklmnop"
# What stands in for a data URI that holds the picture, or the mesh, of the test
PICTURE, MESH = "<the picture>", "<the mesh>"
WAIT = 60  # seconds, after which a job that does not end fails its test
TRANSPORT = ("host", "connection", "user-agent", "accept-encoding", "content-length")  # httpx's own


# What is expected -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Sent:
    """The request for a model that must go out when `parameters` are given, none of them at its default.

    `fewest` must be given, and `least` is the body that goes out when nothing more is; its seed is drawn.
    """

    parameters: dict[str, Any]
    to: str
    body: dict[str, Any]
    least: dict[str, Any]
    fewest: dict[str, Any] = field(default_factory=dict)
    images: tuple[str, ...] = (URL,)
    mesh: bool = False
    headers: dict[str, str] = field(default_factory=dict)
    query: dict[str, str] = field(default_factory=dict)


FAL_DELIVERY = {
    "queue_priority": "low",
    "start_timeout": 90.5,
    "expiration_duration_seconds": 3600,
    "webhook_url": "https://example.com/done?job=7&secret=a%2Bb",
}
FAL_HEADERS = {
    "authorization": FAL_KEY,
    "accept": "application/json",
    "content-type": "application/json",
    "idempotency-key": JOB,
    "x-fal-queue-priority": "low",
    "x-fal-request-timeout": "90.5",
    "x-fal-object-lifecycle-preference": '{"expiration_duration_seconds": 3600}',
}
FAL_QUERY = {"fal_webhook": "https://example.com/done?job=7&secret=a%2Bb"}
VIEWS = (URL, "https://example.com/right.png", "http://example.com/back?x=1")
TRELLIS = {
    "seed": 2147483647,
    "ss_guidance_strength": 6.5,
    "ss_sampling_steps": 21,
    "slat_guidance_strength": 4.5,
    "slat_sampling_steps": 22,
    "mesh_simplify": 0.91,
    "texture_size": 512,
}
TEXTURE_STAGE = {
    "tex_slat_guidance_strength": 2.5,
    "tex_slat_guidance_rescale": 0.35,
    "tex_slat_guidance_interval_start": 0.33,
    "tex_slat_guidance_interval_end": 0.73,
    "tex_slat_sampling_steps": 23,
    "tex_slat_rescale_t": 2.25,
}
STAGES = {
    "ss_guidance_strength": 6.5,
    "ss_guidance_rescale": 0.65,
    "ss_guidance_interval_start": 0.11,
    "ss_guidance_interval_end": 0.91,
    "ss_sampling_steps": 21,
    "ss_rescale_t": 4.5,
    "shape_slat_guidance_strength": 5.5,
    "shape_slat_guidance_rescale": 0.55,
    "shape_slat_guidance_interval_start": 0.22,
    "shape_slat_guidance_interval_end": 0.82,
    "shape_slat_sampling_steps": 22,
    "shape_slat_rescale_t": 3.5,
    **TEXTURE_STAGE,
}
TRELLIS_2 = {
    "seed": 0,
    "resolution": 1536,
    **STAGES,
    "decimation_target": 123_456,
    "texture_size": 4096,
    "remesh": False,
    "remesh_band": 1.5,
    "remesh_project": 0.45,
    "uv_unwrap_angle_threshold_deg": 72.5,
    "uv_unwrap_global_iterations": 3,
    "uv_unwrap_refine_iterations": 2,
    "uv_unwrap_smooth_strength": 0.85,
}
LORA = {
    "seed": 424242,
    "resolution": 1024,
    **STAGES,
    "decimation_target": 123_456,
    "texture_size": 1024,
    "sparse_structure_lora_url": "https://example.com/structure.safetensors",
    "geometry_lora_url": "https://example.com/geometry.safetensors",
    "texture_lora_url": "https://example.com/texture.safetensors?v=2",
}
RETEXTURE = {"seed": 424242, "resolution": 512, **TEXTURE_STAGE, "texture_size": 1024}
TRELLIS_2_LEAST = {"resolution": 1024, "texture_size": 2048, "decimation_target": 500_000}


def _fal(endpoint: str, values: dict[str, Any], inputs: dict[str, Any], **more: Any) -> Sent:
    """fal's names are the common ones, so parameters go into the body as they are given."""
    return Sent(
        parameters=values | FAL_DELIVERY,
        to=f"POST queue/{endpoint}",
        body=values | inputs,
        headers=FAL_HEADERS,
        query=FAL_QUERY,
        **more,
    )


SENT = {
    "fal-ai/trellis": _fal(
        "fal-ai/trellis",
        TRELLIS,
        {"image_url": URL},
        least={"image_url": PICTURE, "mesh_simplify": 0.95, "texture_size": 1024},
    ),
    "fal-ai/trellis/multi": _fal(
        "fal-ai/trellis/multi",
        TRELLIS | {"multiimage_algo": "multidiffusion"},
        {"image_urls": [*VIEWS]},
        images=VIEWS,
        least={"image_urls": [PICTURE], "mesh_simplify": 0.95, "texture_size": 1024},
    ),
    "fal-ai/trellis-2": _fal(
        "fal-ai/trellis-2",
        TRELLIS_2,
        {"image_url": URL},
        least={"image_url": PICTURE, **TRELLIS_2_LEAST},
    ),
    "fal-ai/trellis-2/multi": _fal(
        "fal-ai/trellis-2/multi",
        TRELLIS_2,
        {"image_urls": [*VIEWS]},
        images=VIEWS,
        least={"image_urls": [PICTURE], **TRELLIS_2_LEAST},
    ),
    "fal-ai/trellis-2-lora": _fal(
        "fal-ai/trellis-2-lora",
        LORA,
        {"image_url": URL},
        fewest={"geometry_lora_url": "https://example.com/geometry.safetensors"},
        least={
            "image_url": PICTURE,
            "resolution": 512,
            "texture_size": 2048,
            "decimation_target": 500_000,
            "geometry_lora_url": "https://example.com/geometry.safetensors",
        },
    ),
    "fal-ai/trellis-2/retexture": _fal(
        "fal-ai/trellis-2/retexture",
        RETEXTURE,
        {"mesh_url": MESH, "image_url": URL},
        mesh=True,
        least={"mesh_url": MESH, "image_url": PICTURE, "resolution": 1024, "texture_size": 2048},
    ),
    "runware/trellis-2": Sent(
        parameters={
            "seed": 9223372036854775807,
            "resolution": 1536,
            "ss_guidance_strength": 6.5,
            "ss_guidance_rescale": 0.65,
            "ss_sampling_steps": 21,
            "ss_rescale_t": 4.5,
            "shape_slat_guidance_strength": 5.5,
            "shape_slat_guidance_rescale": 0.55,
            "shape_slat_sampling_steps": 22,
            "shape_slat_rescale_t": 3.5,
            "tex_slat_guidance_strength": 2.5,
            "tex_slat_guidance_rescale": 0.35,
            "tex_slat_sampling_steps": 23,
            "tex_slat_rescale_t": 2.25,
            "texture_size": 3072,
            "decimation_target_polygons": 123_456,
            "remesh": False,
            "number_results": 2,
            "output_format": "GLB",
            "delivery_method": "sync",
            "include_cost": False,
            "ttl": 3600,
            "upload_endpoint": "https://example.com/put/here?signature=1",
            "webhook_url": "https://example.com/done?job=7",
        },
        to="POST api/v1",
        headers={"authorization": RUNWARE_KEY, "accept": "*/*", "content-type": "application/json"},
        body={
            "taskType": "3dInference",
            "taskUUID": JOB,
            "model": "microsoft:trellis-2@4b",
            "outputType": "URL",
            "outputFormat": "GLB",
            "deliveryMethod": "sync",
            "includeCost": False,
            "numberResults": 2,
            "ttl": 3600,
            "uploadEndpoint": "https://example.com/put/here?signature=1",
            "webhookURL": "https://example.com/done?job=7",
            "seed": 9223372036854775807,
            "inputs": {"image": URL},
            "settings": {
                "resolution": 1536,
                "decimationTarget": 123_456,
                "remesh": False,
                "textureSize": 3072,
                "sparseStructure": {
                    "steps": 21,
                    "guidanceStrength": 6.5,
                    "guidanceRescale": 0.65,
                    "rescaleT": 4.5,
                },
                "shapeSlat": {
                    "steps": 22,
                    "guidanceStrength": 5.5,
                    "guidanceRescale": 0.55,
                    "rescaleT": 3.5,
                },
                "texSlat": {
                    "steps": 23,
                    "guidanceStrength": 2.5,
                    "guidanceRescale": 0.35,
                    "rescaleT": 2.25,
                },
            },
        },
        least={
            "taskType": "3dInference",
            "taskUUID": JOB,
            "model": "microsoft:trellis-2@4b",
            "outputType": "URL",
            "outputFormat": "GLB",
            "deliveryMethod": "async",
            "includeCost": True,
            "numberResults": 1,
            "inputs": {"image": PICTURE},
            "settings": {
                "resolution": 1024,
                "decimationTarget": 500_000,
                "remesh": True,
                "textureSize": 2048,
            },
        },
    ),
}
# Of fal's request when nothing of the delivery is set
FAL_LEAST_HEADERS = {
    "authorization": FAL_KEY,
    "accept": "application/json",
    "content-type": "application/json",
    "idempotency-key": JOB,
    "x-fal-queue-priority": "normal",
}
ASKING_FAL = {"authorization": FAL_KEY, "accept": "*/*"}
ASKING_RUNWARE = SENT["runware/trellis-2"].headers
FETCHING = {"accept": "*/*", "accept-encoding": "identity"}


# How it is observed -----------------------------------------------------------------------------------------------------


@pytest.fixture
def runner(
    home: Path, fal: FalStandIn, runware: RunwareStandIn, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Runner]:
    """A runner to which both stand-ins are the services, and that asks after its jobs without pauses."""
    for service in (QueueService, RunwareService):
        monkeypatch.setattr(service, "poll_seconds", (0.01, 0.01))
    runner = Runner(Config.load())
    yield runner
    runner.close()


@pytest.fixture
def mesh(tmp_path: Path, small_glb: bytes) -> Path:
    path = tmp_path / "Stuhl ü.glb"
    path.write_bytes(small_glb)
    return path


def _run(
    runner: Runner,
    endpoint: str,
    images: list[Any],
    parameters: dict[str, Any] | None = None,
    job_id: str = JOB,
    **more: Any,
) -> None:
    request = Request(endpoint, images, parameters or {}, **more)
    runner.wait(runner.submit(request, job_id=job_id), timeout=WAIT)


def _to(call: Call) -> str:
    return f"{call.method} {call.host}{call.path}"


def _headers(call: Call) -> dict[str, str]:
    """All headers but those that any client of HTTP sends."""
    return {
        name: value
        for name, value in call.headers.items()
        if name not in TRANSPORT or value == "identity"
    }


def _task(call: Call) -> dict[str, Any]:
    """The one task of a request to Runware."""
    (task,) = call.json
    return task


def _body(call: Call) -> dict[str, Any]:
    """What was asked for: fal's whole body, or Runware's one task."""
    return call.json if call.host == "queue" else _task(call)


def _submit(fal: FalStandIn, runware: RunwareStandIn) -> Call:
    """The one request for a model that was sent to either service."""
    asked = [call for call in runware.calls if call.host == "api"]
    (call,) = fal.submits + [
        call
        for call in asked
        if _task(call)["taskType"] == "3dInference" and "x-runware-dry-run" not in call.headers
    ]
    return call


def _pixels(data: bytes) -> tuple[tuple[int, int], bytes]:
    with Image.open(io.BytesIO(data)) as image:
        return image.size, image.convert("RGBA").tobytes()


def _png(uri: str) -> bytes:
    """The file in a data URI, which must be a PNG."""
    head, _, text = uri.partition(",")
    assert head == "data:image/png;base64"
    data = base64.b64decode(text, validate=True)
    assert data.startswith(b"\x89PNG\r\n\x1a\n")
    return data


def _legible(value: Any, picture: Path | None = None, mesh: Path | None = None) -> Any:
    """The same with a name in place of each data URI, once it is certain that it holds this picture or this mesh."""
    if isinstance(value, dict):
        return {name: _legible(inner, picture, mesh) for name, inner in value.items()}
    if isinstance(value, list):
        return [_legible(inner, picture, mesh) for inner in value]
    if isinstance(value, str) and value.startswith("data:image/"):
        assert picture and _pixels(_png(value)) == _pixels(picture.read_bytes())
        return PICTURE
    if isinstance(value, str) and value.startswith("data:model/gltf-binary;base64,"):
        data = base64.b64decode(value.partition(",")[2], validate=True)
        assert mesh and data == mesh.read_bytes()
        return MESH
    return value


def _assert_same(sent: Any, expected: Any) -> None:
    """Equal as JSON, where neither 1 is true nor 512 is 512.0."""
    assert sent == expected
    assert json.dumps(sent, sort_keys=True) == json.dumps(expected, sort_keys=True)


def _assert_new_uuid(text: str, *others: str) -> None:
    assert uuid.UUID(text).version == 4 and text == text.lower()
    assert text not in others


# 1. Requests for a model, whole -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("endpoint", SENT)
def test_every_parameter_goes_where_the_service_expects_it(
    endpoint: str, runner: Runner, fal: FalStandIn, runware: RunwareStandIn, mesh: Path
) -> None:
    expected = SENT[endpoint]
    given = mesh if expected.mesh else None
    _run(runner, endpoint, [*expected.images], expected.parameters, mesh=given)
    call = _submit(fal, runware)
    assert _to(call) == expected.to
    assert call.query == expected.query
    assert _headers(call) == expected.headers
    _assert_same(_legible(_body(call), mesh=mesh), expected.body)


@pytest.mark.parametrize("endpoint", SENT)
def test_a_picture_alone_goes_with_the_defaults_that_price_and_result_hang_on(
    endpoint: str,
    runner: Runner,
    fal: FalStandIn,
    runware: RunwareStandIn,
    picture: Path,
    mesh: Path,
) -> None:
    expected = SENT[endpoint]
    _run(runner, endpoint, [picture], expected.fewest, mesh=mesh if expected.mesh else None)
    call = _submit(fal, runware)
    assert _to(call) == expected.to
    assert call.query == {}
    assert _headers(call) == (FAL_LEAST_HEADERS if call.host == "queue" else ASKING_RUNWARE)
    body = _legible(_body(call), picture, mesh)
    seed = body.pop("seed")
    assert type(seed) is int and 0 <= seed < 2**31
    assert seed == runner.journal.get(JOB).seed
    _assert_same(body, expected.least)


def _place(body: dict[str, Any], name: str) -> Any:
    """What stands at a dotted name."""
    *path, last = name.split(".")
    for key in path:
        body = body[key]
    return body[last]


def test_what_is_expected_holds_every_parameter_of_every_endpoint_away_from_its_default() -> None:
    remote = {name for name, schema in schemas().items() if schema["service"] != "local"}
    assert SENT.keys() == remote
    for endpoint, expected in SENT.items():
        properties = schemas()[endpoint]["properties"]
        assert expected.parameters.keys() == {prop["name"] for prop in properties.values()}
        for wire, prop in properties.items():
            given = expected.parameters[prop["name"]]
            assert given != prop["default"] or prop.get("const") == given, (endpoint, wire)
            if "header" in prop:
                assert str(given) in expected.headers[prop["header"].lower()], (endpoint, wire)
            elif "query" in prop:
                assert expected.query[prop["query"]] == given, (endpoint, wire)
            else:
                assert _place(expected.body, wire) == given, (endpoint, wire)


# 2. The examples that the services publish ------------------------------------------------------------------------------


def test_the_example_of_runware_goes_out_field_for_field(
    runner: Runner, runware: RunwareStandIn, picture: Path
) -> None:
    given = {
        "seed": 424242,
        "settings.sparseStructure.steps": 12,
        "settings.sparseStructure.guidanceStrength": 7.5,
        "settings.sparseStructure.guidanceRescale": 0.7,
        "settings.sparseStructure.rescaleT": 5,
        "settings.shapeSlat.steps": 12,
        "settings.shapeSlat.guidanceStrength": 7.5,
        "settings.shapeSlat.guidanceRescale": 0.5,
        "settings.shapeSlat.rescaleT": 3,
        "settings.texSlat.steps": 12,
        "settings.texSlat.guidanceStrength": 1,
        "settings.texSlat.guidanceRescale": 0,
        "settings.texSlat.rescaleT": 3,
    }
    _run(runner, "runware/trellis-2", [picture], given)
    submit, *polls, _ = runware.calls
    assert _to(submit) == "POST api/v1"
    assert _headers(submit) == {
        "authorization": RUNWARE_KEY,
        "accept": "*/*",
        "content-type": "application/json",
    }
    assert _legible(submit.json, picture) == [
        {
            "taskType": "3dInference",
            "taskUUID": "bd373968-8512-4315-a95f-95a4401fea3e",
            "model": "microsoft:trellis-2@4b",
            "outputType": "URL",
            "outputFormat": "GLB",
            "deliveryMethod": "async",
            "includeCost": True,
            "numberResults": 1,
            "seed": 424242,
            "inputs": {"image": PICTURE},
            "settings": {
                "resolution": 1024,
                "decimationTarget": 500000,
                "remesh": True,
                "textureSize": 2048,
                "sparseStructure": {
                    "steps": 12,
                    "guidanceStrength": 7.5,
                    "guidanceRescale": 0.7,
                    "rescaleT": 5,
                },
                "shapeSlat": {
                    "steps": 12,
                    "guidanceStrength": 7.5,
                    "guidanceRescale": 0.5,
                    "rescaleT": 3,
                },
                "texSlat": {
                    "steps": 12,
                    "guidanceStrength": 1,
                    "guidanceRescale": 0,
                    "rescaleT": 3,
                },
            },
        }
    ]
    assert polls
    for call in polls:
        assert call.json == [
            {"taskType": "getResponse", "taskUUID": "bd373968-8512-4315-a95f-95a4401fea3e"}
        ]


def test_the_example_of_fal_goes_out_field_for_field_and_with_the_density(
    runner: Runner, fal: FalStandIn, picture: Path
) -> None:
    given = {
        "resolution": 1024,
        "seed": 7,
        "texture_size": 2048,
        "queue_priority": "normal",
        "expiration_duration_seconds": 86400,
    }
    _run(runner, "fal-ai/trellis-2", [picture], given)
    (call,) = fal.submits
    assert _to(call) == "POST queue/fal-ai/trellis-2"
    assert call.query == {}
    assert _headers(call) == {
        "authorization": FAL_KEY,
        "accept": "application/json",
        "content-type": "application/json",
        "idempotency-key": JOB,
        "x-fal-queue-priority": "normal",
        "x-fal-object-lifecycle-preference": '{"expiration_duration_seconds": 86400}',
    }
    example = {"image_url": PICTURE, "resolution": 1024, "seed": 7, "texture_size": 2048}
    _assert_same(_legible(call.json, picture), example | {"decimation_target": 500_000})


def test_a_dry_run_is_the_same_task_under_another_name_and_is_not_carried_out(
    runner: Runner, runware: RunwareStandIn, picture: Path
) -> None:
    given = {"seed": 7, "number_results": 2}
    assert runner.price(Request("runware/trellis-2", [picture], given)) == 0.0512
    (call,) = runware.calls
    assert _to(call) == "POST api/v1"
    assert _headers(call) == ASKING_RUNWARE | {"x-runware-dry-run": "1"}
    task = _legible(_task(call), picture)
    _assert_new_uuid(task["taskUUID"])
    least = SENT["runware/trellis-2"].least
    expected = least | {"taskUUID": task["taskUUID"], "seed": 7, "numberResults": 2}
    _assert_same(task, expected)
    assert runware.submits == [] and runner.journal.jobs() == []


def test_the_unit_price_is_asked_of_fal_with_the_key_alone(
    runner: Runner, fal: FalStandIn, picture: Path
) -> None:
    assert runner.price(Request("fal-ai/trellis-2", [picture], {"resolution": 1536})) == 0.35
    (call,) = fal.calls
    assert _to(call) == "GET api/v1/models/pricing"
    assert call.query == {"endpoint_id": "fal-ai/trellis-2"}
    assert _headers(call) == ASKING_FAL
    assert call.body == b""


def test_the_key_of_runware_is_tried_by_asking_for_the_account(runware: RunwareStandIn) -> None:
    assert check_key("runware", Config.load()).balance == 12.34
    (call,) = runware.calls
    assert _to(call) == "POST api/v1"
    assert _headers(call) == ASKING_RUNWARE
    name = _task(call)["taskUUID"]
    _assert_new_uuid(name)
    _assert_same(
        call.json,
        [{"taskType": "accountManagement", "taskUUID": name, "operation": "getDetails"}],
    )


def test_the_key_of_fal_is_tried_by_asking_for_a_job_that_nobody_has(fal: FalStandIn) -> None:
    assert check_key("fal", Config.load()).balance is None
    probe, billing = fal.calls
    *app, name, last = probe.path.split("/")
    assert (probe.method, probe.host, app, last, probe.query) == (
        "GET",
        "queue",
        ["", "fal-ai", "trellis-2", "requests"],
        "status",
        {},
    )
    _assert_new_uuid(name)
    assert _to(billing) == "GET api/v1/account/billing"
    assert billing.query == {"expand": "credits"}
    assert _headers(probe) == _headers(billing) == ASKING_FAL


def _noise(path: Path, side: int) -> Path:
    """A picture that no PNG makes smaller: three bytes a pixel, and four thirds of that as base64."""
    path.write_bytes(glbs.picture(side, side))
    return path


def _assert_uploaded(fal: FalStandIn, media_type: str, name: str, body: dict[str, str]) -> Call:
    """What went before the request for the model: the upload's two steps, whose URL is in the body; returns the second."""
    initiate, put = fal.calls[:2]
    assert _to(initiate) == "POST rest/storage/upload/initiate"
    assert initiate.query == {"storage_type": "fal-cdn-v3"}
    assert _headers(initiate) == ASKING_FAL | {
        "content-type": "application/json",
        "x-fal-object-lifecycle": '{"expiration_duration_seconds": 86400}',
    }
    _assert_same(initiate.json, {"content_type": media_type, "file_name": name})

    assert (put.method, put.host) == ("PUT", "upload")
    assert put.path.startswith("/files/upload/") and put.query.keys() == {"signature"}
    assert _headers(put) == {"accept": "*/*", "content-type": media_type}
    (place,) = (place for place, (data, _) in fal.files.items() if data == put.body)
    assert fal.submits[0] is fal.calls[2]
    assert body in [{key: fal.url("files") + place} for key in ("image_url", "mesh_url")]
    return put


def test_a_picture_of_more_than_four_megabytes_is_uploaded_without_the_key(
    runner: Runner, fal: FalStandIn, tmp_path: Path
) -> None:
    path = _noise(tmp_path / "noise.png", 1010)
    assert 4_000_000 < path.stat().st_size * 4 / 3 < 4_100_000
    _run(runner, "fal-ai/trellis-2", [path], {"seed": 7})
    body = fal.submits[0].json
    put = _assert_uploaded(fal, "image/png", "picture.png", {"image_url": body.pop("image_url")})
    assert put.body.startswith(b"\x89PNG\r\n\x1a\n")
    assert _pixels(put.body) == _pixels(path.read_bytes())
    _assert_same(body, {"seed": 7, **TRELLIS_2_LEAST})


def test_a_picture_of_less_than_four_megabytes_goes_in_the_request_itself(
    runner: Runner, fal: FalStandIn, tmp_path: Path
) -> None:
    path = _noise(tmp_path / "noise.png", 980)
    assert 3_800_000 < path.stat().st_size * 4 / 3 < 4_000_000
    _run(runner, "fal-ai/trellis-2", [path], {"seed": 7})
    assert fal.calls[0] is fal.submits[0]
    assert _legible(fal.submits[0].json["image_url"], path) == PICTURE
    assert not [call for call in fal.calls if call.host in ("rest", "upload")]


def test_a_mesh_of_more_than_four_megabytes_is_uploaded_as_it_is(
    runner: Runner, fal: FalStandIn, picture: Path, tmp_path: Path
) -> None:
    material = glbs.Material({"baseColor": glbs.picture(1, 1024)})
    path = glbs.write(tmp_path / "large.glb", [glbs.box((1, 1, 1))], material)
    _run(runner, "fal-ai/trellis-2/retexture", [picture], {"seed": 7}, mesh=path)
    body = _legible(fal.submits[0].json, picture)
    url = {"mesh_url": body.pop("mesh_url")}
    put = _assert_uploaded(fal, "model/gltf-binary", "mesh.glb", url)
    assert put.body == path.read_bytes()
    expected = {"image_url": PICTURE, "seed": 7, "resolution": 1024, "texture_size": 2048}
    _assert_same(body, expected)


# 3. Pictures and references to pictures ---------------------------------------------------------------------------------


def _base64(path: Path) -> str:
    return base64.b64encode(path.read_bytes()).decode()


UPLOADED = "989b4c3e-7b1f-4a54-9d2f-0c1e2a3b4c5d"


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (lambda path: path, PICTURE),
        (str, PICTURE),
        (lambda path: f"data:image/png;base64,{_base64(path)}", PICTURE),
        (_base64, PICTURE),
        (lambda path: URL, URL),
        (lambda path: UPLOADED, UPLOADED),
    ],
    ids=["a path", "a path as text", "a data URI", "base64", "a URL", "the UUID of an upload"],
)
def test_a_picture_for_runware(
    given: Callable[[Path], Any],
    expected: str,
    runner: Runner,
    runware: RunwareStandIn,
    picture: Path,
) -> None:
    runware.uploads[UPLOADED] = picture.read_bytes()
    _run(runner, "runware/trellis-2", [given(picture)])
    (task,) = runware.submits
    assert _legible(task["inputs"], picture) == {"image": expected}
    assert len(runware.uploads) == 1


def _uploads(runware: RunwareStandIn) -> list[Call]:
    asked = [call for call in runware.calls if call.host == "api"]
    return [call for call in asked if _task(call)["taskType"] == "mediaStorage"]


def test_a_picture_that_runware_gets_again_is_uploaded_once_and_named_from_then_on(
    runner: Runner, runware: RunwareStandIn, picture: Path, tmp_path: Path
) -> None:
    another = tmp_path / "another.png"
    Image.new("RGB", (64, 64), (9, 99, 199)).save(another)
    jobs = [str(uuid.uuid4()) for _ in range(4)]
    for job, path in zip(jobs, (picture, picture, another, picture), strict=True):
        _run(runner, "runware/trellis-2", [path], job_id=job)
    (upload,) = _uploads(runware)
    assert _to(upload) == "POST api/v1"
    assert _headers(upload) == ASKING_RUNWARE
    task = _task(upload)
    _assert_new_uuid(task["taskUUID"], *jobs)
    expected = {"taskType": "mediaStorage", "operation": "upload", "media": PICTURE}
    _assert_same(_legible(task, picture), expected | {"taskUUID": task["taskUUID"]})
    (stored,) = runware.uploads
    first, second, other, third = (task["inputs"]["image"] for task in runware.submits)
    assert _legible(first, picture) == PICTURE
    assert _legible(other, another) == PICTURE
    assert second == third == stored


def test_jobs_that_need_the_same_picture_at_once_share_one_upload(
    runner: Runner, runware: RunwareStandIn, picture: Path
) -> None:
    request = Request("runware/trellis-2", [picture])
    jobs = [runner.submit(request) for _ in range(6)]
    _wait_for_all(runner, jobs)
    assert len(_uploads(runware)) == 1
    (stored,) = runware.uploads
    sent = [_legible(task["inputs"]["image"], picture) for task in runware.submits]
    assert sorted(sent) == sorted([PICTURE] + [stored] * 5)


def _wait_for_all(runner: Runner, jobs: list[str]) -> None:
    """Until every job is ready, in whatever order."""
    left = set(jobs)
    while left:
        event = runner.events.get(timeout=WAIT)
        assert event.error is None
        if event.state is State.READY:
            left.remove(event.job_id)


def test_views_for_fal_keep_their_order_and_may_be_files_and_urls(
    runner: Runner, fal: FalStandIn, picture: Path
) -> None:
    embedded = f"data:image/png;base64,{_base64(picture)}"
    _run(runner, "fal-ai/trellis-2/multi", [VIEWS[2], picture, URL, embedded])
    sent = _legible(fal.submits[0].json["image_urls"], picture)
    assert sent == [VIEWS[2], PICTURE, URL, PICTURE]


@pytest.mark.parametrize(
    ("endpoint", "given", "words"),
    [
        (
            "fal-ai/trellis-2",
            UPLOADED,
            "fal-ai/trellis-2 does not take a picture's UUID. Give a file.",
        ),
        ("local/draft", URL, "local/draft does not take a picture's URL. Give a file."),
        ("local/draft", UPLOADED, "local/draft does not take a picture's UUID. Give a file."),
    ],
)
def test_a_reference_that_the_endpoint_does_not_take_is_refused_before_anything_is_sent(
    endpoint: str,
    given: str,
    words: str,
    runner: Runner,
    fal: FalStandIn,
    runware: RunwareStandIn,
    home: Path,
) -> None:
    with pytest.raises(ImageError) as caught:
        _run(runner, endpoint, [given])
    assert caught.value.message == words
    assert fal.calls == [] and runware.calls == []
    assert sidecar.read_address(home) is None
    assert runner.journal.jobs() == []


# 4. All that follows, and nothing else ----------------------------------------------------------------------------------


def _line(call: Call) -> tuple[str, dict[str, str], dict[str, str]]:
    return _to(call), call.query, _headers(call)


def test_one_job_at_fal_asks_for_this_and_nothing_else(
    runner: Runner, fal: FalStandIn, runware: RunwareStandIn, picture: Path
) -> None:
    """At an endpoint with a path below the app, whose jobs are asked for without that path."""
    _run(runner, "fal-ai/trellis/multi", [picture], {"seed": 7})
    ((request_id, _),) = fal.jobs.items()
    ((file, _),) = fal.files.items()
    status = (
        f"GET queue/fal-ai/trellis/requests/{request_id}/status",
        {"logs": "1"},
        ASKING_FAL,
    )
    assert [_line(call) for call in fal.calls] == [
        ("POST queue/fal-ai/trellis/multi", {}, FAL_LEAST_HEADERS),
        status,  # in the queue
        status,  # at work
        status,  # done
        (f"GET queue/fal-ai/trellis/requests/{request_id}", {}, ASKING_FAL),
        ("GET api/v1/models/pricing", {"endpoint_id": "fal-ai/trellis/multi"}, ASKING_FAL),
        (f"GET files{file}", {}, FETCHING),
    ]
    assert not any(call.body for call in fal.calls[1:])
    assert runware.calls == []


def test_fal_is_asked_at_the_urls_of_its_reply_and_not_at_ones_made_up(
    runner: Runner, fal: FalStandIn, picture: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in older documentation of fal; and with a query of their own, as any URL of a server's may have."""
    plain = fal._urls

    def urls(job: Any) -> dict[str, str]:
        made = plain(job)
        return made | {
            "response_url": f"{made['response_url']}/response?part=1",
            "status_url": f"{made['status_url']}?place=eu%2F1",
        }

    monkeypatch.setattr(fal, "_urls", urls)
    _run(runner, "fal-ai/trellis-2", [picture])
    (request_id,) = fal.jobs
    asked = [call for call in fal.calls[1:] if call.host == "queue"]
    place = f"GET queue/fal-ai/trellis-2/requests/{request_id}"
    assert [(_to(call), call.query) for call in asked] == [
        *[(f"{place}/status", {"place": "eu/1", "logs": "1"})] * 3,
        (f"{place}/response", {"part": "1"}),
    ]


def _cancelled_at_work(runner: Runner, endpoint: str, picture: Path, message: str) -> None:
    """Wait for a job that is cancelled once it says `message`."""

    def stop(event: Event) -> None:
        if event.message == message:
            runner.cancel(JOB)

    runner.wait(runner.submit(Request(endpoint, [picture]), job_id=JOB), stop, WAIT)


def test_a_cancelled_job_at_fal_is_put_to_its_cancel_url_and_asked_for_no_more(
    runner: Runner, fal: FalStandIn, picture: Path
) -> None:
    fal.script.held = True
    fal.script.logs = ["Sampling"]
    with pytest.raises(CancelledError):
        _cancelled_at_work(runner, "fal-ai/trellis-2/multi", picture, "Sampling")
    (request_id,) = fal.jobs
    place = f"queue/fal-ai/trellis-2/requests/{request_id}"
    _, *polls, cancel = fal.calls
    for call in polls:
        assert _line(call) == (f"GET {place}/status", {"logs": "1"}, ASKING_FAL)
    assert _line(cancel) == (f"PUT {place}/cancel", {}, ASKING_FAL)
    assert cancel.body == b""


def test_one_task_at_runware_asks_for_this_and_nothing_else(
    runner: Runner, fal: FalStandIn, runware: RunwareStandIn, picture: Path
) -> None:
    _run(runner, "runware/trellis-2", [picture], {"seed": 7})
    (file,) = runware.tasks[JOB].files
    *asked, fetched = runware.calls
    assert [(_line(call), _task(call)["taskType"]) for call in asked] == [
        (("POST api/v1", {}, ASKING_RUNWARE), kind)
        for kind in ("3dInference", "getResponse", "getResponse", "getResponse")
    ]  # at work, done, and the result
    for call in asked[1:]:
        _assert_same(call.json, [{"taskType": "getResponse", "taskUUID": JOB}])
    assert _line(fetched) == (f"GET files/image/os/a01d21/ws/4/ii/{file}.glb", {}, FETCHING)
    assert fal.calls == []


def test_leaving_a_task_at_runware_sends_nothing(
    runner: Runner, runware: RunwareStandIn, picture: Path
) -> None:
    runware.script.held = True
    with pytest.raises(LeftError):
        _cancelled_at_work(runner, "runware/trellis-2", picture, "At work")
    submit, *polls = map(_task, runware.calls)
    assert submit["taskType"] == "3dInference"
    assert polls == [{"taskType": "getResponse", "taskUUID": JOB}] * len(polls)


def test_a_limit_of_the_cost_asks_for_the_price_first(
    runner: Runner, fal: FalStandIn, runware: RunwareStandIn, picture: Path
) -> None:
    _run(runner, "fal-ai/trellis-2", [picture], max_cost=1.0)
    price, submit = fal.calls[:2]
    assert _line(price) == (
        "GET api/v1/models/pricing",
        {"endpoint_id": "fal-ai/trellis-2"},
        ASKING_FAL,
    )
    assert submit is fal.submits[0]

    _run(runner, "runware/trellis-2", [picture], job_id=str(uuid.uuid4()), max_cost=1.0)
    dry, real = runware.calls[:2]
    assert _headers(dry) == ASKING_RUNWARE | {"x-runware-dry-run": "1"}
    assert _headers(real) == ASKING_RUNWARE
    names = [_task(call)["taskUUID"] for call in (dry, real)]
    assert names[0] != names[1]
    assert [task["taskUUID"] for task in runware.submits] == names[1:]
    wanted, sent = (_task(call) | {"taskUUID": ""} for call in (dry, real))
    _assert_same(wanted, sent)


# 5. Command line and Python ---------------------------------------------------------------------------------------------


@pytest.fixture
def scripting(home: Path) -> Iterator[None]:
    """`api` with a runner of its own, closed at the end."""
    yield
    api._runner().close()
    api._runner.cache_clear()


@pytest.mark.usefixtures("scripting")
@pytest.mark.parametrize("endpoint", ["fal-ai/trellis-2", "runware/trellis-2"])
def test_the_command_line_and_python_send_the_same(
    endpoint: str, fal: FalStandIn, runware: RunwareStandIn
) -> None:
    """All parameters, by documented name."""
    fal.script.queued = fal.script.running = 0
    expected = SENT[endpoint]
    given = {
        wire: expected.parameters[prop["name"]]
        for wire, prop in schemas()[endpoint]["properties"].items()
    }
    settings: list[str] = []
    for name, value in given.items():
        settings += ["--set", f"{name}={value if isinstance(value, str) else json.dumps(value)}"]
    done = run_trellis("generate", URL, "--endpoint", endpoint, *settings, "--json")
    assert done.code == 0, done
    by_command = _submit(fal, runware)
    fal.submits.clear()
    runware.calls.clear()
    result = api.generate(URL, endpoint=endpoint, **given)
    by_script = _submit(fal, runware)
    for call, job_id in ((by_command, done.last["job_id"]), (by_script, result.job_id)):
        sent = json.loads(call.body.replace(job_id.encode(), JOB.encode()))
        _assert_same(sent if call.host == "queue" else sent[0], expected.body)
        headers = {n: v.replace(job_id, JOB) for n, v in _headers(call).items()}
        assert (_to(call), call.query, headers) == (expected.to, expected.query, expected.headers)

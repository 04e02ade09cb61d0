# SPDX-License-Identifier: GPL-3.0-or-later
"""The stand-in of fal, proven with fal's own Python client; and what that client does not touch, asked directly."""

from __future__ import annotations

import base64
import io
import json
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import fal_client.client
import httpx
import pytest
from fal_client import Completed, FalClientHTTPError, InProgress, Queued, SyncClient
from PIL import Image

from services.fal_standin import ADMIN_KEY, ENDPOINTS, KEY, FalStandIn
from services.standin import Reply

GLB = b"glTF" + bytes(range(200))
QUICK = 0.001  # seconds between the official client's questions


def _picture(side: int = 16) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (side, side), "red").save(out, "PNG")
    return out.getvalue()


def _data_uri(data: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(data).decode()}"


IMAGE = _data_uri(_picture())
BODY = {"image_url": IMAGE, "seed": 7, "resolution": 1024, "texture_size": 2048}


@pytest.fixture
def fal() -> Iterator[FalStandIn]:
    standin = FalStandIn()
    standin.glb = GLB
    with standin:
        yield standin


@pytest.fixture
def official(fal: FalStandIn, monkeypatch: pytest.MonkeyPatch) -> Iterator[SyncClient]:
    """fal's own client; it has no setting for plain HTTP, so its hosts are replaced."""
    monkeypatch.setattr(fal_client.client, "QUEUE_URL_FORMAT", f"{fal.url('queue')}/")
    monkeypatch.setattr(fal_client.client, "REST_URL", fal.url("rest"))
    monkeypatch.setattr(fal_client.client, "CDN_URL", fal.url("upload"))
    opened = []
    open_one = SyncClient._get_cdn_client

    def keep(client: SyncClient) -> httpx.Client:  # it never closes the one it uploads with
        opened.append(open_one(client))
        return opened[-1]

    monkeypatch.setattr(SyncClient, "_get_cdn_client", keep)
    client = SyncClient(key=KEY)
    yield client
    for one in (client._client, *opened):
        one.close()


@pytest.fixture
def http(fal: FalStandIn) -> Iterator[httpx.Client]:
    """Plain requests with the key."""
    with httpx.Client(headers={"Authorization": f"Key {KEY}"}, trust_env=False) as client:
        yield client


def _submit(
    fal: FalStandIn,
    http: httpx.Client,
    body: dict[str, Any],
    endpoint: str = "fal-ai/trellis-2",
    **headers: str,
) -> dict[str, Any]:
    reply = http.post(f"{fal.url('queue')}/{endpoint}", json=body, headers=headers)
    assert reply.status_code == 200
    ticket = reply.json()
    assert isinstance(ticket, dict)
    return ticket


def _problem(fal: FalStandIn, http: httpx.Client, endpoint: str, body: dict[str, Any]) -> Any:
    """The `detail` with which the run of `body` ends, or None."""
    fal.script.queued = fal.script.running = 0
    ticket = _submit(fal, http, body, endpoint)
    assert http.get(ticket["status_url"]).json()["status"] == "COMPLETED"
    reply = http.get(ticket["response_url"])
    assert reply.status_code in (200, 422)
    return reply.json().get("detail")


# With fal's own client


def test_official_client_runs_trellis_2(fal: FalStandIn, official: SyncClient) -> None:
    fal.script.queued, fal.script.running = 2, 2
    handle = official.submit("fal-ai/trellis-2", BODY, priority="low", headers={"X-A": "b"})
    events = list(handle.iter_events(interval=QUICK))
    result = handle.get(interval=QUICK)

    assert events == [
        Queued(position=1),
        Queued(position=0),
        InProgress(logs=None),
        InProgress(logs=None),
        Completed(logs=None, metrics={"inference_time": 41.83}),
    ]
    assert set(result) == {"model_glb"}
    assert httpx.get(result["model_glb"]["url"], trust_env=False).content == GLB
    job = fal.jobs[handle.request_id]
    assert (job.endpoint, job.input, job.state) == ("fal-ai/trellis-2", BODY, "COMPLETED")
    assert (job.headers["x-fal-queue-priority"], job.headers["x-a"]) == ("low", "b")
    assert [call.json for call in fal.submits] == [BODY]


def test_official_client_runs_several_pictures_with_trellis(
    fal: FalStandIn, official: SyncClient
) -> None:
    body = {"image_urls": [IMAGE, IMAGE], "multiimage_algo": "multidiffusion", "seed": 1}
    seen: list[Any] = []
    result = official.subscribe(
        "fal-ai/trellis/multi", body, on_queue_update=seen.append, interval=QUICK
    )
    assert [type(one) for one in seen] == [Queued, InProgress, Completed]
    assert httpx.get(result["model_mesh"]["url"], trust_env=False).content == GLB
    assert result["model_mesh"]["file_size"] == len(GLB) and result["timings"]
    (job,) = fal.jobs.values()
    assert job.endpoint == "fal-ai/trellis/multi"
    # It asks at owner/app, as the submit's reply told it
    assert {call.path for call in fal.calls[1:] if call.host == "queue"} == {
        f"/fal-ai/trellis/requests/{job.request_id}{end}" for end in ("", "/status")
    }


def test_official_client_uploads_by_its_token_and_the_file_is_served(
    fal: FalStandIn, official: SyncClient
) -> None:
    data = _picture()
    url = official.upload(data, "image/png", "view front.png")
    hosts = [(call.host, call.path) for call in fal.calls]
    assert hosts == [("rest", "/storage/auth/token"), ("upload", "/files/upload")]
    reply = httpx.get(url, trust_env=False)
    assert (reply.content, reply.headers["content-type"]) == (data, "image/png")
    handle = official.submit("fal-ai/trellis-2", {**BODY, "image_url": url})
    assert "model_glb" in handle.get(interval=QUICK)


def test_official_client_raises_the_error_of_a_rejected_job(
    fal: FalStandIn, official: SyncClient
) -> None:
    handle = official.submit("fal-ai/trellis-2", {**BODY, "ss_sampling_steps": 99})
    with pytest.raises(FalClientHTTPError) as raised:
        handle.get(interval=QUICK)
    error = raised.value
    assert (error.status_code, error.error_type) == (422, None)
    assert error.message == [
        {
            "loc": ["body", "ss_sampling_steps"],
            "msg": "Input should be less than or equal to 50",
            "type": "less_than_equal",
            "ctx": {"le": 50},
            "input": 99,
            "url": "https://docs.fal.ai/errors/#less_than_equal",
        }
    ]
    assert error.response_headers["x-fal-request-id"] == handle.request_id
    assert error.response_headers["x-fal-billable-units"] == "0"


def test_official_client_raises_the_type_of_a_platform_failure_without_trying_again(
    fal: FalStandIn, official: SyncClient
) -> None:
    fal.script.status_error = ("Request timed out", "request_timeout")
    handle = official.submit("fal-ai/trellis-2", BODY, start_timeout=5)
    *_, last = handle.iter_events(interval=QUICK)
    assert (last.error, last.error_type) == fal.script.status_error
    asked = len(fal.calls)
    with pytest.raises(FalClientHTTPError) as raised:
        handle.get(interval=QUICK)
    assert (raised.value.status_code, raised.value.error_type) == (504, "request_timeout")
    assert raised.value.response_headers["x-fal-request-timeout-type"] == "user"
    assert len(fal.calls) == asked + 2  # a status and the result


def test_official_client_raises_what_the_script_says(fal: FalStandIn, official: SyncClient) -> None:
    fal.script.outcome = Reply(503, {"detail": "CUDA error: out of memory"})
    handle = official.submit("fal-ai/trellis-2", BODY)
    with pytest.raises(FalClientHTTPError, match="out of memory") as raised:
        handle.get(interval=QUICK)
    assert raised.value.status_code == 503
    assert len([call for call in fal.calls if call.path.endswith(handle.request_id)]) == 1


def test_official_client_is_told_of_a_wrong_key_and_an_unknown_application(
    fal: FalStandIn, official: SyncClient
) -> None:
    with pytest.raises(FalClientHTTPError, match='Application "trellis-9" not found') as unknown:
        official.submit("fal-ai/trellis-9", BODY)
    assert unknown.value.status_code == 404
    stranger = SyncClient(key="wrong:key")
    with stranger._client, pytest.raises(FalClientHTTPError, match="invalid key") as refused:
        stranger.submit("fal-ai/trellis-2", BODY)
    assert refused.value.status_code == 401
    assert not fal.submits and not fal.jobs


def test_official_client_cancels(fal: FalStandIn, official: SyncClient) -> None:
    fal.script.held = True
    handle = official.submit("fal-ai/trellis-2", BODY)
    assert [type(handle.status()) for _ in range(5)] == [Queued, *[InProgress] * 4]
    handle.cancel()
    assert isinstance(handle.status(), Completed)
    with pytest.raises(FalClientHTTPError, match="cancelled by the client") as raised:
        handle.get(interval=QUICK)
    assert (raised.value.status_code, raised.value.error_type) == (499, "client_cancelled")
    with pytest.raises(FalClientHTTPError) as late:
        handle.cancel()
    assert late.value.response.json() == {"status": "ALREADY_COMPLETED"}


def test_official_client_reads_growing_logs(fal: FalStandIn, official: SyncClient) -> None:
    fal.script.running, fal.script.logs = 2, ["one", "two", "three"]
    handle = official.submit("fal-ai/trellis-2", BODY)
    _, *events = handle.iter_events(with_logs=True, interval=QUICK)
    said = [[entry["message"] for entry in event.logs or []] for event in events]
    assert said == [["one"], ["one", "two"], ["one", "two", "three"]]
    entry = events[-1].logs[0]
    assert (entry["level"], entry["source"]) == ("INFO", "USER") and entry["timestamp"]
    assert handle.status(with_logs=False).logs is None


# Asked directly: the queue


def test_the_ticket_names_urls_of_the_application_and_only_those_answer(
    fal: FalStandIn, http: httpx.Client
) -> None:
    ticket = _submit(fal, http, {"image_urls": [IMAGE]}, "fal-ai/trellis/multi")
    url = f"{fal.url('queue')}/fal-ai/trellis/requests/{ticket['request_id']}"
    assert ticket == {
        "status": "IN_QUEUE",
        "request_id": ticket["request_id"],
        "response_url": url,
        "status_url": f"{url}/status",
        "cancel_url": f"{url}/cancel",
        "queue_position": 0,
    }
    for wrong in (url.replace("/trellis/", "/trellis/multi/") + end for end in ("", "/status")):
        reply = http.get(wrong)
        assert (reply.status_code, reply.json()) == (405, {"detail": "Method Not Allowed"})
    assert http.post(f"{url}/status").status_code == 405
    assert http.get(f"{fal.url('queue')}/fal-ai/trellis").status_code == 405
    assert fal.jobs[ticket["request_id"]].asked == 0

    assert http.get(f"{url}/status/", params={"logs": "1"}).status_code == 202
    for end in ("", "/", "/response"):
        reply = http.get(url + end)
        assert (reply.status_code, reply.json()) == (
            400,
            {"detail": "Request is still in progress"},
        )
    fal.finish(ticket["request_id"])
    assert http.get(f"{url}/status").status_code == 200
    results = [http.get(url + end) for end in ("", "/", "/response")]
    assert [reply.status_code for reply in results] == [200] * 3
    assert results[0].json() == results[2].json()
    assert results[0].headers["x-fal-billable-units"] == "6"
    assert results[0].headers["x-fal-request-id"] == ticket["request_id"]


def test_an_unknown_request_is_not_found_and_a_stranger_is_refused(
    fal: FalStandIn, http: httpx.Client
) -> None:
    ticket = _submit(fal, http, BODY)
    for url in (
        f"{fal.url('queue')}/fal-ai/trellis-2/requests/{uuid.uuid4()}",
        ticket["response_url"].replace("trellis-2", "trellis"),
    ):
        replies = [http.get(url), http.get(f"{url}/status"), http.put(f"{url}/cancel")]
        assert [reply.status_code for reply in replies] == [404] * 3
        assert [reply.json() for reply in replies] == [{"status": "NOT_FOUND"}] * 3
    for key in (f"Bearer {KEY}", f"Key {KEY}x", KEY):
        reply = http.get(ticket["status_url"], headers={"Authorization": key})
        assert (reply.status_code, reply.json()) == (401, {"detail": "invalid key credentials"})
    reply = httpx.get(ticket["status_url"], trust_env=False)
    assert reply.status_code == 401
    assert reply.json()["detail"].startswith('Cannot access application "fal-ai/trellis-2".')


def test_a_job_can_fall_back_into_the_queue_and_stay_at_work_until_it_is_let_go(
    fal: FalStandIn, http: httpx.Client
) -> None:
    fal.script.bounce = fal.script.held = True
    ticket = _submit(fal, http, BODY)
    replies = [http.get(ticket["status_url"]) for _ in range(6)]
    said = ["IN_QUEUE", "IN_PROGRESS"] * 2 + ["IN_PROGRESS"] * 2
    assert [reply.json()["status"] for reply in replies] == said
    assert [reply.status_code for reply in replies] == [202] * 6
    assert [reply.json().get("queue_position") for reply in replies[:3]] == [0, None, 0]
    assert http.get(ticket["response_url"]).status_code == 400
    fal.finish(ticket["request_id"])
    assert http.get(ticket["status_url"]).json()["metrics"] == {"inference_time": 41.83}
    assert http.get(ticket["response_url"]).status_code == 200


def test_the_stream_tells_every_state_with_the_logs_that_are_new(
    fal: FalStandIn, http: httpx.Client
) -> None:
    fal.script.running, fal.script.logs = 2, ["one", "two", "three"]
    ticket = _submit(fal, http, BODY)
    reply = http.get(f"{ticket['status_url']}/stream", params={"logs": "1"})
    assert reply.headers["content-type"] == "text/event-stream"
    lines = [line.removeprefix("data: ") for line in reply.text.split("\n\n")[:-1]]
    events = [json.loads(line) for line in lines]
    assert [(event["status"], len(event.get("logs", []))) for event in events] == [
        ("IN_QUEUE", 0),
        ("IN_PROGRESS", 1),
        ("IN_PROGRESS", 1),
        ("COMPLETED", 1),
    ]


def test_a_cancelled_job_is_removed_or_goes_on_as_the_script_says(
    fal: FalStandIn, http: httpx.Client
) -> None:
    fal.script.cancel = "removed"
    gone = _submit(fal, http, BODY)
    reply = http.put(gone["cancel_url"])
    assert (reply.status_code, reply.json()) == (200, {"status": "OK"})
    for url in (gone["status_url"], gone["response_url"]):
        reply = http.get(url)
        assert (reply.status_code, reply.json()) == (404, {"status": "NOT_FOUND"})
    assert fal.jobs[gone["request_id"]].state == "REMOVED"

    fal.script.cancel = "ignored"
    stubborn = _submit(fal, http, BODY)
    reply = http.put(stubborn["cancel_url"])
    assert (reply.status_code, reply.json()) == (202, {"status": "CANCELLATION_REQUESTED"})
    said = [http.get(stubborn["status_url"]).json()["status"] for _ in range(3)]
    assert said == ["IN_QUEUE", "IN_PROGRESS", "COMPLETED"]
    assert "model_glb" in http.get(stubborn["response_url"]).json()


def test_answers_can_be_sparse_or_have_unknown_keys(fal: FalStandIn, http: httpx.Client) -> None:
    fal.script.sparse = True
    ticket = _submit(fal, http, {"image_url": IMAGE}, "fal-ai/trellis")
    assert set(ticket) == {"request_id", "status_url", "response_url", "cancel_url"}
    assert http.get(ticket["status_url"]).json() == {"status": "IN_QUEUE"}
    fal.finish(ticket["request_id"])
    (model,) = http.get(ticket["response_url"]).json().values()
    assert set(model) == {"url"}

    fal.script.sparse, fal.script.extra = False, True
    ticket = _submit(fal, http, BODY)
    fal.finish(ticket["request_id"])
    result = http.get(ticket["response_url"]).json()
    for answer in (ticket, http.get(ticket["status_url"]).json(), result, result["model_glb"]):
        assert "added_later" in answer


def test_the_lora_endpoint_echoes_what_it_used(fal: FalStandIn, http: httpx.Client) -> None:
    fal.script.glb = b"another model"
    body = {"image_url": IMAGE, "geometry_lora_url": "https://lora.test/geo.safetensors", "seed": 5}
    ticket = _submit(fal, http, body, "fal-ai/trellis-2-lora")
    fal.finish(ticket["request_id"])
    result = http.get(ticket["response_url"]).json()
    file = result.pop("model_glb")
    assert httpx.get(file["url"], trust_env=False).content == b"another model"
    assert result == {
        "seed": 5,
        "resolution": 512,
        "decimation_target": 500_000,
        "texture_size": 2048,
        "sparse_structure_lora_url": None,
        "geometry_lora_url": "https://lora.test/geo.safetensors",
        "texture_lora_url": None,
    }


# Asked directly: what is valid


def test_what_cannot_be_read_is_refused_at_once_and_all_else_when_it_runs(
    fal: FalStandIn, http: httpx.Client
) -> None:
    url = f"{fal.url('queue')}/fal-ai/trellis-2"
    reply = http.post(url, content=b"{")
    assert (reply.status_code, reply.json()["detail"][0]["type"]) == (422, "json_invalid")
    assert http.post(url, json=[BODY]).status_code == 422
    assert not fal.jobs and not fal.submits

    fal.script.queued = 0
    ticket = _submit(fal, http, {"resolution": 2000, "input": BODY})
    assert http.get(ticket["status_url"]).json()["status"] == "IN_PROGRESS"
    done = http.get(ticket["status_url"])
    assert (done.status_code, "error" in done.json()) == (200, False)
    reply = http.get(ticket["response_url"])
    assert reply.status_code == 422 and reply.headers["x-fal-retryable"] == "false"
    found = [(one["loc"], one["type"]) for one in reply.json()["detail"]]
    assert found == [
        (["body", "image_url"], "missing"),
        (["body", "resolution"], "one_of"),
        (["body", "input"], "extra_forbidden"),
    ]
    nowhere = _submit(fal, http, BODY, "fal-ai/trellis-2/unknown")
    fal.finish(nowhere["request_id"])
    reply = http.get(nowhere["response_url"])
    assert (reply.status_code, reply.json()) == (404, {"detail": "Path /unknown not found"})


@pytest.mark.parametrize(
    ("endpoint", "name", "good", "bad"),
    [
        ("fal-ai/trellis-2", "resolution", (512, 1536, "1024"), (2048, None, True)),
        ("fal-ai/trellis-2", "texture_size", (1024, "4096"), (512, 3072)),
        ("fal-ai/trellis-2", "ss_guidance_strength", (0, 10, 7.5), (-0.1, 10.1, "much")),
        ("fal-ai/trellis-2", "shape_slat_sampling_steps", (1, 50), (0, 51, 1.5)),
        ("fal-ai/trellis-2", "tex_slat_rescale_t", (1, 6), (0.9, 6.1)),
        ("fal-ai/trellis-2", "tex_slat_guidance_interval_end", (0.6, 1), (1.1,)),
        ("fal-ai/trellis-2", "decimation_target", (5_000, 2_000_000), (4_999, 2_000_001)),
        ("fal-ai/trellis-2", "remesh", (True, False), ("maybe", 2)),
        ("fal-ai/trellis-2", "remesh_band", (0, 4), (-1, 4.1)),
        ("fal-ai/trellis-2", "remesh_project", (0, 1), (1.1,)),
        ("fal-ai/trellis-2", "uv_unwrap_angle_threshold_deg", (90.0, 30), ("steep",)),
        ("fal-ai/trellis-2", "uv_unwrap_global_iterations", (1, 0), (0.5,)),
        ("fal-ai/trellis-2", "seed", (None, 0, 2**31 - 1), ("x", 0.5)),
        ("fal-ai/trellis-2", "mesh_simplify", (), (0.95,)),
        ("fal-ai/trellis", "mesh_simplify", (0.9, 0.98), (0.89, 0.99)),
        ("fal-ai/trellis", "texture_size", (512, 2048), (4096,)),
        ("fal-ai/trellis", "slat_guidance_strength", (0, 10), (11,)),
        ("fal-ai/trellis", "resolution", (), (1024,)),
        ("fal-ai/trellis/multi", "multiimage_algo", ("stochastic",), ("average",)),
        ("fal-ai/trellis-2-lora", "resolution", (512, 1024), (1536,)),
        ("fal-ai/trellis-2-lora", "remesh", (), (True,)),
        ("fal-ai/trellis-2-lora", "ss_guidance_interval_start", (0, 1), (1.5,)),
        ("fal-ai/trellis-2/retexture", "resolution", (512, 1024), (1536,)),
        ("fal-ai/trellis-2/retexture", "ss_rescale_t", (), (5,)),
    ],
)
def test_a_value_is_valid_in_the_documented_range_alone(
    fal: FalStandIn,
    http: httpx.Client,
    endpoint: str,
    name: str,
    good: tuple[Any, ...],
    bad: tuple[Any, ...],
) -> None:
    images = {"image_urls": [IMAGE]} if endpoint.endswith("multi") else {"image_url": IMAGE}
    needed = images | {
        "fal-ai/trellis-2-lora": {"texture_lora_url": "https://lora.test/t.safetensors"},
        "fal-ai/trellis-2/retexture": {"mesh_url": "https://mesh.test/m.glb"},
    }.get(endpoint, {})
    for value in good:
        assert _problem(fal, http, endpoint, {**needed, name: value}) is None, value
    for value in bad:
        (problem,) = _problem(fal, http, endpoint, {**needed, name: value})
        assert problem["loc"] == ["body", name], value


def test_pictures_and_a_lora_are_needed_and_an_interval_must_not_end_before_it_starts(
    fal: FalStandIn, http: httpx.Client
) -> None:
    for endpoint in ENDPOINTS:
        first = _problem(fal, http, endpoint, {})[0]
        assert first["type"] == "missing"
    (empty,) = _problem(fal, http, "fal-ai/trellis-2/multi", {"image_urls": []})
    assert (empty["type"], empty["ctx"]) == ("sequence_too_short", {"min_length": 1})
    nulls = {"image_url": IMAGE, "texture_lora_url": None}
    (no_lora,) = _problem(fal, http, "fal-ai/trellis-2-lora", nulls)
    assert (no_lora["loc"], no_lora["type"]) == (["body"], "value_error")
    backwards = BODY | {"tex_slat_guidance_interval_start": 0.91}  # it ends at 0.9 by default
    (interval,) = _problem(fal, http, "fal-ai/trellis-2", backwards)
    assert (interval["loc"], interval["type"]) == (["body"], "value_error")


def test_pictures_are_looked_at_when_the_job_runs(fal: FalStandIn, http: httpx.Client) -> None:
    there = fal.store(_picture(), "größe 家.png", "image/png")
    text = fal.store(b"no picture", "a.png", "image/png")
    large = fal.store(_picture(4097), "large.png", "image/png")

    def kind(endpoint: str, **body: Any) -> Any:
        detail = _problem(fal, http, endpoint, body)
        return detail and (detail[0]["loc"][1:], detail[0]["type"])

    two = "fal-ai/trellis-2"
    assert kind(two, image_url=there) is None
    assert kind(two, image_url=large) is None
    assert kind(two, image_url="https://elsewhere.test/a.png") is None
    missing = f"{fal.url('files')}/files/b/0/none.png"
    assert kind(two, image_url=missing) == (["image_url"], "file_download_error")
    assert kind(two, image_url="C:/a.png") == (["image_url"], "file_download_error")
    assert kind(two, image_url=text) == (["image_url"], "image_load_error")
    assert kind(two, image_url=_data_uri(b"x")) == (["image_url"], "image_load_error")
    multi = kind("fal-ai/trellis-2/multi", image_urls=[there, missing])
    assert multi == (["image_urls", 1], "file_download_error")
    mesh = kind("fal-ai/trellis-2/retexture", image_url=there, mesh_url=missing)
    assert mesh == (["mesh_url"], "file_download_error")
    lora = kind("fal-ai/trellis-2-lora", image_url=large, texture_lora_url="https://l.test/t")
    assert lora == (["image_url"], "image_too_large")


# Asked directly: storage and the platform API


def test_a_signed_upload_takes_no_key_and_its_file_is_there_afterwards(
    fal: FalStandIn, http: httpx.Client
) -> None:
    url = f"{fal.url('rest')}/storage/upload/initiate"
    asked = {"content_type": "image/png", "file_name": "view_front.png"}
    assert http.post(url, json=asked).status_code == 400  # storage_type is missing
    wanted = {"storage_type": "fal-cdn-v3"}
    assert httpx.post(url, params=wanted, json=asked, trust_env=False).status_code == 401
    assert http.post(url, params=wanted, json={}).status_code == 422
    place = http.post(url, params=wanted, json=asked).json()
    assert set(place) == {"upload_url", "file_url"}

    kind = {"Content-Type": "image/png"}
    data = _picture()
    assert http.put(place["upload_url"], content=data, headers=kind).status_code == 400
    with httpx.Client(trust_env=False) as plain:
        assert plain.put(place["upload_url"], content=data).status_code == 403  # another type
        assert plain.get(place["file_url"]).status_code == 404
        assert plain.put(place["upload_url"], content=data, headers=kind).status_code == 200
        assert plain.get(place["file_url"]).content == data
        assert plain.post(f"{fal.url('upload')}/files/upload", content=data).status_code == 401
    assert http.get(place["file_url"]).status_code == 400
    assert _problem(fal, http, "fal-ai/trellis-2", {"image_url": place["file_url"]}) is None


def test_prices_and_the_balance_that_only_an_admin_may_see(
    fal: FalStandIn, http: httpx.Client
) -> None:
    models = f"{fal.url('api')}/v1/models"
    asked = {"endpoint_id": "fal-ai/trellis,fal-ai/trellis-2"}
    answer = http.get(f"{models}/pricing", params=asked).json()
    about = {"unit": "units", "currency": "USD"}
    assert answer == {
        "prices": [
            {"endpoint_id": "fal-ai/trellis", "unit_price": 0.02, **about},
            {"endpoint_id": "fal-ai/trellis-2", "unit_price": 0.05, **about},
        ],
        "next_cursor": None,
        "has_more": False,
    }
    for kind, quantity in (
        ("unit_price", {"unit_quantity": 6}),
        ("historical_api_price", {"call_quantity": 1}),
    ):
        body = {"estimate_type": kind, "endpoints": {"fal-ai/trellis-2": quantity}}
        answer = http.post(f"{models}/pricing/estimate", json=body).json()
        assert answer == {"estimate_type": kind, "total_cost": 0.3, "currency": "USD"}
    refusals = [
        (http.get(f"{models}/pricing"), 400, "validation_error"),
        (http.get(f"{models}/pricing?endpoint_id=a/b"), 404, "not_found"),
        (http.post(f"{models}/pricing/estimate", json={"endpoints": {}}), 400, "validation_error"),
        (http.get(f"{fal.url('api')}/v1/nothing"), 404, "not_found"),
        (httpx.get(f"{models}/pricing", trust_env=False), 401, "authorization_error"),
    ]

    billing = f"{fal.url('api')}/v1/account/billing"
    refusals.append((http.get(billing), 403, "authorization_error"))
    for reply, status, kind in refusals:
        assert (reply.status_code, reply.json()["error"]["type"]) == (status, kind)
        assert reply.json()["error"]["message"]
    admin = {"Authorization": f"Key {ADMIN_KEY}"}
    answer = http.get(billing, params={"expand": "credits"}, headers=admin).json()
    assert answer["credits"] == {"current_balance": 24.5, "currency": "USD"}


def test_the_history_finds_a_job_whose_reply_was_lost(fal: FalStandIn, http: httpx.Client) -> None:
    url = f"{fal.url('api')}/v1/models/requests/by-endpoint"
    before = datetime.now(UTC)
    lost = _submit(fal, http, BODY)
    ask = {"endpoint_id": "fal-ai/trellis-2", "start": before.isoformat(), "expand": "payloads"}
    assert http.get(url, params=ask).json() == {
        "items": [],  # it waits in the queue
        "next_cursor": None,
        "has_more": False,
    }
    fal.script.queued, fal.script.held = 0, True
    running = _submit(fal, http, {**BODY, "seed": 8})
    (item,) = http.get(url, params=ask).json()["items"]
    assert (item["request_id"], item["json_input"]["seed"]) == (running["request_id"], 8)
    assert (item["ended_at"], item["status_code"], item["duration"]) == (None, None, None)

    fal.finish(lost["request_id"])
    named = ask | {"request_id": lost["request_id"]}
    (item,) = http.get(url, params=named).json()["items"]
    times = [datetime.fromisoformat(item[name]) for name in ("sent_at", "started_at", "ended_at")]
    assert before < times[0] <= times[1] <= times[2]
    assert item["duration"] == pytest.approx((times[2] - times[0]).total_seconds())
    assert (item["endpoint_id"], item["status_code"]) == ("fal-ai/trellis-2", 200)
    assert item["json_input"] == BODY
    assert item["json_output"] == http.get(lost["response_url"]).json()


def test_the_history_is_filtered_and_comes_in_pages(fal: FalStandIn, http: httpx.Client) -> None:
    url = f"{fal.url('api')}/v1/models/requests/by-endpoint"
    fal.script.queued = fal.script.running = 0
    sent = [_submit(fal, http, {**BODY, "seed": seed}) for seed in range(3)]
    _submit(fal, http, {"image_url": IMAGE}, "fal-ai/trellis")
    _submit(fal, http, {"image_urls": [IMAGE]}, "fal-ai/trellis-2/multi")
    rejected = _submit(fal, http, {}, "fal-ai/trellis-2")
    private = _submit(fal, http, BODY, "fal-ai/trellis-2/multi", **{"X-Fal-Store-IO": "0"})

    def ids(**query: Any) -> list[str]:
        answer = http.get(url, params={"endpoint_id": "fal-ai/trellis-2", **query}).json()
        return [item["request_id"] for item in answer["items"]]

    newest_first = [rejected["request_id"], *[one["request_id"] for one in reversed(sent)]]
    assert ids() == newest_first
    assert ids(status="user_error") == newest_first[:1]
    assert ids(status="success") == newest_first[1:]
    assert ids(request_id=newest_first[2]) == newest_first[2:3]
    middle = fal.jobs[newest_first[2]].sent_at.isoformat()
    assert ids(start=middle) == newest_first[:3]
    assert ids(end=middle) == newest_first[3:]

    ask = {"endpoint_id": "fal-ai/trellis-2", "limit": "3"}
    first = http.get(url, params=ask).json()
    assert (len(first["items"]), first["has_more"], first["next_cursor"]) == (3, True, "Mg==")
    assert "json_input" not in first["items"][0]
    second = http.get(url, params={**ask, "cursor": first["next_cursor"]}).json()
    assert [item["request_id"] for item in second["items"]] == newest_first[3:]
    assert (second["has_more"], second["next_cursor"]) == (False, None)

    ask = {"endpoint_id": "fal-ai/trellis-2/multi", "expand": "payloads"}
    item = http.get(url, params=ask | {"request_id": private["request_id"]}).json()["items"][0]
    assert "json_input" not in item
    for wrong in (
        {"limit": "101"},
        {"start": "yesterday"},
        {"start": (datetime.now() - timedelta(hours=1)).isoformat()},  # without a zone
        {"request_id": "7"},
        {"endpoint_id": ""},
    ):
        answer = http.get(url, params={"endpoint_id": "fal-ai/trellis-2", **wrong})
        assert answer.status_code == 400, wrong

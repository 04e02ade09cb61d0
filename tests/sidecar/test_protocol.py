# SPDX-License-Identifier: GPL-3.0-or-later
"""The sidecar's HTTP, asked directly: fal's queue protocol to the letter, and who is turned away at the door."""

from __future__ import annotations

import base64
import io
import socket
import time
import uuid
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from PIL import Image

from blender_trellis import __version__


def _data_uri(colour: str = "red") -> str:
    image = Image.new("RGBA", (64, 64))
    image.paste(colour, (16, 8, 48, 60))
    out = io.BytesIO()
    image.save(out, "PNG")
    return f"data:image/png;base64,{base64.b64encode(out.getvalue()).decode()}"


BODY = {
    "image_urls": [_data_uri()],
    "seed": 3,
    "resolution": 512,
    "texture_size": 512,
    "decimation_target": 5000,
}


@pytest.fixture
def client(shared_sidecar: tuple[str, str]) -> Iterator[httpx.Client]:
    url, token = shared_sidecar
    headers = {"Authorization": f"Key {token}"}
    with httpx.Client(base_url=url, headers=headers, timeout=60) as client:
        yield client


def _finish(client: httpx.Client, ticket: dict[str, Any]) -> httpx.Response:
    deadline = time.monotonic() + 60
    while client.get(ticket["status_url"]).status_code == 202:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return client.get(ticket["response_url"])


def test_submit_status_result_file_and_collection(client: httpx.Client) -> None:
    reply = client.post("/local/draft", json=BODY)
    ticket = reply.json()
    assert reply.status_code == 200
    assert reply.headers["x-fal-request-id"] == ticket["request_id"]
    url = f"{client.base_url}/local/draft/requests/{ticket['request_id']}".replace(
        "//local", "/local"
    )
    assert ticket["response_url"] == url
    assert (ticket["status_url"], ticket["cancel_url"]) == (f"{url}/status", f"{url}/cancel")
    assert ticket["status"] == "IN_QUEUE" and ticket["queue_position"] >= 0

    early = client.get(f"{url}/status", params={"logs": "1"})
    assert early.status_code == 202
    assert early.json()["status"] in ("IN_QUEUE", "IN_PROGRESS")
    too_soon = client.get(url)
    assert (too_soon.status_code, too_soon.json()) == (
        400,
        {"detail": "Request is still in progress"},
    )

    result = _finish(client, ticket)
    assert result.status_code == 200
    done = client.get(f"{url}/status", params={"logs": "true"}).json()
    assert done["status"] == "COMPLETED"
    assert done["metrics"]["inference_time"] > 0
    assert done["progress"]["fraction"] == 1
    for entry in done["logs"]:
        assert set(entry) == {"message", "level", "source", "timestamp"}
    assert done["logs"]
    assert client.get(f"{url}/status").json()["logs"] is None

    file = result.json()["model_glb"]
    assert result.json()["seed"] == 3
    content = client.get(file["url"]).content
    assert content[:4] == b"glTF" and len(content) == file["file_size"]
    assert client.put(f"{url}/cancel").json() == {"status": "ALREADY_COMPLETED"}

    assert client.delete(url).json() == {"status": "OK"}
    gone = client.get(f"{url}/status")
    assert (gone.status_code, gone.json()) == (404, {"status": "NOT_FOUND"})
    assert client.get(file["url"]).status_code == 404


def test_a_repeated_key_is_the_same_job(client: httpx.Client) -> None:
    key = {"Idempotency-Key": str(uuid.uuid4())}
    first = client.post("/local/draft", json=BODY, headers=key).json()
    second = client.post("/local/draft", json=BODY, headers=key).json()
    assert first["request_id"] == second["request_id"] == key["Idempotency-Key"]
    assert _finish(client, first).status_code == 200
    assert (
        client.post("/local/draft", json=BODY, headers={"Idempotency-Key": "x/../y"}).status_code
        == 422
    )


@pytest.mark.parametrize(
    ("change", "where"),
    [
        ({"texture_size": 4097}, ["body", "texture_size"]),
        ({"unknown": 1}, ["body", "unknown"]),
        ({"image_urls": []}, ["body", "image_urls"]),
        ({"image_urls": [_data_uri()] * 5}, ["body", "image_urls"]),
        ({"image_urls": ["https://example.com/a.png"]}, ["body", "image_urls"]),
        ({"image_urls": ["file:///etc/passwd"]}, ["body", "image_urls"]),
        ({"image_urls": "data:image/png;base64,"}, ["body", "image_urls"]),
    ],
)
def test_a_wrong_body_is_refused_in_fals_shape(
    client: httpx.Client, change: dict[str, Any], where: list[str]
) -> None:
    reply = client.post("/local/draft", json=BODY | change)
    assert reply.status_code == 422
    (item,) = reply.json()["detail"]
    assert item["loc"] == where
    assert item["msg"] and item["type"]


@pytest.mark.parametrize(
    "data", ["data:image/png;base64,AAAA", "data:image/png;base64,!!", "data:image/png,x"]
)
def test_a_picture_that_is_none_fails_at_the_result(client: httpx.Client, data: str) -> None:
    ticket = client.post("/local/draft", json=BODY | {"image_urls": [data]}).json()
    result = _finish(client, ticket)
    assert result.status_code == 422
    assert result.json()["detail"][0]["loc"] == ["body", "image_urls"]


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b"null", b'"text"', b"\xff"])
def test_bodies_that_are_no_object(client: httpx.Client, content: bytes) -> None:
    reply = client.post(
        "/local/draft", content=content, headers={"content-type": "application/json"}
    )
    assert reply.status_code in (400, 422)


def test_unknown_endpoints_and_jobs(client: httpx.Client) -> None:
    unknown = client.post("/fal-ai/trellis", json=BODY)
    assert (unknown.status_code, unknown.json()) == (
        404,
        {"detail": 'Application "fal-ai/trellis" not found'},
    )
    for method, path in (("GET", "/status"), ("GET", ""), ("PUT", "/cancel"), ("DELETE", "")):
        reply = client.request(method, f"/local/draft/requests/{uuid.uuid4()}{path}")
        assert (reply.status_code, reply.json()) == (404, {"status": "NOT_FOUND"})


@pytest.mark.parametrize(
    "path",
    [
        "/files/..%2f..%2faddress.json/model.glb",
        "/files/../address.json",
        "/../address.json",
        "//etc/passwd",
    ],
)
def test_no_way_out_of_the_job_store(client: httpx.Client, path: str) -> None:
    assert client.get(path).status_code in (404, 405)


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Authorization": ""}, 401),
        ({"Authorization": "Key wrong"}, 401),
        ({"Authorization": "Bearer x"}, 401),
        ({"Authorization": "Key \xff"}, 401),
        ({"Host": "evil.example"}, 421),
        ({"Host": "evil.example:80"}, 421),
        ({"Origin": "https://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Content-Length": str(2**40)}, 413),
        ({"Content-Length": "-1"}, 413),
    ],
)
@pytest.mark.parametrize("path", ["/health", "/local/draft", "/shutdown"])
def test_who_is_turned_away(
    shared_sidecar: tuple[str, str], headers: dict[str, str], status: int, path: str
) -> None:
    """Sent by hand, since no client would send some of these."""
    url, token = shared_sidecar
    sent = {
        "Host": urlsplit(url).netloc,
        "Authorization": f"Key {token}",
        "Connection": "close",
    } | headers
    lines = [f"POST {path} HTTP/1.1", *(f"{name}: {value}" for name, value in sent.items()), "", ""]
    parts = urlsplit(url)
    with socket.create_connection((parts.hostname, parts.port), timeout=10) as connection:
        connection.sendall("\r\n".join(lines).encode("latin-1"))
        answer = connection.recv(1000).decode()
    code = int(answer.split()[1])
    # h11 itself refuses what is no number
    assert code in ({413, 400} if "Content-Length" in headers else {status})


def test_a_body_longer_than_said_or_allowed_is_cut_off(shared_sidecar: tuple[str, str]) -> None:
    """Chunked, so that no length is announced."""
    url, token = shared_sidecar

    def pieces() -> Iterator[bytes]:
        yield b'{"image_urls": ["'
        for _ in range(300):
            yield b"x" * 2**20

    try:
        reply = httpx.post(
            f"{url}/local/draft",
            content=pieces(),
            headers={"Authorization": f"Key {token}"},
            timeout=60,
        )
        assert reply.status_code == 413
    except httpx.TransportError as error:  # the server may hang up before all has been sent
        assert isinstance(error, httpx.WriteError | httpx.RemoteProtocolError | httpx.ReadError)
    assert httpx.get(f"{url}/health", headers={"Authorization": f"Key {token}"}).status_code == 200


def test_health_says_what_the_client_needs(client: httpx.Client) -> None:
    state = client.get("/health").json()
    assert state["version"] == __version__
    expected = {"version", "queued", "running", "busy", "waits_for", "workers", "executor"}
    assert set(state) == expected and state["waits_for"] == []
    assert (state["executor"], state["workers"]) == ("local", 2)


def test_first_come_first_served(client: httpx.Client) -> None:
    tickets = [client.post("/local/draft", json=BODY | {"seed": seed}).json() for seed in range(4)]
    positions = [
        client.get(ticket["status_url"]).json().get("queue_position", -1) for ticket in tickets
    ]
    assert positions == sorted(positions)
    for ticket in tickets:
        assert _finish(client, ticket).json()["seed"] == tickets.index(ticket)
        client.delete(ticket["response_url"])

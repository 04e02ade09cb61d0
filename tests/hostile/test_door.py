# SPDX-License-Identifier: GPL-3.0-or-later
"""Strangers at the sidecar's door: who dawdles, who comes in crowds, who sends what no schema says, and
other servers at its address.

Wrong tokens, foreign Hosts and Origins, too long bodies: tests/sidecar/test_protocol.py. Two starts at once: test_lifecycle.py.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, suppress
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from blender_trellis.services import sidecar
from blender_trellis.sidecar import store as stores
from blender_trellis.sidecar.store import KEEP_SECONDS, Store
from harness import REPOSITORY
from hostile import openapi
from local_server import LocalServer
from sidecar.studio import command

_AS_IT_IS = f"""
import sys
sys.path.insert(0, {str(REPOSITORY)!r})
from blender_trellis.sidecar import __main__, door
door.HEAD_SECONDS, door.BODY_SECONDS = 1.0, 1.0
sys.argv[1:] = ["--folder", sys.argv[1]]
__main__.main()
"""
_PICTURE = "data:image/png;base64,AAAA"  # is taken on, and fails without work


@pytest.fixture(scope="module")
def impatient(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """Address and token of a real sidecar that waits for one second where others wait for ten, and for sixty."""
    home = tmp_path_factory.mktemp("impatient")
    process = subprocess.Popen([sys.executable, "-c", _AS_IT_IS, str(home / "sidecar")])
    while sidecar.health(address := sidecar.read_address(home)) is None:
        assert process.poll() is None
        time.sleep(0.05)
    assert address
    yield address
    sidecar.stop(home)
    process.wait(20)


def _connect(url: str) -> socket.socket:
    parts = urlsplit(url)
    return socket.create_connection((parts.hostname, parts.port), timeout=30)


def _head(url: str, token: str, *more: str) -> bytes:
    lines = [
        "POST /local/draft HTTP/1.1",
        f"Host: {urlsplit(url).netloc}",
        f"Authorization: Key {token}",
        *more,
    ]
    return "\r\n".join([*lines, "", ""]).encode()


def _answers(url: str, token: str) -> bool:
    headers = {"Authorization": f"Key {token}"}
    return httpx.get(f"{url}/health", headers=headers, timeout=10).status_code == 200


def _drip(connection: socket.socket, data: bytes) -> bytes:
    """Send byte by byte until the other side has had enough; what it says."""
    connection.settimeout(0.05)
    for byte in data:
        try:
            connection.sendall(bytes([byte]))
            answer = connection.recv(1000)
            connection.settimeout(30)
            return answer
        except TimeoutError:
            continue
        except OSError:
            return b""
    raise AssertionError("it took all of that")


@pytest.mark.parametrize("first", [False, True], ids=["at once", "after a request"])
def test_a_head_that_never_ends_ends_the_connection(
    impatient: tuple[str, str], first: bool
) -> None:
    url, token = impatient
    with closing(_connect(url)) as connection:
        if first:
            connection.sendall(_head(url, "wrong", "Content-Length: 0"))
            answer = b""
            while not answer.endswith(b'credentials"}'):
                answer += connection.recv(1000)
            assert b" 401 " in answer
        assert _drip(connection, _head(url, token, "X-More: " + "x" * 400)) == b""
    assert _answers(url, token)


def test_a_connection_that_says_nothing_ends(impatient: tuple[str, str]) -> None:
    with closing(_connect(impatient[0])) as connection:
        assert connection.recv(1000) == b""


@pytest.mark.parametrize("begun", [b"", b'{"image_urls": ['], ids=["not begun", "byte by byte"])
def test_a_body_that_dawdles_is_refused(impatient: tuple[str, str], begun: bytes) -> None:
    url, token = impatient
    with closing(_connect(url)) as connection:
        head = _head(url, token, "Content-Type: application/json", "Content-Length: 100000")
        connection.sendall(head + begun)
        answer = _drip(connection, b'"x", ' * 200) if begun else connection.recv(1000)
        assert b" 408 " in answer and b"too slowly" in answer + connection.recv(1000)
    assert _answers(url, token)


def test_two_hundred_who_dawdle_hold_up_nobody(impatient: tuple[str, str]) -> None:
    url, token = impatient
    head = _head(url, token, "Content-Length: 100000", "Content-Type: application/json")
    with ExitStack() as opened:
        crowd = [opened.enter_context(closing(_connect(url))) for _ in range(200)]
        for number, connection in enumerate(crowd):
            connection.sendall([b"", b"POST", head, head + b"{"][number % 4])
        with ThreadPoolExecutor(20) as pool:
            assert all(pool.map(lambda _: _answers(url, token), range(40)))
        # Each is answered or hung up on; none has to be waited for any longer
        assert all(
            connection.recv(1000) == b"" or number % 4 > 1
            for number, connection in enumerate(crowd)
        )


def test_two_hundred_at_once_are_all_answered(shared_sidecar: tuple[str, str]) -> None:
    url, token = shared_sidecar
    request = f"GET /health HTTP/1.1\r\nHost: {urlsplit(url).netloc}\r\nAuthorization: Key {token}\r\nConnection: close\r\n\r\n"
    with ExitStack() as opened:
        crowd = [opened.enter_context(closing(_connect(url))) for _ in range(200)]
        for connection in crowd:
            connection.sendall(request.encode())
        assert all(b" 200 " in connection.recv(2000) for connection in crowd)


def test_every_answer_is_as_the_document_says_and_none_comes_without_the_key(
    shared_sidecar: tuple[str, str],
) -> None:
    assert openapi.hold(*shared_sidecar, examples=30) >= 10


@pytest.mark.parametrize(
    "name",
    ["..", "../..", "%2e%2e%2f%2e%2e", "..%5c..", "%00", "/etc/passwd", "C:%5c", "~", "." * 300],
)
def test_no_job_id_leads_out_of_the_store(shared_sidecar: tuple[str, str], name: str) -> None:
    """Sent by hand, since clients tidy up such paths."""
    url, token = shared_sidecar
    for path in (
        f"/files/{name}/model.glb",
        f"/local/draft/requests/{name}",
        f"/local/draft/requests/{name}/status",
    ):
        with closing(_connect(url)) as connection:
            lines = [
                f"GET {path} HTTP/1.1",
                f"Host: {urlsplit(url).netloc}",
                f"Authorization: Key {token}",
            ]
            connection.sendall("\r\n".join([*lines, "Connection: close", "", ""]).encode())
            code = int(connection.recv(1000).split()[1])
        assert code in (404, 405)


# Its address, its clock, its disk --------------------------------------------------------------------------------------


def _say(handler: BaseHTTPRequestHandler, content: bytes) -> None:
    handler.send_response(200)
    handler.send_header("content-length", str(len(content)))
    handler.end_headers()
    handler.wfile.write(content)


def _another_server(handler: BaseHTTPRequestHandler) -> None:
    _say(handler, b'{"status": "ok"}')


def _one_that_is_just_ending(handler: BaseHTTPRequestHandler) -> None:
    if handler.command == "GET":
        _say(handler, b'{"version": "0", "busy": false}')
    else:
        handler.close_connection = True


def test_another_server_at_a_stale_address_is_not_taken_for_it(own_sidecar: Path) -> None:
    other = LocalServer(_another_server)
    other.start()
    folder = own_sidecar / "sidecar"
    folder.mkdir(parents=True)
    stale = {"url": other.url, "token": "t", "pid": 1, "version": "0"}
    (folder / "address.json").write_text(json.dumps(stale))
    try:
        assert sidecar.health((other.url, "t")) is None
        assert not sidecar.stop(own_sidecar)
        url, _ = sidecar.ensure(own_sidecar)
        assert url != other.url
    finally:
        other.stop()


def test_one_that_ends_before_it_hears_what_is_wanted_is_no_error(home: Path) -> None:
    ending = LocalServer(_one_that_is_just_ending)
    ending.start()
    folder = home / "sidecar"
    folder.mkdir(parents=True)
    (folder / "address.json").write_text(json.dumps({"url": ending.url, "token": "t"}))
    try:
        assert not sidecar.unload(home)
        assert sidecar.stop(home)
    finally:
        ending.stop()


def test_a_port_that_is_taken_is_said_and_leaves_no_address(tmp_path: Path) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        port = str(taken.getsockname()[1])
        done = subprocess.run(
            command(tmp_path, "--port", port),
            cwd=REPOSITORY,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert done.returncode != 0
    assert ("only one usage" if sys.platform == "win32" else "in use") in done.stderr.lower()
    assert not (tmp_path / "address.json").exists()


@pytest.mark.parametrize("days", [-10_000, -1, 1, 40, 10_000])
def test_no_job_grows_old_because_somebody_sets_the_clock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, days: int
) -> None:
    kept = Store(tmp_path)
    ids = [
        kept.add(f"00000000-0000-0000-0000-00000000000{number}", "local/draft", {}).id
        for number in range(2)
    ]
    for job in kept.jobs.values():
        job.status, job.output = "COMPLETED", {"model_glb": {}}
    now, ticks = time.time, time.monotonic
    monkeypatch.setattr(stores.time, "time", lambda: now() + days * 86_400)
    kept.remove_old()
    assert [*kept.jobs] == ids
    later = kept.add("00000000-0000-0000-0000-000000000009", "local/draft", {})
    assert abs(later.created - kept.jobs[ids[0]].created) < 3600
    monkeypatch.setattr(stores.time, "monotonic", lambda: ticks() + KEEP_SECONDS + 60)
    kept.remove_old()  # by then it is old indeed
    assert [*kept.jobs] == [later.id]  # never finished


def _full(place: Path) -> None:
    with (place / "filler").open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(b"\0" * 1024)


def _read_only(place: Path) -> None:
    jobs = place / "sidecar" / "jobs"
    subprocess.run(["mount", "--bind", jobs, jobs], check=True)
    subprocess.run(["mount", "-o", "remount,bind,ro", jobs], check=True)


@pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root may mount a small disk"
)
@pytest.mark.parametrize("spoil", [_full, _read_only], ids=["full", "read-only"])
def test_a_disk_that_takes_nothing_is_said_and_what_is_there_stays(
    tmp_path: Path, spoil: Callable[[Path], None]
) -> None:
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", place], check=False
    )
    if mounted.returncode:
        pytest.skip("no disk can be mounted here")
    try:
        url, token = sidecar.ensure(place)
        headers = {"Authorization": f"Key {token}"}
        with httpx.Client(base_url=url, headers=headers, timeout=30) as client:
            body = {"image_urls": [_PICTURE]}
            before = client.post("/local/draft", json=body).json()
            while client.get(before["status_url"]).status_code == 202:
                time.sleep(0.02)
            spoil(place)
            refused = client.post("/local/draft", json={"image_urls": [_PICTURE + "A" * 40_000]})
            assert refused.status_code == 507
            assert "cannot write its files" in refused.json()["detail"]
            assert client.get(before["response_url"]).status_code == 422  # the picture is none
            assert client.get("/health").json()["busy"] is False
        assert [each.name for each in (place / "sidecar" / "jobs").iterdir()] == [
            before["request_id"]
        ]
    finally:
        sidecar.stop(place)
        if spoil is _read_only:
            subprocess.run(["umount", "-l", place / "sidecar" / "jobs"], check=False)
        subprocess.run(["umount", "-l", place], check=True)

# SPDX-License-Identifier: GPL-3.0-or-later
"""A server for several users: what it refuses to start as, who may call it, and that nobody sees another's jobs."""

from __future__ import annotations

import asyncio
import math
import sys
from argparse import Namespace
from pathlib import Path
from typing import Any

import httpx
import pytest

from blender_trellis.sidecar.__main__ import _arguments, _executor
from blender_trellis.sidecar.access import AccessError, hosts, read_tokens, url
from blender_trellis.sidecar.app import build
from blender_trellis.sidecar.executors import LocalExecutor
from blender_trellis.sidecar.server import Server
from blender_trellis.sidecar.store import Store
from sidecar.studio import ANNA, BERT
from sidecar.test_protocol import BODY


@pytest.fixture
def token_file(tmp_path: Path) -> Path:
    path = tmp_path / "tokens"
    path.write_text(f"# the studio\nanna {ANNA}\n\n  bert\t{BERT}  # until May\n", "utf-8")
    return path


def _options(monkeypatch: pytest.MonkeyPatch, *given: str | Path) -> Namespace:
    monkeypatch.setattr(sys, "argv", ["sidecar", *map(str, given)])
    return _arguments()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["--host", "0.0.0.0"], "give --token-file"),
        (["--host", "192.0.2.1", "--allow-http"], "give --token-file"),
        (["--host", "192.0.2.1", "--token-file", "FILE"], "Give --certificate and --key"),
        (["--host", "::", "--token-file", "FILE", "--allow-http"], "Say with --name"),
        (["--certificate", "c.pem"], "belong together"),
        (["--key", "k.pem"], "belong together"),
        (["--token-file", "/nowhere/tokens"], "cannot be read"),
    ],
)
def test_a_server_that_would_be_open_does_not_start(
    token_file: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    given: list[str],
    said: str,
) -> None:
    with pytest.raises(SystemExit) as ended:
        _options(monkeypatch, *(str(token_file) if each == "FILE" else each for each in given))
    assert ended.value.code == 2
    assert said in " ".join(capsys.readouterr().err.split())


def test_what_others_may_reach_starts(token_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tokens = ["--token-file", token_file]
    for given in (
        ["--host", "192.0.2.1", "--allow-http"],
        ["--host", "0.0.0.0", "--certificate", "c.pem", "--key", "k.pem", "--name", "gpu.example"],
        ["--host", "127.0.0.5"],
    ):
        options = _options(monkeypatch, *given, *tokens)
        assert options.tokens == {ANNA: "anna", BERT: "bert"}
        assert options.idle_seconds == math.inf, "a server of several users does not end by itself"
    assert _options(monkeypatch).idle_seconds == 600


def test_by_which_names_it_is_known(monkeypatch: pytest.MonkeyPatch, token_file: Path) -> None:
    given = ["--name", "gpu.example", "--allow-http", "--token-file", token_file]
    options = _options(monkeypatch, "--host", "0.0.0.0", *given)
    assert url(options, 8443) == "http://127.0.0.1:8443"
    here = {"127.0.0.1:8443", "localhost:8443"}
    assert hosts(options, 8443) == here | {"gpu.example", "gpu.example:8443"}
    options = _options(monkeypatch, "--host", "::1")
    assert url(options, 5) == "http://[::1]:5"
    assert hosts(options, 5) == {"[::1]:5", "127.0.0.1:5", "localhost:5"}


@pytest.mark.parametrize(("scheme", "port"), [("http", 80), ("https", 443), ("https", 8443)])
def test_an_address_without_a_name_is_known_as_clients_call_it(
    monkeypatch: pytest.MonkeyPatch, token_file: Path, scheme: str, port: int
) -> None:
    given = ["--host", "192.0.2.1", "--allow-http", "--token-file", token_file]
    sent = httpx.Request("GET", f"{scheme}://192.0.2.1:{port}/health").headers["host"]
    assert sent in hosts(_options(monkeypatch, *given), port)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "has no token"),
        ("# nobody\n", "has no token"),
        ("short\n", "line 1: a token has 20 characters"),
        (f"{ANNA}\nanna lee {BERT}\n", "line 2: write a token"),
        (f"a/b {ANNA}\n", "line 1: write a token"),
        (f"anna {ANNA}\nbert {ANNA}\n", "line 2: this token stands further up"),
        ("ein-Größeres-Zeichen-0123\n", "line 1: a token has 20 characters"),
    ],
)
def test_a_token_file_that_says_something_else_is_refused(
    tmp_path: Path, text: str, said: str
) -> None:
    path = tmp_path / "tokens"
    path.write_text(text, "utf-8")
    with pytest.raises(AccessError, match=said) as refused:
        read_tokens(path)
    assert ANNA not in str(refused.value) and BERT not in str(refused.value)


def test_a_token_without_a_name_keeps_its_own_wherever_it_stands(tmp_path: Path) -> None:
    path = tmp_path / "tokens"
    path.write_text(f"{ANNA}\n{BERT}\n", "utf-8")
    before = read_tokens(path)
    path.write_text(f"carl {'c' * 20}\n{BERT}\n", "utf-8")
    assert read_tokens(path)[BERT] == before[BERT] != before[ANNA]
    assert not any(token in name for token in before for name in before.values())


def test_ray_is_imported_where_it_is_asked_for_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.delitem(sys.modules, "blender_trellis.sidecar.ray_executor", raising=False)
    assert _executor(tmp_path, _options(monkeypatch)).about() == {"executor": "local"}
    with pytest.raises(SystemExit, match=r"pip install 'ray\[default\]'"):
        _executor(tmp_path, _options(monkeypatch, "--executor", "ray"))


def test_nobody_sees_or_touches_the_jobs_of_another(tmp_path: Path) -> None:
    """None is begun here, since the application's life never begins; so the queue is as it was filled."""
    server = Server(Store(tmp_path / "jobs"), LocalExecutor(tmp_path), 60, lambda: None)
    ended: list[bool] = []
    clients = {ANNA: "anna", BERT: "bert", "owner": ""}
    app = build(server, clients=clients, hosts={"here"}, stop=lambda: ended.append(True))

    async def ask() -> None:
        transport = httpx.ASGITransport(app)
        anna, bert, owner = (
            httpx.AsyncClient(
                transport=transport,
                base_url="http://here",
                headers={"Authorization": f"Key {token}"},
            )
            for token in clients
        )
        tickets: list[dict[str, Any]] = []
        for client in (anna, anna, anna, bert):
            tickets.append((await client.post("/local/draft", json=BODY)).json())
        places = [(await owner.get(each["status_url"])).json() for each in tickets]
        assert [each["queue_position"] for each in places] == [0, 2, 3, 1]

        job = tickets[0]
        for method, address in (
            ("GET", job["status_url"]),
            ("GET", job["response_url"]),
            ("PUT", job["cancel_url"]),
            ("DELETE", job["response_url"]),
            ("GET", f"/files/{job['request_id']}/model.glb"),
        ):
            assert (await bert.request(method, address)).status_code == 404
        same = {"Idempotency-Key": job["request_id"]}
        assert (await bert.post("/local/draft", json=BODY, headers=same)).status_code == 404
        again = await anna.post("/local/draft", json=BODY, headers=same)
        assert again.json()["request_id"] == job["request_id"]

        for path in ("/shutdown", "/unload"):
            assert (await bert.post(path)).status_code == 403
        assert not ended
        assert (await owner.put(job["cancel_url"])).status_code == 202
        assert (await anna.get(job["response_url"])).status_code == 499
        assert (await owner.post("/shutdown")).status_code == 200
        assert ended

    asyncio.run(ask())
    again = Store(tmp_path / "jobs")
    assert sorted(job.client for job in again.jobs.values()) == ["anna", "anna", "anna", "bert"]

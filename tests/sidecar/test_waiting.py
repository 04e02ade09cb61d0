# SPDX-License-Identifier: GPL-3.0-or-later
"""Jobs that nobody can carry out now: they say what they wait for, and a server whose work has broken ends."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import httpx

from blender_trellis.services.queue import _message
from blender_trellis.sidecar.app import build
from blender_trellis.sidecar.executors import LocalExecutor, Place
from blender_trellis.sidecar.server import Server
from blender_trellis.sidecar.store import Store
from sidecar.test_metrics import told
from sidecar.test_protocol import BODY

WHY = "Waiting for a machine with a GPU: the Ray cluster has none"


class Empty(LocalExecutor):
    """A cluster without the machine that is needed."""

    def lacking(self, environment: str) -> str:
        return WHY


class Broken(LocalExecutor):
    """A cluster that cannot be asked any more."""

    async def places(self, environment: str) -> AsyncIterator[Place]:
        raise RuntimeError("the head is gone")
        yield


def test_a_job_without_a_place_says_what_it_waits_for(tmp_path: Path) -> None:
    """None is begun here, since the application's life never begins."""
    server = Server(Store(tmp_path / "jobs"), Empty(tmp_path), 60, lambda: None)
    app = build(server, clients={"key": "anna"}, hosts={"here"}, stop=lambda: None)

    async def ask() -> None:
        headers = {"Authorization": "Key key"}
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(
            transport=transport, base_url="http://here", headers=headers
        ) as client:
            ticket = (await client.post("/local/draft", json=BODY)).json()
            for _ in range(2):
                state = (await client.get(f"{ticket['status_url']}?logs=1")).json()
            assert (state["status"], state["waits_for"]) == ("IN_QUEUE", WHY)
            assert [line["message"] for line in state["logs"]] == [WHY]
            assert _message(state, "IN_QUEUE") == WHY, "the add-on shows it"
            assert (await client.get("/health")).json()["waits_for"] == [WHY]
            figures = told((await client.get("/metrics")).text)
            assert figures['trellis_queue_length{environment="own"}'] == 1
            assert figures['trellis_workers{environment="own",state="idle"}'] == 0
            await client.put(ticket["cancel_url"])
            assert "waits_for" not in (await client.get(ticket["status_url"])).json()

    asyncio.run(ask())


def test_a_server_whose_work_has_broken_ends(tmp_path: Path) -> None:
    async def run() -> None:
        ended = asyncio.Event()
        server = Server(Store(tmp_path / "jobs"), Broken(tmp_path), 60, ended.set)
        async with server.at_work():
            await asyncio.wait_for(ended.wait(), 30)

    asyncio.run(run())


def test_jobs_that_another_version_wrote_are_left_alone(tmp_path: Path) -> None:
    store = Store(tmp_path)
    ours, newer = (store.add(f"{number:032x}", "local/draft", {}).id for number in (1, 2))
    path = tmp_path / newer / "job.json"
    path.write_text(json.dumps(json.loads(path.read_text("utf-8")) | {"later": 1}), "utf-8")
    (tmp_path / "begun").mkdir()
    assert [*Store(tmp_path).jobs] == [ours]
    assert path.exists() and not (tmp_path / "begun").exists()

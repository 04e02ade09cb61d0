# SPDX-License-Identifier: GPL-3.0-or-later
"""A server that the settings name, a studio's for instance, and that is away for a while: jobs outlive that, and cost nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from blender_trellis.config import Config
from blender_trellis.errors import CancelledError
from blender_trellis.generation.carrier import Carrier
from blender_trellis.generation.job import ENDED, State
from blender_trellis.generation.request import Request
from blender_trellis.generation.runner import Runner
from gate import Gate
from sidecar.studio import ANNA, served, tokens

FAST = {"seed": 5, "resolution": 512, "texture_size": 512, "decimation_target": 5000}
SLOW = FAST | {"resolution": 1536, "texture_size": 2048}
TIMES = 12  # in a row that the server is asked in vain; one that is started from here was given up after 5


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    async def pause(attempt: int, error: Any) -> None:
        await asyncio.sleep(0.01)

    monkeypatch.setattr(Carrier, "_pause", staticmethod(pause))


@pytest.fixture
def gate(shared_sidecar: tuple[str, str]) -> Iterator[Gate]:
    with Gate(shared_sidecar[0]) as gate:
        yield gate


def _ask_in_vain(runner: Runner) -> None:
    """Until the server has been asked that often; the job must not have ended."""
    refused = 0
    while refused < TIMES:
        event = runner.events.get(timeout=60)
        assert event.state not in ENDED, event
        refused += "Trying again." in event.message


def test_a_job_outlives_a_server_that_is_killed_and_started_again_much_later(
    home: Path, tmp_path: Path, picture: Path
) -> None:
    studio = tmp_path / "studio"
    studio.mkdir()
    options = ["--token-file", tokens(studio)]
    with served(studio, *options) as server:
        runner = Runner(Config(home, sidecar_url=server["url"], sidecar_token=ANNA))
        job_id = runner.submit(Request("local/draft", [picture], SLOW))
        while not runner.events.get(timeout=60).stage:
            continue
    with closing(runner):
        _ask_in_vain(runner)
        assert runner.journal.get(job_id).state is State.RUNNING
        with served(studio, *options, "--port", str(urlsplit(server["url"]).port)):
            job = runner.wait(job_id, timeout=120)
    assert job.state is State.READY and job.request_id == job_id


def test_one_that_is_cancelled_while_the_server_is_away_is_not_said_to_cost(
    config: Config, gate: Gate, picture: Path
) -> None:
    with closing(Runner(replace(config, sidecar_url=gate.url))) as runner:
        for pattern in ("^GET .*/status", "^PUT"):
            gate.on(pattern, "before", lambda: "drop")
        job_id = runner.submit(Request("local/draft", [picture], FAST))
        _ask_in_vain(runner)
        runner.cancel(job_id)
        with pytest.raises(CancelledError, match="could not be told") as told:
            runner.wait(job_id)
    assert "charge" not in told.value.message


def test_one_that_is_cancelled_while_its_model_is_fetched_is_ready(
    config: Config, gate: Gate, picture: Path
) -> None:
    with closing(Runner(replace(config, sidecar_url=gate.url))) as runner:
        gate.on("^GET /files", "before", lambda: "drop")
        job_id = runner.submit(Request("local/draft", [picture], FAST))
        _ask_in_vain(runner)
        assert runner.journal.get(job_id).state is State.DOWNLOADING
        runner.cancel(job_id)
        late = "It was finished before it could be cancelled."
        told = runner.wait(
            job_id, lambda event: gate.rules.clear() if event.message == late else None
        )
    assert told.state is State.READY

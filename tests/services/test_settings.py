# SPDX-License-Identifier: GPL-3.0-or-later
"""Settings that change while jobs are at work: another key, or none."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from blender_trellis.config import Config
from blender_trellis.errors import AccessError, UnreachableError
from blender_trellis.generation.job import State
from blender_trellis.generation.request import Request
from blender_trellis.generation.runner import Runner
from blender_trellis.services import Service, open_service, pool
from blender_trellis.services import fal as fals
from blender_trellis.services.fal import FalService
from services.fal_standin import FalStandIn


@pytest.fixture
def runner(fal: FalStandIn, home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Runner]:
    monkeypatch.setattr(FalService, "poll_seconds", (0.01, 0.02))
    fal.script.held = True
    runner = Runner(Config.load())
    yield runner
    runner.close()


def _until(done: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not done():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def _at_work(runner: Runner, fal: FalStandIn, picture: Path) -> tuple[str, str]:
    """A job that fal works on: its id here, and there."""
    job_id = runner.submit(Request("fal-ai/trellis-2", [picture]))
    _until(lambda: bool(fal.jobs))
    _until(lambda: runner.journal.get(job_id).state is State.RUNNING)
    return job_id, next(iter(fal.jobs))


def test_a_job_at_work_is_asked_for_with_the_key_of_that_moment(
    runner: Runner, fal: FalStandIn, picture: Path
) -> None:
    good = runner.config
    job_id, request_id = _at_work(runner, fal, picture)
    runner.reconfigure(replace(good, fal_key="revoked"))
    _until(lambda: any(call.headers["authorization"] == "Key revoked" for call in fal.calls))
    fal.finish(request_id)
    runner.reconfigure(good)
    assert runner.wait(job_id, timeout=60).state is State.READY
    assert len(fal.submits) == 1


def test_a_job_at_work_stops_where_its_service_may_not_be_asked_and_goes_on_later(
    runner: Runner, fal: FalStandIn, picture: Path
) -> None:
    good = runner.config
    job_id, request_id = _at_work(runner, fal, picture)
    runner.reconfigure(replace(good, fal_key=""))
    with pytest.raises(AccessError, match="no key for fal"):
        runner.wait(job_id, timeout=60)
    assert runner.journal.get(job_id).state is State.RUNNING
    fal.finish(request_id)
    runner.reconfigure(good)
    assert runner.resume(job_id)
    assert runner.wait(job_id, timeout=60).state is State.READY
    assert len(fal.submits) == 1


def test_what_is_open_by_former_settings_is_closed_when_nobody_uses_it(
    runner: Runner, fal: FalStandIn, picture: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[FalService] = []

    def keep(endpoint: str, config: Config) -> Service:
        service = open_service(endpoint, config)
        assert isinstance(service, FalService)
        opened.append(service)
        return service

    monkeypatch.setattr(pool, "open_service", keep)
    job_id, request_id = _at_work(runner, fal, picture)
    for number in (1, 2):
        runner.reconfigure(replace(runner.config, jobs_at_once=number))
        _until(lambda number=number: len(opened) == number + 1)
        _until(lambda number=number: opened[number - 1]._client.is_closed)
        assert not opened[number]._client.is_closed
    fal.finish(request_id)
    assert runner.wait(job_id, timeout=60).state is State.READY
    runner.reconfigure(replace(runner.config, jobs_at_once=3))
    _until(lambda: all(service._client.is_closed for service in opened))  # at once where it is idle


def test_a_price_is_told_or_not_and_not_waited_for(
    runner: Runner, picture: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """fal's storage does not answer, to which a large picture goes before fal is asked."""
    monkeypatch.setattr(fals, "INLINE_BYTES", 10)
    runner.reconfigure(replace(runner.config, fal_rest_url="http://127.0.0.1:9"))
    with pytest.raises(UnreachableError, match="fal does not answer"):
        runner.price(Request("fal-ai/trellis-2", [picture]))
    assert runner.events.empty()

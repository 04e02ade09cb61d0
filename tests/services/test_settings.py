# SPDX-License-Identifier: GPL-3.0-or-later
"""Settings that change while jobs are at work: another key, or none."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from blender_trellis.config import Config
from blender_trellis.errors import AccessError
from blender_trellis.generation.job import State
from blender_trellis.generation.request import Request
from blender_trellis.generation.runner import Runner
from services.fal_standin import FalStandIn


@pytest.fixture
def runner(fal: FalStandIn, config: Config) -> Iterator[Runner]:
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

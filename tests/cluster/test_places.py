# SPDX-License-Identifier: GPL-3.0-or-later
"""A place on a cluster, as its machine is lost, left or sick; the cluster itself is not needed for that."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("ray", reason="Ray is not installed: python build.py cluster")

from ray.exceptions import RayActorError, RayError, RayTaskError

from blender_trellis.sidecar import ray_executor
from blender_trellis.sidecar.engines import ENVIRONMENTS, OWN
from sidecar.test_protocol import BODY

HERE, THERE = "1" * 56, "2" * 56


class Remote:
    """An actor's method, which `does` something."""

    def __init__(self, does: Callable[..., Any]) -> None:
        self.remote = does


@pytest.fixture
def killed(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The actors that were ended."""
    found: list[Any] = []
    monkeypatch.setattr(ray_executor.ray, "kill", found.append)
    monkeypatch.setattr(ray_executor, "_RETRY_SECONDS", 0.001)
    return found


def _place(monkeypatch: pytest.MonkeyPatch, *actors: Any) -> ray_executor._Place:
    """A place whose actors are these, one after another."""
    coming = iter(actors)
    place = ray_executor._Place(OWN, None)
    monkeypatch.setattr(place, "_make", lambda: next(coming))
    return place


def test_a_place_that_is_to_leave_while_it_looks_after_its_machine_gets_another_one(
    killed: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def leaves() -> tuple[str, str]:
        if place.machine:  # it was there, and had nothing to do
            await place.leave()
        return HERE, ""

    async def stays() -> tuple[str, str]:
        return THERE, ""

    left, other = (SimpleNamespace(ready=Remote(ready)) for ready in (leaves, stays))
    place = _place(monkeypatch, left, other)

    async def look() -> None:
        await place.ready()
        assert place.machine == HERE
        await asyncio.wait_for(place.ready(), 30)

    asyncio.run(look())
    assert (place.machine, place._actor, killed) == (THERE, other, [left])


def test_a_sick_machine_takes_no_job_until_it_is_well_and_what_it_lacks_is_told(
    killed: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray_executor, "_SICK_SECONDS", 0.001)
    trouble = "node-3: TRELLIS.2 is not installed."
    told: list[Any] = []

    async def ready() -> tuple[str, str]:
        told.append((place.is_there, executor.lacking(OWN), executor.about()["troubles"]))
        return HERE, trouble if len(told) < 3 else ""

    place = _place(monkeypatch, SimpleNamespace(ready=Remote(ready)))
    executor = ray_executor.RayExecutor("auto", None)
    executor._resources, executor._places[OWN] = {"CPU": 1.0}, [place]
    asyncio.run(place.ready())
    assert told[1:] == [(False, f"Waiting for a machine that can work: {trouble}", [trouble])] * 2
    assert (place.is_there, executor.lacking(OWN), executor.about()["troubles"]) == (True, "", [])
    assert not killed


@pytest.mark.parametrize(
    ("error", "why", "ends"),
    [
        (
            RayTaskError("run", "Traceback", OSError(28, "No space left on device")),
            "Its machine could not work on it: [Errno 28] No space left on device.",
            False,
        ),
        (RayActorError(), "Its machine left the cluster, or its process there ended.", True),
    ],
)
def test_trouble_at_a_machine_and_the_loss_of_it_are_told_apart(
    killed: list[Any],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    error: RayError,
    why: str,
    ends: bool,
) -> None:
    async def ready() -> tuple[str, str]:
        return HERE, ""

    async def answers(*_: object) -> AsyncIterator[Any]:
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        future.set_exception(error)
        yield future

    (tmp_path / "request.json").write_text("{}", "utf-8")
    place = _place(monkeypatch, SimpleNamespace(ready=Remote(ready), run=Remote(answers)))

    async def run() -> list[Any]:
        await place.ready()
        return [event async for event in place.run("1", "local/draft", tmp_path)]

    assert asyncio.run(run()) == [{"id": "1", "event": "lost", "machine": HERE, "why": why}]
    assert bool(killed) is ends and place.is_there is not ends


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_a_machine_looks_whether_it_can_work(tmp_path: Path, environment: str) -> None:
    async def trouble() -> str:
        actor = ray_executor._Actor(environment, str(tmp_path))
        try:
            return await actor._trouble()
        finally:
            await actor._worker.stop()

    found = asyncio.run(trouble())
    if environment == OWN:
        assert found == "" and list((tmp_path / "sidecar" / "at-work").iterdir()) == []
    else:
        assert "TRELLIS.2" in found and "not installed" in found
    (tmp_path / "sidecar" / "at-work").rmdir()
    (tmp_path / "sidecar" / "at-work").write_text("no folder", "utf-8")
    assert "cannot write to" in asyncio.run(trouble())


def test_two_starts_of_a_job_in_a_shared_folder_are_apart_and_old_leftovers_are_swept(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "sidecar" / "at-work"
    left, new = folder / "left", folder / "new"
    for each in (left, new):
        each.mkdir(parents=True)
    os.utime(left, (0, 0))
    request = json.dumps(BODY).encode()

    async def run() -> dict[str, Any]:
        actors = [ray_executor._Actor(OWN, str(tmp_path)) for _ in range(2)]
        runs = [actor.run("job", "local/draft", request) for actor in actors]
        first, second = [(run, await anext(run)) for run in runs]
        await first[0].aclose()  # it was cut off, and ends while the other is at work
        _, last = second
        async for event in second[0]:
            last = event
        for actor in actors:
            await actor._worker.stop()
        return last

    last = asyncio.run(run())
    assert last["event"] == "done" and last["glb"][:4] == b"glTF"
    assert [*folder.iterdir()] == [new]

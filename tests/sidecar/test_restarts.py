# SPDX-License-Identifier: GPL-3.0-or-later
"""What becomes of a job when its server ends, its place fails, or nobody foresaw what happens: it is made, or fails in words."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from blender_trellis.sidecar.engines import OWN
from blender_trellis.sidecar.executors import LocalExecutor, Place
from blender_trellis.sidecar.server import Server
from blender_trellis.sidecar.store import MAX_STARTS, Job, Store

AGAIN = "Starting again"
Events = AsyncGenerator[dict[str, Any], None]
Run = Callable[[str, str, Path], Events]


class Bench:
    """A place for Draft's jobs: `run` says what becomes of each."""

    stays = is_there = True

    def __init__(self, run: Run, machine: str) -> None:
        self.run, self.machine = run, machine
        self.stops = 0

    async def ready(self) -> None:
        """It always is."""

    def cancel(self, job_id: str) -> None:
        raise AssertionError("nobody cancels here")

    async def stop(self) -> None:
        self.stops += 1


class Hall(LocalExecutor):
    """So many benches, and nothing for other jobs."""

    def __init__(self, home: Path, benches: list[Bench]) -> None:
        super().__init__(home)
        self._benches = benches

    async def open(self) -> None:
        """There is nothing to begin."""

    async def places(self, environment: str) -> AsyncIterator[Place]:
        for bench in self._benches if environment == OWN else []:
            yield bench
        await asyncio.Event().wait()


def _done(job_id: str) -> dict[str, Any]:
    return {"id": job_id, "event": "done", "seed": 1, "bytes": 4, "seconds": 0.1, "notes": []}


async def made(job_id: str, endpoint: str, folder: Path) -> Events:
    yield _done(job_id)


async def endless(job_id: str, endpoint: str, folder: Path) -> Events:
    await asyncio.Event().wait()
    yield _done(job_id)


@asynccontextmanager
async def serving(home: Path, *runs: Run) -> AsyncIterator[Server]:
    """A server with a bench for each, on machines of their own; it must not end before the block does."""
    ended: list[bool] = []
    hall = Hall(home, [Bench(run, str(number)) for number, run in enumerate(runs)])
    server = Server(Store(home / "jobs"), hall, 60, lambda: ended.append(True))
    async with server.at_work():
        yield server
        assert not ended


def _submit(server: Server, **body: Any) -> Job:
    return server.submit(str(uuid.uuid4()), "local/draft", body, "anna")


async def _until(job: Job, status: str) -> None:
    async with asyncio.timeout(30):
        while job.status != status:
            await asyncio.sleep(0.001)


def test_however_often_a_server_is_ended_in_order_its_job_is_made_by_the_next(
    tmp_path: Path,
) -> None:
    async def run() -> None:
        async with serving(tmp_path, endless) as server:
            job = _submit(server)
            await _until(job, "IN_PROGRESS")
        for _ in range(MAX_STARTS):
            async with serving(tmp_path, endless) as server:
                job = server.store.jobs[job.id]
                assert job.starts == 0
                await _until(job, "IN_PROGRESS")
        async with serving(tmp_path, made) as server:
            job = server.store.jobs[job.id]
            await _until(job, "COMPLETED")
            assert job.output and job.starts == 1

    asyncio.run(run())


def test_a_job_during_which_the_server_is_killed_each_time_is_given_up(tmp_path: Path) -> None:
    async def run() -> None:
        async with serving(tmp_path) as server:
            job = _submit(server)
        path = server.store.folder(job.id) / "job.json"
        for _ in range(MAX_STARTS):
            async with serving(tmp_path, endless) as server:
                await _until(server.store.jobs[job.id], "IN_PROGRESS")
                left = path.read_text("utf-8")
            path.write_text(left, "utf-8")  # as a server leaves it that is killed then
        async with serving(tmp_path, made) as server:
            job = server.store.jobs[job.id]
            await _until(job, "COMPLETED")
        assert job.failure and f"each of the {MAX_STARTS} times" in job.failure[1]["detail"]

    asyncio.run(run())


def test_a_job_that_is_done_stays_done_when_its_server_ends_in_that_moment(tmp_path: Path) -> None:
    async def lingering(job_id: str, endpoint: str, folder: Path) -> Events:
        yield _done(job_id)
        await asyncio.Event().wait()

    async def run() -> None:
        async with serving(tmp_path, lingering) as server:
            job = _submit(server)
            await _until(job, "COMPLETED")
        (kept,) = Store(tmp_path / "jobs").jobs.values()
        assert kept.status == "COMPLETED" and kept.output

    asyncio.run(run())


def test_what_nobody_foresaw_fails_its_job_alone_and_the_server_goes_on(tmp_path: Path) -> None:
    async def odd(job_id: str, endpoint: str, folder: Path) -> Events:
        if "odd" in (folder / "request.json").read_text("utf-8"):
            raise KeyError("event")
        yield _done(job_id)

    async def run() -> None:
        async with serving(tmp_path, odd) as server:
            jobs = [_submit(server, odd=True), _submit(server)]
            for job in jobs:
                await _until(job, "COMPLETED")
            (bench,) = server._lanes[OWN].places
            assert bench.stops == 1
        failed, well = (Store(tmp_path / "jobs").jobs[job.id] for job in jobs)
        assert failed.failure and well.output and not well.failure
        assert "failed unexpectedly (KeyError: 'event'). Generate again." in str(failed.failure[1])

    asyncio.run(run())


def test_a_job_that_was_lost_with_its_machine_is_not_given_to_that_one_again(
    tmp_path: Path,
) -> None:
    async def sick(job_id: str, endpoint: str, folder: Path) -> Events:
        why = "Its machine could not work on it: no room."
        yield {"id": job_id, "event": "lost", "machine": "0", "why": why}

    async def run() -> None:
        async with serving(tmp_path, sick, made) as server:
            job = _submit(server)
            await _until(job, "COMPLETED")
        said = [line["message"] for line in job.logs]
        assert said == [
            "The job was interrupted. Its machine could not work on it: no room.",
            AGAIN,
        ]
        assert job.output and (job.starts, job.losses) == (2, 1)

        async with serving(tmp_path, sick) as server:  # there is no other machine
            job = _submit(server)
            await _until(job, "COMPLETED")
        assert job.failure and "interrupted 2 times" in job.failure[1]["detail"]

    asyncio.run(run())

# SPDX-License-Identifier: GPL-3.0-or-later
"""The jobs on their way: queued, given to places in turn, listened to, ended. Knows nothing of HTTP but the statuses and bodies
that fal's protocol has for a job that failed.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager, suppress
from typing import Any

from ..leftovers import is_uninstalled
from .engines import ENDPOINTS, ENVIRONMENTS, OWN
from .executors import Executor, Place
from .lanes import Lane
from .metrics import WORKER_STATES, Figures
from .store import MAX_LOSSES, MAX_STARTS, Job, Store

_log = logging.getLogger(__name__)

_CANCELLED = {"detail": "Request cancelled by the client.", "error_type": "client_cancelled"}


class Server:
    """The jobs, the places where they are carried out, and the loops that bring them together."""

    def __init__(
        self, store: Store, executor: Executor, idle_seconds: float, stop: Callable[[], None]
    ) -> None:
        self.store = store
        self._executor = executor
        self._last_call = time.monotonic()
        self._idle_seconds = idle_seconds
        self._stop = stop
        self._lanes = {environment: Lane() for environment in ENVIRONMENTS}
        self._at_work: dict[str, Place] = {}  # by the id of the job
        self._lost_at: dict[str, str] = {}  # the machines that jobs were lost with
        self._figures = Figures()

    def about(self) -> dict[str, Any]:
        """How many places there are, and what the executor says of itself."""
        return {"workers": sum(len(lane.places) for lane in self._lanes.values())} | (
            self._executor.about()
        )

    async def metrics(self) -> str:
        """All figures, for Prometheus."""
        at_work = list(self._at_work.values())
        workers = Counter({(name, state): 0 for name in self._lanes for state in WORKER_STATES})
        workers.update(
            (name, "busy" if place in at_work else "idle" if place.is_there else "away")
            for name, lane in self._lanes.items()
            for place in lane.places
        )
        return self._figures.text(
            self.store.jobs.values(),
            queue={name: len(self._waiting(lane)) for name, lane in self._lanes.items()},
            workers=workers,
            gpus=await self._executor.gpus(),
        )

    def called(self) -> None:
        """Somebody is there."""
        self._last_call = time.monotonic()

    @staticmethod
    def _environment(job: Job) -> str:
        # A job that another version left may be for an endpoint that this one lacks; the worker will say so
        return ENDPOINTS.get(job.endpoint, OWN)

    def _lane(self, job: Job) -> Lane:
        return self._lanes[self._environment(job)]

    def running(self) -> int:
        """How many jobs are worked on."""
        return len(self._at_work)

    def queued(self) -> list[Job]:
        """Jobs that wait, first come first."""
        return [job for job in self.store.jobs.values() if job.status == "IN_QUEUE"]

    def _waiting(self, lane: Lane) -> list[Job]:
        return [job for job in self.queued() if self._lane(job) is lane]

    def _offered(self, lane: Lane, place: Place) -> list[Job]:
        """The jobs that wait for a place: one that was lost with its machine is for other machines, as long as there are some."""
        waiting = self._waiting(lane)
        if any(other.is_there and other.machine != place.machine for other in lane.places):
            return [job for job in waiting if self._lost_at.get(job.id) != place.machine]
        return waiting

    def position(self, job: Job) -> int:
        """How many jobs one has before it; 0 for one that does not wait."""
        lane = self._lane(job)
        return lane.order(self._waiting(lane)).index(job) if job.status == "IN_QUEUE" else 0

    def lacking(self, job: Job) -> str:
        """What a waiting job waits for beside its turn, in words, which its log has then too; "" for nothing."""
        why = self._executor.lacking(self._environment(job)) if job.status == "IN_QUEUE" else ""
        if why:
            job.say(why)
        return why

    def all_lacking(self) -> list[str]:
        """The same of all waiting jobs."""
        return sorted({self.lacking(job) for job in self.queued()} - {""})

    def submit(self, job_id: str, endpoint: str, body: dict[str, Any], client: str) -> Job:
        """Put a new job on the disk and in the queue."""
        job = self.store.add(job_id, endpoint, body, client)
        if why := self.lacking(job):
            _log.warning("job %s, %s: %s", job.id, endpoint, why)
        self._lane(job).changed.set()
        return job

    def cancel(self, job: Job) -> None:
        """Take a job out of the queue, or have it ended where it is at work."""
        if place := self._at_work.get(job.id):
            place.cancel(job.id)
        else:
            self._complete(job, failure=(499, _CANCELLED))

    async def unload(self) -> bool:
        """End idle places that can be started again, for the memory they hold; True if there was one."""
        there = [place for lane in self._lanes.values() for place in lane.places if place.is_there]
        busy = self._at_work.values()
        idle = [place for place in there if not place.stays and place not in busy]
        for place in idle:
            await place.stop()
        return bool(idle)

    @asynccontextmanager
    async def at_work(self) -> AsyncIterator[None]:
        """Work on jobs, and watch for idleness, as long as the block runs."""
        await self._executor.open()
        lanes = [self._tend(environment, lane) for environment, lane in self._lanes.items()]
        tasks = [asyncio.create_task(work) for work in (*lanes, self._watch())]
        for task in tasks:
            task.add_done_callback(self._broken)
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self._executor.close()

    def _broken(self, loop: asyncio.Task[None]) -> None:
        """End the server when one of its loops has: it would take jobs on, and nobody would work on them."""
        if not loop.cancelled():
            _log.critical("the server cannot go on", exc_info=loop.exception())
            self._stop()

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(min(self._idle_seconds / 4, 60))
            self.store.remove_old()
            if self.running() or self.queued():
                continue
            idle = time.monotonic() - self._last_call
            if idle > self._idle_seconds:
                _log.info("nobody has called for %.0f s: ending", idle)
                self._stop()
            elif is_uninstalled():
                _log.info("the extension is not installed any more: ending")
                self._stop()

    async def _tend(self, environment: str, lane: Lane) -> None:
        """Put each place to work that the executor has for an environment."""
        async with asyncio.TaskGroup() as works:
            async for place in self._executor.places(environment):
                lane.places.append(place)
                works.create_task(self._work(lane, place))

    async def _work(self, lane: Lane, place: Place) -> None:
        while True:
            await place.ready()
            lane.changed.clear()
            job = lane.take(self._offered(lane, place))
            if job is None:
                await lane.wait(place)
                continue
            self._at_work[job.id] = place
            try:
                await self._run(job, place)
            except OSError as error:
                _log.exception("job %s", job.id)
                self._fail(job, f"The local process cannot write its files: {error}")
            except Exception as error:  # noqa: BLE001  the other jobs and places have no part in it
                _log.exception("job %s", job.id)
                reason = str(error).strip().partition("\n")[0]
                words = f"The local process failed unexpectedly ({type(error).__name__}: {reason}). Generate again."
                self._fail(job, words)
                await place.stop()  # whatever it is in the middle of
            finally:
                del self._at_work[job.id]
                lane.changed.set()  # if it is to be started again, this may be another place's turn

    async def _run(self, job: Job, place: Place) -> None:
        if job.starts >= MAX_STARTS:
            text = f"The local process or its engine ended each of the {job.starts} times that it began this job."
            self._give_up(job, text)
            return
        job.status, job.starts = "IN_PROGRESS", job.starts + 1
        self._figures.starts += 1
        self.store.save(job)
        _log.info("job %s: start %d, %s", job.id, job.starts, job.endpoint)
        try:
            async with aclosing(
                place.run(job.id, job.endpoint, self.store.folder(job.id))
            ) as events:
                async for event in events:
                    self._hear(job, event)
        except asyncio.CancelledError:
            if job.status == "IN_PROGRESS":  # the server is ended, which is no fault of the job
                job.status, job.starts = "IN_QUEUE", job.starts - 1
                with suppress(OSError):
                    self.store.save(job)
            raise
        finally:
            self._figures.reached(job, "")

    def _hear(self, job: Job, event: dict[str, Any]) -> None:
        match event["event"]:
            case "progress":
                job.progress = event["progress"]
                self._figures.reached(job, job.progress["stage"])
                if job.progress["message"]:
                    job.say(job.progress["message"])
            case "done":
                file = {"content_type": "model/gltf-binary", "file_name": "model.glb"}
                file["url"] = f"/files/{job.id}/model.glb"
                timings = {"inference": event["seconds"]}
                output = {
                    "model_glb": file | {"file_size": event["bytes"]},
                    "seed": event["seed"],
                    "timings": timings,
                    "notes": event["notes"],
                }
                job.seconds = event["seconds"]
                self._complete(job, output=output)
            case "failed":
                self._complete(job, failure=_failure(event))
            case "died":
                job.losses, why = job.losses + 1, event["why"]
                job.say(f"The engine's process ended unexpectedly. {why}")
                self._again(
                    job, f"The engine's process ended {job.losses} times during this job. {why}"
                )
            case "lost":
                job.losses, why = job.losses + 1, event["why"]
                job.say(f"The job was interrupted. {why}")
                self._lost_at[job.id] = event["machine"]
                self._again(job, f"The job was interrupted {job.losses} times. {why}")

    def _again(self, job: Job, text: str) -> None:
        """Begin a job again that was lost; or fail it, with `text`, if that was so too often."""
        self._figures.losses += 1
        if job.losses >= MAX_LOSSES:
            self._give_up(job, text)
            return
        job.say("Starting again")
        job.status = "IN_QUEUE"
        self.store.save(job)

    def _give_up(self, job: Job, text: str) -> None:
        """Fail a job that was begun too often."""
        if job.progress:
            text += f" The last it said was: {job.progress['message'] or job.progress['stage']}."
        self._complete(job, failure=(500, {"detail": text, "error_type": "runner_disconnected"}))

    def _fail(self, job: Job, text: str) -> None:
        """End a job with which this process itself has failed, unless it was done before that; on the disk too, if it can be."""
        if job.status != "COMPLETED":
            job.status, job.failure = "COMPLETED", (500, {"detail": text})
            with suppress(OSError):
                self.store.save(job)

    def _complete(
        self,
        job: Job,
        output: dict[str, Any] | None = None,
        failure: tuple[int, dict[str, Any]] | None = None,
    ) -> None:
        job.status, job.output, job.failure = "COMPLETED", output, failure
        self._lost_at.pop(job.id, None)
        self.store.save(job)
        if output:
            _log.info("job %s: done in %.3f s", job.id, job.seconds)
        else:
            _log.info("job %s: failed, %s", job.id, failure)


def _failure(event: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    """HTTP status and body, in fal's shapes, for a job that did not succeed."""
    if event["kind"] == "cancelled":
        return 499, _CANCELLED
    if event["kind"] == "input":
        loc = ["body", event["field"]] if event["field"] else ["body"]
        return 422, {"detail": [{"loc": loc, "msg": event["message"], "type": "value_error"}]}
    return 500, {"detail": event["message"], "error_type": "internal_error"}

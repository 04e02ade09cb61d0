# SPDX-License-Identifier: GPL-3.0-or-later
"""The runner: one thread with one asyncio loop, in which all jobs live from the request to the kept result.

Other threads hand over plain requests and take plain `Event`s from `events`; they never wait for the network. `wait` is the
blocking form, for scripts and background mode.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import queue
import random
import threading
import time
import uuid
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from ..config import Config
from ..endpoints import get
from ..endpoints.schema import CARRIED_OUT
from ..errors import (
    CancelledError,
    EndpointError,
    ImageError,
    TrellisError,
    UncertainError,
    UnreachableError,
    from_record,
)
from ..services import Outcome, Service, Status, Ticket, open_service
from . import glb, images
from .job import ENDED, Event, Job, State
from .journal import Journal
from .library import Library, storage_error

if TYPE_CHECKING:
    from ..endpoints.base import Endpoint

_log = logging.getLogger(__name__)

_T = TypeVar("_T")
SETTLED = ENDED | {State.UNCERTAIN}
_LONGEST_PAUSE = 30.0  # seconds between two attempts when a service does not answer
_LAST_WORD = (
    10.0  # seconds that a closing runner waits for the reply to a request that is being sent
)
_LOCAL_ATTEMPTS = 5  # a sidecar that does not come back in as many starts will not


@dataclass(frozen=True)
class Request:
    """What somebody asks for: an endpoint, its parameters by documented or common name, and picture files."""

    endpoint: str
    images: Sequence[Path]
    parameters: dict[str, Any] = field(default_factory=dict)
    wish: dict[str, Any] = field(default_factory=dict)


class Runner:
    """Carries jobs through. One a process is enough; close it at the end."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.library = Library(config.home, config.results)
        self.journal = Journal(config.home)
        self.events: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self._services: dict[str, Service] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._cancelled: set[str] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="trellis", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop. Unfinished jobs stay in the journal for the next runner."""
        if not self._thread.is_alive():
            return
        asyncio.run_coroutine_threadsafe(self._wind_down(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        self.journal.close()

    async def _wind_down(self) -> None:
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for service in self._services.values():
            await service.close()
        await self._loop.shutdown_default_executor()
        await asyncio.sleep(
            0.01
        )  # a closed connection lets go of its socket in the loop's next turns

    def submit(self, request: Request, job_id: str | None = None) -> str:
        """Start a request; returns the id that its events and its row in the journal carry: a new one, or the UUID given.

        Nothing is checked here: a request that cannot be used ends in an event `failed`, and leaves no row.
        """
        new_id = job_id or str(uuid.uuid4())
        self._spawn(new_id, lambda: self._begin(new_id, request))
        return new_id

    def resume(self, job_id: str | None = None) -> list[Job]:
        """Take over what is left of processes that are gone, or that one job; what can go on by itself does.

        Returns all that was taken over: also uncertain jobs, and ready ones with a wish that only the caller can fulfil.
        """
        claimed = self.journal.claim(job_id)
        for job in claimed:
            if job.state not in SETTLED:
                self._spawn(job.id, functools.partial(self._carry, job))
        return claimed

    def cancel(self, job_id: str) -> None:
        """Ask for a job's end; what became of it comes as an event."""

        def stop() -> None:
            task = self._tasks.get(job_id)
            if task:
                self._cancelled.add(job_id)
                task.cancel()

        # One round of the loop later: a task that is cancelled before its first step would never tell of it
        self._loop.call_soon_threadsafe(self._loop.call_soon, stop)

    def wait(
        self, job_id: str, show: Callable[[Event], None] | None = None, timeout: float | None = None
    ) -> Job:
        """Block until the job is settled, passing every event of it to `show`.

        Raises:
            TrellisError: the job did not end ready; UnreachableError when `timeout` seconds were over first, which the job
                itself survives.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            try:
                # Wakes now and then so that Ctrl-C works on Windows, where a blocked get() cannot be interrupted
                event = self.events.get(timeout=0.2)
            except queue.Empty:
                if deadline is not None and time.monotonic() > deadline:
                    raise self._too_late(job_id) from None
                continue
            if event.job_id != job_id:
                continue
            if show:
                show(event)
            if event.error:
                error = from_record(**event.error)
                error.job_id = job_id
                if event.state not in ENDED:
                    error.state = State.UNCERTAIN
                raise error
            if event.state is State.READY:
                return self.journal.get(job_id)

    @staticmethod
    def _too_late(job_id: str) -> TrellisError:
        error = UnreachableError(
            f"Job {job_id} is not done yet. It stays in the journal: `jobs resume` goes on with it."
        )
        error.job_id = job_id
        error.state = State.UNCERTAIN
        return error

    def _spawn(self, job_id: str, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        def start() -> None:
            task = self._loop.create_task(self._guard(job_id, work))
            self._tasks[job_id] = task
            task.add_done_callback(lambda _: self._tasks.pop(job_id, None))

        self._loop.call_soon_threadsafe(start)

    def _tell(self, job: Job, **more: Any) -> None:
        self.events.put(Event(job.id, job.state, **more))

    async def _guard(self, job_id: str, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Whatever happens to a job becomes a state in the journal and an event."""
        try:
            try:
                await work()
            except asyncio.CancelledError:
                if job_id not in self._cancelled:  # the runner is closing; the job stays as it is
                    raise
                await self._call_off(job_id)
        except TrellisError as error:
            self._end(job_id, error)
        except Exception as error:  # noqa: BLE001  it is told to the user, with its traceback in the log
            _log.exception("job %s", job_id)
            text = f"Something unforeseen happened: {type(error).__name__}: {error}."
            self._end(job_id, TrellisError(text))

    def _end(self, job_id: str, error: TrellisError) -> None:
        record = {"kind": error.kind, "message": error.message, "request_id": error.request_id}
        state = State.FAILED
        if isinstance(error, CancelledError):
            state = State.CANCELLED
        elif isinstance(error, UncertainError):
            state = State.UNCERTAIN
        try:
            job = self.journal.get(job_id)
            if job.state is State.DOWNLOADING and error.exit_code in (2, 4):
                # What was made is not lost because a disk is full or a line is down: the job can be resumed
                state = job.state
            else:
                self.journal.move(job_id, state, error=record)
        except TrellisError:
            pass  # it never got as far as a row, or the disk is full: the event still tells
        self.events.put(Event(job_id, state, message=error.message, error=record))

    async def _begin(self, job_id: str, request: Request) -> None:
        preparing = asyncio.ensure_future(asyncio.to_thread(self._prepare, job_id, request))
        try:
            job = await asyncio.shield(preparing)
        except asyncio.CancelledError:
            await (
                preparing
            )  # a thread cannot be stopped: its row must be there before it is cancelled, or kept
            raise
        self._tell(job)
        await self._carry(job)

    def _prepare(self, job_id: str, request: Request) -> Job:
        """Everything that can be wrong with a request is found here, before there is a row."""
        model = get(request.endpoint)
        check_count(model, len(request.images))
        if model.id not in CARRIED_OUT:
            known = ", ".join(sorted(CARRIED_OUT))
            raise EndpointError(f"{model.id} is not carried out by this version. Use {known}.")
        parameters = dict(request.parameters)
        parameters.setdefault("seed", random.SystemRandom().randrange(2**31))
        values = model.parse(parameters).values()
        read = [images.read(Path(path), model.max_side) for path in request.images]
        job = Job(
            id=job_id,
            endpoint=model.id,
            parameters=values,
            images=[self.library.keep_input(image.data) for image in read],
            names=[image.name for image in read],
            wish=request.wish,
            fulfilled=not request.wish,
        )
        return self.journal.add(job)

    def _service(self, endpoint: str) -> Service:
        if endpoint not in self._services:
            self._services[endpoint] = open_service(endpoint, self.config)
        return self._services[endpoint]

    async def _carry(self, job: Job) -> None:
        """From whatever state a job is in to its end."""
        self._heed(job)
        service = self._service(job.endpoint)
        if job.state in (State.PREPARED, State.SUBMITTING):
            job = await self._submit(job, service)
        if job.state is State.RUNNING:
            await self._follow(job, service)
            job = self.journal.move(job.id, State.DOWNLOADING)
            self._tell(job, message="Fetching the result")
        await self._collect(job, service)

    def _heed(self, job: Job) -> None:
        """Another process may have asked for the end of the job."""
        if self.journal.get(job.id).cancel_asked:
            self._cancelled.add(job.id)
            raise asyncio.CancelledError

    async def _submit(self, job: Job, service: Service) -> Job:
        if job.state is State.SUBMITTING and not service.repeatable:
            raise UncertainError(
                "This program ended while it sent the request. It may be at work, and charged; look at the service before "
                "sending it again."
            )
        await service.ready()
        if job.state is State.PREPARED:
            job = self.journal.move(job.id, State.SUBMITTING)
            self._tell(job)
        request = get(job.endpoint).parse(job.parameters)
        pictures = [await asyncio.to_thread(self._data_uri, name) for name in job.images]
        body, headers = request.body(pictures), request.headers()
        sending = asyncio.ensure_future(self._send(job, service, body, headers))
        try:
            return self._accept(job, await asyncio.shield(sending))
        except asyncio.CancelledError:
            # The reply names the job: without it nobody could cancel it, or find it again
            self._accept(job, await asyncio.wait_for(sending, _LAST_WORD))
            raise

    async def _send(
        self, job: Job, service: Service, body: dict[str, Any], headers: dict[str, str]
    ) -> Ticket:
        attempt = 0
        while True:
            try:
                return await service.submit(job.id, job.endpoint, body, headers)
            except UnreachableError:
                attempt += 1
                if not service.repeatable or attempt == _LOCAL_ATTEMPTS:
                    raise
                await self._pause(attempt)

    def _accept(self, job: Job, ticket: Ticket) -> Job:
        job = self.journal.move(
            job.id, State.RUNNING, ticket=ticket.as_dict(), request_id=ticket.request_id
        )
        self._tell(job, message="Sent")
        return job

    def _data_uri(self, name: str) -> str:
        return images.data_uri(self.library.read_input(name))

    async def _follow(self, job: Job, service: Service) -> Status:
        """Ask until the service is done; what it says becomes events when it is something new."""
        ticket = Ticket(**job.ticket or {})
        last = None
        shortest, longest = service.poll_seconds
        pause = shortest
        while True:
            status = await self._persist(job, service, lambda: service.status(ticket))
            if status != last:
                last, pause = status, shortest
                self._tell(
                    job,
                    stage=status.stage,
                    step=status.step,
                    steps=status.steps,
                    fraction=status.fraction,
                    message=status.message,
                )
            if status.completed:
                return status
            self._heed(job)
            await asyncio.sleep(pause)
            pause = min(pause * 1.5, longest)

    async def _collect(self, job: Job, service: Service) -> None:
        """Fetch, check and keep what was made."""
        ticket = Ticket(**job.ticket or {})
        outcome = await self._persist(job, service, lambda: service.result(ticket))
        files = [
            await self._keep(job, service, url, number) for number, url in enumerate(outcome.files)
        ]
        job = self.journal.move(
            job.id, State.READY, files=[str(path) for path in files], **_told(job, outcome)
        )
        with contextlib.suppress(
            TrellisError, TimeoutError
        ):  # it would only keep its copy for longer
            await asyncio.wait_for(service.collected(ticket), _LAST_WORD)
        self._tell(job, fraction=1.0, message="Ready")

    async def _keep(self, job: Job, service: Service, url: str, number: int) -> Path:
        part = self.library.part(job.id, number)

        def progress(fraction: float) -> None:
            percent = int(100 * fraction)
            text = f"Downloading, {percent} %"
            self._tell(job, stage="download", step=percent, steps=100, fraction=1.0, message=text)

        try:
            await self._persist(job, service, lambda: service.download(url, part, progress))
            await asyncio.to_thread(glb.check, part)
            return await asyncio.to_thread(self.library.keep, part, job.title)
        except OSError as error:
            raise storage_error(error, part.parent) from error
        finally:
            part.unlink(missing_ok=True)

    async def _persist(
        self, job: Job, service: Service, ask: Callable[[], Coroutine[Any, Any, _T]]
    ) -> _T:
        """Ask again, with jittered backoff, for as long as there is no answer about the job."""
        attempt = 0
        while True:
            try:
                return await ask()
            except UnreachableError as error:
                attempt += 1
                if service.repeatable and attempt >= _LOCAL_ATTEMPTS:
                    raise
                _log.warning("job %s: %s", job.id, error)
                self._tell(job, message=f"{error.message} Trying again.")
                await self._pause(attempt)

    @staticmethod
    async def _pause(attempt: int) -> None:
        await asyncio.sleep(min(0.25 * 2**attempt, _LONGEST_PAUSE) * random.uniform(0.5, 1.5))

    async def _call_off(self, job_id: str) -> None:
        """The user cancelled: tell the service if it knows of the job, and end it here whatever it answers."""
        job = None
        with contextlib.suppress(TrellisError):  # there may be no row yet
            job = self.journal.get(job_id)
        if job and job.ticket:
            try:
                await self._service(job.endpoint).cancel(Ticket(**job.ticket))
            except TrellisError as error:
                _log.warning("job %s: the cancellation did not arrive: %s", job_id, error)
        raise CancelledError("Cancelled.", request_id=job.request_id if job else None)


def check_count(model: type[Endpoint], count: int) -> None:
    """Refuse no image, and more than the endpoint takes.

    Raises:
        ImageError, EndpointError: in words.
    """
    if not count:
        raise ImageError("There is no image. Add one.")
    if count > model.max_images:
        allowed = "one image" if model.max_images == 1 else f"{model.max_images} images at most"
        raise EndpointError(f"{model.id} takes {allowed}, and {count} were given. Remove some.")


def _told(job: Job, outcome: Outcome) -> dict[str, Any]:
    """What a result says about its job."""
    told: dict[str, Any] = {"cost": outcome.cost}
    if outcome.seed is not None and outcome.seed != job.seed:
        told["parameters"] = job.parameters | {"seed": outcome.seed}
    return told

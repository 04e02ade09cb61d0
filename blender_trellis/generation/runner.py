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
import threading
import time
import uuid
from collections import defaultdict, deque
from collections.abc import Callable, Coroutine
from dataclasses import replace
from typing import Any

from ..config import Config
from ..errors import (
    AccessError,
    AccountError,
    CancelledError,
    InputError,
    LeftError,
    StorageError,
    TrellisError,
    UncertainError,
    UnreachableError,
    from_record,
)
from ..services import with_key
from .carrier import Carrier
from .job import ENDED, Event, Job, State
from .journal import Journal
from .library import Library
from .request import Request, admit, anew

_log = logging.getLogger(__name__)


class Runner:
    """Carries jobs through. One a process is enough; close it at the end."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.library = Library(config.home, config.models)
        self.journal = Journal(config.home)
        self.events: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self._aside: defaultdict[str, deque[Event]] = defaultdict(deque)
        self._carrier = Carrier(config, self.journal, self.library, self._tell)
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._preparing = asyncio.Lock()
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
        await self._carrier.close()
        await self._loop.shutdown_default_executor()
        # A closed connection lets go of its socket in the loop's next turns
        await asyncio.sleep(0.01)

    def reconfigure(self, config: Config) -> None:
        """Take up other settings. Folders stay those that it began with."""
        self.config = config
        asyncio.run_coroutine_threadsafe(self._carrier.reconfigure(config), self._loop)

    def submit(self, request: Request, job_id: str | None = None) -> str:
        """Start a request; returns the id that its events and its row in the journal carry: a new one, or the UUID given.

        Nothing is checked here: a request that cannot be used ends in an event `failed`, and leaves no row.
        """
        new_id = job_id or str(uuid.uuid4())

        def prepare(config: Config) -> Job:
            return admit(request, new_id, self.library, config)

        self._start(new_id, lambda: request.endpoint, prepare)
        return new_id

    def repeat(
        self,
        job_id: str,
        new_id: str | None = None,
        *,
        wish: dict[str, Any] | None = None,
    ) -> str:
        """Ask for the same as a job in the journal did, as a new job that is charged for itself; returns its id.

        `wish` is for the new one, that of the old one if None. What cannot be asked for any more ends in an event `failed`.
        """
        again = new_id or str(uuid.uuid4())

        def prepare(config: Config) -> Job:
            job = self.journal.get(job_id)
            wanted = job.wish if wish is None else wish
            return anew(job, again, self.library, config, wish=wanted)

        self._start(again, lambda: self.journal.get(job_id).endpoint, prepare)
        return again

    def _start(
        self, job_id: str, endpoint: Callable[[], str], prepare: Callable[[Config], Job]
    ) -> None:
        keep = functools.partial(self._keep, prepare, time.time())
        self._spawn(job_id, functools.partial(self._begin, endpoint, keep))

    def _keep(self, prepare: Callable[[Config], Job], asked: float, config: Config) -> Job:
        return self.journal.add(replace(prepare(config), created=asked))

    def resume(self, job_id: str | None = None) -> list[Job]:
        """Take over what is left of processes that are gone, or that one job; what can go on by itself does.

        Returns all that was taken over: also uncertain jobs, for which the service is asked again but nothing is sent, and
        ready ones with a wish that only the caller can fulfil.
        """
        claimed = self.journal.claim(job_id)
        # Those that may be at a service before those that wait for a turn there
        for job in sorted(claimed, key=lambda job: job.state is State.PREPARED):
            if job.state not in ENDED:
                self._spawn(job.id, functools.partial(self._go_on, job.id), alone=True)
        return claimed

    async def _go_on(self, job_id: str) -> None:
        """Carry on with a job, unless it has ended since it was looked for."""
        job = self.journal.get(job_id)
        if job.state not in ENDED:
            await self._carrier.carry(job)

    def send_again(self, job_id: str) -> None:
        """Send an uncertain job anew: the user's decision, since it may be charged twice.

        Raises:
            InputError: it is not uncertain, or another process works on it.
        """
        job = self._uncertain(job_id)
        job = self.journal.move(job.id, State.PREPARED, error=None)
        self._spawn(job.id, functools.partial(self._carrier.carry, job))

    def adopt(self, job_id: str, request_id: str) -> None:
        """Go on with an uncertain job that the service calls `request_id`, as its own pages show.

        Raises:
            InputError: it is not uncertain, or another process works on it.
        """
        job = self._uncertain(job_id)
        self._spawn(job.id, functools.partial(self._carrier.adopt, job, request_id))

    def _uncertain(self, job_id: str) -> Job:
        job = self.journal.get(job_id)
        if job.state is not State.UNCERTAIN:
            raise InputError(f"Job {job_id} is {job.state}, not uncertain.")
        if not self.journal.claim(job_id):
            raise InputError(f"Job {job_id} belongs to another Blender or command that is running.")
        return job

    def delete(self, job_id: str) -> None:
        """Delete an ended or uncertain job, and its models and inputs where no other job has them; blocks.

        Raises:
            InputError: there is no such job, or it is still at work.
            StorageError: a file cannot be deleted; the job stays.
        """

        async def work() -> None:
            async with self._preparing:  # which may be about to use the same input
                await asyncio.to_thread(self.journal.delete, job_id, self.library.discard)

        asyncio.run_coroutine_threadsafe(work(), self._loop).result()

    def cancel(self, job_id: str) -> None:
        """Ask for a job's end; what became of it comes as an event. One that stopped before it was sent ends too."""

        def stop() -> None:
            task = self._tasks.get(job_id)
            if task is None:
                self._spawn(job_id, functools.partial(self._forgo, job_id))
            elif job_id not in self._carrier.cancelled:
                self._carrier.cancelled.add(job_id)
                task.cancel()

        # One round of the loop later: a task that is cancelled before its first step would never tell of it
        self._loop.call_soon_threadsafe(self._loop.call_soon, stop)

    async def _forgo(self, job_id: str) -> None:
        """Call off a job of this process that nobody works on, if it was never sent."""
        waiting = [job for job in self.journal.claim(job_id) if job.state is State.PREPARED]
        if waiting:
            await self._carrier.call_off(job_id)

    def price(self, request: Request) -> float | None:
        """What the service says that a request would cost, in US dollars; blocks. None where it does not say.

        Raises:
            TrellisError: the request is wrong, or the service cannot be asked.
        """
        keyed = with_key(request.endpoint, self.config)
        config = asyncio.run_coroutine_threadsafe(keyed, self._loop).result()
        job = admit(request, str(uuid.uuid4()), self.library, config)
        return asyncio.run_coroutine_threadsafe(self._carrier.price(job), self._loop).result()

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
            event = self._next(job_id)
            if event and show:
                show(event)
            if event and event.state in ENDED:  # nothing more will come
                self._aside.pop(job_id, None)
            if event and event.error:
                error = from_record(**event.error)
                error.job_id = job_id
                if event.state not in ENDED:
                    error.state = State.UNCERTAIN
                raise error
            if event and event.state is State.READY:
                return self.journal.get(job_id)
            if deadline is not None and time.monotonic() > deadline:
                raise self._too_late(job_id)

    def _next(self, job_id: str) -> Event | None:
        """The next event of one job, if there is one soon; what comes of others is set aside for whoever waits for them."""
        if not self._aside[job_id]:
            with contextlib.suppress(queue.Empty):
                # Wakes now and then so that Ctrl-C works on Windows, where a blocked get() cannot be interrupted
                event = self.events.get(timeout=0.2)
                self._aside[event.job_id].append(event)
        return self._aside[job_id].popleft() if self._aside[job_id] else None

    @staticmethod
    def _too_late(job_id: str) -> TrellisError:
        error = UnreachableError(
            f"Job {job_id} is not done yet. It stays in the journal: `jobs resume` goes on with it."
        )
        error.job_id = job_id
        error.state = State.UNCERTAIN
        return error

    def _spawn(
        self, job_id: str, work: Callable[[], Coroutine[Any, Any, None]], *, alone: bool = False
    ) -> None:
        """Have the loop work on a job; where `alone`, only if it does not yet."""

        def start() -> None:
            if alone and job_id in self._tasks:
                return
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
                # Else the runner is closing, and the job stays as it is
                if job_id not in self._carrier.cancelled:
                    raise
                await self._carrier.call_off(job_id)
        except TrellisError as error:
            self._end(job_id, error)
        except Exception as error:  # noqa: BLE001  it is told to the user, with its traceback in the log
            _log.exception("job %s", job_id)
            text = f"Something unforeseen happened: {type(error).__name__}: {error}."
            self._end(job_id, TrellisError(text))
        finally:
            self._carrier.cancelled.discard(job_id)

    def _end(self, job_id: str, error: TrellisError) -> None:
        state = State.FAILED
        if isinstance(error, CancelledError):
            state = State.CANCELLED
        elif isinstance(error, UncertainError):
            state = State.UNCERTAIN
        with contextlib.suppress(TrellisError):  # it never got as far as a row
            state = self._record(self.journal.get(job_id), state, error)
        self.events.put(Event(job_id, state, message=error.message, error=error.record))

    def _record(self, job: Job, state: State, error: TrellisError) -> State:
        """Commit what became of a job. Returns the state that its row has now: the one it had, where the disk is full."""
        if _may_be_there(job) and isinstance(error, AccountError | UnreachableError):
            state = State.UNCERTAIN  # it says nothing about what was sent before
        stays = state is job.state or _resumable(job, error)
        cost = job.cost if state is State.UNCERTAIN else error.cost
        with contextlib.suppress(TrellisError, ValueError):
            if not stays:
                return self.journal.move(job.id, state, error=error.record, cost=cost).state
            self.journal.note(job.id, error=error.record)
        return job.state

    async def _begin(self, endpoint: Callable[[], str], keep: Callable[[Config], Job]) -> None:
        config = await with_key(endpoint(), self.config)
        async with self._preparing:  # one after the other, so that they stay in order
            preparing = asyncio.ensure_future(asyncio.to_thread(keep, config))
            try:
                job = await asyncio.shield(preparing)
            except asyncio.CancelledError:
                # A thread cannot be stopped: its row must be there before it is cancelled, or kept
                await preparing
                raise
        self._tell(job)
        await self._carrier.carry(job)


def _may_be_there(job: Job) -> bool:
    """Whether a job may have been taken on although nobody knows its ticket: a reply was lost, or a process that was sending."""
    lost = job.submitted is None or (job.error or {}).get("kind") == UncertainError.__name__
    return job.state is State.UNCERTAIN or (job.state is State.SUBMITTING and lost)


def _resumable(job: Job, error: TrellisError) -> bool:
    """Whether a job that `error` stopped can go on later: for want of a key, a disk or a line, neither what is being made nor a
    place in the line is lost."""
    match job.state:
        case State.PREPARED:
            return isinstance(error, AccessError | LeftError | StorageError)
        case State.SUBMITTING | State.RUNNING | State.UNCERTAIN:
            return error.exit_code in (1, 2) or isinstance(error, LeftError)
        case _:
            return error.exit_code in (1, 2, 4)

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
from collections import defaultdict, deque
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from ..config import Config
from ..endpoints import get, prices
from ..errors import (
    CancelledError,
    EndpointError,
    ImageError,
    InputError,
    LeftError,
    PriceError,
    ResultError,
    TrellisError,
    UncertainError,
    UnreachableError,
    from_record,
)
from ..services import (
    Outcome,
    Service,
    Status,
    Submission,
    Ticket,
    check_access,
    open_service,
    wire,
)
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
_SEND_ATTEMPTS = 6  # of a request that was not taken on: about half a minute
_FETCHES = 3  # of a model that arrives broken
_NO_REPLY = (
    "No reply came to the request that was being sent. The job may be at work there, and charged. Look at the service before "
    "sending it again."
)
_UNKNOWN = (
    "This program ended while it sent the request. The job may be at work there, and charged. Look at the service before "
    "sending it again."
)


@dataclass(frozen=True)
class Request:
    """What somebody asks for: an endpoint, its parameters by documented or common name, and pictures.

    A picture is a file, a data URI or base64 text, or, where the endpoint takes it, the URL or id of one. `mesh` is a GLB for
    the endpoints that work on one. `max_cost` is in US dollars. `cut_out`: take the background of opaque pictures away here,
    before they are sent.
    """

    endpoint: str
    images: Sequence[Path | str]
    parameters: dict[str, Any] = field(default_factory=dict)
    wish: dict[str, Any] = field(default_factory=dict)
    mesh: Path | None = None
    max_cost: float | None = None
    cut_out: bool = False


class Runner:
    """Carries jobs through. One a process is enough; close it at the end."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.library = Library(config.home, config.results)
        self.journal = Journal(config.home)
        self.events: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self._aside: defaultdict[str, deque[Event]] = defaultdict(deque)
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
        # A closed connection lets go of its socket in the loop's next turns
        await asyncio.sleep(0.01)

    def submit(self, request: Request, job_id: str | None = None) -> str:
        """Start a request; returns the id that its events and its row in the journal carry: a new one, or the UUID given.

        Nothing is checked here: a request that cannot be used ends in an event `failed`, and leaves no row.
        """
        new_id = job_id or str(uuid.uuid4())
        self._spawn(new_id, lambda: self._begin(new_id, request))
        return new_id

    def resume(self, job_id: str | None = None) -> list[Job]:
        """Take over what is left of processes that are gone, or that one job; what can go on by itself does.

        Returns all that was taken over: also uncertain jobs, for which the service is asked again but nothing is sent, and
        ready ones with a wish that only the caller can fulfil.
        """
        claimed = self.journal.claim(job_id)
        for job in claimed:
            if job.state not in ENDED and job.id not in self._tasks:
                self._spawn(job.id, functools.partial(self._carry, job))
        return claimed

    def send_again(self, job_id: str) -> None:
        """Send an uncertain job anew: the user's decision, since it may be charged twice.

        Raises:
            InputError: it is not uncertain, or another process works on it.
        """
        job = self._uncertain(job_id)
        job = self.journal.move(job.id, State.PREPARED, error=None)
        self._spawn(job.id, functools.partial(self._carry, job))

    def adopt(self, job_id: str, request_id: str) -> None:
        """Go on with an uncertain job that the service calls `request_id`, as its own pages show.

        Raises:
            InputError: it is not uncertain, or another process works on it.
        """
        job = self._uncertain(job_id)

        async def go_on() -> None:
            service = self._service(job.endpoint)
            submission = await self._sought(job)
            ticket = await self._persist(
                job, service, lambda: service.adopt(submission, request_id)
            )
            await self._carry(self._accept(job, ticket))

        self._spawn(job.id, go_on)

    def _uncertain(self, job_id: str) -> Job:
        job = self.journal.get(job_id)
        if job.state is not State.UNCERTAIN:
            raise InputError(f"Job {job_id} is {job.state}, not uncertain.")
        if not self.journal.claim(job_id):
            raise InputError(f"Job {job_id} belongs to another Blender or command that is running.")
        return job

    def cancel(self, job_id: str) -> None:
        """Ask for a job's end; what became of it comes as an event."""

        def stop() -> None:
            task = self._tasks.get(job_id)
            if task and job_id not in self._cancelled:
                self._cancelled.add(job_id)
                task.cancel()

        # One round of the loop later: a task that is cancelled before its first step would never tell of it
        self._loop.call_soon_threadsafe(self._loop.call_soon, stop)

    def price(self, request: Request) -> float | None:
        """What the service says that a request would cost, in US dollars; blocks. None where it does not say.

        Raises:
            TrellisError: the request is wrong, or the service cannot be asked.
        """
        job = self._check(str(uuid.uuid4()), request)

        async def ask() -> float | None:
            service = self._service(job.endpoint)
            return await service.price(await self._fill(job, service))

        return asyncio.run_coroutine_threadsafe(ask(), self._loop).result()

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
            if event is None:
                if deadline is not None and time.monotonic() > deadline:
                    raise self._too_late(job_id)
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
        finally:
            self._cancelled.discard(job_id)

    def _end(self, job_id: str, error: TrellisError) -> None:
        state = State.FAILED
        if isinstance(error, CancelledError):
            state = State.CANCELLED
        elif isinstance(error, UncertainError):
            state = State.UNCERTAIN
        try:
            job = self.journal.get(job_id)
            # What is being made is not lost for want of a key, a disk or a line: the job can be resumed
            at_service = job.state in (State.SUBMITTING, State.RUNNING, State.UNCERTAIN)
            resumable = (at_service and error.exit_code in (1, 2)) or (
                job.state is State.DOWNLOADING and error.exit_code in (1, 2, 4)
            )
            if resumable or isinstance(error, LeftError):
                state = job.state
                self.journal.note(job_id, error=error.record)
            elif state is job.state:
                self.journal.note(job_id, error=error.record)
            else:
                cost = job.cost if state is State.UNCERTAIN else error.cost
                self.journal.move(job_id, state, error=error.record, cost=cost)
        except TrellisError:
            pass  # it never got as far as a row, or the disk is full: the event still tells
        self.events.put(Event(job_id, state, message=error.message, error=error.record))

    async def _begin(self, job_id: str, request: Request) -> None:
        preparing = asyncio.ensure_future(asyncio.to_thread(self._prepare, job_id, request))
        try:
            job = await asyncio.shield(preparing)
        except asyncio.CancelledError:
            # A thread cannot be stopped: its row must be there before it is cancelled, or kept
            await preparing
            raise
        self._tell(job)
        await self._carry(job)

    def _prepare(self, job_id: str, request: Request) -> Job:
        return self.journal.add(self._check(job_id, request))

    def _check(self, job_id: str, request: Request) -> Job:
        """Everything that can be wrong with a request is found here, before there is a row."""
        model = get(request.endpoint)
        check_count(model, len(request.images))
        parameters = dict(request.parameters)
        parameters.setdefault("seed", random.SystemRandom().randrange(2**31))
        values = model.parse(parameters).values()
        estimate = prices.estimate(model.id, values)
        check_price(request.max_cost, estimate.amount if estimate else None)
        check_access(model.id, self.config)
        return Job(
            id=job_id,
            endpoint=model.id,
            parameters=values,
            images=[self._keep_picture(model, given, request.cut_out) for given in request.images],
            names=[images.name_of(str(given)) for given in request.images],
            wish=request.wish,
            fulfilled=not request.wish,
            mesh=self._keep_mesh(model, request.mesh),
            cost=_expected(estimate) if estimate else None,
            max_cost=request.max_cost,
        )

    def _keep_picture(self, model: type[Endpoint], given: Path | str, cut_out: bool) -> str:
        """The library's name of a picture, or the reference that it is."""
        kind = images.reference(str(given))
        if kind is None:
            read = images.read(given, model.max_side, cut_out=cut_out)
            return self.library.keep_input(read.data)
        if kind not in model.references:
            raise ImageError(f"{model.id} does not take a picture's {kind.upper()}. Give a file.")
        if cut_out:
            raise ImageError(
                f"A picture's {kind.upper()} cannot be cut out here. Give a file, or let the service do it."
            )
        return str(given)

    def _keep_mesh(self, model: type[Endpoint], mesh: Path | None) -> str | None:
        if bool(model.mesh_key) is not bool(mesh):
            raise EndpointError(
                f"{model.id} works on a mesh. Give a GLB file."
                if model.mesh_key
                else f"{model.id} takes no mesh. Leave it out."
            )
        if mesh is None:
            return None
        try:
            glb.check(mesh)
            return self.library.keep_input(mesh.read_bytes(), ".glb")
        except ResultError as error:
            raise InputError(
                f"{mesh.name} cannot be used: it is no whole GLB with a mesh in it. Export it as glTF Binary (.glb)."
            ) from error
        except OSError as error:
            raise InputError(f"There is no mesh {mesh}. Check the path.") from error

    def _service(self, endpoint: str) -> Service:
        if endpoint not in self._services:
            self._services[endpoint] = open_service(endpoint, self.config)
        return self._services[endpoint]

    async def _carry(self, job: Job) -> None:
        """From whatever state a job is in to its end."""
        self._heed(job)
        service = self._service(job.endpoint)
        if job.state in (State.PREPARED, State.SUBMITTING, State.UNCERTAIN):
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
        """Get a job taken on by its service: once, whatever happens on the way."""
        await service.ready()
        # A job that nobody knows the fate of is asked for by what was sent; nothing need be uploaded for that
        attached = job.state is State.PREPARED or service.repeatable
        submission = await (self._fill(job, service) if attached else self._sought(job))
        lost: UncertainError | None = None
        if job.state is not State.PREPARED:
            recorded = job.error or {}
            told = recorded.get("kind") == UncertainError.__name__
            words = recorded["message"] if told else _UNKNOWN
            lost = UncertainError(words, request_id=job.request_id)
            job = self.journal.note(job.id, error=lost.record)
        else:
            await self._check_price(job, service, submission)
            job = self.journal.move(job.id, State.SUBMITTING)
            self._tell(job)
        return self._accept(job, await self._send(job, service, submission, lost))

    async def _fill(self, job: Job, service: Service) -> Submission:
        """The request as it goes out, with its pictures inline or uploaded."""

        async def attach(name: str) -> str:
            if images.reference(name):
                return name
            data = await asyncio.to_thread(self.library.read_input, name)
            kind = "model/gltf-binary" if name.endswith(".glb") else "image/png"
            return await self._persist(job, service, lambda: service.attach(data, kind))

        pictures = [await attach(name) for name in job.images]
        return self._submission(job, pictures, await attach(job.mesh) if job.mesh else "")

    @staticmethod
    def _submission(job: Job, pictures: list[str], mesh: str) -> Submission:
        request = get(job.endpoint).parse(job.parameters)
        return Submission(
            key=job.id,
            endpoint=job.endpoint,
            body=request.body(pictures, mesh),
            headers=request.headers(),
            query=request.query(),
            created=job.created,
        )

    async def _sought(self, job: Job) -> Submission:
        """The request as it is looked for: with its pictures inline, which is how most are sent."""

        def inline(name: str) -> str:
            return name if images.reference(name) else wire.data_uri(read(name), "image/png")

        read = self.library.read_input
        pictures = await asyncio.to_thread(lambda: [inline(name) for name in job.images])
        return self._submission(job, pictures, job.mesh or "")

    async def _check_price(self, job: Job, service: Service, submission: Submission) -> None:
        """Where the cost is limited, the service's own price decides, if it tells one."""
        if job.max_cost is not None:
            with contextlib.suppress(UnreachableError):
                check_price(job.max_cost, await service.price(submission))

    async def _send(
        self, job: Job, service: Service, submission: Submission, lost: UncertainError | None
    ) -> Ticket:
        """Send a request until it is taken on or refused.

        It is sent again only where it was surely not taken on. Where it may have been (`lost`), the service is asked for it
        first, and it is sent again only where that cannot make a second job.
        """
        attempt = 0
        while True:
            try:
                if lost:
                    known = self.journal.request_ids()
                    ticket = await service.find(submission, known)
                    if ticket and ticket.request_id in self.journal.request_ids() - known:
                        continue  # an equal job that was lost too has found it meanwhile
                    if ticket:
                        return ticket
                    if not service.repeatable:
                        raise lost
                return await self._send_once(job, service, submission)
            except UnreachableError as error:
                task = asyncio.current_task()
                if error is lost or (task and task.cancelling()):
                    raise
                attempt += 1
                if isinstance(error, UncertainError):
                    lost = error
                    self.journal.note(job.id, error=error.record)
                    if not service.repeatable:
                        continue
                if attempt == (service.attempts if lost else _SEND_ATTEMPTS):
                    raise
                if not lost:  # surely not taken on: who takes the job up meanwhile need not ask
                    job = self.journal.move(job.id, State.PREPARED)
                self._again(job, error)
                await self._pause(attempt, error)
                if not lost:
                    job = self.journal.move(job.id, State.SUBMITTING)

    async def _send_once(self, job: Job, service: Service, submission: Submission) -> Ticket:
        """One submit. Its reply is waited for even when the job is cancelled meanwhile: it names the job, and without it nobody
        could cancel it, or find it again."""
        sending = asyncio.ensure_future(service.submit(submission))
        try:
            return await asyncio.shield(sending)
        except asyncio.CancelledError:
            try:
                self._accept(job, await asyncio.wait_for(sending, _LAST_WORD))
            except (TimeoutError, UncertainError) as error:
                raise UncertainError(_NO_REPLY) from error
            except UnreachableError:
                _log.info("job %s was not taken on", job.id)
            raise

    def _accept(self, job: Job, ticket: Ticket) -> Job:
        job = self.journal.move(
            job.id, State.RUNNING, ticket=ticket.as_dict(), request_id=ticket.request_id, error=None
        )
        self._tell(job, message="Sent")
        return job

    async def _follow(self, job: Job, service: Service) -> Status:
        """Ask until the service is done; what it says becomes events when it is something new."""
        ticket = Ticket(**job.ticket or {})
        last = None
        shortest, longest = service.poll_seconds
        pause = shortest
        await asyncio.sleep(shortest)
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
                    eta=status.eta,
                )
            if status.completed:
                return status
            self._heed(job)
            await asyncio.sleep(pause)
            pause = min(pause * 1.5, longest)

    async def _collect(self, job: Job, service: Service) -> None:
        """Fetch, check and keep what was made; what arrived of several counts, whatever became of the others."""
        ticket = Ticket(**job.ticket or {})
        outcome = await self._persist(job, service, lambda: service.result(ticket))
        files, failures = [], list(outcome.failures)
        for number, made in enumerate(outcome.files):
            try:
                path = await self._keep(job, service, made.url, number)
            except ResultError as error:
                if len(outcome.files) == 1:
                    raise ResultError(
                        error.message, request_id=job.request_id, cost=outcome.cost
                    ) from error
                failures.append(error.message)
            else:
                seed = job.seed + number if made.seed is None else made.seed
                files.append((str(path), seed))
        if not files:
            raise ResultError(" ".join(failures), request_id=job.request_id, cost=outcome.cost)
        job = self.journal.move(job.id, State.READY, **_told(job, outcome, files, failures))
        # Where this fails the service only keeps its copy for longer
        with contextlib.suppress(TrellisError, TimeoutError):
            await asyncio.wait_for(service.collected(ticket), _LAST_WORD)
        self._tell(job, fraction=1.0, message=job.error["message"] if job.error else "Ready")

    async def _keep(self, job: Job, service: Service, url: str, number: int) -> Path:
        part = self.library.part(job.id, number)
        told = -1

        def progress(fraction: float) -> None:
            nonlocal told
            percent = int(100 * fraction)
            if percent != told:  # it may arrive in drops
                told, text = percent, f"Downloading, {percent} %"
                self._tell(
                    job, stage="download", step=percent, steps=100, fraction=1.0, message=text
                )

        try:
            for fetch in range(1, _FETCHES + 1):
                await self._persist(job, service, lambda: service.download(url, part, progress))
                try:
                    await asyncio.to_thread(glb.check, part)
                    break
                except ResultError:  # it may be whole the next time, and it has been paid for
                    if fetch == _FETCHES:
                        raise
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
                if attempt == service.attempts:
                    raise
                self._again(job, error)
                self._heed(job)
                await self._pause(attempt, error)

    def _again(self, job: Job, error: UnreachableError) -> None:
        _log.warning("job %s: %s", job.id, error)
        self._tell(job, message=f"{error.message} Trying again.")

    @staticmethod
    async def _pause(attempt: int, error: UnreachableError) -> None:
        wait = min(0.25 * 2 ** min(attempt, 10), _LONGEST_PAUSE) * random.uniform(0.5, 1.5)
        await asyncio.sleep(max(wait, error.pause))

    async def _call_off(self, job_id: str) -> None:
        """The user cancelled: tell the service if it knows of the job. What is made already, or cannot be stopped, stays to be
        collected."""
        job = None
        with contextlib.suppress(TrellisError):  # there may be no row yet
            job = self.journal.get(job_id)
        if job is None:
            raise CancelledError("Cancelled.")
        self.journal.note(job_id, cancel_asked=False)
        if job.state in (State.SUBMITTING, State.UNCERTAIN) and job.error:
            raise from_record(**job.error)  # it may have been taken on
        if job.ticket is None:
            raise CancelledError("Cancelled.")
        service = self._service(job.endpoint)
        if job.state is State.DOWNLOADING and service.attempts is None:
            raise LeftError(
                "The model is made and paid for; only fetching it was stopped. Resume the job to collect it.",
                request_id=job.request_id,
            )
        if not service.cancellable:
            raise LeftError(
                f"{service.name} cannot cancel: the job goes on there, and is charged. Nobody waits for it any more; resume "
                "it to collect the model.",
                request_id=job.request_id,
            )
        words = "Cancelled."
        try:
            if not await service.cancel(Ticket(**job.ticket)):
                self._tell(job, message="It was finished before it could be cancelled.")
                self._cancelled.discard(job_id)
                await self._carry(job)
                return
            if service.attempts is None:
                words += (
                    f" If {service.name} had begun already, it may finish the job and charge it."
                )
        except UnreachableError as error:
            words += f" {service.name} could not be told ({error.message}); it may go on, and charge the job."
        raise CancelledError(words, request_id=job.request_id)


def check_price(limit: float | None, amount: float | None) -> None:
    """Refuse what costs more than was allowed.

    Raises:
        PriceError: in words.
    """
    if limit is not None and amount is not None and amount > limit:
        raise PriceError(
            f"This would cost about ${amount:.2f}, more than the ${limit:.2f} allowed. Nothing was sent. Allow more, or lower "
            "resolution or number of results."
        )


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


def _expected(estimate: prices.Estimate) -> dict[str, Any]:
    return {"amount": estimate.amount, "currency": estimate.currency, "estimate": True}


def _told(
    job: Job, outcome: Outcome, files: list[tuple[str, int]], failures: list[str]
) -> dict[str, Any]:
    """What a result says about its job."""
    told: dict[str, Any] = {
        "files": [path for path, _ in files],
        "seeds": [seed for _, seed in files],
        "cost": outcome.cost or job.cost,
        "error": None,  # what kept it from going on earlier
    }
    if files[0][1] != job.seed:
        told["parameters"] = job.parameters | {"seed": files[0][1]}
    if failures:
        all_of_them = len(files) + len(failures)
        message = f"{len(failures)} of {all_of_them} models failed: {' '.join(failures)}"
        told["error"] = TrellisError(message, request_id=job.request_id).record
    return told

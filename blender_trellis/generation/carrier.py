# SPDX-License-Identifier: GPL-3.0-or-later
"""What is done with one job from its row in the journal to the kept result, or to its end on request.

All of it runs in the runner's loop. Each id and state is committed the moment it is known.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any, TypeVar

from ..config import Config
from ..endpoints import get
from ..endpoints.schema import schemas
from ..errors import (
    CancelledError,
    LeftError,
    ResultError,
    TrellisError,
    UncertainError,
    UnreachableError,
    from_record,
)
from ..services import Outcome, Service, Submission, Ticket, wire
from ..services.pool import Pool
from . import glb, images
from .job import ENDED, Job, State
from .journal import Journal
from .library import Library, storage_error
from .request import check_price
from .turns import Turns

_log = logging.getLogger(__name__)

_T = TypeVar("_T")
_Attach = Callable[[bytes, str], Awaitable[str]]
_LONGEST_PAUSE = 30.0  # seconds between two attempts when a service does not answer
# Seconds that a closing runner waits for the reply to a request that is being sent
_LAST_WORD = 10.0
_SEND_ATTEMPTS = 6  # of a request that was not taken on: about half a minute
_SENSELESS = 50  # answers in a row that say nothing, about 20 minutes
_FETCHES = 3  # of a model that arrives broken, or is not where it is said to be
_NO_REPLY = (
    "No reply came to the request that was being sent. The job may be at work there, and charged. Look at the service before "
    "sending it again."
)
_UNKNOWN = (
    "This program ended while it sent the request. The job may be at work there, and charged. Look at the service before "
    "sending it again."
)


class Carrier:
    """Carries jobs through, as many at once as `carry` is called for.

    `cancelled` holds the ids of jobs whose end was asked for; `tell` is called with a job and the fields of an `Event`.
    """

    def __init__(
        self, config: Config, journal: Journal, library: Library, tell: Callable[..., None]
    ) -> None:
        self.cancelled: set[str] = set()
        self._journal = journal
        self._library = library
        self._tell = tell
        self._pool = Pool(config)
        self._turns: dict[str, Turns] = {}  # by service

    async def close(self) -> None:
        """Let go of every connection."""
        await self._pool.close()

    async def reconfigure(self, config: Config) -> None:
        """Take up other settings, from the next question to a service on."""
        for service, turns in self._turns.items():
            turns.allow(_limit(service, config))
        await self._pool.reconfigure(config)

    async def carry(self, job: Job) -> None:
        """From whatever state a job is in to its end."""
        self._heed(job)
        if job.state is not State.DOWNLOADING:
            async with self._turn(job):
                if job.state is not State.RUNNING:
                    job = await self._submit(job)
                await self._follow(job)
            job = self._journal.move(job.id, State.DOWNLOADING)
            self._tell(job, message="Fetching the result")
        await self._collect(job)

    @contextlib.asynccontextmanager
    async def _turn(self, job: Job) -> AsyncIterator[None]:
        """One of the turns at the job's service. What may be there already does not wait for one.

        Raises:
            AccessError: the service cannot be asked, so that there is nothing to wait for.
            LeftError: while it waited, the service could not be reached by one that had its turn.
        """
        async with self._pool.using(job.endpoint) as service:
            name = service.name
        where = schemas()[job.endpoint]["service"]
        turns = self._turns.setdefault(where, Turns(_limit(where, self._pool.config)))
        told = 0

        def look(ahead: int) -> None:
            nonlocal told
            self._heed(job)
            if ahead != told:
                told, others = ahead, "1 other" if ahead == 1 else f"{ahead} others"
                self._tell(job, ahead=ahead, message=f"Waiting for {others}")

        try:
            if job.state is State.PREPARED:
                if not await turns.wait(job.id, job.created, look):
                    raise LeftError(
                        f"{name} cannot be reached, so the job was not sent. It keeps its place: resume it later."
                    )
            else:
                turns.enter(job.id)
            yield
        except UnreachableError as error:
            if type(error) is UnreachableError:  # it was given up, and surely not sent
                turns.disperse()
            raise
        finally:
            turns.leave(job.id)

    def _heed(self, job: Job) -> None:
        """Another process may have asked for the end of the job."""
        if self._journal.get(job.id).cancel_asked:
            self.cancelled.add(job.id)
            raise asyncio.CancelledError

    async def _submit(self, job: Job) -> Job:
        """Get a job taken on by its service: once, whatever happens on the way."""
        async with self._pool.using(job.endpoint) as service:
            await service.ready()
        # A job that nobody knows the fate of is asked for by what was sent; nothing need be uploaded for that
        attached = job.state is State.PREPARED or service.repeatable
        submission = await (self._fill(job, self._attacher(job)) if attached else self._sought(job))
        lost: UncertainError | None = None
        if job.state is not State.PREPARED:
            recorded = job.error or {}
            told = recorded.get("kind") == UncertainError.__name__
            words = recorded["message"] if told else _UNKNOWN
            lost = UncertainError(words, request_id=job.request_id)
            job = self._journal.note(job.id, error=lost.record)
        else:
            await self._check_price(job, submission)
        return self._accept(job, await self._send(job, submission, lost))

    def _attacher(self, job: Job) -> _Attach:
        return lambda data, kind: self._persist(job, lambda service: service.attach(data, kind))

    async def _fill(self, job: Job, attach: _Attach) -> Submission:
        """The request as it goes out, with its pictures inline or uploaded, as `attach` does it."""

        async def attached(name: str) -> str:
            if images.reference(name):
                return name
            data = await asyncio.to_thread(self._library.read_input, name)
            return await attach(data, "model/gltf-binary" if name.endswith(".glb") else "image/png")

        pictures = [await attached(name) for name in job.images]
        return self._submission(job, pictures, await attached(job.mesh) if job.mesh else "")

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

        read = self._library.read_input
        pictures = await asyncio.to_thread(lambda: [inline(name) for name in job.images])
        return self._submission(job, pictures, job.mesh or "")

    async def _check_price(self, job: Job, submission: Submission) -> None:
        """Where the cost is limited, the service's own price decides, if it tells one."""
        if job.max_cost is not None:
            with contextlib.suppress(UnreachableError):
                async with self._pool.using(job.endpoint) as service:
                    check_price(job.max_cost, await service.price(submission))

    async def _send(self, job: Job, submission: Submission, lost: UncertainError | None) -> Ticket:
        """Send a request until it is taken on or refused, each time by the settings of that moment.

        It is sent again only where it was surely not taken on. Where it may have been (`lost`), the service is asked for it
        first, and it is sent again only where that cannot make a second job.
        """
        attempt = 0
        while True:
            try:
                async with self._pool.using(job.endpoint) as service:
                    if lost is None:
                        job = self._journal.move(job.id, State.SUBMITTING)
                        if not attempt:
                            self._tell(job)
                    elif ticket := await self._find(service, submission, lost):
                        return ticket
                    return await self._send_once(job, service, submission)
            except UnreachableError as error:
                task = asyncio.current_task()
                if error is lost or (task and task.cancelling()):
                    raise
                attempt += 1
                if isinstance(error, UncertainError):
                    lost = error
                    self._journal.note(job.id, error=error.record)
                    if not service.repeatable:
                        continue
                if attempt == (service.attempts if lost else _SEND_ATTEMPTS):
                    raise
                if not lost:  # surely not taken on: who takes the job up meanwhile need not ask
                    job = self._journal.move(job.id, State.PREPARED)
                self._again(job, error)
                await self._pause(attempt, error)

    async def _find(
        self, service: Service, submission: Submission, lost: UncertainError
    ) -> Ticket | None:
        """The job of a request that may have been taken on; None where it can be sent again.

        Raises:
            UncertainError: `lost`, where the service knows no such job, and sending it again might make a second one.
        """
        while True:
            known = self._journal.request_ids()
            ticket = await service.find(submission, known)
            if ticket is None and not service.repeatable:
                raise lost
            if ticket is None or ticket.request_id not in self._journal.request_ids() - known:
                return ticket
            # Else an equal job that was lost too has found it meanwhile

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
        job = self._journal.move(
            job.id, State.RUNNING, ticket=ticket.as_dict(), request_id=ticket.request_id, error=None
        )
        self._tell(job, message="Sent")
        return job

    async def _follow(self, job: Job) -> None:
        """Ask until the service is done; what it says becomes events when it is something new."""
        ticket = Ticket(**job.ticket or {})
        last = None
        async with self._pool.using(job.endpoint) as service:
            shortest, longest = service.poll_seconds
        pause = shortest
        await asyncio.sleep(shortest)
        while True:
            status = await self._persist(job, lambda service: service.status(ticket))
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
                return
            self._heed(job)
            await asyncio.sleep(pause)
            pause = min(pause * 1.5, longest)

    async def _collect(self, job: Job) -> None:
        """Fetch, check and keep what was made; what arrived of several counts, whatever became of the others."""
        ticket = Ticket(**job.ticket or {})
        outcome = await self._persist(job, lambda service: service.result(ticket))
        files, failures = [], list(outcome.failures)
        for number, made in enumerate(outcome.files):
            try:
                path = await self._fetch(job, ticket, made.url, number)
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
        job = self._journal.move(job.id, State.READY, **_told(job, outcome, files, failures))
        # Where this fails the service only keeps its copy for longer
        with contextlib.suppress(TrellisError, TimeoutError):
            async with self._pool.using(job.endpoint) as service:
                await asyncio.wait_for(service.collected(ticket), _LAST_WORD)
        self._tell(job, fraction=1.0, message=_last_words(job))

    async def _fetch(self, job: Job, ticket: Ticket, url: str, number: int) -> Path:
        """Fetch, check and keep one model. It has been paid for, and what is broken or gone may be whole the next time, or
        elsewhere."""
        for _ in range(_FETCHES - 1):
            with contextlib.suppress(ResultError):
                return await self._keep(job, url, number)
            outcome = await self._persist(job, lambda service: service.result(ticket))
            url = outcome.files[number].url if number < len(outcome.files) else url
        return await self._keep(job, url, number)

    async def _keep(self, job: Job, url: str, number: int) -> Path:
        part = self._library.part(job.id, number)
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
            await self._persist(job, lambda service: service.download(url, part, progress))
            await asyncio.to_thread(glb.check, part)
            return await asyncio.to_thread(self._library.keep, part, job.title)
        except OSError as error:
            raise storage_error(error, part.parent) from error
        finally:
            part.unlink(missing_ok=True)

    async def _persist(self, job: Job, ask: Callable[[Service], Coroutine[Any, Any, _T]]) -> _T:
        """Ask again, with jittered backoff, for as long as there is no answer about the job.

        Each time by the settings of that moment: somebody may have entered another key, or forbidden to go online.

        Raises:
            LeftError: the service answers each time, and what it says makes no sense.
        """
        attempt = senseless = 0
        while True:
            try:
                async with self._pool.using(job.endpoint) as service:
                    return await ask(service)
            except UnreachableError as error:
                attempt += 1
                senseless = senseless + 1 if error.answered else 0
                if attempt == service.attempts:
                    raise
                if senseless == _SENSELESS:
                    raise LeftError(
                        f"{error.message} It was asked {senseless} times. The job may go on there; resume it to ask again.",
                        request_id=job.request_id,
                    ) from error
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

    async def call_off(self, job_id: str) -> None:
        """The user cancelled: tell the service if it knows of the job. What is made already, or cannot be stopped, stays to be
        collected."""
        job = None
        with contextlib.suppress(TrellisError):  # there may be no row yet
            job = self._journal.get(job_id)
        if job is None:
            raise CancelledError("Cancelled.")
        if job.state in ENDED:  # it was being told so
            self._tell(job, fraction=1.0, message=_last_words(job))
            return
        self._journal.note(job_id, cancel_asked=False)
        if job.state in (State.SUBMITTING, State.UNCERTAIN) and job.error:
            raise from_record(**job.error)  # it may have been taken on
        if job.ticket is None:
            raise CancelledError("Cancelled.")
        if not await self._cancel(job, Ticket(**job.ticket)):
            self._tell(job, message="It was finished before it could be cancelled.")
            self.cancelled.discard(job_id)
            await self.carry(job)

    async def _cancel(self, job: Job, ticket: Ticket) -> bool:
        """Have the service end a job. Returns False where it was finished before that.

        Raises:
            CancelledError: it is ended, as far as is known.
            LeftError: it cannot be ended, or has cost what it costs.
        """
        async with self._pool.using(job.endpoint) as service:
            charges = not job.endpoint.startswith("local/")
            if job.state is State.DOWNLOADING and charges:
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
                if not await service.cancel(ticket):
                    return False
                if charges:
                    words += f" If {service.name} had begun already, it may finish the job and charge it."
            except UnreachableError as error:
                words += (
                    f" {service.name} could not be told ({error.message}); it may go on, and charge the job."
                    if charges
                    else f" {service.name} could not be told ({error.message}); it may go on."
                )
        raise CancelledError(words, request_id=job.request_id)

    async def adopt(self, job: Job, request_id: str) -> None:
        """Go on with an uncertain job that the service calls `request_id`."""
        submission = await self._sought(job)
        ticket = await self._persist(job, lambda service: service.adopt(submission, request_id))
        await self.carry(self._accept(job, ticket))

    async def price(self, job: Job) -> float | None:
        """What the service says that a job would cost, in US dollars; None where it does not say."""
        async with self._pool.using(job.endpoint) as service:
            return await service.price(await self._fill(job, service.attach))


def _limit(service: str, config: Config) -> float:
    """How many jobs may be at a service at once. This computer has a queue of its own, for all who ask it."""
    return math.inf if service == "local" else config.jobs_at_once


def _last_words(job: Job) -> str:
    return job.error["message"] if job.error else "Ready"


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
    notes = [f"{note.removesuffix('.')}." for note in outcome.notes]
    if failures:
        all_of_them = len(files) + len(failures)
        notes.insert(0, f"{len(failures)} of {all_of_them} models failed: {' '.join(failures)}")
    if notes:
        told["error"] = TrellisError(" ".join(notes), request_id=job.request_id).record
    return told

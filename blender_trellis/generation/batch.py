# SPDX-License-Identifier: GPL-3.0-or-later
"""Many models in one go: rows carried through by the runner, a few at a time, and a line of results for each.

Each job's wish in the journal says which row of which batch it is for, and is committed before anything is sent. So whoever runs
the batch again, however the last run ended, finds what became of every row, and no row is sent twice by itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import queue
import time
import uuid
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..endpoints import get, prices
from ..endpoints.schema import schemas
from ..errors import (
    AccessError,
    AccountError,
    ImageError,
    InputError,
    LeftError,
    OutputError,
    PriceError,
    ResultError,
    StorageError,
    TrellisError,
    UncertainError,
    UnreachableError,
    from_record,
)
from ..services import check_access, with_key
from .book import Book, Line, amount_of, line_of
from .job import ENDED, Event, Job, State
from .request import check_inputs, check_price
from .rows import Problem, Row, in_the_way, refuse

if TYPE_CHECKING:
    from .journal import Part
    from .runner import Runner

_GLANCE = 0.2  # seconds between two looks at what else there is to do, while no job tells anything
_WATCH = 1.0  # seconds between two looks at the jobs that another process has
_PATIENCE = 600.0  # seconds without news for which such a job is waited for
_RECENT = 30  # rows by which the rate is measured
# What concerns every row of a service, and not only the one that met it; of some even every row
_GENERAL = (AccessError, AccountError, PriceError, StorageError, UnreachableError)
_EVERYWHERE = (PriceError, StorageError)
_TRIED = (State.FAILED, State.CANCELLED)
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
_FORBIDDEN = (errno.EACCES, errno.EPERM)


@dataclass(frozen=True)
class Progress:
    """How far a batch is. `left` are rows that stopped on their way. `rate` is rows a minute and `seconds` how many there still
    are, None while nobody knows. `cost` is what was charged in all, in US dollars; `estimate`: not every charge was named."""

    total: int
    ready: int
    failed: int
    uncertain: int
    left: int
    at_work: int
    rate: float | None
    seconds: float | None
    cost: float
    estimate: bool

    @property
    def done(self) -> int:
        return self.ready + self.failed + self.uncertain


class Batch:
    """The rows of one batch, and what is left to do for them.

    `deliver` writes what a ready job made to a path. `written` is called with each line of results once it is on the disk.
    `begin` gives the id of the job that will be sent for a row. `events` are the runner's, which somebody else may pass on.
    `hint` says what to do about rows that ask for something else than they did.

    Two may be set by a signal's handler or another thread: `interrupted`, from when on nothing new is sent, and `abandoned`, from
    when on nothing is waited for either. `stops` says by service, or for all of them as "", why nothing more is sent; and as
    "elsewhere" of what another process has, why it is not waited for.
    """

    def __init__(
        self,
        runner: Runner,
        book: Book,
        rows: Sequence[Row],
        *,
        deliver: Callable[[Job, Path], None],
        written: Callable[[dict[str, Any]], None],
        begin: Callable[[Row], str] = lambda _: str(uuid.uuid4()),
        events: queue.SimpleQueue[Event] | None = None,
        max_cost: float | None = None,
        retry_failed: bool = False,
        hint: str = "Give them other outputs, or the batch another folder.",
    ) -> None:
        self.interrupted = self.abandoned = False
        self.stops: dict[str, TrellisError] = {}
        self._runner = runner
        self._book = book
        self._total = len(rows)
        self._deliver = deliver
        self._written = written
        self._begin = begin
        self._events = runner.events if events is None else events
        self._max_cost = max_cost
        self._waiting: dict[str, deque[Row]] = {}  # by service
        self._taken: list[tuple[Row, Part]] = []  # of which the journal knows more than the results
        self._at_work: dict[str, Row] = {}
        # Those of them whose news may have come before they were taken up
        self._taken_up: set[str] = set()
        self._elsewhere: dict[str, Row] = {}  # jobs that another process has
        self._silent: set[str] = set()  # those of them that it may have stopped
        self._watched = 0.0
        self._again: set[str] = set()
        self._states = Counter[State]()
        self._left = 0
        self._ends: deque[float] = deque(maxlen=_RECENT)
        self._cost, self._estimate = 0.0, False
        self._counted: set[str] = set()  # jobs of earlier runs whose cost is in it
        self._plan(rows, retry_failed, hint)

    # What is left to do

    def _plan(self, rows: Sequence[Row], retry_failed: bool, hint: str) -> None:
        """Hold the rows against results and journal."""
        parts: dict[str, Part] = {}
        for part in self._runner.journal.of_batch(self._book.id) if self._book.id else ():
            parts[part.row] = part  # the latest of several attempts
            if part.state in ENDED:
                self._counted.add(part.job_id)
                self._count_cost(part.cost)
        lines = self._book.lines
        self._cost += sum(line.cost for output, line in lines.items() if output not in parts)
        changed = []
        for row in rows:
            job, line = parts.get(row.output), lines.get(row.output)
            if job and job.state not in _TRIED and not row.fits(job.mark):
                words = f"{row.place}: {row.output} was asked for with other images or parameters."
                changed.append(Problem(row.number, words))
            if job and line and not _is_of(line, job):
                line = None
            state = line.state if line else job.state if job else None
            if job and not line and _is_left(job):
                state = None
            if retry_failed and not job and state is State.UNCERTAIN:  # the user dismissed it
                state = None
            if state is None or (retry_failed and state in _TRIED):
                service = schemas()[row.request.endpoint]["service"]
                self._waiting.setdefault(service, deque()).append(row)
            elif job and not (line and state in ENDED):
                self._taken.append((row, job))
            else:
                self._states[state] += 1
                continue
            self._again.add(row.output)
        refuse(changed, len(rows), hint)

    def check(self, *, pictures: bool) -> list[Problem]:
        """What is wrong with the files of the rows that will be sent, and where their models shall be; with their `pictures` only
        if that is asked for.

        Raises:
            AccessError: a key is missing, or Blender may not go online.
        """
        problems = []
        for row in self._to_send():
            if words := in_the_way(self._book.folder, row):
                problems.append(Problem(row.number, words))
                continue
            try:
                check_inputs(row.request)
            except ImageError as error:
                if pictures:
                    problems.append(Problem(row.number, f"{row.place}: {error.message}"))
            except TrellisError as error:
                problems.append(Problem(row.number, f"{row.place}: {error.message}"))
        return problems

    def check_access(self) -> None:
        """Refuse to begin where a service that is needed cannot be asked.

        Raises:
            AccessError: a key is missing, or Blender may not go online.
        """
        for endpoint in sorted({row.request.endpoint for row in self._to_send()}):
            check_access(endpoint, asyncio.run(with_key(endpoint, self._runner.config)))

    def _to_send(self) -> Iterator[Row]:
        for rows in self._waiting.values():
            yield from rows

    @property
    def to_send(self) -> int:
        """How many rows will be sent, as nothing was made or is being made for them."""
        return len([*self._to_send()])

    @property
    def outputs_to_send(self) -> set[str]:
        """The paths of their models."""
        return {str(self._book.folder / row.output) for row in self._to_send()}

    @property
    def to_take_up(self) -> list[str]:
        """The jobs of earlier runs that are at work, or of which the results do not know."""
        return [part.job_id for _, part in self._taken]

    def estimate(self) -> prices.Estimate | None:
        """What the rows that will be sent are expected to cost; None where nothing is charged.

        Raises:
            PriceError: with what was charged already it is more than was allowed.
        """
        each = [one for row in self._to_send() if (one := _price(row))]
        if not each:
            return None
        sums = (round(sum(edge), 6) for edge in zip(*map(_edges, each), strict=True))
        found = prices.Estimate(*sums)
        going_on = sum(amount_of(part.cost) for _, part in self._taken if part.state not in ENDED)
        check_price(self._max_cost, round(self._cost + going_on + found.amount, 6))
        return found

    # Carrying it out

    def run(self, tell: Callable[[Progress], None], timeout: float | None = None) -> Progress:
        """Carry all rows through, until each has a line of results, or no more is sent and what is at work has ended, or
        it is abandoned or `timeout` seconds are over: then what is at work is left to the next run."""
        deadline = None if timeout is None else time.monotonic() + timeout
        self._book.begin()
        self._book.drop(self._again)
        for row, part in self._taken:
            if part.state in ENDED:
                self._settle(row, self._runner.journal.get(part.job_id))
            else:
                self._take_up(row, part.job_id)
        self._admit()
        while self._at_work or (self._elsewhere.keys() - self._silent and not self.interrupted):
            if self.abandoned:
                break
            if deadline is not None and time.monotonic() > deadline:
                self.stops.setdefault("", UnreachableError("The time is over."))
                break
            self._hear()
            self._watch()
            self._admit()
            tell(self.progress())
        if self._silent:
            minutes = round(_PATIENCE / 60)
            words = f"Another Blender or command has what is missing, and for {minutes} minutes nothing of it has changed."
            self.stops.setdefault("elsewhere", UnreachableError(words))
        return self.progress()

    def progress(self) -> Progress:
        """How far it is."""
        rate = seconds = None
        if len(self._ends) > 1 and self._ends[-1] > self._ends[0]:
            rate = 60 * (len(self._ends) - 1) / (self._ends[-1] - self._ends[0])
        failed = sum(self._states[state] for state in _TRIED)
        left = self._left + len(self._silent)
        done = sum(self._states.values()) + left
        if rate and done < self._total:
            seconds = 60 * (self._total - done) / rate
        return Progress(
            self._total,
            self._states[State.READY],
            failed,
            self._states[State.UNCERTAIN],
            left,
            len(self._at_work) + len(self._elsewhere) - len(self._silent),
            rate,
            seconds,
            round(self._cost, 6),
            self._estimate,
        )

    def _admit(self) -> None:
        """Send as many rows as each service takes at once, in their order."""
        for service, rows in self._waiting.items():
            while rows and not self.interrupted and not self._stopped(service):
                there = sum(_service(row) == service for row in self._at_work.values())
                if there >= self._runner.config.jobs_at_once:
                    break
                self._send(rows.popleft())

    def _stopped(self, service: str) -> bool:
        return bool(self.stops.keys() & {service, ""})

    def _send(self, row: Row) -> None:
        wish = row.request.wish | {
            "output": str(self._book.folder / row.output),
            "batch": {"id": self._book.id, "row": row.output, "mark": row.mark},
        }
        limit = None
        if self._max_cost is not None:  # what those at work may still cost is spoken for
            spoken_for = sum(
                each.amount for other in self._at_work.values() if (each := _price(other))
            )
            limit = max(round(self._max_cost - self._cost - spoken_for, 6), 0.0)
        job_id = self._begin(row)
        self._at_work[job_id] = row
        self._runner.submit(replace(row.request, wish=wish, max_cost=limit), job_id)

    def _take_up(self, row: Row, job_id: str) -> None:
        """Go on with a job that an earlier run began. An uncertain one is only asked for."""
        claimed = self._runner.resume(job_id)
        if not claimed:
            self._look_on(row, self._runner.journal.get(job_id))
        elif claimed[0].state in ENDED:
            self._settle(row, claimed[0])
        else:
            self._at_work[job_id] = row
            self._taken_up.add(job_id)

    def _look_on(self, row: Row, job: Job) -> None:
        """Another process has a job: it carries it through, or has stopped, and only its user can make it go on."""
        if job.state in ENDED:
            self._settle(row, job)
        elif job.state is State.UNCERTAIN:
            self._write(row, job.state, job, job.error)
        else:
            self._elsewhere[job.id] = row
            if time.time() - job.updated > _PATIENCE:
                self._silent.add(job.id)

    def _watch(self) -> None:
        """Look after the jobs that others have, too: they may have ended, or their process."""
        now = time.monotonic()
        if now - self._watched < _WATCH:
            return
        self._watched = now
        for job_id in self._taken_up & self._at_work.keys():
            job = self._known(job_id)
            if job is None or job.state in ENDED:
                self._settle(self._at_work.pop(job_id), job)
        for job_id, row in [*self._elsewhere.items()]:
            del self._elsewhere[job_id]
            self._silent.discard(job_id)
            job = self._known(job_id)
            if job is None or job.state in ENDED:
                self._settle(row, job)
            else:
                self._take_up(row, job_id)

    def _known(self, job_id: str) -> Job | None:
        """A job, unless somebody took it out of the journal."""
        with contextlib.suppress(InputError):
            return self._runner.journal.get(job_id)
        return None

    def _hear(self) -> None:
        """The next news of a job, if there is some soon."""
        try:
            event = self._events.get(timeout=_GLANCE)
        except queue.Empty:
            return
        if event.job_id not in self._at_work:
            return
        if event.error:
            self._end(self._at_work.pop(event.job_id), event, from_record(**event.error))
        elif event.state is State.READY:
            row = self._at_work.pop(event.job_id)
            self._settle(row, self._runner.journal.get(event.job_id))

    def _end(self, row: Row, event: Event, error: TrellisError) -> None:
        """A job did not come to a model: it failed, or it stopped on its way and can go on later."""
        general = _is_general(error)
        if general:
            where = "" if isinstance(error, _EVERYWHERE) else _service(row)
            self.stops.setdefault(where, error)
        job = self._known(event.job_id)  # none where it was refused before it had a row there
        unsent = general and event.state is State.FAILED and not (job and job.ticket)
        if not unsent and (event.state in ENDED or event.state is State.UNCERTAIN):
            self._write(row, event.state, job, event.error)
        else:
            self._left += 1

    def _settle(self, row: Row, job: Job | None) -> None:
        """A job has ended: what it made goes where it belongs, and then its line is written. What was taken out of the journal is
        left."""
        if job is None:
            self._left += 1
            return
        if job.state is State.READY:
            try:
                self._deliver(job, self._book.folder / row.output)
            except TrellisError as error:
                if self._of_one_model(error):  # which is kept, and tried again by the next run
                    self._write(row, State.FAILED, job, error.record)
                    return
                self.stops.setdefault("", error)
                self._left += 1
                return
        self._write(row, job.state, job, job.error)

    def _of_one_model(self, error: TrellisError) -> bool:
        """Whether what keeps a model from its place says nothing about the others: itself, or the place's name."""
        number = error.__cause__.errno if isinstance(error.__cause__, OSError) else None
        if not isinstance(error, ResultError | OutputError) or number in _FULL:
            return False
        # Windows says so too of a single file that something else has open
        return number not in _FORBIDDEN or os.access(self._book.folder, os.W_OK)

    def _write(self, row: Row, state: State, job: Job | None, error: dict[str, Any] | None) -> None:
        line = line_of(row, state, job, error)
        try:
            self._book.write(line)
        except StorageError as full:
            self.stops.setdefault("", full)
            self._left += 1
            return
        self._states[state] += 1
        self._ends.append(time.monotonic())
        if line["job_id"] not in self._counted:
            self._count_cost(line["cost"])
        self._written(line)

    def _count_cost(self, cost: dict[str, Any] | None) -> None:
        self._cost += amount_of(cost)
        self._estimate |= bool(cost and cost["estimate"])


def _is_of(line: Line, part: Part) -> bool:
    """Whether a line of results still says what became of a row, whose latest job is `part`."""
    if line.job_id is None:  # it was refused before there was a job, after an earlier one failed
        return part.state in _TRIED
    return (line.job_id, line.state) == (part.job_id, part.state)


def _is_left(part: Part) -> bool:
    """Whether a job ended without being taken on, for what is not the row's fault: the next run sends the row."""
    if part.state is not State.FAILED or part.taken_on or not part.error:
        return False
    return _is_general(from_record(**part.error))


def _is_general(error: TrellisError) -> bool:
    return isinstance(error, _GENERAL) and not isinstance(error, LeftError | UncertainError)


def _service(row: Row) -> str:
    return str(schemas()[row.request.endpoint]["service"])


def _price(row: Row) -> prices.Estimate | None:
    values = get(row.request.endpoint).parse(row.request.parameters).values()
    return prices.estimate(row.request.endpoint, values)


def _edges(cost: prices.Estimate) -> tuple[float, float, float]:
    return cost.amount, cost.low, cost.high

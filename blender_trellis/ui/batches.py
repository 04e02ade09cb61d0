# SPDX-License-Identifier: GPL-3.0-or-later
"""Folders of pictures: the batch of the command line, with its folder of results, whose models come into the scene.

A `Course` is one of them, from its rows to its contact sheet; the window's runs in a thread of its own, since it waits.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import uuid
from collections.abc import Callable
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

from ..errors import InputError, OutputError, TrellisError, from_record
from . import jobs, money, notices, placeholders, screen
from .text import said, tr

if TYPE_CHECKING:
    from ..generation.batch import Batch, Progress
    from ..generation.job import Event, Job
    from ..generation.journal import Journal
    from ..generation.rows import Row
    from ..generation.runner import Runner
    from .clerk import Clerk
    from .orders import BatchOrder
    from .session import Session
    from .work import Work

log = logging.getLogger(__name__)

_GONE = "Results lack {count} models that were made before. What is left of them is in the folder."
_ONE_GONE = "Results lack 1 model that was made before. What is left of it is in the folder."
_PATIENCE = (
    5.0  # seconds for a thread that copies a large model, say; nothing is lost where it is ended
)
_CHANGED = "Give those pictures other names, or make all anew."


class Course:
    """One batch, carried through by `run` in whatever thread; what happens meanwhile it tells there, by the methods that a
    subclass has. `events` as for a `Batch`."""

    events: SimpleQueue[Event] | None = None

    def __init__(self, order: BatchOrder) -> None:
        self.order = order
        self.batch: Batch | None = None
        self._sent: set[str] = set()

    def planned(self, outputs: set[str], taken_up: list[str]) -> None:
        """These models will be asked for, and these jobs of an earlier run go on."""

    def begun(self, row: Row, job_id: str) -> None:
        """A job is about to be sent."""

    def ready(self, job_ids: list[str], *, sent: bool) -> None:
        """These have models: one that was `sent` in this run, as soon as it is there, or some that were sent before."""
        raise NotImplementedError

    def told(self, error: TrellisError) -> None:
        """A row came to no model."""

    def tell(self, progress: Progress) -> None:
        """How far it is."""

    def run(self, runner: Runner, more_letters: list[Path]) -> None:
        """Carry all rows through; those that failed in an earlier run once more.

        Raises:
            TrellisError: it cannot begin, or its folder cannot be written.
        """
        from .. import api
        from ..generation.batch import Batch
        from ..generation.book import Book
        from ..generation.rows import refuse
        from ..generation.sheet import contact_sheet, picture_in

        journal = runner.journal
        rows, problems = self.order.rows()
        refuse(problems, len(rows) + len(problems))
        ids = {row.output: drawn for row, drawn in zip(rows, self.order.ids, strict=True)}
        with contextlib.closing(Book(self.order.folder, runner.config.home)) as book:
            self.batch = Batch(
                *(runner, book, rows),
                deliver=api.deliver,
                written=lambda line: self._written(
                    line, partial(picture_in, book, journal=journal)
                ),
                begin=partial(self._begin, ids),
                events=self.events,
                retry_failed=True,
                hint=_CHANGED,
            )
            refuse(self.batch.check(pictures=False), len(rows))
            there, gone = _sorted_out(self.order.made, journal)
            self.planned(self.batch.outputs_to_send, self.batch.to_take_up)
            self.ready(there, sent=False)
            self.tell(self.batch.progress())
            self.tell(self.batch.run(self.tell))
            if self.batch.abandoned:
                return
            lines = [book.lines[row.output] for row in rows if row.output in book.lines]
            ready = [line.job_id for line in lines if line.state == "ready" and line.job_id]
            self.ready([*{*ready} - self._sent - {*self.order.made}], sent=False)
            errors = [*self.batch.stops.values()]
            try:
                contact_sheet(book, rows, journal, lambda: more_letters)
            except OutputError as error:
                errors.append(error)
        if gone:
            errors.append(InputError(_ONE_GONE if gone == 1 else _GONE.format(count=gone)))
        if errors:
            raise errors[0]

    def _begin(self, ids: dict[str, str], row: Row) -> str:
        job_id = ids[row.output]
        self._sent.add(job_id)
        self.begun(row, job_id)
        return job_id

    def _written(self, line: dict[str, Any], draw: Callable[..., Path | None]) -> None:
        if line["state"] == "ready":
            if line["job_id"] in self._sent:
                self.ready([line["job_id"]], sent=True)
            draw(line["output"], job_id=line["job_id"])  # now, so that the sheet is quickly made
        elif line["error"]:
            self.told(from_record(**line["error"]))


def in_words(view: jobs.BatchView) -> str:
    """How far one is: "12 of 40 · 3.1 a minute · About 9 min", and at its end "40 of 40 models · $12.00"."""
    now = view.progress
    if now is None or view.over:
        words = [
            tr("{ready} of {count} models").format(ready=now.ready if now else 0, count=view.total)
        ]
        if now and now.cost:
            price = money.in_words(now.cost)
            words.append(tr("About {price}").format(price=price) if now.estimate else price)
        return " · ".join(words)
    words = [tr("{done} of {count}").format(done=now.done, count=view.total)]
    if view.stopping:
        words.append(tr("Stopping"))
    elif now.rate and now.seconds is not None:
        words.append(tr("{rate} a minute").format(rate=f"{now.rate:.1f}"))
        words.append(tr("About {price}").format(price=money.duration(now.seconds)))
    return " · ".join(words)


def _sorted_out(made: list[str], journal: Journal) -> tuple[list[str], int]:
    """Which of several jobs still have their models, and how many have not."""
    there = []
    for job_id in made:
        with contextlib.suppress(InputError):
            job: Job = journal.get(job_id)
            if job.files and all(Path(path).is_file() for path in job.files):
                there.append(job_id)
    return there, len(made) - len(there)


class _Watched(Course):
    """The window's: what it tells comes to the board by the clerk."""

    def __init__(self, order: BatchOrder, board: jobs.Board, clerk: Clerk, work: Work) -> None:
        super().__init__(order)
        self.events = SimpleQueue()
        self.abandoned = False
        self.view = jobs.BatchView(
            str(uuid.uuid4()), order.title, str(order.folder), len(order.ids)
        )
        self._board = board
        self._clerk = clerk
        self._work = work
        board.add_batch(self.view)

    def planned(self, outputs: set[str], taken_up: list[str]) -> None:
        def know() -> None:
            self._board.forget_failed(outputs)
            self._work.supersede(taken_up, self.order.wish)

        self._clerk.tell(know)

    def begun(self, row: Row, job_id: str) -> None:
        (picture,) = map(str, row.request.images)
        view = jobs.JobView(job_id, Path(row.output).stem, self.order.endpoint, picture=picture)
        view.output = str(self.order.folder / row.output)
        first = len(self._sent) == 1 and not self.order.made

        def show() -> None:
            self._work.expect(view)
            if first and screen.undisturbed(0):
                placeholders.put(job_id, view.title, self.order.wish)

        self._clerk.tell(show)

    def ready(self, job_ids: list[str], *, sent: bool) -> None:
        if not sent:  # else they come by their wish, as all others do
            self._clerk.tell(partial(self._work.bring_missing, job_ids, self.order.wish))

    def tell(self, progress: Progress) -> None:
        self._clerk.tell(partial(self._show, progress))
        if self.batch and (self.abandoned or self.view.stopping):
            self.batch.abandoned, self.batch.interrupted = self.abandoned, True

    def _show(self, progress: Progress) -> None:
        self._board.dirty |= self.view.progress != progress
        self.view.progress = progress


class Batches:
    """Those of this Blender. All methods are the main thread's, except those that say otherwise, and none but `close` waits."""

    def __init__(self, board: jobs.Board, clerk: Clerk, session: Session, work: Work) -> None:
        self._board = board
        self._clerk = clerk
        self._session = session
        self._work = work
        self._threads: dict[threading.Thread, _Watched] = {}

    def start(self, order: BatchOrder) -> None:
        """Begin one.

        Raises:
            InputError: a base URL in the preferences is not one.
        """
        from ..scene.fonts import more_letters

        self._session.start()
        course = _Watched(order, self._board, self._clerk, self._work)
        letters = more_letters()
        thread = threading.Thread(
            target=lambda: self._carry_through(course, letters), name="trellis-batch", daemon=True
        )
        self._threads[thread] = course
        self._clerk.later(thread.start)  # by then the runner is open

    def _carry_through(self, course: _Watched, more_letters: list[Path]) -> None:
        """In its thread."""
        if course.abandoned:
            return
        words = ""
        try:
            course.run(self._session.running(), more_letters)
        except TrellisError as error:
            words = error.message
        except Exception as error:
            log.exception("a batch")
            words = f"Something unforeseen happened: {error!r}."
        self._clerk.tell(partial(self._over, course, words))

    def _over(self, course: _Watched, words: str) -> None:
        self._threads = {thread: each for thread, each in self._threads.items() if each != course}
        view = course.view
        view.over, view.error = True, words
        self._board.dirty = True
        icon = "ERROR" if words or not view.complete else "CHECKMARK"
        first = said(words).partition("\n")[0]
        notices.say(f"{view.title}: {first or in_words(view)}", icon)

    def take(self, event: Event) -> None:
        """The runner has told something of a job."""
        for course in self._threads.values():
            assert course.events is not None
            course.events.put(event)

    def stop(self, batch_id: str) -> None:
        """Send nothing more of it; what is being made goes on."""
        for course in self._threads.values():
            course.view.stopping |= course.view.id == batch_id
        self._board.dirty = True

    def close(self) -> None:
        """Leave all as they are; the next one for the same folder goes on with them."""
        for thread, course in self._threads.items():
            course.abandoned = True
            if course.batch:
                course.batch.abandoned = course.batch.interrupted = True
            if thread.ident:
                thread.join(_PATIENCE)
        self._threads.clear()

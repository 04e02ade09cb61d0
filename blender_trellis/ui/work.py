# SPDX-License-Identifier: GPL-3.0-or-later
"""Jobs from a click to the model in the scene: what the user asks of them, and what the runner tells of them."""

from __future__ import annotations

import shutil
import tempfile
import uuid
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import InputError
from ..generation.job import ENDED, Event, Job, State
from ..scene.recipe import read
from . import jobs, notices, placeholders
from .arrivals import Arrivals
from .text import tr
from .wishes import find_scene, joins, stands_in

if TYPE_CHECKING:
    from ..generation.runner import Runner
    from .clerk import Clerk
    from .history import History
    from .orders import Order
    from .session import Session


class Work:
    """All methods are the main thread's, except those that say otherwise, and none waits. In background mode, where no tick
    comes, `background.py` is used instead."""

    def __init__(self, board: jobs.Board, clerk: Clerk, session: Session, history: History) -> None:
        self._board = board
        self._clerk = clerk
        self._session = session
        self._history = history
        self._arrivals = Arrivals(self._arrived, partial(clerk.later, quiet=True))
        self._temporary: dict[str, Path] = {}  # folders with pictures that have not been read yet
        self._orders: dict[str, Order] = {}  # those of jobs that have no row yet
        self._coming: set[str] = set()  # jobs whose models are on the way into a scene
        self._wishes: dict[str, dict[str, Any]] = {}  # newer ones than jobs have in the journal

    # -- What is asked for -----------------------------------------------------------------------

    def submit(self, order: Order) -> None:
        """Start a job.

        Raises:
            InputError: a base URL in the preferences is not one.
        """
        self._session.start()
        job_id = order.id or str(uuid.uuid4())
        first = order.pictures[0]
        picture = str(first) if isinstance(first, Path) else ""
        self.expect(jobs.JobView(job_id, order.title, order.endpoint, picture=picture))
        placeholders.put(job_id, order.title, order.wish)
        self._orders[job_id] = order
        self._clerk.later(partial(self._hand_over, order, job_id), job_id)

    def expect(self, view: jobs.JobView) -> None:
        """Show a job that somebody is about to hand over to the runner, and be ready for its model."""
        self._board.add(view)
        self._arrivals.expect()

    def supersede(self, job_ids: Iterable[str], wish: dict[str, Any]) -> None:
        """Jobs of an earlier run are for this wish now, wherever they are."""
        for job_id in job_ids:
            self._wishes[job_id] = wish
            self._board.take_up(job_id)

    def _hand_over(self, order: Order, job_id: str) -> None:
        """In the clerk's thread: gives the request to the runner."""
        runner = self._session.running()
        folder = Path(tempfile.mkdtemp(prefix="trellis-input-"))
        self._temporary[job_id] = folder  # until the runner's first event
        try:
            runner.submit(order.request(folder), job_id)
        except BaseException:
            _remove(self._temporary.pop(job_id, folder))
            raise

    def repeat(self, job_id: str, title: str, endpoint: str, wish: dict[str, Any] | None) -> None:
        """Start the same as a job once more; where `wish` is None with the old wish.

        Raises:
            InputError: a base URL in the preferences is not one.
        """
        self._session.start()
        again = str(uuid.uuid4())
        if wish and wish.get("row"):
            stands_in(again, job_id)
        old = self._board.views.get(job_id)
        picture = old.picture if old else ""
        self._board.add(jobs.JobView(again, title, endpoint, picture=picture))
        if wish is not None:
            placeholders.put(again, title, wish)
        self._clerk.later(lambda: self._session.running().repeat(job_id, again, wish=wish), again)
        self._arrivals.expect()

    def retry(self, job_id: str) -> None:
        """Ask anew for what a failed job asked for, as a new job in its place.

        Raises:
            InputError: nothing is known of it any more.
        """
        view, order = self._board.views.get(job_id), self._orders.get(job_id)
        if view is None or not (view.job or order):
            raise InputError("Nothing is known of this job any more. Generate the model again.")
        if order:  # it never got a row
            order = order._replace(id=str(uuid.uuid4()))
            stands_in(order.id, job_id)
            self.submit(order)
        else:
            wish = view.job.wish if view.job else None
            self.repeat(job_id, view.title, view.endpoint, wish)
        self._orders.pop(job_id, None)
        self._board.remove(job_id)

    def resume(self, job_id: str) -> None:
        """Have a job that stopped go on; an uncertain one is asked for. Nothing is sent twice.

        Raises:
            InputError: a base URL in the preferences is not one.
        """
        if self._session.start():  # a new runner takes up everything by itself
            self._board.take_up(job_id)
        else:
            self.go_on(job_id, partial(resume, job_id=job_id))

    def go_on(self, job_id: str, how: Callable[[Runner], Any]) -> None:
        """Have a job that stopped go on as `how` asks for it, in the clerk's thread."""
        self._board.take_up(job_id)
        self._session.reconfigure()
        self._clerk.later(lambda: how(self._session.running()), job_id)

    def bring(self, job_id: str, wish: dict[str, Any]) -> None:
        """Import a result to where the wish says.

        Raises:
            InputError: a base URL in the preferences is not one.
        """
        self._session.start()
        self._bring(job_id, wish)

    def _bring(self, job_id: str, wish: dict[str, Any]) -> None:
        self._coming.add(job_id)
        self._board.set_importing(job_id, True)
        self._fetch(job_id, partial(self._arrivals.add, wish=wish))

    def bring_missing(self, job_ids: Iterable[str], wish: dict[str, Any]) -> None:
        """Import those results that neither stand in the scene of the wish nor are on their way, if that is open."""
        scene = find_scene(wish)
        if scene is None:
            return
        there = {made.job_id for obj in scene.objects if (made := read(obj))}
        for job_id in job_ids:
            joins(job_id, wish)
            if job_id not in there | self._coming:
                self._bring(job_id, wish)

    def cancel(self, job_id: str) -> None:
        """Ask for a job's end."""
        self._clerk.later(lambda: self._session.running().cancel(job_id))

    def dismiss(self, job_id: str) -> None:
        """Show a failed job no longer. An uncertain one leaves the journal too, or it would come back."""
        view = self._board.views.get(job_id)
        self._orders.pop(job_id, None)
        if view is None:
            return
        if view.files:
            view.error, self._board.dirty = "", True
        elif view.state is State.UNCERTAIN:
            self._history.forget(job_id)
        else:
            if view.resumable and view.state is State.PREPARED and self._session.runner:
                self._session.runner.cancel(job_id)  # else the next start would send it
            self._board.remove(job_id)
        self._clerk.wake()

    def fulfil(self, job_id: str) -> None:
        """Note that the model stands where it was wanted, or never will."""
        self._clerk.later(lambda: self._session.running().journal.note(job_id, fulfilled=True))

    # -- What happens ----------------------------------------------------------------------------

    @property
    def importing(self) -> bool:
        """Whether a model is on its way into a scene."""
        return self._arrivals.busy

    def step(self) -> None:
        """Go on with the import at hand."""
        self._arrivals.step()
        if not self._board.at_work:
            self._arrivals.relax()

    def take(self, event: Event) -> None:
        """The runner has told something of a job."""
        job_id = event.job_id
        self._board.take(event)
        if not event.error or event.state is State.CANCELLED:
            self._orders.pop(job_id, None)  # it has a row, or is not wanted any more
        view = self._board.views.get(job_id)
        if view and (view.job is None or event.error):
            self._fetch(job_id, self._know, quiet=True)
        folder = self._temporary.pop(job_id, None)
        if folder:  # its pictures have been read, or never will be
            self._clerk.later(partial(_remove, folder))
        if event.state is State.READY and job_id not in self._coming:
            self._coming.add(job_id)
            self._board.set_importing(job_id, True)
            self._fetch(job_id, self._ready)
        if event.state in ENDED:
            self._clerk.later(self._history.count)
        if event.error and event.state is not State.CANCELLED and view:
            failed = event.state is State.FAILED
            words = tr("{name} failed") if failed else tr("{name} stopped on its way")
            notices.say(words.format(name=view.title), "ERROR")

    def _fetch(self, job_id: str, then: Callable[[Job], None], *, quiet: bool = False) -> None:
        """Have the clerk read a job, and a tick call `then` with it."""

        def fetch() -> None:
            self._clerk.tell(partial(then, self._session.running().journal.get(job_id)))

        self._clerk.later(fetch, job_id, quiet=quiet)

    def _know(self, job: Job) -> None:
        if self._session.inputs:  # else it has been switched off meanwhile
            self._board.know(job, self._session.inputs)

    def bring_home(self, job: Job) -> None:
        """A model that was made while nobody was here comes into the scene that asked for it, if that is open."""
        if self._session.inputs and find_scene(job.wish):
            self._board.load([job], self._session.inputs)
            self._board.set_importing(job.id, True)
            self._coming.add(job.id)
            self._arrivals.add(job, job.wish)

    def _ready(self, job: Job) -> None:
        self._know(job)
        self._history.look_up()
        if job.error:  # some of its models failed
            self._board.note(job.id, job.error["message"])
        wish = self._wishes.get(job.id, job.wish)
        if wish.get("scene") and not job.fulfilled:
            self._arrivals.add(job, wish)
        else:
            self._coming.discard(job.id)
            self._board.set_importing(job.id, False)
            self._say_ready(job.id)

    def _arrived(self, job_id: str, settled: bool, error: str) -> None:
        self._coming.discard(job_id)
        self._board.set_importing(job_id, False)
        newer = self._wishes.pop(job_id, None)
        if newer and not (settled or error):  # the scene that it was for is not here
            self.bring_missing([job_id], newer)
            if job_id in self._coming:
                return
        if error:
            self._board.fail(job_id, error)
            words = tr("{name} could not be imported")
            notices.say(words.format(name=self._board.title(job_id)), "ERROR")
        if settled:
            self.fulfil(job_id)
        if not error:
            self._say_ready(job_id)

    def _say_ready(self, job_id: str) -> None:
        notices.say(tr("{name} is ready").format(name=self._board.title(job_id)))

    def close(self) -> None:
        """End imports."""
        self._arrivals.close()

    def tidy_up(self) -> None:
        """Remove what was written for jobs, once nothing will read it any more."""
        for folder in self._temporary.values():
            _remove(folder)
        self._temporary.clear()


def resume(runner: Runner, job_id: str) -> None:
    """Have `runner` go on with a job.

    Raises:
        InputError: it has ended, or belongs to somebody else.
    """
    if not runner.resume(job_id):
        raise InputError(
            "This job cannot go on here: it has ended, or another Blender or command works on it."
        )


def _remove(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)

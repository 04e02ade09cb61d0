# SPDX-License-Identifier: GPL-3.0-or-later
"""Between Blender's main thread and the runner: one timer that takes what happened and asks for a redraw of what changed.

The runner and everything that touches a disk live in other threads: the runner in its own, and short work in one thread, the
clerk, in the order it was given. What the clerk finds comes back as a call in `inbox`, made by the next tick. The timer runs
only while something is on the way; panels read `board` alone.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import bpy

from .. import keychain
from ..config import in_environment
from ..errors import InputError, TrellisError
from . import jobs, notices, placeholders, preferences
from .text import tr

if TYPE_CHECKING:
    from concurrent.futures import Future, ThreadPoolExecutor
    from queue import SimpleQueue

    from ..config import Config
    from ..generation.job import Event, Job
    from ..generation.journal import Spent
    from ..generation.runner import Runner
    from ..generation.waits import Kind
    from .orders import Order

INTERVAL = 0.1  # seconds between two ticks while something is on the way
BUDGET = 0.001  # seconds after which a tick leaves the remaining events to the next one
TAB = "Trellis"
# What does not come with the extension
_TO_INSTALL = _GENERATE, _RETEXTURE = "local/trellis-2", "local/trellis-2/retexture"


class Pump:
    """Everything of this Blender that is on the way. All methods are the main thread's, except those that say otherwise."""

    def __init__(self) -> None:
        from concurrent.futures import ThreadPoolExecutor
        from queue import SimpleQueue

        from .arrivals import Arrivals
        from .keys import Keys
        from .previews import Previews
        from .thumbnails import Thumbnails

        self.board = jobs.Board()
        self.previews = Previews(wake, partial(self.later, quiet=True))
        self.thumbnails = Thumbnails(self._pictured, wake)
        self.inbox: SimpleQueue[Callable[[], None]] = SimpleQueue()
        self.keys = Keys(self.board, self.inbox.put)
        self.runner: Runner | None = None
        self._arrivals = Arrivals(self._arrived, partial(self.later, quiet=True))
        self._clerk: ThreadPoolExecutor = ThreadPoolExecutor(1, thread_name_prefix="trellis-clerk")
        self._pending: set[Future[Any]] = set()
        self._opened: Future[None] | None = None
        self._config: Config | None = None  # that the runner has
        self._claimed: set[str] = set()
        self._looked = False
        self._outdated = False
        self._temporary: dict[str, Path] = {}
        self._orders: dict[str, Order] = {}  # those of jobs that have no row yet

    # -- The clerk's thread ----------------------------------------------------------------------

    def _open(self, config: Any) -> None:
        """In the clerk's thread: imports what the runner needs, starts it and reads the journal."""
        # Of these some are used later, on the main thread, for which their import takes too long
        import bpy.utils.previews  # noqa: F401

        from .. import api  # noqa: F401
        from ..generation.job import State
        from ..generation.runner import Runner
        from ..scene import append, assets, memory, recipe, retexture, worker  # noqa: F401

        runner = Runner(config)
        claimed = runner.resume()
        at_work = [job for job in claimed if job.state is not State.READY]
        self._claimed = {job.id for job in at_work}
        self.inbox.put(partial(self.board.load, at_work[::-1], runner.library.inputs))
        self.runner = runner  # from now on its events are taken, by then for jobs that are shown
        for job in claimed:
            if job.state is State.READY:
                self.inbox.put(partial(self._bring_home, job))
        self._count()
        self._read_page("", 0)

    def _read_page(self, search: str, offset: int) -> None:
        """In the clerk's thread: reads a page of the history, or the last one where there are fewer."""
        from ..generation.library import thumbnail

        runner = self._running()
        found, count = runner.journal.results(search, jobs.PAGE, offset)
        if offset and not found:
            offset = max(count - 1, 0) // jobs.PAGE * jobs.PAGE
            found, count = runner.journal.results(search, jobs.PAGE, offset)
        total = runner.journal.results("", 0, 0)[1] if search else count
        pictures = {job.id: thumbnail(Path(job.files[0])) for job in found}
        there = {job_id: str(path) for job_id, path in pictures.items() if path.is_file()}
        page = jobs.Page(search, offset, tuple(found), count, total, there)
        self.inbox.put(partial(self._turn, page))

    def _pictured(self, job_id: str, path: str) -> None:
        """In the thumbnails' thread: a model has its picture."""
        self.inbox.put(partial(self._show_thumbnail, job_id, path))

    def _hand_over(self, order: Order, job_id: str) -> None:
        """In the clerk's thread: writes what is no file yet, and gives the request to the runner."""
        import tempfile

        from ..generation.request import Request
        from .pictures import write

        runner = self._running()
        folder = Path(tempfile.mkdtemp(prefix="trellis-input-"))
        self._temporary[job_id] = folder
        images = [write(picture, folder, number) for number, picture in enumerate(order.pictures)]
        mesh = None
        if order.mesh:
            mesh = folder / "model.glb"
            mesh.write_bytes(order.mesh)
        request = Request(
            order.endpoint, images, order.parameters, order.wish, mesh, cut_out=order.cut_out
        )
        runner.submit(request, job_id)

    def _count(self) -> None:
        """In the clerk's thread: reads what was spent, and how long models took."""
        from ..generation.waits import learn

        journal = self._running().journal
        self.inbox.put(partial(self._show_spent, journal.spent(), learn(journal.timed())))

    def _try_key(self, service: str, config: Any) -> None:
        """In the clerk's thread: asks a service what it says of its key."""
        from ..services import check_key
        from .money import accepted

        try:
            words = accepted(check_key(service, config))
        except TrellisError as error:
            words = error.message
        self.inbox.put(partial(self._show_key, service, words))

    def _find_engines(self, home: Path) -> None:
        """In the clerk's thread: looks which engines are installed on this computer."""
        self.inbox.put(partial(self._show_engines, _not_installed(home)))

    def _fetch(self, job_id: str, then: Callable[[Job], None]) -> None:
        """In the clerk's thread: reads a job, and has `then` called with it by a tick."""
        job = self._running().journal.get(job_id)
        self.inbox.put(partial(then, job))

    def _delete(self, job_id: str) -> None:
        """In the clerk's thread: deletes a result and its files."""
        self._running().delete(job_id)
        self.inbox.put(partial(self.board.remove, job_id))
        self.inbox.put(self.look_up)

    def _shut(self) -> None:
        """In the clerk's thread: ends the runner."""
        if self.runner:
            self.runner.close()
            self.runner = None

    def _running(self) -> Runner:
        if self.runner is None:
            why = self._opened.exception() if self._opened else None
            raise why or TrellisError("Trellis has been switched off. Switch it on again.")
        return self.runner

    def later(
        self, work: Callable[[], Any], job_id: str | None = None, *, quiet: bool = False
    ) -> Future[Any]:
        """Have the clerk do something; what goes wrong is told at the job, or at the top of the panel.

        Not so where `quiet`: then the caller looks at the future itself.
        """
        future = self._clerk.submit(work)
        self._pending.add(future)
        future.add_done_callback(
            lambda done: self.inbox.put(partial(self._done, done, job_id, quiet))
        )
        wake()
        return future

    def _done(self, future: Future[Any], job_id: str | None, quiet: bool) -> None:
        self._pending.discard(future)
        error = future.exception()
        if error is None or quiet:
            return
        if not isinstance(error, TrellisError):
            _log().error("unforeseen", exc_info=error)
        message = getattr(error, "message", f"Something unforeseen happened: {error!r}.")
        if job_id is not None:
            self.board.fail(job_id, message)
            self._drop_temporary(job_id)
        else:
            self.board.fault, self.board.dirty = message, True

    # -- What is asked for -----------------------------------------------------------------------

    def start(self) -> bool:
        """Have a runner, a new one if nothing is at work and the preferences have changed; whether it is a new one.

        Raises:
            InputError: a base URL in the preferences is not one.
        """
        failed = self._opened and self._opened.done() and self._opened.exception()
        if failed or (self._is_outdated() and self._opened and not self.at_work):
            self.later(self._shut)
            self._opened = None
        if self._opened is not None:
            self._reconfigure()
            return False
        config = preferences.config()
        self._config, self._outdated, self.board.fault = config, False, ""
        self._opened = self.later(partial(self._open, config))
        return True

    def _is_outdated(self) -> bool:
        """Whether the runner began with other settings than those of this moment."""
        with contextlib.suppress(InputError):  # what is wrong now is told where somebody wants it
            return self._outdated or preferences.config() != self._config
        return False

    def _reconfigure(self) -> None:
        """Have the runner go on with the settings of this moment, but for the folders, though something is at work."""
        if self._opened and self._is_outdated():
            self._config = config = preferences.config()
            self.later(lambda: self._running().reconfigure(config), quiet=True)

    def submit(self, order: Order) -> str:
        """Start a job and return its id at once."""
        self.start()
        job_id = order.id or _new_id()
        first = order.pictures[0]
        picture = str(first) if isinstance(first, Path) else ""
        self.board.add(jobs.JobView(job_id, order.title, order.endpoint, picture=picture))
        placeholders.put(job_id, order.title, order.wish)
        self._orders[job_id] = order
        self.later(partial(self._hand_over, order, job_id), job_id)
        self._arrivals.expect()
        return job_id

    def repeat(self, job_id: str, title: str, endpoint: str, wish: dict[str, Any] | None) -> str:
        """Start the same as a job once more and return the new one's id at once; where `wish` is None with the old wish."""
        from .arrivals import stands_in

        self.start()
        again = _new_id()
        if wish and wish.get("row"):
            stands_in(again, job_id)
        old = self.board.views.get(job_id)
        self.board.add(jobs.JobView(again, title, endpoint, picture=old.picture if old else ""))
        if wish is not None:
            placeholders.put(again, title, wish)
        self.later(lambda: self._running().repeat(job_id, again, wish=wish), again)
        self._arrivals.expect()
        return again

    def repeat_now(self, job_id: str, wish: dict[str, Any] | None) -> Job:
        """The same, and wait for its end: for background mode.

        Raises:
            TrellisError: it did not end well.
        """
        self.job(job_id)
        runner = self._running()
        return runner.wait(runner.repeat(job_id, wish=wish))

    def retry(self, job_id: str) -> str:
        """Ask anew for what a failed job asked for, as a new job in its place; returns its id.

        Raises:
            InputError: nothing is known of it any more.
        """
        from .arrivals import stands_in

        view, order = self.board.views.get(job_id), self._orders.pop(job_id, None)
        if view is None or not (view.job or order):
            raise InputError("Nothing is known of this job any more. Generate the model again.")
        if order:  # it never got a row
            order = order._replace(id=_new_id())
            stands_in(order.id, job_id)
            again = self.submit(order)
        else:
            wish = view.job.wish if view.job else None
            again = self.repeat(job_id, view.title, view.endpoint, wish)
        self.board.remove(job_id)
        return again

    def look_up(self, search: str | None = None, offset: int | None = None) -> None:
        """Have a page of the history read: another one, or what has changed on the present one."""
        if search is not None and search != self.board.search:
            self.board.search, self.board.offset = search, 0
        if offset is not None:
            self.board.offset = max(offset, 0)
        self.start()
        self.later(partial(self._read_page, self.board.search, self.board.offset))

    def delete(self, job_id: str) -> Future[None]:
        """Delete a result and its files, where no other job has them."""
        self.start()
        return self.later(partial(self._delete, job_id))

    def export(self, job_id: str, output: Path) -> Future[None]:
        """Copy a result's models out; further ones get a number."""
        self.start()
        return self.later(partial(self._export, job_id, output))

    def _export(self, job_id: str, output: Path) -> None:
        """In the clerk's thread: copies."""
        from ..api import result_of, write_all

        write_all(result_of(self._running().journal.get(job_id)), output)

    def carry_out(self, order: Order) -> Job:
        """Start a job and wait for its end: for background mode, where no timer runs.

        Raises:
            TrellisError: it did not end well.
        """
        self.start()
        assert self._opened
        self._opened.result()
        job_id = order.id or _new_id()
        try:
            self._clerk.submit(self._hand_over, order, job_id).result()
            return self._running().wait(job_id)
        finally:
            self._drop_temporary(job_id)

    def resume(self, job_id: str) -> None:
        """Have a job that stopped go on; an uncertain one is asked for. Nothing is sent twice."""
        if self.start():  # a new runner takes up everything by itself
            self.board.take_up(job_id)
        else:
            self.go_on(job_id, partial(resume, job_id=job_id))

    def go_on(self, job_id: str, how: Callable[[Runner], Any]) -> None:
        """Have a job that stopped go on as `how` asks for it, in the clerk's thread."""
        self.board.take_up(job_id)
        self._reconfigure()
        self.later(lambda: how(self._running()), job_id)

    def carry_on(self, job_id: str, how: Callable[[Runner], Any]) -> Job:
        """The same, and wait for the job's end: for background mode.

        Raises:
            TrellisError: it did not end well.
        """
        self.start()
        assert self._opened
        self._opened.result()
        if job_id in self._claimed:  # opened now, the runner has taken it up by itself
            self._claimed.discard(job_id)
            with contextlib.suppress(TrellisError):
                return self._running().wait(job_id)
        how(self._running())
        return self._running().wait(job_id)

    def check_key(self, service: str) -> None:
        """Ask a service what it says of its key; the answer comes to the board.

        Raises:
            InputError: a base URL in the preferences is not one.
        """
        config = preferences.config()
        self.board.keys[service] = jobs.ASKING

        def ask() -> None:
            self._outdated = True  # the keychain may hold another one than the runner knows
            self.later(partial(self._try_key, service, config))

        if in_environment(service):
            ask()
        else:
            self.keys.look(service, ask, anew=True)

    def lacks_engine(self, endpoint: str) -> bool:
        """Whether its engine must be installed here first, as far as is known: the first question has the clerk look."""
        if endpoint not in _TO_INSTALL:
            return False
        if self.board.not_installed is None:
            self.look_for_engines()
        return endpoint in (self.board.not_installed or ())

    def look_for_engines(self) -> None:
        """Find out which engines are installed on this computer; to be called when one was installed or removed.

        Raises:
            InputError: a base URL in the preferences is not one.
        """
        self.board.not_installed = self.board.not_installed or frozenset()
        self.later(partial(self._find_engines, preferences.config().shared))

    def job(self, job_id: str) -> Job:
        """A job from the journal; the first time of all this waits until that is open.

        Raises:
            InputError: there is no such job.
        """
        self.start()
        assert self._opened
        self._opened.result()
        return self._running().journal.get(job_id)

    def find(self, job_id: str) -> Job | None:
        """A job from the journal, None where it is not in it, or where there is no journal."""
        if not self._looked:
            self._look()
        if self._opened is None:
            return None
        try:
            return self.job(job_id)
        except TrellisError:
            return None

    @property
    def inputs(self) -> Path | None:
        """The folder of the pictures that jobs were made of; None before the journal was opened."""
        return self.runner.library.inputs if self.runner else None

    def bring(self, job_id: str, wish: dict[str, Any]) -> None:
        """Import a result to where the wish says, without waiting."""
        self.start()
        self.board.set_importing(job_id, True)
        self.later(partial(self._fetch, job_id, partial(self._import, wish=wish)), job_id)

    def cancel(self, job_id: str) -> None:
        """Ask for a job's end."""
        self.later(lambda: self._running().cancel(job_id))

    def fulfil(self, job_id: str) -> None:
        """Note that the model stands where it was wanted."""
        self.later(lambda: self._note_fulfilled(job_id))

    def _note_fulfilled(self, job_id: str) -> None:
        self._running().journal.note(job_id, fulfilled=True)

    def forget(self, job_id: str) -> Future[None]:
        """Take an ended job out of the journal and the panel; its files stay."""
        self.start()
        self.board.remove(job_id)
        done = self.later(lambda: self._running().journal.forget(job_id))
        self.look_up()
        return done

    def dismiss(self, job_id: str) -> None:
        """Show a failed job no longer. An uncertain one leaves the journal too, or it would come back."""
        from ..generation.job import State

        view = self.board.views.get(job_id)
        self._orders.pop(job_id, None)
        if view is None:
            return
        if view.files:
            view.error, self.board.dirty = "", True
        elif view.state is State.UNCERTAIN:
            self.forget(job_id)
        else:
            if view.resumable and view.state is State.PREPARED and self.runner:
                self.runner.cancel(job_id)  # else the next start would send it
            self.board.remove(job_id)
        wake()

    def settled(self) -> None:
        """Wait until the clerk has nothing left to do: for background mode and the end."""
        for future in list(self._pending):
            future.exception()

    def reconfigure(self) -> None:
        """The preferences have changed: the next start takes them up, and no key is known to be good."""
        self._outdated = True
        self.board.keys.clear()

    def close(self) -> None:
        """End everything; what is unfinished goes on at the next start."""
        self._arrivals.close()
        self.thumbnails.close()
        self._clerk.submit(self._shut)
        self._clerk.shutdown(wait=True)
        for job_id in list(self._temporary):
            self._drop_temporary(job_id)
        self.previews.close()
        keychain.forget()

    # -- What happened ---------------------------------------------------------------------------

    @property
    def at_work(self) -> bool:
        """Whether a job is on its way."""
        return any(view.at_work for view in self.board.views.values())

    @property
    def busy(self) -> bool:
        """Whether ticks are needed."""
        wanted = (
            self.previews.wanted
            or self.previews.busy
            or self.thumbnails.busy
            or placeholders.outdated()
        )
        waiting = bool(self._pending) or self.keys.busy
        return waiting or self._arrivals.busy or wanted or self.at_work

    @property
    def _knows_all(self) -> bool:
        """Whether the board shows every job that is at work: the journal was read, or there is none."""
        return self._looked and (self._opened is None or self.runner is not None)

    def step(self) -> None:
        """Take what happened, for as long as the budget lasts."""
        until = time.perf_counter() + BUDGET
        if not self._looked:
            self._look()
        if self._config and self._config.offline == bpy.app.online_access:
            self._reconfigure()
        # Where another file was opened it is another one
        search = bpy.context.window_manager.trellis_search
        if self.runner and search != self.board.search:
            self.look_up(search=search)
        self._drain(self.inbox, lambda call: call(), until)
        if self.runner and self.inbox.empty():  # it may hold the jobs that the events are about
            self._drain(self.runner.events, self._take, until)
        self._arrivals.step()
        if self.previews.wanted and time.perf_counter() < until:
            self.board.dirty |= self.previews.load()
        if not self._arrivals.busy:
            self.thumbnails.step()
        if not self.at_work:
            self._arrivals.relax()
        if (self.board.dirty or placeholders.outdated()) and self._knows_all:
            placeholders.refresh(self.board.views)
        if self.board.dirty:
            self.board.dirty = False
            redraw()

    def _look(self) -> None:
        """At the first tick: where there is a journal, go on with what is unfinished and list what there is."""
        self._looked = True
        try:
            if (preferences.config().home / "journal.sqlite3").exists():
                self.start()
        except TrellisError as error:
            self.board.fault, self.board.dirty = error.message, True

    @staticmethod
    def _drain(source: SimpleQueue[Any], take: Callable[[Any], None], until: float) -> None:
        from queue import Empty

        while True:
            try:
                take(source.get_nowait())
            except Empty:
                return
            if time.perf_counter() >= until:
                return

    def _take(self, event: Event) -> None:
        from ..generation.job import ENDED, State

        self.board.take(event)
        if not event.error:
            self._orders.pop(event.job_id, None)  # it has a row
        view = self.board.views.get(event.job_id)
        if view and (view.job is None or event.error):
            self.later(partial(self._fetch, event.job_id, self._know), quiet=True)
        folder = self._temporary.pop(event.job_id, None)
        if folder:  # its pictures have been read, or never will be
            self.later(partial(_remove, folder))
        if event.state is State.READY:
            self.board.set_importing(event.job_id, True)
            self.later(partial(self._fetch, event.job_id, self._ready), event.job_id)
        if event.state in ENDED:
            self.later(self._count)
        if event.error and event.state is not State.CANCELLED and view:
            failed = event.state is State.FAILED
            words = tr("{name} failed") if failed else tr("{name} stopped on its way")
            notices.say(words.format(name=view.title), "ERROR")

    def _turn(self, page: jobs.Page) -> None:
        if self.runner:  # else it has been switched off meanwhile
            self.board.turn(page, self.runner.library.inputs)
            self.thumbnails.only({job.id for job in page.jobs})

    def _show_thumbnail(self, job_id: str, path: str) -> None:
        view = self.board.views.get(job_id)
        if view:
            view.thumbnail, self.board.dirty = path, True

    def _know(self, job: Job) -> None:
        assert self.runner
        self.board.know(job, self.runner.library.inputs)

    def _bring_home(self, job: Job) -> None:
        """A model that was made while nobody was here comes into the scene that asked for it, if that is open."""
        from .arrivals import find_scene

        if self.runner and find_scene(job.wish):
            self.board.load([job], self.runner.library.inputs)
            self.board.set_importing(job.id, True)
            self._import(job, wish=job.wish)

    def _ready(self, job: Job) -> None:
        self._know(job)
        self.look_up()
        if job.error:  # some of its models failed
            self.board.note(job.id, job.error["message"])
        if job.wish.get("scene") and not job.fulfilled:
            self._import(job, wish=job.wish)
        else:
            self.board.set_importing(job.id, False)
            self._say_ready(job.id)

    def _show_spent(self, spent: list[Spent], waits: dict[Kind, float]) -> None:
        self.board.spent, self.board.waits, self.board.dirty = spent, waits, True

    def _show_engines(self, not_installed: frozenset[str]) -> None:
        self.board.not_installed, self.board.dirty = not_installed, True

    def _show_key(self, service: str, words: str) -> None:
        if service in self.board.keys:  # else it was changed meanwhile
            self.board.keys[service] = words
            redraw_preferences()

    def _import(self, job: Job, wish: dict[str, Any]) -> None:
        self._arrivals.add(job, wish)

    def _arrived(self, job_id: str, placed: bool, error: str) -> None:
        self.board.set_importing(job_id, False)
        if error:
            self.board.fail(job_id, error)
            words = tr("{name} could not be imported")
            notices.say(words.format(name=self.board.title(job_id)), "ERROR")
        if placed:
            self.fulfil(job_id)
        if not error:
            self._say_ready(job_id)

    def _say_ready(self, job_id: str) -> None:
        notices.say(tr("{name} is ready").format(name=self.board.title(job_id)))

    def _drop_temporary(self, job_id: str) -> None:
        folder = self._temporary.pop(job_id, None)
        if folder:
            _remove(folder)


def resume(runner: Runner, job_id: str) -> None:
    """Have `runner` go on with a job.

    Raises:
        InputError: it has ended, or belongs to somebody else.
    """
    if not runner.resume(job_id):
        raise InputError(
            "This job cannot go on here: it has ended, or another Blender or command works on it."
        )


def _log() -> Any:
    import logging

    return logging.getLogger(__name__)


def _new_id() -> str:
    import uuid

    return str(uuid.uuid4())


def _not_installed(home: Path) -> frozenset[str]:
    """The endpoints whose engine lacks its Python, or weights."""
    from ..install import installer

    lacks = {_GENERATE: False, _RETEXTURE: True}
    return frozenset(
        name for name, retexture in lacks.items() if installer.lacking(home, retexture=retexture)
    )


def _remove(folder: Path) -> None:
    import shutil

    shutil.rmtree(folder, ignore_errors=True)


_pump: Pump | None = None


def get() -> Pump:
    """This Blender's pump, made at first use: what it imports would make enabling slow."""
    global _pump  # noqa: PLW0603  Blender's operators and panels have no other way to it
    _pump = _pump or Pump()
    return _pump


def wake(after: float = INTERVAL) -> None:
    """Have the timer run, until nothing is on the way."""
    if not bpy.app.timers.is_registered(tick):
        bpy.app.timers.register(tick, first_interval=after, persistent=True)


def tick() -> float | None:
    """What the timer calls: seconds to the next call, None when nothing is on the way. Never raises: that would end it."""
    pump = get()
    try:
        pump.step()
    except Exception:  # noqa: BLE001  one event that cannot be dealt with must not hold up the others
        _log().exception("the pump stumbled")
    return INTERVAL if pump.busy else None


def redraw() -> int:
    """Ask for a redraw of the sidebars that show the tab, and of nothing else; returns how many."""
    shown = 0
    for window in bpy.context.window_manager.windows:
        for area in window.screen.areas:
            if area.type == "VIEW_3D" and area.spaces.active.show_region_ui:
                for region in area.regions:
                    if region.type == "UI" and region.active_panel_category == TAB:
                        region.tag_redraw()
                        shown += 1
    return shown


def redraw_preferences() -> None:
    """Ask for a redraw of the preferences, wherever they are open."""
    for window in bpy.context.window_manager.windows:
        for area in window.screen.areas:
            if area.type == "PREFERENCES":
                area.tag_redraw()


def reconfigure() -> None:
    """The preferences have changed."""
    if _pump is not None:
        _pump.reconfigure()


def register() -> None:
    """Start the timer; being persistent, it also lives on when another file is opened."""
    wake(after=0.5)


def unregister() -> None:
    global _pump  # noqa: PLW0603
    if bpy.app.timers.is_registered(tick):
        bpy.app.timers.unregister(tick)
    if _pump is not None:
        _pump.close()
    _pump = None

# SPDX-License-Identifier: GPL-3.0-or-later
"""The timer by which Blender's main thread takes what happened elsewhere, and asks for a redraw of what changed.

The runner and everything that touches a disk live in other threads. The timer runs only while something is on the way; panels
read `board` alone.
"""

from __future__ import annotations

import logging
import time
from functools import partial
from typing import TYPE_CHECKING

import bpy

from .. import keychain
from . import jobs, placeholders, screen

if TYPE_CHECKING:
    from ..generation.job import Event, Job

log = logging.getLogger(__name__)

INTERVAL = 0.1  # seconds between two ticks while something is on the way
BUDGET = 0.001  # seconds after which a tick leaves the remaining events to the next one


class Pump:
    """Everything of this Blender that is on the way. All methods are the main thread's, except those that say otherwise."""

    def __init__(self) -> None:
        from .batches import Batches
        from .clerk import Clerk
        from .history import History
        from .keys import Keys
        from .previews import Previews
        from .session import Session
        from .work import Work

        self.board = jobs.Board()
        self.clerk = Clerk(self.board.fail, wake)
        self.session = Session(self.board, self.clerk, self._opened)
        self.history = History(self.board, self.clerk, self.session)
        self.work = Work(self.board, self.clerk, self.session, self.history)
        self.batches = Batches(self.board, self.clerk, self.session, self.work)
        self.keys = Keys(self.board, self.clerk, self.session.outdate)
        self.previews = Previews(wake, partial(self.clerk.later, quiet=True))

    def _opened(self, claimed: list[Job]) -> None:
        """In the clerk's thread: the runner has found these."""
        from ..generation.job import State

        for job in claimed:
            if job.state is State.READY:
                self.clerk.tell(partial(self.work.bring_home, job))
        self.history.count()
        self.history.read()

    @property
    def busy(self) -> bool:
        """Whether ticks are needed."""
        waiting = self.clerk.busy or self.keys.busy
        wanted = self.previews.wanted or self.previews.busy or self.history.thumbnails.busy
        at_work = self.work.importing or self.board.at_work
        return waiting or wanted or at_work or placeholders.outdated()

    def step(self) -> None:
        """Take what happened, for as long as the budget lasts."""
        from .clerk import drain

        until = time.perf_counter() + BUDGET
        self.session.look()
        self.session.follow_online()
        self.history.follow_search()
        all_taken = self.clerk.step(until)
        runner = self.session.runner
        if runner and all_taken:  # else a job that an event is about may not be shown yet
            drain(runner.events, self._take, until)
        self.work.step()
        if self.previews.wanted and time.perf_counter() < until:
            self.board.dirty |= self.previews.load()
        if not self.work.importing:
            self.history.thumbnails.step()
        if (self.board.dirty or placeholders.outdated()) and self.session.knows_all:
            placeholders.refresh(self.board.views)
        if self.board.dirty:
            self.board.dirty = False
            screen.redraw()

    def _take(self, event: Event) -> None:
        self.work.take(event)
        self.batches.take(event)

    def reconfigure(self) -> None:
        """The preferences have changed: the next start takes them up, and no key is known to be good."""
        self.session.outdate()
        self.keys.forget()

    def close(self) -> None:
        """End everything; what is unfinished goes on at the next start."""
        self.work.close()
        self.batches.close()
        self.history.thumbnails.close()
        self.clerk.close(self.session.shut)
        self.work.tidy_up()
        self.previews.close()
        keychain.forget()


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
    except Exception:  # one event that cannot be dealt with must not hold up the others
        log.exception("the pump stumbled")
    return INTERVAL if pump.busy else None


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

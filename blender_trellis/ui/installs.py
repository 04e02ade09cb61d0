# SPDX-License-Identifier: GPL-3.0-or-later
"""The local engine as panel and preferences show it, and the threads that look at it and install it: drawing reads memory, and
nothing waits but `look_at_once`.

It has a timer of its own, which runs while there is something on the way, so that the pump need not know of it.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import bpy

from ..errors import TrellisError
from . import preferences, screen

if TYPE_CHECKING:
    from pathlib import Path
    from queue import SimpleQueue

    from ..install import Report
    from ..install.installer import Plan, Status, Wish

INTERVAL = 0.2  # seconds between two ticks
# What does not come with the extension, and whether it needs the weights for retexturing
_RETEXTURES = {"local/trellis-2": False, "local/trellis-2/retexture": True}
_PATIENCE = 2.0  # seconds; starting a Python and looking for graphics cards takes a part of one


class Local:
    """What is installed, what is going on, and how the last thing ended. All methods are the main thread's."""

    def __init__(self) -> None:
        from queue import SimpleQueue

        self.status: Status | None = None  # None until it has been looked
        self.plan: Plan | None = None  # of a wish with all its defaults
        self.report: Report | None = None
        self.words = ""
        # The endpoints that lack their engine's Python, or weights; None until it has been looked
        self.lacking: frozenset[str] | None = None
        self._threads: list[threading.Thread] = []
        self._inbox: SimpleQueue[Callable[[], None]] = SimpleQueue()
        self._cancel = threading.Event()
        self._looked = False

    @property
    def at_work(self) -> bool:
        """Whether something is being installed or uninstalled."""
        return self.report is not None

    def look(self) -> None:
        """Find out what is installed, unless it is known or on its way."""
        if not self._looked:
            self._looked = True
            try:
                home = preferences.config().shared
            except TrellisError as error:
                self.words = error.message
                return
            self._start(partial(self._find_out, home), self._say_unless_said)

    def look_at_once(self) -> None:
        """The same, and wait for it: a dialog is drawn once, with what is known then."""
        self.look()
        deadline = time.monotonic() + _PATIENCE
        for thread in self._threads:
            thread.join(max(deadline - time.monotonic(), 0))
        self.step()

    def lacks(self, endpoint: str) -> bool:
        """Whether its engine must be installed here first, as far as is known: the first question has it looked.

        Raises:
            InputError: a base URL in the preferences is not one.
        """
        if endpoint not in _RETEXTURES:
            return False
        if self.lacking is None:
            self.look_for_engines()
        return endpoint in (self.lacking or ())

    def look_for_engines(self) -> None:
        """Find out which engines are there; to be called when one was installed or removed.

        Raises:
            InputError: a base URL in the preferences is not one.
        """
        home = preferences.config().shared
        self.lacking = self.lacking or frozenset()
        self._start(partial(self._find_engines, home), self._say_unless_said)

    def install(self, wish: Wish) -> None:
        """Begin an installation.

        Raises:
            TrellisError: a base URL in the preferences is not one.
        """
        self._begin("Beginning", partial(self._install, preferences.config().shared, wish))

    def uninstall(self, only: str) -> None:
        """Begin to delete what was installed.

        Raises:
            TrellisError: a base URL in the preferences is not one.
        """
        self._begin("Uninstalling", partial(self._uninstall, preferences.config().shared, only))

    def unload(self) -> None:
        """Have the engine give back the memory that it holds.

        Raises:
            TrellisError: a base URL in the preferences is not one.
        """
        self._start(partial(self._unload, preferences.config().shared), self._say)

    def cancel(self) -> None:
        """End the installation; what has come stays for the next one."""
        self._cancel.set()

    def close(self) -> None:
        """End everything, and wait for it."""
        self._cancel.set()
        for thread in self._threads:
            thread.join()
        if bpy.app.timers.is_registered(tick):
            bpy.app.timers.unregister(tick)

    # -- Other threads: each returns what is to be said ------------------------------------------

    def _find_out(self, home: Path) -> str:
        from ..install import installer

        status = installer.status(home)
        try:
            plan, words = installer.plan(home, installer.Wish(only=installer.ENVIRONMENT)), ""
        except TrellisError as error:
            plan, words = None, error.message
        self._inbox.put(partial(self._know, status, plan))
        return words

    def _find_engines(self, home: Path) -> str:
        from ..install import installer

        lacking = frozenset(
            endpoint
            for endpoint, retexture in _RETEXTURES.items()
            if installer.lacking(home, retexture=retexture)
        )
        self._inbox.put(partial(self._know_lacking, lacking))
        return ""

    def _install(self, home: Path, wish: Wish) -> str:
        from .. import api

        last: list[Report] = []

        def tell(report: Report) -> None:
            if not last or report != last[-1]:
                last[:] = [report]
                self._inbox.put(partial(self._show, report))

        made = api.install_local(wish, on_report=tell, cancelled=self._cancel.is_set, home=home)
        return "\n".join(["TRELLIS.2 is installed.", *made.lost])

    def _uninstall(self, home: Path, only: str) -> str:
        from .. import api

        return "Uninstalled." if api.uninstall_local(only, home=home) else "Nothing was installed."

    def _unload(self, home: Path) -> str:
        from ..services import sidecar

        return "Unloaded." if sidecar.unload(home) else "No model is loaded, or it is at work."

    def _carry_out(self, work: Callable[[], str], then: Callable[[str], None]) -> None:
        try:
            words = work()
        except TrellisError as error:
            words = error.message
        except Exception as error:  # noqa: BLE001  else the section would say forever that it is at work
            _log().exception("unforeseen")
            words = f"Something unforeseen happened: {error!r}."
        self._inbox.put(partial(then, words))

    # -- The main thread -------------------------------------------------------------------------

    def _begin(self, title: str, work: Callable[[], str]) -> None:
        from ..install import Report

        if self.at_work:
            raise TrellisError("TRELLIS.2 is being installed or uninstalled already.")
        self._cancel.clear()
        self.report, self.words = Report("", 0, 0, title), ""
        self._start(work, self._end)

    def _start(self, work: Callable[[], str], then: Callable[[str], None]) -> None:
        """Have something done in a thread of its own, and a tick call `then` with what is to be said of it."""
        self._threads = [thread for thread in self._threads if thread.is_alive()]
        carry_out = partial(self._carry_out, work, then)
        thread = threading.Thread(target=carry_out, name="trellis-install", daemon=True)
        self._threads.append(thread)
        thread.start()
        if not bpy.app.timers.is_registered(tick):
            bpy.app.timers.register(tick, first_interval=INTERVAL, persistent=True)

    def _show(self, report: Report) -> None:
        self.report = report

    def _say(self, words: str) -> None:
        self.words = words

    def _say_unless_said(self, words: str) -> None:
        self.words = self.words or words

    def _end(self, words: str) -> None:
        self.report, self.words = None, words
        self._looked = False
        self.look()
        with contextlib.suppress(TrellisError):  # a base URL in the preferences; the panel says so
            self.look_for_engines()

    def _know(self, status: Status, plan: Plan | None) -> None:
        self.status, self.plan = status, plan

    def _know_lacking(self, lacking: frozenset[str]) -> None:
        self.lacking = lacking

    def step(self) -> bool:
        """Take what the threads have found; whether there may be more to come."""
        from queue import Empty

        alive = any(thread.is_alive() for thread in self._threads)
        changed = False
        while True:
            try:
                self._inbox.get_nowait()()
                changed = True
            except Empty:
                break
        if changed:
            screen.redraw_preferences()
            screen.redraw()
        return alive or any(thread.is_alive() for thread in self._threads)


def _log() -> Any:
    import logging

    return logging.getLogger(__name__)


_local: Local | None = None


def get() -> Local:
    """This Blender's view of the local engine."""
    global _local  # noqa: PLW0603  Blender's operators and panels have no other way to it
    _local = _local or Local()
    return _local


def tick() -> float | None:
    """What the timer calls: seconds to the next call, None when nothing is on the way."""
    return INTERVAL if get().step() else None


def unregister() -> None:
    """End what is on the way; what has come stays."""
    global _local  # noqa: PLW0603
    if _local is not None:
        _local.close()
    _local = None

# SPDX-License-Identifier: GPL-3.0-or-later
"""The runner and the journal of this Blender: opened with the settings of the preferences, given new ones, and closed."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import bpy

from ..errors import InputError, TrellisError
from . import preferences

if TYPE_CHECKING:
    from concurrent.futures import Future

    from ..config import Config
    from ..generation.job import Job
    from ..generation.runner import Runner
    from .clerk import Clerk
    from .jobs import Board


class Session:
    """All methods are the main thread's, except those that say otherwise.

    `runner` is None until it is open. `claimed` are the jobs that it found and took up. `opened` is called with them, and with
    those that nobody has taken yet, in the clerk's thread.
    """

    def __init__(self, board: Board, clerk: Clerk, opened: Callable[[list[Job]], None]) -> None:
        self.runner: Runner | None = None
        self.claimed: set[str] = set()
        self._board = board
        self._clerk = clerk
        self._when_open = opened
        self._opening: Future[None] | None = None
        self._config: Config | None = None  # that the runner has
        self._looked = False
        self._outdated = False

    def start(self) -> bool:
        """Have a runner, a new one if nothing is at work and the preferences have changed; whether it is a new one.

        Raises:
            InputError: a base URL in the preferences is not one.
        """
        failed = self._opening and self._opening.done() and self._opening.exception()
        if failed or (self._is_outdated() and self._opening and not self._board.at_work):
            self._clerk.later(self.shut)
            self._opening = None
        if self._opening is not None:
            self.reconfigure()
            return False
        config = preferences.config()
        self._config, self._outdated, self._board.fault = config, False, ""
        self._opening = self._clerk.later(partial(self._open, config))
        return True

    def _open(self, config: Config) -> None:
        """In the clerk's thread: imports what the runner needs, starts it and reads the journal."""
        # Of these some are used later, on the main thread, for which their import takes too long
        import bpy.utils.previews  # noqa: F401

        from .. import api  # noqa: F401
        from ..generation.job import State
        from ..generation.runner import Runner
        from ..scene import append, assets, memory, recipe, retexture, worker  # noqa: F401

        runner = Runner(config)
        try:
            claimed = runner.resume()
        except BaseException:
            runner.close()  # else nobody could take up what it has claimed
            raise
        at_work = [job for job in claimed if job.state is not State.READY]
        self.claimed = {job.id for job in at_work}
        self._clerk.tell(partial(self._board.load, at_work[::-1], runner.library.inputs))
        self.runner = runner  # from now on its events are taken, by then for jobs that are shown
        self._when_open(claimed)

    def look(self) -> None:
        """At the first tick: open the journal where there is one, to go on with what is unfinished and list what there is."""
        if self._looked:
            return
        self._looked = True
        try:
            if (preferences.config().home / "journal.sqlite3").exists():
                self.start()
        except TrellisError as error:
            self._board.fail(None, error.message)

    @property
    def knows_all(self) -> bool:
        """Whether the board shows every job that is at work: the journal was read, or there is none."""
        return self._looked and (self._opening is None or self.runner is not None)

    def outdate(self) -> None:
        """The preferences, or the key that is used, may have changed: the next start takes them up."""
        self._outdated = True

    def _is_outdated(self) -> bool:
        """Whether the runner began with other settings than those of this moment."""
        with contextlib.suppress(InputError):  # it is told where somebody wants something
            return self._outdated or preferences.config() != self._config
        return False

    def reconfigure(self) -> None:
        """Have the runner go on with the settings of this moment, but for the folders, though something is at work.

        Raises:
            InputError: a base URL in the preferences is not one.
        """
        if self._opening and self._is_outdated():
            self._config = config = preferences.config()
            self._clerk.later(lambda: self.running().reconfigure(config), quiet=True)

    def follow_online(self) -> None:
        """Tell the runner when Blender may go online, or may no longer."""
        if self._config and self._config.offline == bpy.app.online_access:
            with contextlib.suppress(InputError):  # it is told where somebody wants something
                self.reconfigure()

    def running(self) -> Runner:
        """In the clerk's thread, or when it is known to be open: the runner.

        Raises:
            TrellisError: it could not be opened, or is closed.
        """
        if self.runner is None:
            why = self._opening.exception() if self._opening else None
            raise why or TrellisError("Trellis has been switched off. Switch it on again.")
        return self.runner

    def wait(self) -> Runner:
        """The runner; the first time of all this waits until it is open.

        Raises:
            TrellisError: it cannot be opened.
        """
        self.start()
        assert self._opening
        self._opening.result()
        return self.running()

    def job(self, job_id: str) -> Job:
        """A job from the journal, waiting as `wait` does.

        Raises:
            InputError: there is no such job.
        """
        return self.wait().journal.get(job_id)

    def find(self, job_id: str) -> Job | None:
        """A job from the journal, None where it is not in it, or where there is no journal."""
        self.look()
        if self._opening is None:
            return None
        try:
            return self.job(job_id)
        except TrellisError:
            return None

    @property
    def inputs(self) -> Path | None:
        """The folder of the pictures that jobs were made of; None before the journal was opened."""
        return self.runner.library.inputs if self.runner else None

    def shut(self) -> None:
        """In the clerk's thread: ends the runner."""
        if self.runner:
            self.runner.close()
            self.runner = None

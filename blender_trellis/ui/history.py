# SPDX-License-Identifier: GPL-3.0-or-later
"""What was made and what was spent, as the journal tells it: a page of results at a time, their models' pictures, and what can
be done with a result's row and files."""

from __future__ import annotations

import contextlib
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import bpy

from . import jobs
from .thumbnails import Thumbnails

if TYPE_CHECKING:
    from concurrent.futures import Future

    from ..generation.journal import Spent
    from ..generation.waits import Kind
    from .clerk import Clerk
    from .session import Session


class History:
    """All methods are the main thread's, except those that say otherwise."""

    def __init__(self, board: jobs.Board, clerk: Clerk, session: Session) -> None:
        self.thumbnails = Thumbnails(self._pictured, clerk.wake)
        self._board = board
        self._clerk = clerk
        self._session = session

    def look_up(self, search: str | None = None, offset: int | None = None) -> None:
        """Have a page read: another one, or what has changed on the present one. Where the journal is open that never fails."""
        if search is not None and search != self._board.search:
            self._board.search, self._board.offset = search, 0
        if offset is not None:
            self._board.offset = max(offset, 0)
        if self._session.runner is None:
            self._session.start()
        self._clerk.later(partial(self.read, self._board.search, self._board.offset))

    def follow_search(self) -> None:
        """Read another page where the search is another one, because another file was opened."""
        search = bpy.context.window_manager.trellis_search
        if self._session.runner and search != self._board.search:
            self.look_up(search=search)

    def read(self, search: str = "", offset: int = 0) -> None:
        """In the clerk's thread: reads a page, or the last one where there are fewer."""
        from ..generation.library import thumbnail

        journal = self._session.running().journal
        found, count = journal.results(search, jobs.PAGE, offset)
        if offset and not found:
            offset = max(count - 1, 0) // jobs.PAGE * jobs.PAGE
            found, count = journal.results(search, jobs.PAGE, offset)
        total = journal.results("", 0, 0)[1] if search else count
        pictures = {job.id: thumbnail(Path(job.files[0])) for job in found}
        there = {job_id: str(path) for job_id, path in pictures.items() if path.is_file()}
        page = jobs.Page(search, offset, tuple(found), count, total, there)
        self._clerk.tell(partial(self._turn, page))

    def _turn(self, page: jobs.Page) -> None:
        if self._session.inputs:  # else it has been switched off meanwhile
            self._board.turn(page, self._session.inputs)
            self.thumbnails.only({job.id for job in page.jobs})

    def _pictured(self, job_id: str, path: str) -> None:
        """In the thumbnails' thread: a model has its picture."""
        self._clerk.tell(partial(self._board.pictured, job_id, path))

    def count(self) -> None:
        """In the clerk's thread: reads what was spent, and how long models took."""
        from ..generation.waits import learn

        journal = self._session.running().journal
        self._clerk.tell(partial(self._show_spent, journal.spent(), learn(journal.timed())))

    def _show_spent(self, spent: list[Spent], waits: dict[Kind, float]) -> None:
        self._board.spent, self._board.waits, self._board.dirty = spent, waits, True

    def export(self, job_id: str, output: Path) -> Future[None]:
        """Copy a result's models out; further ones get a number."""
        self._session.start()
        return self._clerk.later(partial(self._export, job_id, output))

    def _export(self, job_id: str, output: Path) -> None:
        """In the clerk's thread: copies."""
        from ..api import result_of, write_all

        write_all(result_of(self._session.running().journal.get(job_id)), output)

    def forget(self, job_id: str) -> Future[None]:
        """Take an ended job out of the journal and the panel; its files stay."""
        self._session.start()
        self._board.remove(job_id)
        done = self._clerk.later(lambda: self._session.running().journal.forget(job_id))
        self.look_up()
        return done

    def delete(self, job_id: str) -> Future[None]:
        """Delete a result and its files, where no other job has them."""
        self._session.start()
        return self._clerk.later(partial(self._delete, job_id))

    def _delete(self, job_id: str) -> None:
        """In the clerk's thread: deletes, a batch's copy too."""
        from ..generation.library import numbered

        runner = self._session.running()
        job = runner.journal.get(job_id)
        runner.delete(job_id)
        if "batch" in job.wish:
            for number in range(len(job.files)):
                with contextlib.suppress(OSError):  # somebody has it open, or took it away
                    numbered(Path(job.wish["output"]), number).unlink()
        self._clerk.tell(partial(self._board.remove, job_id))
        self._clerk.tell(self.look_up)

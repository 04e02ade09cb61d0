# SPDX-License-Identifier: GPL-3.0-or-later
"""Whose turn it is: at most so many jobs are at one service at once, and the others come in the order they were asked for."""

from __future__ import annotations

import asyncio
import bisect
import contextlib
from collections.abc import Callable

_GLANCE = 2.0  # seconds between two looks while nothing moves


class Turns:
    """The turns at one service, of which `limit` jobs may have one at once. All methods belong to the runner's loop."""

    def __init__(self, limit: float) -> None:
        self._limit = limit
        self._inside: set[str] = set()
        self._line: list[tuple[float, str]] = []
        self._dispersed = 0
        self._moved = asyncio.Event()

    async def wait(self, job_id: str, asked: float, look: Callable[[int], None]) -> bool:
        """Come back when it is the job's turn, or with False when the line was dispersed. `asked` is when it was asked for, and
        so its place in the line.

        `look` is called with how many come first, whenever that may have changed and now and then; what it raises ends the
        waiting.
        """
        place, dispersed = (asked, job_id), self._dispersed
        bisect.insort(self._line, place)
        try:
            while (ahead := len(self._inside) + self._line.index(place)) >= self._limit:
                look(ahead)
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._moved.wait(), _GLANCE)
                if self._dispersed != dispersed:
                    return False
        finally:
            self._line.remove(place)
        self._inside.add(job_id)
        return True

    def disperse(self) -> None:
        """The service cannot be reached: those in the line need not try one after the other."""
        self._dispersed += 1

    def enter(self, job_id: str) -> None:
        """A job that is there already, whatever the limit."""
        self._inside.add(job_id)

    def leave(self, job_id: str) -> None:
        """The service has done with the job, or nobody waits for it: those in the line move up."""
        self._inside.discard(job_id)
        self._move_up()

    def allow(self, limit: float) -> None:
        """So many may have a turn at once from now on."""
        self._limit = limit
        self._move_up()

    def _move_up(self) -> None:
        self._moved.set()
        self._moved = asyncio.Event()

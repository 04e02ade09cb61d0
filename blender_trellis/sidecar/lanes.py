# SPDX-License-Identifier: GPL-3.0-or-later
"""The jobs of one environment on their way to its places, and whose turn it is."""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from collections.abc import Iterable

from .executors import Place
from .store import Job

IDLE_SECONDS = 60  # then a GPU's memory is given back, to Blender's own rendering for one


class Lane:
    """Clients by turns, and first come, first served among the jobs of one: a hundred of one's jobs are no wait for another's."""

    def __init__(self) -> None:
        self.changed = asyncio.Event()
        self.places: list[Place] = []
        self._turns = itertools.count(1)
        self._last: dict[str, int] = {}

    def order(self, waiting: Iterable[Job]) -> list[Job]:
        """Jobs, given as they came, as they will be taken."""
        ahead: Counter[str] = Counter()
        ranks = {}
        for job in waiting:
            ranks[job.id] = (ahead[job.client], self._last.get(job.client, 0)), job
            ahead[job.client] += 1
        return [job for _, job in sorted(ranks.values(), key=lambda ranked: ranked[0])]

    def take(self, waiting: Iterable[Job]) -> Job | None:
        """The next job, whose client has had its turn with that; None if none waits."""
        job = next(iter(self.order(waiting)), None)
        if job:
            self._last[job.client] = next(self._turns)
        return job

    async def wait(self, place: Place) -> None:
        """Until an idle place may find something new, or is to be looked at; one that does not stay ends when that takes long."""
        try:
            await asyncio.wait_for(self.changed.wait(), IDLE_SECONDS)
        except TimeoutError:
            if place.is_there and not place.stays:
                await place.stop()

# SPDX-License-Identifier: GPL-3.0-or-later
"""Background mode, where no timer runs: what a window does in the course of ticks, done at once. Everything here waits."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import bpy

from ..errors import TrellisError
from ..scene.fonts import more_letters
from ..scene.recipe import read
from . import pump
from .arrivals import place
from .batches import Course
from .wishes import find_scene, joins, manner_of, wish_of

if TYPE_CHECKING:
    from ..generation.job import Job
    from ..generation.runner import Runner
    from .orders import BatchOrder, Order


def generate(order: Order, scene: bpy.types.Scene) -> None:
    """Have a model made and import it.

    Raises:
        TrellisError: it did not end well.
    """
    runner = pump.get().session.wait()
    with tempfile.TemporaryDirectory(prefix="trellis-input-", ignore_cleanup_errors=True) as folder:
        job = runner.wait(runner.submit(order.request(Path(folder)), order.id or None))
    _import(job, scene, order.wish)


class _AtOnce(Course):
    """The batch of background mode: each model is imported as soon as it is there."""

    def __init__(self, order: BatchOrder, scene: bpy.types.Scene) -> None:
        super().__init__(order)
        self._scene = scene
        self.error: TrellisError | None = None  # the first one

    def told(self, error: TrellisError) -> None:
        self.error = self.error or error

    def ready(self, job_ids: list[str], *, sent: bool) -> None:
        there = {made.job_id for obj in self._scene.objects if (made := read(obj))}
        for job_id in job_ids:
            try:
                if sent or job_id not in there:
                    bring(job_id, self.order.wish, self._scene)
            except TrellisError as error:
                self.told(error)


def batch(order: BatchOrder, scene: bpy.types.Scene) -> None:
    """Carry a batch through, and import all its models.

    Raises:
        TrellisError: not all of them could be made.
    """
    course = _AtOnce(order, scene)
    course.run(pump.get().session.wait(), more_letters())
    if course.error:
        raise course.error


def repeat(job_id: str, wish: dict[str, Any] | None, scene: bpy.types.Scene) -> None:
    """Have the same made as by a job once more and import it; where `wish` is None with the old wish.

    Raises:
        TrellisError: there is no such job, or the new one did not end well.
    """
    session = pump.get().session
    session.job(job_id)
    runner = session.running()
    job = runner.wait(runner.repeat(job_id, wish=wish))
    _import(job, scene, job.wish)


def go_on(job_id: str, how: Callable[[Runner], Any], scene: bpy.types.Scene) -> None:
    """Have a job that stopped go on as `how` asks for it, and import its model: to where it was wanted, else into `scene`.

    Raises:
        TrellisError: it did not end well.
    """
    session = pump.get().session
    runner = session.wait()
    job: Job | None = None
    if job_id in session.claimed:  # opened now, the runner has taken it up by itself
        session.claimed.discard(job_id)
        with contextlib.suppress(TrellisError):
            job = runner.wait(job_id)
    if job is None:
        how(runner)
        job = runner.wait(job_id)
    asked = find_scene(job.wish)
    _import(job, asked or scene, job.wish if asked else wish_of(scene))


def bring(job_id: str, wish: dict[str, Any], scene: bpy.types.Scene) -> None:
    """Import a result to where the wish says.

    Raises:
        TrellisError: there is none, or it cannot be imported.
    """
    _import(pump.get().session.job(job_id), scene, wish)


def _import(job: Job, scene: bpy.types.Scene, wish: dict[str, Any]) -> None:
    """Put a job's models where the wish says, as `Arrivals` does."""
    from ..api import recipe_of, result_of
    from ..scene.worker import ImportWorker

    location = wish["location"]
    joins(job.id, wish)
    for number, path in enumerate(job.files):
        with ImportWorker() as worker:
            worker.request(
                Path(path),
                recipe_of(result_of(job), number),
                name=job.title,
                **manner_of(wish, scene),
            )
            location = place(worker.wait(), scene, wish, location)
    pump.get().work.fulfil(job.id)
    pump.get().clerk.settle()

# SPDX-License-Identifier: GPL-3.0-or-later
"""Results on their way into a scene: the second Blender is started early, asked when a result is there, and what it made is
appended to the scene that wanted it, as one undo step, at a moment when that disturbs nothing."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import bpy

from ..errors import ResultError, TrellisError
from . import placeholders, screen
from .wishes import find_object, find_scene, joins, manner_of, stands_in_row

if TYPE_CHECKING:
    from concurrent.futures import Future

    from ..generation.job import Job
    from ..scene.worker import ImportWorker, Prepared


@dataclass
class _Arrival:
    """A job's files on their way, one after the other: `number` is the one at hand, and is to stand at `location`.

    Whether one is `settled`, and the first `error`: one that cannot be imported does not keep the others away.
    """

    job: Job
    wish: dict[str, Any]
    location: Sequence[float]
    number: int = 0
    settled: bool = False
    error: str = ""
    worker: Future[ImportWorker] | None = None
    asked: Future[None] | None = None
    room: Future[list[Any]] | None = None  # memory for it
    since: float = 0.0  # when it was ready to be appended


class Arrivals:
    """All imports of this Blender, one at a time.

    `done(job_id, settled, error)` is called once a job's files are in the scene, or cannot be: settled where one stands there, or
    its file is to blame, so that it need not be tried again by itself. `later` runs what takes time elsewhere.
    """

    def __init__(
        self,
        done: Callable[[str, bool, str], None],
        later: Callable[[Callable[[], Any]], Future[Any]],
    ) -> None:
        self._done = done
        self._later = later
        self._queue: deque[_Arrival] = deque()
        self._spare: Future[ImportWorker] | None = None

    @property
    def busy(self) -> bool:
        """Whether `step` has something to do."""
        return bool(self._queue)

    def expect(self) -> None:
        """A result will come: have a second Blender ready for it."""
        if self._spare is None:
            self._spare = self._later(partial(_start, bpy.app.binary_path))

    def relax(self) -> None:
        """No result is expected any more."""
        if self._spare is not None and not self._queue:
            self._later(partial(_stop, self._spare))
            self._spare = None

    def add(self, job: Job, wish: dict[str, Any]) -> None:
        """Bring the job's files to where the wish says."""
        joins(job.id, wish)
        self._queue.append(_Arrival(job, wish, wish["location"]))

    def step(self) -> None:
        """Go on with the import at hand; never waits."""
        if not self._queue:
            return
        now = self._queue[0]
        try:
            placed = self._advance(now)
        except TrellisError as error:
            self._end(now, isinstance(error, ResultError), error.message)
        except Exception as error:
            self._end(now, False, f"Something unforeseen happened: {error!r}.")
            raise
        else:
            if placed is not None:
                self._end(now, placed, "")

    def _advance(self, now: _Arrival) -> bool | None:
        """Whether the model stands in its scene now; None while it is on the way."""
        scene = find_scene(now.wish)
        if scene is None:
            return False
        prepared = self._prepared(now, scene)
        if prepared is None:
            return None
        target = find_object(now.wish, scene)
        if target and target.mode != "OBJECT":  # it is being edited: others come first
            self._queue.rotate(-1)
            return None
        now.since = now.since or time.monotonic()
        waited = time.monotonic() - now.since
        if not screen.undisturbed(waited) or not self._has_room(now, prepared):
            return None
        first = now.number == 0
        now.location = place(prepared, scene, now.wish, now.location, now.job.id if first else None)
        return True

    def _prepared(self, now: _Arrival, scene: bpy.types.Scene) -> Prepared | None:
        """What the second Blender made of the file at hand; None until it has."""
        if now.worker is None:
            self.expect()
            now.worker, self._spare = self._spare, None
        assert now.worker
        now.asked = now.asked or self._ask(now, scene)
        if not now.asked.done():
            return None
        now.asked.result()
        return now.worker.result().poll()

    def _has_room(self, now: _Arrival, prepared: Prepared) -> bool:
        """Whether memory was made ready for the model, which is free for it from now on."""
        from ..scene.memory import make_ready

        if not prepared.blocks:
            return True
        now.room = now.room or self._later(partial(make_ready, prepared.blocks))
        if now.room.done() and not now.room.exception():
            now.room.result().clear()
        return now.room.done()

    def _ask(self, now: _Arrival, scene: bpy.types.Scene) -> Future[None]:
        from ..api import recipe_of, result_of

        assert now.worker
        return self._later(
            partial(
                _request,
                now.worker,
                Path(now.job.files[now.number]),
                recipe_of(result_of(now.job), now.number),
                name=now.job.title,
                **manner_of(now.wish, scene),
            )
        )

    def _end(self, now: _Arrival, settled: bool, error: str) -> None:
        """The file at hand is dealt with: on to the job's next one, unless its scene is not here."""
        if now.worker:
            self._later(partial(_stop, now.worker))
        now.worker, now.asked, now.room, now.since = None, None, None, 0.0
        now.settled, now.error = now.settled or settled, now.error or error
        now.number += 1
        if now.number == len(now.job.files) or not (settled or error):
            self._queue.popleft()
            self._done(now.job.id, now.settled, now.error)

    def close(self) -> None:
        """End every second Blender."""
        for worker in (self._spare, *(arrival.worker for arrival in self._queue)):
            if worker:
                _stop(worker)
        self._queue.clear()
        self._spare = None


def _start(binary: str) -> ImportWorker:
    """In the clerk's thread: starting a process takes longer than a tick may."""
    from ..scene.worker import ImportWorker

    return ImportWorker(binary)


def _request(worker: Future[ImportWorker], glb: Path, recipe: Any, **more: Any) -> None:
    """In the clerk's thread: so may writing to one."""
    if not glb.is_file():
        raise TrellisError(f"{glb} is gone. Generate the model again.")
    worker.result().request(glb, recipe, **more)


def _stop(worker: Future[ImportWorker]) -> None:
    """In the clerk's thread: so does ending one."""
    if worker.exception() is None:
        worker.result().close()


def place(
    prepared: Prepared,
    scene: bpy.types.Scene,
    wish: dict[str, Any],
    location: Sequence[float],
    job_id: str | None = None,
) -> Sequence[float]:
    """Bring a model into `scene` as one undo step: as the mesh of the object that it was wished for, or else at `location`, or
    beside those of its row that stand there.

    It takes the place of the placeholder of job `job_id`, or of its row, where there is one, and its rotation and scale.
    Returns where a further one stands.
    """
    from ..scene.append import append, beside
    from ..scene.retexture import put_back

    windows = bpy.context.window_manager.windows
    layer = next((each.view_layer for each in windows if each.scene == scene), None)
    target = find_object(wish, scene)
    neighbour = _in_row(scene, wish)
    objects = append(
        prepared.blend,
        scene=scene,
        location=neighbour or location,
        view_layer=layer,
        select=target is None,
    )
    if job_id:
        stood = placeholders.take(scene, {job_id, *wish.get("row", ())})
        if stood and not neighbour:
            objects[0].matrix_basis = stood
    further = beside(objects)[:]
    if target:
        put_back(objects, target, wish["object"]["sent"])
    push_undo()
    return further


def _in_row(scene: bpy.types.Scene, wish: dict[str, Any]) -> Sequence[float] | None:
    """Where the next of several variations stands, whose jobs end in any order: beside the last one; None for the first."""
    from ..scene.append import beside
    from ..scene.recipe import read

    if not wish.keys() & {"row", "in_batch"}:
        return None
    made = [(obj, read(obj)) for obj in scene.objects]
    models = [obj for obj, how in made if how and stands_in_row(how.job_id, wish)]
    last = max(models, key=lambda obj: obj.location.x, default=None)
    return beside([last, *last.children_recursive])[:] if last else None


def push_undo() -> None:
    """Make what happened since the last step one undo step; a timer has none of its own.

    Not by `ed.undo_push`: that needs a window, which a timer has only under `temp_override`; and an operator under such an
    override reads Python's data without the GIL if another thread has it at that moment (`PyC_IsInterpreterActive`, with
    Python 3.11 and older), and Blender crashes.
    """
    bpy.ops.trellis.undo_step("EXEC_DEFAULT", True)

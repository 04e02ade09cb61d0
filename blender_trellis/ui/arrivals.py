# SPDX-License-Identifier: GPL-3.0-or-later
"""Results on their way into a scene: the second Blender is started early, asked when a result is there, and what it made is
appended to the scene that wanted it, as one undo step, at a moment when that disturbs nothing."""

from __future__ import annotations

import time
import uuid
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import bpy

from ..errors import TrellisError

if TYPE_CHECKING:
    from concurrent.futures import Future

    from ..generation.job import Job
    from ..scene.worker import ImportWorker, Prepared

# An add-on's modal operator may run for the whole session, so it is not waited for any longer. Blender's own always is.
PATIENCE = 15.0  # seconds

_asked: dict[
    str, int
] = {}  # scene id → session_uid: exact within a session, and survives an undo past the moment of asking


def wish_of(scene: bpy.types.Scene) -> dict[str, Any]:
    """What is wanted with a result: to stand in `scene`, at the 3D cursor, `height` metres tall (None: as made)."""
    settings = scene.trellis
    if not settings.id:
        settings.id = str(uuid.uuid4())
    _asked[settings.id] = scene.session_uid
    height = settings.height * scene.unit_settings.scale_length
    return {
        "scene": settings.id,
        "location": scene.cursor.location[:],
        "height": height or None,
    }


def find_scene(wish: dict[str, Any]) -> bpy.types.Scene | None:
    """The scene that asked: itself, or its copy in this file, the one that is looked at first; None if it is not here."""
    wanted, uid = wish.get("scene"), _asked.get(wish.get("scene", ""))
    local = [scene for scene in bpy.data.scenes if not scene.library]
    for scene in local:
        if scene.session_uid == uid:
            return scene
    same = [scene for scene in local if wanted and scene.trellis.id == wanted]
    shown = [window.scene for window in bpy.context.window_manager.windows]
    return next((scene for scene in same if scene in shown), same[0] if same else None)


def undisturbed(waited: float) -> bool:
    """Whether something may be added to the file now: no render reads it, and nobody is in the middle of a gesture."""
    if bpy.app.is_job_running("RENDER"):
        return False
    for window in bpy.context.window_manager.windows:
        for operator in window.modal_operators:
            from_an_addon = hasattr(bpy.types, operator.bl_idname)
            if not from_an_addon or waited < PATIENCE:
                return False
    return True


@dataclass
class _Arrival:
    """One file of a job on its way; the job's wish is fulfilled with its last one."""

    job: Job
    glb: Path
    wish: dict[str, Any]
    last: bool
    worker: Future[ImportWorker] | None = None
    asked: Future[None] | None = None
    since: float = 0.0  # when it was ready to be appended


class Arrivals:
    """All imports of this Blender, one at a time.

    `done(job_id, placed, error)` is called once a file is in the scene, or cannot be; `later` runs what takes time elsewhere.
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
        for path in job.files:
            last = path == job.files[-1]
            self._queue.append(_Arrival(job, Path(path), wish, last))

    def step(self) -> None:
        """Go on with the import at hand; never waits."""
        if not self._queue:
            return
        now = self._queue[0]
        try:
            placed = self._advance(now)
        except TrellisError as error:
            self._end(now, False, error.message)
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
        if now.worker is None:
            self.expect()
            now.worker, self._spare = self._spare, None
        assert now.worker
        now.asked = now.asked or self._ask(now, scene)
        if not now.asked.done():
            return None
        now.asked.result()
        prepared = now.worker.result().poll()
        if prepared is None:
            return None
        now.since = now.since or time.monotonic()
        if not undisturbed(time.monotonic() - now.since):
            return None
        place(prepared, scene, now.wish["location"], f"Generate {now.job.title}")
        return True

    def _ask(self, now: _Arrival, scene: bpy.types.Scene) -> Future[None]:
        from ..api import recipe_of, result_of

        assert now.worker
        return self._later(
            partial(
                _request,
                now.worker,
                now.glb,
                recipe_of(result_of(now.job)),
                name=now.job.title,
                height=now.wish.get("height"),
                metres_per_unit=scene.unit_settings.scale_length,
            )
        )

    def _end(self, now: _Arrival, placed: bool, error: str) -> None:
        self._queue.popleft()
        if now.worker:
            self._later(partial(_stop, now.worker))
        if now.last or not placed:
            self._queue = deque(other for other in self._queue if other.job.id != now.job.id)
            self._done(now.job.id, placed, error)

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


def place(prepared: Prepared, scene: bpy.types.Scene, location: list[float], message: str) -> None:
    """Append to `scene` as one undo step; a timer has neither a window nor an undo step of its own."""
    from ..scene.append import append, push_undo

    windows = bpy.context.window_manager.windows
    window = next((each for each in windows if each.scene == scene), None)
    window = window or (windows[0] if windows else None)
    with bpy.context.temp_override(window=window):
        append(prepared.blend, scene=scene, location=location)
        push_undo(message)

# SPDX-License-Identifier: GPL-3.0-or-later
"""Pictures of models for the history. What has none gets one when it is first seen: made by a second Blender, one at a time, and
kept beside the model for good."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import bpy

from ..errors import TrellisError

if TYPE_CHECKING:
    from concurrent.futures import Future

    from ..scene.worker import ImportWorker

SIZE = 256  # pixels a side


class Thumbnails:
    """The pictures that are to be made. `made(job_id, path)` is called in another thread once one is there.

    All methods are the main thread's.
    """

    def __init__(self, made: Callable[[str, str], None], wake: Callable[[], None]) -> None:
        from concurrent.futures import ThreadPoolExecutor

        self._made = made
        self._wake = wake
        self._wanted: dict[str, tuple[str, Path]] = {}  # endpoint and model, by job
        self._tried: set[str] = set()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="trellis-thumbnails")
        self._at_work: Future[None] | None = None
        self._worker: ImportWorker | None = None

    @property
    def busy(self) -> bool:
        """Whether `step` has something to do."""
        return bool(self._wanted) or self._at_work is not None

    def want(self, job_id: str, endpoint: str, model: str) -> None:
        """A draw misses a picture. It is tried once: what cannot be pictured shows what it was made of."""
        if job_id not in self._tried and job_id not in self._wanted:
            self._wanted[job_id] = endpoint, Path(model)
            self._wake()

    def only(self, jobs: set[str]) -> None:
        """Another page is shown: the others' pictures are not wanted any more."""
        self._wanted = {job_id: what for job_id, what in self._wanted.items() if job_id in jobs}

    def step(self) -> None:
        """Begin the next one, when the last is done."""
        if self._at_work is not None and self._at_work.done():
            self._at_work = None
        if self._at_work is None and self._wanted:
            job_id = next(iter(self._wanted))
            endpoint, model = self._wanted.pop(job_id)
            self._tried.add(job_id)
            work = partial(self._make, job_id, endpoint, model, bpy.app.binary_path)
            self._at_work = self._thread.submit(work)

    def _make(self, job_id: str, endpoint: str, model: Path, binary: str) -> None:
        """In the thread: waits for a second Blender."""
        import logging
        import tempfile

        from ..generation.library import copy_out, thumbnail
        from ..scene.recipe import Recipe
        from ..scene.worker import ImportWorker

        picture = thumbnail(model)
        try:
            with (
                tempfile.TemporaryDirectory(prefix="trellis-thumbnail-") as folder,
                ImportWorker(binary) as self._worker,
            ):
                drawn = Path(folder) / "model.png"
                self._worker.request(model, Recipe(endpoint), name="", preview=(drawn, SIZE))
                self._worker.wait()
                copy_out(drawn, picture)
                if model.exists():
                    self._made(job_id, str(picture))
                else:  # it was deleted meanwhile
                    picture.unlink(missing_ok=True)
        except (OSError, TrellisError) as error:
            logging.getLogger(__name__).info("no picture of %s: %s", model, error)
        finally:
            self._worker = None

    def close(self) -> None:
        """End the second Blender, whatever it does."""
        self._wanted.clear()
        worker = self._worker
        if worker is not None:
            worker.close()
        self._thread.shutdown(wait=True)

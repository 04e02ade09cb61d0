# SPDX-License-Identifier: GPL-3.0-or-later
"""Short work that touches a disk, off Blender's main thread. What it finds comes back as calls, which the next tick makes."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

from ..errors import TrellisError

log = logging.getLogger(__name__)

_Each = TypeVar("_Each")


class Clerk:
    """One thread, which does its work in the order it was given. All methods are the main thread's, except `tell`.

    `failed(job_id, message)` is called by a tick when something went wrong; the job is None where it was about none.
    """

    def __init__(self, failed: Callable[[str | None, str], None], wake: Callable[[], None]) -> None:
        self.wake = wake
        self._failed = failed
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="trellis-clerk")
        self._pending: set[Future[Any]] = set()
        self._inbox: SimpleQueue[Callable[[], None]] = SimpleQueue()

    @property
    def busy(self) -> bool:
        """Whether something is to be done yet, or to be taken by a tick."""
        return bool(self._pending) or not self._inbox.empty()

    def tell(self, call: Callable[[], None]) -> None:
        """In any thread: have the next tick make a call."""
        self._inbox.put(call)

    def later(
        self, work: Callable[[], Any], job_id: str | None = None, *, quiet: bool = False
    ) -> Future[Any]:
        """Have something done; what goes wrong is told as a fault of the job, or of everything.

        Not so where `quiet`: then the caller looks at the future itself.
        """
        future = self._thread.submit(work)
        self._pending.add(future)
        future.add_done_callback(lambda done: self.tell(partial(self._done, done, job_id, quiet)))
        self.wake()
        return future

    def _done(self, future: Future[Any], job_id: str | None, quiet: bool) -> None:
        self._pending.discard(future)
        error = future.exception()
        if error is None or quiet:
            return
        if not isinstance(error, TrellisError):
            log.error("unforeseen", exc_info=error)
        message = getattr(error, "message", f"Something unforeseen happened: {error!r}.")
        self._failed(job_id, message)

    def step(self, until: float) -> bool:
        """Make the calls that have come, until a time of `perf_counter`; whether that were all of them."""
        drain(self._inbox, lambda call: call(), until)
        return self._inbox.empty()

    def settle(self) -> None:
        """Wait until nothing is left to be done: for background mode."""
        for future in list(self._pending):
            future.exception()

    def close(self, last: Callable[[], Any]) -> None:
        """Do what there is, and then `last`; wait for it."""
        future = self._thread.submit(last)
        self._thread.shutdown(wait=True)
        if future.exception():
            log.error("unforeseen", exc_info=future.exception())


def drain(source: SimpleQueue[_Each], take: Callable[[_Each], None], until: float) -> None:
    """Take what is in a queue, for as long as the time lasts; one of them in any case."""
    while True:
        try:
            take(source.get_nowait())
        except Empty:
            return
        if time.perf_counter() >= until:
            return

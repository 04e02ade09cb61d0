# SPDX-License-Identifier: GPL-3.0-or-later
"""How the mesh stage tells what it does while libraries that say nothing are at work."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar

from .surface import Step

T = TypeVar("T")

_BEAT = 0.3
"""Seconds between two reports."""


def part(step: Step, low: float, high: float) -> Step:
    """A step whose fractions 0..1 are `low`..`high` of `step`'s."""
    return lambda message, fraction: step(message, low + (high - low) * fraction)


def beating(work: Callable[[Step], T], step: Step) -> T:
    """What `work` returns, done in a thread of its own, while this thread reports several times a second where it is.

    What `step` raises (the job was cancelled) ends `work` when it reports next, and is raised here.
    """
    done = threading.Event()
    latest = ("", 0.0)
    ended: list[BaseException] = []
    result: list[T] = []

    def report(message: str, fraction: float) -> None:
        nonlocal latest
        if done.is_set():
            raise _Stopped
        latest = (message, fraction)

    def run() -> None:
        try:
            result.append(work(report))
        except _Stopped:
            pass
        except BaseException as error:  # noqa: BLE001 - raised again in the caller's thread
            ended.append(error)

    thread = threading.Thread(target=run, name="mesh stage")
    thread.start()
    try:
        while True:
            thread.join(_BEAT)
            if latest[0]:
                step(*latest)
            if not thread.is_alive():
                break
    finally:
        done.set()
        thread.join()
    if ended:
        raise ended[0]
    return result[0]


class _Stopped(Exception):
    """Ends the thread of a job that was cancelled."""

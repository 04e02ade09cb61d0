# SPDX-License-Identifier: GPL-3.0-or-later
"""How the command line shows things, as JSON objects, one a line, or as words and a progress bar; and how it asks."""

from __future__ import annotations

import argparse
import dataclasses
import json
import logging
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .endpoints.prices import CURRENCY
from .errors import CancelledError, InputError, TrellisError
from .generation.job import Event, Job, time_left

if TYPE_CHECKING:
    from .generation.batch import Progress

_BAR = 30
_NOW_AND_THEN = 60  # seconds after which a batch says to a pipe how far it is


class Json:
    """One JSON object a line, in ASCII: a pipe on Windows takes few other letters."""

    _next = 0.0  # when a batch tells again how far it is

    def line(self, value: dict[str, Any]) -> None:
        print(json.dumps(value), flush=True)

    def event(self, event: Event) -> None:
        names = ("state", "stage", "step", "steps", "fraction", "message")
        self.line({"event": "progress", **{name: getattr(event, name) for name in names}})

    def resumed(self, job: Job) -> None:
        self.line({"event": "resume", "job_id": job.id, "endpoint": job.endpoint})

    def result(self, job: Job, files: list[Path]) -> None:
        self.line(
            {
                "event": "result",
                "state": job.state,
                "job_id": job.id,
                "endpoint": job.endpoint,
                "files": [str(path) for path in files],
                "seed": job.seed,
                "cost": job.cost,
                "request_id": job.request_id,
            }
        )

    def error(self, error: TrellisError) -> None:
        self.line(
            {
                "event": "error",
                "state": error.state,
                "kind": error.kind,
                "message": error.message,
                "job_id": error.job_id,
                "request_id": error.request_id,
            }
        )

    def data(self, value: Any, text: Callable[[], str]) -> None:
        for item in [value] if isinstance(value, dict) else value:
            self.line(item)

    def say(self, words: str) -> None:
        """Nothing: the objects say it."""

    def plan(self, plan: dict[str, Any], _words: str) -> None:
        self.line({"event": "plan", **plan})

    def batch(self, progress: Progress) -> None:
        now = time.monotonic()
        if now >= self._next:
            self._next = now + 1
            self.line({"event": "batch", **dataclasses.asdict(progress)})

    def row(self, line: dict[str, Any]) -> None:
        self.line({"event": "row", **line})

    def close_line(self) -> None:
        """Nothing to do: every line is whole."""


class Text:
    """Words, and a progress bar on a terminal; elsewhere a line for every tenth of the way."""

    _open_line = False
    _fraction = 0.0
    _last: tuple[Any, ...] = ()

    def event(self, event: Event) -> None:
        if (event.fraction is None and not event.message) or event.error:
            return
        self._fraction = self._fraction if event.fraction is None else event.fraction
        what = event.message or event.stage or str(event.state)
        left = f", {event.left}" if event.left else ""
        now = (event.state, event.stage, int(10 * self._fraction))
        self._bar(self._fraction, what, left, now)

    def _bar(self, fraction: float, what: str, more: str, now: tuple[Any, ...]) -> None:
        """How far it is; `more` is for a terminal alone. Elsewhere it is told once for each `now`."""
        done = round(_BAR * fraction)
        text = f"{'█' * done}{'░' * (_BAR - done)} {100 * fraction:3.0f} %  {what}"
        if sys.stderr.isatty():
            width = shutil.get_terminal_size().columns - 1  # a line that breaks is not overwritten
            print(f"\r\x1b[K{f'{text}{more}'[:width]}", end="", file=sys.stderr, flush=True)
            self._open_line = True
        elif now != self._last:
            print(text, file=sys.stderr, flush=True)
        self._last = now

    def say(self, words: str) -> None:
        """Something beside what was asked for."""
        self.close_line()
        print(words, file=sys.stderr)

    def plan(self, _plan: dict[str, Any], words: str) -> None:
        self.say(words)

    def batch(self, progress: Progress) -> None:
        fraction = progress.done / progress.total
        words = [f"{progress.done} of {progress.total}"]
        if progress.rate:
            words.append(f"{progress.rate:.1f} a minute")
        words += filter(None, [time_left(progress.seconds)])
        if progress.cost:
            words.append(f"{'about ' * progress.estimate}{amount(progress.cost)} {CURRENCY}")
        if progress.failed + progress.uncertain:
            words.append(f"{progress.failed + progress.uncertain} without a model")
        now = (int(10 * fraction), int(time.monotonic() / _NOW_AND_THEN))
        self._bar(fraction, ", ".join(words), "", now)

    def row(self, line: dict[str, Any]) -> None:
        if line["error"]:
            self.say(f"{line['output']}: {line['state']}. {line['error']['message']}")

    def resumed(self, job: Job) -> None:
        self.close_line()
        self._fraction = 0.0
        print(f"{job.title}  {job.endpoint}  {job.id}", file=sys.stderr)

    def close_line(self) -> None:
        """End the line of the progress bar, so that something else can be said."""
        if self._open_line:
            print(file=sys.stderr)
            self._open_line = False

    def result(self, job: Job, files: list[Path]) -> None:
        self.close_line()
        for path in files:
            print(path)
        if job.error:
            print(f"Note: {job.error['message']}", file=sys.stderr)
        if job.cost:
            print(f"Cost: {money(job.cost)}", file=sys.stderr)

    def error(self, error: TrellisError) -> None:
        self.close_line()
        print(f"Error: {error}", file=sys.stderr)

    def data(self, value: Any, text: Callable[[], str]) -> None:
        self.close_line()
        print(text())


Show = Json | Text


class LogHandler(logging.StreamHandler[Any]):
    """Log lines on standard error, below the progress bar and not in it."""

    def __init__(self, show: Show) -> None:
        super().__init__()
        self._show = show

    def emit(self, record: logging.LogRecord) -> None:
        self._show.close_line()
        super().emit(record)


def confirm(arguments: argparse.Namespace, unasked: str, refused: str) -> None:
    """Go on only if somebody at the terminal says so.

    Raises:
        InputError: `unasked`, where there is nobody to ask.
        CancelledError: `refused`, where the answer is no.
    """
    if arguments.json or sys.stdin is None or not sys.stdin.isatty():
        raise InputError(unasked)
    try:
        answer = input("Continue? [y/N] ")
    except EOFError:
        answer = ""
    if answer.strip().lower() not in ("y", "yes"):
        raise CancelledError(refused)


def money(cost: dict[str, Any]) -> str:
    """ "about 0.30 USD"."""
    return f"{'about ' if cost['estimate'] else ''}{amount(cost['amount'])} {cost['currency']}"


def amount(number: float) -> str:
    """Two decimals, or four where a service counts in fractions of a cent."""
    return f"{number:.2f}" if round(number, 2) == round(number, 4) else f"{number:.4f}"

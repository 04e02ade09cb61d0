# SPDX-License-Identifier: GPL-3.0-or-later
"""How the command line shows things: as JSON objects, one a line, or as words and a progress bar."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .errors import TrellisError
from .generation.job import Event, Job

_BAR = 30


class Json:
    """One JSON object a line, in ASCII: a pipe on Windows takes few other letters."""

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
        done = round(_BAR * self._fraction)
        what = event.message or event.stage or str(event.state)
        text = f"{'█' * done}{'░' * (_BAR - done)} {100 * self._fraction:3.0f} %  {what}"
        now = (event.state, event.stage, int(10 * self._fraction))
        if sys.stderr.isatty():
            left = f", {event.left}" if event.left else ""
            print(f"\r\x1b[K{text}{left}", end="", file=sys.stderr, flush=True)
            self._open_line = True
        elif now != self._last:
            print(text, file=sys.stderr, flush=True)
        self._last = now

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


def money(cost: dict[str, Any]) -> str:
    """ "about 0.30 USD"."""
    return f"{'about ' if cost['estimate'] else ''}{amount(cost['amount'])} {cost['currency']}"


def amount(number: float) -> str:
    """Two decimals, or four where a service counts in fractions of a cent."""
    return f"{number:.2f}" if round(number, 2) == round(number, 4) else f"{number:.4f}"

# SPDX-License-Identifier: GPL-3.0-or-later
"""Plan, progress and cancellation, written once for every engine.

An engine says before it starts which stages it will go through and how much of the whole each is (`Stage.share`); while
it runs it calls `Progress.step`, which both reports and is the place where a cancelled job ends.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from typing import Any, Protocol

from PIL import Image


class Cancelled(Exception):
    """Raised inside an engine, by `Progress.step`, when its job was cancelled."""


class EngineError(Exception):
    """The engine cannot do this. `field` names the request's key that is to blame, if one is."""

    def __init__(self, message: str, field: str | None = None) -> None:
        super().__init__(message)
        self.field = field


@dataclass(frozen=True)
class Stage:
    """One part of the work: its name, how many steps it reports, and its expected share of the time."""

    name: str
    steps: int
    share: float


@dataclass(frozen=True)
class Report:
    """Where a job is: `step` of `steps` in `stage`, and `fraction` (0 to 1) of the whole plan.

    `eta` is how many seconds are left, None as long as too little has been done to tell.
    """

    stage: str
    step: int
    steps: int
    fraction: float
    message: str
    eta: float | None = None

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


_TELLING = 0.02
"""The part of the plan that must have been worked before its speed tells how long the rest takes."""


class Progress:
    """What an engine reports to: `listen` gets every report, `cancelled` is asked at every step.

    Fraction and time left are of what is to be worked on: steps that turn out to be ready made count for nothing. The fraction
    never falls, though shares may be corrected (`expect`).
    """

    def __init__(
        self,
        plan: Sequence[Stage],
        listen: Callable[[Report], None],
        cancelled: Callable[[], bool],
    ) -> None:
        self._stages = {stage.name: stage for stage in plan}
        self._reached = dict.fromkeys(self._stages, 0)
        self._ready_made = dict.fromkeys(self._stages, 0)
        self._listen = listen
        self._cancelled = cancelled
        self._lock = threading.Lock()
        self._started = time.monotonic()
        self.notes: list[str] = []
        """What `note` said."""
        self._last: Report | None = None
        self._stepped = self._told = self._started

    def check(self) -> None:
        """End here if the job was cancelled.

        Raises:
            Cancelled: it was; the engine lets it pass.
        """
        if self._cancelled():
            raise Cancelled

    def step(self, name: str, step: int, message: str = "", *, ready_made: bool = False) -> None:
        """Report that `step` steps of stage `name` are done; `ready_made` if those since the last report cost no work.

        Raises:
            Cancelled: the job was cancelled; the engine lets it pass.
        """
        self.check()
        if name not in self._stages:
            raise ValueError(f"stage {name!r} is not in the plan")
        with self._lock:
            if ready_made:
                self._ready_made[name] += max(0, step - self._reached[name])
            self._reached[name] = step
            before = self._last.fraction if self._last else 0.0
            fraction = max(before, self._fraction(name))
            self._stepped = time.monotonic()
            eta = None
            if fraction > _TELLING:
                eta = (self._stepped - self._started) * (1 - fraction) / fraction
            self._last = Report(name, step, self._stages[name].steps, fraction, message, eta)
            self._tell(self._last)

    def note(self, message: str) -> None:
        """Say something that is no step, and is still worth knowing of the result."""
        self.notes.append(message)
        with self._lock:
            if self._last:
                self._last = replace(self._last, message=message)
                self._tell(self._last)

    def expect(self, name: str, share: float) -> None:
        """Correct the share of a stage, now that more is known about it."""
        self._stages[name] = replace(self._stages[name], share=share)

    @contextmanager
    def heartbeat(self, seconds: float = 1.0) -> Iterator[None]:
        """While the block runs, repeat the last report whenever none has come for `seconds`."""
        ended = threading.Event()
        thread = threading.Thread(target=self._beat, args=(ended, seconds), daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()

    def _beat(self, ended: threading.Event, seconds: float) -> None:
        while not ended.wait(seconds / 2):
            with self._lock:
                if self._last and time.monotonic() - self._told >= seconds / 2:
                    self._tell(self._last)

    def _tell(self, report: Report) -> None:
        """Give a report on, its time left counted from now."""
        self._told = time.monotonic()
        if report.eta is not None:
            report = replace(report, eta=max(0.0, report.eta - (self._told - self._stepped)))
        self._listen(report)

    def _fraction(self, name: str) -> float:
        """What is done of all that is to be worked on, in stage `name`."""
        total = done = 0.0
        passed = False
        for each, stage in self._stages.items():
            passed = passed or each == name
            total += stage.share * (stage.steps - self._ready_made[each]) / stage.steps
            if each == name:
                worked = self._reached[each] - self._ready_made[each]
                done += stage.share * worked / stage.steps
            elif not passed:
                done = total
        return done / total if total else 1.0


class Engine(Protocol):
    """What the sidecar's worker runs. `request` is the endpoint's body, validated and with all defaults, without the images."""

    def plan(self, request: dict[str, Any], images: int) -> Sequence[Stage]: ...

    def run(
        self, request: dict[str, Any], images: Sequence[Image.Image], progress: Progress
    ) -> bytes: ...

# SPDX-License-Identifier: GPL-3.0-or-later
"""Plan, progress and cancellation, written once for every engine.

An engine says before it starts which stages it will go through and how much of the whole each is (`Stage.share`); while
it runs it calls `Progress.step`, which both reports and is the place where a cancelled job ends.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
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
    """Where a job is: `step` of `steps` in `stage`, and `fraction` (0 to 1) of the whole plan."""

    stage: str
    step: int
    steps: int
    fraction: float
    message: str

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


class Progress:
    """What an engine reports to: `listen` gets every report, `cancelled` is asked at every step."""

    def __init__(
        self,
        plan: Sequence[Stage],
        listen: Callable[[Report], None],
        cancelled: Callable[[], bool],
    ) -> None:
        self._stages = {stage.name: stage for stage in plan}
        self._total = sum(stage.share for stage in plan)
        self._listen = listen
        self._cancelled = cancelled

    def step(self, name: str, step: int, message: str = "") -> None:
        """Report that `step` steps of stage `name` are done.

        Raises:
            Cancelled: the job was cancelled; the engine lets it pass.
        """
        if self._cancelled():
            raise Cancelled
        before = 0.0
        for stage in self._stages.values():
            if stage.name == name:
                fraction = (before + stage.share * step / stage.steps) / self._total
                self._listen(Report(name, step, stage.steps, fraction, message))
                return
            before += stage.share
        raise ValueError(f"stage {name!r} is not in the plan")


class Engine(Protocol):
    """What the sidecar's worker runs. `request` is the endpoint's body, validated, without the images."""

    def plan(self, request: dict[str, Any], images: int) -> Sequence[Stage]: ...

    def run(
        self, request: dict[str, Any], images: Sequence[Image.Image], progress: Progress
    ) -> bytes: ...

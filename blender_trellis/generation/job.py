# SPDX-License-Identifier: GPL-3.0-or-later
"""A job: one request on its way, its states, and which state may follow which.

              ┌──────────────► cancelled / failed (from any state that is not an end)
prepared ─► submitting ─► running ─► downloading ─► ready
                │            ▲
                └► uncertain ┘   the reply to the submit was lost: the service tells, or the user decides, who may also
                                 have it sent again (back to prepared)
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class State(StrEnum):
    """Where a job is."""

    PREPARED = "prepared"
    SUBMITTING = "submitting"
    RUNNING = "running"
    DOWNLOADING = "downloading"
    READY = "ready"
    UNCERTAIN = "uncertain"
    FAILED = "failed"
    CANCELLED = "cancelled"


_S = State
MOVES: dict[State, frozenset[State]] = {
    _S.PREPARED: frozenset({_S.SUBMITTING, _S.FAILED, _S.CANCELLED}),
    _S.SUBMITTING: frozenset({_S.PREPARED, _S.RUNNING, _S.UNCERTAIN, _S.FAILED, _S.CANCELLED}),
    _S.RUNNING: frozenset({_S.DOWNLOADING, _S.FAILED, _S.CANCELLED}),
    _S.DOWNLOADING: frozenset({_S.READY, _S.FAILED, _S.CANCELLED}),
    _S.UNCERTAIN: frozenset({_S.PREPARED, _S.RUNNING, _S.FAILED, _S.CANCELLED}),
    _S.READY: frozenset(),
    _S.FAILED: frozenset(),
    _S.CANCELLED: frozenset(),
}
ENDED = frozenset(state for state, follow in MOVES.items() if not follow)


@dataclass(frozen=True)
class Job:
    """One row of the journal.

    `parameters` go by documented name and include the seed. `images` are names in the library, or references that go to the
    service as they are; `names` is what the user called them; `mesh` a name in the library. `ticket` is what the service
    returned for the submit; its id and URLs. `wish` is what the asker wants done with the result (an output file, a scene and a
    place), which only the asker reads; `fulfilled` says that it is done. `cancel_asked` is how another process asks the job's
    owner to cancel it. `seeds` are those of `files`. `cost` is an estimate until the service has named the charge; `max_cost`,
    in US dollars, is what it may come to at most. `submitted` and `ready` are when it came to these states; a job that was taken
    over before it was ready has no `submitted`.
    """

    id: str
    endpoint: str
    parameters: dict[str, Any]
    images: list[str]
    names: list[str]
    state: State = State.PREPARED
    created: float = 0.0
    updated: float = 0.0
    ticket: dict[str, Any] | None = None
    request_id: str | None = None
    files: list[str] = field(default_factory=list)
    cost: dict[str, Any] | None = None
    error: dict[str, Any] | None = None
    wish: dict[str, Any] = field(default_factory=dict)
    fulfilled: bool = False
    cancel_asked: bool = False
    mesh: str | None = None
    seeds: list[int] = field(default_factory=list)
    max_cost: float | None = None
    submitted: float | None = None
    ready: float | None = None

    @property
    def title(self) -> str:
        """What to call the job and its model: its first picture's name without the suffix."""
        return self.names[0].rsplit(".", 1)[0] if self.names else self.endpoint

    @property
    def seed(self) -> int:
        return int(self.parameters["seed"])


@dataclass(frozen=True)
class Event:
    """Something that happened to a job. `fraction` is 0 to 1 of the whole, `eta` how many seconds are left; None where the
    service does not tell. `ahead` is how many jobs come first, while this one waits for its turn at the service."""

    job_id: str
    state: State
    stage: str = ""
    step: int = 0
    steps: int = 0
    fraction: float | None = None
    message: str = ""
    error: dict[str, Any] | None = None
    eta: float | None = None
    ahead: int = 0

    @property
    def left(self) -> str:
        """How long it will still take, in words; "" where nobody knows."""
        return time_left(self.eta)


def time_left(seconds: float | None) -> str:
    """A rough time in words; "" where nobody knows."""
    if seconds is None:
        return ""
    if seconds < 55:
        return f"{max(5 * round(seconds / 5), 5)} s left"
    hours, minutes = divmod(max(round(seconds / 60), 1), 60)
    return f"{hours} h {minutes} min left" if hours else f"{minutes} min left"

# SPDX-License-Identifier: GPL-3.0-or-later
"""WHO carries a request out: one class per service, all with the methods of `Service`. To add one, list it in `open_service`.

queue.py     fal's queue protocol: fal itself, this computer's sidecar, a studio's server
sidecar.py   finds or starts the sidecar, and speaks the queue protocol with it
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from ..errors import EndpointError

if TYPE_CHECKING:
    from ..config import Config


@dataclass(frozen=True)
class Ticket:
    """What a service returned for a submitted job. URLs on the service itself are kept relative to its base, since a sidecar
    that starts again has another port."""

    request_id: str
    status_url: str
    response_url: str
    cancel_url: str

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Status:
    """How far a service is. `fraction` is 0 to 1, None where the service does not tell."""

    completed: bool
    stage: str = ""
    step: int = 0
    steps: int = 0
    fraction: float | None = None
    message: str = ""


@dataclass(frozen=True)
class Outcome:
    """What a service made: URLs of GLBs, and the seed and cost where it says them."""

    files: list[str]
    seed: int | None = None
    cost: dict[str, Any] | None = field(default=None)


class Service(Protocol):
    """What the runner asks of a service. Errors are those of `errors`, in words.

    `repeatable`: a submit with the same key makes one job however often it is sent. `poll_seconds`: shortest and longest wait
    between two questions after a job.
    """

    repeatable: bool
    poll_seconds: tuple[float, float]

    async def ready(self) -> None: ...

    async def submit(
        self, key: str, endpoint: str, body: dict[str, Any], headers: dict[str, str]
    ) -> Ticket: ...

    async def status(self, ticket: Ticket) -> Status: ...

    async def result(self, ticket: Ticket) -> Outcome: ...

    async def cancel(self, ticket: Ticket) -> None: ...

    async def download(self, url: str, to: Path, progress: Callable[[float], None]) -> None: ...

    async def collected(self, ticket: Ticket) -> None: ...

    async def close(self) -> None: ...


def open_service(endpoint: str, config: Config) -> Service:
    """The service that carries out `endpoint`.

    Raises:
        EndpointError: none does yet.
    """
    if not endpoint.startswith("local/"):
        raise EndpointError(f"No service carries out {endpoint} yet.")
    from .sidecar import SidecarService

    return SidecarService(config)

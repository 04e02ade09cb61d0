# SPDX-License-Identifier: GPL-3.0-or-later
"""WHO carries a request out: one class per service, all with the methods of `Service`. To add one, list it in `open_service`.

wire.py      what they share on the wire: the HTTP client, what a failed request means, resumable downloads
queue.py     fal's queue protocol: fal itself, this computer's sidecar, a studio's server
fal.py       what fal has beyond it: uploads, prices, past requests, the account
runware.py   Runware's task objects
pool.py      those that are open
sidecar.py   finds or starts the sidecar, and speaks the queue protocol with it
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import urlsplit

from .. import keychain
from ..endpoints.schema import schemas
from ..errors import AccessError, UnreachableError

if TYPE_CHECKING:
    from ..config import Config


_ACCOUNT_SECONDS = 20.0  # somebody looks at the key's field and waits


@dataclass(frozen=True)
class Submission:
    """One request, ready to go out. `key` is the job's id, a UUID; `created` when it was asked for, in seconds since 1970."""

    key: str
    endpoint: str
    body: dict[str, Any]
    headers: dict[str, str] = field(default_factory=dict)
    query: dict[str, str] = field(default_factory=dict)
    created: float = 0.0


@dataclass(frozen=True)
class Ticket:
    """What a service returned for a submitted job. URLs on the service itself are kept relative to its base, since a sidecar
    that starts again has another port. `results` is how many were asked for; `answer` the result itself, where the service
    sent it at once."""

    request_id: str
    status_url: str = ""
    response_url: str = ""
    cancel_url: str = ""
    results: int = 1
    answer: dict[str, Any] | None = None

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


AT_WORK = "generating"  # the stage of a job at a service that tells no stages


@dataclass(frozen=True)
class Status:
    """How far a service is. `fraction` is 0 to 1, `eta` the seconds left; None where the service does not tell."""

    completed: bool
    stage: str = ""
    step: int = 0
    steps: int = 0
    fraction: float | None = None
    message: str = ""
    eta: float | None = None


@dataclass(frozen=True)
class Made:
    """One model that a service made: the URL of its GLB, and its seed where the service says it."""

    url: str
    seed: int | None = None


@dataclass(frozen=True)
class Outcome:
    """All that a job made. `cost` is {"amount", "currency", "estimate"} where something is known of it; `failures` says in
    words what became of the variations that are missing, `notes` what is worth knowing of those that are there."""

    files: list[Made]
    cost: dict[str, Any] | None = None
    failures: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Account:
    """What a service says of the key. `balance` is None where this key may not read it."""

    balance: float | None = None
    currency: str = "USD"


class Service(Protocol):
    """What the runner asks of a service. Errors are those of `errors`, in words.

    `repeatable`: a submit with the same key makes one job however often it is sent. `attempts`: how often to ask before giving
    up; None for as long as the job may live. `cancellable`: a running job can be called off. `poll_seconds`: shortest and
    longest wait between two questions after a job.
    """

    name: str
    repeatable: bool
    attempts: int | None
    cancellable: bool
    poll_seconds: tuple[float, float]

    async def ready(self) -> None: ...

    async def attach(self, data: bytes, media_type: str) -> str:
        """What stands for a picture or a mesh in a body: a data URI, or the URL or id of an upload."""
        ...

    async def submit(self, submission: Submission) -> Ticket: ...

    async def find(self, submission: Submission, known: frozenset[str]) -> Ticket | None:
        """The job of a submit whose reply was lost; None if the service does not know it, or cannot tell.

        `known` are the request ids of other jobs.
        """
        ...

    async def adopt(self, submission: Submission, request_id: str) -> Ticket:
        """A ticket for the job that the service calls `request_id`; an InputError if the service knows none."""
        ...

    async def status(self, ticket: Ticket) -> Status: ...

    async def result(self, ticket: Ticket) -> Outcome: ...

    async def cancel(self, ticket: Ticket) -> bool:
        """Call a job off; False if it has finished already."""
        ...

    async def download(self, url: str, to: Path, progress: Callable[[float], None]) -> None: ...

    async def collected(self, ticket: Ticket) -> None: ...

    async def price(self, submission: Submission) -> float | None:
        """What the service itself says that a request will cost, in US dollars; None where it does not say."""
        ...

    async def account(self) -> Account:
        """Try the key, at no cost."""
        ...

    async def close(self) -> None: ...


def open_service(endpoint: str, config: Config) -> Service:
    """The service that carries out `endpoint`.

    Raises:
        AccessError: it needs a key and there is none, or Blender may not go online.
    """
    check_access(endpoint, config)
    if endpoint.startswith("local/"):
        from .sidecar import SidecarService

        return SidecarService(config)
    if endpoint.startswith("runware/"):
        from .runware import RunwareService

        return RunwareService(config)
    from .fal import FalService

    return FalService(config, endpoint)


async def with_key(endpoint: str, config: Config) -> Config:
    """`config` with the key for an endpoint, which the keychain may hold.

    Raises:
        AccessError: the keychain does not give it.
    """
    return await keychain.complete(config, schemas().get(endpoint, {}).get("service", ""))


def check_access(endpoint: str, config: Config) -> None:
    """Refuse an endpoint whose service cannot be asked.

    Raises:
        AccessError: it needs a key and there is none, or Blender may not go online.
    """
    from ..config import LOOPBACK

    name, url, key, variable = {
        "local": ("the local process", config.sidecar_url, config.sidecar_token or "none", ""),
        "runware": ("Runware", config.runware_url, config.runware_key, "RUNWARE_API_KEY"),
    }.get(
        endpoint.split("/", maxsplit=1)[0], ("fal", config.fal_queue_url, config.fal_key, "FAL_KEY")
    )
    if not key:
        raise AccessError(
            f"There is no key for {name}. Set it in the add-on's preferences, or {variable} in the environment."
        )
    if not (key.isascii() and key.isprintable()) or " " in key:
        # the HTTP library would refuse it too, in words that show it
        raise AccessError(
            f"The key for {name} holds something that no key has: a space, a line break or a special letter. Copy it again."
        )
    if url and config.offline and urlsplit(url).hostname not in LOOPBACK:
        raise AccessError(
            "Blender may not go online. Allow Online Access in its preferences, under System."
        )


def check_installed(endpoint: str, parameters: Mapping[str, Any], config: Config) -> None:
    """Refuse a model by this computer's TRELLIS.2 for which something is not installed. Only another computer knows of itself.

    Raises:
        AccessError: something is not; the message says how to install it.
    """
    if not endpoint.startswith("local/trellis-2") or config.sidecar_url:
        return
    from ..install import installer

    retexture = endpoint.endswith("/retexture")
    side = str(parameters.get("pipeline_type") or parameters.get("resolution"))
    resolution = "512" if side == "512" else "all"
    lacking = installer.lacking(config.shared, resolution, retexture)
    if not lacking:
        return
    command = "trellis sidecar install" + " --resolution all" * (resolution == "all")
    command += " --retexture" * retexture
    ways = f"Install it in the add-on's preferences, or with `{command}`"
    if lacking == installer.ENVIRONMENT:
        raise AccessError(f"TRELLIS.2 is not installed on this computer. {ways}.")
    other = (
        "" if installer.lacking(config.shared, "512", retexture) else ", or set resolution to 512"
    )
    raise AccessError(f"TRELLIS.2 lacks weights that this needs. {ways}{other}.")


def check_key(service: str, config: Config) -> Account:
    """Try the key of "fal" or "runware", at no cost; blocks, so it is not for a thread that has an event loop.

    Raises:
        AccessError: there is no key, or Blender may not go online.
        AccountError: the service refuses the key.
        UnreachableError: it does not answer.
    """
    endpoint = next(name for name, each in schemas().items() if each["service"] == service)

    async def ask() -> Account:
        opened = open_service(endpoint, await with_key(endpoint, config))
        try:
            async with asyncio.timeout(_ACCOUNT_SECONDS):
                return await opened.account()
        except TimeoutError as error:
            words = f"{opened.name} does not answer within {_ACCOUNT_SECONDS:.0f} seconds. Try again later."
            raise UnreachableError(words) from error
        finally:
            await opened.close()

    return asyncio.run(ask())

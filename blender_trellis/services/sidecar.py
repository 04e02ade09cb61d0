# SPDX-License-Identifier: GPL-3.0-or-later
"""The sidecar as a service: finds the one that runs for this user, or starts it, and speaks the queue protocol with it.

The process is detached: it outlives the one that started it. Where it listens and its token stand in an address file that
only this user can read.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx

from .. import __version__
from ..config import LOOPBACK, SECRETS, Config
from ..errors import SidecarError
from ..home import FileLock
from . import Ticket, wire
from .queue import QueueService

START_SECONDS = 60  # an antivirus may read every file of a first start
_PACKAGE = Path(__file__).parents[1]
# The child finds the package and its dependencies where this process does. `-c` rather than PYTHONPATH, so that an add-on's
# folder that is called like a module of the standard library does not come before it.
_BOOT = (
    "import runpy, sys; sys.path.extend(p for p in sys.argv.pop(1).split(chr(10)) if p not in sys.path); "
    "runpy.run_module('{name}.sidecar', run_name='__main__', alter_sys=True)"
)
_started: list[subprocess.Popen[bytes]] = []  # kept so that one that ends is reaped by `poll`


def folder(home: Path) -> Path:
    """The sidecar's own folder."""
    return home / "sidecar"


def read_address(home: Path) -> tuple[str, str] | None:
    """Base URL and token of the sidecar that last wrote them; it may be gone."""
    try:
        address = json.loads((folder(home) / "address.json").read_text(encoding="utf-8"))
        return str(address["url"]), str(address["token"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def health(address: tuple[str, str] | None) -> dict[str, Any] | None:
    """What the sidecar at `address` says of itself, or None if none is there."""
    if address is None:
        return None
    try:
        reply = ask(*address, "/health")
        answer = reply.json() if reply.is_success else None
    except (httpx.HTTPError, ValueError):
        return None
    # Another server may have the port by now
    return answer if isinstance(answer, dict) and {"version", "busy"} <= answer.keys() else None


def ask(url: str, token: str, path: str) -> httpx.Response:
    """One question to a sidecar, wherever it is.

    Raises:
        httpx.HTTPError: it does not answer.
    """
    ours = urlsplit(url).hostname in LOOPBACK  # no proxy leads to this computer
    with httpx.Client(timeout=5, trust_env=not ours) as client:
        return wire.get(client, f"{url}{path}", headers={"Authorization": f"Key {token}"})


def stop(home: Path) -> bool:
    """Ask the sidecar to end; True if one was there. Unfinished jobs stay on its disk for the next one."""
    address = read_address(home)
    state = health(address)
    if address is None or state is None:
        return False
    _order(address, "/shutdown")
    lock = FileLock(folder(home) / "lock")  # free when the process has gone
    deadline = time.monotonic() + 10
    while not lock.acquire() and time.monotonic() < deadline:
        time.sleep(0.02)
    lock.release()
    _reap()
    return True


def unload(home: Path) -> bool:
    """Have the sidecar give back the memory that an idle engine holds; True if one did. None is started for that."""
    address = read_address(home)
    if address is None or health(address) is None:
        return False
    reply = _order(address, "/unload")
    return reply is not None and reply.is_success and bool(reply.json()["unloaded"])


def _order(address: tuple[str, str], path: str) -> httpx.Response | None:
    """Have the sidecar do something; None where it has just ended by itself."""
    url, token = address
    with httpx.Client(timeout=10, trust_env=False) as client, suppress(httpx.TransportError):
        return client.post(f"{url}{path}", headers={"Authorization": f"Key {token}"})
    return None


def _reap() -> None:
    """Let go of started processes that have ended, so that none stays as a zombie."""
    _started[:] = [process for process in _started if process.poll() is None]


def ensure(home: Path) -> tuple[str, str]:
    """Base URL and token of a sidecar that answers; starts one where there is none.

    Raises:
        SidecarError: it does not start; with the last lines of its log.
    """
    address = read_address(home)
    state = health(address)
    if address and state and (state["version"] == __version__ or state["busy"]):
        return address
    if state:  # left over from before an update, and idle
        stop(home)
    return _start(home)


def _start(home: Path) -> tuple[str, str]:
    _reap()
    place = folder(home)
    try:
        place.mkdir(parents=True, exist_ok=True)
        with (place / "start.log").open("wb") as log:
            process = subprocess.Popen(
                _command(place),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=_environment(),
                cwd=place,
                **_detached(),
            )
    except OSError as error:
        raise SidecarError(f"The local process cannot be started: {error}.") from error
    _started.append(process)
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        address = read_address(home)
        if health(address) and address:
            return address
        # It ends with 0 when another one came first: then that one's address is about to appear
        if process.poll() not in (None, 0):
            break
        time.sleep(0.05)
    if process.poll() == 0:
        raise SidecarError(
            f"Another local process holds the lock in {place} and cannot be reached. End it, or restart the computer."
        )
    words = (place / "start.log").read_text(encoding="utf-8", errors="replace").strip().splitlines()
    last = words[-1] if words else f"exit code {process.poll()}"
    raise SidecarError(f"The local process does not start: {last} (log: {place / 'start.log'}).")


def _command(place: Path) -> list[str]:
    paths = "\n".join([str(_PACKAGE.parent), *sys.path])
    boot = _BOOT.format(name=_PACKAGE.name)
    return [sys.executable, "-c", boot, paths, "--folder", str(place)]


def _environment() -> dict[str, str]:
    """Without keys: the sidecar has no use for them, and makes its own token."""
    return {name: value for name, value in os.environ.items() if name not in SECRETS}


def _detached() -> dict[str, Any]:
    if sys.platform == "win32":
        flags = subprocess.CREATE_NO_WINDOW | subprocess.CREATE_NEW_PROCESS_GROUP
        return {"creationflags": flags}
    return {"start_new_session": True}


class SidecarService(QueueService):
    """The sidecar, started when needed and started again when it is gone; or the server that was set in its place."""

    repeatable = True
    poll_seconds = (0.05, 0.5)
    name = "The local process"

    def __init__(self, config: Config) -> None:
        super().__init__(config.sidecar_url, config.sidecar_token)
        self._home = config.shared
        self._given = bool(config.sidecar_url)
        if self._given:
            self.name = urlsplit(config.sidecar_url).netloc
        # One that does not come back in as many starts will not; a server is started again by whoever runs it, sooner or later
        self.attempts = None if self._given else 5
        self._starting = asyncio.Lock()

    async def ready(self) -> None:
        """Start the sidecar, if need be."""
        await self._address()

    async def _address(self) -> tuple[str, str]:
        if not self._base_url:
            async with self._starting:
                if not self._base_url:
                    self._base_url, self._key = await asyncio.to_thread(ensure, self._home)
        return self._base_url, self._key

    async def _send(self, method: str, url: str, **more: Any) -> httpx.Response:
        try:
            reply = await super()._send(method, url, **more)
        except httpx.TransportError:
            self._forget_address()
            raise
        if reply.status_code == 401 and not self._given:
            # Another sidecar took the port of one that is gone, and has taken on nothing
            self._forget_address()
            reply = await super()._send(method, url, **more)
        return reply

    def _forget_address(self) -> None:
        if not self._given:
            self._base_url = ""

    async def collected(self, ticket: Ticket) -> None:
        """Tell the sidecar that it need not keep the job any longer."""
        await self._ask("DELETE", ticket.response_url)

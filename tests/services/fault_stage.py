# SPDX-License-Identifier: GPL-3.0-or-later
"""Makes the faults of `fault_table.py` happen to a real runner: stand-ins of the services with gates in front of them, a host of
files that breaks off, servers without trust, and another origin that must never see a key."""

from __future__ import annotations

import asyncio
import json
import re
import socket
import ssl
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, replace
from email.message import Message
from pathlib import Path
from typing import Any

import httpx
import pytest

from blender_trellis.config import Config
from blender_trellis.errors import TrellisError
from blender_trellis.generation.carrier import Carrier
from blender_trellis.generation.job import Event, Job
from blender_trellis.generation.journal import Spent
from blender_trellis.generation.request import Request
from blender_trellis.generation.runner import Runner
from blender_trellis.services import wire
from blender_trellis.services.fal import FalService
from blender_trellis.services.runware import RunwareService
from gate import Gate
from local_server import LocalServer
from services import fault_table as table
from services.fault_table import (
    BALANCE,
    CANCEL,
    DOWNLOAD,
    POLL,
    PRICE,
    RESULT,
    SUBMIT,
    Act,
    Asks,
    At,
    Cancels,
    Cell,
    Goes,
    Limit,
    Serves,
    Via,
)
from services.file_host import FileHost, Serve
from services.standin import Call, Reply, StandIn

WAIT = 60
SELF_SIGNED = Path(__file__).parents[1] / "data" / "self_signed.pem"


@dataclass(frozen=True)
class Column:
    """How the stage finds its way about a service: its endpoint, the settings that hold its addresses, and what each step looks
    like there (host, pattern, how many such requests come before it)."""

    endpoint: str
    settings: dict[str, tuple[str, str]]  # by host: the setting, and the path after the origin
    steps: dict[str, tuple[str, str, int]]
    scheme: str
    charge: float  # what the stand-in says that one result costs


COLUMNS = {
    "fal": Column(
        endpoint="fal-ai/trellis-2",
        settings={"queue": ("fal_queue_url", ""), "api": ("fal_api_url", "/v1")},
        steps={
            SUBMIT: ("queue", "^POST /fal-ai/", 0),
            POLL: ("queue", "^GET .*/status", 0),
            RESULT: ("queue", "^GET .*/requests/[^/]+$", 0),
            CANCEL: ("queue", "^PUT", 0),
            DOWNLOAD: ("queue", "^GET /own/", 0),
            PRICE: ("api", "^GET /v1/models/pricing", 0),
            BALANCE: ("api", "^GET /v1/account/billing", 0),
        },
        scheme="Key",
        charge=0.30,
    ),
    "runware": Column(
        endpoint="runware/trellis-2",
        settings={"api": ("runware_url", "/v1")},
        steps={
            SUBMIT: ("api", " 3dInference$", 0),
            POLL: ("api", " getResponse$", 0),
            RESULT: ("api", " getResponse$", 2),  # at work, done, and once more for the result
            PRICE: ("api", " dry run$", 0),
            BALANCE: ("api", " accountManagement$", 0),
        },
        scheme="Bearer",
        charge=0.0256,
    ),
}


class Elsewhere(StandIn):
    """Another origin: serves a model to whoever asks, and remembers with what."""

    HOSTS = ("elsewhere",)

    def __init__(self, file: bytes) -> None:
        super().__init__()
        self.file = file

    def answer(self, call: Call) -> Reply:
        return Reply(200, self.file, {"content-type": "model/gltf-binary"})


@dataclass
class Played:
    """What came of it. `sent` counts the submits, `accepted` are the service's ids of the jobs that it took on, `calls` all
    that reached it. `leftovers` are files beside the results."""

    job: Job
    error: TrellisError | None
    events: list[Event]
    spent: list[Spent]
    sent: int
    accepted: list[str]
    calls: list[Call]
    fetches: list[Call]
    elsewhere: list[Call]
    kept: list[bytes]
    leftovers: list[Path]

    @property
    def messages(self) -> list[str]:
        """All that was told."""
        noted = [self.job.error["message"]] if self.job.error else []
        return noted + [event.message for event in self.events]


class Stage:
    """One service, and the runner that asks it. `key` is the key that the service takes."""

    def __init__(
        self,
        service: str,
        standin: Any,
        files: tuple[bytes, bytes],
        picture: Path,
        patch: pytest.MonkeyPatch,
    ) -> None:
        self.service, self.column = service, COLUMNS[service]
        self.standin, self.picture, self._patch = standin, picture, patch
        self.file, self.other_file = files
        self.config = Config.load()
        self.key = self.config.fal_key if service == "fal" else self.config.runware_key
        self.pauses: list[float] = []
        self._gates: dict[str, Gate] = {}
        self.request = Request(self.column.endpoint, [picture], {"seed": 7})
        # Called when the job has ended, before the runner is closed
        self.look: Callable[[], object] = lambda: None
        self._cancels: list[tuple[threading.Event, threading.Event]] = []
        self._hurry()

    def _hurry(self) -> None:
        """Only the pauses are shortened; what the services asked for is kept in `pauses`."""

        async def pause(attempt: int, error: Any) -> None:
            self.pauses.append(error.pause)
            await asyncio.sleep(0)

        self._patch.setattr(Carrier, "_pause", staticmethod(pause))
        for kind in (FalService, RunwareService):
            self._patch.setattr(kind, "poll_seconds", (0.001, 0.002))

    def play(self, cell: Cell) -> Played:
        """Let a job meet a fault, to its end."""
        with self.set_up(cell[:-1]):
            return self.start()

    def start(self) -> Played:
        """Carry the job out."""
        with closing(Runner(self.config)) as runner:
            return self._follow(runner, runner.submit(self.request, table.JOB))

    def resume(self) -> Played:
        """Go on with what is left of the job, in another runner."""
        with closing(Runner(self.config)) as runner:
            (job,) = runner.resume()
            return self._follow(runner, job.id)

    @contextmanager
    def set_up(self, acts: Sequence[Act]) -> Iterator[None]:
        """The service with what goes wrong there; `config` leads to it."""
        with ExitStack() as opened:
            self._elsewhere = opened.enter_context(Elsewhere(self.file))
            self._host = opened.enter_context(FileHost(self.file))
            for host, (setting, path) in self.column.settings.items():
                gate = opened.enter_context(Gate(self.standin.url(host), _label))
                self._gates[host] = gate
                self.config = replace(self.config, **{setting: gate.url + path})
            for act in acts:
                self._arrange(act, opened)
            yield

    def _follow(self, runner: Runner, job_id: str) -> Played:
        events: list[Event] = []
        error = None
        while self._cancels:
            reached, go_on = self._cancels.pop(0)
            assert reached.wait(WAIT)
            runner.cancel(job_id)
            go_on.set()
        try:
            runner.wait(job_id, events.append, WAIT)
        except TrellisError as caught:
            error = caught
        self.look()
        host, pattern, _ = self.column.steps[SUBMIT]
        job = runner.journal.get(job_id)
        return Played(
            job=job,
            error=error,
            events=events,
            spent=runner.journal.spent(),
            sent=sum(bool(re.search(pattern, line)) for line in self._gates[host].seen),
            accepted=[*(self.standin.jobs if self.service == "fal" else self.standin.tasks)],
            calls=list(self.standin.calls),
            fetches=list(self._host.calls),
            elsewhere=list(self._elsewhere.calls),
            kept=[Path(path).read_bytes() for path in job.files],
            leftovers=[
                path for path in runner.library.results.iterdir() if str(path) not in job.files
            ],
        )

    # how each part of a fault is made to happen

    def _arrange(self, act: Any, opened: ExitStack) -> None:
        match act:
            case Goes(script=script):
                for name, value in script.items():
                    assert hasattr(self.standin.script, name)
                    setattr(self.standin.script, name, value)
            case Asks(parameters=parameters, max_cost=max_cost):
                self.request = replace(
                    self.request,
                    parameters={**self.request.parameters, **parameters},
                    max_cost=max_cost,
                )
            case At(step, what, times, point, skip):
                host, pattern, before = self.column.steps[step]
                answer = what if isinstance(what, str) else self._response(what)
                self._gates[host].on(pattern, point, lambda: answer, times, before + skip)
            case Cancels():
                self._cancel(act)
            case Serves(serves=serves, origin=origin):
                self._host.serves = [self._filled(serve) for serve in serves] or [Serve()]
                self._serve_at(self._real(origin) or self._host.url)
            case Via(way):
                url = opened.enter_context(_way(way))
                changes = {name: url for name, _ in self.column.settings.values()}
                self.config = replace(self.config, **changes)
            case Limit(file, reply):
                self._patch.setattr(wire, "MAX_RESULT_BYTES", file or wire.MAX_RESULT_BYTES)
                self._patch.setattr(wire, "MAX_REPLY_BYTES", reply or wire.MAX_REPLY_BYTES)

    def _cancel(self, act: Cancels) -> None:
        go_on = threading.Event()
        if act.step == DOWNLOAD:
            self._cancels.append((self._host.held, go_on))
            return
        host, pattern, before = self.column.steps[act.step]
        gate = self._gates[host]
        if act.then == "silence":
            reached = gate.hold(pattern, act.point, 1, before + act.skip)
        else:
            outcome = None if act.then == "reply" else act.then

            def wait() -> str | None:
                assert go_on.wait(WAIT)
                return outcome

            reached = gate.on(pattern, act.point, wait, 1, before + act.skip)
        self._cancels.append((reached, go_on))

    def _serve_at(self, origin: str) -> None:
        """Let results name `origin` in place of the stand-in's own host of files."""
        plain = self.standin.url
        moved = lambda host: origin if host == "files" else plain(host)  # noqa: E731
        self._patch.setattr(self.standin, "url", moved)

    def _real(self, text: str) -> str:
        """`text` with the addresses for which the table has names."""
        front = self._gates[next(iter(self.column.settings))].url
        for name, real in (
            (table.ELSEWHERE, self._elsewhere.url("elsewhere")),
            (table.SERVICE, front),
            (table.KEY, self.key),
        ):
            text = text.replace(name, real)
        return text

    def _bytes(self, data: bytes) -> bytes:
        whole = {b"<the file>": self.file, b"<the other file>": self.other_file}
        return whole.get(data) or self._real(data.decode()).encode()

    def _filled(self, serve: Serve) -> Serve:
        headers = {name: self._real(value) for name, value in serve.headers.items()}
        body = serve.body if serve.body is None else self._bytes(serve.body)
        return replace(serve, headers=headers, body=body)

    def _response(self, reply: Reply) -> httpx.Response:
        headers = {name: self._real(value) for name, value in reply.headers.items()}
        return httpx.Response(
            reply.status,
            headers={"content-type": "application/json", **headers},
            content=self._bytes(table.as_json(reply)),
        )


def _label(headers: Message, body: bytes) -> str:
    """Runware has one path: what is asked is the first task's type."""
    try:
        tasks = json.loads(body)
    except ValueError:
        return ""
    if not isinstance(tasks, list):
        return ""
    return "dry run" if headers["x-runware-dry-run"] else str(tasks[0]["taskType"])


@contextmanager
def _way(way: str) -> Iterator[str]:
    """An address by which no service is reached."""
    if way == "no host":
        yield "https://queue.service.invalid"  # RFC 2606: no such name will ever be known
    elif way == "nobody":
        with socket.socket() as taken:  # bound and not listening: nobody else can open it meanwhile
            taken.bind(("127.0.0.1", 0))
            yield f"http://127.0.0.1:{taken.getsockname()[1]}"
    else:
        with _tls_server(trusted=way != "no tls") as url:
            yield url


@contextmanager
def _tls_server(*, trusted: bool) -> Iterator[str]:
    """A server whose certificate nobody signed, or that speaks plain HTTP behind an https address."""
    server = LocalServer(lambda handler: handler.send_error(501))
    if trusted:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(SELF_SIGNED)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    server.start()
    try:
        yield f"https://127.0.0.1:{server.server_port}"
    finally:
        server.stop()

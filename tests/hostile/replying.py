# SPDX-License-Identifier: GPL-3.0-or-later
"""Mutated replies through the clients of both services: a real runner asks the stand-ins over HTTP, and one to three of the
replies of each job come back as something else. Then the service answers well again, so that every job must come to an end."""

from __future__ import annotations

import json
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from random import Random
from typing import Any
from unittest import mock
from urllib.parse import parse_qsl, urlsplit

import httpx

from blender_trellis.config import Config
from blender_trellis.errors import TrellisError
from blender_trellis.generation.carrier import Carrier
from blender_trellis.generation.job import Job, State
from blender_trellis.generation.request import Request
from blender_trellis.generation.runner import Runner
from blender_trellis.services import wire
from blender_trellis.services.fal import FalService
from blender_trellis.services.runware import RunwareService
from hostile.glb_mutations import good
from hostile.mutations import mutated, spoiled, text_of
from hostile.tally import ACCEPTED, CRASHED, HUNG, LOST, REFUSED, UNCERTAIN, Tally
from local_server import LocalServer
from services import fal_standin, runware_standin
from services.fal_standin import FalStandIn
from services.runware_standin import RunwareStandIn
from services.standin import Call, Reply

CANCELLED, RESUMABLE, TWICE, KEY_TOLD = "cancelled", "can be resumed", "sent twice", "key told"
COLUMNS = (ACCEPTED, REFUSED, CANCELLED, UNCERTAIN, RESUMABLE, CRASHED, HUNG, LOST, TWICE, KEY_TOLD)
SECONDS = 60.0  # that one job may take
REQUESTS = 150  # that one job may send
_LONGEST = 1500  # letters of a message
_PATIENCE = 60  # messages, after which who waits gives up
_OFTEN = 3  # what is said as often may be believed: that a job is not known, that a model is not where it should be

_STATUSES = [
    100, 102, 199, 201, 202, 203, 204, 205, 206, 226, 300, 301, 302, 304, 307, 308, 400, 401, 402, 403, 404, 405, 406,
    408, 409, 410, 411, 412, 413, 414, 415, 416, 418, 421, 422, 423, 424, 425, 426, 428, 429, 431, 451, 499, 500, 501,
    502, 503, 504, 505, 507, 508, 511, 520, 524, 529, 599, 600, 999,
]  # fmt: skip
_PAGE = (
    b"<html><head><title>502 Bad Gateway</title></head><body><center>nginx</center></body></html>"
)
_HEADERS: dict[str, list[str]] = {
    "retry-after": ["0", "-1", "1e9", "\u00b2", "99999999999999999999", "Wed, 21 Oct 2026 07:28:00 GMT", ""],
    "content-type": [
        "text/html", "application/json; charset=utf-16", "application/json; charset=base64", "text/plain; charset=undefined",
        "application/json; charset=idna", "application/json; charset=", "application/json; charset=rot13", "", "\u00ff",
        "application/json; charset=unicode_escape", "multipart/form-data", "text/plain; charset=x" + "y" * 300,
    ],
    "content-encoding": ["gzip", "deflate", "br", "zstd", "gzip, gzip", "identity", "nonsense"],
    "location": ["http://[", "//", "https://elsewhere.example/", "http://127.0.0.1:1/", "file:///etc/passwd", "", "\u00e9"],
    "x-fal-request-id": ["", "x" * 500, "../..", "\u00e9"],
    "x-fal-billable-units": ["nan", "inf", "-inf", "-1", "1e308", "1e-320", "many", "", "0x10", "1_0"],
    "x-fal-error-type": ["", "x" * 500],
    "set-cookie": ["a=b; Domain=.example"],
    "content-range": ["bytes 0-0/1", "bytes */*", "x"],
    "etag": ['"x"', "W/", "\u00e9"],
    "content-disposition": ['attachment; filename="../../x"'],
}  # fmt: skip
_FRAMES = [
    "short",
    "long",
    "chunked",
    "bad chunks",
    "garbage",
    "no end of headers",
    "nothing",
    "two lengths",
    "http/0.9",
]


@dataclass
class Spoil:
    """What is done to the replies of one kind (`step`): to `times` of them, after `skip` others."""

    step: str
    way: str
    random: Random
    skip: int = 0
    times: int = 1
    met: int = 0

    def hits(self, step: str) -> bool:
        if step != self.step or self.times == 0:
            return False
        if self.skip:
            self.skip -= 1
            return False
        self.times -= 1
        self.met += 1
        return True


@dataclass
class Said:
    """A reply as it went out, to a question of a kind (`step`)."""

    step: str
    spoiled: bool
    data: bytes

    @property
    def status(self) -> int:
        """0 where it is no HTTP."""
        found = re.match(rb"HTTP/1.1 (\d+) ", self.data)
        return int(found[1]) if found else 0

    @property
    def headers(self) -> bytes:
        return self.data.partition(b"\r\n\r\n")[0].lower()

    @property
    def content(self) -> bytes:
        return self.data.partition(b"\r\n\r\n")[2]

    @property
    def answer(self) -> dict[str, Any]:
        """Its JSON object; an empty one where it is none."""
        try:
            answer = json.loads(self.content)
        except (ValueError, RecursionError):
            answer = None
        return answer if isinstance(answer, dict) else {}


class Crooked:
    """Stands before a stand-in, and spoils its replies. A context manager; `spoils` are those for the job at work, `said` all
    that was replied about it."""

    def __init__(self, standin: Any, step_of: Callable[[Call], str]) -> None:
        self.standin, self._step_of = standin, step_of
        self.spoils: list[Spoil] = []
        self.said: list[Said] = []
        self.seen: Counter[str] = Counter()
        self.keys_elsewhere = 0
        for server in standin._servers.values():
            server.server_close()
        standin._servers = {host: LocalServer(partial(self._serve, host)) for host in standin.HOSTS}

    def __enter__(self) -> Crooked:
        self.standin.__enter__()
        return self

    def __exit__(self, *details: object) -> None:
        self.standin.__exit__(*details)

    def _serve(self, host: str, handler: BaseHTTPRequestHandler) -> None:
        parts = urlsplit(handler.path)
        body = handler.rfile.read(int(handler.headers.get("content-length", 0)))
        headers = {name.lower(): value for name, value in handler.headers.items()}
        query = dict(parse_qsl(parts.query, keep_blank_values=True))
        call = Call(host, handler.command, parts.path, query, headers, body)
        with self.standin.lock:
            step = self._step_of(call)
            self.seen[step] += 1
            self.keys_elsewhere += host in ("files", "upload") and "authorization" in headers
            spoil = next((each for each in self.spoils if each.hits(step)), None)
            data = self._answer(call, spoil)
            self.said.append(Said(step, spoil is not None, data))
        with suppress(OSError):
            handler.wfile.write(data)
        handler.close_connection = handler.close_connection or spoil is not None

    def _answer(self, call: Call, spoil: Spoil | None) -> bytes:
        if spoil is None:
            return _raw(self.standin.answer(call))
        random = spoil.random
        if spoil.way == "busy":  # said in the service's stead, which has not heard of it
            return _raw(random.choice([Reply(429, {}), Reply(502, _PAGE), Reply(503, _PAGE)]))
        return _WAYS[spoil.way](random, self.standin.answer(call), call)


def _raw(reply: Reply, **more: str) -> bytes:
    content = reply.body if isinstance(reply.body, bytes) else json.dumps(reply.body).encode()
    headers = {
        "content-type": "application/json",
        **reply.headers,
        "content-length": str(len(content)),
        **more,
    }
    return _head(reply.status, headers) + content


def _head(status: int, headers: dict[str, str]) -> bytes:
    lines = [f"HTTP/1.1 {status} Odd", *(f"{name}: {value}" for name, value in headers.items())]
    return "\r\n".join([*lines, "", ""]).encode("latin-1", "replace")


def _content(reply: Reply) -> bytes:
    return reply.body if isinstance(reply.body, bytes) else json.dumps(reply.body).encode()


def _tree(random: Random, reply: Reply, _: Call) -> bytes:
    if isinstance(reply.body, bytes):
        return _bytes(random, reply, _)
    body = mutated(random, reply.body, random.choice([1, 1, 1, 2, 4]))
    return _raw(Reply(reply.status, text_of(random, body), reply.headers))


def _bytes(random: Random, reply: Reply, _: Call) -> bytes:
    return _raw(Reply(reply.status, spoiled(random, _content(reply)), reply.headers))


def _status(random: Random, reply: Reply, call: Call) -> bytes:
    status = random.choice(_STATUSES)
    body = random.choice(
        [
            reply.body,
            reply.body,
            _PAGE,
            b"",
            {"detail": "No."},
            {"errors": [{"code": "x", "message": "No."}]},
        ]
    )
    if call.method == "POST" and (status == 429 or body is _PAGE):
        body, status = (
            b"",
            500,
        )  # those that say that nothing was taken on are given as "busy" alone
    return _raw(Reply(status, body, reply.headers))


def _headers(random: Random, reply: Reply, _: Call) -> bytes:
    name = random.choice(list(_HEADERS))
    status = random.choice([reply.status, reply.status, 302, 500, 400, 404])
    odd = {name: random.choice(_HEADERS[name])}
    return _raw(Reply(status, reply.body, {**reply.headers, **odd}))


def _frame(random: Random, reply: Reply, _: Call) -> bytes:
    """HTTP itself, broken."""
    content, frame = _content(reply), random.choice(_FRAMES)
    chunk = b"%x\r\n%b\r\n" % (len(content), content)
    match frame:
        case "short":
            return _raw(reply, **{"content-length": str(len(content) // 2)})
        case "long":
            return _raw(reply, **{"content-length": str(len(content) + random.choice([1, 2**40]))})
        case "chunked" | "bad chunks":
            head = _head(reply.status, {**reply.headers, "transfer-encoding": "chunked"})
            return head + (chunk + b"0\r\n\r\n" if frame == "chunked" else chunk[:-5] + b"zz\r\n")
        case "garbage":
            return random.randbytes(random.choice([1, 100, 70_000]))
        case "no end of headers":
            return b"HTTP/1.1 200 OK\r\n" + b"x-more: y\r\n" * 20_000
        case "two lengths":
            return _raw(reply, **{"content-length": f"{len(content)}, {len(content) + 1}"})
        case "http/0.9":
            return content
    return b""


def _page(random: Random, reply: Reply, call: Call) -> bytes:
    """A proxy's page, which may repeat what it was asked."""
    told = "\n".join(f"{name}: {value}" for name, value in call.headers.items())
    status = random.choice([200, 400, 403, 404, 500, 511])
    kind = random.choice(["text/html", "text/plain", "application/json"])
    body = random.choice(
        [
            told,
            json.dumps({"detail": told}),
            json.dumps({"error": {"message": told}, "status": told}),
        ]
    )
    return _raw(Reply(status, body.encode(), {"content-type": kind}))


def _large(random: Random, reply: Reply, _: Call) -> bytes:
    text = random.choice(["x", "人", " ", "[", "\\ud800"]) * random.choice([10**4, 10**6])
    return _raw(
        Reply(
            reply.status, random.choice([text, f'{{"detail": "{text}"}}']).encode(), reply.headers
        )
    )


_WAYS: dict[str, Callable[[Random, Reply, Call], bytes]] = {
    "tree": _tree, "bytes": _bytes, "status": _status, "headers": _headers, "frame": _frame, "page": _page, "large": _large,
}  # fmt: skip
_SHARES = (
    ["tree"] * 9
    + ["status"] * 3
    + ["headers"] * 3
    + ["frame"] * 2
    + ["bytes", "page", "large", "busy"]
)


def _fal_step(call: Call) -> str:
    if call.host == "queue":
        if call.method == "PUT":
            return "cancel"
        return (
            "submit"
            if call.method == "POST"
            else "status"
            if call.path.endswith("/status")
            else "result"
        )
    return (
        "list" if call.path.endswith("by-endpoint") else "price" if call.host == "api" else "file"
    )


def _runware_step(call: Call) -> str:
    if call.host == "files":
        return "file"
    kind = json.loads(call.body)[0]["taskType"]
    dry = "x-runware-dry-run" in call.headers
    return "price" if dry else {"3dInference": "submit", "getResponse": "status"}.get(kind, kind)


SERVICES: dict[str, tuple[str, type[Any], Callable[[Call], str], str]] = {
    "fal": ("fal-ai/trellis-2", FalStandIn, _fal_step, fal_standin.KEY),
    "runware": ("runware/trellis-2", RunwareStandIn, _runware_step, runware_standin.KEY),
}
_STEPS = {
    "fal": ["submit"] * 4 + ["status"] * 3 + ["result"] * 4 + ["file"] * 2 + ["price", "cancel"],
    "runware": ["submit"] * 4 + ["status"] * 6 + ["file"] * 2 + ["price"],
}


def plan(service: str, random: Random) -> list[Spoil]:
    """What goes wrong in one job."""
    spoils = []
    for _ in range(random.choice([1, 1, 1, 2, 3])):
        step, way = random.choice(_STEPS[service]), random.choice(_SHARES)
        spoils.append(
            Spoil(step, way, random, random.choice([0, 0, 0, 0, 1]), random.choice([1, 1, 2, 3]))
        )
    if service == "fal" and any(spoil.step == "submit" for spoil in spoils):
        spoils.append(Spoil("list", random.choice(_SHARES), random))
    return spoils


@contextmanager
def _hurry() -> Iterator[None]:
    """Only the pauses are shortened, and how long a silent line is listened to."""

    async def pause(attempt: int, error: Any) -> None:
        float(error.pause)

    real = wire.open_client

    def open_client(base_url: str) -> httpx.AsyncClient:
        client = real(base_url)
        client.timeout = httpx.Timeout(5)
        return client

    quick = (0.0005, 0.001)
    with (
        mock.patch.object(Carrier, "_pause", staticmethod(pause)),
        mock.patch.object(FalService, "poll_seconds", quick),
        mock.patch.object(RunwareService, "poll_seconds", quick),
        mock.patch.object(wire, "open_client", open_client),
    ):
        yield


def fuzz(service: str, count: int, seed: int, folder: Path, picture: Path, keep: Path) -> Tally:
    """Carry out jobs until `count` replies were spoiled; what must not be is kept in `keep` by number and seed."""
    endpoint, standin, step_of, key = SERVICES[service]
    tally = Tally(service, keep)
    with Crooked(standin(), step_of) as crooked, _hurry():
        crooked.standin.glb = good()[0]
        config = _config(service, crooked.standin, folder / service, key)
        with closing(Runner(config)) as runner:
            number = 0
            while tally.inputs < count:
                number += 1
                random = Random(f"{service} {seed} {number}")
                _play(
                    tally,
                    crooked,
                    runner,
                    _Trial(service, seed, number, random, endpoint, picture, key),
                )
    if crooked.keys_elsewhere:
        tally.findings.append(f"{KEY_TOLD}: to hosts of files, {crooked.keys_elsewhere} times")
    return tally


def _config(service: str, standin: Any, home: Path, key: str) -> Config:
    if service == "runware":
        return Config(home, shared=home, runware_url=standin.base, runware_key=key)
    urls = {"fal_queue_url": standin.url("queue"), "fal_rest_url": standin.url("rest")}
    return Config(home, shared=home, fal_api_url=f"{standin.url('api')}/v1", fal_key=key, **urls)


@dataclass
class _Trial:
    service: str
    seed: int
    number: int
    random: Random
    endpoint: str
    picture: Path
    key: str
    messages: list[str] = field(default_factory=list)


def _play(tally: Tally, crooked: Crooked, runner: Runner, trial: _Trial) -> None:
    standin = crooked.standin
    with standin.lock:
        _forget(standin)
        crooked.seen.clear()
        crooked.said.clear()
        crooked.spoils = plan(trial.service, trial.random)
    cancels = trial.random.random() < 0.1 or any(each.step == "cancel" for each in crooked.spoils)
    capped = {"max_cost": 5.0} if any(each.step == "price" for each in crooked.spoils) else {}
    request = Request(trial.endpoint, [trial.picture], {"seed": 7}, **capped)
    job_id = runner.submit(request)
    started, error = time.monotonic(), None
    asked = threading.Event()

    def show(event: Any) -> None:
        trial.messages.append(event.message)
        # A model at an address where nobody answers is fetched for as long as somebody waits for it
        given_up = event.state is State.DOWNLOADING and len(trial.messages) > _PATIENCE
        if (given_up or (cancels and event.state is State.RUNNING)) and not asked.is_set():
            asked.set()
            runner.cancel(job_id)

    try:
        runner.wait(job_id, show, SECONDS)
    except TrellisError as caught:
        error = caught
    job = runner.journal.get(job_id)
    tally.inputs += sum(each.met for each in crooked.spoils)
    way = next((each.step for each in crooked.spoils if each.met), "none in time")
    slow = time.monotonic() - started > SECONDS
    outcome, words = _judge(crooked, trial, job, error, slow)
    told = f"{words} [{trial.service} {trial.seed} {trial.number}] {error!r:.300}"
    if outcome in (ACCEPTED, REFUSED, CANCELLED, UNCERTAIN, RESUMABLE):
        tally.add(way, outcome)
    else:
        tally.bad(way, outcome, told, told.encode())
    for path in job.files:
        Path(path).unlink(missing_ok=True)


def _forget(standin: Any) -> None:
    """All of the job before."""
    for name in ("jobs", "tasks", "files"):
        getattr(standin, name, {}).clear()
    standin.submits.clear()


def _judge(
    crooked: Crooked, trial: _Trial, job: Job, error: TrellisError | None, slow: bool
) -> tuple[str, str]:
    """The outcome, and what is wrong with it."""
    standin = crooked.standin
    said = [*trial.messages, json.dumps(job.error or {}), error.message if error else ""]
    accepted = [*(standin.jobs if trial.service == "fal" else standin.tasks)]
    if any(trial.key in words for words in said):
        return KEY_TOLD, "in a message"
    if len(accepted) > 1:
        return TWICE, f"{len(accepted)} jobs"
    if slow or crooked.seen.total() > REQUESTS:
        return HUNG, f"{crooked.seen}"
    if error and type(error) is TrellisError:
        return CRASHED, ""
    if error and not (5 < len(error.message) < _LONGEST):
        return CRASHED, f"a message of {len(error.message)} letters"
    if accepted and (wrong := _lost(crooked, trial, job, accepted[0])):
        return LOST, wrong
    if accepted and job.state is State.FAILED and not _told_to_fail(crooked, trial.service, job):
        return LOST, "a model that is there"
    return _ended(job, error)


def _lost(crooked: Crooked, trial: _Trial, job: Job, request_id: str) -> str:
    """Whether a job that the service has is known here by its id, unless the reply that named it was spoiled."""
    spoiled_submit = any(each.met and each.step == "submit" for each in crooked.spoils)
    if trial.service == "runware":
        return (
            "" if job.request_id in (None, job.id) and request_id == job.id else f"{job.request_id}"
        )
    if spoiled_submit:
        return "an id that is none" if job.request_id in ("None", "", "{}", "[]", "True") else ""
    return "" if job.request_id == request_id else f"{job.request_id} is not {request_id}"


def _told_to_fail(crooked: Crooked, service: str, job: Job) -> bool:
    """Whether the service itself said that it did not take the job, that it failed, or, often enough, that it is not there."""
    refuses, fails, result = _WHAT_IS_SAID[service]
    if any(refuses(each) if each.step == "submit" else fails(each, job) for each in crooked.said):
        return True
    model = crooked.standin.glb
    missing = sum(each.status == 404 and each.step in ("status", "result") for each in crooked.said)
    astray = sum(
        each.spoiled or (each.step == "file" and (each.status, each.content) != (200, model))
        for each in crooked.said
        if each.step in (result, "file")
    )
    return missing > _OFTEN or astray >= _OFTEN


def _refused(said: Said) -> bool:
    """With a 408 too: it did not come as a whole (RFC 9110)."""
    return 300 <= said.status < 500 and said.status != 429


def _fails_at_fal(said: Said, _: Job) -> bool:
    """A status with an error; or an error in place of the result, with fal's id of the request or in fal's form, which is not
    about who asks."""
    if said.step == "status":
        return isinstance(said.answer.get("error"), str)
    about_it = said.status >= 400 and said.status not in (401, 403, 404, 408, 409, 429)
    shaped = not {"detail", "error", "error_type"}.isdisjoint(said.answer)
    return said.step == "result" and about_it and (b"x-fal-request-id" in said.headers or shaped)


def _fails_at_runware(said: Said, job: Job) -> bool:
    """An error that names the task, or a variation that has ended with one."""
    errors, items = (_objects(said.answer.get(name)) for name in ("errors", "data"))
    ended = [each for each in items if each.get("status") == "error"]
    return any(each.get("taskUUID") == job.id for each in errors + ended)


def _objects(value: Any) -> list[dict[str, Any]]:
    every = value if isinstance(value, list) else [value]
    return [each for each in every if isinstance(each, dict)]


# By service: what refuses a submit, what tells of a job's failure, and which step tells where the model is
_WHAT_IS_SAID: dict[str, tuple[Callable[[Said], bool], Callable[[Said, Job], bool], str]] = {
    "fal": (_refused, _fails_at_fal, "result"),
    "runware": (
        lambda said: _refused(said) or bool({"errors", "error"} & said.answer.keys()),
        _fails_at_runware,
        "status",
    ),
}


def _ended(job: Job, error: TrellisError | None) -> tuple[str, str]:
    if job.state is State.READY:
        return (ACCEPTED, "") if error is None and job.files else (CRASHED, "ready, with an error")
    if error is None:
        return CRASHED, f"{job.state} without an error"
    if job.state is State.FAILED:
        return REFUSED, ""
    if job.state is State.CANCELLED:
        return CANCELLED, ""
    if job.state is State.UNCERTAIN:
        return UNCERTAIN, ""
    return (RESUMABLE, "") if error.exit_code in (1, 2, 4) else (CRASHED, f"left as {job.state}")

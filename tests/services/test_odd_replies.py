# SPDX-License-Identifier: GPL-3.0-or-later
"""Single answers in which a fuzzer found what no client of ours could bear (tests/hostile)."""

from __future__ import annotations

import asyncio
import gzip
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest

from blender_trellis.config import Config
from blender_trellis.errors import ResultError, UncertainError, UnreachableError
from blender_trellis.services import Submission, Ticket, wire
from blender_trellis.services.fal import FalService
from blender_trellis.services.queue import said
from blender_trellis.services.runware import RunwareService
from services.fal_standin import FalStandIn
from services.runware_standin import RunwareStandIn
from services.standin import Reply

ASKED = httpx.Request("GET", "https://queue.example/a", headers={"authorization": "Key secret-key"})
SUBMISSION = Submission("bd373968-8512-4315-a95f-95a4401fea3e", "fal-ai/trellis-2", {})


def _reply(content: bytes | str, status: int = 200, **headers: str) -> httpx.Response:
    named = {name.replace("_", "-"): text for name, text in headers.items()}
    data = content.encode() if isinstance(content, str) else content
    return httpx.Response(status, headers=named, content=data, request=ASKED)


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999", "9" * 30, "9" * 5000])
def test_a_number_that_no_program_holds_is_none(number: str) -> None:
    assert wire.json_object(_reply(f'{{"a": {number}, "b": [1, 0.5]}}')) == {
        "a": None,
        "b": [1, 0.5],
    }


def test_half_a_letter_is_no_obstacle() -> None:
    """No database takes it, nor any file."""
    answer = wire.json_object(_reply('{"message": "a\\ud800b", "whole": "\\ud83d\\ude00 人"}'))
    assert answer == {"message": "a?b", "whole": "\U0001f600 人"}
    json.dumps(answer, ensure_ascii=False).encode()


@pytest.mark.parametrize(
    "charset", ["base64", "undefined", "rot13", "unicode_escape", "x", "utf-16"]
)
def test_a_strange_charset_is_no_obstacle(charset: str) -> None:
    reply = _reply(b"Not now \xff", 502, content_type=f"text/plain; charset={charset}")
    assert wire.excerpt(reply).startswith("Not now")
    assert not wire.refused_by_proxy(reply)


@pytest.mark.parametrize(
    ("wish", "pause"), [("7", 7), ("\u00b2", 0), ("-1", 0), ("1e9", 0), ("9" * 40, 120)]
)
def test_how_long_to_wait_may_be_said_oddly(wish: str, pause: float) -> None:
    reply = httpx.Response(429, headers=[(b"retry-after", wish.encode("latin-1"))], request=ASKED)
    assert wire.later(reply, "x").pause == pause


@pytest.mark.parametrize("location", ["http://[", "//", "http://a:b:c/", ""])
def test_a_redirect_to_nowhere_is_told(location: str) -> None:
    assert wire.excerpt(_reply(b"", 302, location=location))


def test_a_novel_is_cut_short_and_holds_no_key() -> None:
    for body in (
        {"detail": "x" * 9000},
        {"detail": [{"loc": ["body", "y" * 9000], "msg": "secret-key"}]},
    ):
        told = said(_reply(json.dumps(body), 422))
        assert len(told) <= 500 and "secret-key" not in told


def test_a_reason_that_repeats_what_came_is_cut_short() -> None:
    error = httpx.RemoteProtocolError(f"illegal status line: {'x' * 9000}")
    assert 100 < len(wire.why(error)) <= 500


@pytest.mark.parametrize(
    "url", ["http://[", "https://a:99999999/b", "https://a/\x00", "https://a/" + "x" * 70_000]
)
def test_a_model_at_no_address_is_a_result_error(url: str) -> None:
    with pytest.raises(ResultError, match="address for the model that is none"):
        wire.address(url, "https://queue.example")
    assert not wire.trusted("http://[")


@pytest.mark.parametrize(
    ("value", "amount"),
    [
        (0, 0),
        (1.5, 1.5),
        (-1, None),
        (float("nan"), None),
        (1e300, None),
        (True, None),
        ("1", None),
        (10**400, None),
    ],
)
def test_a_charge_is_a_number_that_somebody_charges(value: Any, amount: float | None) -> None:
    assert wire.amount(value) == amount


def _asked(headers: dict[str, str], body: AsyncIterator[bytes]) -> httpx.Response:
    """A reply of this body, as the services' clients take it."""
    transport = httpx.MockTransport(lambda _: httpx.Response(200, headers=headers, content=body))

    async def ask() -> httpx.Response:
        async with httpx.AsyncClient(transport=transport) as client:
            return await wire.send(client, "GET", "https://queue.example/a")

    return asyncio.run(ask())


def test_a_reply_without_an_end_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "MAX_REPLY_BYTES", 3 * 2**20)
    given = []

    async def endless() -> AsyncIterator[bytes]:
        while True:
            given.append(1)
            yield b" " * 2**20

    reply = _asked({}, endless())
    assert wire.json_object(reply) is None
    assert wire.excerpt(reply) == "a reply of more than 3 MiB"
    assert len(given) == 4


def test_a_packed_reply_is_unpacked_and_measured_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "MAX_REPLY_BYTES", 2**20)

    async def packed(data: bytes) -> AsyncIterator[bytes]:
        yield gzip.compress(data)

    headers = {"content-encoding": "gzip", "x-odd": "a"}
    reply = _asked(headers, packed(b'{"a": 1}'))
    assert (wire.json_object(reply), reply.headers["x-odd"]) == ({"a": 1}, "a")
    assert "of more than 1 MiB" in wire.excerpt(_asked(headers, packed(bytes(2**21))))


@contextmanager
def _answering(standin: Any, reply: Reply) -> Iterator[None]:
    standin.answer = lambda call: reply
    yield


@pytest.mark.parametrize(
    "change",
    [
        {"request_id": None},
        {"request_id": ""},
        {"request_id": {}},
        {"status_url": 7},
        {"status_url": "https://elsewhere.example/status"},
        {"response_url": "\n"},
    ],
)
def test_a_ticket_that_is_none_leaves_the_job_uncertain_with_its_id(
    fal: FalStandIn, change: dict[str, Any]
) -> None:
    url = f"{fal.url('queue')}/fal-ai/trellis-2/requests/r-1"
    good = {
        "request_id": "r-1",
        "status_url": f"{url}/status",
        "response_url": url,
        "cancel_url": f"{url}/cancel",
    }
    bad = {
        **good,
        **{name: url + "\n" if value == "\n" else value for name, value in change.items()},
    }

    async def submit() -> Ticket:
        service = FalService(Config.load(), "fal-ai/trellis-2")
        try:
            return await service.submit(SUBMISSION)
        finally:
            await service.close()

    with _answering(fal, Reply(200, good, {"x-fal-request-id": "r-1"})):
        assert asyncio.run(submit()).request_id == "r-1"
    with (
        _answering(fal, Reply(200, bad, {"x-fal-request-id": "r-1"})),
        pytest.raises(UncertainError) as caught,
    ):
        asyncio.run(submit())
    assert caught.value.request_id == "r-1"


def test_an_error_that_is_a_string_is_told(runware: RunwareStandIn) -> None:
    ticket = Ticket(
        "t-1",
        answer={"data": [{"taskUUID": "t-1", "status": "error", "error": "No."}], "errors": []},
    )

    async def result() -> None:
        service = RunwareService(Config.load())
        try:
            await service.result(ticket)
        finally:
            await service.close()

    with pytest.raises(Exception, match="could not make the model: No") as caught:
        asyncio.run(result())
    assert not isinstance(caught.value, UnreachableError)

# SPDX-License-Identifier: GPL-3.0-or-later
"""Every fault of `fault_table.py` at every service, and what a job makes of it."""

from __future__ import annotations

import pytest

from blender_trellis.errors import TrellisError
from blender_trellis.services import check_key
from services.fault_stage import Played, Stage
from services.fault_table import (
    BAD_KEY,
    BALANCE,
    BROKEN,
    BUSY,
    CROWDED,
    DEFECT,
    DOWNLOAD,
    ESTIMATED,
    JOB,
    LOCKED,
    LOGIN,
    MOVED,
    NO_RIGHT,
    POLL,
    RESET,
    SUBMIT,
    TOLD,
    UNAUTHORIZED,
    Act,
    At,
    Cancels,
    Cell,
    Ends,
    Goes,
    Serves,
    cells,
    errors,
    ready,
)
from services.file_host import Serve
from services.standin import Reply


@pytest.mark.parametrize(
    ("service", "cell"),
    [pytest.param(service, cell, id=f"{service}-{name}") for service, name, cell in cells()],
)
def test_what_becomes_of_a_job(stage: Stage, service: str, cell: Cell) -> None:
    played = stage.play(cell)
    ends: Ends = cell[-1]
    kind = played.error.kind if played.error else ""
    assert (played.job.state, kind) == (ends.state, ends.error), played.messages
    assert len(played.accepted) == ends.accepted
    if ends.sent is not None:
        assert played.sent == ends.sent
    _assert_told(played, ends)
    _assert_charged(stage, played, ends)
    _assert_files(stage, played, ends)
    _assert_no_key_elsewhere(stage, played)


def _assert_told(played: Played, ends: Ends) -> None:
    told = played.error.message if played.error else "\n".join(played.messages)
    for words in ends.words:
        assert words in told
    if played.error is None:
        return
    ids = {True: [*played.accepted, JOB][0], False: None}
    assert played.error.request_id == ids.get(ends.told, ends.told)  # type: ignore[call-overload]
    assert played.error.parameter == ends.parameter
    assert played.job.error == played.error.record
    assert told.endswith(".") and ".." not in told  # whole sentences


def _assert_charged(stage: Stage, played: Played, ends: Ends) -> None:
    entered = [(row.amount, row.estimate) for row in played.spent]
    match ends.charge:
        case None:
            expected = []
        case str(words) if words in (TOLD, ESTIMATED):
            expected = [(stage.column.charge, words == ESTIMATED)]
        case str(words):
            expected = [(float(words.removeprefix("about ")), True)]
        case amount:
            expected = [(amount, False)]
    assert entered == [(pytest.approx(amount), estimate) for amount, estimate in expected]


def _assert_files(stage: Stage, played: Played, ends: Ends) -> None:
    file = {"the file": stage.file, "the other file": stage.other_file}[ends.kept]
    assert set(played.kept) == ({file} if ends.state == "ready" else set())
    assert played.leftovers == []
    if ends.fetches is not None:
        asked = [
            f"{call.headers.get('range', '')} {call.headers.get('if-range', '')}".strip()
            for call in played.fetches
        ]
        assert tuple(asked) == ends.fetches


def _assert_no_key_elsewhere(stage: Stage, played: Played) -> None:
    theirs = [call for call in played.calls if call.host in ("files", "upload")]
    for call in [*theirs, *played.fetches, *played.elsewhere]:
        assert "authorization" not in call.headers
        assert stage.key not in repr(call)
    for call in played.calls:
        if call not in theirs:
            assert call.headers["authorization"] == f"{stage.column.scheme} {stage.key}"


@pytest.mark.parametrize("service", ["fal", "runware"])
def test_a_service_may_say_how_long_to_leave_it_alone(stage: Stage, service: str) -> None:
    wishes = [Reply(429, {}, {"retry-after": wish}) for wish in ("7", "86400", "tomorrow")]
    stage.play((*(At(SUBMIT, wish) for wish in wishes), ready()))
    assert stage.pauses == [7, 120, 0]  # two minutes at most; a wish in words is none


@pytest.mark.parametrize("service", ["fal", "runware"])
def test_a_model_whose_download_was_stopped_is_collected_later(stage: Stage, service: str) -> None:
    with stage.set_up([Serves(Serve(until=1000, held=True), Serve()), Cancels(DOWNLOAD)]):
        stage.start()
        collected = stage.resume()
    assert (collected.job.state, collected.kept) == ("ready", [stage.file])
    assert len(collected.accepted) == 1
    assert [row.amount for row in collected.spent] == [stage.column.charge]


KEY_TRIED = {
    # fal is asked for a job that cannot exist: 404 says that the key is good. Only an administrator's may see the balance
    "fal": [
        ([], None, ""),
        ([At(POLL, UNAUTHORIZED)], "AccountError", "refuses the key: invalid key credentials."),
        ([At(POLL, LOCKED)], "AccountError", "Exhausted balance."),
        ([At(POLL, BUSY)], "UnreachableError", "Too many requests."),
        ([At(POLL, BROKEN)], "UnreachableError", "Internal Server Error."),
        ([At(POLL, LOGIN)], "UnreachableError", "a web page"),
        ([At(POLL, MOVED)], "RejectedError", "a redirect to"),
        ([At(POLL, RESET)], "UnreachableError", "does not answer"),
        ([At(BALANCE, Reply(200, {"credits": {"current_balance": 3}}))], 3.0, ""),
        ([At(BALANCE, BROKEN)], None, ""),
        ([At(BALANCE, LOGIN)], None, ""),
        ([At(BALANCE, Reply(200, {"credits": {"current_balance": "many"}}))], None, ""),
    ],
    "runware": [
        ([], 12.34, ""),
        ([Goes(balance_object=False)], 12.34, ""),
        ([At(BALANCE, Reply(200, {"data": [{"balance": "much"}]}))], None, ""),
        ([At(BALANCE, Reply(200, {"data": []}))], None, ""),
        ([At(BALANCE, BAD_KEY)], "AccountError", "refuses the key: Invalid API key."),
        ([At(BALANCE, NO_RIGHT)], "AccountError", "This key may not run models."),
        (
            [At(BALANCE, errors(403, "regionBlocked", "Not from here"))],
            "AccountError",
            "Not from here.",
        ),
        ([At(BALANCE, CROWDED)], "UnreachableError", "Too many tasks."),
        ([At(BALANCE, DEFECT)], "UnreachableError", "Something went wrong."),
        ([At(BALANCE, LOGIN)], "UnreachableError", "a web page"),
        ([At(BALANCE, MOVED)], "UnreachableError", "a redirect to"),
        ([At(BALANCE, RESET)], "UnreachableError", "does not answer"),
    ],
}


@pytest.mark.parametrize(
    ("service", "acts", "outcome", "words"),
    [(service, *row) for service, rows in KEY_TRIED.items() for row in rows],
)
def test_a_key_is_tried(
    stage: Stage, service: str, acts: list[Act], outcome: str | float | None, words: str
) -> None:
    with stage.set_up(acts):
        try:
            found: str | float | None = check_key(service, stage.config).balance
        except TrellisError as error:
            found = error.kind
            assert words in error.message and error.message.endswith(".")
    assert found == outcome
    assert stage.standin.submits == []

# SPDX-License-Identifier: GPL-3.0-or-later
"""Every fault of `fault_table.py` at every service, and what a job makes of it."""

from __future__ import annotations

import pytest
from services.fault_stage import Played, Stage
from services.fault_table import ESTIMATED, JOB, TOLD, Cell, Ends, cells


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

# SPDX-License-Identifier: GPL-3.0-or-later
"""A small share of both fuzzers with a fixed seed; `python build.py fuzz` tries as many as one likes."""

from __future__ import annotations

from pathlib import Path
from random import Random
from typing import Any

import pytest

from blender_trellis.errors import ResultError
from blender_trellis.generation import glb
from hostile import importing, replying
from hostile.glb_mutations import good, make
from hostile.run import subject
from hostile.tally import ACCEPTED, CRASHED, HUNG, LEAKED, LOST, REFUSED
from words import sentences


def test_what_is_not_mutated_passes(tmp_path: Path) -> None:
    for number, data in enumerate(good()):
        path = tmp_path / f"{number}.glb"
        path.write_bytes(data)
        assert glb.check(path).vertices >= 24


def test_mutated_models_are_refused_or_imported(tmp_path: Path) -> None:
    tally = importing.fuzz(60, 1, tmp_path, tmp_path / "kept", real=30)
    assert tally.findings == []
    assert tally.tried == 60
    assert tally.total(REFUSED) > 20 and tally.total(ACCEPTED) > 5


@pytest.mark.parametrize(
    ("told", "outcome"),
    [
        ({"reply": {"blend": "m.blend"}}, ACCEPTED),
        ({"reply": {"error": "ResultError", "message": "No."}}, importing.WORKER_REFUSED),
        ({"reply": {"error": "OutputError", "message": "No."}}, LOST),
        ({"reply": {"error": "ResultError", "message": "No (MemoryError)."}}, CRASHED),
        ({"reply": {"error": "ResultError", "message": f"{importing.UNFORESEEN}'x'"}}, CRASHED),
        ({"signal": 14}, HUNG),
        ({"signal": 11}, importing.DIED),
        ({"reply": {}, "left": ["m.part"]}, LEAKED),
    ],
)
def test_what_became_of_a_model_is_called_what_it_was(told: dict[str, Any], outcome: str) -> None:
    called = importing.outcome_of({"reply": None, "signal": 0, "left": [], **told})
    assert called.partition(":")[0] == outcome
    assert any(text.startswith(importing.UNFORESEEN) for text in sentences()[1])


@pytest.mark.parametrize(
    ("in_the_house", "alone", "outcome"),
    [
        ("", ACCEPTED, ACCEPTED),
        (ACCEPTED, importing.DIED, importing.DIED),
        (importing.DIED, importing.DIED, importing.DIED),
        (importing.DIED, ACCEPTED, CRASHED),
        (HUNG, ACCEPTED, HUNG),
        (f"{LEAKED}: x", ACCEPTED, f"{LEAKED}: x"),
    ],
)
def test_a_second_try_makes_nothing_good(in_the_house: str, alone: str, outcome: str) -> None:
    assert importing._both(in_the_house, alone).startswith(outcome)


def test_the_checker_answers_whatever_it_is_given(tmp_path: Path) -> None:
    """More of them than could be imported here, and each in the words of a ResultError."""
    random, path, refused = Random(2), tmp_path / "model.glb", 0
    for _ in range(600):
        path.write_bytes(make(random)[1])
        try:
            glb.check(path)
        except ResultError as error:
            assert len(error.message) < 400
            refused += 1
    assert 300 < refused < 600


@pytest.mark.parametrize("service", replying.SERVICES)
def test_mutated_replies_end_in_a_state_and_in_words(service: str, tmp_path: Path) -> None:
    picture = subject(tmp_path / "subject.png")
    tally = replying.fuzz(service, 60, 1, tmp_path, picture, tmp_path / "kept")
    assert tally.findings == []
    assert tally.inputs >= 60 and tally.total(ACCEPTED) > 10

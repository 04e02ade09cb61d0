# SPDX-License-Identifier: GPL-3.0-or-later
"""Random histories of the journal (journal_model.py), and real processes that are killed while they write."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from blender_trellis.generation.job import MOVES, Job, State
from blender_trellis.generation.journal import Journal
from harness import REPOSITORY
from hostile import journal_model
from hostile.run import finding
from hostile.tally import CRASHED

_WRITER = """
import itertools, json, sys, uuid
from pathlib import Path
from blender_trellis.generation.job import Job, State
from blender_trellis.generation.journal import Journal
journal = Journal(Path(sys.argv[1]))
way = [State.SUBMITTING, State.UNCERTAIN, State.RUNNING, State.DOWNLOADING, State.READY]
cost = {"amount": 0.25, "currency": "USD", "estimate": False}
for _ in itertools.count():
    job = journal.add(Job(str(uuid.uuid4()), "fal-ai/trellis-2", {"seed": 1}, [], []))
    for state in [State.PREPARED, *way]:
        if state is not State.PREPARED:
            journal.move(job.id, state, request_id=state.value, cost=cost)
        print(json.dumps([job.id, state]), flush=True)
"""


def test_random_histories_lose_nothing_and_the_books_are_right(home: Path) -> None:
    journal_model.run(examples=12, steps=30)


def test_another_seed_makes_other_histories_and_the_same_one_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    added: list[str] = []

    class Told(Journal):
        def add(self, job: Job) -> Job:
            added.append(job.endpoint)
            return super().add(job)

    def histories(seed: int) -> list[str]:
        added.clear()
        journal_model.run(examples=3, steps=15, seed=seed)
        return [*added]

    monkeypatch.setattr(journal_model, "Journal", Told)
    first = histories(1)
    assert first and histories(2) != first and histories(1) == first


def test_a_part_that_fails_is_a_finding_and_why_is_kept(tmp_path: Path) -> None:
    def work() -> None:
        raise AssertionError("two rows for one job")

    assert finding("journal", tmp_path, lambda: None) == []
    (found,) = finding("journal", tmp_path / "kept", work)
    assert found.startswith(f"{CRASHED}: journal")
    assert "two rows for one job" in (tmp_path / "kept" / "journal.txt").read_text()


def test_what_was_told_before_a_kill_is_there_after_it(home: Path) -> None:
    """Two processes write into one journal until each is killed at some line."""
    command = [sys.executable, "-c", _WRITER, str(home)]
    writers = [subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE) for _ in range(2)]
    told: dict[str, State] = {}
    for writer, lines in zip(writers, (23, 40), strict=True):
        assert writer.stdout
        for _ in range(lines):
            job_id, state = json.loads(writer.stdout.readline())
            told[job_id] = State(state)
        writer.kill()
        for line in writer.communicate()[0].splitlines():  # what it said before it died
            if line.endswith(b"]"):
                job_id, state = json.loads(line)
                told[job_id] = State(state)
        assert writer.returncode == (1 if os.name == "nt" else -9)
    journal = Journal(home)
    jobs = {job.id: job for job in journal.jobs()}
    # Each may have written one more thing that it could not tell any more
    untold = jobs.keys() - told.keys()
    assert told.keys() <= jobs.keys() and len(untold) <= len(writers)
    for job_id, state in told.items():
        assert jobs[job_id].state is state or jobs[job_id].state in MOVES[state]
        assert jobs[job_id].request_id in (
            None if state is State.PREPARED else state.value,
            jobs[job_id].state,
        )
    ready = [job for job in jobs.values() if job.state is State.READY]
    (spent,) = journal.spent()
    assert (spent.jobs, spent.amount) == (len(ready), 0.25 * len(ready))
    assert {job.id for job in journal.claim()} == jobs.keys()
    journal.close()

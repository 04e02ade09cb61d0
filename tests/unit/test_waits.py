# SPDX-License-Identifier: GPL-3.0-or-later
"""How long a model takes, as past ones tell."""

from __future__ import annotations

import sqlite3
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from blender_trellis.generation import journal as journals
from blender_trellis.generation.job import Job, State
from blender_trellis.generation.journal import Journal
from blender_trellis.generation.waits import kind, learn

FAL, LOCAL = "fal-ai/trellis-2", "local/trellis-2"
WAY = (State.SUBMITTING, State.RUNNING, State.DOWNLOADING, State.READY)


@pytest.fixture
def journal(home: Path) -> Iterator[Journal]:
    journal = Journal(home)
    yield journal
    journal.close()


def _job(
    endpoint: str = FAL, submitted: float | None = None, ready: float | None = None, **more: Any
) -> Job:
    parameters = {"seed": 1, "resolution": 1024, **more}
    return Job(
        str(uuid.uuid4()), endpoint, parameters, ["a"], ["a"], submitted=submitted, ready=ready
    )


def test_the_median_of_each_kind() -> None:
    jobs = [_job(FAL, 1000, 1000 + wait) for wait in (50, 40, 9000)]
    jobs += [_job(FAL, 1000, 1100, resolution=1536)]
    waits = learn(jobs)
    assert waits == {kind(FAL, {}): 50, kind(FAL, {"resolution": 1536}): 100}


def test_the_pipeline_and_the_number_of_results_make_a_kind_of_their_own() -> None:
    assert kind(LOCAL, {}) != kind(LOCAL, {"pipeline_type": "1024"})
    assert kind("runware/trellis-2", {}) == kind("runware/trellis-2", {"numberResults": 1})
    assert kind("runware/trellis-2", {}) != kind("runware/trellis-2", {"numberResults": 2})
    assert kind(FAL, {"ss_sampling_steps": 20}) == kind(FAL, {})


def test_jobs_that_waited_for_each_other_count_only_their_own_time() -> None:
    together = [(1000.0, 1060.0), (1001.0, 1120.0), (1002.0, 1180.0)]
    local = learn(_job(LOCAL, *times) for times in reversed(together))
    assert local == {kind(LOCAL, {}): 60}
    remote = learn(_job(FAL, *times) for times in together)
    assert remote == {kind(FAL, {}): 119}


def test_only_the_newest_of_a_kind_count() -> None:
    jobs = [_job(FAL, 1000 * n, 1000 * n + (500 if n < 60 else 20)) for n in range(1, 90)]
    assert learn(jobs) == {kind(FAL, {}): 20}


def test_a_clock_that_was_set_back_teaches_nothing() -> None:
    assert learn([_job(FAL, 2000, 1000)]) == {}


def test_the_journal_notes_when_a_job_was_submitted_and_ready(journal: Journal) -> None:
    job = journal.add(_job())
    assert (job.submitted, job.ready, journal.timed()) == (None, None, [])
    moved = [journal.move(job.id, state) for state in WAY]
    assert [(each.submitted is not None, each.ready is not None) for each in moved] == [
        (True, False),
        (True, False),
        (True, False),
        (True, True),
    ]
    journal.note(job.id, fulfilled=True)
    (timed,) = journal.timed()
    assert (timed.submitted, timed.ready) == (moved[-1].submitted, moved[-1].ready)


def test_the_time_of_a_job_that_was_taken_over_while_at_work_tells_nothing(home: Path) -> None:
    first = Journal(home)
    at_work, ready = first.add(_job()), first.add(_job())
    for state in WAY[:2]:
        first.move(at_work.id, state)
    for state in WAY:
        first.move(ready.id, state)
    first.close()
    second = Journal(home)
    assert len(second.claim()) == 2
    for state in WAY[2:]:
        second.move(at_work.id, state)
    assert [job.id for job in second.timed()] == [ready.id]
    second.close()


def test_a_journal_from_before_times_were_noted_is_taken_on(home: Path) -> None:
    home.mkdir(parents=True)
    database = sqlite3.connect(home / "journal.sqlite3")
    for script in journals._MIGRATIONS[:2]:
        database.executescript(script)
    database.execute("PRAGMA user_version = 2")
    database.execute(
        "INSERT INTO job VALUES ('old', 'local/draft', '{\"seed\": 1}', '[]', '[]', 'ready', 1, 2, NULL,"
        " NULL, '[]', NULL, NULL, '{}', 1, 0, 'nobody', NULL, '[]', NULL)"
    )
    database.commit()
    database.close()
    journal = Journal(home)
    assert journal.get("old").ready is None and journal.timed() == []
    journal.close()

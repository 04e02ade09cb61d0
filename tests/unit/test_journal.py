# SPDX-License-Identifier: GPL-3.0-or-later
"""The journal: moves, ownership between processes, and what survives."""

from __future__ import annotations

import itertools
import sqlite3
import subprocess
import sys
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from blender_trellis.errors import InputError, StorageError
from blender_trellis.generation.job import ENDED, MOVES, Job, State
from blender_trellis.generation.journal import Journal
from harness import REPOSITORY


@pytest.fixture
def journal(home: Path) -> Iterator[Journal]:
    journal = Journal(home)
    yield journal
    journal.close()


def _job(**more: object) -> Job:
    values = {"endpoint": "local/draft", "parameters": {"seed": 1, "e": "é人"}, "images": ["a.png"]}
    return Job(id=str(uuid.uuid4()), names=["Bild 人.png"], **(values | more))  # type: ignore[arg-type]


_PATHS = {
    State.PREPARED: [],
    State.SUBMITTING: [State.SUBMITTING],
    State.RUNNING: [State.SUBMITTING, State.RUNNING],
    State.DOWNLOADING: [State.SUBMITTING, State.RUNNING, State.DOWNLOADING],
    State.READY: [State.SUBMITTING, State.RUNNING, State.DOWNLOADING, State.READY],
    State.UNCERTAIN: [State.SUBMITTING, State.UNCERTAIN],
    State.FAILED: [State.FAILED],
    State.CANCELLED: [State.CANCELLED],
}


def test_a_new_journal_waits_for_another_process_that_is_making_it(home: Path) -> None:
    home.mkdir(parents=True, exist_ok=True)
    other = sqlite3.connect(home / "journal.sqlite3", isolation_level=None, check_same_thread=False)
    other.execute("BEGIN IMMEDIATE")
    release = threading.Timer(0.3, other.rollback)
    release.start()
    Journal(home).close()
    release.join()
    other.close()


@pytest.mark.parametrize(("start", "end"), list(itertools.product(State, State)))
def test_only_the_allowed_moves_are_possible(journal: Journal, start: State, end: State) -> None:
    job = journal.add(_job())
    for state in _PATHS[start]:
        journal.move(job.id, state)
    if end in MOVES[start]:
        assert journal.move(job.id, end).state is end
        assert journal.get(job.id).state is end
    else:
        with pytest.raises(ValueError, match="cannot go from"):
            journal.move(job.id, end)
        assert journal.get(job.id).state is start


def test_every_state_is_reachable_and_the_ends_are_ends() -> None:
    assert set(MOVES) == set(State)
    reached = {State.PREPARED} | set().union(*MOVES.values())
    assert reached == set(State)
    assert {State.READY, State.FAILED, State.CANCELLED} == ENDED


def test_a_row_comes_back_as_it_was(home: Path, journal: Journal) -> None:
    job = journal.add(_job(wish={"output": "/tmp/ü.glb"}, cost={"amount": 0.3}))
    other = Journal(home)
    assert other.get(job.id) == job
    assert other.jobs() == [job]
    other.close()


def test_newest_first_and_limited(journal: Journal) -> None:
    ids = [journal.add(_job()).id for _ in range(5)]
    assert [job.id for job in journal.jobs()] == ids[::-1]
    assert [job.id for job in journal.jobs(2)] == ids[:2:-1]


def test_a_living_owner_keeps_its_jobs(home: Path, journal: Journal) -> None:
    job = journal.add(_job())
    other = Journal(home)
    assert other.claim() == []
    with pytest.raises(ValueError, match="belongs to another process"):
        other.move(job.id, State.SUBMITTING)
    assert other.note(job.id, cancel_asked=True).cancel_asked
    other.close()


def test_jobs_of_a_killed_process_are_claimed_once(home: Path) -> None:
    code = (
        "import os, sys, uuid; from pathlib import Path\n"
        "from blender_trellis.generation.journal import Journal\n"
        "from blender_trellis.generation.job import Job, State\n"
        "journal = Journal(Path(sys.argv[1]))\n"
        "for state in (None, State.FAILED):\n"
        "    job = journal.add(Job(str(uuid.uuid4()), 'local/draft', {'seed': 1}, [], []))\n"
        "    state and journal.move(job.id, state)\n"
        "os.kill(os.getpid(), 9)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(home)], cwd=REPOSITORY, check=False)
    assert abs(done.returncode) == 9  # on Windows it is what it was killed with
    first, second = Journal(home), Journal(home)
    claimed = first.claim()
    assert [job.state for job in claimed] == [State.PREPARED]
    assert second.claim() == []
    first.move(claimed[0].id, State.SUBMITTING)
    first.close()
    assert [job.id for job in second.claim()] == [claimed[0].id]
    second.close()


def test_ready_jobs_are_claimed_only_while_their_wish_is_open(home: Path) -> None:
    before = Journal(home)
    for fulfilled in (True, False):
        job = before.add(_job(fulfilled=fulfilled, wish={"output": "x"}))
        for state in _PATHS[State.READY]:
            before.move(job.id, state)
    before.close()
    after = Journal(home)
    assert [job.fulfilled for job in after.claim()] == [False]
    after.close()


def test_forget_refuses_what_is_at_work(journal: Journal) -> None:
    job = journal.add(_job())
    with pytest.raises(InputError, match=r"is prepared\. Cancel it first"):
        journal.forget(job.id)
    journal.move(job.id, State.FAILED)
    journal.forget(job.id)
    with pytest.raises(InputError, match="There is no job"):
        journal.get(job.id)


def test_a_journal_of_a_newer_version_is_left_alone(home: Path) -> None:
    Journal(home).close()
    database = sqlite3.connect(home / "journal.sqlite3")
    database.execute("PRAGMA user_version = 99")
    database.close()
    with pytest.raises(StorageError, match="newer version"):
        Journal(home)


def test_a_file_that_is_no_journal(home: Path) -> None:
    home.mkdir()
    (home / "journal.sqlite3").write_bytes(b"not a database" * 100)
    with pytest.raises(StorageError, match=r"journal\.sqlite3 is damaged: .* Move it away"):
        Journal(home)


def test_commits_survive_power_cuts(journal: Journal) -> None:
    """WAL with synchronous=FULL: every commit is synced (SQLite's documentation of the pragma; FULL is 2)."""
    assert journal._database.execute("PRAGMA journal_mode").fetchone()[0] == "wal"
    assert journal._database.execute("PRAGMA synchronous").fetchone()[0] == 2


def test_no_trace_of_ended_processes_is_left(home: Path) -> None:
    code = (
        "import os, sys; from pathlib import Path\n"
        "from blender_trellis.generation.journal import Journal\n"
        "Journal(Path(sys.argv[1])); os.kill(os.getpid(), 9)"
    )
    for _ in range(3):
        subprocess.run([sys.executable, "-c", code, str(home)], cwd=REPOSITORY, check=False)
    assert len(list((home / "owners").iterdir())) == 3
    journal = Journal(home)
    journal.claim()
    assert len(list((home / "owners").iterdir())) == 1
    journal.close()
    assert list((home / "owners").iterdir()) == []

# SPDX-License-Identifier: GPL-3.0-or-later
"""The history on the disk: pages of results, what a search finds, and that deleting takes all of a job and nothing else."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from blender_trellis.config import Config
from blender_trellis.errors import InputError, StorageError
from blender_trellis.generation.job import Job, State
from blender_trellis.generation.journal import Journal
from blender_trellis.generation.library import thumbnail
from blender_trellis.generation.runner import Runner

TO_READY = (State.SUBMITTING, State.RUNNING, State.DOWNLOADING)
COST = {"amount": 0.3, "currency": "USD", "estimate": False}


@pytest.fixture
def runner(home: Path) -> Iterator[Runner]:
    runner = Runner(Config.load())
    yield runner
    runner.close()


def made(runner: Runner, name: str, content: bytes = b"model", picture: bytes = b"p") -> Job:
    """A job that ended ready a moment ago, with one model, its thumbnail and one picture."""
    library, journal = runner.library, runner.journal
    job_id = str(uuid.uuid4())
    job = Job(job_id, "fal-ai/trellis-2", {"seed": 1}, [library.keep_input(picture)], [name])
    journal.add(job)
    for state in TO_READY:
        journal.move(job_id, state)
    part = library.part(job_id, 0)
    part.write_bytes(content)
    path = library.keep(part, "model")
    thumbnail(path).write_bytes(b"picture of it")
    return journal.move(job_id, State.READY, files=[str(path)], cost=COST)


def everything(home: Path) -> set[str]:
    """All files of inputs and results."""
    return {path.name for folder in ("inputs", "results") for path in (home / folder).iterdir()}


def test_results_come_in_pages_newest_first(runner: Runner) -> None:
    jobs = [made(runner, f"{number}.png") for number in range(5)][::-1]
    runner.journal.add(Job(str(uuid.uuid4()), "local/draft", {"seed": 1}, [], ["at work.png"]))
    page, total = runner.journal.results("", 2, 2)
    assert ([job.id for job in page], total) == ([jobs[2].id, jobs[3].id], 5)
    assert runner.journal.results("", 2, 6) == ([], 5)


@pytest.mark.parametrize(
    ("search", "found"),
    [
        ("", {"Größe.png", "ROBOT arm.png", "100%_robot.png", "熊.png"}),
        ("größe", {"Größe.png"}),
        ("GRÖSSE", {"Größe.png"}),
        ("robot", {"ROBOT arm.png", "100%_robot.png"}),
        (" arm  robot ", {"ROBOT arm.png"}),
        ("%", {"100%_robot.png"}),
        ("_", {"100%_robot.png"}),
        ("熊", {"熊.png"}),
        ("trellis-2", {"Größe.png", "ROBOT arm.png", "100%_robot.png", "熊.png"}),
        ("'; DROP TABLE job; --", set()),
    ],
)
def test_a_search_finds_names_and_endpoints_by_all_its_words(
    runner: Runner, search: str, found: set[str]
) -> None:
    for name in ("Größe.png", "ROBOT arm.png", "100%_robot.png", "熊.png"):
        made(runner, name)
    page, total = runner.journal.results(search, 10, 0)
    assert {job.names[0] for job in page} == found and total == len(found)


def test_a_page_of_very_many_is_found_quickly_by_its_index(runner: Runner) -> None:
    """What a page costs does not grow with the number of results: SQLite walks the index by time, and sorts nothing."""
    plan = runner.journal._database.execute(
        "EXPLAIN QUERY PLAN SELECT * FROM job WHERE state = 'ready' ORDER BY created DESC LIMIT 12"
    ).fetchall()
    told = " ".join(row["detail"] for row in plan)
    assert "job_by_time" in told and "TEMP B-TREE" not in told


def test_deleting_takes_row_models_thumbnails_and_inputs_but_not_what_was_spent(
    runner: Runner, home: Path
) -> None:
    before = everything(home)
    job = made(runner, "a.png")
    assert len(everything(home)) == 3
    runner.delete(job.id)
    assert everything(home) == before == set()
    assert runner.journal.jobs() == []
    assert [spent.amount for spent in runner.journal.spent()] == [0.3]
    with pytest.raises(InputError, match="There is no job"):
        runner.delete(job.id)


def test_what_another_job_has_too_stays(runner: Runner, home: Path) -> None:
    first, same = made(runner, "a.png"), made(runner, "b.png")
    other = made(runner, "c.png", b"other model")  # of the same picture
    assert first.files == same.files
    files = everything(home)
    runner.delete(first.id)
    assert everything(home) == files
    runner.delete(same.id)
    model = Path(same.files[0])
    assert files - everything(home) == {model.name, thumbnail(model).name}
    runner.delete(other.id)
    assert everything(home) == set()


def test_what_is_at_work_is_not_deleted(runner: Runner) -> None:
    job = Job(str(uuid.uuid4()), "local/draft", {"seed": 1}, [], ["a.png"])
    runner.journal.add(job)
    with pytest.raises(InputError, match="Cancel it first"):
        runner.delete(job.id)
    assert runner.journal.get(job.id).state is State.PREPARED


def test_where_a_file_cannot_be_deleted_the_job_stays(runner: Runner) -> None:
    job = made(runner, "a.png")
    model = Path(job.files[0])
    model.unlink()
    model.mkdir()  # what no system deletes as a file
    with pytest.raises(StorageError, match="Cannot delete"):
        runner.delete(job.id)
    model.rmdir()
    assert runner.journal.get(job.id) == job
    runner.delete(job.id)
    assert runner.journal.jobs() == []


def test_another_process_sees_the_deletion_and_can_do_it_too(runner: Runner, home: Path) -> None:
    first, second = made(runner, "a.png", b"1", b"1"), made(runner, "b.png", b"2", b"2")
    other = Journal(home)
    runner.delete(first.id)
    assert [job.id for job in other.jobs()] == [second.id]
    other.delete(second.id, runner.library.discard)
    other.close()
    assert everything(home) == set() and runner.journal.results("", 9, 0) == ([], 0)


def test_pictures_that_were_given_as_references_are_no_files_of_ours(
    runner: Runner, home: Path
) -> None:
    mine = runner.library.results / "mine.png"
    mine.write_bytes(b"mine")
    references = ["https://example.org/a.png", "../results/mine.png"]
    job = Job(str(uuid.uuid4()), "fal-ai/trellis-2", {"seed": 1}, references, ["a.png", "b.png"])
    runner.journal.add(job)
    runner.journal.move(job.id, State.FAILED)
    runner.delete(job.id)
    assert everything(home) == {mine.name} and runner.journal.jobs() == []

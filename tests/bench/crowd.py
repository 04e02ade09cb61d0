# SPDX-License-Identifier: GPL-3.0-or-later
"""As much as a panel may have to show: a thousand results in a journal, and twenty jobs at work. For `bench_pump.py` and the
bench of the window."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

DRAWN_JOBS, RESULTS = 20, 1000


def fill(home: Path, package: str = "blender_trellis") -> None:
    """A journal with a thousand results; `package` is the extension's name where it is installed."""
    import uuid

    module = import_module(f"{package}.generation.job")
    Job, State = module.Job, module.State  # noqa: N806  classes
    journal = import_module(f"{package}.generation.journal").Journal(home)
    journal._database.execute("PRAGMA synchronous = OFF")
    for number in range(RESULTS):
        job_id = str(uuid.uuid4())
        journal.add(Job(job_id, "local/draft", {"seed": number}, ["a.png"], [f"{number}.png"]))
        for state in (State.SUBMITTING, State.RUNNING, State.DOWNLOADING):
            journal.move(job_id, state)
        journal.move(job_id, State.READY, files=[str(home / f"{number}.glb")], seeds=[number])
        journal.note(job_id, fulfilled=True)
    journal.close()


def occupy(board: Any) -> None:
    """Twenty jobs at work on the board, with full logs, which are closed."""
    jobs = import_module(type(board).__module__)
    for number in range(DRAWN_JOBS):
        view = jobs.JobView(str(number), "robot", "fal-ai/trellis-2", jobs.State.RUNNING)
        view.fraction, view.message = 0.5, "Sampling the structure"
        for told in range(jobs.LOGGED):
            view.tell(f"{'x' * told} told")
        board.add(view)


def open_logs(board: Any) -> None:
    """The logs of all jobs, of which each then takes a dozen lines."""
    for view in board.views.values():
        view.expanded = True

# SPDX-License-Identifier: GPL-3.0-or-later
"""A batch as the tests of the command line need it: rows of pictures, its results, and what a service counts."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path
from random import Random
from typing import Any

from PIL import Image

from harness import REPOSITORY, run_trellis, trellis_command
from services.fal_standin import FalStandIn

WAIT = 300
START = 1.5  # seconds in which a run comes to its first submit, more or less


def make_pictures(folder: Path, count: int) -> None:
    """So many different pictures, called 0000.png and so on."""
    folder.mkdir()
    for number in range(count):
        colour = (number % 256, number // 256, 99, 255)
        Image.new("RGBA", (16, 16), colour).save(folder / f"{number:04}.png")


def write_manifest(path: Path, rows: list[dict[str, Any]]) -> Path:
    """A JSONL manifest."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def results(folder: Path) -> list[dict[str, Any]]:
    """The lines of results that are whole, in the order in which they were written."""
    try:
        text = (folder / "results.jsonl").read_text(encoding="utf-8")
    except FileNotFoundError:
        return []
    return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]


def count_results(folder: Path) -> int:
    """How many whole lines there are."""
    try:
        return (folder / "results.jsonl").read_bytes().count(b"\n")
    except FileNotFoundError:
        return 0


def assert_each_once(fal: FalStandIn, folder: Path, count: int) -> None:
    """Each row has one line of results and one model, and the service made one job for each, all different."""
    lines = results(folder)
    assert [line["state"] for line in lines] == ["ready"] * count
    assert len({line["output"] for line in lines}) == count
    assert all((folder / line["output"]).read_bytes()[:4] == b"glTF" for line in lines)
    assert len(fal.submits) == count
    assert len({job.input["image_url"] for job in fal.jobs.values()}) == count
    assert {line["request_id"] for line in lines} == set(fal.jobs)


def kill_and_resume(
    fal: FalStandIn,
    command: tuple[str | Path, ...],
    folder: Path,
    kills: int,
    *,
    seed: int = 7,
    early: int = 0,
    late: int = 0,
) -> list[str]:
    """Run a batch, kill it -9 after some random number of submits, and again, so many times; then run it to its end.

    `early` more kills come while it starts, and `late` more among the last tenth, unless it is done before.

    Returns the jobs of which only a person can say what became of them: the kill came between the moment in which the journal
    had noted the sending and the arrival of the request, and they were sent again as a person would.
    """
    total = sum(1 for _ in Path(command[1]).iterdir())
    random = Random(seed)
    # Doubtful ones are never submitted, so that it may end before later kills
    last = total * 9 // 10
    points = sorted(random.sample(range(1, last), kills))
    for _ in range(early):
        _kill_after(fal, command, 0, random.uniform(0, START))
    for point in points:
        _kill_after(fal, command, point, random.uniform(0, 0.3))
    for point in sorted(random.choices(range(last, total), k=late)):
        _kill_after(fal, command, point, random.uniform(0, 0.3), may_end=True)
    done = run_trellis(*command)
    doubtful = [line["job_id"] for line in results(folder) if line["state"] == "uncertain"]
    assert done.code == (5 if doubtful else 0), done
    assert len(fal.submits) == total - len(doubtful)
    for job_id in doubtful:
        assert run_trellis("jobs", "send-again", job_id).code == 0
    if doubtful:
        assert run_trellis(*command).code == 0
    return doubtful


def _kill_after(
    fal: FalStandIn,
    command: tuple[str | Path, ...],
    submits: int,
    more: float,
    *,
    may_end: bool = False,
) -> None:
    """Kill a run once the service has so many jobs, and `more` seconds have passed."""
    process = start(*command)
    try:
        deadline = time.monotonic() + WAIT
        while len(fal.submits) < submits:
            if process.poll() is not None:
                assert may_end, "it ended before it could be killed"
                return
            assert time.monotonic() < deadline
            time.sleep(0.005)
        time.sleep(more)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait(WAIT)


def start(*arguments: str | Path, **more: Any) -> subprocess.Popen[str]:
    """The command line in a process of its own, of which nothing is read unless `more` says so."""
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL} | more
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY), "PYTHONIOENCODING": "utf-8"}
    return subprocess.Popen(trellis_command(*arguments), env=environment, encoding="utf-8", **quiet)

# SPDX-License-Identifier: GPL-3.0-or-later
"""Kill -9 at every state, of the caller and of the sidecar: nothing is lost, nothing runs twice."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from blender_trellis.generation import glb
from blender_trellis.generation.job import Job, State
from blender_trellis.generation.journal import Journal
from blender_trellis.services import sidecar
from gate import Gate
from harness import REPOSITORY, run_trellis, trellis_command

WAIT = 60
linux = pytest.mark.skipif(sys.platform != "linux", reason="looks for processes in /proc")


def _until(condition: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + WAIT
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not happen"
        time.sleep(0.005)


@contextmanager
def _caller(
    picture: Path, *more: str | Path, gate: Gate | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """The command line at work, in a process of its own; killed at the end at the latest."""
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    if gate:
        environment |= {"TRELLIS_SIDECAR_URL": gate.url, "TRELLIS_SIDECAR_TOKEN": _token()}
    process = subprocess.Popen(
        trellis_command("generate", picture, "--set", "seed=5", *more),
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def _home() -> Path:
    return Path(os.environ["TRELLIS_HOME"])


def _token() -> str:
    address = sidecar.read_address(_home())
    assert address
    return address[1]


def _jobs(home: Path) -> list[Job]:
    if not (home / "journal.sqlite3").exists():
        return []
    journal = Journal(home)
    try:
        return journal.jobs()
    finally:
        journal.close()


def _only_job(home: Path) -> Job:
    (job,) = _jobs(home)
    return job


def _starts(home: Path) -> int:
    """How often the sidecar began to work on a job, by its log."""
    log = (home / "sidecar" / "log.txt").read_text(encoding="utf-8")
    return len(re.findall(r"job \S+: start \d", log))


def _kill(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()


def _assert_ready(home: Path, starts: int = 1) -> Job:
    job = _only_job(home)
    assert job.state is State.READY, job.error
    assert glb.check(Path(job.files[0])).triangles > 1000
    assert _starts(home) == starts
    assert [path.name for path in (home / "results").iterdir()] == [Path(job.files[0]).name]
    assert list((home / "sidecar" / "jobs").iterdir()) == [], (
        "the sidecar still keeps a collected job"
    )
    return job


def test_killed_before_the_submit(own_sidecar: Path, picture: Path) -> None:
    with _caller(picture) as caller:
        # the row is there while the sidecar is still starting
        _until(lambda: _jobs(own_sidecar), "the row")
        _kill(caller)
    assert _only_job(own_sidecar).state is State.PREPARED
    assert run_trellis("jobs", "resume").code == 0
    _assert_ready(own_sidecar)


@pytest.mark.parametrize("point", ["before", "after"])
def test_killed_during_the_submit(own_sidecar: Path, picture: Path, point: str) -> None:
    """The request never arrived, or it did and the answer was lost: one job in either case."""
    url, _ = sidecar.ensure(own_sidecar)
    with Gate(url) as gate:
        held = gate.hold("^POST /local/draft", point)  # type: ignore[arg-type]
        with _caller(picture, gate=gate) as caller:
            assert held.wait(WAIT)
            _kill(caller)
        job = _only_job(own_sidecar)
        assert (job.state, job.ticket) == (State.SUBMITTING, None)
        assert len(list((own_sidecar / "sidecar" / "jobs").iterdir())) == (point == "after")
    assert run_trellis("jobs", "resume").code == 0
    _assert_ready(own_sidecar)


def test_killed_while_running(own_sidecar: Path, picture: Path) -> None:
    url, _ = sidecar.ensure(own_sidecar)
    with Gate(url) as gate:
        held = gate.hold("^GET .*/status", "after")
        with _caller(picture, gate=gate) as caller:
            assert held.wait(WAIT)
            _kill(caller)
        job = _only_job(own_sidecar)
        assert job.state is State.RUNNING
        assert job.request_id == job.id
    assert run_trellis("jobs", "resume").code == 0
    _assert_ready(own_sidecar)


def test_killed_while_downloading(own_sidecar: Path, picture: Path) -> None:
    url, _ = sidecar.ensure(own_sidecar)
    with Gate(url) as gate:
        held = gate.hold("^GET /files/", "half")
        with _caller(picture, gate=gate) as caller:
            assert held.wait(WAIT)
            _until(lambda: list((own_sidecar / "results").glob(".*.part")), "the partial file")
            _kill(caller)
        assert _only_job(own_sidecar).state is State.DOWNLOADING
    assert run_trellis("jobs", "resume").code == 0
    _assert_ready(own_sidecar)


def test_killed_before_the_wish_is_fulfilled(
    own_sidecar: Path, picture: Path, tmp_path: Path
) -> None:
    """Ready, but the .blend that was asked for is not written yet: resuming writes it."""
    output = tmp_path / "Modell 人.blend"
    with _caller(picture, "--output", output) as caller:
        _until(lambda: any(job.state is State.READY for job in _jobs(own_sidecar)), "the result")
        _until(lambda: not any((own_sidecar / "sidecar" / "jobs").iterdir()), "its collection")
        _kill(caller)
    assert not output.exists()
    done = run_trellis("jobs", "resume", "--json")
    assert done.code == 0, done.err
    assert done.last["files"] == [str(output)]
    assert output.read_bytes()[:7] == b"BLENDER"
    assert _assert_ready(own_sidecar).fulfilled
    assert run_trellis("jobs", "resume", "--json").out == ""


@linux
def test_a_killed_sidecar_is_started_again_and_the_job_with_it(
    own_sidecar: Path, picture: Path
) -> None:
    sidecar.ensure(own_sidecar)
    pid = json.loads((own_sidecar / "sidecar" / "address.json").read_text())["pid"]
    slow = ("--set", "resolution=1536", "--set", "texture_size=2048")
    with _caller(picture, *slow) as caller:
        _until(lambda: _starts(own_sidecar), "the start")
        children = _children(pid)
        assert children
        os.kill(pid, signal.SIGKILL)
        _until(
            lambda: not any(map(_alive, children)),
            "the end of the worker, which must not outlive its server",
        )
        assert caller.wait(WAIT) == 0
    _assert_ready(own_sidecar, starts=2)


@linux
def test_a_killed_worker_is_replaced(own_sidecar: Path, picture: Path) -> None:
    sidecar.ensure(own_sidecar)
    pid = json.loads((own_sidecar / "sidecar" / "address.json").read_text())["pid"]
    slow = ("--set", "resolution=1536", "--set", "texture_size=2048")
    with _caller(picture, *slow) as caller:
        _until(lambda: _starts(own_sidecar), "the start")
        for child in _children(pid):
            os.kill(child, signal.SIGKILL)
        assert caller.wait(WAIT) == 0
    _assert_ready(own_sidecar, starts=2)


@linux
def test_a_job_that_kills_every_worker_fails_with_the_reason(
    own_sidecar: Path, picture: Path
) -> None:
    sidecar.ensure(own_sidecar)
    pid = json.loads((own_sidecar / "sidecar" / "address.json").read_text())["pid"]
    over = threading.Event()

    def murder() -> None:
        killed: set[int] = set()
        while not over.wait(0.002):
            if _starts(own_sidecar) > len(killed):
                for child in set(_children(pid)) - killed:
                    os.kill(child, signal.SIGKILL)
                    killed.add(child)

    slow = ("--set", "resolution=1536", "--set", "texture_size=4096", "--json")
    murderer = threading.Thread(target=murder)
    murderer.start()
    try:
        done = run_trellis("generate", picture, *slow)
    finally:
        over.set()
        murderer.join()
    assert done.code == 3
    assert (done.last["event"], done.last["kind"]) == ("error", "GenerationError")
    assert "The engine's process ended 2 times during this job." in done.last["message"]
    assert _only_job(own_sidecar).state is State.FAILED


def _children(pid: int) -> list[int]:
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii")
    return [int(word) for word in text.split()]


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="ascii").split()[2] != "Z"
    except FileNotFoundError:
        return False

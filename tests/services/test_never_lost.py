# SPDX-License-Identifier: GPL-3.0-or-later
"""Nothing that was paid is lost and nothing is paid twice, whatever is killed, cut or interrupted: real command lines against
the stand-ins of the services, stopped at exact points by gates in front of their hosts."""

from __future__ import annotations

import json
import os
import signal
import socket
import sqlite3
import subprocess
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image

from blender_trellis.config import Config
from blender_trellis.generation import glb
from blender_trellis.generation.job import Job, State
from blender_trellis.generation.journal import Journal
from blender_trellis.generation.request import Request
from blender_trellis.generation.runner import Runner
from gate import Gate, Point
from harness import REPOSITORY, Ran, run_trellis, sizes, trellis_command
from scene import glbs
from services.fal_standin import FalStandIn
from services.runware_standin import RunwareStandIn
from services.standin import Call, Reply

WAIT = 60
ENDPOINTS = {"fal": "fal-ai/trellis-2", "runware": "runware/trellis-2"}
# As the gates see them; Runware has one path for everything, so its gate adds what the request asks for
SUBMIT = {"fal": "^POST /fal-ai/", "runware": "3dInference$"}
STATUS = {"fal": "^GET .*/status", "runware": "getResponse$"}
RESULT = "^GET .*/requests/[^/]+$"
HISTORY = "^GET .*/requests/by-endpoint"
# Where each host's address is told to the product; the files' host is named by the service itself
VARIABLES = {
    ("fal", "queue"): ("TRELLIS_FAL_QUEUE_URL", ""),
    ("fal", "api"): ("TRELLIS_FAL_API_URL", "/v1"),
    ("runware", "api"): ("TRELLIS_RUNWARE_URL", "/v1"),
}
UNKNOWN_TASK = {"code": "taskFailedOrNotFound", "message": "No task with this taskUUID was found."}


class Side:
    """One service as a test needs it: a stand-in whose jobs are done at once unless a test says otherwise, the gates in
    front of it, and the journal of its jobs."""

    def __init__(
        self, name: str, standin: Any, home: Path, picture: Path, patch: pytest.MonkeyPatch
    ) -> None:
        self.name, self.standin, self.home, self.picture = name, standin, home, picture
        self.endpoint = ENDPOINTS[name]
        self.gates = ExitStack()
        self._patch = patch
        self.goes(**{"fal": {"queued": 0, "running": 0}, "runware": {"processing": 0}}[name])

    def goes(self, **script: Any) -> None:
        """How the jobs to come go, by the stand-in's script."""
        for name, value in script.items():
            assert hasattr(self.standin.script, name)
            setattr(self.standin.script, name, value)

    def gate(self, host: str) -> Gate:
        """Put a gate in front of one of the service's hosts."""
        label = _kind if (self.name, host) == ("runware", "api") else None
        gate = self.gates.enter_context(Gate(self.standin.url(host), label))
        if host == "files":
            plain = self.standin.url
            self._patch.setattr(
                self.standin, "url", lambda asked: gate.url if asked == host else plain(asked)
            )
        else:
            variable, path = VARIABLES[self.name, host]
            self._patch.setenv(variable, gate.url + path)
        return gate

    def front(self) -> Gate:
        """A gate in front of the host that takes the jobs."""
        return self.gate("queue" if self.name == "fal" else "api")

    def command(self, *more: str | Path) -> tuple[str | Path, ...]:
        """`generate`, as every test calls it."""
        settings = ("--endpoint", self.endpoint, "--set", "seed=5", "--json")
        return ("generate", self.picture, *settings, *more)

    @contextmanager
    def at_work(self, *more: str | Path) -> Iterator[subprocess.Popen[str]]:
        """`generate` in a process of its own; killed at the end at the latest."""
        with _process(*self.command(*more)) as process:
            yield process

    def sent(self) -> int:
        """How many requests for a model have reached the service, accepted or not."""
        if self.name == "fal":
            return sum(call.method == "POST" for call in self.standin.calls if call.host == "queue")
        return sum(
            _kind(call.headers, call.body) == "3dInference"
            for call in self.standin.calls
            if call.host == "api"
        )

    def accepted(self) -> int:
        return len(self.standin.submits)

    def jobs(self) -> list[Job]:
        """The journal, the newest first."""
        if not (self.home / "journal.sqlite3").exists():
            return []
        journal = Journal(self.home)
        try:
            return journal.jobs()
        finally:
            journal.close()

    def job(self) -> Job:
        (job,) = self.jobs()
        return job

    def assert_all_delivered(self, accepted: int = 1) -> None:
        """Every job is ready with models of its own, there is nothing else, and so many were accepted, and thus paid."""
        jobs = self.jobs()
        assert [job.state for job in jobs] == [State.READY] * len(jobs), [job.error for job in jobs]
        for job in jobs:
            assert all(glb.check(Path(path)).triangles > 0 for path in job.files)
            assert job.error is None or "models failed" in job.error["message"]
        kept = {Path(path) for job in jobs for path in job.files}
        assert set((self.home / "results").iterdir()) == kept
        assert self.accepted() == accepted
        assert len({job.request_id for job in jobs}) == len(jobs)


def _kind(headers: Mapping[str, str], body: bytes) -> str:
    """What a request to Runware is about: its task's type, or that it only asks for the price."""
    return "price" if "x-runware-dry-run" in headers else str(json.loads(body)[0]["taskType"])


@pytest.fixture
def make_side(
    request: pytest.FixtureRequest, home: Path, picture: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[str], Side]]:
    with ExitStack() as gates:

        def make(name: str) -> Side:
            side = Side(name, request.getfixturevalue(name), home, picture, monkeypatch)
            gates.enter_context(side.gates)
            return side

        yield make


@pytest.fixture(params=["fal", "runware"])
def side(request: pytest.FixtureRequest, make_side: Callable[[str], Side]) -> Side:
    """Both services, one after the other."""
    return make_side(request.param)


@pytest.fixture
def fal_side(make_side: Callable[[str], Side]) -> Side:
    return make_side("fal")


@pytest.fixture
def runware_side(make_side: Callable[[str], Side]) -> Side:
    return make_side("runware")


@contextmanager
def _process(*arguments: str | Path) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        trellis_command(*arguments),
        env=os.environ | {"PYTHONPATH": str(REPOSITORY), "PYTHONIOENCODING": "utf-8"},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        encoding="utf-8",
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


def _end(process: subprocess.Popen[str]) -> Ran:
    """Wait for a process's own end."""
    out, _ = process.communicate(timeout=WAIT)
    return Ran(process.returncode, out, "")


def _kill(process: subprocess.Popen[str]) -> None:
    process.send_signal(signal.SIGKILL)
    process.wait(WAIT)


def _until(condition: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + WAIT
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not happen"
        time.sleep(0.005)


class Stop:
    """The `number`-th request that matches is held at a point, and all others pass: it goes on with `go`, and its connection
    is cut with `cut`, or at the end of the block."""

    def __init__(self, gate: Gate, pattern: str, point: Point, number: int = 1) -> None:
        self._over = threading.Event()
        self._answer: str | None = "drop"
        self._reached = gate.on(pattern, point, self._act, times=1, skip=number - 1)

    def _act(self) -> str | None:
        self._over.wait()
        return self._answer

    def wait(self) -> None:
        assert self._reached.wait(WAIT), "the point was not reached"

    def go(self) -> None:
        self._answer = None
        self._over.set()

    def cut(self) -> None:
        self._over.set()

    def __enter__(self) -> Stop:
        return self

    def __exit__(self, *_: object) -> None:
        self.cut()


def _kill_at(side: Side, gate: Gate, stop: tuple[str, Point, int], *more: str | Path) -> Job:
    """Start a job, kill its process at a point, and return what the journal then says."""
    with Stop(gate, *stop) as point, side.at_work(*more) as process:
        point.wait()
        _kill(process)
        return side.job()


# Killed at every point --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class At:
    """A point of a job: the `number`-th request to `host` that matches; what goes there, and what is true there."""

    service: str
    name: str
    host: str
    stop: tuple[str, Point, int]
    state: State
    accepted: int = 1
    script: tuple[tuple[str, Any], ...] = ()
    more: tuple[str, ...] = ()


# A limit of the cost makes the service be asked for its price while the job is prepared
LIMIT = ("--max-cost", "5")
POINTS = [
    At("fal", "prepared", "api", ("^GET .*/pricing", "before", 1), State.PREPARED, 0, more=LIMIT),
    At(
        "fal",
        "in the queue",
        "queue",
        (STATUS["fal"], "after", 1),
        State.RUNNING,
        script=(("queued", 1),),
    ),
    At(
        "fal",
        "at work",
        "queue",
        (STATUS["fal"], "after", 1),
        State.RUNNING,
        script=(("running", 1),),
    ),
    At("fal", "done", "queue", (RESULT, "before", 1), State.DOWNLOADING),
    At("fal", "downloading", "files", ("^GET", "half", 1), State.DOWNLOADING),
    At("runware", "prepared", "api", ("price$", "before", 1), State.PREPARED, 0, more=LIMIT),
    At(
        "runware",
        "in the queue",
        "api",
        (STATUS["runware"], "after", 1),
        State.RUNNING,
        script=(("processing", 1), ("word", "queued")),
    ),
    At(
        "runware",
        "at work",
        "api",
        (STATUS["runware"], "after", 1),
        State.RUNNING,
        script=(("processing", 1),),
    ),
    At("runware", "done", "api", (STATUS["runware"], "before", 2), State.DOWNLOADING),
    At("runware", "downloading", "files", ("^GET", "half", 1), State.DOWNLOADING),
]


@pytest.mark.parametrize("at", POINTS, ids=lambda at: f"{at.service}, {at.name}")
def test_killed_and_resumed(make_side: Callable[[str], Side], at: At) -> None:
    side = make_side(at.service)
    side.goes(**dict(at.script))
    job = _kill_at(side, side.gate(at.host), at.stop, *at.more)
    assert job.state is at.state
    assert side.accepted() == at.accepted
    resumed = run_trellis("jobs", "resume", "--json")
    assert (resumed.code, resumed.last["state"]) == (0, "ready")
    side.assert_all_delivered()
    assert side.sent() == 1
    assert run_trellis("jobs", "resume", "--json").out == ""


def test_killed_with_a_part_of_the_file_on_disk(side: Side, tmp_path: Path) -> None:
    """What was written of a model before the kill is no part of the one that is kept."""
    # Some megabytes, written by the megabyte
    noise = glbs.Material({"baseColor": glbs.picture(1, 1024)})
    big = glbs.write(tmp_path / "big.glb", [glbs.box((1, 1, 1))], noise)
    side.standin.glb = big.read_bytes()
    gate = side.gate("files")
    with Stop(gate, "^GET", "half") as half, side.at_work() as process:
        half.wait()
        parts = side.home / "results"
        _until(lambda: any(sizes(parts, ".*.part")), "the part")
        _kill(process)
    assert run_trellis("jobs", "resume").code == 0
    side.assert_all_delivered()
    assert Path(side.job().files[0]).read_bytes() == big.read_bytes()


def test_killed_before_the_wish_is_fulfilled(side: Side, tmp_path: Path) -> None:
    """Paid and kept, but the .blend that was asked for is not written yet: resuming writes it and asks the service nothing."""
    output = tmp_path / "Modell 人.blend"
    with side.at_work("--output", output) as process:
        _until(lambda: [job.state for job in side.jobs()] == [State.READY], "the result")
        _kill(process)
    assert not output.exists()
    calls = len(side.standin.calls)
    resumed = run_trellis("jobs", "resume", "--json")
    assert (resumed.code, resumed.last["files"]) == (0, [str(output)])
    assert output.read_bytes()[:7] == b"BLENDER"
    assert len(side.standin.calls) == calls
    side.assert_all_delivered()
    assert run_trellis("jobs", "resume", "--json").out == ""


# The reply to a submit is lost: Runware ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("point", "accepted"), [("before", 0), ("after", 1)])
def test_runware_is_asked_what_became_of_a_submit(
    runware_side: Side, point: Point, accepted: int
) -> None:
    job = _kill_at(runware_side, runware_side.front(), (SUBMIT["runware"], point, 1))
    assert (job.state, job.ticket) == (State.SUBMITTING, None)
    assert runware_side.accepted() == accepted
    assert run_trellis("jobs", "resume").code == 0
    runware_side.assert_all_delivered()
    assert runware_side.sent() == 1, "sent a second time although Runware has the task"
    assert [task["taskUUID"] for task in runware_side.standin.submits] == [job.id]


def test_a_task_that_runware_does_not_list_yet_is_not_made_twice(runware_side: Side) -> None:
    """It is sent again under the same UUID; the conflict says that it is there, and it is followed."""
    _kill_at(runware_side, runware_side.front(), (SUBMIT["runware"], "after", 1))
    runware_side.standin.instead["getResponse"] = [Reply(404, {"errors": [UNKNOWN_TASK]})]
    assert run_trellis("jobs", "resume").code == 0
    runware_side.assert_all_delivered()
    assert runware_side.sent() == 2


# The reply to a submit is lost: fal -------------------------------------------------------------------------------------


def _refuse_history(gate: Gate) -> None:
    """fal's list of past requests answers that this key may not see it."""
    error = {"error": {"type": "authorization_error", "message": "Access denied"}}
    gate.on(HISTORY, "before", lambda: httpx.Response(403, json=error))


def test_a_submit_that_fal_never_read_is_not_sent_by_itself(fal_side: Side) -> None:
    job = _kill_at(fal_side, fal_side.front(), (SUBMIT["fal"], "before", 1))
    assert (job.state, job.ticket) == (State.SUBMITTING, None)
    for _ in range(2):
        resumed = run_trellis("jobs", "resume", "--json")
        assert (resumed.code, resumed.last["state"]) == (4, "uncertain")
        assert resumed.last["kind"] == "UncertainError"
        assert fal_side.job().state is State.UNCERTAIN
        assert fal_side.sent() == 0
    assert run_trellis("jobs", "send-again", job.id).code == 0
    fal_side.assert_all_delivered()


def test_a_submit_that_fal_accepted_is_found_among_the_past_requests(fal_side: Side) -> None:
    job = _kill_at(fal_side, fal_side.front(), (SUBMIT["fal"], "after", 1))
    assert (job.state, job.ticket) == (State.SUBMITTING, None)
    assert run_trellis("jobs", "resume").code == 0
    fal_side.assert_all_delivered()
    assert [fal_side.job().request_id] == list(fal_side.standin.jobs)
    assert fal_side.sent() == 1


def test_a_request_that_waits_in_fals_queue_is_found_once_it_is_listed(fal_side: Side) -> None:
    fal_side.goes(queued=1)  # such a request has not started, and is not listed
    _kill_at(fal_side, fal_side.front(), (SUBMIT["fal"], "after", 1))
    assert run_trellis("jobs", "resume").code == 4
    assert fal_side.job().state is State.UNCERTAIN
    fal_side.standin.finish(*fal_side.standin.jobs)
    assert run_trellis("jobs", "resume").code == 0
    fal_side.assert_all_delivered()
    assert fal_side.sent() == 1


def test_requests_of_another_input_are_not_taken_for_the_lost_one(
    fal_side: Side, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The same account is used elsewhere at the same time: another seed, and another picture with the same seed."""
    elsewhere = tmp_path / "elsewhere"
    other = tmp_path / "other.png"
    Image.new("RGB", (64, 64), (20, 200, 90)).save(other)
    gate = fal_side.front()
    with Stop(gate, SUBMIT["fal"], "before") as stop, fal_side.at_work() as process:
        stop.wait()
        with monkeypatch.context() as patch:
            patch.setenv("TRELLIS_HOME", str(elsewhere))
            endpoint = ("--endpoint", fal_side.endpoint)
            for picture, seed in ((fal_side.picture, 6), (other, 5)):
                again = ("generate", picture, *endpoint, "--set", f"seed={seed}")
                assert run_trellis(*again).code == 0
        _kill(process)
    assert run_trellis("jobs", "resume").code == 4
    assert fal_side.job().state is State.UNCERTAIN
    assert fal_side.accepted() == 2


def test_equal_requests_that_were_lost_are_found_one_each(fal_side: Side) -> None:
    gate = fal_side.front()
    for _ in range(2):
        with Stop(gate, SUBMIT["fal"], "after") as stop, fal_side.at_work() as process:
            stop.wait()
            _kill(process)
    assert [job.state for job in fal_side.jobs()] == [State.SUBMITTING] * 2
    resumed = run_trellis("jobs", "resume", "--json")
    assert resumed.code == 0
    told = [line["job_id"] for line in resumed.lines if line["event"] == "result"]
    assert told == [job.id for job in reversed(fal_side.jobs())]
    fal_side.assert_all_delivered(accepted=2)
    assert {job.request_id for job in fal_side.jobs()} == set(fal_side.standin.jobs)


def test_a_history_that_does_not_answer_at_first_is_asked_again(
    fal: FalStandIn, home: Path, picture: Path
) -> None:
    fal.script.queued = 0  # it is listed at once
    with Gate(fal.url("queue")) as front, Gate(fal.url("api")) as api:
        front.on(SUBMIT["fal"], "after", lambda: "drop", times=1)
        api.on(HISTORY, "before", lambda: "drop", times=2)
        config = replace(Config.load(), fal_queue_url=front.url, fal_api_url=f"{api.url}/v1")
        runner = Runner(config)
        try:
            job = runner.wait(runner.submit(Request("fal-ai/trellis-2", [picture])))
        finally:
            runner.close()
    assert job.state is State.READY and len(fal.submits) == 1


@pytest.fixture
def uncertain(fal_side: Side) -> Job:
    """A job that fal has accepted, whose reply was lost, and that this key cannot look for."""
    _refuse_history(fal_side.gate("api"))
    _kill_at(fal_side, fal_side.front(), (SUBMIT["fal"], "after", 1))
    resumed = run_trellis("jobs", "resume", "--json")
    assert (resumed.code, resumed.last["state"]) == (4, "uncertain")
    job = fal_side.job()
    assert job.state is State.UNCERTAIN
    assert (fal_side.accepted(), fal_side.sent()) == (1, 1)
    return job


def test_an_uncertain_job_is_sent_again_once_when_asked_for(fal_side: Side, uncertain: Job) -> None:
    done = run_trellis("jobs", "send-again", uncertain.id, "--json")
    assert (done.code, done.last["state"]) == (0, "ready")
    fal_side.assert_all_delivered(accepted=2)  # the user's decision
    assert fal_side.job().request_id == list(fal_side.standin.jobs)[1]
    again = run_trellis("jobs", "send-again", uncertain.id, "--json")
    assert (again.code, again.last["kind"]) == (2, "InputError")
    assert fal_side.sent() == 2


def test_two_processes_send_an_uncertain_job_again_at_once(fal_side: Side, uncertain: Job) -> None:
    arguments = ("jobs", "send-again", uncertain.id, "--json")
    with _process(*arguments) as one, _process(*arguments) as other:
        assert sorted([_end(one).code, _end(other).code]) == [0, 2]
    fal_side.assert_all_delivered(accepted=2)
    assert fal_side.sent() == 2


def test_an_uncertain_job_takes_over_the_request_that_it_is_told(
    fal_side: Side, uncertain: Job
) -> None:
    (request_id,) = fal_side.standin.jobs
    done = run_trellis("jobs", "adopt", uncertain.id, request_id, "--json")
    assert (done.code, done.last["state"], done.last["request_id"]) == (0, "ready", request_id)
    fal_side.assert_all_delivered()
    assert fal_side.sent() == 1


def test_a_mistyped_request_does_not_end_an_uncertain_job(fal_side: Side, uncertain: Job) -> None:
    done = run_trellis("jobs", "adopt", uncertain.id, str(uuid.uuid4()), "--json")
    assert (done.code, done.last["kind"]) == (2, "InputError")
    assert fal_side.job().state is State.UNCERTAIN
    (request_id,) = fal_side.standin.jobs
    assert run_trellis("jobs", "adopt", uncertain.id, request_id).code == 0
    fal_side.assert_all_delivered()


def test_an_uncertain_job_is_ended_when_asked_for(fal_side: Side, uncertain: Job) -> None:
    assert run_trellis("jobs", "cancel", uncertain.id).code == 0
    assert fal_side.job().state is State.CANCELLED
    assert run_trellis("jobs", "resume", "--json").out == ""
    assert fal_side.sent() == 1


# The line is cut, and nobody dies ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("point", ["before", "after"])
def test_runware_makes_one_model_when_the_line_is_cut(runware_side: Side, point: Point) -> None:
    cut = runware_side.front().on(SUBMIT["runware"], point, lambda: "drop", times=1)
    assert run_trellis(*runware_side.command()).code == 0
    assert cut.is_set()
    runware_side.assert_all_delivered()
    assert runware_side.sent() == 1


def test_fal_is_not_sent_a_request_again_when_the_line_is_cut_before_it_arrives(
    fal_side: Side,
) -> None:
    cut = fal_side.front().on(SUBMIT["fal"], "before", lambda: "drop", times=1)
    done = run_trellis(*fal_side.command())
    assert cut.is_set()
    assert (done.code, done.last["state"], done.last["kind"]) == (4, "uncertain", "UncertainError")
    assert fal_side.job().state is State.UNCERTAIN
    assert fal_side.sent() == 0


def test_fals_model_is_delivered_when_the_line_is_cut_after_it_was_accepted(fal_side: Side) -> None:
    cut = fal_side.front().on(SUBMIT["fal"], "after", lambda: "drop", times=1)
    assert run_trellis(*fal_side.command()).code == 0
    assert cut.is_set()
    fal_side.assert_all_delivered()
    assert fal_side.sent() == 1


def test_what_never_left_is_neither_uncertain_nor_charged(
    side: Side, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody listens at the service's address, and the user does not wait: later it is sent, without a question."""
    with socket.socket() as taken, monkeypatch.context() as patch:
        taken.bind(("127.0.0.1", 0))  # and not listening: nobody else can open it meanwhile
        variable, path = VARIABLES[side.name, "queue" if side.name == "fal" else "api"]
        patch.setenv(variable, f"http://127.0.0.1:{taken.getsockname()[1]}{path}")
        left = run_trellis(*side.command("--timeout", "2"))
        assert left.code == 4
        assert side.job().state is State.PREPARED
    assert run_trellis("spent", "--json").out == ""
    assert run_trellis("jobs", "resume").code == 0
    side.assert_all_delivered()
    assert side.sent() == 1


# Several processes, and none with a key ---------------------------------------------------------------------------------


def test_what_one_process_works_on_no_other_resumes(side: Side) -> None:
    gate = side.front()
    status = STATUS[side.name]
    assert _kill_at(side, gate, (status, "after", 1)).state is State.RUNNING
    with (
        Stop(gate, status, "after") as stop,
        _process("jobs", "resume", "--json") as first,
    ):
        stop.wait()
        second = run_trellis("jobs", "resume", "--json")
        assert (second.code, second.out) == (0, "")
        stop.go()
        done = _end(first)
    assert (done.code, done.last["state"]) == (0, "ready")
    side.assert_all_delivered()


def test_of_processes_that_resume_at_once_one_delivers(side: Side) -> None:
    _kill_at(side, side.front(), (SUBMIT[side.name], "after", 1))
    with ExitStack() as stack:
        processes = [stack.enter_context(_process("jobs", "resume", "--json")) for _ in range(3)]
        ended = [_end(process) for process in processes]
    assert [done.code for done in ended] == [0, 0, 0]
    results = [line for done in ended for line in done.lines if line["event"] == "result"]
    assert len(results) == 1
    assert sum(not done.out for done in ended) == 2
    side.assert_all_delivered()
    assert side.sent() == 1


@pytest.mark.parametrize(
    ("pattern", "number", "state"),
    [
        (SUBMIT["runware"], 1, State.SUBMITTING),
        (STATUS["runware"], 1, State.RUNNING),
        (STATUS["runware"], 2, State.DOWNLOADING),
    ],
)
def test_a_resume_without_the_key_loses_nothing(
    runware_side: Side, monkeypatch: pytest.MonkeyPatch, pattern: str, number: int, state: State
) -> None:
    assert _kill_at(runware_side, runware_side.front(), (pattern, "after", number)).state is state
    with monkeypatch.context() as patch:
        patch.delenv("RUNWARE_API_KEY")
        resumed = run_trellis("jobs", "resume", "--json")
        assert (resumed.code, resumed.last["kind"]) == (2, "AccessError")
    assert runware_side.job().state is state
    assert run_trellis("jobs", "resume").code == 0
    runware_side.assert_all_delivered()


# Ctrl-C -----------------------------------------------------------------------------------------------------------------


def _cancels(fal: FalStandIn) -> int:
    return sum(call.method == "PUT" for call in fal.calls)


def test_interrupting_at_runware_ends_the_waiting_alone(runware_side: Side) -> None:
    runware_side.goes(held=True)
    with (
        Stop(runware_side.front(), STATUS["runware"], "after") as stop,
        runware_side.at_work() as process,
    ):
        stop.wait()
        process.send_signal(signal.SIGINT)
        done = _end(process)
    assert (done.code, done.last["state"], done.last["kind"]) == (4, "uncertain", "LeftError")
    job = runware_side.job()
    assert job.state is State.RUNNING
    runware_side.standin.finish(job.id)
    assert run_trellis("jobs", "resume").code == 0
    runware_side.assert_all_delivered()
    assert runware_side.sent() == 1


def test_interrupting_in_fals_queue_cancels(fal_side: Side) -> None:
    fal_side.goes(queued=100)
    with Stop(fal_side.front(), STATUS["fal"], "after") as stop, fal_side.at_work() as process:
        stop.wait()
        process.send_signal(signal.SIGINT)
        done = _end(process)
    assert (done.code, done.last["state"]) == (130, "cancelled")
    assert fal_side.job().state is State.CANCELLED
    assert _cancels(fal_side.standin) == 1
    assert run_trellis("jobs", "resume", "--json").out == ""


def test_interrupting_when_fal_has_just_finished_delivers(fal_side: Side) -> None:
    fal_side.goes(held=True)
    with Stop(fal_side.front(), STATUS["fal"], "after") as stop, fal_side.at_work() as process:
        stop.wait()
        fal_side.standin.finish(*fal_side.standin.jobs)
        process.send_signal(signal.SIGINT)
        done = _end(process)
    assert (done.code, done.last["state"]) == (0, "ready")
    assert _cancels(fal_side.standin) == 1
    fal_side.assert_all_delivered()


def test_interrupting_a_submit_waits_for_the_job_s_name(side: Side) -> None:
    """Only the reply names the job: fal's is cancelled by it, Runware's is there to be collected."""
    side.goes(**({"queued": 100} if side.name == "fal" else {}))
    with Stop(side.front(), SUBMIT[side.name], "after") as stop, side.at_work() as process:
        stop.wait()
        process.send_signal(signal.SIGINT)
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.5)  # it must not leave a job behind that nobody knows
        stop.go()
        done = _end(process)
    assert (side.accepted(), side.sent()) == (1, 1)
    if side.name == "fal":
        assert (done.code, side.job().state) == (130, State.CANCELLED)
        assert _cancels(side.standin) == 1
    else:
        assert (done.code, side.job().state) == (4, State.RUNNING)
        assert run_trellis("jobs", "resume").code == 0
        side.assert_all_delivered()


def test_interrupting_a_submit_whose_reply_is_lost_leaves_it_to_be_found(side: Side) -> None:
    with Stop(side.front(), SUBMIT[side.name], "after") as stop, side.at_work() as process:
        stop.wait()
        process.send_signal(signal.SIGINT)
        stop.cut()
        done = _end(process)
    assert (done.code, done.last["state"]) == (4, "uncertain")
    assert run_trellis("jobs", "resume").code == 0
    side.assert_all_delivered()
    assert side.sent() == 1


def test_interrupting_a_download_leaves_the_paid_model_to_be_collected(side: Side) -> None:
    with Stop(side.gate("files"), "^GET", "half") as stop, side.at_work() as process:
        stop.wait()
        process.send_signal(signal.SIGINT)
        done = _end(process)
    assert (done.code, done.last["state"], done.last["kind"]) == (4, "uncertain", "LeftError")
    assert side.job().state is State.DOWNLOADING
    assert run_trellis("jobs", "resume").code == 0
    side.assert_all_delivered()


def test_interrupting_the_search_for_a_lost_job_does_not_end_it(side: Side) -> None:
    gate = side.front()
    _kill_at(side, gate, (SUBMIT[side.name], "after", 1))
    looks = (side.gate("api"), HISTORY) if side.name == "fal" else (gate, STATUS["runware"])
    for state in (State.SUBMITTING, State.UNCERTAIN):
        assert side.job().state is state
        with Stop(*looks, "before") as stop, _process("jobs", "resume", "--json") as process:
            stop.wait()
            process.send_signal(signal.SIGINT)
            done = _end(process)
        assert (done.code, done.last["state"]) == (4, "uncertain")
    assert side.job().state is State.UNCERTAIN
    assert run_trellis("jobs", "resume").code == 0
    side.assert_all_delivered()
    assert side.sent() == 1


# Several results --------------------------------------------------------------------------------------------------------


@pytest.fixture
def three(
    runware_side: Side, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[Side, list[bytes]]:
    """Runware, making models that differ: the n-th variation is the n-th of the GLBs."""
    standin: RunwareStandIn = runware_side.standin
    sizes = ((1, 1, 1), (1, 2, 1), (1, 3, 1))
    made = [
        glbs.write(tmp_path / f"{number}.glb", [glbs.box(size)]).read_bytes()
        for number, size in enumerate(sizes)
    ]
    plain = standin.answer

    def answer(call: Call) -> Reply:
        reply = plain(call)
        if call.host != "files" or reply.status != 200:
            return reply
        (files,) = (task.files for task in standin.tasks.values())
        return Reply(200, made[files.index(Path(call.path).stem)], reply.headers)

    monkeypatch.setattr(standin, "answer", answer)
    return runware_side, made


def _contents(job: Job) -> list[bytes]:
    return [Path(path).read_bytes() for path in job.files]


@pytest.mark.parametrize("in_data", [True, False])
def test_of_three_results_one_fails_and_two_are_kept(
    three: tuple[Side, list[bytes]], in_data: bool
) -> None:
    side, made = three
    failure = {"code": "inferenceError", "message": "The mesh came out empty."}
    side.goes(failed={1: failure}, item_errors=in_data)
    done = run_trellis(*side.command("--set", "numberResults=3"))
    assert done.code == 0
    assert done.last["cost"] == {"amount": 0.0512, "currency": "USD", "estimate": False}
    job = side.job()
    assert done.last["files"] == job.files
    assert (_contents(job), job.seeds) == ([made[0], made[2]], [5, 7])
    assert job.error
    assert job.error["message"] == "1 of 3 models failed: The mesh came out empty"
    assert job.error["message"] in [line.get("message") for line in done.lines]
    side.assert_all_delivered()


def test_results_that_come_one_by_one_are_waited_for_and_counted_once(
    three: tuple[Side, list[bytes]],
) -> None:
    side, made = three
    side.goes(dribble=True)
    done = run_trellis(*side.command("--set", "numberResults=3"))
    assert done.code == 0
    assert done.last["cost"]["amount"] == pytest.approx(3 * 0.0256)
    assert (_contents(side.job()), side.job().seeds) == (made, [5, 6, 7])
    side.assert_all_delivered()


def test_killed_between_two_downloads(three: tuple[Side, list[bytes]]) -> None:
    side, made = three
    stop = ("^GET", "half", 2)
    job = _kill_at(side, side.gate("files"), stop, "--set", "numberResults=3")
    assert job.state is State.DOWNLOADING
    assert run_trellis("jobs", "resume").code == 0
    assert _contents(side.job()) == made
    side.assert_all_delivered()


# The accounts -----------------------------------------------------------------------------------------------------------


def test_what_was_spent_stays_known_by_month_and_service(
    make_side: Callable[[str], Side],
) -> None:
    fal, runware = make_side("fal"), make_side("runware")
    made = [run_trellis(*side.command()).last for side in (fal, fal, runware)]
    for line in made[1:]:
        assert run_trellis("jobs", "forget", line["job_id"]).code == 0
    assert [job.id for job in fal.jobs()] == [made[0]["job_id"]]
    month = time.strftime("%Y-%m")
    rest = {"currency": "USD", "estimate": False}
    assert run_trellis("spent", "--json").lines == [
        {"month": month, "service": "fal", "amount": pytest.approx(0.6), "jobs": 2, **rest},
        {"month": month, "service": "runware", "amount": 0.0256, "jobs": 1, **rest},
    ]
    database = sqlite3.connect(fal.home / "journal.sqlite3")
    earlier = time.mktime((2026, 2, 28, 23, 59, 59, 0, 0, -1))  # the last second of a month here
    with database:
        database.execute(
            "UPDATE charge SET time = ? WHERE job_id = ?", [earlier, made[1]["job_id"]]
        )
    database.close()
    sums = [
        (row["month"], row["service"], row["amount"], row["jobs"])
        for row in run_trellis("spent", "--json").lines
    ]
    assert sums == [
        (month, "fal", 0.3, 1),
        (month, "runware", 0.0256, 1),
        ("2026-02", "fal", 0.3, 1),
    ]
    assert "about" not in run_trellis("spent").out


def test_a_broken_model_was_paid_all_the_same(side: Side) -> None:
    side.standin.glb = b"no GLB at all"
    done = run_trellis(*side.command())
    assert (done.code, done.last["kind"]) == (3, "ResultError")
    (row,) = run_trellis("spent", "--json").lines
    assert row["amount"] == pytest.approx({"fal": 0.3, "runware": 0.0256}[side.name])

# SPDX-License-Identifier: GPL-3.0-or-later
"""Many jobs at once: how many are at a service, in which order the others come, and that a restart changes neither."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from blender_trellis.config import Config
from blender_trellis.errors import AccessError, CancelledError, ImageError, InputError
from blender_trellis.generation.job import Event, State
from blender_trellis.generation.journal import Journal
from blender_trellis.generation.request import Request
from blender_trellis.generation.runner import Runner
from harness import REPOSITORY
from services.fal_standin import FalStandIn

FAL, OTHER = "fal-ai/trellis-2", "fal-ai/trellis"


@pytest.fixture
def settings(fal: FalStandIn, home: Path) -> Config:
    """fal, which keeps every job until it is told to finish it, two at once."""
    fal.script.held = True
    return replace(Config.load(), jobs_at_once=2)


@pytest.fixture
def runner(settings: Config) -> Iterator[Runner]:
    runner = Runner(settings)
    yield runner
    runner.close()


class Watched:
    """What a runner has told of each job, so far."""

    def __init__(self, runner: Runner) -> None:
        self.runner = runner
        self.last: dict[str, Event] = {}

    def until(self, done: Callable[[], object]) -> None:
        deadline = time.monotonic() + 60
        while not done():
            assert time.monotonic() < deadline, self.last
            while not self.runner.events.empty():
                event = self.runner.events.get()
                self.last[event.job_id] = event
            time.sleep(0.01)

    def ready(self, *jobs: str) -> bool:
        return all(job in self.last and self.last[job].state is State.READY for job in jobs)

    def ahead(self, *jobs: str) -> list[int]:
        return [self.last[job].ahead if job in self.last else -1 for job in jobs]


def ask(runner: Runner, picture: Path, count: int, endpoint: str = FAL) -> list[str]:
    return [
        runner.submit(Request(endpoint, [picture], {"seed": number})) for number in range(count)
    ]


def seeds(fal: FalStandIn) -> list[int]:
    """Those of the requests that fal got, in the order it got them."""
    return [submit["seed"] for submit in bodies(fal)]


def bodies(fal: FalStandIn) -> list[dict[str, int]]:
    return [job.input for job in fal.jobs.values()]


def finish(fal: FalStandIn, number: int) -> None:
    fal.finish([*fal.jobs][number])


def test_at_most_so_many_are_at_a_service_and_the_others_come_in_their_order(
    runner: Runner, fal: FalStandIn, picture: Path
) -> None:
    watched = Watched(runner)
    jobs = ask(runner, picture, 5)
    watched.until(lambda: watched.ahead(*jobs[2:]) == [2, 3, 4])
    assert watched.last[jobs[3]].message == "Waiting for 3 others"
    assert watched.last[jobs[3]].state is State.PREPARED
    assert sorted(seeds(fal)) == [0, 1]
    for done in range(3):
        finish(fal, done)
        watched.until(lambda done=done: len(fal.submits) == done + 3)
        assert seeds(fal)[2:] == [2, 3, 4][: done + 1]
    finish(fal, 3)
    finish(fal, 4)
    watched.until(lambda: watched.ready(*jobs))
    assert len(fal.submits) == 5


def test_one_that_waits_is_sent_by_the_settings_of_the_moment_in_which_its_turn_comes(
    runner: Runner, fal: FalStandIn, picture: Path, settings: Config
) -> None:
    watched = Watched(runner)
    jobs = ask(runner, picture, 3)
    watched.until(lambda: watched.ahead(jobs[2]) == [2])
    runner.reconfigure(replace(settings, jobs_at_once=3, fal_key="revoked"))
    watched.until(lambda: watched.last[jobs[2]].error)
    assert (watched.last[jobs[2]].error or {})["kind"] == "AccountError"
    assert len(fal.jobs) == 2


def test_all_endpoints_of_a_service_share_its_limit(
    runner: Runner, fal: FalStandIn, picture: Path
) -> None:
    watched = Watched(runner)
    first = ask(runner, picture, 2)
    watched.until(lambda: len(fal.submits) == 2)
    (other,) = ask(runner, picture, 1, OTHER)
    watched.until(lambda: watched.ahead(other) == [2])
    assert len(fal.submits) == 2
    runner.cancel(first[0])
    watched.until(lambda: len(fal.submits) == 3)


def test_one_that_waits_can_be_cancelled_here_and_from_elsewhere_and_was_never_sent(
    runner: Runner, fal: FalStandIn, picture: Path, settings: Config
) -> None:
    watched = Watched(runner)
    jobs = ask(runner, picture, 5)
    watched.until(lambda: watched.ahead(*jobs[2:]) == [2, 3, 4])
    runner.cancel(jobs[2])
    watched.until(lambda: watched.ahead(*jobs[3:]) == [2, 3])
    elsewhere = Journal(settings.home)
    elsewhere.note(jobs[3], cancel_asked=True)
    elsewhere.close()
    watched.until(lambda: watched.ahead(jobs[4]) == [2])
    ended = [runner.journal.get(job).state for job in jobs[2:4]]
    assert ended == [State.CANCELLED, State.CANCELLED] and len(fal.submits) == 2


def test_a_restart_keeps_limit_and_order_and_sends_nothing_twice(
    settings: Config, fal: FalStandIn, picture: Path
) -> None:
    first = Runner(settings)
    watched = Watched(first)
    jobs = ask(first, picture, 5)
    watched.until(lambda: watched.ahead(*jobs[2:]) == [2, 3, 4])
    first.close()
    assert len(fal.submits) == 2
    second = Runner(replace(settings, jobs_at_once=1))
    try:
        watched = Watched(second)
        assert [job.id for job in second.resume()] == jobs
        watched.until(lambda: watched.ahead(*jobs[2:]) == [2, 3, 4])
        finish(fal, 0)  # which is one of the first two: they may arrive in any order
        watched.until(lambda: any(map(watched.ready, jobs[:2])))
        watched.until(lambda: watched.ahead(jobs[2]) == [1])
        assert len(fal.submits) == 2
        for number in range(1, 5):
            finish(fal, number)
            watched.until(lambda number=number: len(fal.submits) == min(number + 2, 5))
        watched.until(lambda: watched.ready(*jobs))
    finally:
        second.close()
    assert seeds(fal)[2:] == [2, 3, 4] and len(fal.submits) == 5


def test_a_kill_keeps_limit_and_order_and_sends_nothing_twice(
    settings: Config, fal: FalStandIn, picture: Path
) -> None:
    code = (
        "import sys, time; from dataclasses import replace; from pathlib import Path\n"
        "from blender_trellis.config import Config\n"
        "from blender_trellis.generation.request import Request\n"
        "from blender_trellis.generation.runner import Runner\n"
        "runner = Runner(Config.load())\n"
        "for seed in range(5):\n"
        f"    runner.submit(Request({FAL!r}, [Path(sys.argv[1])], {{'seed': seed}}))\n"
        "while True:\n"
        "    print(runner.events.get().message, flush=True)\n"
    )
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY), "TRELLIS_JOBS_AT_ONCE": "2"}
    child = subprocess.Popen(
        [sys.executable, "-c", code, picture], env=environment, stdout=subprocess.PIPE, text=True
    )
    assert child.stdout
    while "Waiting for 4 others" not in child.stdout.readline():
        assert child.poll() is None
    while len(fal.submits) < 2:
        time.sleep(0.01)
    child.kill()
    child.wait()
    child.stdout.close()
    runner = Runner(settings)
    try:
        watched = Watched(runner)
        jobs = [job.id for job in runner.resume()]
        states = {job.id: job.state for job in runner.journal.jobs()}
        assert [states[job] for job in jobs[2:]] == [State.PREPARED] * 3
        # A reply that was on its way at the kill is asked for at fal, and its job not sent again
        watched.until(lambda: watched.ahead(*jobs[2:])[-1] in (2, 3, 4))
        assert len(fal.submits) == 2
        for number in range(5):
            watched.until(lambda number=number: len(fal.jobs) > number)
            finish(fal, number)
        watched.until(lambda: watched.ready(*jobs[2:]))
    finally:
        runner.close()
    # Two that have their turn at once may arrive in any order
    assert sorted(seeds(fal)[:2]) == [0, 1] and sorted(seeds(fal)) == [0, 1, 2, 3, 4]


def test_a_number_that_is_none_is_refused(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert Config.load().jobs_at_once == 4
    monkeypatch.setenv("TRELLIS_JOBS_AT_ONCE", "7")
    assert Config.load(jobs_at_once=3).jobs_at_once == 7
    for wrong in ("0", "many", "1.5"):
        monkeypatch.setenv("TRELLIS_JOBS_AT_ONCE", wrong)
        with pytest.raises(InputError, match="TRELLIS_JOBS_AT_ONCE must be a whole number"):
            Config.load()


def test_a_job_is_repeated_with_all_that_was_asked_for(
    runner: Runner, fal: FalStandIn, picture: Path
) -> None:
    fal.script.held = False
    request = Request(FAL, [picture], {"seed": 3, "resolution": 512}, {"scene": "a"})
    first = runner.wait(runner.submit(request))
    picture.unlink()
    second = runner.wait(runner.repeat(first.id))
    assert second.id != first.id and second.files == first.files
    for same in ("endpoint", "parameters", "images", "names", "wish", "max_cost"):
        assert getattr(second, same) == getattr(first, same)
    third = runner.wait(runner.repeat(first.id, wish={}))
    assert third.parameters == first.parameters and third.fulfilled and not second.fulfilled
    assert len(fal.submits) == 3 and len({*runner.journal.request_ids()}) == 3


def test_a_job_whose_picture_or_key_is_gone_is_not_repeated(
    runner: Runner, fal: FalStandIn, picture: Path, settings: Config
) -> None:
    fal.script.held = False
    first = runner.wait(runner.submit(Request(FAL, [picture], {"seed": 3})))
    (runner.library.inputs / first.images[0]).unlink()
    with pytest.raises(ImageError, match="is gone"):
        runner.wait(runner.repeat(first.id))
    runner.config = replace(settings, fal_key="")
    with pytest.raises(AccessError):
        runner.wait(runner.repeat(first.id))
    assert len(fal.submits) == 1 and len(runner.journal.jobs()) == 1


def test_what_waits_for_its_turn_is_not_held_up_by_what_waits_for_its_end(
    runner: Runner, fal: FalStandIn, picture: Path
) -> None:
    """A Blender that waits for one job by `wait` gets it though others are before it."""
    ask(runner, picture, 2)
    third = ask(runner, picture, 1)[0]
    told: list[str] = []

    def show(event: Event) -> None:
        told.append(event.message)
        if event.ahead:
            runner.cancel(third)

    with pytest.raises(CancelledError):
        runner.wait(third, show)
    assert "Waiting for 2 others" in told


def test_those_that_wait_keep_their_place_while_there_is_no_key(
    settings: Config, fal: FalStandIn, picture: Path
) -> None:
    first = Runner(settings)
    watched = Watched(first)
    jobs = ask(first, picture, 4)
    watched.until(lambda: watched.ahead(*jobs[2:]) == [2, 3])
    first.close()
    keyless = Runner(replace(settings, fal_key=""))
    watched = Watched(keyless)
    keyless.resume()
    watched.until(lambda: all(job in watched.last and watched.last[job].error for job in jobs))
    waiting = [watched.last[job] for job in jobs[2:]]
    assert [event.state for event in waiting] == [State.PREPARED] * 2
    assert [keyless.journal.get(job).state for job in jobs[2:]] == [State.PREPARED] * 2
    keyless.cancel(jobs[3])
    watched.until(lambda: watched.last[jobs[3]].state is State.CANCELLED)
    keyless.close()
    fal.script.held = False
    last = Runner(settings)
    assert [job.id for job in last.resume()] == jobs[:3]
    finish(fal, 0)
    finish(fal, 1)
    assert last.wait(jobs[2]).state is State.READY
    last.close()
    assert seeds(fal)[2:] == [2]


def test_one_whose_turn_comes_while_the_disk_is_full_is_sent_once_when_there_is_room(
    settings: Config, fal: FalStandIn, picture: Path
) -> None:
    runner = Runner(replace(settings, jobs_at_once=1))
    watched = Watched(runner)
    jobs = ask(runner, picture, 2)
    watched.until(lambda: watched.ahead(jobs[1]) == [1])
    runner.journal._database.execute("PRAGMA query_only = 1")  # what a full disk amounts to
    finish(fal, 0)
    watched.until(lambda: watched.last[jobs[1]].error)
    stopped = watched.last[jobs[1]]
    assert stopped.error and stopped.error["kind"] == "StorageError"
    assert stopped.state is runner.journal.get(jobs[1]).state is State.PREPARED
    assert len(fal.submits) == 1
    runner.journal._database.execute("PRAGMA query_only = 0")
    # `jobs cancel` from outside: nobody works on the job, so nobody heeds it until the user wants it to go on
    runner.journal.note(jobs[1], cancel_asked=True)
    fal.script.held = False
    runner.resume(jobs[1])
    watched.until(lambda: watched.ready(jobs[1]))
    runner.close()
    assert len(fal.submits) == 2


def test_where_the_service_cannot_be_reached_those_that_wait_stop_and_keep_their_place(
    settings: Config, fal: FalStandIn, picture: Path
) -> None:
    offline = Runner(replace(settings, jobs_at_once=1, fal_queue_url="http://127.0.0.1:9"))
    watched = Watched(offline)
    jobs = ask(offline, picture, 3)
    watched.until(lambda: all(job in watched.last and watched.last[job].error for job in jobs))
    states = [watched.last[job].state for job in jobs]
    assert states == [State.FAILED, State.PREPARED, State.PREPARED]
    assert states == [offline.journal.get(job).state for job in jobs]
    offline.close()
    fal.script.held = False
    online = Runner(settings)
    assert [job.id for job in online.resume()] == jobs[1:]
    watched = Watched(online)
    watched.until(lambda: watched.ready(*jobs[1:]))
    online.close()
    assert sorted(seeds(fal)) == [1, 2]

# SPDX-License-Identifier: GPL-3.0-or-later
"""The runner against a real sidecar, through a gate that breaks the line where a test wants it broken."""

from __future__ import annotations

import struct
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from email.message import Message
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image

from blender_trellis.config import Config
from blender_trellis.errors import (
    AccessError,
    AccountError,
    CancelledError,
    EndpointError,
    GenerationError,
    ImageError,
    ParameterError,
    RejectedError,
    ResultError,
    TrellisError,
    UncertainError,
    UnreachableError,
)
from blender_trellis.generation import glb
from blender_trellis.generation.job import Event, State
from blender_trellis.generation.request import Request
from blender_trellis.generation.runner import Runner
from blender_trellis.services.sidecar import SidecarService
from gate import Gate, Point

FAST = {"seed": 5, "resolution": 512, "texture_size": 512, "decimation_target": 5000}


@pytest.fixture
def gate(shared_sidecar: tuple[str, str]) -> Iterator[Gate]:
    with Gate(shared_sidecar[0]) as gate:
        yield gate


@pytest.fixture
def runner(config: Config, gate: Gate) -> Iterator[Runner]:
    runner = Runner(replace(config, sidecar_url=gate.url))
    yield runner
    runner.close()


def _run(runner: Runner, picture: Path, **parameters: Any) -> list[Event]:
    events: list[Event] = []
    request = Request("local/draft", [picture], FAST | parameters)
    runner.wait(runner.submit(request), events.append)
    return events


def _fails(runner: Runner, picture: Path, kind: type[TrellisError], words: str) -> TrellisError:
    with pytest.raises(kind) as caught:
        _run(runner, picture)
    assert words in caught.value.message
    return caught.value


def test_a_job_from_picture_to_kept_model(runner: Runner, picture: Path) -> None:
    events = _run(runner, picture)
    states = list(dict.fromkeys(event.state for event in events))
    assert states == ["prepared", "submitting", "running", "downloading", "ready"]
    (job,) = runner.journal.jobs()
    assert job.parameters == FAST
    assert job.names == [picture.name]
    (path,) = map(Path, job.files)
    assert path.name.startswith(f"{picture.stem}-") and path.parent == runner.library.results
    assert glb.check(path).images == 2
    assert job.fulfilled


def test_progress_names_the_stages_and_never_goes_back(runner: Runner, picture: Path) -> None:
    events = _run(runner, picture, resolution=1024, texture_size=2048)
    told = [
        event for event in events if event.state is State.RUNNING and event.fraction is not None
    ]
    fractions = [event.fraction for event in told]
    assert len(set(fractions)) > 3
    assert fractions == sorted(fractions)
    stages = list(dict.fromkeys(event.stage for event in told))
    assert [
        stage for stage in ("image", "structure", "shape", "texture", "mesh") if stage in stages
    ] == stages


def test_the_same_seed_and_input_give_the_same_bytes_and_one_file(
    runner: Runner, picture: Path
) -> None:
    _run(runner, picture)
    _run(runner, picture)
    first, second = runner.journal.jobs()
    assert first.files == second.files
    assert len(list(runner.library.results.iterdir())) == 1
    _run(runner, picture, seed=6)
    assert len(list(runner.library.results.iterdir())) == 2


def test_a_drawn_seed_is_sent_and_recorded(runner: Runner, picture: Path) -> None:
    parameters = {name: value for name, value in FAST.items() if name != "seed"}
    for _ in range(2):
        runner.wait(runner.submit(Request("local/draft", [picture], parameters)))
    first, second = runner.journal.jobs()
    assert first.seed != second.seed


def test_four_views(runner: Runner, picture: Path) -> None:
    job = runner.wait(runner.submit(Request("local/draft", [picture] * 4, FAST)))
    assert len(job.images) == 4 and len(set(job.images)) == 1


@pytest.mark.parametrize(
    ("endpoint", "count", "parameters", "kind", "words"),
    [
        ("local/nothing", 1, {}, EndpointError, "There is no endpoint 'local/nothing'"),
        ("local/trellis-2", 9, {}, EndpointError, "takes 8 images at most, and 9 were given"),
        ("fal-ai/trellis-2", 1, {}, AccessError, "no key for fal"),
        ("runware/trellis-2", 1, {}, AccessError, "RUNWARE_API_KEY in the environment"),
        ("local/draft", 0, {}, ImageError, "There is no image"),
        ("local/draft", 5, {}, EndpointError, "takes 4 images at most, and 5 were given"),
        (
            "local/draft",
            1,
            {"texture_size": 4097},
            ParameterError,
            "1024, 2048 or 4096 pixels, not 4097",
        ),
    ],
)
def test_a_bad_request_leaves_no_trace(
    runner: Runner,
    picture: Path,
    endpoint: str,
    count: int,
    parameters: dict[str, Any],
    kind: type[TrellisError],
    words: str,
) -> None:
    with pytest.raises(kind) as caught:
        runner.wait(runner.submit(Request(endpoint, [picture] * count, parameters)))
    assert words in str(caught.value)
    assert caught.value.exit_code == 2
    assert runner.journal.jobs() == []
    assert list(runner.library.inputs.iterdir()) == []


def test_a_picture_without_a_subject_is_refused_by_the_engine(
    runner: Runner, tmp_path: Path
) -> None:
    path = tmp_path / "grey.png"
    Image.new("RGB", (64, 64), (128, 128, 128)).save(path)
    error = _fails(runner, path, RejectedError, "No subject was found")
    assert error.request_id


def _always(answer: Any) -> Callable[[], Any]:
    return lambda: answer


SLOW = {"resolution": 1536, "texture_size": 4096}
TOO_MANY = httpx.Response(429, json={"detail": "slow down"})
NO_JSON = httpx.Response(200, text="?!")


@pytest.mark.parametrize(
    ("pattern", "answer"),
    [
        (pattern, answer)
        for pattern in ("^GET .*/status", "^GET .*/requests/[^/]+$", "^GET /files")
        for answer in ("drop", httpx.Response(502, html="<html>nginx</html>"), TOO_MANY, NO_JSON)
        if not (
            "files" in pattern and answer is NO_JSON
        )  # a file has no form that could be wrong here
    ],
)
def test_trouble_on_the_way_says_nothing_about_the_job(
    runner: Runner, gate: Gate, picture: Path, pattern: str, answer: Any
) -> None:
    gate.on(pattern, "before", _always(answer), times=2)
    assert _run(runner, picture)[-1].state is State.READY
    assert sum(line.startswith("POST") for line in gate.seen) == 1


def test_a_cut_download_begins_again(runner: Runner, gate: Gate, picture: Path) -> None:
    gate.on("^GET /files", "half", _always("drop"), times=2)
    assert _run(runner, picture)[-1].state is State.READY
    assert sum("/files/" in line for line in gate.seen) == 3
    assert len(list(runner.library.results.iterdir())) == 1


@pytest.mark.parametrize("point", ["before", "after"])
def test_a_lost_reply_to_the_submit_makes_one_job(
    runner: Runner, gate: Gate, picture: Path, point: Point
) -> None:
    """The sidecar knows a repetition by its key, so asking again is safe, and tells what happened."""
    gate.on("^POST /local/draft", point, _always("drop"), times=1)
    assert _run(runner, picture)[-1].state is State.READY
    assert sum(line.startswith("POST") for line in gate.seen) == 2
    assert len({line for line in gate.seen if "/files/" in line}) == 1


@pytest.mark.parametrize("point", ["before", "after"])
def test_a_lost_reply_from_a_service_without_such_keys_is_uncertain(
    runner: Runner, gate: Gate, picture: Path, point: Point, monkeypatch: pytest.MonkeyPatch
) -> None:
    """fal has none: the request is not sent again by itself, and not called failed either."""
    monkeypatch.setattr(SidecarService, "repeatable", False)
    gate.on("^POST /local/draft", point, _always("drop"), times=1)
    error = _fails(runner, picture, UncertainError, "It may be at work, and charged")
    assert error.exit_code == 4
    assert sum(line.startswith("POST") for line in gate.seen) == 1
    (job,) = runner.journal.jobs()
    assert job.state is State.UNCERTAIN


@pytest.mark.parametrize("name", ["status_url", "response_url", "cancel_url"])
def test_urls_on_another_host_are_not_followed(
    runner: Runner, gate: Gate, picture: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The key would go there."""
    monkeypatch.setattr(SidecarService, "repeatable", False)
    urls = dict.fromkeys(("status_url", "response_url", "cancel_url"), f"{gate.url}/x")
    answer = httpx.Response(200, json={"request_id": "r", **urls, name: "https://evil.example/x"})
    gate.on("^POST", "before", _always(answer))
    _fails(runner, picture, UncertainError, "cannot be understood")
    assert len(gate.seen) == 1


@pytest.mark.parametrize(
    ("status", "body", "kind", "words"),
    [
        (
            401,
            {"detail": "invalid key credentials"},
            AccountError,
            "refuses the key: invalid key credentials",
        ),
        (403, {"detail": "User is locked."}, AccountError, "User is locked."),
        (404, {"detail": 'Application "x" not found'}, RejectedError, 'Application "x" not found'),
        (413, {"detail": "too large"}, RejectedError, "too large"),
        (
            422,
            {"detail": [{"loc": ["body", "texture_size"], "msg": "must be less", "type": "x"}]},
            RejectedError,
            "texture_size: must be less",
        ),
        (
            429,
            {"detail": "queue full"},
            UnreachableError,
            "queue full. Nothing was taken on; try again",
        ),
        (503, {"detail": "CUDA error: out of memory"}, UnreachableError, "out of memory"),
        (500, {"detail": "Internal Server Error"}, UnreachableError, "Internal Server Error"),
    ],
)
def test_a_refused_submit(
    runner: Runner,
    gate: Gate,
    picture: Path,
    status: int,
    body: Any,
    kind: type[TrellisError],
    words: str,
) -> None:
    gate.on("^POST", "before", _always(httpx.Response(status, json=body)))
    _fails(runner, picture, kind, words)
    (job,) = runner.journal.jobs()
    assert job.state is State.FAILED
    assert job.error and job.error["kind"] == kind.__name__


@pytest.mark.parametrize(
    ("status", "body", "kind", "words"),
    [
        (
            422,
            {"detail": [{"loc": ["body", "image_url"], "msg": "bad", "type": "x"}]},
            RejectedError,
            "refuses the request: bad",
        ),
        (422, {"detail": "plain words"}, RejectedError, "plain words"),
        (503, {"detail": "CUDA error: out of memory"}, GenerationError, "out of memory"),
        (
            504,
            {"detail": "Request timed out", "error_type": "request_timeout"},
            GenerationError,
            "timed out",
        ),
        (499, {"detail": "Request cancelled by the client."}, CancelledError, "cancelled"),
        (404, {"status": "NOT_FOUND"}, GenerationError, "does not know this job"),
    ],
)
def test_a_job_that_failed_behind_completed(
    runner: Runner,
    gate: Gate,
    picture: Path,
    status: int,
    body: Any,
    kind: type[TrellisError],
    words: str,
) -> None:
    answer = httpx.Response(status, json=body, headers={"x-fal-request-id": "abc"})
    gate.on("^GET .*/requests/[^/]+$", "after", _always(answer))
    error = _fails(runner, picture, kind, words)
    (job,) = runner.journal.jobs()
    assert error.request_id == job.request_id
    assert job.state is (State.CANCELLED if kind is CancelledError else State.FAILED)


HOSTILE = {
    "html": b"<html>gone</html>",
    "cut off": b"glTF" + struct.pack("<II", 2, 5000) + bytes(100),
    "empty": b"",
    "lies": b"glTF" + struct.pack("<IIII", 2, 24, 4, 0x4E4F534A) + b"[[[[",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_model_is_refused_and_leaves_nothing(
    runner: Runner, gate: Gate, picture: Path, name: str
) -> None:
    gate.on("^GET /files", "after", _always(httpx.Response(200, content=HOSTILE[name])))
    error = _fails(runner, picture, ResultError, "broken GLB" if name != "lies" else "GLB")
    assert error.exit_code == 3
    assert list(runner.library.results.iterdir()) == []


def test_an_expired_model(runner: Runner, gate: Gate, picture: Path) -> None:
    gate.on("^GET /files", "before", _always(httpx.Response(404)))
    error = _fails(runner, picture, ResultError, "no longer has the model")
    assert error.exit_code == 3


def test_the_token_goes_to_the_service_alone(
    runner: Runner, gate: Gate, picture: Path, shared_sidecar: tuple[str, str]
) -> None:
    """A result on another origin is fetched without it."""
    heard: list[Message] = []

    def listen(headers: Message, _body: bytes) -> str:
        heard.append(headers)
        return ""

    with Gate(shared_sidecar[0], listen) as other:
        moved = {"model_glb": {"url": f"{other.url}/elsewhere.glb"}}
        gate.on("^GET .*/requests/[^/]+$", "after", _always(httpx.Response(200, json=moved)))
        other.on("elsewhere", "before", _always(httpx.Response(200, content=b"no model")))
        _fails(runner, picture, ResultError, "broken GLB")
    assert heard and all("Authorization" not in headers for headers in heard)


def test_cancelling_while_it_waits_in_the_queue(runner: Runner, gate: Gate, picture: Path) -> None:
    first = runner.submit(Request("local/draft", [picture], FAST | SLOW))
    while not runner.events.get(timeout=30).stage:  # until it has the worker to itself
        continue
    second = runner.submit(Request("local/draft", [picture], FAST))
    with pytest.raises(CancelledError):
        runner.wait(second, lambda e: runner.cancel(second) if "queue" in e.message else None)
    assert runner.journal.get(second).state is State.CANCELLED
    assert any(line.startswith("PUT") and line.endswith(f"{second}/cancel") for line in gate.seen)
    runner.cancel(first)
    with pytest.raises(CancelledError):
        runner.wait(first)


def test_cancelling_while_it_runs(runner: Runner, picture: Path, gate: Gate) -> None:
    job_id = runner.submit(Request("local/draft", [picture], FAST | SLOW))
    with pytest.raises(CancelledError):
        runner.wait(job_id, lambda event: runner.cancel(job_id) if event.stage else None)
    assert runner.journal.get(job_id).state is State.CANCELLED
    # the sidecar is free again at once
    assert _run(runner, picture)[-1].state is State.READY


@pytest.mark.parametrize("pattern", ["^POST", "^GET .*/status"])
def test_cancelling_from_another_process(
    runner: Runner, picture: Path, gate: Gate, pattern: str
) -> None:
    job_id = runner.submit(Request("local/draft", [picture], FAST | {"resolution": 1536}))

    def ask(event: Event) -> None:
        if event.state is State.SUBMITTING:
            runner.journal.note(job_id, cancel_asked=True)

    with pytest.raises(CancelledError):
        runner.wait(job_id, ask)
    assert any(line.startswith("PUT") for line in gate.seen)


def test_a_timeout_ends_the_waiting_for_one_that_tells_without_end(runner: Runner) -> None:
    news = Event("bd373968", State.RUNNING)
    runner.events.put(news)
    with pytest.raises(UnreachableError, match="is not done yet"):
        runner.wait(news.job_id, runner.events.put, timeout=0.1)


def test_a_timeout_ends_the_waiting_and_not_the_job(
    config: Config, gate: Gate, picture: Path
) -> None:
    before = Runner(replace(config, sidecar_url=gate.url))
    gate.hold("^GET .*/status", "before")
    job_id = before.submit(Request("local/draft", [picture], FAST))
    with pytest.raises(UnreachableError, match="is not done yet") as caught:
        before.wait(job_id, timeout=1)
    assert (caught.value.job_id, caught.value.state) == (job_id, "uncertain")
    before.close()
    assert before.library.inputs.exists()
    after = Runner(config)
    assert [job.id for job in after.resume()] == [job_id]
    assert after.wait(job_id).state is State.READY
    after.close()


def test_closing_during_the_submit_keeps_the_reply(
    config: Config, gate: Gate, picture: Path
) -> None:
    """What has been sent may cost: its id is not thrown away because a window closes."""
    runner = Runner(replace(config, sidecar_url=gate.url))

    answering = gate.on("^POST", "after", lambda: time.sleep(0.5), times=1)
    job_id = runner.submit(Request("local/draft", [picture], FAST))
    assert answering.wait(30)
    runner.close()
    after = Runner(config)
    job = after.journal.get(job_id)
    assert (job.state, job.request_id) == (State.RUNNING, job_id)
    after.resume()
    assert after.wait(job_id).state is State.READY
    after.close()


def test_a_service_that_is_not_there(config: Config, picture: Path) -> None:
    runner = Runner(replace(config, sidecar_url="http://127.0.0.1:9"))
    error = _fails(runner, picture, UnreachableError, "127.0.0.1:9 cannot be reached")
    assert (error.exit_code, error.state) == (4, "failed")
    (job,) = runner.journal.jobs()
    assert job.state is State.FAILED
    runner.close()


def test_cancelling_when_it_is_ready_leaves_it_ready(
    runner: Runner, gate: Gate, picture: Path
) -> None:
    last_word = gate.hold("^DELETE", "before")
    job_id = runner.submit(Request("local/draft", [picture], FAST))
    assert last_word.wait(60)
    runner.cancel(job_id)
    assert runner.wait(job_id, timeout=5).state is State.READY
    assert not any(line.startswith("PUT") for line in gate.seen)  # there is nothing to call off


def test_a_job_that_is_taken_up_twice_is_carried_once(
    config: Config, gate: Gate, picture: Path
) -> None:
    with_gate = replace(config, sidecar_url=gate.url)
    sent = gate.on("^POST ", "after", lambda: None)
    first = Runner(with_gate)
    job_id = first.submit(Request("local/draft", [picture], FAST))
    assert sent.wait(60)
    first.close()

    second, busy = Runner(with_gate), threading.Event()
    try:
        second._loop.call_soon_threadsafe(busy.wait)  # what it is told now it hears together
        assert [job.id for job in second.resume()] == [job_id]
        assert [job.id for job in second.resume(job_id)] == [job_id]
        busy.set()
        second.wait(job_id)
        second.resume(job_id)  # it has ended: nothing is to be done
        time.sleep(0.3)
        assert second.events.empty()  # it was told of once
        assert len([line for line in gate.seen if line.endswith(".glb")]) == 1
    finally:
        busy.set()
        second.close()

# SPDX-License-Identifier: GPL-3.0-or-later
"""`generate` with a folder, a pattern or a manifest, against the stand-in of fal: what it makes, what it refuses, what it costs,
and what is left when it is killed. In this process, but for what is killed, interrupted or at work at the same time."""

from __future__ import annotations

import errno
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from blender_trellis import cli
from blender_trellis.config import Config
from blender_trellis.errors import ResultError, StorageError, UncertainError
from blender_trellis.generation import carrier
from blender_trellis.generation.batch import Batch
from blender_trellis.generation.book import Book
from blender_trellis.generation.job import Job, State
from blender_trellis.generation.journal import Journal
from blender_trellis.generation.library import copy_out, output_error
from blender_trellis.generation.request import Request
from blender_trellis.generation.rows import read_rows
from blender_trellis.generation.runner import Runner
from blender_trellis.services.queue import QueueService
from blender_trellis.services.runware import RunwareService
from cli.batches import (
    assert_each_once,
    kill_and_resume,
    make_pictures,
    results,
    start,
    write_manifest,
)
from gate import Gate
from harness import Ran, run_trellis
from services.fal_standin import FalStandIn
from services.runware_standin import RunwareStandIn
from services.standin import Reply

FAL = ("--endpoint", "fal-ai/trellis-2")
Run = Callable[..., Ran]
LINE_KEYS = {
    *("row", "output", "state", "images", "endpoint", "seed", "seconds", "cost"),
    *("job_id", "request_id", "error"),
}


@pytest.fixture(autouse=True)
def _service(fal: FalStandIn, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """fal, whose jobs are done at once, and which takes many at a time."""
    fal.script.queued = fal.script.running = 0
    monkeypatch.setenv("TRELLIS_JOBS_AT_ONCE", "16")
    monkeypatch.setattr(QueueService, "poll_seconds", (0.01, 0.02))


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """The command line in this process."""

    def run_here(*arguments: str | Path) -> Ran:
        code = cli.main([str(each) for each in arguments])
        return Ran(code, *capsys.readouterr())

    return run_here


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "Modelle 人"


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    make_pictures(folder, 3)
    return folder


def test_a_folder_becomes_a_model_of_each_picture(
    run: Run, fal: FalStandIn, pictures: Path, out: Path
) -> None:
    (pictures / "notes.txt").write_text("no picture, and nobody's mistake")
    command = ("generate", pictures, *FAL, "--output", out, "--yes", "--json")
    done = run(*command)
    assert done.code == 0, done
    assert_each_once(fal, out, 3)
    assert all(set(line) == LINE_KEYS for line in results(out))
    plan, *events, last = done.lines
    assert (plan["event"], plan["to_send"]) == ("plan", 3)
    assert plan["estimate"]["amount"] == pytest.approx(0.9)
    assert [line for line in events if line["event"] == "row"] == [
        {"event": "row", **line} for line in results(out)
    ]
    assert (last["event"], last["state"], last["ready"]) == ("result", "ready", 3)
    assert last["cost"] == {"amount": pytest.approx(0.9), "currency": "USD", "estimate": False}
    assert last["files"] == [str(out / "results.jsonl"), str(out / "contact-sheet.png")]
    with Image.open(out / "contact-sheet.png") as sheet:
        assert sheet.width == 3 * 200 + 8
        assert len(sheet.getcolors(sheet.width * sheet.height) or ()) > 50

    before = (out / "results.jsonl").read_bytes()
    again = run(*command)
    assert (again.code, again.lines[0]["to_send"]) == (0, 0)
    assert again.last["cost"] == last["cost"]
    assert (out / "results.jsonl").read_bytes() == before
    assert len(fal.submits) == 3


def test_a_pattern_keeps_the_folders_of_its_matches(
    run: Run, fal: FalStandIn, tmp_path: Path, out: Path
) -> None:
    for name in ("a", "b"):
        make_pictures(tmp_path / name, 1)
    done = run("generate", tmp_path / "**" / "*.png", *FAL, "--output", out, "--yes")
    assert done.code == 0, done
    assert {line["output"] for line in results(out)} == {"a/0000.glb", "b/0000.glb"}
    assert all((out / name / "0000.glb").is_file() for name in "ab")


@pytest.mark.parametrize(("source", "output"), [("", "."), ("*.png", "."), ("**/*.png", "out")])
def test_what_a_batch_draws_of_its_models_is_none_of_its_pictures(
    run: Run, fal: FalStandIn, pictures: Path, source: str, output: str
) -> None:
    folder = pictures / output
    command = ("generate", pictures / source, *FAL, "--output", folder, "--yes", "--json")
    assert run(*command).code == 0
    (folder / "contact-sheet-2.png").write_bytes((folder / "contact-sheet.png").read_bytes())
    again = run(*command)
    assert (again.lines[0]["rows"], again.lines[0]["to_send"]) == (3, 0)
    drawn = run("generate", folder / ".thumbnails", *command[2:])
    assert "There is no picture in" in drawn.last["message"]
    assert len(fal.submits) == 3


def test_a_manifest_says_what_each_row_asks_for(
    run: Run, fal: FalStandIn, pictures: Path, tmp_path: Path, out: Path
) -> None:
    # As a spreadsheet in a language with decimal commas writes it
    (tmp_path / "shop.csv").write_text(
        "images;endpoint;output;resolution;seed\r\n"
        "pictures/0000.png;;Stuhl ü;512;7\r\n"
        "pictures/0001.png|pictures/0002.png;fal-ai/trellis-2/multi;chairs/two.glb;;8\r\n",
        encoding="utf-8-sig",
    )
    command = ("generate", tmp_path / "shop.csv", *FAL, "--set", "resolution=1536")
    done = run(*command, "--output", out, "--yes", "--json")
    assert done.code == 0, done
    assert done.lines[0]["estimate"]["amount"] == pytest.approx(0.25 + 0.35)
    first, second = sorted(fal.jobs.values(), key=lambda job: job.input["seed"])
    assert (first.endpoint, first.input["resolution"]) == ("fal-ai/trellis-2", 512)
    assert (second.endpoint, second.input["resolution"]) == ("fal-ai/trellis-2/multi", 1536)
    assert len(second.input["image_urls"]) == 2
    told = {line["row"]: (line["output"], line["seed"]) for line in results(out)}
    assert told == {2: ("Stuhl ü.glb", 7), 3: ("chairs/two.glb", 8)}


def test_a_row_may_become_a_blend(
    fal: FalStandIn, pictures: Path, tmp_path: Path, out: Path
) -> None:
    given = [
        {"images": "pictures/0000.png", "output": "椅子.blend"},
        {"images": "pictures/0001.png"},
    ]
    manifest = write_manifest(tmp_path / "rows.jsonl", given)
    done = run_trellis("generate", manifest, *FAL, "--output", out, "--yes", "--json")
    assert done.code == 0, done
    assert (out / "椅子.blend").read_bytes()[:4] in (b"BLEN", b"\x28\xb5\x2f\xfd")  # or compressed
    assert (out / "0001.glb").read_bytes()[:4] == b"glTF"
    assert {line["output"] for line in results(out)} == {"椅子.blend", "0001.glb"}


def test_a_model_that_cannot_be_written_stops_no_other_and_is_tried_again(
    fal: FalStandIn, pictures: Path, out: Path
) -> None:
    rows, _ = read_rows(str(pictures), Request("fal-ai/trellis-2", []))
    in_trouble = {"0000.glb", "0001.glb"}

    def deliver(job: Job, to: Path) -> None:
        if to.name in in_trouble:
            if to.name == "0000.glb":
                raise ResultError("Blender cannot read it.")
            to = to.with_stem("x" * 300)  # longer than any disk takes
        copy_out(Path(job.files[0]), to)

    with closing(Runner(Config.load())) as runner, closing(Book(out, runner.config.home)) as book:
        for ready, charged in ((1, 0.9), (1, 0.9), (3, 0.9)):
            if ready == 3:
                in_trouble.clear()
            batch = Batch(runner, book, rows, deliver=deliver, written=lambda _: None)
            done = batch.run(lambda _: None, 60)
            assert (done.ready, done.failed, done.cost) == (
                ready,
                3 - ready,
                pytest.approx(charged),
            )
    assert len(fal.submits) == 3


def test_where_the_disk_is_full_nothing_more_is_sent(
    fal: FalStandIn, pictures: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRELLIS_JOBS_AT_ONCE", "1")
    rows, _ = read_rows(str(pictures), Request("fal-ai/trellis-2", []))

    def deliver(job: Job, to: Path) -> None:
        full = OSError(errno.ENOSPC, "No space left on device")
        raise output_error(full, to) from full

    with closing(Runner(Config.load())) as runner, closing(Book(out, runner.config.home)) as book:
        batch = Batch(runner, book, rows, deliver=deliver, written=lambda _: None)
        done = batch.run(lambda _: None, 60)
    assert (done.ready, done.failed, done.left) == (0, 0, 1)
    assert "No space left" in batch.stops[""].message
    assert len(fal.submits) == 1


def test_every_bad_row_is_named_and_nothing_is_started(
    run: Run, fal: FalStandIn, pictures: Path, tmp_path: Path, out: Path
) -> None:
    good = {"images": "pictures/0000.png"}
    manifest = write_manifest(
        tmp_path / "bad.jsonl",
        [
            good,
            {"images": "pictures/gone.png"},
            {**good, "output": "b", "texture_sise": 1024},
            {**good, "output": "c", "resolution": 77},
            {**good, "output": "0000"},
            {**good, "output": "../d"},
            {**good, "output": "e", "endpoint": "fal-ai/trelis-2"},
            {"output": "f"},
            {**good, "output": "g", "cut_out": "perhaps"},
            {**good, "output": "人" * 90},
            {**good, "output": "0000.glb/b"},
            {**good, "output": "B.glb/c"},
            {**good, "output": "b"},
            {**good, "output": "taken"},
            {**good, "output": "file/d"},
            {**good, "output": "\ud800"},
        ],
    )
    with manifest.open("a") as file:
        file.write("{cut\n")
    (out / "taken.glb").mkdir(parents=True)
    (out / "file").touch()
    done = run("generate", manifest, *FAL, "--output", out, "--yes", "--json")
    assert (done.code, done.last["kind"]) == (2, "InputError")
    first, *rows = done.last["message"].split("\n  ")
    assert first == "15 rows of 17 cannot be used. Nothing was started."
    expected = [
        "line 2: There is no image",
        "line 3: fal-ai/trellis-2 has no parameter 'texture_sise'. Did you mean texture_size?",
        "line 4: resolution must be",
        "line 5: 0000.glb is the output of line 1 too",
        "line 6: The output '../d' must be a name",
        "line 7: There is no endpoint 'fal-ai/trelis-2'. Did you mean",
        "line 8: There is no image",
        "line 9: cut_out must be true or false",
        "line 10: The output '人人",
        "line 11: 0000.glb/b.glb is below the output of line 1.",
        "line 13: b.glb is a folder for the output of line 12.",
        f"line 14: {out / 'taken.glb'} is a folder. Name another output.",
        f"line 15: {out / 'file'} is no folder. Name another output.",
        r"line 16: The output '\ud800' cannot name a file",
        "line 17: it is no JSON",
    ]
    assert all(map(str.startswith, rows, expected)) and len(rows) == len(expected), rows
    assert not (out / "batch.json").exists() and not fal.submits


def test_a_column_that_is_no_parameter_is_named_once(
    run: Run, pictures: Path, tmp_path: Path, out: Path
) -> None:
    (tmp_path / "shop.csv").write_text(
        "images,texture_sise\npictures/0000.png,1024\npictures/0001.png,1024,9\n"
    )
    done = run("generate", tmp_path / "shop.csv", "--output", out, "--json")
    _, *rows = done.last["message"].split("\n  ")
    assert rows == [
        "line 1: no endpoint has a parameter 'texture_sise'; is it texture_size?",
        "line 3: it has 3 cells, and the header 2",
    ]


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ((), "would cost about 0.90 USD, and nobody can be asked here"),
        (("--max-cost", "0.89"), "about $0.90, more than the $0.89 allowed"),
    ],
)
def test_nothing_is_spent_that_nobody_allowed(
    run: Run, fal: FalStandIn, pictures: Path, out: Path, more: tuple[str, ...], words: str
) -> None:
    done = run("generate", pictures, *FAL, "--output", out, "--json", *more)
    assert done.code == 2
    assert words in done.last["message"]
    assert not fal.submits and not out.exists()


def test_a_limit_stops_the_batch_where_the_service_is_dearer_than_expected(
    run: Run, fal: FalStandIn, pictures: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRELLIS_JOBS_AT_ONCE", "1")
    fal.prices["fal-ai/trellis-2"] = 0.07
    done = run("generate", pictures, *FAL, "--output", out, "--json", "--max-cost", "0.9")
    assert done.code == 2
    assert "PriceError" in done.out
    assert done.last["cost"]["amount"] == pytest.approx(0.84)
    assert len(fal.submits) == 2


def test_a_sheet_that_cannot_be_written_hides_nothing_of_what_was_made(
    run: Run, fal: FalStandIn, pictures: Path, out: Path
) -> None:
    (out / "contact-sheet.png").mkdir(parents=True)
    done = run("generate", pictures, *FAL, "--output", out, "--yes", "--json")
    assert (done.code, done.lines[-2]["kind"]) == (2, "OutputError")
    assert (done.last["ready"], done.last["files"]) == (3, [str(out / "results.jsonl")])


def test_without_a_key_nothing_is_begun(
    run: Run, pictures: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("FAL_KEY")
    done = run("generate", pictures, *FAL, "--output", out, "--json", "--yes")
    assert (done.code, done.last["kind"]) == (2, "AccessError")
    assert not out.exists()


def test_what_failed_is_sent_once_more_only_when_that_is_asked_for(
    run: Run, fal: FalStandIn, pictures: Path, out: Path
) -> None:
    (pictures / "9 broken.png").write_text("this is no picture")
    fal.script.outcome = Reply(422, {"detail": [{"msg": "No.", "type": "content_policy"}]})
    command = ("generate", pictures, *FAL, "--output", out, "--yes", "--json")
    done = run(*command)
    assert (done.code, done.last["state"], done.last["failed"]) == (5, "incomplete", 4)
    kinds = {line["output"]: line["error"]["kind"] for line in results(out)}
    assert kinds["9 broken.glb"] == "ImageError" and kinds["0000.glb"] == "RejectedError"
    assert (out / "contact-sheet.png").is_file()

    fal.script.outcome = None
    assert (run(*command).code, len(fal.submits)) == (5, 3)
    Image.new("RGBA", (16, 16), "red").save(pictures / "9 broken.png")
    again = run(*command, "--retry-failed")
    assert (again.code, again.lines[0]["to_send"], again.last["ready"]) == (0, 4, 4)
    assert [line["state"] for line in results(out)] == ["ready"] * 4
    assert len(fal.submits) == 7


def test_a_row_that_asks_for_something_else_now_is_refused(
    run: Run, fal: FalStandIn, pictures: Path, out: Path
) -> None:
    command = ("generate", pictures, *FAL, "--output", out, "--yes", "--json")
    assert run(*command).code == 0
    done = run(*command, "--set", "resolution=512")
    assert done.code == 2
    assert "3 rows of 3 cannot be used" in done.last["message"]
    assert "0000.glb was asked for with other images or parameters" in done.last["message"]
    make_pictures(pictures.with_name("more"), 4)
    (pictures.with_name("more") / "0003.png").rename(pictures / "0003.png")
    assert run(*command).lines[0]["to_send"] == 1
    assert_each_once(fal, out, 4)
    Image.new("RGBA", (16, 16), "red").save(pictures / "0000.png")
    done = run(*command)
    assert (done.code, len(fal.submits)) == (2, 4)
    assert "1 row of 4 cannot be used" in done.last["message"]


def test_where_the_service_cannot_be_reached_the_rows_that_were_not_sent_are_left_for_later(
    run: Run, fal: FalStandIn, pictures: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRELLIS_JOBS_AT_ONCE", "1")
    locked = Reply(403, {"detail": "User is locked. Reason: Exhausted balance."})
    submit = fal._submit
    monkeypatch.setattr(
        fal, "_submit", lambda *given: locked if len(fal.submits) == 1 else submit(*given)
    )
    command = ("generate", pictures, *FAL, "--output", out, "--yes", "--json")
    done = run(*command)
    assert (done.code, done.lines[-2]["kind"]) == (3, "AccountError")
    assert done.lines[-2]["message"].endswith("2 rows are not done; the same command goes on.")
    assert (done.last["ready"], done.last["failed"]) == (1, 0)
    with monkeypatch.context() as patch, socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and not listening
        patch.setenv("TRELLIS_FAL_QUEUE_URL", f"http://127.0.0.1:{taken.getsockname()[1]}")
        patch.setattr(carrier, "_SEND_ATTEMPTS", 1)
        done = run(*command)
    assert (done.code, done.lines[-2]["kind"]) == (4, "UnreachableError")
    assert (done.lines[0]["to_send"], done.last["ready"], done.last["failed"]) == (2, 1, 0)
    monkeypatch.setattr(fal, "_submit", submit)
    assert run(*command).code == 0
    assert_each_once(fal, out, 3)


def test_what_may_have_been_taken_on_is_not_sent_again_where_the_service_refuses_the_key_then(
    run: Run, runware: RunwareStandIn, pictures: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The reply to the submit is lost, Runware does not list the task yet, and refuses the second submit."""
    for name in ("0001.png", "0002.png"):
        (pictures / name).unlink()
    monkeypatch.setattr(RunwareService, "poll_seconds", (0.01, 0.02))
    command = ("generate", pictures, "--endpoint", "runware/trellis-2", "--output", out, "--yes")

    def lose() -> str:
        unlisted = {"code": "taskFailedOrNotFound", "message": "The task was not found."}
        refused = {"code": "invalidApiKey", "message": "Invalid API key."}
        runware.instead |= {
            "getResponse": [Reply(404, {"errors": [unlisted]})],
            "3dInference": [Reply(401, {"errors": [refused]})],
        }
        return "drop"

    with Gate(runware.url("api")) as gate, monkeypatch.context() as patch:
        patch.setenv("TRELLIS_RUNWARE_URL", f"{gate.url}/v1")
        gate.on("^POST", "after", lose, times=1)
        done = run(*command, "--json")
    assert (done.last["failed"], done.last["uncertain"]) == (0, 1)
    assert not runware.instead["3dInference"]
    assert run(*command).code == 0
    assert len(runware.tasks) == 1


def test_an_interrupt_waits_for_what_is_being_made_and_a_second_one_leaves_it(
    fal: FalStandIn, pictures: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRELLIS_JOBS_AT_ONCE", "1")
    fal.script.held = True
    command = ("generate", pictures, *FAL, "--output", out, "--yes", "--json")
    with start(*command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        try:
            _until(
                lambda: any(job.state == "IN_PROGRESS" and job.asked for job in fal.jobs.values())
            )
            process.send_signal(signal.SIGINT)
            time.sleep(0.5)  # signals of one kind are not counted
            process.send_signal(signal.SIGINT)
            out_, _ = process.communicate(timeout=60)
        finally:
            process.kill()
    assert process.returncode == 130
    assert '"CancelledError"' in out_ and "3 rows are not done" in out_
    (job,) = fal.jobs.values()
    assert not job.cancelled
    fal.script.held = False
    fal.finish(job.request_id)
    assert run_trellis(*command).code == 0
    assert_each_once(fal, out, 3)


def test_when_the_time_is_over_what_is_done_is_told_and_the_same_command_goes_on(
    run: Run, fal: FalStandIn, pictures: Path, out: Path
) -> None:
    fal.script.held = True
    command = ("generate", pictures, *FAL, "--output", out, "--yes", "--json")
    late = run(*command, "--timeout", "1")
    assert late.code == 4
    error, last = late.lines[-2:]
    assert error["message"] == "The time is over. 3 rows are not done; the same command goes on."
    assert (last["state"], last["rows"], last["ready"]) == ("incomplete", 3, 0)
    assert (out / "contact-sheet.png").is_file()
    for request_id in fal.jobs:
        fal.finish(request_id)
    assert run(*command).code == 0
    assert_each_once(fal, out, 3)


def test_a_batch_is_made_by_one_process_at_a_time(
    fal: FalStandIn, pictures: Path, out: Path
) -> None:
    fal.script.held = True
    command = ("generate", pictures, *FAL, "--output", out, "--yes", "--json")
    with start(*command) as process:
        try:
            _until(lambda: len(fal.submits) == 3)
            refused = run_trellis(*command)
            assert refused.code == 2
            assert "Another Blender or command is making the batch" in refused.last["message"]
            for request_id in fal.jobs:
                fal.finish(request_id)
            assert process.wait(60) == 0
        finally:
            process.kill()
    assert_each_once(fal, out, 3)


def test_lost_and_torn_results_are_written_anew_from_the_journal(
    run: Run, fal: FalStandIn, pictures: Path, out: Path
) -> None:
    command = ("generate", pictures, *FAL, "--output", out, "--yes", "--json")
    assert run(*command).code == 0
    path = out / "results.jsonl"
    whole = sorted(results(out), key=lambda line: line["output"])
    path.write_bytes(path.read_bytes()[:-20])
    torn = run(*command)
    assert torn.code == 0 and sorted(results(out), key=lambda line: line["output"]) == whole
    path.write_bytes(b"\xff nothing of ours\n")
    assert "Line 1 of" in run(*command).last["message"]
    path.unlink()
    (out / "0001.glb").unlink()
    anew = run(*command)
    assert anew.code == 0 and anew.last["cost"]["amount"] == pytest.approx(0.9)
    assert_each_once(fal, out, 3)


def test_a_line_for_which_the_disk_has_no_room_spoils_no_other(tmp_path: Path, out: Path) -> None:
    resource = pytest.importorskip("resource")
    line = {"output": "a.glb", "state": "failed"}
    with closing(Book(out, tmp_path)) as book:
        book.begin()
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (10, before[1]))  # bytes, then it is full
        try:
            with pytest.raises(StorageError):
                book.write(line)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        book.write(line | {"output": "b.glb"})
    with closing(Book(out, tmp_path)) as book:
        assert book.lines.keys() == {"b.glb"}


def test_a_batch_that_another_journal_knows_is_refused(
    run: Run,
    fal: FalStandIn,
    pictures: Path,
    out: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    command = ("generate", pictures, *FAL, "--output", out, "--yes", "--json")
    assert run(*command).code == 0
    monkeypatch.setenv("TRELLIS_HOME", str(tmp_path / "other"))
    done = run(*command)
    assert done.code == 2 and "was begun with the journal in" in done.last["message"]
    assert len(fal.submits) == 3


def test_a_row_that_may_have_been_sent_is_asked_about_and_never_sent_by_itself(
    fal: FalStandIn, pictures: Path, out: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed after the journal had noted the sending, and before the request arrived."""
    monkeypatch.setenv("TRELLIS_JOBS_AT_ONCE", "1")
    command = ("generate", pictures, *FAL, "--output", out, "--yes", "--json")
    with Gate(fal.url("queue")) as gate, monkeypatch.context() as patch:
        patch.setenv("TRELLIS_FAL_QUEUE_URL", gate.url)
        held = gate.hold("^POST", "before")
        with start(*command) as process:
            assert held.wait(60)
            process.kill()
    for _ in range(2):
        done = run(*command)
        assert (done.code, done.last["ready"], done.last["uncertain"]) == (5, 2, 1)
    (line,) = (line for line in results(out) if line["state"] == "uncertain")
    assert (line["error"]["kind"], line["cost"]) == ("UncertainError", None)
    assert run("jobs", "send-again", line["job_id"]).code == 0
    assert run(*command).code == 0
    assert_each_once(fal, out, 3)


def test_a_row_that_another_command_goes_on_with_is_waited_for(
    fal: FalStandIn, pictures: Path, out: Path
) -> None:
    fal.script.held = True
    command = ("generate", pictures, *FAL, "--output", out, "--yes", "--json")
    with start(*command) as process:
        _until(lambda: len(fal.submits) == 3)
        process.kill()
    asked = {job.request_id: job.asked for job in fal.jobs.values()}
    with start("jobs", "resume") as other:
        try:
            _until(lambda: all(job.asked > asked[name] for name, job in fal.jobs.items()))
            with start(*command) as process:
                try:
                    _until((out / "results.jsonl").exists)
                    for request_id in fal.jobs:
                        fal.finish(request_id)
                    assert process.wait(60) == 0
                finally:
                    process.kill()
            assert other.wait(60) == 0
        finally:
            other.kill()
    assert_each_once(fal, out, 3)


def test_what_another_process_has_and_does_not_go_on_with_is_not_waited_for(
    run: Run, fal: FalStandIn, pictures: Path, out: Path, home: Path
) -> None:
    rows, _ = read_rows(str(pictures), Request("fal-ai/trellis-2", []))
    lost = UncertainError("The reply was lost.").record
    held = {"0000.glb": (State.UNCERTAIN, lost), "0001.glb": (State.RUNNING, None)}
    command = ("generate", pictures, *FAL, "--output", out, "--yes", "--json", "--timeout", "30")
    with closing(Journal(home)) as other:
        with closing(Book(out, home)) as book:
            book.begin()
            for row in rows[:2]:
                wish = {"batch": {"id": book.id, "row": row.output, "mark": row.mark}}
                state, error = held[row.output]
                job = Job(row.output, row.request.endpoint, {"seed": 1}, [], [], state, wish=wish)
                other.add(replace(job, error=error))
        other._database.execute("UPDATE job SET updated = updated - 601")
        done = run(*command)
        assert (done.code, done.lines[-2]["kind"]) == (4, "UnreachableError")
        assert "Another Blender or command has what is missing" in done.lines[-2]["message"]
        assert (done.last["ready"], done.last["uncertain"], done.last["failed"]) == (1, 1, 0)
        other.move("0001.glb", State.FAILED, error=lost)
        assert run(*command).last["failed"] == 1
    assert len(fal.submits) == 1


def test_killed_at_random_moments_and_resumed_each_row_is_made_once(
    fal: FalStandIn, tmp_path: Path, out: Path
) -> None:
    """`build.py batch` does the same with 300 rows and ten kills."""
    make_pictures(tmp_path / "many", 30)
    command = ("generate", tmp_path / "many", *FAL, "--output", out, "--yes", "--json")
    kill_and_resume(fal, command, out, kills=3)
    assert_each_once(fal, out, 30)


def _until(condition: object) -> None:
    assert callable(condition)
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)

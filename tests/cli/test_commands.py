# SPDX-License-Identifier: GPL-3.0-or-later
"""The command line and the Python interface when all goes well."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image

from blender_trellis import api
from blender_trellis.endpoints.base import VIEWS
from blender_trellis.endpoints.schema import schemas
from blender_trellis.errors import ParameterError
from blender_trellis.generation.job import Job
from blender_trellis.generation.journal import Journal
from harness import REPOSITORY, run_trellis, trellis_command
from services import fal_standin
from services.fal_standin import FalStandIn
from services.runware_standin import RunwareStandIn
from sidecar import draft_shapes

pytestmark = pytest.mark.usefixtures("config")
EXAMPLE = REPOSITORY / "docs" / "images" / "robot.png"
SLOW = ("--set", "resolution=1536", "--set", "texture_size=4096")
RESULT_KEYS = {"event", "state", "job_id", "endpoint", "files", "seed", "cost", "request_id"}
PROGRESS_KEYS = {"event", "state", "stage", "step", "steps", "fraction", "message"}


def test_generate_as_the_readme_shows_it(tmp_path: Path) -> None:
    output = tmp_path / "Ordner mit Leerzeichen" / "Modell 人.glb"
    output.parent.mkdir()
    arguments = ("generate", EXAMPLE, "--endpoint", "local/draft", "--set", "texture_size=1024")
    done = run_trellis(*arguments, "--output", output, "--json")
    assert done.code == 0, done
    assert set(done.last) == RESULT_KEYS
    assert done.last["event"] == "result"
    assert done.last["state"] == "ready"
    assert done.last["endpoint"] == "local/draft"
    assert done.last["files"] == [str(output)]
    assert done.last["cost"] is None
    for line in done.lines[:-1]:
        assert set(line) == PROGRESS_KEYS and line["event"] == "progress"
    assert {"prepared", "running", "downloading"} <= {line["state"] for line in done.lines}

    model = draft_shapes.read(output.read_bytes())
    draft_shapes.assert_solid(model)
    assert abs(model.points).max() <= 0.5

    again = run_trellis(
        *arguments, "--set", f"seed={done.last['seed']}", "--output", tmp_path / "2.glb", "--json"
    )
    assert again.code == 0
    assert (tmp_path / "2.glb").read_bytes() == output.read_bytes()
    assert again.last["job_id"] != done.last["job_id"]


def test_without_json_the_last_line_is_the_file(tmp_path: Path, picture: Path, home: Path) -> None:
    done = run_trellis("generate", picture, "--set", "resolution=512", "--set", "texture_size=512")
    assert done.code == 0
    path = Path(done.out.strip())
    assert path.parent == home / "results"
    assert path.read_bytes()[:4] == b"glTF"
    assert "100 %" in done.err and "\r" not in done.err


def test_a_pipe_that_takes_few_letters_is_no_reason_to_fail(picture: Path) -> None:
    cat = picture.rename(picture.with_name("猫.png"))
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY), "PYTHONIOENCODING": "cp1252"}

    def run(*arguments: str | Path) -> subprocess.CompletedProcess[bytes]:
        command = trellis_command(*arguments)
        return subprocess.run(command, env=environment, capture_output=True, check=False)

    done = run("generate", cat, "--set", "resolution=512", "--set", "texture_size=512")
    assert done.returncode == 0 and rb"\u732b-" in done.stdout
    listed = run("jobs", "--json")
    assert listed.returncode == 0 and json.loads(listed.stdout)["names"] == ["猫.png"]


def test_when_nobody_reads_any_more_a_list_has_done_its_work_and_a_model_has_not(
    picture: Path,
) -> None:
    def unread(*arguments: str | Path) -> subprocess.CompletedProcess[bytes]:
        reader, writer = os.pipe()
        os.close(reader)
        environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
        command = trellis_command(*arguments)
        try:
            return subprocess.run(
                command, env=environment, stdout=writer, stderr=subprocess.PIPE, check=False
            )
        finally:
            os.close(writer)

    for shows in (("endpoints",), ("endpoints", "--json"), ("jobs", "list")):
        done = unread(*shows)
        assert (done.returncode, done.stderr) == (0, b"")
    done = unread("generate", picture, "--json")
    assert done.returncode == 4 and b"Traceback" not in done.stderr


def test_four_views(tmp_path: Path) -> None:
    views = [EXAMPLE.with_name(f"truck-{view}.png") for view in VIEWS]
    done = run_trellis("generate", *views, "--output", tmp_path / "x.glb", "--json")
    assert done.code == 0, done
    draft_shapes.assert_solid(draft_shapes.read((tmp_path / "x.glb").read_bytes()))


def test_a_background_is_taken_away_before_the_picture_is_sent(home: Path) -> None:
    photo = EXAMPLE.with_name("rocket-photo.jpg")
    for more, mode in (((), "RGB"), (("--cut-out",), "RGBA")):
        assert run_trellis("generate", photo, "--set", "resolution=512", *more).code == 0
        newest = max((home / "inputs").iterdir(), key=lambda path: path.stat().st_mtime_ns)
        with Image.open(newest) as sent:
            assert sent.mode == mode


def test_a_blend_opens_with_its_textures_packed(tmp_path: Path, picture: Path) -> None:
    output = tmp_path / "Szene ü.blend"
    done = run_trellis("generate", picture, "--output", output, "--json")
    assert done.code == 0, done
    code = (
        "import bpy, json, sys\n"
        "bpy.ops.wm.open_mainfile(filepath=sys.argv[1])\n"
        "objects = [o for o in bpy.context.scene.objects if o.type == 'MESH']\n"
        "print('@', json.dumps([len(objects), json.loads(objects[0]['trellis']),"
        " [i.packed_file is not None for i in bpy.data.images if i.source == 'FILE']]))"
    )
    opened = subprocess.run(
        [sys.executable, "-c", code, output], capture_output=True, text=True, check=True
    )
    line = next(line for line in opened.stdout.splitlines() if line.startswith("@"))
    count, recipe, packed = json.loads(line[1:])
    assert count == 1
    assert packed == [True, True]
    assert recipe["job_id"] == done.last["job_id"]
    assert recipe["seed"] == done.last["seed"]
    assert recipe["images"] == [picture.name]


def test_endpoints_as_json_schema() -> None:
    assert run_trellis("endpoints", "--json").last == schemas()
    assert run_trellis("endpoints", "local/draft", "--json").last == {
        "local/draft": schemas()["local/draft"]
    }
    everything = run_trellis("endpoints").out
    for name, schema in schemas().items():
        assert f"{name} " in everything and schema["title"] in everything
    table = run_trellis("endpoints", "local/draft").out
    for wire in schemas()["local/draft"]["properties"]:
        assert f"  {wire} " in table


def test_jobs_are_listed_shown_and_forgotten(picture: Path) -> None:
    made = run_trellis("generate", picture, "--set", "resolution=512", "--json").last
    (listed,) = run_trellis("jobs", "list", "--json").lines
    assert listed["id"] == made["job_id"] and listed["state"] == "ready"
    shown = run_trellis("jobs", "show", made["job_id"], "--json").last
    assert shown == listed
    assert made["job_id"] in run_trellis("jobs").out
    words = run_trellis("jobs", "show", made["job_id"][:6]).out
    assert made["files"][0] in words and f"{'  resolution':<24} 512\n" in words
    assert run_trellis("jobs", "forget", made["job_id"]).code == 0
    assert run_trellis("jobs").out.strip() == "No jobs."
    assert Path(made["files"][0]).exists(), "forgetting a job must not delete what it made"


def test_too_little_of_an_id_is_refused(home: Path) -> None:
    journal = Journal(home)
    for last in "12":
        journal.add(Job(f"abc{last}", "local/draft", {}, [], []))
    journal.close()
    refused = run_trellis("jobs", "forget", "abc")
    assert refused.code == 2 and "2 jobs have an id that begins with 'abc'" in refused.err
    assert len(run_trellis("jobs", "--json").lines) == 2


def test_interrupting_while_it_starts_shows_no_traceback() -> None:
    code = (
        "import os, runpy, signal, sys\n"
        "sys.addaudithook(lambda name, given: name == 'import' and given[0] == 'argparse'"
        " and os.kill(os.getpid(), signal.SIGINT))\n"
        "runpy.run_module('blender_trellis', run_name='__main__')"
    )
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (130, "")


def test_interrupting_cancels(picture: Path) -> None:
    arguments = ("generate", picture, *SLOW, "--json")
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY), "PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen(
        trellis_command(*arguments), env=environment, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout
    with process, process.stdout:
        for line in process.stdout:
            if json.loads(line)["state"] == "running":
                process.send_signal(signal.SIGINT)
                break
        last = [json.loads(line) for line in process.stdout][-1]
        assert process.wait(60) == 130
    assert (last["event"], last["state"], last["kind"]) == ("error", "cancelled", "CancelledError")
    (job,) = run_trellis("jobs", "--json").lines
    assert job["state"] == "cancelled"


@pytest.mark.parametrize("count", [1, 2])
def test_interrupting_a_resume_cancels_a_single_job_and_leaves_several(
    fal: FalStandIn, picture: Path, count: int
) -> None:
    fal.script.held = True
    endpoint = ("--endpoint", "fal-ai/trellis-2")
    for _ in range(count):
        run_trellis("generate", picture, *endpoint, "--timeout", "1", "--json")
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    asked = {request_id: job.asked for request_id, job in fal.jobs.items()}
    assert len(asked) == count
    with subprocess.Popen(
        trellis_command("jobs", "resume", "--json"),
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        deadline = time.monotonic() + 30
        while any(fal.jobs[request_id].asked == before for request_id, before in asked.items()):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        out, _ = process.communicate(timeout=60)
    assert (
        process.returncode == 130 and json.loads(out.splitlines()[-1])["kind"] == "CancelledError"
    )
    assert [job.cancelled for job in fal.jobs.values()] == [count == 1] * count
    states = [job["state"] for job in run_trellis("jobs", "--json").lines]
    assert states == (["cancelled"] if count == 1 else ["running"] * count)


def test_a_job_is_cancelled_from_another_process(picture: Path) -> None:
    arguments = ("generate", picture, *SLOW, "--json")
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    process = subprocess.Popen(
        trellis_command(*arguments), env=environment, stdout=subprocess.DEVNULL
    )
    with process:
        deadline = time.monotonic() + 30
        while not (jobs := run_trellis("jobs", "--json").lines):
            assert time.monotonic() < deadline
        assert run_trellis("jobs", "cancel", jobs[0]["id"]).code == 0
        assert process.wait(60) == 130


def test_a_timeout_leaves_the_job_to_resume(picture: Path) -> None:
    done = run_trellis("generate", picture, *SLOW, "--timeout", "0.2", "--json")
    assert done.code == 4
    assert done.last["state"] == "uncertain"
    assert "jobs resume" in done.last["message"]
    again = run_trellis("jobs", "resume", "--timeout", "0", "--json")
    assert again.code == 4
    assert again.last["job_id"] == done.last["job_id"]
    resumed = run_trellis("jobs", "resume", "--json")
    assert {"event": "resume", "job_id": done.last["job_id"], "endpoint": "local/draft"} in (
        resumed.lines
    )
    assert resumed.code == 0
    assert resumed.last["job_id"] == done.last["job_id"]


def test_doctor_tells_everything_but_keys(
    fal: FalStandIn, runware: RunwareStandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RUNWARE_API_KEY", "very-secret-key")
    done = run_trellis("doctor", "--json")
    assert done.code == 0
    assert done.last["FAL_KEY"] == done.last["RUNWARE_API_KEY"] == "present, in the environment"
    assert done.last["keychain"] == "not asked"
    assert done.last["fal"].endswith("takes the key")
    assert "Runware refuses the key" in done.last["runware"]
    assert "fal-ai/trellis-2, " in done.last["endpoints"]
    words = done.out + done.err + run_trellis("doctor").out
    assert "very-secret" not in words and fal_standin.KEY not in words


def test_doctor_without_keys_or_services(monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    monkeypatch.setenv("TRELLIS_FAL_QUEUE_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("TRELLIS_RUNWARE_URL", "http://127.0.0.1:9/v1")
    found = run_trellis("doctor", "--json").last
    assert found["FAL_KEY"] == found["RUNWARE_API_KEY"] == "not set"
    assert found["keychain"] == "none found"
    assert "does not answer" in found["fal"] and "does not answer" in found["runware"]


def test_the_price_and_what_was_spent(
    fal: FalStandIn, runware: RunwareStandIn, picture: Path, home: Path
) -> None:
    assert run_trellis("spent").out == "Nothing was charged.\n"
    told = run_trellis("price", "fal-ai/trellis-2", "--set", "resolution=1536", "--json").last
    assert (told["amount"], told["currency"]) == (0.35, "USD")
    fal.prices["fal-ai/trellis-2"] = 0.06
    asked = run_trellis("price", "fal-ai/trellis-2", "--image", picture, "--json").last
    assert (asked["amount"], asked["source"]) == (pytest.approx(0.36), "the service")
    four = ("runware/trellis-2", "--set", "numberResults=4", "--image", picture, "--json")
    assert run_trellis("price", *four).last["amount"] == pytest.approx(4 * 0.0256)
    assert run_trellis("price", "local/draft").out == "Nothing is charged.\n"
    assert not fal.submits and not runware.submits

    done = run_trellis("generate", picture, "--endpoint", "fal-ai/trellis-2", "--json")
    assert done.last["cost"] == {"amount": 0.36, "currency": "USD", "estimate": False}
    refused = run_trellis(
        "generate", picture, "--endpoint", "fal-ai/trellis-2", "--max-cost", "0.31", "--json"
    )
    assert (refused.code, refused.last["kind"]) == (2, "PriceError")
    assert "about $0.36, more than the $0.31 allowed" in refused.last["message"]
    assert len(fal.submits) == 1
    spent = run_trellis("spent", "--json").lines
    assert [(row["service"], row["amount"], row["estimate"]) for row in spent] == [
        ("fal", 0.36, False)
    ]


class TestApi:
    """blender_trellis.api"""

    @pytest.fixture(autouse=True)
    def _fresh(self) -> object:
        api._runner.cache_clear()
        yield
        api._runner().close()
        api._runner.cache_clear()

    def test_generate(self, picture: Path, tmp_path: Path) -> None:
        stages: list[str] = []
        result = api.generate(
            [picture],
            endpoint="local/draft",
            seed=7,
            resolution=512,
            output=tmp_path / "a.glb",
            on_event=lambda event: stages.append(event.stage),
        )
        assert result.seed == 7
        assert result.parameters["resolution"] == 512
        assert result.files[0].read_bytes() == (tmp_path / "a.glb").read_bytes()
        assert "texture" in stages or "mesh" in stages
        draft_shapes.assert_solid(draft_shapes.read(result.files[0].read_bytes()), genus=0)

    def test_errors_are_classes(self, picture: Path) -> None:
        with pytest.raises(ParameterError) as caught:
            api.generate([picture], texture_size=3)
        assert caught.value.parameter == "texture_size" or "texture_size" in caught.value.message

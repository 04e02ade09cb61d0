# SPDX-License-Identifier: GPL-3.0-or-later
"""`trellis sidecar install`, `uninstall` and `doctor` as scripts see them, and a download whose process is killed."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from blender_trellis.install import weights
from blender_trellis.services import sidecar
from harness import REPOSITORY, run_trellis, sizes, trellis_command
from install.hub import TOKEN, Hub, Trouble
from install.index import Index

ASKING = ("sidecar", "install", "--only", "weights")
COMMAND = (*ASKING, "--yes")
STRUCTURE = "microsoft/TRELLIS.2-4B/ckpts/ss_flow_img_dit_1_3B_64_bf16.safetensors"
PROGRESS_KEYS = {"event", "state", "stage", "step", "steps", "fraction", "message"}


@pytest.fixture
def leave(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> Hub:
    """The hub, for somebody who has accepted the licence of the gated file."""
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    return hub


def started(*arguments: str) -> subprocess.Popen[str]:
    environ = os.environ | {"PYTHONPATH": str(REPOSITORY), "PYTHONUNBUFFERED": "1"}
    command = trellis_command(*arguments)
    return subprocess.Popen(command, env=environ, stdout=subprocess.PIPE, text=True)


def test_the_plan_comes_first_and_the_result_last(leave: Hub, home: Path) -> None:
    done = run_trellis(*COMMAND, "--json")
    assert done.code == 0, done
    plans = [line for line in done.lines if line["event"] == "plan"]
    progress = [line for line in done.lines if line["event"] == "progress"]
    assert all(set(line) == PROGRESS_KEYS for line in progress)
    (plan,) = plans
    asked = done.lines.index(plan)
    assert {line["stage"] for line in done.lines[:asked]} == {"access"}
    expected = weights.needed("512")
    sizes = {file.path: len(leave.files[f"{file.repository}/{file.path}"]) for file in expected}
    assert {file["path"]: file["size"] for file in plan["files"]} == sizes
    assert plan["bytes"] == sum(sizes.values())
    assert [line.partition(":")[0] for line in plan["licences"]] == ["DINOv3 License", "MIT", "MIT"]
    assert plan["free"].keys() == {str(home / "trellis2")}
    assert (done.last["event"], done.last["state"]) == ("result", "ready")
    assert set(done.last["present"]) == {file.target for file in expected}
    (note,) = done.last["notes"]
    assert "U²-Net" in note and "github.com does not answer" in note and "by colour" in note

    (found,) = run_trellis("doctor", "--json").lines
    assert found["TRELLIS.2"] == "not installed"
    assert found["TRELLIS.2 weights"] == (
        "512: ready, all resolutions: 4.8 GiB missing, retexture: 0.7 GiB missing, U²-Net: missing"
    )
    gone = run_trellis("sidecar", "uninstall", "--only", "weights")
    assert (gone.code, gone.out) == (0, "Uninstalled.\n")
    assert not weights.folder(home).exists()
    gone = run_trellis("sidecar", "uninstall")
    assert (gone.code, gone.out) == (0, "Nothing was installed.\n")
    assert run_trellis("sidecar", "uninstall", "--json").last["uninstalled"] is None


def test_without_json_the_gigabytes_and_licences_can_be_read(leave: Hub) -> None:
    done = run_trellis(*COMMAND)
    assert done.code == 0
    assert "of weights in 14 files are downloaded" in done.out
    assert "Licence DINOv3 License: https://ai.meta.com/" in done.out
    assert re.search(r"Folder .*trellis2: [\d.]+ GiB are free", done.out)
    assert "Weights: 512: ready" in done.out


@pytest.mark.parametrize("more", [(), ("--json",)])
def test_where_nobody_can_be_asked_it_shows_the_plan_and_refuses(
    leave: Hub, more: tuple[str, ...]
) -> None:
    done = run_trellis(*ASKING, *more)
    assert done.code == 2
    assert "--yes" in (done.last["message"] if more else done.err)
    assert done.lines[-2]["event"] == "plan" if more else "of weights in 14 files" in done.out
    assert {call.method for call in leave.calls} == {"HEAD"}, "something was downloaded"


@pytest.mark.skipif(sys.platform == "win32", reason="has no pseudo-terminals")
@pytest.mark.parametrize(("answer", "code"), [("n", 130), ("", 130), ("y", 0)])
def test_on_a_terminal_it_asks_before_the_first_byte(leave: Hub, answer: str, code: int) -> None:
    mine, theirs = os.openpty()
    environ = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    process = subprocess.Popen(
        trellis_command(*ASKING), env=environ, stdin=theirs, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout
    with process, process.stdout:
        shown = ""
        while not shown.endswith("Continue? [y/N] "):
            piece = process.stdout.read(1)
            assert piece, shown
            shown += piece
        assert "of weights in 14 files" in shown and "GiB are free" in shown
        assert {call.method for call in leave.calls} == {"HEAD"}
        os.write(mine, f"{answer}\n".encode())
        process.stdout.read()
        assert process.wait(60) == code
    os.close(mine)
    os.close(theirs)
    assert ("GET" in {call.method for call in leave.calls}) == (code == 0)


def test_a_plan_is_shown_also_where_the_hub_does_not_answer(home: Path) -> None:
    done = run_trellis(*ASKING, "--mirror", "https://127.0.0.1:9")
    assert done.code == 4 and "127.0.0.1:9 does not answer" in done.err
    assert "About 10.4 GiB of weights in 15 files" in done.out and "Licence MIT" in done.out


def test_a_sidecar_that_was_ended_for_an_installation_is_started_again(
    own_sidecar: Path, index: Index
) -> None:
    before = sidecar.ensure(own_sidecar)
    index.wheels = {name: data for name, data in index.wheels.items() if "libigl" not in name}
    environment = ("sidecar", "install", "--only", "environment", "--device", "cpu", "--json")
    assert run_trellis(*environment).code == 2
    assert sidecar.read_address(own_sidecar) == before, "nothing was begun"
    done = run_trellis(*environment, "--yes")
    assert done.code == 3 and "libigl" in done.last["message"]
    after = sidecar.read_address(own_sidecar)
    assert after != before and sidecar.health(after)


@pytest.mark.parametrize(
    ("more", "code", "kind"),
    [
        ((), 2, "AccessError"),  # gated
        (("--mirror", "http://mirror.example.org"), 2, "InputError"),
        (("--mirror", "https://127.0.0.1:9"), 4, "UnreachableError"),
        (("--from", "/nowhere"), 2, "InputError"),
        (("--device", "rocm", "--python", "/nowhere/python"), 2, "InputError"),
    ],
)
def test_the_exit_code_and_the_last_line_say_what_is_wrong(
    hub: Hub, more: tuple[str, ...], code: int, kind: str
) -> None:
    done = run_trellis(*COMMAND, *more, "--json")
    assert done.code == code, done
    assert (done.last["event"], done.last["state"], done.last["kind"]) == ("error", "failed", kind)
    assert TOKEN not in done.out + done.err


def test_an_interrupt_cancels(leave: Hub) -> None:
    trouble = leave.trouble[STRUCTURE] = Trouble(after=50_000, hold=True)
    process = started(*COMMAND, "--json")
    assert process.stdout
    with process, process.stdout:
        assert trouble.held.wait(60)
        process.send_signal(signal.SIGINT)
        last = [json.loads(line) for line in process.stdout][-1]
        assert process.wait(60) == 130
    assert (last["event"], last["state"], last["kind"]) == ("error", "cancelled", "CancelledError")


def test_killed_in_a_download_it_goes_on_at_that_byte(leave: Hub, home: Path) -> None:
    leave.trouble[STRUCTURE] = Trouble(after=50_000, hold=True)
    process = started(*COMMAND, "--json")
    assert process.stdout
    with process, process.stdout:
        deadline = time.monotonic() + 60
        parts = weights.folder(home) / "ckpts"
        while 50_000 not in sizes(parts, "ss_flow*.part"):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        process.kill()
    assert run_trellis(*COMMAND, "--json").code == 0
    assert [call.begins for call in leave.served(STRUCTURE)] == [0, 50_000]
    path = weights.folder(home) / "ckpts" / STRUCTURE.rsplit("/", 1)[1]
    assert path.read_bytes() == leave.files[STRUCTURE]

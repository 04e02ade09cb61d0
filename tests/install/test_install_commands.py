# SPDX-License-Identifier: GPL-3.0-or-later
"""`trellis sidecar install`, `uninstall` and `doctor` as scripts see them, and a download whose process is killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from blender_trellis.install import weights
from harness import REPOSITORY, run_trellis, trellis_command
from install.hub import TOKEN, Hub, Trouble

COMMAND = ("sidecar", "install", "--only", "weights")
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
    expected = weights.wanted("512")
    sizes = {file.path: len(leave.files[f"{file.repository}/{file.path}"]) for file in expected}
    assert {file["path"]: file["size"] for file in plan["files"]} == sizes
    assert plan["bytes"] == sum(sizes.values())
    assert [line.partition(":")[0] for line in plan["licences"]] == ["DINOv3 License", "MIT", "MIT"]
    assert (done.last["event"], done.last["state"]) == ("result", "ready")
    assert set(done.last["present"]) == {file.target for file in expected}

    (found,) = run_trellis("doctor", "--json").lines
    assert found["TRELLIS.2"] == "not installed"
    assert found["TRELLIS.2 weights"] == (
        "512: ready, all resolutions: 4.8 GiB missing, retexture: 0.7 GiB missing"
    )
    assert run_trellis("sidecar", "uninstall", "--only", "weights").code == 0
    assert not weights.folder(home).exists()


def test_without_json_the_gigabytes_and_licences_can_be_read(leave: Hub) -> None:
    done = run_trellis(*COMMAND)
    assert done.code == 0
    assert "of weights in 14 files are downloaded" in done.out
    assert "Licence DINOv3 License: https://ai.meta.com/" in done.out
    assert "Weights: 512: ready" in done.out


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
        while not any(part.stat().st_size == 50_000 for part in parts.glob("ss_flow*.part")):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        process.kill()
    assert run_trellis(*COMMAND, "--json").code == 0
    assert [call.begins for call in leave.served(STRUCTURE)] == [0, 50_000]
    path = weights.folder(home) / "ckpts" / STRUCTURE.rsplit("/", 1)[1]
    assert path.read_bytes() == leave.files[STRUCTURE]

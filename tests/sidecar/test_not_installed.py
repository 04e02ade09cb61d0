# SPDX-License-Identifier: GPL-3.0-or-later
"""TRELLIS.2 asked for where it is not installed: refused before there is a job, or by another computer's sidecar; Draft works."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest

from blender_trellis.config import Config
from blender_trellis.install import hub, weights
from blender_trellis.services import sidecar
from harness import Ran, run_trellis

GENERATE, RETEXTURE = "local/trellis-2", "local/trellis-2/retexture"
without_torch = pytest.mark.skipif(
    importlib.util.find_spec("torch") is not None,
    reason="with PyTorch in its own Python the engine needs no other",
)
with_torch = pytest.mark.skipif(
    importlib.util.find_spec("torch") is None, reason="PyTorch here stands for an environment"
)


def generate(picture: Path, endpoint: str, *settings: str | Path) -> Ran:
    return run_trellis("generate", picture, "--endpoint", endpoint, *settings, "--json")


def put(home: Path, files: list[weights.File]) -> None:
    """The model's files, as far as their records tell."""
    for file in files:
        path = weights.folder(home) / file.target
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"weights")
        hub.record_of(path).write_text(json.dumps({"size": 7, "sha256": ""}))


def assert_refused(done: Ran, home: Path, words: str) -> None:
    assert done.code == 2, done
    assert (done.last["event"], done.last["kind"]) == ("error", "AccessError")
    assert words in done.last["message"]
    assert run_trellis("jobs", "list", "--json").lines == [], "there is a row in the journal"
    assert sidecar.read_address(home) is None, "a process was started for nothing"


@without_torch
@pytest.mark.parametrize("unfinished", [False, True])
def test_without_an_environment_there_is_no_job(
    own_sidecar: Path, picture: Path, unfinished: bool
) -> None:
    if unfinished:
        folder = own_sidecar / "trellis2"
        (folder / "venv" / "bin").mkdir(parents=True)
        (folder / "venv" / "bin" / "python").write_text("#!/bin/false", encoding="utf-8")
        (folder / "install.json").write_text(json.dumps({"done": ["venv"]}), encoding="utf-8")
    done = generate(picture, GENERATE, "--set", "resolution=512")
    words = "TRELLIS.2 is not installed on this computer. Install it in the add-on's preferences, or with"
    assert_refused(done, own_sidecar, f"{words} `trellis sidecar install`.")
    assert run_trellis("generate", picture, "--json").code == 0, "Draft needs nothing"


@with_torch
def test_without_the_weights_that_it_needs_there_is_no_job(
    own_sidecar: Path, picture: Path, tmp_path: Path, small_glb: bytes
) -> None:
    done = generate(picture, GENERATE)
    assert_refused(done, own_sidecar, "with `trellis sidecar install --resolution all`.")
    put(own_sidecar, weights.needed("512"))
    done = generate(picture, GENERATE)
    assert_refused(done, own_sidecar, "--resolution all`, or set resolution to 512.")
    done = generate(picture, GENERATE, "--set", "resolution=512", "--set", "pipeline_type=1024")
    assert_refused(done, own_sidecar, "--resolution all`")
    (tmp_path / "mesh.glb").write_bytes(small_glb)
    mesh = ("--mesh", tmp_path / "mesh.glb", "--set", "resolution=512")
    done = generate(picture, RETEXTURE, *mesh)
    assert_refused(done, own_sidecar, "with `trellis sidecar install --retexture`.")


def test_of_another_computer_only_its_own_answer_tells(config: Config, picture: Path) -> None:
    """It has no weights, and says so of the job."""
    done = generate(picture, GENERATE)
    assert done.code == 3 and done.last["state"] == "failed"
    assert "nstall" in done.last["message"]
    (job,) = run_trellis("jobs", "list", "--json").lines
    assert job["endpoint"] == GENERATE

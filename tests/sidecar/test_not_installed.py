# SPDX-License-Identifier: GPL-3.0-or-later
"""TRELLIS.2 asked for where it is not installed: the job says what to do, and Draft works."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest

from harness import run_trellis

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("torch") is not None,
    reason="with PyTorch in its own Python the sidecar needs no other",
)


def test_a_job_says_how_to_install_it(own_sidecar: Path, picture: Path) -> None:
    done = run_trellis("generate", picture, "--endpoint", "local/trellis-2", "--json")
    assert done.code == 3
    assert done.last["event"] == "error" and done.last["state"] == "failed"
    assert (
        "TRELLIS.2 is not installed. Install it in the add-on's preferences" in done.last["message"]
    )
    assert run_trellis("generate", picture, "--json").code == 0


def test_an_environment_that_was_not_finished_is_none(own_sidecar: Path, picture: Path) -> None:
    folder = own_sidecar / "trellis2"
    (folder / "venv" / "bin").mkdir(parents=True)
    (folder / "venv" / "bin" / "python").write_text("#!/bin/false", encoding="utf-8")
    (folder / "install.json").write_text(json.dumps({"done": ["venv"]}), encoding="utf-8")
    done = run_trellis("generate", picture, "--endpoint", "local/trellis-2", "--json")
    assert "TRELLIS.2 is not installed" in done.last["message"]

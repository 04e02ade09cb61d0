# SPDX-License-Identifier: GPL-3.0-or-later
"""tests/window/run.py, as far as no window is needed: what it refuses, and in which words."""

import os
import sys
from pathlib import Path

import pytest

from window import run

posix = pytest.mark.skipif(os.name == "nt", reason="a script is no program there")


@pytest.fixture
def program(tmp_path):
    """Makes a program that prints something."""

    def make(says: str, name: str = "blender") -> str:
        path = tmp_path / name
        path.write_text(f"#!{sys.executable}\nprint({says!r})\n", "utf-8")
        path.chmod(0o755)
        return str(path)

    return make


def refused(capsys: pytest.CaptureFixture[str], blender: str) -> str:
    assert run.main(["--blender", blender, "--package", "any.zip"]) == 2
    return capsys.readouterr().err


@posix
@pytest.mark.parametrize(
    ("says", "words"),
    [("Blender 4.1.1", "needs 4.2 or newer"), ("GIMP 3.0", "does not say that it is a Blender")],
)
def test_what_is_no_blender_of_use_is_refused(program, capsys, says, words):
    assert words in refused(capsys, program(says))


def test_a_program_that_is_not_there_is_named(capsys, tmp_path):
    missing = str(tmp_path / "no-blender")
    assert f"{missing} cannot be started" in refused(capsys, missing)


@posix
def test_all_tools_that_are_missing_are_named_at_once(program, capsys, monkeypatch, tmp_path):
    blender = program("Blender 5.2.1 LTS")
    program("", "xdotool")
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(run.sys, "platform", "linux")
    said = refused(capsys, blender)
    assert "tesseract (reads" in said and "import (takes" in said and "xdotool" not in said


@posix
def test_without_a_screen_that_is_said(program, capsys, monkeypatch, tmp_path):
    blender = program("Blender 5.2.1 LTS")
    for name in run.TOOLS:
        program("", name)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.setattr(run.sys, "platform", "linux")
    monkeypatch.setattr(run, "ROOT", tmp_path)
    assert "Install Xvfb" in refused(capsys, blender)


def test_every_module_is_there():
    folder = Path(run.__file__).parent
    for name in (*run.TESTS, run.BENCH, run.PICTURES):
        assert "LIVES" in (folder / f"{name}.py").read_text("utf-8")

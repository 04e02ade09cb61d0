# SPDX-License-Identifier: GPL-3.0-or-later
"""Every example of README.md, docs/scripting.md and docs/batch.md runs as a reader would run it: in a process of its own, or in
a Blender that has the extension."""

from __future__ import annotations

import os
import re
import runpy
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import bpy
import pytest

import blender_trellis
from harness import REPOSITORY, run_trellis

PICTURES = REPOSITORY / "docs" / "images"


class Example(NamedTuple):
    """A fenced block, and what the page says that it prints; None where it says nothing."""

    code: str
    prints: str | None


def examples(page: str, language: str) -> list[Any]:
    """The blocks of a page in that language, each as a parameter that is called after its place."""
    text = (REPOSITORY / page).read_text(encoding="utf-8")
    blocks = [*re.finditer(r"^```(\w+)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)]
    following = [*blocks[1:], None]
    return [
        pytest.param(
            Example(block[2], after[2] if after and after[1] == "text" else None),
            id=f"{Path(page).stem}-{text[: block.start()].count(chr(10)) + 1}",
        )
        for block, after in zip(blocks, following, strict=True)
        if block[1] == language
    ]


@pytest.fixture
def folder(tmp_path: Path, small_glb: bytes) -> Path:
    """A reader's folder: the example pictures, one of them in a folder of pictures, and a model."""
    place = tmp_path / "where the reader works"
    shutil.copytree(PICTURES, place)
    shutil.copytree(PICTURES, place / "docs" / "images")
    (place / "model.glb").write_bytes(small_glb)
    (place / "pictures").mkdir()
    shutil.copy(PICTURES / "robot.png", place / "pictures")
    (place / "pictures" / "notes.png").write_text("Buy bread.", encoding="utf-8")
    (place / "pictures-of-toys").mkdir()
    shutil.copy(PICTURES / "robot.png", place / "pictures-of-toys")
    ((manifest,),) = (example.values for example in examples("docs/batch.md", "csv"))
    (place / "shop.csv").write_text(manifest.code, encoding="utf-8")
    return place


@pytest.fixture(autouse=True)
def _stand_ins(
    config: object, fal: object, runware: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A home, a sidecar and services that are nobody's."""
    monkeypatch.setenv("BLENDER_USER_RESOURCES", str(tmp_path / "blender"))


def _assert_written(code: str, folder: Path) -> None:
    """Each model that the example names is there."""
    for name in re.findall(r"[\w-]+\.(?:glb|blend)\b", code):
        assert (folder / name).stat().st_size > 500, name


SCRIPTS = examples("README.md", "python") + examples("docs/scripting.md", "python")
OF_THE_API = [script for script in SCRIPTS if "blender_trellis" in script.values[0].code]
IN_BLENDER = [script for script in SCRIPTS if script not in OF_THE_API]


@pytest.mark.parametrize("example", OF_THE_API)
def test_a_script_does_what_the_page_says(example: Example, folder: Path) -> None:
    script = folder / "script.py"
    script.write_text(example.code, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, script],
        capture_output=True,
        encoding="utf-8",
        cwd=folder,
        # By PWD Blender 4.2 knows the folder that it works in, as a shell says it
        env=os.environ
        | {"PYTHONPATH": str(REPOSITORY), "PYTHONIOENCODING": "utf-8", "PWD": str(folder)},
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    _assert_written(example.code, folder)
    if example.prints is not None:
        # Blender has things of its own to say as well
        assert example.prints in done.stdout, done.stdout
    elif "print(" in example.code:
        assert done.stdout


@pytest.mark.parametrize("example", IN_BLENDER)
def test_a_script_in_blender_does_what_the_page_says(
    example: Example,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    script = folder / "script.py"
    script.write_text(example.code, encoding="utf-8")
    monkeypatch.chdir(folder)
    bpy.ops.wm.read_factory_settings(use_empty=True)
    blender_trellis.register()
    try:
        runpy.run_path(str(script))
    finally:
        blender_trellis.unregister()
    assert example.prints and example.prints in capsys.readouterr().out


COMMANDS = [
    example
    for page in ("README.md", "docs/scripting.md", "docs/batch.md")
    for example in examples(page, "sh")
]


@pytest.mark.parametrize("example", COMMANDS)
def test_commands_do_what_the_page_says(example: Example, folder: Path) -> None:
    for line in example.code.splitlines():
        command = re.sub(r"^\S*(trellis|python -m blender_trellis) ", "", line)
        assert command != line, f"not a command of this program: {line}"
        done = run_trellis(*shlex.split(command), cwd=folder)
        assert done.code == 0, (line, done)
        assert done.out
    _assert_written(example.code, folder)


def test_no_example_is_left_out() -> None:
    pages = [REPOSITORY / "README.md", *(REPOSITORY / "docs").glob("*.md")]
    shown = {page.name for page in pages if "```python" in page.read_text(encoding="utf-8")}
    assert shown == {"README.md", "scripting.md"}

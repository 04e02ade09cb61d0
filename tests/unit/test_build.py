# SPDX-License-Identifier: GPL-3.0-or-later
"""build.py: finding a Python, setting up, running the tests apart from the user's own files, packing."""

import importlib.util
import re
import shutil
import sys
import tomllib
from pathlib import Path
from types import ModuleType

import pytest

import blender_trellis

ROOT = Path(__file__).parents[2]
RUNNING = f"{sys.version_info.major}.{sys.version_info.minor}"


@pytest.fixture
def build(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    spec = importlib.util.spec_from_file_location("trellis_build", ROOT / "build.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    # into the environment that the tests run in
    monkeypatch.setattr(module.venvs, "pip_install", _refuse)
    return module


def _refuse(python: Path, wanted: list[str]) -> None:
    raise AssertionError(f"pip would install {wanted} with {python}")


def test_a_python_that_does_not_start_is_passed_over(build, monkeypatch):
    broken = [[sys.executable, "-c", "raise SystemExit(127)"], ["no-such-program-anywhere"]]
    monkeypatch.setattr(
        build.venvs, "python_candidates", lambda version: [*broken, [sys.executable]]
    )
    command, version = build.venvs.find_python(RUNNING)
    assert command == [sys.executable]
    assert version == sys.version


def test_a_python_of_another_version_is_passed_over(build, monkeypatch):
    monkeypatch.setattr(build.venvs, "python_candidates", lambda version: [[sys.executable]])
    assert build.venvs.find_python("3.98") is None


def test_a_missing_python_is_named_and_ends_with_2(build, monkeypatch, capsys):
    monkeypatch.setattr(build.venvs, "find_python", lambda version: None)
    assert build.main(["test", "--blender", "4.2"]) == 2
    assert "Install Python 3.11" in capsys.readouterr().err


def test_every_blender_left_out_is_named(build, monkeypatch, capsys):
    found = build.venvs.find_python
    monkeypatch.setattr(
        build.venvs, "find_python", lambda v: found(RUNNING) if v == RUNNING else None
    )
    monkeypatch.setattr(build.venvs, "with_blender", lambda blender: Path(sys.executable))
    monkeypatch.setattr(build.venvs, "with_engine", lambda: Path(sys.executable))
    monkeypatch.setattr(build, "run_pytest", lambda python, arguments: (0, "1 passed"))
    assert build.main(["test", "--blender", "all"]) == 0
    said = capsys.readouterr().out
    for blender, (python, _numpy) in build.BLENDERS.items():
        heading = "Testing with" if python == RUNNING else "Left out:"
        assert f"{heading} Blender {blender}" in said


def test_one_failing_blender_fails_the_whole_run(build, monkeypatch, capsys):
    results = iter([(1, "1 failed"), (0, "1 passed")])
    monkeypatch.setattr(build.venvs, "with_blender", lambda blender: Path(sys.executable))
    monkeypatch.setattr(build.venvs, "with_engine", lambda: Path(sys.executable))
    monkeypatch.setattr(build, "run_pytest", lambda python, arguments: next(results))
    assert build.main(["test", "--blender", "4.2", "--blender", "5.0"]) == 1
    assert capsys.readouterr().out.splitlines()[-2:] == [
        "Blender 4.2: 1 failed",
        "Blender 5.0: 1 passed",
    ]


def test_every_blender_has_a_row_that_says_how_it_went_or_why_it_did_not(
    build, monkeypatch, tmp_path, capsys
):
    def environment(blender: str) -> Path:
        if blender == "4.4":
            raise build.BuildError("pip could not install what is needed.")
        (tmp_path / blender / "bin").mkdir(parents=True)
        return tmp_path / blender / "bin" / "python"

    def pytest_of(python: Path, arguments: list[str], prefix: str) -> tuple[int, str]:
        blender = python.parents[1].name
        assert prefix.split() == [blender]
        return int(blender == "4.3"), f"{blender} ran {arguments}"

    known = [[sys.executable], sys.version]
    monkeypatch.setattr(
        build.venvs, "find_python", lambda version: known if version == "3.11" else None
    )
    monkeypatch.setattr(build.venvs, "with_blender", environment)
    monkeypatch.setattr(build.venvs, "with_engine", lambda: environment(build.WITH_ENGINE))
    monkeypatch.setattr(build, "run_pytest", pytest_of)
    assert build.main(["test", "--all"]) == 1
    *_, head, row420, row42, row43, row44, row45, row50, row51, row52, window = [
        re.split(r"  +", line) for line in capsys.readouterr().out.splitlines()
    ]
    assert head == ["Blender", "Python", "Tests", "Result"]
    assert row420 == ["4.2.0", "3.11", "tests/installed", "4.2.0 ran ['tests/installed']"]
    assert row42 == ["4.2", "3.11", "all", "4.2 ran []"]
    assert row43[-1] == "4.3 ran ['tests/installed']"
    assert row44[-1] == "not run: pip could not install what is needed."
    assert (row45[-1], row50[-1]) == ("4.5 ran []", "5.0 ran []")
    assert row51[-1] == row52[-1] == "not run: there is no Python 3.13 here"
    assert window[-1] == "not run: no Blender was named by --window"
    assert {path.name for path in tmp_path.iterdir()} == {
        "4.2",
        "4.5",
        "5.0",
    }  # the others were only borrowed


def test_an_interrupted_set_up_is_repeated_and_a_finished_one_is_kept(build, monkeypatch, tmp_path):
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    monkeypatch.setattr(build.venvs, "ROOT", tmp_path)
    installs: list[list[str]] = []

    def install(python: Path, wanted: list[str]) -> None:
        installs.append(wanted)
        assert python.exists()
        if len(installs) == 1:
            raise build.BuildError("the network went away")

    monkeypatch.setattr(build.venvs, "pip_install", install)
    with pytest.raises(build.BuildError):
        build.venvs.with_blender()
    first = build.venvs.with_blender()
    assert build.venvs.with_blender() == first
    assert len(installs) == 2
    assert any(name.startswith("bpy==") for name in installs[1])

    project = tmp_path / "pyproject.toml"
    project.write_text(
        project.read_text("utf-8").replace('"httpx>=0.28"', '"httpx>=0.27"'), "utf-8"
    )
    build.venvs.with_blender()
    assert len(installs) == 3


def test_tests_run_apart_from_the_users_files_and_keys(build, monkeypatch, tmp_path):
    inner = tmp_path / "test_inner.py"
    inner.write_text(
        "import os\n"
        "def test_apart():\n"
        "    assert 'FAL_KEY' not in os.environ\n"
        "    assert os.environ['TRELLIS_HOME'] != 'mine'\n"
        "    assert os.environ['BLENDER_USER_RESOURCES'] != 'mine'\n"
        "def test_fails():\n"
        "    assert os.environ.get('NO_SUCH_VARIABLE')\n",
        "utf-8",
    )
    for name in ("FAL_KEY", "TRELLIS_HOME", "BLENDER_USER_RESOURCES"):
        monkeypatch.setenv(name, "mine")
    arguments = ["-q", "-p", "no:cacheprovider", str(inner)]
    status, summary = build.run_pytest(Path(sys.executable), arguments)
    assert status == 1
    assert "1 failed, 1 passed" in summary


def test_the_version_is_one():
    manifest = tomllib.loads((ROOT / "blender_manifest.toml").read_text("utf-8"))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    assert manifest["version"] == project["version"] == blender_trellis.__version__


def test_without_a_command_help_is_shown(build, capsys):
    assert build.main([]) == 0
    said = capsys.readouterr().out
    for command in (
        "demo",
        "test",
        "window",
        "lint",
        "bench",
        "haul",
        "batch",
        "package",
        "repository",
        "lock",
        "docs",
    ):
        assert f"    {command}" in said


def test_a_window_is_tried_in_a_blender_that_is_named(build, capsys):
    assert build.main(["window"]) == 2
    assert "build.py window --blender" in capsys.readouterr().err


def test_only_test_passes_arguments_on(build, capsys):
    with pytest.raises(SystemExit) as stop:
        build.main(["lint", "--", "-k", "anything"])
    assert stop.value.code == 2
    assert "only test" in capsys.readouterr().err


def test_measurements_and_the_haul_are_told_what_was_asked_for(build, monkeypatch):
    started: list[tuple[str, ...]] = []
    monkeypatch.setattr(build.venvs, "with_engine", lambda: Path(sys.executable))
    monkeypatch.setattr(build.venvs, "with_blender", lambda: Path(sys.executable))
    monkeypatch.setattr(build, "run", lambda _, *arguments, env: started.append(arguments) or 1)
    for asked in (
        ["bench", "--only", "draft", "--only", "pump"],
        ["bench", "--write"],
        ["haul"],
        ["batch"],
    ):
        assert build.main(asked) == 1
    assert [arguments[1:] for arguments in started] == [
        ("--only=draft", "--only=pump"),
        ("--write",),
        ("--jobs", "500"),
        ("--rows", "300"),
    ]
    assert all(Path(script).is_file() for script, *_ in started)

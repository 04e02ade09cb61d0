# SPDX-License-Identifier: GPL-3.0-or-later
"""The engine's Python environment: each step after a kill, what is done again and what is not, and which Pythons will do."""

from __future__ import annotations

import ast
import ctypes
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from blender_trellis.errors import AccessError, CancelledError, InputError, InstallError
from blender_trellis.home import FileLock
from blender_trellis.install import Report, environment, installer
from blender_trellis.install.installer import Wish
from harness import REPOSITORY, trellis_command
from install.index import Index, pins

WISH = Wish(only=installer.ENVIRONMENT, device="cpu")
COMMAND = ("sidecar", "install", "--only", "environment", "--device", "cpu", "--yes", "--json")
STEPS = [step.name for step in environment.STEPS]
linux = pytest.mark.skipif(sys.platform != "linux", reason="looks for processes in /proc")
posix = pytest.mark.skipif(sys.platform == "win32", reason="the stand-in is a shell script")


def ignore(_: object) -> None:
    """Nothing."""


def install(
    home: Path,
    tell: Callable[[Report], None] = ignore,
    cancelled: Callable[[], bool] = lambda: False,
    wish: Wish = WISH,
) -> None:
    installer.install(home, wish, tell, cancelled, ignore)


def site_packages(home: Path) -> Path:
    venv = environment.folder(home) / "venv"
    return next(
        venv.glob("Lib/site-packages" if sys.platform == "win32" else "lib/python*/site-packages")
    )


def processes_in(folder: Path) -> list[bytes]:
    """The command lines of living processes that have to do with a folder."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = path.read_bytes()
        except OSError:
            continue
        if os.fsencode(folder) in line:
            found.append(line)
    return found


class Killed:
    """The command line's installation, killed with signal 9 once it has come to a step, and where it stands still there."""

    def __init__(self, home: Path) -> None:
        self._home = home

    def at(self, step: str, standing_still: Callable[[], object]) -> None:
        environ = os.environ | {"PYTHONPATH": str(REPOSITORY), "PYTHONUNBUFFERED": "1"}
        process = subprocess.Popen(trellis_command(*COMMAND), stdout=subprocess.PIPE, env=environ)
        assert process.stdout
        with process, process.stdout:
            for line in process.stdout:
                if json.loads(line).get("stage") == step:
                    standing_still()
                    process.kill()
                    break
            else:
                raise AssertionError(f"it never came to {step}")
        deadline = time.monotonic() + 20
        # A child that had only just been forked holds the lock until it becomes another program
        with FileLock(environment.folder(self._home) / "install.lock") as lock:
            while not lock.acquire():
                assert time.monotonic() < deadline, "the lock outlived its owner"
                time.sleep(0.05)
        while left := processes_in(environment.folder(self._home) / "venv"):
            assert time.monotonic() < deadline, f"outlived its parent: {left}"
            time.sleep(0.05)
        assert environment.python(self._home) is None, "half an environment is none"


@linux
def test_killed_in_every_step_it_goes_on_with_that_step(home: Path, index: Index) -> None:
    killed = Killed(home)
    killed.at("venv", lambda: None)
    killed.at("pip", lambda: None)
    for step, package in (("torch", "torch"), ("packages", "scipy")):
        index.hold(package)
        killed.at(step, lambda: index.held.wait(60))
        index.let_go()
    # As a kill among the files of a package leaves it: pip would take it for installed
    cut_off = site_packages(home) / "numpy-2.4.6.dist-info"
    cut_off.mkdir(exist_ok=True)
    (cut_off / "METADATA").write_text("Metadata-Version: 2.1\nName: numpy\nVersion: 2.4.6\n")
    (cut_off / "INSTALLER").unlink(missing_ok=True)
    done: list[str] = []
    killed.at("check", lambda: None)
    install(home, lambda report: done.append(report.step))
    assert set(done) == {"check"}
    assert environment.python(home)
    assert {
        each: sum(name.startswith(f"{each}-") for name in index.seen) for each in ("pip", "torch")
    } == {
        "pip": 1,
        "torch": 2,  # the held one, and the one that came
    }
    installed = {path.name.split("-")[0] for path in site_packages(home).glob("*.dist-info")}
    assert {name.replace("-", "_") for name in pins()} <= installed
    assert environment.check_of(home)["torch"] == "2.13.0+cpu"
    assert environment.check_of(home)["onnxruntime"] == "1.28.0"
    assert not (environment.folder(home) / "temporary").exists(), "a kill's rest is cleared away"


@pytest.fixture
def blender(tmp_path: Path) -> Path:
    """A Python that may be replaced, as that of a Blender by an update."""
    folder = tmp_path / "blender"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", "--copies", folder], check=True)
    return folder / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")


def test_what_is_whole_is_left_alone_and_what_changed_is_made_anew(
    home: Path, index: Index, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, blender: Path
) -> None:
    wish = replace(WISH, python=blender)
    seen: list[Report] = []
    install(home, seen.append, wish=wish)
    assert list(dict.fromkeys(report.step for report in seen)) == STEPS
    assert all(1 < report.number <= report.count for report in seen)
    python = environment.python(home)
    assert python and python.exists()
    log = (environment.folder(home) / environment.LOG).read_text(encoding="utf-8")
    assert "Successfully installed torch-2.13.0+cpu" in log and "--only-binary=:all:" in log
    downloads = len(index.seen)
    seen.clear()
    install(home, seen.append, wish=wish)
    assert not seen and len(index.seen) == downloads

    base = environment.examine(blender)
    for build in [each for each in installer.builds.BUILDS if each.name in ("cu126", "rocm7.2")]:
        assert environment.missing(home, base, build) == list(environment.STEPS)
    more = tmp_path / "requirements.txt"
    more.write_text(environment.REQUIREMENTS.read_text() + "another==1\n")
    with monkeypatch.context() as patch:
        patch.setattr(environment, "REQUIREMENTS", more)
        (cpu,) = [each for each in installer.builds.BUILDS if each.name == "cpu" and each.suffix]
        assert environment.missing(home, base, cpu) == list(environment.STEPS)
    assert not environment.missing(home, base, cpu)

    when = blender.stat().st_mtime_ns
    os.utime(blender, ns=(1, 1))  # an environment is of no use without the Python it was made with
    assert environment.python(home) is None
    assert installer.plan(home, wish).steps == list(environment.STEPS)
    os.utime(blender, ns=(when, when))
    cache = home / "sidecar" / "cache"  # of stages
    cache.mkdir(parents=True)
    installer.uninstall(home, installer.WEIGHTS)
    assert environment.python(home) and cache.exists()
    installer.uninstall(home)
    assert environment.python(home) is None
    assert not environment.folder(home).exists() and not cache.exists()


def test_a_failed_or_cancelled_step_is_where_the_next_try_begins(home: Path, index: Index) -> None:
    missing = {
        name: index.wheels.pop(name) for name in [*index.wheels] if name.startswith("libigl")
    }
    with pytest.raises(InstallError, match="No matching distribution found for libigl") as told:
        install(home)
    assert told.value.exit_code == 3 and environment.LOG in told.value.message
    assert "Installing what the engine needs failed" in told.value.message
    assert environment.python(home) is None and environment.progress_of(home) == (3, 5)
    assert installer.status(home).environment_words() == "unfinished, 3 of 5 steps"
    index.wheels |= missing
    index.hold("libigl")
    with pytest.raises(CancelledError) as cancelled:
        install(home, cancelled=index.held.is_set)
    assert cancelled.value.exit_code == 130
    if sys.platform == "linux":
        assert not processes_in(environment.folder(home) / "venv"), "cancelled is ended"
    index.let_go()
    seen: list[Report] = []
    install(home, seen.append)
    assert list(dict.fromkeys(report.step for report in seen)) == ["packages", "check"]
    assert environment.python(home)


def test_one_installation_at_a_time(home: Path) -> None:
    with FileLock(environment.folder(home) / "install.lock") as lock:
        assert lock.acquire()
        with pytest.raises(InputError, match="Another installation is at work"):
            install(home)
        with pytest.raises(InputError, match="cancel it first"):
            installer.uninstall(home)


def test_offline_no_environment_is_made(home: Path) -> None:
    wish = Wish(only=installer.ENVIRONMENT, device="cpu", offline=True)
    with pytest.raises(AccessError, match="the environment is to be downloaded"):
        install(home, wish=wish)
    assert not (environment.folder(home) / "venv").exists()


@posix
@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ('[[3, 10], "3.10.4", "CPython", false, "linux", "x86_64", true, []]', "is Python 3.10.4"),
        ('[[3, 14], "3.14.0", "CPython", false, "linux", "x86_64", true, []]', "3.11 to 3.13"),
        ('[[3, 13], "3.13.1", "CPython", true, "linux", "x86_64", true, []]', "free-threaded"),
        ('[[3, 11], "3.11.9", "PyPy", false, "linux", "x86_64", true, []]', "is PyPy"),
        ('[[3, 11], "3.11.9", "CPython", false, "win32", "AMD64", false, []]', "is 32 bits"),
        (
            '[[3, 11], "3.11.2", "CPython", false, "linux", "x86_64", true, ["ensurepip"]]',
            "lacks the module ensurepip.*install python3-venv",
        ),
        ("no JSON", "is no Python that can be started"),
    ],
)
def test_a_python_that_will_not_do_is_refused_with_the_reason(
    tmp_path: Path, answer: str, words: str
) -> None:
    python = tmp_path / "python"
    python.write_text(f"#!/bin/sh\ncat <<'END'\n{answer}\nEND\n")
    python.chmod(0o755)
    with pytest.raises(InputError, match=words):
        environment.examine(python)


def test_this_python_will_do_and_a_missing_one_will_not(tmp_path: Path) -> None:
    base = environment.examine()
    assert base.path == Path(sys.executable) and base.version.count(".") == 2
    assert base.platform.startswith(sys.platform)
    with pytest.raises(InputError, match="is no Python that can be started"):
        environment.examine(tmp_path / "python")


@posix
def test_a_python_may_be_named_as_in_a_shell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "our-python").symlink_to(sys.executable)
    monkeypatch.chdir(tmp_path)
    assert environment.examine(Path("./our-python")).path == tmp_path / "our-python"
    monkeypatch.chdir("/")
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    assert environment.examine(Path("our-python")).path == tmp_path / "our-python"


def test_a_path_that_windows_would_not_take_is_refused_before_anything_is_installed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The longest path in PyTorch's wheel for Windows has 167 characters, and six more with the build in its name."""
    short, long = Path("C:/" + "x" * 51), Path("C:/" + "x" * 52)
    assert len(rf"{short}\venv\Lib\site-packages\\") + 173 <= 259
    environment.check_path(long)
    monkeypatch.setattr(sys, "platform", "win32")
    allowed = SimpleNamespace(RtlAreLongPathsEnabled=lambda: False)
    monkeypatch.setattr(ctypes, "windll", SimpleNamespace(ntdll=allowed), raising=False)
    environment.check_path(short)
    with pytest.raises(InputError, match=r"too long a path.*TRELLIS_HOME"):
        environment.check_path(long)
    allowed.RtlAreLongPathsEnabled = lambda: True
    environment.check_path(long)


def test_pips_progress_is_told_in_megabytes() -> None:
    assert environment.words("Progress 512000000 of 2048000000") == ("512 of 2,048 MB", 0.25)
    assert environment.words("  Collecting torch ") == ("Collecting torch", None)
    assert environment.words("Progress 5 of 0")[1] is None


def test_the_check_imports_all_that_the_engine_does() -> None:
    """Else an environment could pass for whole in which no model can be made."""

    def imported(path: Path) -> set[str]:
        found = set()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                found |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
                found.add(node.module.split(".")[0])
        return found - sys.stdlib_module_names

    package = REPOSITORY / "blender_trellis"
    engine = [*(package / "sidecar" / "engines").rglob("*.py"), package / "sidecar" / "worker.py"]
    needed = set().union(*map(imported, engine))
    assert {"torch", "igl", "numpy"} <= needed <= imported(package / "install" / "check.py")

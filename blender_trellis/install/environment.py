# SPDX-License-Identifier: GPL-3.0-or-later
"""The engine's Python environment: made in steps, each of which is recorded, so that the next try goes on where one stopped.

A step that was begun and not finished is done again. All steps are done again where something that they were made of has
changed: the base Python, the build of PyTorch, the pinned requirements.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import InputError, InstallError
from ..home import atomic_write
from . import Cancelled, Report, Tell, process
from .builds import Build

PYTHONS = ((3, 11), (3, 13))  # the oldest and the newest that all wheels are there for
PIP = "pip==26.3"  # Blender 4.2 brings 23.2, which neither tells how far it is nor goes on with a broken download
REQUIREMENTS = Path(__file__).with_name("requirements.txt")
LOG = "install.log"
LONGEST = 259 - len(r"\venv\Lib\site-packages\\") - 180
"""Characters that the folder's path may have on Windows: the longest of PyTorch 2.13's, a licence, has 167 and its build."""
_STATE = "install.json"
_PROBE = (
    "import importlib.util, json, platform, sys, sysconfig; "
    "print(json.dumps([list(sys.version_info[:2]), platform.python_version(), platform.python_implementation(), "
    "bool(sysconfig.get_config_var('Py_GIL_DISABLED')), sys.platform, platform.machine(), sys.maxsize > 2**32, "
    "[name for name in ('venv', 'ensurepip') if not importlib.util.find_spec(name)]]))"
)


def folder(home: Path) -> Path:
    """Everything of the engine's: environment, weights, state and log."""
    return home / "trellis2"


def python(home: Path) -> Path | None:
    """The Python that the engine runs in; None while the environment is not whole."""
    state = _State.read(home)
    path = _python_of(folder(home) / "venv")
    whole = state.done == [step.name for step in STEPS]
    return path if whole and state.base_is_there and path.exists() else None


# -- The base Python -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Base:
    """A Python that environments can be made with; `platform` is its own, "linux-x86_64", "win32-…" or "darwin-…"."""

    path: Path
    version: str
    platform: str


def examine(path: Path | None = None) -> Base:
    """The Python at `path`, which may be a command's name, or the one that runs this: Blender's own.

    Raises:
        InputError: it cannot be used; the message says why.
    """
    given = Path(sys.executable)
    if path:
        given = Path(shutil.which(path) or path).absolute()  # the children run in another folder
    try:
        done = subprocess.run(
            [str(given), "-I", "-c", _PROBE],
            capture_output=True,
            encoding="utf-8",
            check=True,
            timeout=60,
            **process.hidden(),
        )
        answer = json.loads(done.stdout)
    except (OSError, subprocess.SubprocessError, ValueError) as error:
        raise InputError(f"{given} is no Python that can be started: {error}.") from error
    pair, version, implementation, free_threaded, system, machine, wide, missing = answer
    oldest, newest = PYTHONS
    span = f"{_dotted(oldest)} to {_dotted(newest)}"
    another = f"Name another Python: {span}, 64 bits."
    if not oldest <= tuple(pair) <= newest:
        raise InputError(f"{given} is Python {version}. {another}")
    if implementation != "CPython" or free_threaded or not wide:
        kind = "free-threaded" if free_threaded else implementation if wide else "32 bits"
        raise InputError(f"{given} is {kind}, which PyTorch has no wheels for. {another}")
    if missing:
        raise InputError(
            f"{given} lacks the module {missing[0]} of Python's own library, without which no environment can be made. "
            f"On Debian and Ubuntu install python3-venv. {another}"
        )
    machine = {"amd64": "x86_64"}.get(machine.lower(), machine.lower())
    return Base(given, version, f"{system}-{machine}")


def _dotted(pair: tuple[int, int]) -> str:
    return ".".join(map(str, pair))


def check_path(place: Path) -> None:
    """Refuse a folder whose path is so long that Windows would not take those of PyTorch's files in it.

    Raises:
        InputError: it is; the message says what to do.
    """
    if sys.platform != "win32":
        return
    import ctypes

    if len(str(place)) > LONGEST and not ctypes.windll.ntdll.RtlAreLongPathsEnabled():
        raise InputError(
            f"{place} has too long a path: Windows takes 259 characters, and PyTorch's files need {259 - LONGEST} of them. Name "
            "a folder with a shorter one in the environment variable TRELLIS_HOME, or enable long paths in Windows."
        )


# -- The steps -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Recipe:
    """What an environment is made of, and where."""

    base: Base
    build: Build
    venv: Path

    @property
    def digest(self) -> str:
        """Another one where anything differs that the steps were made of."""
        parts = (str(self.base.path), self.base.version, self.build.requirement, self.build.index)
        pins = REQUIREMENTS.read_text(encoding="utf-8")
        return hashlib.sha256("\0".join([*parts, PIP, pins]).encode()).hexdigest()


@dataclass(frozen=True)
class Step:
    """Something to do, as command lines: `commands(recipe)`."""

    name: str
    title: str
    commands: Callable[[Recipe], list[list[str]]]


def _make(recipe: Recipe) -> list[list[str]]:
    arguments = ("-m", "venv", "--without-pip", "--clear", recipe.venv)
    return [process.python_command(recipe.base.path, *arguments)]


def _bring_pip(recipe: Recipe) -> list[list[str]]:
    bring = ("-m", "ensurepip", "--upgrade", "--default-pip")
    return [process.python_command(_python_of(recipe.venv), *bring), _pip(recipe, PIP)]


def _bring_torch(recipe: Recipe) -> list[list[str]]:
    """The wheel alone: what it depends on comes with the next step, from wherever the user's pip gets everything."""
    return [_pip(recipe, "--no-deps", recipe.build.requirement, index=True)]


def _bring_rest(recipe: Recipe) -> list[list[str]]:
    wanted = ("--requirement", REQUIREMENTS, recipe.build.requirement)
    return [_pip(recipe, *wanted, index=recipe.build.whole_index)]


def _check(recipe: Recipe) -> list[list[str]]:
    script = Path(__file__).with_name("check.py")
    return [process.python_command(_python_of(recipe.venv), script)]


def _pip(recipe: Recipe, *wanted: str | Path, index: bool = False) -> list[str]:
    """An installation by pip as the user has set it up, mirrors and proxies included; wheels only, so nothing is compiled."""
    found = ("--extra-index-url", recipe.build.index) if index and recipe.build.index else ()
    progress = () if wanted == (PIP,) else ("--progress-bar", "raw")
    how = ("--only-binary=:all:", "--no-user", "--no-input", "--disable-pip-version-check")
    command = ("-m", "pip", "install", *how, *progress, *found, *wanted)
    return process.python_command(_python_of(recipe.venv), *command)


STEPS = (
    Step("venv", "Making a Python environment", _make),
    Step("pip", "Preparing pip", _bring_pip),
    Step("torch", "Installing PyTorch", _bring_torch),
    Step("packages", "Installing what the engine needs", _bring_rest),
    Step("check", "Trying the engine's environment", _check),
)


# -- Doing them ------------------------------------------------------------------------------------


def missing(home: Path, base: Base, build: Build) -> list[Step]:
    """The steps that are still to be done."""
    recipe = Recipe(base, build, folder(home) / "venv")
    state = _State.read(home)
    if state.digest != recipe.digest or not state.base_is_there:
        return list(STEPS)
    return list(STEPS[len(state.done) :])


def install(
    home: Path, base: Base, build: Build, *, tell: Tell, cancelled: Cancelled, count: int
) -> None:
    """Do the steps that are missing. `count` is how many steps there are to tell of in all.

    Raises:
        InstallError: one failed; the next call goes on with it.
        CancelledError: `cancelled` said so.
    """
    recipe = Recipe(base, build, folder(home) / "venv")
    left = missing(home, base, build)
    folder(home).mkdir(parents=True, exist_ok=True)
    state = _State.read(home)
    if len(left) == len(STEPS):
        state = _State.fresh(recipe)
        state.write(home)  # before anything is touched: what was whole is not any more
    for step in left:
        number = STEPS.index(step) + 2  # after asking the hub

        def told(line: str, step: Step = step, number: int = number) -> None:
            message, fraction = words(line)
            tell(Report(step.name, number, count, step.title, message, fraction))

        told("")
        _remove_cut_off(recipe.venv)
        for command in step.commands(recipe):
            last = _run(step, command, folder(home) / LOG, told, cancelled)
        if step.name == "check":
            state.check = json.loads(last)
        state.done.append(step.name)
        state.write(home)


def _run(
    step: Step, command: list[str], log: Path, told: Callable[[str], None], cancelled: Cancelled
) -> str:
    """One command to its end; returns its last line."""
    lines: list[str] = []

    def listen(line: str) -> None:
        told(line)
        if not line.startswith("Progress "):
            lines.append(line)

    try:
        code = process.run(command, log, listen, cancelled)
    except OSError as error:
        raise InstallError(f"{step.title} failed: {error}.") from error
    if code:
        blamed = [line for line in lines if line.startswith("ERROR")] or lines or [f"code {code}"]
        ways = "Install again to go on from here."
        if step.name == "check":
            ways = (
                "If that is the graphics card's doing, install for the CPU: --device cpu, in Blender's console "
                "bpy.ops.trellis.install_local(device='CPU')."
            )
        raise InstallError(f"{step.title} failed: {blamed[-1]} (all of it: {log}). {ways}")
    return lines[-1] if lines else ""


def words(line: str) -> tuple[str, float | None]:
    """What to show of a line of output, and the share that it says is done: pip's raw progress is "Progress 512 of 1024"."""
    progress = re.fullmatch(r"Progress (\d+) of (\d+)", line)
    if progress is None:
        return line.strip(), None
    done, size = map(int, progress.groups())
    return f"{done / 1e6:,.0f} of {size / 1e6:,.0f} MB", done / size if size else None


def _remove_cut_off(venv: Path) -> None:
    """Have pip take packages for missing whose installation was cut off: it writes INSTALLER and RECORD after all the rest."""
    packages = "Lib/site-packages" if sys.platform == "win32" else "lib/python*/site-packages"
    for described in venv.glob(f"{packages}/*.dist-info"):
        if not all((described / name).exists() for name in ("INSTALLER", "RECORD")):
            shutil.rmtree(described)


def remove(home: Path) -> bool:
    """Delete the environment, its state and its log; what the user gave and the weights stay. Whether there was any."""
    place = folder(home)
    there = (place / _STATE).exists() or (place / "venv").exists()
    (place / _STATE).unlink(missing_ok=True)  # first: half an environment is none
    if (place / "venv").exists():
        shutil.rmtree(place / "venv")
    (place / LOG).unlink(missing_ok=True)
    return there


def check_of(home: Path) -> dict[str, Any]:
    """What the last step found out: versions and device; empty while it has not been."""
    return _State.read(home).check


def progress_of(home: Path) -> tuple[int, int]:
    """How many of the steps are done, and how many there are."""
    return len(_State.read(home).done), len(STEPS)


@dataclass
class _State:
    """What is on disk: which steps are done, of what they were made, and what the base Python's file looked like then."""

    digest: str
    base: str
    stamp: list[int]
    done: list[str]
    check: dict[str, Any]

    @classmethod
    def fresh(cls, recipe: Recipe) -> _State:
        path = recipe.base.path
        return cls(recipe.digest, str(path), _stamp(path), [], {})

    @classmethod
    def read(cls, home: Path) -> _State:
        try:
            stored = json.loads((folder(home) / _STATE).read_text(encoding="utf-8"))
            return cls(**stored)
        except (OSError, ValueError, TypeError):
            return cls("", "", [], [], {})

    def write(self, home: Path) -> None:
        with atomic_write(folder(home) / _STATE) as part:
            part.write_text(json.dumps(vars(self), indent=1), encoding="utf-8")

    @property
    def base_is_there(self) -> bool:
        """Whether the Python is still the one that the environment leans on: an update of Blender may have replaced it."""
        return bool(self.base) and _stamp(Path(self.base)) == self.stamp


def _stamp(path: Path) -> list[int]:
    try:
        found = path.stat()
    except OSError:
        return []
    return [found.st_size, found.st_mtime_ns]


def _python_of(venv: Path) -> Path:
    return venv / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")

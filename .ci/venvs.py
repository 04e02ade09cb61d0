# SPDX-License-Identifier: GPL-3.0-or-later
"""The virtual environments that build.py's commands run in: `.venv`, `.venv-X.Y` for another Blender, `.venv-ray`.

Needs the standard library alone. A stamp in each says what was installed, so the next start takes no time and an interrupted
set-up is repeated.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]

BLENDERS = {  # the Python each bpy is built for, and the numpy that this Blender ships
    "4.2": ("3.11", "numpy>=1.24,<1.25"),
    "4.5": ("3.11", "numpy>=1.26,<2"),
    "5.0": ("3.11", "numpy>=1.26,<2"),
    "5.2": ("3.13", "numpy>=2.2,<3"),
}
MORE_BLENDERS = {  # in which the package alone is tried: they differ in how they install it
    "4.2.0": BLENDERS["4.2"],
    "4.3": BLENDERS["4.2"],
    "4.4": BLENDERS["4.5"],
    "5.1": BLENDERS["5.2"],
}

# The one in whose environment TRELLIS.2 is tested and all types are checked: numpy's stubs judge
# lines differently from version to version, and PyTorch need not be there several times
WITH_ENGINE = "5.0"
RAY_PYTHON = "3.11"  # the oldest that the project runs in
TORCH_FOR_CPUS = "https://download.pytorch.org/whl/cpu"  # elsewhere Linux gets gigabytes of CUDA


class BuildError(Exception):
    """Something outside the project is missing; the message says what to do about it."""


def python_candidates(version: str) -> Iterator[list[str]]:
    """Command lines that may start Python `version` ("3.13"), the running one first."""
    yield [str(getattr(sys, "_base_executable", sys.executable))]
    yield [f"python{version}"]
    if os.name == "nt":
        yield ["py", f"-{version}"]
    for pattern in (
        f".pyenv/versions/{version}.*/bin/python",
        f".pyenv/pyenv-win/versions/{version}.*/python.exe",
        f".local/share/uv/python/cpython-{version}.*/bin/python{version}",
        f"AppData/Roaming/uv/python/cpython-{version}.*/python.exe",
    ):
        yield from ([str(found)] for found in sorted(Path.home().glob(pattern), reverse=True))


def find_python(version: str) -> tuple[list[str], str] | None:
    """The command line of a Python `version` that truly starts, and its full version text."""
    # A version manager's shim may exist and fail; bpy has no free-threaded form.
    probe = "import ensurepip, venv, sys, sysconfig; print(sys.version, end=''); " + (
        f"sys.exit(sys.version_info[:2] != ({version.replace('.', ', ')}) or "
        "bool(sysconfig.get_config_var('Py_GIL_DISABLED')))"
    )
    for command in python_candidates(version):
        try:
            done = subprocess.run(
                [*command, "-c", probe], capture_output=True, text=True, check=False
            )
        except OSError:
            continue
        if done.returncode == 0:
            return command, done.stdout
    return None


def default_blender() -> str:
    """The newest Blender that the running Python can hold, else the newest with a Python here."""
    newest_first = list(reversed(BLENDERS))
    running = f"{sys.version_info.major}.{sys.version_info.minor}"
    own = [blender for blender in newest_first if BLENDERS[blender][0] == running]
    return next(
        (blender for blender in own + newest_first if find_python(BLENDERS[blender][0])),
        newest_first[0],
    )


def read_toml(name: str) -> dict[str, Any]:
    import tomllib  # from Python 3.11 on; here, so that an older Python gets as far as main()

    return tomllib.loads((ROOT / name).read_text("utf-8"))


def requirements(*extras: str) -> list[str]:
    """What pyproject.toml asks for, with the named extras."""
    project = read_toml("pyproject.toml")["project"]
    optional = project["optional-dependencies"]
    return [*project["dependencies"], *(name for extra in extras for name in optional[extra])]


def with_blender(blender: str | None = None) -> Path:
    """The Python of the virtual environment for a Blender, made or mended first if need be."""
    default = default_blender()
    blender = blender or default
    version, numpy = (BLENDERS | MORE_BLENDERS)[blender]
    folder = ROOT / (".venv" if blender == default else f".venv-{blender}")
    wanted = [f"bpy=={blender}.*", numpy, *requirements("local", "keychain", "dev")]
    return made(folder, version, wanted, f"Blender {blender} as a module of Python {version}")


def with_ray() -> Path:
    """The Python of an environment with Ray and all that the sidecar needs, without Blender."""
    wanted = requirements("local", "keychain", "dev", "ray")
    return made(ROOT / ".venv-ray", RAY_PYTHON, wanted, f"Ray with Python {RAY_PYTHON}")


def made(folder: Path, version: str, wanted: Sequence[str], what: str) -> Path:
    """The Python of a virtual environment that holds `wanted`; made or mended first if need be."""
    found = find_python(version)
    if found is None:
        raise BuildError(
            f"{what} needs Python {version}, and none was found. Install Python "
            f"{version} (from python.org, your system's packages, pyenv or uv) and try again."
        )
    command, full_version = found
    python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    stamp, mark = folder / "build.stamp", stamp_of([full_version, *wanted])
    if python.exists() and stamp.exists() and stamp.read_text("utf-8") == mark:
        return python

    say(f"Setting up {folder.name}: {what} (1 GB)")
    subprocess.run([*command, "-m", "venv", "--clear", str(folder)], check=True)
    pip_install(python, wanted)
    stamp.write_text(mark, "utf-8")
    return python


def with_engine() -> Path:
    """The environment of `WITH_ENGINE`, with PyTorch for CPUs and what else TRELLIS.2 needs."""
    python = with_blender(WITH_ENGINE)
    wanted = [BLENDERS[WITH_ENGINE][1], *requirements("trellis2")]
    stamp, mark = python.parents[1] / "engine.stamp", stamp_of(wanted)
    if not stamp.exists() or stamp.read_text("utf-8") != mark:
        say("Adding PyTorch for CPUs and TRELLIS.2's libraries (1 GB)")
        # PyTorch by itself, so that nothing else is looked for in its index; then all that it depends on
        torch = next(name for name in wanted if name.startswith("torch"))
        pip_install(python, ["--no-deps", "--extra-index-url", TORCH_FOR_CPUS, torch])
        pip_install(python, wanted)
        stamp.write_text(mark, "utf-8")
    return python


def stamp_of(wanted: Sequence[str]) -> str:
    """What an environment that was made of this is known by."""
    return hashlib.sha256("\n".join(wanted).encode()).hexdigest()


def pip_install(python: Path, wanted: Sequence[str]) -> None:
    """Installs with pip, showing a line for each large download; pip writes errors to stderr itself."""
    command = [str(python), "-m", "pip", "install", "--disable-pip-version-check"]
    command += ["--progress-bar=off", *wanted]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as pip:
        for line in pip.stdout or ():
            if "Downloading " in line and " MB)" in line:
                say("  " + line.strip())
    if pip.returncode:
        raise BuildError("pip could not install what is needed: see its message above.")


def say(text: str) -> None:
    print(text, flush=True)

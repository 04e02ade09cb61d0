# SPDX-License-Identifier: GPL-3.0-or-later
"""The built package, and a bare Blender with an empty profile to install it into."""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]

Blender = Callable[..., Any]

# What Blender brings along besides its own code. Anything else has to come out of the package.
BUNDLED = ["bpy", "numpy", "numpy.libs", "requests", "urllib3", "idna", "certifi"]
BUNDLED += ["charset_normalizer", "zstandard"]
if sys.version_info >= (3, 13):
    BUNDLED += ["cattrs", "attr", "attrs", "typing_extensions.py"]


@pytest.fixture(scope="session")
def build() -> Any:
    """build.py as a module."""
    spec = importlib.util.spec_from_file_location("trellis_build", ROOT / "build.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def package(build: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The extension's zip for this platform, as a release has it."""
    made: Path = build.make_package(Path(sys.executable), tmp_path_factory.mktemp("dist"))
    return made


@pytest.fixture(scope="session")
def bare_python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Python that has bpy and what Blender bundles, and neither our dependencies nor the project."""
    folder = tmp_path_factory.mktemp("bare")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    paths = sysconfig.get_paths("venv", {"base": str(folder), "platbase": str(folder)})
    packages = Path(paths["purelib"])
    for name in BUNDLED:
        source = Path(sysconfig.get_paths()["purelib"], name)
        if source.is_dir():
            link_folder(source, packages / name)
        elif source.is_file():
            shutil.copy(source, packages / name)
    return Path(paths["scripts"], Path(sys.executable).name)


def link_folder(source: Path, target: Path) -> None:
    if sys.platform == "win32":
        import _winapi

        _winapi.CreateJunction(str(source), str(target))  # a symbolic link needs a privilege there
    else:
        target.symlink_to(source, target_is_directory=True)


@pytest.fixture
def blender(bare_python: Path, tmp_path: Path) -> Blender:
    """Runs a script in a new, bare Blender with an empty profile.

    All runs of one test share the profile. The script ends with `report(value)`; that value is
    returned.
    """
    profile, out = tmp_path / "profile", tmp_path / "report.json"
    hidden = ("PYTHONPATH", "TRELLIS_HOME")
    env = {name: value for name, value in os.environ.items() if name not in hidden}
    env["BLENDER_USER_RESOURCES"] = str(profile)
    prelude = (
        "import json, pathlib, sys\n"
        f"def report(value): pathlib.Path({str(out)!r}).write_text(json.dumps(value), 'utf-8')\n"
    )

    def run(script: str, **variables: str) -> Any:
        done = subprocess.run(
            [str(bare_python), "-c", prelude + script],
            cwd=tmp_path,
            env={**env, **variables},
            capture_output=True,
            text=True,
            errors="replace",
            timeout=300,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        value = json.loads(out.read_text("utf-8"))
        out.unlink()
        return value

    return run

# SPDX-License-Identifier: GPL-3.0-or-later
"""The built package, and a bare Blender with an empty profile to install it into."""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import guard
import older
from release import ROOT
from release.package import make, this_platform

Blender = Callable[..., Any]

# What Blender brings along besides its own code. Anything else has to come out of the package.
BUNDLED = ["bpy", "numpy", "numpy.libs", "requests", "urllib3", "idna", "certifi"]
BUNDLED += ["charset_normalizer", "zstandard"]
if sys.version_info >= (3, 13):
    BUNDLED += ["cattrs", "attr", "attrs", "typing_extensions.py"]


@pytest.fixture(scope="session")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The extension's zip for this platform, as a release has it."""
    return make(this_platform(), tmp_path_factory.mktemp("dist"))


@pytest.fixture(scope="session")
def previous(package: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with an older version's number."""
    return older.make(package, tmp_path_factory.mktemp("previous"))


@pytest.fixture(scope="session")
def bare_python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Python that has bpy and what Blender bundles, and neither our dependencies nor the project.

    Nothing that it runs may read the project's sources or reach beyond this computer.
    """
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
    source = str(ROOT / "blender_trellis")
    shutil.copy(guard.__file__, packages)
    # Runs at the start of every Python of this environment, child processes too
    (packages / "sitecustomize.py").write_text(
        f"import guard\nguard.put_up({source!r}, {str(folder / 'forbidden.log')!r})\n", "utf-8"
    )
    return Path(paths["scripts"], Path(sys.executable).name)


def link_folder(source: Path, target: Path) -> None:
    if sys.platform == "win32":
        import _winapi

        _winapi.CreateJunction(str(source), str(target))  # a symbolic link needs a privilege there
    else:
        target.symlink_to(source, target_is_directory=True)


@pytest.fixture
def blender(bare_python: Path, tmp_path: Path) -> Iterator[Blender]:
    """Runs a script in a new, bare Blender.

    All runs of one test share `tmp_path`: the empty `profile`, and the user's own folder `user`, with their temporary files in
    `temporary`. The script ends with `report(value)`; that value is returned.
    """
    out, forbidden = tmp_path / "report.json", bare_python.parents[1] / "forbidden.log"
    hidden = ("PYTHONPATH", "TRELLIS_HOME")
    env = {name: value for name, value in os.environ.items() if name not in hidden}
    env["BLENDER_USER_RESOURCES"] = str(tmp_path / "profile")
    for name in ("HOME", "USERPROFILE"):
        env[name] = str(tmp_path / "user")
    env |= {"XDG_DATA_HOME": str(tmp_path / "user"), "LOCALAPPDATA": str(tmp_path / "user")}
    env |= {name: str(tmp_path / "temporary") for name in ("TMPDIR", "TEMP", "TMP")}
    for name in ("user", "temporary"):
        (tmp_path / name).mkdir()
    prelude = (
        "import json, pathlib, sys\n"
        f"def report(value): pathlib.Path({str(out)!r}).write_text(json.dumps(value), 'utf-8')\n"
    )

    def run(script: str) -> Any:
        done = subprocess.run(
            [str(bare_python), "-c", prelude + script],
            cwd=tmp_path,
            env=env,
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

    yield run
    assert not forbidden.exists(), forbidden.read_text()

# SPDX-License-Identifier: GPL-3.0-or-later
"""The extension's zip for a platform: equal sources and equal wheels give equal bytes, whoever makes it, when and where."""

from __future__ import annotations

import hashlib
import importlib.util
import platform
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterable, Sequence
from pathlib import Path

from . import ROOT, ReleaseError

MANIFEST = "blender_manifest.toml"
NOTICES = "THIRD_PARTY.md"
_KINDS = {".py", ".json", ".txt"}  # of files that the extension consists of


def this_platform() -> str:
    """Blender's name of the computer that this runs on."""
    system = {"win32": "windows", "darwin": "macos"}.get(sys.platform, sys.platform)
    arm = platform.machine().lower() in ("arm64", "aarch64")
    return f"{system}-{'arm64' if arm else 'x64'}"


def version() -> str:
    return str(tomllib.loads((ROOT / MANIFEST).read_text("utf-8"))["version"])


def zip_name(target: str) -> str:
    return f"blender_trellis-{version()}-{target}.zip"


def make(target: str, out: Path) -> Path:
    """Writes the zip for a platform into `out`, and has Blender's own validator look at it.

    Raises:
        ReleaseError: a wheel cannot be had or may not be bundled, a file does not belong into the extension, or Blender
            would refuse the zip.
    """
    from . import licences, wheels

    bundled = wheels.fetch(target)
    contents = sources()
    contents |= {f"wheels/{packed_name(path.name)}": path.read_bytes() for path in bundled}
    contents[NOTICES] = licences.notices(bundled).encode()
    names = [name.removeprefix("wheels/") for name in contents if name.startswith("wheels/")]
    contents[MANIFEST] = filled_manifest(target, sorted(names)).encode()
    out.mkdir(parents=True, exist_ok=True)
    made = out / zip_name(target)
    write_zip(contents, made)
    validate(made)
    return made


def sources() -> dict[str, bytes]:
    """The extension's own files and what they hold, by their names in the zip."""
    contents = {name: (ROOT / name).read_bytes() for name in ("LICENSE", "README.md")}
    for path in (ROOT / "blender_trellis").rglob("*"):
        name = path.relative_to(ROOT / "blender_trellis")
        if path.is_dir() or "__pycache__" in name.parts:
            continue
        if path.suffix not in _KINDS:
            raise ReleaseError(f"{path} does not look like a part of the extension.")
        contents[name.as_posix()] = path.read_bytes()
    return contents


def packed_name(wheel: str) -> str:
    """The wheel's name in the zip.

    Blender 4.2.0 does not look at a wheel's Python and unpacks, of equal versions, the one whose file name sorts last. The build
    tag "0" makes the newer Pythons' wheels sort first; later Blenders choose by the Python tag.
    """
    from .wheels import OLDEST_PYTHON, is_compiled, pin, python_of

    if not is_compiled(wheel) or python_of(wheel) == OLDEST_PYTHON:
        return wheel
    start = len(pin(wheel)) - 1  # "==" stands for one "-"
    return f"{wheel[:start]}-0{wheel[start:]}"


def filled_manifest(target: str, wheels: Sequence[str]) -> str:
    """blender_manifest.toml with the platform and the wheels, which must precede its tables."""
    lines = [f'platforms = ["{target}"]', "wheels = ["]
    lines += [f'  "./wheels/{name}",' for name in wheels]
    before, table, after = (ROOT / MANIFEST).read_text("utf-8").partition("\n[permissions]")
    return before + "\n" + "\n".join([*lines, "]"]) + "\n" + table + after


def write_zip(contents: dict[str, bytes], made: Path) -> None:
    """Nothing is compressed: that differs with zlib's version, and the wheels, nearly all of it, are compressed already."""
    with zipfile.ZipFile(made, "w") as archive:
        for name in sorted(contents):
            entry = zipfile.ZipInfo(name)  # of 1980
            entry.create_system, entry.external_attr = 3, 0o100644 << 16
            archive.writestr(entry, contents[name])


def blenders_tool() -> Path:
    """Blender's own program for extensions, in the bpy of the running Python.

    Raises:
        ReleaseError: there is no bpy.
    """
    found = importlib.util.find_spec("bpy")
    if found is None or found.origin is None:
        raise ReleaseError("Blender's validator is missing, which comes with bpy. Use build.py.")
    return next(Path(found.origin).parent.rglob("addons_core/bl_pkg/cli/blender_ext.py"))


def validate(made: Path) -> None:
    """
    Raises:
        ReleaseError: Blender would refuse this zip.
    """
    command = [sys.executable, str(blenders_tool()), "validate", str(made)]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    if done.returncode:
        raise ReleaseError(f"Blender would refuse {made.name}: {done.stdout}{done.stderr}")


def table(made: Iterable[Path]) -> str:
    """Name, size and SHA-256 of each zip."""
    lines = [
        f"{path.name:45} {path.stat().st_size / 1e6:5.1f} MB  {hashlib.sha256(path.read_bytes()).hexdigest()}"
        for path in made
    ]
    return "\n".join(lines)

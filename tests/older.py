# SPDX-License-Identifier: GPL-3.0-or-later
"""The package as an older version of itself, to update from. Needs the standard library alone: it runs inside Blender, too."""

import re
import zipfile
from pathlib import Path

VERSION = "0.0.9"
_NAMED = {
    "blender_manifest.toml": re.compile(rb'^version = "(.*?)"', re.M),
    "__init__.py": re.compile(rb'^__version__ = "(.*?)"', re.M),
}


def make(package: Path, folder: Path) -> Path:
    """A copy in `folder` of a package, of which only the version's number is another one."""
    made = folder / f"older-{package.name}"
    with zipfile.ZipFile(package) as now, zipfile.ZipFile(made, "w") as older:
        for name in now.namelist():
            content = now.read(name)
            if pattern := _NAMED.get(name):
                found = pattern.search(content)
                assert found, name
                content = content[: found.start(1)] + VERSION.encode() + content[found.end(1) :]
            older.writestr(name, content)
    return made

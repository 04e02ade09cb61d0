# SPDX-License-Identifier: GPL-3.0-or-later
"""The wheels that a package bundles: which ones, by `wheels.toml`; fetched and verified; and under which licences they are.

A wheel's name is "name-version-python-abi-platform.whl".
"""

from __future__ import annotations

import email
import hashlib
import json
import re
import subprocess
import sys
import tempfile
import tomllib
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from packaging.markers import Marker
from packaging.requirements import Requirement
from packaging.utils import NormalizedName, canonicalize_name

from . import ROOT, ReleaseError

LOCK = Path(__file__).with_name("wheels.toml")
CACHE = ROOT / ".wheels"

OLDEST_PYTHON = "3.11"
PYTHONS = (OLDEST_PYTHON, "3.13", "3.14")  # of Blender 4.2 to 5.0, of 5.1 on, and of distributions

PLATFORMS = {  # Blender's name of a platform: pip's names of what runs on it
    "windows-x64": ["win_amd64"],
    "windows-arm64": ["win_arm64"],
    "macos-arm64": ["macosx_11_0_arm64"],
    "macos-x64": ["macosx_11_0_x86_64"],
    "linux-x64": ["manylinux_2_28_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64"],
}

BLENDERS_OWN = {"numpy"}  # a second one would come into the way of Blender's

# They lie in one folder, `jaraco`, which Blender deletes when the version of one of them changes: change all or none.
PINNED = ["jaraco.classes==3.4.0", "jaraco.context==6.1.2", "jaraco.functools==4.6.0"]

_MARKERS = {  # what PEP 508 calls a platform's parts
    "windows": {"os_name": "nt", "sys_platform": "win32", "platform_system": "Windows"},
    "macos": {"os_name": "posix", "sys_platform": "darwin", "platform_system": "Darwin"},
    "linux": {"os_name": "posix", "sys_platform": "linux", "platform_system": "Linux"},
}

# Compatible with GPL-3.0-or-later: gnu.org/licenses/license-list.html
COMPATIBLE = {
    *(
        "0BSD",
        "Apache-2.0",
        "BSD-2-Clause",
        "BSD-3-Clause",
        "HPND",
        "ISC",
        "MIT",
        "MIT-0",
        "MIT-CMU",
    ),
    *("FTL", "IJG", "LLVM-exception", "MPL-2.0", "PSF-2.0", "Unlicense", "X11", "Zlib", "libtiff"),
    *("GPL-3.0-or-later", "LGPL-2.1-or-later", "Unicode-3.0", "Unicode-DFS-2016"),
}
_SPDX = {  # for wheels that name their licence in the ways from before SPDX
    "License :: OSI Approved :: Apache Software License": "Apache-2.0",
    "License :: OSI Approved :: MIT License": "MIT",
    "License :: OSI Approved :: Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
    "License :: OSI Approved :: Python Software Foundation License": "PSF-2.0",
}


@dataclass(frozen=True, order=True)
class Part:
    """What a wheel's own bill of materials names as compiled into it. `licence` is "" where it does not tell."""

    name: str
    version: str
    licence: str


@dataclass(frozen=True)
class Bundled:
    """What a wheel says of itself. `licence` is an SPDX expression, "" if it names none; `texts` are its licence files."""

    name: str
    version: str
    licence: str
    source: str
    texts: tuple[str, ...]
    requires: tuple[Requirement, ...]
    parts: tuple[Part, ...]


def read(wheel: Path) -> Bundled:
    """What the wheel's own metadata and licence files say."""
    with zipfile.ZipFile(wheel) as archive:
        names = sorted(archive.namelist())
        metadata = next(name for name in names if name.endswith(".dist-info/METADATA"))
        said = email.message_from_bytes(archive.read(metadata))
        folder = metadata.removesuffix("METADATA")
        licences = re.compile(
            re.escape(folder) + r"(licenses/.+|[^/]*(LICEN[CS]E|COPYING|NOTICE)[^/]*)", re.I
        )
        texts = [archive.read(name).decode("utf-8") for name in names if licences.fullmatch(name)]
        bills = [archive.read(name) for name in names if re.search(r"/sboms/.+\.json$", name)]
    classified = [_SPDX[line] for line in said.get_all("Classifier", []) if line in _SPDX]
    licence = said["License-Expression"] or " AND ".join(classified) or said["License"] or ""
    return Bundled(
        said["Name"],
        said["Version"],
        licence,
        _source(said.get_all("Project-URL", []), said["Home-page"] or ""),
        tuple(text.strip().replace("\r\n", "\n") for text in texts),
        tuple(Requirement(line) for line in said.get_all("Requires-Dist", [])),
        tuple(
            sorted({part for bill in bills for part in _parts(json.loads(bill), said["Version"])})
        ),
    )


def _parts(bill: dict[str, Any], version: str) -> Iterator[Part]:
    """What a CycloneDX document names (PEP 770, cyclonedx.org), but what only served to build the wheel, and the wheel's own
    modules, which have its `version`."""
    for part in bill.get("components", []):
        if part.get("scope") == "excluded" or part.get("version") == version:
            continue
        terms = [each.get("expression") or each["license"] for each in part.get("licenses", [])]
        named = [each if isinstance(each, str) else each.get("id", "") for each in terms]
        yield Part(part["name"], part.get("version") or "", " AND ".join(named))


def _source(urls: Sequence[str], homepage: str) -> str:
    named = {label.lower(): url for label, _, url in (line.partition(", ") for line in urls)}
    for label in ("source", "source code", "repository", "code", "github", "homepage"):
        if label in named:
            return named[label]
    return homepage


def faults(bundled: Bundled) -> list[str]:
    """Why this may not be bundled with a program under GPL-3.0-or-later."""
    found = []
    if not "".join(bundled.texts):
        found.append(f"{bundled.name} has no licence text")
    if not bundled.licence:
        found.append(f"{bundled.name} names no licence")
    for name, licence in ((bundled.name, bundled.licence), *_licences(bundled)):
        terms = set(re.findall(r"[\w.+-]+", licence)) - {"AND", "OR", "WITH"}
        if terms - COMPATIBLE:
            found.append(f"{name}'s licence is not known to go with the GPL: {licence!r}")
    return found


def _licences(bundled: Bundled) -> Iterator[tuple[str, str]]:
    for part in bundled.parts:
        yield f"{part.name} in {bundled.name}", part.licence


def needs(bundled: Bundled, target: str) -> list[Requirement]:
    """What this needs on a platform in any Blender, but what Blender has itself."""
    environments = [
        {
            **_MARKERS[target.partition("-")[0]],
            **{"python_version": python, "python_full_version": f"{python}.0", "extra": ""},
            **{"implementation_name": "cpython", "platform_python_implementation": "CPython"},
        }
        for python in PYTHONS
    ]
    return [
        requirement
        for requirement in bundled.requires
        if canonicalize_name(requirement.name) not in BLENDERS_OWN
        and any(_holds(requirement.marker, environment) for environment in environments)
    ]


def _holds(marker: Marker | None, environment: dict[str, str]) -> bool:
    return marker is None or marker.evaluate(environment)


# -- The lock --------------------------------------------------------------------------------------


def locked(target: str) -> dict[str, str]:
    """File name and SHA-256 of each wheel for a platform."""
    wheels: dict[str, str] = tomllib.loads(LOCK.read_text("utf-8"))[target]
    return wheels


def fetch(target: str, names: Iterable[str] | None = None, cache: Path = CACHE) -> list[Path]:
    """The platform's wheels, or the named ones of them, in the cache; downloaded where they are not there yet.

    Raises:
        ReleaseError: pip cannot download one, or what it downloads is not what the lock names.
    """
    digests = locked(target)
    wanted = sorted(digests if names is None else names)
    lacking = {name: digests[name] for name in wanted if _digest(cache / name) != digests[name]}
    for python in PYTHONS:
        batch = {name: digest for name, digest in lacking.items() if python_of(name) == python}
        if batch:
            _fetch_batch(target, python, batch, cache)
    return [cache / name for name in wanted]


def _fetch_batch(target: str, python: str, batch: dict[str, str], cache: Path) -> None:
    cache.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache) as scratch:
        listed = Path(scratch, "requirements.txt")
        listed.write_text(
            "".join(f"{pin(name)} --hash=sha256:{digest}\n" for name, digest in batch.items())
        )
        download(target, python, ["--require-hashes", f"--requirement={listed}"], Path(scratch))
        for name, digest in batch.items():
            made = Path(scratch, name)
            if _digest(made) != digest:
                raise ReleaseError(f"What pip downloaded is not the {name} of {LOCK.name}.")
            made.replace(cache / name)


def download(target: str, python: str, wanted: Sequence[str], folder: Path) -> None:
    """Has pip download wheels for a platform and a Python, and nothing that they need.

    Raises:
        ReleaseError: it could not.
    """
    version = python.replace(".", "")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
    command += ["--no-deps", "--only-binary=:all:", f"--python-version={version}"]
    command += ["--implementation=cp", f"--abi=cp{version}", "--abi=abi3", "--abi=none"]
    command += [f"--platform={name}" for name in PLATFORMS[target]]
    if subprocess.call([*command, f"--dest={folder}", *wanted]):
        raise ReleaseError(f"pip could not download the wheels for {target}, Python {python}.")


def pin(wheel: str) -> str:
    name, version = wheel.split("-")[:2]
    return f"{name}=={version}"


def python_of(wheel: str) -> str:
    """The Python that this wheel is for, and the oldest one if it is for all."""
    for python in PYTHONS:
        if f"-cp{python.replace('.', '')}-" in wheel:
            return python
    return OLDEST_PYTHON


def is_compiled(wheel: str) -> bool:
    return not wheel.endswith("-none-any.whl")


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""


# -- Renewing it -----------------------------------------------------------------------------------


def renew() -> None:
    """Writes the lock anew, with the newest versions that fit together.

    pip itself would go by the computer and the Python that it runs on; so here it is asked for one wheel after the other,
    and what each one needs is judged for every platform and Python.
    """
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        chosen = _choose(folder)
        sections = []
        for target in PLATFORMS:
            pins = [pin(path.name) for path in chosen[target] if is_compiled(path.name)]
            for python in PYTHONS:
                download(target, python, pins, folder / target)
            wheels = {path.name: path for path in (folder / target).glob("*.whl")}
            wheels |= {path.name: path for path in chosen[target] if not is_compiled(path.name)}
            lines = [f'"{name}" = "{_digest(path)}"' for name, path in sorted(wheels.items())]
            sections.append("\n".join([f"[{target}]", *lines]))
    head = "# The wheels of each platform's package and their SHA-256. `python build.py lock` writes this."
    LOCK.write_text("\n\n".join([head, *sections]) + "\n", "utf-8", newline="\n")


def _choose(folder: Path) -> dict[str, list[Path]]:
    """For each platform one wheel of everything that it needs; versions are the same on all."""
    wanted = {target: _wishes(target) for target in PLATFORMS}
    found: dict[NormalizedName, Path] = {}
    while True:
        specifiers: dict[NormalizedName, list[str]] = {}
        for requirement in (wish for wishes in wanted.values() for wish in wishes):
            name = canonicalize_name(requirement.name)
            specifiers.setdefault(name, []).append(str(requirement.specifier))
        for name, limits in specifiers.items():
            limit = ",".join(sorted(set(filter(None, limits))))
            place = folder / hashlib.sha256(f"{name}{limit}".encode()).hexdigest()
            if not place.exists():
                download("linux-x64", OLDEST_PYTHON, [name + limit], place)
            found[name] = next(place.glob("*.whl"))
        grown = {
            target: wishes
            + [more for wheel in _of(found, wishes) for more in needs(read(wheel), target)]
            for target, wishes in wanted.items()
        }
        grown = {target: sorted(set(wishes), key=str) for target, wishes in grown.items()}
        if grown == wanted:
            return {target: _of(found, wishes) for target, wishes in wanted.items()}
        wanted = grown


def _of(found: dict[NormalizedName, Path], wishes: Iterable[Requirement]) -> list[Path]:
    return [found[name] for name in sorted({canonicalize_name(wish.name) for wish in wishes})]


def _wishes(target: str) -> list[Requirement]:
    """What the extension itself needs on a platform. On Linux keyring needs compiled packages, so there it is used only
    if the Python that runs Blender has it."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    wanted = [*project["dependencies"], *project["optional-dependencies"]["local"]]
    if not target.startswith("linux"):
        wanted += [*project["optional-dependencies"]["keychain"], *PINNED]
    own = Bundled("", "", "", "", (), tuple(Requirement(line) for line in wanted), ())
    return sorted(needs(own, target), key=str)

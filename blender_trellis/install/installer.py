# SPDX-License-Identifier: GPL-3.0-or-later
"""The whole installation: what is there, what is missing and how large it is, and having it, in an order that fails early.

Before anything is downloaded it is known that the Python will do, that there is room, and that the hub gives out every file.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..errors import AccessError, InputError, StorageError
from ..home import FileLock
from . import Cancelled, Report, Tell, builds, environment, hub, weights
from .weights import File, gigabytes

ENVIRONMENT, WEIGHTS = "environment", "weights"  # the two parts


@dataclass(frozen=True)
class Wish:
    """What the user wants. `only` one of the two parts, "" both; `mirror` in place of the hub; `source` a folder in place of it.

    `offline`: Blender may not go online.
    """

    python: Path | None = None
    device: str | None = None
    resolution: str = "512"
    retexture: bool = False
    without_gate: bool = False
    mirror: str = ""
    source: Path | None = None
    only: str = ""
    offline: bool = False


@dataclass(frozen=True)
class Plan:
    """What is to be done. `note` says why it is this build of PyTorch, where that may surprise."""

    build: builds.Build
    base: environment.Base
    steps: list[environment.Step]
    files: list[File]
    note: str = ""
    linked: bool = False

    @property
    def room(self) -> int:
        """Bytes of free disk to ask for, for the environment."""
        large = any(step.name == "torch" for step in self.steps)
        return self.build.room if large else 0

    @property
    def download(self) -> int:
        """Bytes of the model that are to come from the network."""
        return 0 if self.linked else sum(file.bytes for file in self.files)

    @property
    def licences(self) -> list[str]:
        """Under what the files are given out, one a line."""
        return sorted({f"{file.licence}: {file.licence_url}" for file in self.files})

    def words(self) -> list[str]:
        """All of it for a reader, before it begins."""
        lines = []
        if self.steps:
            lines.append(
                f"PyTorch {builds.TORCH} for {self.build.title}, with Python {self.base.version}: "
                f"needs up to {gigabytes(self.build.room)} of disk"
            )
        if self.note and self.steps:
            lines.append(self.note)
        if self.files:
            exact = all(file.size is not None for file in self.files)
            size = gigabytes(sum(file.bytes for file in self.files))
            how = "taken over" if self.linked else "downloaded"
            lines.append(
                f"{'' if exact else 'About '}{size} of weights in {len(self.files)} files are {how}"
            )
            lines += [f"Licence {line}" for line in self.licences]
        return lines or ["Everything is installed."]


def plan(home: Path, wish: Wish) -> Plan:
    """What is missing of a wish. Asks neither the network nor, beyond its cards, the computer.

    Raises:
        InputError: the Python or the device will not do.
    """
    base = environment.examine(wish.python)
    choice = builds.choose(wish.device, base.platform)
    steps = environment.missing(home, base, choice.build) if wish.only != WEIGHTS else []
    files = weights.wanted(wish.resolution, wish.retexture, wish.without_gate)
    missing = weights.missing(weights.folder(home), files) if wish.only != ENVIRONMENT else []
    return Plan(choice.build, base, steps, missing, choice.why, wish.source is not None)


def install(
    home: Path, wish: Wish, tell: Tell, cancelled: Cancelled, show: Callable[[Plan], None]
) -> Plan:
    """Have what is missing. `show` gets the plan, with the sizes that the hub names, before anything is downloaded.

    Raises:
        InputError: another installation is at work, or the wish cannot be carried out here.
        AccessError: Blender may not go online, or the hub does not give out a file.
        StorageError, UnreachableError, InstallError: it failed; the next call goes on where it stopped.
        CancelledError: `cancelled` said so.
    """
    place = environment.folder(home)
    try:
        place.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(f"{place} cannot be made: {error}.") from error
    lock = FileLock(place / "install.lock")
    if not lock.acquire():
        raise InputError("Another installation is at work: wait for it, or cancel it.")
    with lock:
        made = plan(home, wish)
        _check_access(made, wish)
        endpoint = wish.mirror or hub.endpoint()
        count = len(environment.STEPS) + 2
        if made.files and not made.linked:
            tell(Report("access", 1, count, "Asking for the model"))
            made = replace(made, files=weights.look(made.files, endpoint, cancelled))
        _check_room(home, made)
        show(made)
        if made.steps:
            environment.install(
                home, made.base, made.build, tell=tell, cancelled=cancelled, count=count
            )

        def say(message: str, fraction: float | None) -> None:
            title = "Taking over the model" if made.linked else "Downloading the model"
            tell(Report("weights", count, count, title, message, fraction))

        if made.files and wish.source:
            weights.take_over(weights.folder(home), made.files, wish.source, say, cancelled)
        elif made.files:
            python = environment.python(home) or made.base.path
            weights.download(
                home, python, made.files, endpoint=endpoint, say=say, cancelled=cancelled
            )
        return made


def _check_access(made: Plan, wish: Wish) -> None:
    needs = "the environment" if made.steps else "the model" if made.download else ""
    if wish.offline and needs:
        raise AccessError(
            f"Blender may not go online, and {needs} is to be downloaded. Allow Online Access in its preferences, under System."
        )


def _check_room(home: Path, made: Plan) -> None:
    needed: dict[int, int] = {}  # by disk: the weights may lie on another one
    wanted = ((environment.folder(home), made.room), (weights.folder(home), made.download))
    for place, size in wanted:
        there = next(path for path in (place, *place.parents) if path.exists())
        disk = there.stat().st_dev
        needed[disk] = needed.get(disk, 0) + size
        free = shutil.disk_usage(there).free
        if free < needed[disk]:
            raise StorageError(
                f"There is too little room in {there}: {gigabytes(needed[disk])} are needed, {gigabytes(free)} are free. Make "
                "room, or name another place with TRELLIS_HOME, or for the weights alone with TRELLIS_WEIGHTS."
            )


def uninstall(home: Path, only: str = "") -> None:
    """Delete what was installed, or one part of it. Weights in a folder of the user's own choice stay.

    Raises:
        InputError: an installation is at work.
        StorageError: something cannot be deleted.
    """
    lock = FileLock(environment.folder(home) / "install.lock")
    if not lock.acquire():
        raise InputError("An installation is at work: cancel it first.")
    with lock:
        try:
            if only != WEIGHTS:
                environment.remove(home)
            if only != ENVIRONMENT:
                weights.remove(home)
        except OSError as error:
            raise StorageError(f"Not everything could be deleted: {error}.") from error


@dataclass(frozen=True)
class Status:
    """What is installed. `check` is what the environment's last step found out; `there` and `lacking` are files of the model.

    `ready`: generating at 512 works, as far as files can tell.
    """

    environment: bool
    done: int
    steps: int
    check: dict[str, Any]
    there: list[File]
    lacking: list[File]

    @property
    def ready(self) -> bool:
        lacking = {file.target for file in self.lacking}
        return self.environment and not lacking & {file.target for file in weights.wanted("512")}

    def environment_words(self) -> str:
        if self.environment:
            return f"PyTorch {self.check['torch']} on {self.check['device']} ({self.check['name']})"
        return f"unfinished, {self.done} of {self.steps} steps" if self.done else "not installed"

    def weights_words(self) -> str:
        """Which resolutions have all they need."""
        lacking = {file.target for file in self.lacking}
        lines = []
        for title, chosen in CHOICES.items():
            gone = [file for file in chosen() if file.target in lacking]
            size = sum(file.about for file in gone)
            lines.append(f"{title}: {f'{gigabytes(size)} missing' if gone else 'ready'}")
        return ", ".join(lines)


CHOICES: dict[str, Callable[[], list[File]]] = {
    "512": lambda: weights.wanted("512"),
    "all resolutions": lambda: weights.wanted("all"),
    "retexture": lambda: weights.wanted("512", retexture=True),
}


def status(home: Path) -> Status:
    """What is installed, from the disk alone."""
    files = weights.wanted("all", retexture=True)
    lacking = weights.missing(weights.folder(home), files)
    done, steps = environment.progress_of(home)
    ready = environment.python(home) is not None
    there = [file for file in files if file not in lacking]
    return Status(ready, done, steps, environment.check_of(home), there, lacking)

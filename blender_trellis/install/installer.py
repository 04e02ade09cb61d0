# SPDX-License-Identifier: GPL-3.0-or-later
"""The whole installation: what is there, what is missing and how large it is, and having it, in an order that fails early.

Before anything is downloaded it is known that the Python will do, that there is room, and that the hub gives out every file.
"""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..errors import AccessError, CancelledError, InputError, StorageError, TrellisError
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
    """What is to be done, and in which folder; `free` by folder, of that one and of the weights', in bytes.

    `note` says why it is this build of PyTorch, where that may surprise; `lost` which files cannot be had that are not needed;
    `problem` why nothing can be done at all, which is raised as an error once it has been shown.
    """

    build: builds.Build
    base: environment.Base
    steps: list[environment.Step]
    files: list[File]
    free: dict[Path, int]
    note: str = ""
    linked: bool = False
    lost: tuple[str, ...] = ()
    problem: str = ""

    @property
    def empty(self) -> bool:
        """Whether there is nothing to do."""
        return not self.steps and not self.files

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
        lines = self.environment_words()
        if self.files:
            exact = all(file.size is not None for file in self.files)
            size = gigabytes(sum(file.bytes for file in self.files))
            how = "taken over" if self.linked else "downloaded"
            lines.append(
                f"{'' if exact else 'About '}{size} of weights in {len(self.files)} files are {how}"
            )
            lines += [f"Licence {line}" for line in self.licences]
        if not self.empty:
            lines += self.folder_words()
        return [*lines, *self.lost] or ["Everything is installed."]

    def environment_words(self) -> list[str]:
        """What is to become of the environment; nothing where it is whole."""
        if not self.steps:
            return []
        size = (
            f": needs up to {gigabytes(self.build.room)} of disk"
            if self.room
            else ", to be finished"
        )
        lines = [
            f"PyTorch {builds.TORCH} for {self.build.title}, with Python {self.base.version}{size}",
            f"Licences of the packages: {self.build.licences}",
        ]
        return [*lines, self.note] if self.note else lines

    def folder_words(self) -> list[str]:
        """Where all of it comes to, and how much room there is."""
        return [f"Folder {place}: {gigabytes(free)} are free" for place, free in self.free.items()]


def plan(home: Path, wish: Wish) -> Plan:
    """What is missing of a wish. Asks neither the network nor, beyond its cards, the computer.

    Raises:
        InputError: the Python or the device will not do.
    """
    base = environment.examine(wish.python)
    choice = builds.choose(wish.device, base.platform)
    steps = environment.missing(home, base, choice.build) if wish.only != WEIGHTS else []
    files = weights.wanted(wish.resolution, wish.retexture, wish.without_gate)
    place = weights.folder(home)
    missing = weights.missing(place, files) if wish.only != ENVIRONMENT else []
    folders = [environment.folder(home)]
    if missing and folders[0] not in place.parents:
        folders.append(place)
    free = {folder: shutil.disk_usage(_existing(folder)).free for folder in folders}
    return Plan(choice.build, base, steps, missing, free, choice.why, wish.source is not None)


def _existing(place: Path) -> Path:
    """The folder itself, or the nearest one above it that is there."""
    return next(path for path in (place, *place.parents) if path.exists())


def install(
    home: Path, wish: Wish, tell: Tell, cancelled: Cancelled, show: Callable[[Plan], None]
) -> Plan:
    """Have what is missing; returns the plan as it was carried out.

    `show` gets the plan before anything is downloaded, and may raise to refuse it. Its sizes are those that the hub names, if
    it answers; else it shows why nothing can be done.

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
        count = len(environment.STEPS) + 2
        try:
            _check_access(made, wish)
            if made.steps:
                environment.check_path(place)
            if made.files and not made.linked:
                tell(Report("access", 1, count, "Asking for the model"))
                found, lost = weights.look(made.files, wish.mirror or hub.endpoint(), cancelled)
                made = replace(made, files=found, lost=tuple(lost))
            if made.files and wish.source:
                found, lost = weights.locate(made.files, wish.source)
                made = replace(made, files=found, lost=tuple(lost))
            _check_room(home, made, wish.source)
        except CancelledError:
            raise
        except TrellisError as error:
            show(replace(made, problem=error.message))
            raise
        show(made)
        if made.steps:
            environment.install(
                home, made.base, made.build, tell=tell, cancelled=cancelled, count=count
            )

        def say(message: str, fraction: float | None) -> None:
            title = "Taking over the model" if made.linked else "Downloading the model"
            tell(Report("weights", count, count, title, message, fraction))

        lost = []
        if made.files and wish.source:
            weights.take_over(weights.folder(home), made.files, wish.source, say, cancelled)
        elif made.files:
            python = environment.python(home) or made.base.path
            lost = weights.download(
                home,
                python,
                made.files,
                endpoint=wish.mirror or hub.endpoint(),
                say=say,
                cancelled=cancelled,
            )
        return replace(made, lost=(*made.lost, *lost))


def _check_access(made: Plan, wish: Wish) -> None:
    needs = "the environment" if made.steps else "the model" if made.download else ""
    if wish.offline and needs:
        raise AccessError(
            f"Blender may not go online, and {needs} is to be downloaded. Allow Online Access in its preferences, under System."
        )


def _check_room(home: Path, made: Plan, source: Path | None) -> None:
    needed: dict[int, int] = {}  # by disk: the weights may lie on another one
    place = weights.folder(home)
    come = made.download
    if source and source.stat().st_dev != _existing(place).stat().st_dev:  # no links then
        come = sum(file.bytes for file in made.files)
    wanted = ((environment.folder(home), made.room), (place, come))
    for place, size in wanted:
        there = _existing(place)
        disk = there.stat().st_dev
        needed[disk] = needed.get(disk, 0) + size
        free = shutil.disk_usage(there).free
        if free < needed[disk]:
            raise StorageError(
                f"There is too little room in {there}: {gigabytes(needed[disk])} are needed, {gigabytes(free)} are free. Make "
                "room, or name another place with TRELLIS_HOME, or for the weights alone with TRELLIS_WEIGHTS."
            )


def uninstall(home: Path, only: str = "") -> bool:
    """Delete what was installed, with what the engine kept of earlier jobs, or one part of it; False if there was nothing.

    Weights in a folder of the user's own stay.

    Raises:
        InputError: an installation is at work.
        StorageError: something cannot be deleted.
    """
    if not environment.folder(home).exists():
        return False
    lock = FileLock(environment.folder(home) / "install.lock")
    if not lock.acquire():
        raise InputError("An installation is at work: cancel it first.")
    with lock:
        try:
            gone = only != WEIGHTS and environment.remove(home)
            gone = (only != ENVIRONMENT and weights.remove(home)) or gone
            cache = home / "sidecar" / "cache"
            if not only and cache.exists():
                shutil.rmtree(cache)
        except OSError as error:
            raise StorageError(f"Not everything could be deleted: {error}.") from error
        if not only:
            lock.remove()
            with suppress(OSError):  # something of the user's own is in it
                environment.folder(home).rmdir()
    return gone


def lacking(home: Path, resolution: str = "512", retexture: bool = False) -> str:
    """The part without which the engine makes no model at this resolution, "512" or "all"; "" if nothing is lacking."""
    # Without an environment of its own the engine takes PyTorch from where it runs, if it is there
    if environment.python(home) is None and not importlib.util.find_spec("torch"):
        return ENVIRONMENT
    files = weights.needed(resolution, retexture)
    return WEIGHTS if weights.missing(weights.folder(home), files) else ""


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
        return self.environment and not lacking & {file.target for file in weights.needed("512")}

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
        if not lacking & {file.target for file in weights.needed("512")}:
            lines += [f"{file.what}: missing" for file in self.lacking if file.without]
        return ", ".join(lines)


CHOICES: dict[str, Callable[[], list[File]]] = {
    "512": lambda: weights.needed("512"),
    "all resolutions": lambda: weights.needed("all"),
    "retexture": lambda: weights.needed("512", retexture=True),
}


def status(home: Path) -> Status:
    """What is installed, from the disk alone."""
    files = weights.wanted("all", retexture=True)
    lacking = weights.missing(weights.folder(home), files)
    done, steps = environment.progress_of(home)
    ready = environment.python(home) is not None
    there = [file for file in files if file not in lacking]
    return Status(ready, done, steps, environment.check_of(home), there, lacking)

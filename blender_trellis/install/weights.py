# SPDX-License-Identifier: GPL-3.0-or-later
"""The model's files: which there are (weights.json), which of them are here, and how the others come.

All are at the hub but one, which has an address of its own, and which the engine can do without.

A file that was downloaded or taken over has a record beside it, `<name>.verified`, with its size and SHA-256. One without is
believed if it is whole in itself: somebody may have put it there by hand.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from ..errors import (
    AccessError,
    InputError,
    InstallError,
    StorageError,
    TrellisError,
    UnreachableError,
)
from . import Cancelled, Say, environment, hub, process

RESOLUTIONS = ("512", "all")
_MANIFEST = Path(__file__).with_name("weights.json")
_HEADER_LIMIT = 100 << 20  # what safetensors itself takes for a header
_GATE = "facebook/dinov3-vitl16-pretrain-lvd1689m"


def folder(home: Path) -> Path:
    """Where the weights are: `TRELLIS_WEIGHTS`, or with the engine's other files."""
    return Path(os.environ.get("TRELLIS_WEIGHTS") or environment.folder(home) / "weights")


@dataclass(frozen=True)
class File:
    """One file of the model. `target` is its place in the weights' folder, `about` its size where `size` is not known.

    `without` says what happens where it is not there, and is empty if the engine needs it. `url` is where it is if that is not
    the hub; `where` is the address that it was found at.
    """

    repository: str
    revision: str
    path: str
    target: str
    what: str
    licence: str
    licence_url: str
    about: int
    size: int | None = None
    sha256: str | None = None
    digest: str = ""
    without: str = ""
    url: str = ""
    where: str = ""

    @property
    def bytes(self) -> int:
        return self.about if self.size is None else self.size

    def addresses(self, endpoint: str) -> list[str]:
        """Where it may be had: at the hub or its mirror; or, from elsewhere, under the same path of a mirror, and there."""
        if not self.url:
            return [hub.url(endpoint, self.repository, self.revision, self.path)]
        mirrored = [] if endpoint == hub.ENDPOINT else [endpoint + urlsplit(self.url).path]
        return [*mirrored, self.url]


@cache
def _manifest() -> dict[str, Any]:
    read: dict[str, Any] = json.loads(_MANIFEST.read_text(encoding="utf-8"))
    return read


def ungated() -> str:
    """The repository that has a copy of the gated file for everyone; its licence binds all the same."""
    return str(_manifest()["repositories"][_GATE]["ungated"])


def wanted(resolution: str, retexture: bool = False, without_gate: bool = False) -> list[File]:
    """The files for a choice, "512" or "all" resolutions. `without_gate`: the gated one from where it needs no leave."""
    uses = {resolution, "retexture"} if retexture else {resolution}
    listed = _manifest()["files"]
    return [_file(entry, without_gate) for entry in listed if uses & set(entry["needed_for"])]


def _file(entry: dict[str, Any], without_gate: bool) -> File:
    repository = entry["repository"]
    about = _manifest()["repositories"][repository]
    place, revision = about["folder"], about["revision"]
    if without_gate and "ungated" in about:
        repository = about["ungated"]
        place, revision = repository.replace("/", "--"), "main"
    target = f"{place}/{entry['path']}" if place else entry["path"]
    return File(
        repository,
        revision,
        entry["path"],
        target,
        entry["what"],
        about["licence"],
        about["licence_url"],
        entry["about"] or 0,
        entry["size"],
        entry["sha256"],
        f"sha256:{entry['sha256']}" if entry["sha256"] else "",
        about.get("without", ""),
        f"{about['url']}/{entry['path']}" if "url" in about else "",
    )


def needed(resolution: str, retexture: bool = False) -> list[File]:
    """Those of `wanted` that the engine cannot do without."""
    return [file for file in wanted(resolution, retexture) if not file.without]


# -- What is here ----------------------------------------------------------------------------------


def missing(place: Path, files: Iterable[File]) -> list[File]:
    """Those that are not here, or not whole. Of the gated file any copy will do."""
    return [file for file in files if not _is_here(place, file)]


def _is_here(place: Path, file: File) -> bool:
    return any(_is_whole(place / copy.target, copy.size) for copy in _copies(file))


def _copies(file: File) -> list[File]:
    """The file itself, and where there are copies of it elsewhere, those too; the engine takes any."""
    if file.repository not in (_GATE, ungated()):
        return [file]
    entries = [entry for entry in _manifest()["files"] if entry["repository"] == _GATE]
    both = [_file(entry, without_gate) for entry in entries for without_gate in (False, True)]
    return [copy for copy in both if copy.path == file.path]


def _is_whole(path: Path, expected: int | None) -> bool:
    try:
        size = path.stat().st_size
        recorded = json.loads(hub.record_of(path).read_text(encoding="utf-8"))
        return bool(recorded["size"] == size)
    except (OSError, ValueError, KeyError, TypeError):
        return fault(path, expected) == ""


def fault(path: Path, expected: int | None = None) -> str:
    """What is wrong with a file by its `expected` size, or as far as it tells itself; "" if nothing is. No tensor is read."""
    try:
        if expected is not None:
            return _wrong_size(path.stat().st_size, expected)
        if path.suffix == ".json":
            json.loads(path.read_text(encoding="utf-8"))
            return ""
        with path.open("rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            if not 2 <= length <= _HEADER_LIMIT:
                return "it is no safetensors file"
            header = json.loads(stream.read(length))
        header.pop("__metadata__", None)
        end = max((entry["data_offsets"][1] for entry in header.values()), default=0)
    except OSError as error:
        return str(error)
    except (ValueError, KeyError, TypeError, IndexError, AttributeError):
        return "it is no safetensors file" if path.suffix == ".safetensors" else "it is no JSON"
    return _wrong_size(path.stat().st_size, 8 + length + end)


def _wrong_size(size: int, expected: int) -> str:
    return "" if size == expected else f"it has {size} bytes and should have {expected}"


# -- From the hub ----------------------------------------------------------------------------------


def look(
    files: Iterable[File], endpoint: str, cancelled: Cancelled
) -> tuple[list[File], list[str]]:
    """The files with the sizes and hashes that the hub names, and in words which cannot be had that are not needed.

    Nothing of them is downloaded.

    Raises:
        AccessError: one is gated; the message explains what that is and what to do.
        UnreachableError, InstallError: the hub does not answer, or does not have one.
    """
    found, lost = [], []
    # The gated one first: nobody wants to wait for the others to hear that
    for file in sorted(files, key=lambda file: file.repository != _GATE):
        process.check(cancelled)
        try:
            found.append(_described(file, endpoint))
        except hub.HubError as error:
            if not file.without:
                raise _explained(error.kind, str(error), file, endpoint) from error
            lost.append(_lost(file, str(error)))
    return found, lost


def _described(file: File, endpoint: str) -> File:
    """A file as the first of its addresses describes it that has it.

    Raises:
        HubError: none has; what the last one said.
    """
    *others, last = file.addresses(endpoint)
    for where in others:
        with contextlib.suppress(hub.HubError):
            return _described_at(file, where)
    return _described_at(file, last)


def _described_at(file: File, where: str) -> File:
    remote = hub.look(where, file.revision, "" if file.url else hub.token())
    return replace(
        file,
        size=remote.size if file.size is None else file.size,
        digest=file.digest or remote.digest,
        revision=remote.revision,
        where=where,
    )


def _lost(file: File, why: str) -> str:
    """What is said of a file that is not needed and cannot be had."""
    return (
        f"{file.what} cannot be had: {why.rstrip('.')}. {file.without} Install again to try again."
    )


def download(
    home: Path, python: Path, files: list[File], *, endpoint: str, say: Say, cancelled: Cancelled
) -> list[str]:
    """Download files that `look` has described, in a process of their own; what came stays for the next try.

    Returns in words which did not come that are not needed.

    Raises:
        AccessError, UnreachableError, InstallError, StorageError: it did not work.
        CancelledError: `cancelled` said so.
    """
    place = folder(home)
    place.mkdir(parents=True, exist_ok=True)
    names = ("where", "revision", "target", "size", "digest")
    job = {
        "folder": str(place),
        "files": [
            {name: getattr(file, name) for name in names}
            | {"at_hub": not file.url, "needed": not file.without}
            for file in files
        ],
    }
    by_target = {file.target: file for file in files}
    come = dict.fromkeys(by_target, 0)
    total = sum(file.bytes for file in files)
    failures: list[TrellisError] = []
    lost: list[str] = []
    last = "no word of why"

    def listen(line: str) -> None:
        nonlocal last
        last = line
        if not line.startswith("{"):
            return
        event = json.loads(line)
        file = by_target[event["file"]]
        if event["event"] == "error":
            if file.without:
                lost.append(_lost(file, event["message"]))
            else:
                failures.append(_explained(event["kind"], event["message"], file, endpoint))
            return
        come[file.target] = event["done"]
        done = sum(come.values())
        say(
            f"{file.what}: {gigabytes(done)} of {gigabytes(total)}", done / total if total else None
        )

    command = process.python_command(python, Path(hub.__file__), json.dumps(job))
    code = process.run(command, environment.folder(home) / environment.LOG, listen, cancelled)
    if failures:
        raise failures[0]
    if code:
        raise InstallError(
            f"Downloading the model failed: {last}. Install again to go on from here."
        )
    return lost


def _explained(kind: str, message: str, file: File, endpoint: str) -> TrellisError:
    """What a refusal means for the one who reads it."""
    page = f"{endpoint}/{file.repository}"
    if kind in ("gated", "refused"):
        return AccessError(_gate_words(kind, message, file, page))
    if kind == "unreachable":
        return UnreachableError(
            f"{message} Check the connection and install again: it goes on from here. A mirror (--mirror) or a folder that "
            "has the files (--from) will do as well."
        )
    if kind == "disk":
        return StorageError(
            f"{file.target} cannot be written: {message} Make room and install again."
        )
    if kind == "hash":
        return InstallError(
            f"{file.target} arrived broken, or somebody has changed it: {message} It was deleted. Install again, perhaps from "
            "another mirror."
        )
    return InstallError(f"{message} It should be at {page}. Install a newer version of Trellis.")


def _gate_words(kind: str, message: str, file: File, page: str) -> str:
    if file.repository != _GATE:
        return f"{page} may not be read: {message} Check HF_TOKEN, or name a mirror."
    token = (
        "with a token of that account in the environment variable HF_TOKEN (or log in with the hub's own tool, `hf auth login`)"
        if kind == "gated"
        else "with the account whose token is set now; a request may take a while, or be rejected"
    )
    return (
        f"TRELLIS.2 looks at pictures through DINOv3, which Meta gives out under its own licence ({file.licence_url}) to whoever "
        f"accepts it: {message} Either accept it at {page}, {token}. Or use the copy that needs no leave at "
        f'{ungated()} (--without-gate, in Blender "DINOv3 without Registration"; the same licence binds you). Or name a folder '
        "that has the file (--from)."
    )


# -- From a folder ---------------------------------------------------------------------------------


def locate(files: Iterable[File], source: Path) -> tuple[list[File], list[str]]:
    """Those of the files that a folder has, and in words which it does not have that are not needed.

    `source` may be the weights' folder of another computer, a folder of checkouts by their names, or the hub's own cache.

    Raises:
        InputError: it lacks one that is needed.
    """
    there = {file.target: file for file in files if _find(source, file)}
    gone = [file for file in files if file.target not in there]
    lacking = [file.target for file in gone if not file.without]
    if lacking:
        raise InputError(
            f"{source} lacks {', '.join(lacking[:3])}{' and more' if lacking[3:] else ''}. Choose the folder that holds the "
            "model's files as its repositories have them."
        )
    return list(there.values()), [_lost(file, f"it is not in {source}") for file in gone]


def take_over(
    place: Path, files: Iterable[File], source: Path, say: Say, cancelled: Cancelled
) -> None:
    """Link files that `locate` has found, or copy them where they are on another disk; each is checked.

    Raises:
        InputError: one is broken, or another one than it should be.
        StorageError: the disk does not take one.
    """
    found = [there for file in files if (there := _find(source, file))]
    for number, (copy, path) in enumerate(found):
        say(copy.what, number / len(found))
        if wrong := fault(path, copy.size):
            raise InputError(f"{path} cannot be used: {wrong}.")
        digest = _sha256(path, cancelled)
        if copy.sha256 not in (None, digest):
            raise InputError(
                f"{path} is not the file that {copy.repository} has: its hash differs."
            )
        try:
            _place(path.resolve(), place / copy.target, digest)
        except OSError as error:
            raise StorageError(f"{place / copy.target} cannot be written: {error}.") from error


def _find(source: Path, file: File) -> tuple[File, Path] | None:
    """A copy of a file and where it is in a folder; layouts as in `locate`."""
    for copy in _copies(file):
        owner, name = copy.repository.split("/")
        roots = [source / f"{owner}--{name}", source / owner / name, source / name]
        roots += [source] if source.name == name else []
        for store in (source, source / "hub"):
            snapshots = store / f"models--{owner}--{name}" / "snapshots"
            roots += [snapshots / copy.revision, *sorted(snapshots.glob("*"))]
        for path in (source / copy.target, *(root / copy.path for root in roots)):
            if path.is_file():
                return copy, path
    return None


def _place(path: Path, target: Path, digest: str) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f"{target.name}.part")
    part.unlink(missing_ok=True)
    _link(path, part)
    hub.write_record(target, path.stat().st_size, digest, "")
    part.replace(target)


def _link(path: Path, to: Path) -> None:
    try:
        os.link(path, to)
    except OSError:  # another disk, or one that knows no links
        shutil.copyfile(path, to)


def _sha256(path: Path, cancelled: Cancelled) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while piece := stream.read(1 << 22):
            process.check(cancelled)
            digest.update(piece)
    return digest.hexdigest()


# -- And away --------------------------------------------------------------------------------------


def remove(home: Path) -> bool:
    """Delete the weights; those in a folder of the user's own choice, by `TRELLIS_WEIGHTS`, stay. Whether there were any."""
    own = environment.folder(home) / "weights"
    there = own.exists()
    if there:
        shutil.rmtree(own)
    return there


def gigabytes(size: int) -> str:
    """A size in words, "10.3 GiB", in the unit that file managers and the model's documentation use."""
    return f"{size / 2**30:.1f} GiB"

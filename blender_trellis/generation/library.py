# SPDX-License-Identifier: GPL-3.0-or-later
"""The result library on disk: inputs and models, named by the hash of their content.

A file that is kept is never overwritten, and deleted only with the result that it belongs to, on the user's explicit wish.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import shutil
from collections.abc import Iterable
from pathlib import Path

from ..errors import ImageError, OutputError, StorageError
from ..home import atomic_write, sync

_INPUT = re.compile(r"[0-9a-f]{64}\.(png|glb)")


class Library:
    """Inputs under `home/inputs`, models under `results` (a folder that the user may choose)."""

    def __init__(self, home: Path, results: Path | None = None) -> None:
        self.inputs = home / "inputs"
        self.results = results or home / "results"
        try:
            self.inputs.mkdir(parents=True, exist_ok=True)
            self.results.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise storage_error(error, home) from error

    def keep_input(self, data: bytes, suffix: str = ".png") -> str:
        """Keep a picture or a mesh as it will be sent; returns its name."""
        name = f"{hashlib.sha256(data).hexdigest()}{suffix}"
        path = self.inputs / name
        if not path.exists():
            try:
                with atomic_write(path) as part:
                    part.write_bytes(data)
            except OSError as error:
                raise storage_error(error, path.parent) from error
        return name

    def read_input(self, name: str) -> bytes:
        """What was kept earlier.

        Raises:
            ImageError: somebody took it away, or forbids to read it.
        """
        path = self.inputs / name
        try:
            return path.read_bytes()
        except OSError as error:
            why = error.strerror or error
            raise ImageError(
                f"A file that the model is made of cannot be read: {path}: {why}."
            ) from error

    def part(self, job_id: str, number: int) -> Path:
        """Where a download of result `number` is written until it is whole."""
        return self.results / f".{job_id}-{number}.part"

    def keep(self, part: Path, title: str) -> Path:
        """Give a whole download its lasting name, from `title` and the hash of its content."""
        with part.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        path = self.results / f"{file_name(title)}-{digest[:16]}.glb"
        try:
            sync(part)
            if path.exists():  # the same content: nothing to write, nothing to lose
                part.unlink()
            else:
                part.rename(path)
        except OSError as error:
            raise storage_error(error, path.parent) from error
        return path

    def discard(self, files: Iterable[str], inputs: Iterable[str]) -> None:
        """Delete models, the pictures of them, and inputs. A name that is none of ours stands for what was never kept here: a URL
        or the id of an upload.

        Raises:
            StorageError: one cannot be deleted.
        """
        models = [Path(path) for path in files]
        kept = [self.inputs / name for name in inputs if _INPUT.fullmatch(name)]
        for path in [*models, *map(thumbnail, models), *kept]:
            try:
                path.unlink(missing_ok=True)
            except OSError as error:
                raise StorageError(
                    f"Cannot delete {path}: {error.strerror or error}. Close what uses it, and try again."
                ) from error


def thumbnail(model: Path) -> Path:
    """Where the picture of a kept model lies: beside it."""
    return model.with_suffix(".png")


def file_name(title: str) -> str:
    """`title` as the name of a file, without a suffix: without what some system refuses, and short."""
    name = re.sub(r'[\x00-\x1f<>:"/\\|?*]+', "_", title).strip(" .")[:60] or "model"
    # Windows takes these for devices, whatever the suffix
    return f"_{name}" if re.match(r"(con|prn|aux|nul|(com|lpt)\d)(\.|$)", name, re.I) else name


def storage_error(error: OSError, folder: Path) -> StorageError:
    """The words for a folder that cannot be written."""
    if error.errno == errno.ENOSPC:
        why = "the disk is full. Free some space"
    elif error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        why = "the folder cannot be written. Choose another one"
    else:
        why = f"{error.strerror or error}. Check TRELLIS_HOME, and the results folder in the preferences"
    return StorageError(f"Cannot keep files in {folder}: {why}; nothing that was made is lost.")


def copy_out(source: Path, output: Path) -> None:
    """Copy a kept model to where the user wants it, whole or not at all.

    Raises:
        OutputError: `output` cannot be written.
    """
    try:
        with atomic_write(output) as part:
            shutil.copyfile(source, part)
    except OSError as error:
        raise output_error(error, output) from error


def output_error(error: OSError, output: Path) -> OutputError:
    """The words for an output file that cannot be written."""
    return OutputError(f"Cannot write {output}: {error.strerror or error}. Choose another place.")


def numbered(output: Path, number: int) -> Path:
    """Where one of several results goes: the first one, 0, to `output`, and further ones beside it, as name-2.glb."""
    return output.with_stem(f"{output.stem}-{number + 1}") if number else output


def check_output(output: Path) -> None:
    """Refuse an output that could not be written, before anything is generated or paid.

    Raises:
        OutputError: the suffix is unknown, or the folder is missing or cannot be written.
    """
    if output == Path():
        raise OutputError("The output has no name. Give a path that ends in .glb or .blend.")
    if output.suffix.lower() not in (".glb", ".blend"):
        raise OutputError(f"Cannot write {output}: end its name in .glb or .blend.")
    if output.is_dir():
        raise OutputError(f"Cannot write {output}: it is a folder. Add a file name.")
    folder = output.absolute().parent
    if not folder.is_dir():
        raise OutputError(f"Cannot write {output}: there is no folder {folder}. Make it first.")
    target = output if output.exists() else folder
    if not os.access(target, os.W_OK):
        raise OutputError(f"Cannot write {output}: no permission. Choose another place.")

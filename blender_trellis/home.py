# SPDX-License-Identifier: GPL-3.0-or-later
"""Where the product keeps its files, and the lock that tells whether another process is alive. Standard library only.

A lock is the operating system's: it is gone the moment its process is, however that ended, so no stale one is ever met.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Self

APP = "blender_trellis"


def default_home() -> Path:
    """`TRELLIS_HOME`, or the platform's folder for a user's data."""
    given = os.environ.get("TRELLIS_HOME")
    if given:
        return Path(given)
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Application Support"
    else:
        base = Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share")
    return base / APP


class FileLock:
    """An exclusive lock on a file, held until `release` or the end of the process."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor: int | None = None

    def acquire(self) -> bool:
        """Take the lock if it is free; True when this object holds it now."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            if sys.platform == "win32":
                import msvcrt

                msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
            else:
                import fcntl

                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(descriptor)
            return False
        if not _is_at(self._path, descriptor):  # `remove` came between
            os.close(descriptor)
            return False
        self._descriptor = descriptor
        return True

    def release(self) -> None:
        """Give the lock back. The file stays."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def remove(self) -> None:
        """Give the lock back and delete its file, of whoever holds it."""
        if sys.platform == "win32":  # as in `_is_at`
            self.release()
        with suppress(OSError):
            self._path.unlink()
        self.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.release()


def _is_at(path: Path, descriptor: int) -> bool:
    """Whether an open file is the one at `path`: if not, who comes next would lock another one."""
    if sys.platform == "win32":  # where no file goes that is open
        return True
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False


@contextmanager
def atomic_write(path: Path, mode: int = 0o644) -> Iterator[Path]:
    """A `.part` beside `path` to write to; it becomes `path` if the block succeeds and goes if it fails."""
    import secrets  # here, since enabling the extension loads this module

    part = path.with_name(f"{path.name}.{secrets.token_hex(4)}.part")
    try:
        os.close(os.open(part, os.O_CREAT | os.O_TRUNC | os.O_WRONLY, mode))
        yield part
        sync(part)
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def sync(path: Path) -> None:
    """Wait until what was written to `path` is on the disk."""
    descriptor = os.open(path, os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

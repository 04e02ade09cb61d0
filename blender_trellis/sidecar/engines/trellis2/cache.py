# SPDX-License-Identifier: GPL-3.0-or-later
"""What stages made, kept on the disk: a job that differs from an earlier one in a late stage begins at that stage."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import numpy.typing as npt

from ....home import atomic_write

_log = logging.getLogger(__name__)

LIMIT = 8 * 2**30
"""Bytes that all of it may take; what was not used for longest goes first. A decoded model of 1024 has some 300 MB."""

Arrays = dict[str, npt.NDArray[Any]]


def key(*parts: Any) -> str:
    """A name for what `parts` (of JSON's types, tuples, or bytes) determine."""
    digest = hashlib.sha256()
    for part in parts:
        data = part if isinstance(part, bytes) else json.dumps(part, sort_keys=True).encode()
        digest.update(len(data).to_bytes(8, "little") + data)
    return digest.hexdigest()


class Cache:
    """Arrays by key, in a folder. That it fails, for want of space for one, is no failure of the job."""

    def __init__(self, folder: Path, limit: int = LIMIT) -> None:
        self._folder = folder
        self._limit = limit

    def load(self, name: str) -> Arrays | None:
        """What was kept under that key; None if it is not there, or no longer whole."""
        path = self._path(name)
        try:
            # numpy does not close a file that it opened and cannot read
            with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
                arrays = {each: archive[each] for each in archive.files}
            os.utime(path)
        except FileNotFoundError:
            return None
        except (OSError, ValueError, EOFError, KeyError, BadZipFile) as error:
            _log.warning("%s cannot be used again: %s", path, error)
            return None
        return arrays

    def save(self, name: str, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
        """Keep arrays under a key, and let go of the oldest ones beyond the limit."""
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            with atomic_write(self._path(name), 0o600) as part, part.open("wb") as file:
                np.savez(file, **arrays)
            self._shrink()
        except OSError as error:
            _log.warning("a stage's output cannot be kept: %s", error)

    def _path(self, name: str) -> Path:
        return self._folder / f"{name}.npz"

    def _shrink(self) -> None:
        files = [(path, path.stat()) for path in self._folder.iterdir()]
        total = sum(state.st_size for _, state in files)
        for path, state in sorted(files, key=lambda each: each[1].st_mtime):
            if total <= self._limit:
                break
            path.unlink(missing_ok=True)
            total -= state.st_size

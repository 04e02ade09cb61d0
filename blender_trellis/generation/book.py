# SPDX-License-Identifier: GPL-3.0-or-later
"""A batch's folder: which batch it is, and the file with its lines of results."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from ..errors import InputError
from ..home import FileLock, atomic_write
from .job import ENDED, Job, State
from .library import storage_error
from .rows import IDENTITY, Row


class Line(NamedTuple):
    """What is kept in mind of a line of results."""

    state: State
    job_id: str | None
    cost: float


class Book:
    """A batch's folder: whose it is, and its lines of results, at most one for each row.

    One process at a time may have it open. A line is on the disk when `write` returns.
    """

    def __init__(self, folder: Path, home: Path) -> None:
        self.folder = folder.absolute()
        self.results = self.folder / "results.jsonl"
        self.id = ""
        self.lines: dict[str, Line] = {}
        self._home = home.absolute()
        self._identity = self.folder / IDENTITY
        name = hashlib.sha256(str(self.folder.resolve()).encode()).hexdigest()[:16]
        self._lock = FileLock(home / "batches" / name)
        try:
            if not self._lock.acquire():
                raise InputError(
                    f"Another Blender or command is making the batch in {folder}. Wait for it."
                )
            if self._identity.exists():
                self._open()
        except BaseException as error:
            self.close()
            if isinstance(error, OSError):
                raise storage_error(error, folder) from error
            raise

    def _open(self) -> None:
        """Take up what an earlier run left."""
        try:
            known = json.loads(self._identity.read_bytes())
            self.id, home = str(known["id"]), Path(known["home"])
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(
                f"{self._identity} is damaged: {error}. Give another folder."
            ) from error
        if home != self._home:
            raise InputError(
                f"The batch in {self.folder} was begun with the journal in {home}. The one in {self._home} does not know "
                "what was sent. Set TRELLIS_HOME to the former, or give another folder."
            )
        if self.results.exists():
            self._cut_off()
            self._learn()

    def begin(self) -> None:
        """Make the folder what it is, if it is not yet."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            if not self.id:
                self.id = str(uuid.uuid4())
                with atomic_write(self._identity) as part:
                    known = {"id": self.id, "home": str(self._home)}
                    part.write_text(json.dumps(known), encoding="utf-8")
            self.results.touch()
        except OSError as error:
            raise storage_error(error, self.folder) from error

    def _cut_off(self) -> None:
        """Remove a last line that was not finished: the journal knows what it was about to say."""
        with self.results.open("r+b") as file:
            end = file.seek(0, os.SEEK_END)
            while end:
                file.seek(end - 1)
                if file.read(1) == b"\n":
                    break
                end -= 1
            file.truncate(end)

    def _read(self) -> Iterator[tuple[str, dict[str, Any]]]:
        with self.results.open(encoding="utf-8", errors="replace") as file:
            for number, text in enumerate(file, 1):
                try:
                    line = json.loads(text)
                    State(line["state"])
                    yield str(line["output"]), line
                except (ValueError, KeyError, TypeError) as error:
                    raise InputError(
                        f"Line {number} of {self.results} is none of a batch's. Move the file away: it is written anew."
                    ) from error

    def _learn(self) -> None:
        self.lines = {output: _in_short(line) for output, line in self._read()}

    def write(self, line: dict[str, Any]) -> None:
        """Add a row's line.

        Raises:
            StorageError: the disk is full.
        """
        try:
            with self.results.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line, ensure_ascii=False) + "\n")
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            with contextlib.suppress(OSError):
                self._cut_off()
            raise storage_error(error, self.folder) from error
        self.lines[line["output"]] = _in_short(line)

    def drop(self, outputs: set[str]) -> None:
        """Take out the lines of rows that are worked on again."""
        if not outputs & self.lines.keys():
            return
        try:
            with atomic_write(self.results) as part, part.open("w", encoding="utf-8") as kept:
                for output, line in self._read():
                    if output not in outputs:
                        kept.write(json.dumps(line, ensure_ascii=False) + "\n")
        except OSError as error:
            raise storage_error(error, self.folder) from error
        self._learn()

    def close(self) -> None:
        """Let others open it."""
        self._lock.release()


def _in_short(line: dict[str, Any]) -> Line:
    return Line(State(line["state"]), line.get("job_id"), amount_of(line.get("cost")))


def amount_of(cost: dict[str, Any] | None) -> float:
    return float(cost["amount"]) if cost else 0.0


def line_of(
    row: Row, state: State, job: Job | None, error: dict[str, Any] | None
) -> dict[str, Any]:
    """What a row's line of results says; docs/batch.md describes it."""
    took = job.ready - job.submitted if job and job.ready and job.submitted else None
    return {
        "row": row.number,
        "output": row.output,
        "state": state,
        "images": [str(given) for given in row.request.images],
        "endpoint": row.request.endpoint,
        "seed": job and job.seed,
        "seconds": took and round(took, 1),
        "cost": job.cost if job and state in ENDED else None,
        "job_id": job and job.id,
        "request_id": job and job.request_id,
        "error": error and {name: error[name] for name in ("kind", "message")},
    }

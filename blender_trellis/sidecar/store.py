# SPDX-License-Identifier: GPL-3.0-or-later
"""The sidecar's jobs on disk: a folder each with `job.json`, `request.json` and, once it is made, `model.glb`.

A job is on the disk before it is acknowledged, and stays until its result is collected or has waited for `KEEP_SECONDS`.
"""

from __future__ import annotations

import json
import logging
import shutil
import time
import uuid
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from ..home import atomic_write

_log = logging.getLogger(__name__)

KEEP_SECONDS = 30 * 24 * 3600  # a model that nobody has collected
KEEP_FAILED_SECONDS = 24 * 3600
MAX_LOSSES = 2  # a job during which the engine's process died twice is what kills it
MAX_STARTS = 3  # and one during which the server itself was killed so often may be what kills that

Status = Literal["IN_QUEUE", "IN_PROGRESS", "COMPLETED"]


@dataclass
class Job:
    """One request and what became of it.

    `starts`: how often it was begun, but for those that the server took back when it was ended; `losses`: how many of them ended
    with the engine's process. `client`: who sent it, by the name of its token. `failure`: the HTTP status and body that its
    result URL answers.
    """

    id: str
    endpoint: str
    created: float
    status: Status = "IN_QUEUE"
    starts: int = 0
    failure: tuple[int, dict[str, Any]] | None = None
    output: dict[str, Any] | None = None
    seconds: float | None = None
    logs: list[dict[str, str]] = field(default_factory=list)
    progress: dict[str, Any] | None = None
    client: str = ""
    losses: int = 0

    def say(self, message: str) -> None:
        """Add a line to the log that the client reads, unless it is the last one already."""
        if self.logs and self.logs[-1]["message"] == message:
            return
        stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        self.logs.append(
            {"message": message, "level": "INFO", "source": "USER", "timestamp": stamp}
        )


class Store:
    """All jobs, in the order they came."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._began, self._ticks = time.time(), time.monotonic()
        self.jobs: dict[str, Job] = {}
        folder.mkdir(parents=True, exist_ok=True)
        for path in folder.iterdir():
            self._load(path)
        self.jobs = dict(sorted(self.jobs.items(), key=lambda item: item[1].created))

    def _load(self, path: Path) -> None:
        try:
            job = Job(**json.loads((path / "job.json").read_text(encoding="utf-8")))
        except FileNotFoundError:
            # Never acknowledged: the process ended while it wrote the folder
            shutil.rmtree(path, ignore_errors=True)
            return
        except (OSError, ValueError, TypeError) as error:
            # Another version's, perhaps, which will know what to do with it
            _log.warning("%s cannot be read and is left alone: %s", path, error)
            return
        if job.status != "COMPLETED":
            job.status = "IN_QUEUE"
        self.jobs[job.id] = job

    def _now(self) -> float:
        """The time of day, as if nobody had set the clock since this began: no job grows old by that."""
        return self._began + time.monotonic() - self._ticks

    def folder(self, job_id: str) -> Path:
        """Where a job's files are."""
        return self._folder / job_id

    def add(self, job_id: str, endpoint: str, body: dict[str, Any], client: str = "") -> Job:
        """Write a new job to the disk.

        Raises:
            OSError: the disk is full or read-only; nothing is left of the job.
        """
        job = Job(str(uuid.UUID(job_id)), endpoint, self._now(), client=client)
        folder = self.folder(job.id)
        folder.mkdir()
        try:
            with atomic_write(folder / "request.json", 0o600) as part:
                part.write_text(json.dumps(body), encoding="utf-8")
            self.save(job)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        self.jobs[job.id] = job
        return job

    def save(self, job: Job) -> None:
        """Write a job's state to the disk."""
        with atomic_write(self.folder(job.id) / "job.json", 0o600) as part:
            part.write_text(json.dumps(asdict(job)), encoding="utf-8")

    def remove(self, job_id: str) -> None:
        """Forget a job and its files."""
        self.jobs.pop(job_id, None)
        shutil.rmtree(self.folder(job_id), ignore_errors=True)

    def remove_old(self) -> None:
        """Forget completed jobs that nobody has collected for a long time."""
        now = self._now()
        for job in [job for job in self.jobs.values() if job.status == "COMPLETED"]:
            if now - job.created > (KEEP_SECONDS if job.output else KEEP_FAILED_SECONDS):
                _log.info("job %s was not collected in time", job.id)
                self.remove(job.id)

# SPDX-License-Identifier: GPL-3.0-or-later
"""Figures for Prometheus: how long stages took, the memory of GPUs, and the text format in which all figures are told.

Source of the format: prometheus.io/docs/instrumenting/exposition_formats.
"""

from __future__ import annotations

import platform
import shutil
import subprocess
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from .store import Job

Samples = Iterable[tuple[Mapping[str, str], float]]
_TOOL_SECONDS = 5
WORKER_STATES = ("busy", "idle", "away")
_STATES = ("in_queue", "in_progress", "completed", "failed")


class Family:
    """One figure, of Prometheus's `kind`, with a sample for each set of labels. A summary's names get their ends from `_end`."""

    def __init__(self, name: str, kind: str, meaning: str, samples: Samples) -> None:
        self._head = f"# HELP trellis_{name} {meaning}\n# TYPE trellis_{name} {kind}\n"
        self._name = f"trellis_{name}"
        self._samples = samples

    def __str__(self) -> str:
        return self._head + "".join(self._line(dict(labels), at) for labels, at in self._samples)

    def _line(self, labels: dict[str, str], value: float) -> str:
        name = self._name + labels.pop("_end", "")
        told = ",".join(f'{key}="{_escaped(text)}"' for key, text in labels.items())
        return f"{name}{{{told}}} {value:.12g}\n" if told else f"{name} {value:.12g}\n"


def _escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


@dataclass(frozen=True)
class Gpu:
    """A graphics card and its memory, in bytes."""

    id: str
    name: str
    machine: str
    used: float
    total: float


def gpus() -> list[Gpu]:
    """This computer's, as NVIDIA's tool knows them; none where there is no such tool, or it does not answer."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return []
    query = [
        tool,
        "--query-gpu=uuid,name,memory.used,memory.total",
        "--format=csv,noheader,nounits",
    ]
    try:
        told = subprocess.run(
            query, capture_output=True, text=True, timeout=_TOOL_SECONDS, check=True
        ).stdout
        rows = [[cell.strip() for cell in line.split(",")] for line in told.splitlines()]
        mib = 2.0**20
        return [
            Gpu(uuid, name, platform.node(), float(used) * mib, float(total) * mib)
            for uuid, name, used, total in rows
        ]
    except (OSError, subprocess.SubprocessError, ValueError):  # "[N/A]" where memory is shared
        return []


def gpu_samples(found: Iterable[Gpu]) -> Samples:
    """A card's memory; one that several tell of counts once."""
    for gpu in {gpu.id: gpu for gpu in found}.values():
        labels: dict[str, Any] = {"gpu": gpu.id, "name": gpu.name, "machine": gpu.machine}
        yield {**labels, "kind": "used"}, gpu.used
        yield {**labels, "kind": "total"}, gpu.total


class Figures:
    """What has happened since the server began: `starts` of jobs, `losses` of workers at work, and how long stages took."""

    def __init__(self) -> None:
        self.starts = self.losses = 0
        self._since: dict[str, tuple[str, float]] = {}  # by job: its stage, and when it came there
        self._took: defaultdict[tuple[str, str], list[float]] = defaultdict(lambda: [0.0, 0.0])

    def reached(self, job: Job, stage: str) -> None:
        """A job is in this stage, or "" when it has ended."""
        now = time.monotonic()
        before, since = self._since.get(job.id, ("", now))
        if stage == before:
            return
        if before:
            took = self._took[job.endpoint, before]
            took[0] += now - since
            took[1] += 1
        if stage:
            self._since[job.id] = stage, now
        else:
            del self._since[job.id]

    def _stage_samples(self) -> Samples:
        for (endpoint, stage), (seconds, count) in sorted(self._took.items()):
            labels = {"endpoint": endpoint, "stage": stage}
            yield {**labels, "_end": "_sum"}, seconds
            yield {**labels, "_end": "_count"}, count

    def text(
        self,
        jobs: Iterable[Job],
        queue: Mapping[str, int],
        workers: Mapping[tuple[str, str], int],
        gpus: Iterable[Gpu],
    ) -> str:
        """All figures; `queue` by environment, `workers` by environment and state."""
        states = Counter("failed" if job.failure else job.status.lower() for job in jobs)
        families = [
            Family(
                "jobs",
                "gauge",
                "Jobs that the server keeps",
                [({"state": state}, states[state]) for state in _STATES],
            ),
            Family(
                "queue_length",
                "gauge",
                "Jobs that wait for a worker",
                [({"environment": name}, count) for name, count in queue.items()],
            ),
            Family(
                "workers",
                "gauge",
                "Workers; one that is away holds no memory",
                [({"environment": name, "state": s}, n) for (name, s), n in workers.items()],
            ),
            Family("job_starts_total", "counter", "Jobs that were begun", [({}, self.starts)]),
            Family("workers_lost_total", "counter", "Workers lost at work", [({}, self.losses)]),
            Family("stage_seconds", "summary", "Time in a stage", self._stage_samples()),
            Family("gpu_memory_bytes", "gauge", "Memory of graphics cards", gpu_samples(gpus)),
        ]
        return "".join(map(str, families))

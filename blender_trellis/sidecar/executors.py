# SPDX-License-Identifier: GPL-3.0-or-later
"""Who carries jobs out: what the server asks of an executor, and the one for this computer, with a worker process for each
Python environment. The one for several computers is `ray_executor`, which is imported only where it is asked for."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from .engines import ENVIRONMENTS, OWN
from .metrics import Gpu, gpus
from .worker import Worker, command


class Place(Protocol):
    """Where one job at a time is carried out; `worker.Worker` is one.

    `stays`: it is kept however long it is idle. `machine`: the computer that it is on, where places differ in that.
    """

    stays: bool
    machine: str

    @property
    def is_there(self) -> bool:
        """Whether it holds memory or a device."""

    async def ready(self) -> None:
        """Until it can take a job. One that broke is mended, or replaced elsewhere, before this returns."""

    def run(self, job_id: str, endpoint: str, folder: Path) -> AsyncGenerator[dict[str, Any], None]:
        """The events of one job. The last is `done`, with the model in `folder`, or `failed`; or, with the reason, `why`: `died`
        when the engine's process ended, `lost` when the `machine` failed."""

    def cancel(self, job_id: str) -> None:
        """End the job that it runs."""

    async def stop(self) -> None:
        """Give its memory back."""


class Executor(Protocol):
    """All places. The server's queue gives each its next job; where a place is, the executor alone knows."""

    async def open(self) -> None:
        """Begin; nothing else is called before."""

    def places(self, environment: str) -> AsyncIterator[Place]:
        """The places for jobs of one of `engines.ENVIRONMENTS`, each as soon as there is one."""

    def lacking(self, environment: str) -> str:
        """What jobs of an environment wait for while it has no place that could take one, in words; "" where it has one."""

    def about(self) -> dict[str, Any]:
        """What `/health` says of it."""

    async def gpus(self) -> list[Gpu]:
        """The graphics cards, as far as they are known."""

    async def close(self) -> None:
        """End all places."""


class LocalExecutor:
    """A worker process for each environment, on this computer.

    Args:
        home: the folder that holds the sidecar's, and what was installed for TRELLIS.2.
    """

    def __init__(self, home: Path) -> None:
        # The server's own Python starts at once and stays, as Draft takes no longer than a start
        self._workers = {
            environment: Worker(partial(command, environment, home), stays=environment == OWN)
            for environment in ENVIRONMENTS
        }

    async def open(self) -> None:
        for worker in self._workers.values():
            await worker.ready()

    async def places(self, environment: str) -> AsyncIterator[Place]:
        yield self._workers[environment]

    def lacking(self, environment: str) -> str:
        return ""

    def about(self) -> dict[str, Any]:
        return {"executor": "local"}

    async def gpus(self) -> list[Gpu]:
        return await asyncio.to_thread(gpus)

    async def close(self) -> None:
        for worker in self._workers.values():
            await worker.stop()

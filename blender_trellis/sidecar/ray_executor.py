# SPDX-License-Identifier: GPL-3.0-or-later
"""Jobs on the machines of a Ray cluster. Imported only where it is asked for: the extension does not bring Ray.

Each place is an actor that declares what it needs, a GPU, or a CPU for the engine that uses none; Ray's scheduler puts it on a
machine. The actor keeps one of this computer's worker processes: an engine that crashes does not take the actor with it, and the
weights stay loaded from job to job. Pictures go and models come through Ray's object store.
"""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
from collections.abc import AsyncGenerator, AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any

import ray
from ray._private.state import state as _cluster
from ray.exceptions import RayError

from ..home import atomic_write, default_home
from .engines import ENVIRONMENTS, OWN
from .executors import Place
from .metrics import Gpu, gpus
from .worker import Worker, command

LOOK_SECONDS = 2.0  # between two looks at which machines there are
_RETRY_SECONDS = 1.0
_GPU_SECONDS = 8
_log = logging.getLogger(__name__)


class _Actor:
    """On a machine of the cluster: one worker process, and a folder for each job while it is at work.

    `home`: the folder of what was installed for TRELLIS.2, and of the cache of stages; None for the machine's own.
    """

    def __init__(self, environment: str, home: str | None) -> None:
        self._home = Path(home) if home else default_home()
        self._worker = Worker(partial(command, environment, self._home), stays=environment == OWN)

    async def ready(self) -> str:
        """The machine's id, once this can take a job."""
        await self._worker.ready()
        return str(ray.get_runtime_context().get_node_id())

    async def run(
        self, job_id: str, endpoint: str, request: bytes
    ) -> AsyncIterator[dict[str, Any]]:
        """The worker's events; the last has the model, as `glb`."""
        folder = self._home / "sidecar" / "at-work" / job_id
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        try:
            (folder / "request.json").write_bytes(request)
            async for event in self._worker.run(job_id, endpoint, folder):
                if event["event"] == "done":
                    event["glb"] = (folder / "model.glb").read_bytes()
                yield event
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    async def gpus(self) -> list[Gpu]:
        """The machine's."""
        return await asyncio.to_thread(gpus)

    async def cancel(self, job_id: str) -> None:
        self._worker.cancel(job_id)


class _Place:
    """An actor, wherever Ray puts it, and another one when that is lost or its machine is to be left."""

    stays = True  # what has a machine of its own need not make room

    def __init__(self, environment: str, home: str | None) -> None:
        needs = {"num_cpus": 1} if environment == OWN else {"num_cpus": 0, "num_gpus": 1}
        self._make = partial(ray.remote(_Actor).options(**needs).remote, environment, home)
        self._actor: Any = None
        self._cancelled: str | None = None
        self._busy = self._leaves = False
        self.machine = ""

    @property
    def is_there(self) -> bool:
        return bool(self.machine)

    async def ready(self) -> None:
        while True:
            try:
                actor = self._actor = self._actor or self._make()
                machine = await actor.ready.remote()
            except RayError as error:
                _log.warning("a place is lost: %s", _said(error))
                await self.stop()
                await asyncio.sleep(_RETRY_SECONDS)
                continue
            if self._actor is actor:  # else it was told to leave meanwhile
                self.machine = machine
                return

    async def run(
        self, job_id: str, endpoint: str, folder: Path
    ) -> AsyncGenerator[dict[str, Any], None]:
        self._busy, actor = True, self._actor
        try:
            request = await asyncio.to_thread((folder / "request.json").read_bytes)
            async for answer in actor.run.remote(job_id, endpoint, request):
                event = await answer
                if event["event"] == "done":
                    await asyncio.to_thread(_keep, folder, event.pop("glb"))
                yield event
        except RayError as error:
            _log.warning("job %s: %s", job_id, _said(error))
            await self.stop()
            if self._cancelled == job_id:
                yield {"id": job_id, "event": "failed", "kind": "cancelled"}
            else:
                yield {"id": job_id, "event": "died", "why": "Its machine left the cluster."}
        finally:
            self._busy = False
            if self._leaves:
                await self.stop()

    def cancel(self, job_id: str) -> None:
        self._cancelled = job_id
        if self._actor is not None:  # else it is lost just now, and the job is not begun again
            self._actor.cancel.remote(job_id)

    async def gpus(self) -> list[Gpu]:
        """Those of its machine; none while it has no machine, or that does not answer."""
        try:
            async with asyncio.timeout(_GPU_SECONDS):
                return list(await self._actor.gpus.remote()) if self.is_there else []
        except (RayError, TimeoutError):
            return []

    async def leave(self) -> None:
        """Go from this machine, when what runs is done."""
        self._leaves = True
        if not self._busy:
            await self.stop()

    async def stop(self) -> None:
        actor, self._actor, self.machine, self._leaves = self._actor, None, "", False
        if actor is not None:
            ray.kill(actor)


def _resource(environment: str) -> str:
    """What a place of this environment takes of a machine, as Ray calls it."""
    return "CPU" if environment == OWN else "GPU"


def _said(error: RayError) -> str:
    return str(error).strip().partition("\n")[0]


def _keep(folder: Path, glb: bytes) -> None:
    with atomic_write(folder / "model.glb", 0o600) as part:
        part.write_bytes(glb)


class RayExecutor:
    """As many places as the cluster has GPUs, and CPUs for the engine that uses none.

    Args:
        address: of the cluster, as `ray.init` takes it; "auto" for the one that this computer belongs to.
        home: as of `_Actor`.
    """

    def __init__(self, address: str, home: Path | None) -> None:
        self._address = address
        self._home = str(home) if home else None
        self._dashboard = ""
        self._resources: dict[str, float] = {}  # of the whole cluster, when it was last looked at
        self._places: dict[str, list[_Place]] = {each: [] for each in ENVIRONMENTS}

    async def open(self) -> None:
        """Join the cluster; its machines get this package from here, so that all run the same version.

        Raises:
            ConnectionError: there is none.
        """
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        joined = await asyncio.to_thread(
            ray.init,
            self._address,
            runtime_env={"py_modules": [str(Path(__file__).parents[1])]},
            logging_level=logging.WARNING,
            log_to_driver=False,
        )
        self._dashboard = joined.dashboard_url

    async def places(self, environment: str) -> AsyncIterator[Place]:
        """Grows with the cluster. Where it has shrunk, the places that lost their machines wait for another one."""
        mine = self._places[environment]
        while True:
            self._resources = await asyncio.to_thread(ray.cluster_resources)
            while len(mine) < int(self._resources.get(_resource(environment), 0)):
                mine.append(_Place(environment, self._home))
                yield mine[-1]
            # Ray puts nothing new on a machine that is to be emptied, and leaves what is there alone
            leaving = await asyncio.to_thread(_cluster.get_draining_nodes)
            for place in mine:
                if place.machine in leaving:
                    await place.leave()
            await asyncio.sleep(LOOK_SECONDS)

    def lacking(self, environment: str) -> str:
        if not self._resources or any(place.is_there for place in self._places[environment]):
            return ""
        resource = _resource(environment)
        if not self._resources.get(resource):
            return f"Waiting for a machine with a {resource}: the Ray cluster has none"
        return f"Waiting for a machine with a free {resource} in the Ray cluster"

    def about(self) -> dict[str, Any]:
        return {
            "executor": "ray",
            "dashboard": f"http://{self._dashboard}" if self._dashboard else None,
        }

    async def gpus(self) -> list[Gpu]:
        places = [place for each in self._places.values() for place in each]
        told = await asyncio.gather(*(place.gpus() for place in places))
        return [gpu for each in told for gpu in each]

    async def close(self) -> None:
        await asyncio.to_thread(ray.shutdown)

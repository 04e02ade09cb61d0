# SPDX-License-Identifier: GPL-3.0-or-later
"""Jobs on the machines of a Ray cluster. Imported only where it is asked for: the extension does not bring Ray.

Each place is an actor that declares what it needs, a GPU, or a CPU for the engine that uses none; Ray's scheduler puts it on a
machine. The actor keeps one of this computer's worker processes: an engine that crashes does not take the actor with it.
Pictures go and models come through Ray's object store.
"""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import tempfile
import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from platform import node
from typing import Any

import ray
from ray._private.state import state as _cluster
from ray.exceptions import RayError, RayTaskError

from ..home import atomic_write, default_home
from ..install import installer
from .engines import ENVIRONMENTS, OWN
from .engines.stages import EngineError
from .executors import Place
from .metrics import Gpu, gpus
from .worker import Worker, command

LOOK_SECONDS = 2.0  # between two looks at which machines there are
_RETRY_SECONDS = 1.0
_SICK_SECONDS = 30.0  # before a machine that cannot work is tried again
_PROBE = bytes(1 << 20)
_LEFT_SECONDS = 48 * 3600  # no job takes that long
_GPU_SECONDS = 8
_log = logging.getLogger(__name__)


class _Actor:
    """On a machine of the cluster: one worker process, and a folder for each start of a job while that is at work. It has a name
    of its own, since machines may share `home`, and one that was cut off finish a job that another one makes again.

    `home`: the folder of what was installed for TRELLIS.2, and of the cache of stages; None for the machine's own.
    """

    def __init__(self, environment: str, home: str | None) -> None:
        self._environment = environment
        self._home = Path(home) if home else default_home()
        self._folder = self._home / "sidecar" / "at-work"
        self._worker = Worker(partial(command, environment, self._home))
        _sweep(self._folder)

    async def ready(self) -> tuple[str, str]:
        """The machine's id, and why it cannot take a job, in words; "" where it can."""
        return str(ray.get_runtime_context().get_node_id()), await self._trouble()

    async def _trouble(self) -> str:
        try:
            await asyncio.to_thread(_try_writing, self._folder)
            await self._worker.start()
        except OSError as error:
            return f"{node()} cannot write to {self._folder} ({error.strerror or error})"
        except EngineError as error:
            return f"{node()}: {error}"
        if self._environment == OWN:
            return ""
        lacking = await asyncio.to_thread(installer.lacking, self._home)
        return f"{node()}: TRELLIS.2's weights are not installed" if lacking else ""

    async def run(
        self, job_id: str, endpoint: str, request: bytes
    ) -> AsyncIterator[dict[str, Any]]:
        """The worker's events; the last has the model, as `glb`."""
        folder = Path(tempfile.mkdtemp(prefix=f"{job_id}-", dir=self._folder))
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
        self.machine = self.trouble = ""

    @property
    def is_there(self) -> bool:
        return bool(self.machine) and not self.trouble

    async def ready(self) -> None:
        while True:
            try:
                actor = self._actor = self._actor or self._make()
                machine, trouble = await actor.ready.remote()
            except RayError as error:
                _log.warning("a place is lost: %s", _said(error))
                await self.stop()
                await asyncio.sleep(_RETRY_SECONDS)
                continue
            if self._actor is not actor:  # it was told to leave meanwhile
                continue
            if trouble and trouble != self.trouble:
                _log.warning("a place cannot take jobs: %s", trouble)
            self.machine, self.trouble = machine, trouble
            if not trouble:
                return
            await asyncio.sleep(_SICK_SECONDS)

    async def run(
        self, job_id: str, endpoint: str, folder: Path
    ) -> AsyncGenerator[dict[str, Any], None]:
        self._busy, actor, machine = True, self._actor, self.machine
        try:
            request = await asyncio.to_thread((folder / "request.json").read_bytes)
            async for answer in actor.run.remote(job_id, endpoint, request):
                event = await answer
                if event["event"] == "done":
                    await asyncio.to_thread(_keep, folder, event.pop("glb"))
                yield event
        except RayTaskError as error:
            # The actor lives; whether it can take jobs, `ready` finds out
            reason = str(error.cause).partition("\n")[0]
            _log.warning("job %s: %s", job_id, reason)
            yield self._lost(job_id, machine, f"Its machine could not work on it: {reason}.")
        except RayError as error:
            _log.warning("job %s: %s", job_id, _said(error))
            await self.stop()
            why = "Its machine left the cluster, or its process there ended."
            yield self._lost(job_id, machine, why)
        finally:
            self._busy = False
            if self._leaves:
                await self.stop()

    def _lost(self, job_id: str, machine: str, why: str) -> dict[str, Any]:
        if self._cancelled == job_id:
            return {"id": job_id, "event": "failed", "kind": "cancelled"}
        return {"id": job_id, "event": "lost", "machine": machine, "why": why}

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
        actor, self._actor = self._actor, None
        self.machine = self.trouble = ""
        self._leaves = False
        if actor is not None:
            ray.kill(actor)


def _resource(environment: str) -> str:
    """What a place of this environment takes of a machine, as Ray calls it."""
    return "CPU" if environment == OWN else "GPU"


def _leaving_or_lost() -> set[str]:
    """The ids of the machines that are to be emptied, and of those that are dead."""
    return {*_cluster.get_draining_nodes()} | {
        machine["NodeID"] for machine in ray.nodes() if not machine["Alive"]
    }


def _said(error: RayError) -> str:
    return str(error).strip().partition("\n")[0]


def _sweep(folder: Path) -> None:
    """Remove what machines left that were cut off or switched off; others may be at work in the rest."""
    oldest = time.time() - _LEFT_SECONDS
    with suppress(OSError):
        for left in folder.iterdir():
            if left.stat().st_mtime < oldest:
                shutil.rmtree(left, ignore_errors=True)


def _try_writing(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder) as probe:
        probe.write(_PROBE)
        probe.flush()


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
            # Ray puts nothing new on a machine that is to be emptied, and leaves what is there alone. Of the loss of a machine
            # only who waits for its answer hears.
            gone = await asyncio.to_thread(_leaving_or_lost)
            for place in mine:
                if place.machine in gone:
                    await place.leave()
            await asyncio.sleep(LOOK_SECONDS)

    def lacking(self, environment: str) -> str:
        if not self._resources or any(place.is_there for place in self._places[environment]):
            return ""
        if trouble := "; ".join(self._troubles(environment)):
            return f"Waiting for a machine that can work: {trouble}"
        resource = _resource(environment)
        if not self._resources.get(resource):
            return f"Waiting for a machine with a {resource}: the Ray cluster has none"
        return f"Waiting for a machine with a free {resource} in the Ray cluster"

    def _troubles(self, *environments: str) -> list[str]:
        """What keeps machines from taking jobs."""
        places = [place for each in environments for place in self._places[each]]
        return sorted({place.trouble for place in places} - {""})

    def about(self) -> dict[str, Any]:
        return {
            "executor": "ray",
            "troubles": self._troubles(*ENVIRONMENTS),
            "dashboard": f"http://{self._dashboard}" if self._dashboard else None,
        }

    async def gpus(self) -> list[Gpu]:
        places = [place for each in self._places.values() for place in each]
        told = await asyncio.gather(*(place.gpus() for place in places))
        return [gpu for each in told for gpu in each]

    async def close(self) -> None:
        await asyncio.to_thread(ray.shutdown)

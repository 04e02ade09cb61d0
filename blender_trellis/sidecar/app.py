# SPDX-License-Identifier: GPL-3.0-or-later
"""The sidecar's HTTP routes: fal's queue protocol, plus /health, /metrics, /unload, /shutdown, and DELETE for a result that was
collected.

Statuses and error bodies are fal's; extra keys (`progress`) are ones that its clients ignore. Who may ask at all is decided in
door.py.
"""

from __future__ import annotations

import asyncio
import base64
import logging
import random
import struct
import time
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Callable, Collection, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any

from fastapi import FastAPI, Header, HTTPException, Request
from fastapi.responses import FileResponse, JSONResponse, PlainTextResponse
from pydantic import ValidationError
from starlette.types import ASGIApp

from .. import __version__
from ..endpoints import get
from ..endpoints.schema import schemas
from .access import OWNER
from .door import Guard
from .engines import ENDPOINTS, ENVIRONMENTS, OWN
from .executors import Executor, Place
from .lanes import Lane
from .metrics import Figures
from .store import MAX_STARTS, Job, Store

_log = logging.getLogger(__name__)

_GLB = "data:model/gltf-binary;base64,"
_PROMETHEUS = "text/plain; version=0.0.4; charset=utf-8"
_CANCELLED = {"detail": "Request cancelled by the client.", "error_type": "client_cancelled"}


class Server:
    """The jobs, the places where they are carried out, and the loops that bring them together."""

    def __init__(
        self, store: Store, executor: Executor, idle_seconds: float, stop: Callable[[], None]
    ) -> None:
        self.store = store
        self._executor = executor
        self._last_call = time.monotonic()
        self._idle_seconds = idle_seconds
        self._stop = stop
        self._lanes = {environment: Lane() for environment in ENVIRONMENTS}
        self._at_work: dict[str, Place] = {}  # by the id of the job
        self._figures = Figures()

    def about(self) -> dict[str, Any]:
        """How many places there are, and what the executor says of itself."""
        return {"workers": sum(len(lane.places) for lane in self._lanes.values())} | (
            self._executor.about()
        )

    async def metrics(self) -> str:
        """All figures, for Prometheus."""
        at_work = list(self._at_work.values())
        workers = Counter(
            (name, "busy" if place in at_work else "idle" if place.is_there else "away")
            for name, lane in self._lanes.items()
            for place in lane.places
        )
        return self._figures.text(
            self.store.jobs.values(),
            queue={name: len(self._waiting(lane)) for name, lane in self._lanes.items()},
            workers=workers,
            gpus=await self._executor.gpus(),
        )

    def called(self) -> None:
        """Somebody is there."""
        self._last_call = time.monotonic()

    def _lane(self, job: Job) -> Lane:
        # A job that another version left may be for an endpoint that this one lacks; the worker will say so
        return self._lanes[ENDPOINTS.get(job.endpoint, OWN)]

    def running(self) -> int:
        """How many jobs are worked on."""
        return len(self._at_work)

    def queued(self) -> list[Job]:
        """Jobs that wait, first come first."""
        return [job for job in self.store.jobs.values() if job.status == "IN_QUEUE"]

    def _waiting(self, lane: Lane) -> list[Job]:
        return [job for job in self.queued() if self._lane(job) is lane]

    def position(self, job: Job) -> int:
        """How many jobs a waiting one has before it."""
        lane = self._lane(job)
        return lane.order(self._waiting(lane)).index(job)

    def submit(self, job_id: str, endpoint: str, body: dict[str, Any], client: str) -> Job:
        """Put a new job on the disk and in the queue."""
        job = self.store.add(job_id, endpoint, body, client)
        self._lane(job).changed.set()
        return job

    def cancel(self, job: Job) -> None:
        """Take a job out of the queue, or have it ended where it is at work."""
        if place := self._at_work.get(job.id):
            place.cancel(job.id)
        else:
            self._complete(job, failure=(499, _CANCELLED))

    async def unload(self) -> bool:
        """End idle places that can be started again, for the memory they hold; True if there was one."""
        there = [place for lane in self._lanes.values() for place in lane.places if place.is_there]
        busy = self._at_work.values()
        idle = [place for place in there if not place.stays and place not in busy]
        for place in idle:
            await place.stop()
        return bool(idle)

    @asynccontextmanager
    async def at_work(self) -> AsyncIterator[None]:
        """Work on jobs, and watch for idleness, as long as the block runs."""
        await self._executor.open()
        lanes = [self._tend(environment, lane) for environment, lane in self._lanes.items()]
        tasks = [asyncio.create_task(work) for work in (*lanes, self._watch())]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self._executor.close()

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(min(self._idle_seconds / 4, 60))
            self.store.remove_old()
            idle = time.monotonic() - self._last_call
            if idle > self._idle_seconds and not self.running() and not self.queued():
                _log.info("nobody has called for %.0f s: ending", idle)
                self._stop()

    async def _tend(self, environment: str, lane: Lane) -> None:
        """Put each place to work that the executor has for an environment."""
        async with asyncio.TaskGroup() as works:
            async for place in self._executor.places(environment):
                lane.places.append(place)
                works.create_task(self._work(lane, place))

    async def _work(self, lane: Lane, place: Place) -> None:
        while True:
            await place.ready()
            lane.changed.clear()
            job = lane.take(self._waiting(lane))
            if job is None:
                await lane.wait(place)
                continue
            self._at_work[job.id] = place
            try:
                await self._run(job, place)
            except OSError as error:
                _log.exception("job %s", job.id)
                text = f"The local process cannot write its files: {error}"
                job.status, job.failure = "COMPLETED", (500, {"detail": text})
            finally:
                del self._at_work[job.id]
                lane.changed.set()  # if it is to be started again, this may be another place's turn

    async def _run(self, job: Job, place: Place) -> None:
        if job.starts >= MAX_STARTS:
            self._give_up(job)
            return
        job.status, job.starts = "IN_PROGRESS", job.starts + 1
        self._figures.starts += 1
        self.store.save(job)
        _log.info("job %s: start %d, %s", job.id, job.starts, job.endpoint)
        try:
            async for event in place.run(job.id, job.endpoint, self.store.folder(job.id)):
                self._hear(job, event)
        finally:
            self._figures.reached(job, "")

    def _hear(self, job: Job, event: dict[str, Any]) -> None:
        match event["event"]:
            case "progress":
                job.progress = event["progress"]
                self._figures.reached(job, job.progress["stage"])
                if job.progress["message"] and (
                    not job.logs or job.logs[-1]["message"] != job.progress["message"]
                ):
                    job.say(job.progress["message"])
            case "done":
                file = {"content_type": "model/gltf-binary", "file_name": "model.glb"}
                file["url"] = f"/files/{job.id}/model.glb"
                timings = {"inference": event["seconds"]}
                output = {
                    "model_glb": file | {"file_size": event["bytes"]},
                    "seed": event["seed"],
                    "timings": timings,
                    "notes": event["notes"],
                }
                job.seconds = event["seconds"]
                self._complete(job, output=output)
            case "failed":
                self._complete(job, failure=_failure(event))
            case "died":
                self._figures.losses += 1
                why = event["why"]
                job.say(f"The engine's process ended unexpectedly. {why}")
                if job.starts < MAX_STARTS:
                    job.say("Starting again")
                    job.status = "IN_QUEUE"
                    self.store.save(job)
                else:
                    self._give_up(job, why)

    def _give_up(self, job: Job, why: str = "") -> None:
        """Fail a job during which the process has died too often."""
        text = f"The engine's process ended {job.starts} times during this job. {why}"
        if job.progress:
            text += f" The last it said was: {job.progress['message'] or job.progress['stage']}."
        self._complete(job, failure=(500, {"detail": text, "error_type": "runner_disconnected"}))

    def _complete(
        self,
        job: Job,
        output: dict[str, Any] | None = None,
        failure: tuple[int, dict[str, Any]] | None = None,
    ) -> None:
        job.status, job.output, job.failure = "COMPLETED", output, failure
        self.store.save(job)
        if output:
            _log.info("job %s: done in %.3f s", job.id, job.seconds)
        else:
            _log.info("job %s: failed, %s", job.id, failure)


def _failure(event: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    """HTTP status and body, in fal's shapes, for a job that did not succeed."""
    if event["kind"] == "cancelled":
        return 499, _CANCELLED
    if event["kind"] == "input":
        loc = ["body", event["field"]] if event["field"] else ["body"]
        return 422, {"detail": [{"loc": loc, "msg": event["message"], "type": "value_error"}]}
    return 500, {"detail": event["message"], "error_type": "internal_error"}


def _checked(endpoint: str, body: dict[str, Any]) -> dict[str, Any]:
    """The body with a seed, its values of the types that the endpoint names; 422 in fal's shape for one that it does not take."""
    model = get(endpoint)
    parameters = dict(body)
    urls = parameters.pop(model.image_key, None)
    if not isinstance(urls, list) or not 1 <= len(urls) <= model.max_images:
        raise _refusal(model.image_key, f"give 1 to {model.max_images} pictures")
    if not all(isinstance(url, str) and url.startswith("data:image/") for url in urls):
        raise _refusal(model.image_key, "pictures are taken as data URIs only")
    if model.mesh_key and not _is_glb(parameters.pop(model.mesh_key, None)):
        raise _refusal(model.mesh_key, f"give a whole GLB as a data URI: {_GLB}…")
    try:
        parameters = model.model_validate(parameters).model_dump(by_alias=True, exclude_unset=True)
    except ValidationError as error:
        items = error.errors(include_url=False, include_context=False)
        raise HTTPException(
            422, [{**item, "loc": ["body", *map(str, item["loc"])]} for item in items]
        ) from error
    for name, about in schemas()[endpoint]["properties"].items():
        if about.get("format") == "file-path" and name in parameters:
            path = Path(parameters[name])
            if not (path.is_absolute() and path.is_file()):
                raise _refusal(
                    name,
                    f"there is no file {path} on the computer that computes; give its whole path",
                )
    return {"seed": random.randrange(2**31), **body, **parameters}


def _refusal(name: str, problem: str) -> HTTPException:
    return HTTPException(422, [{"loc": ["body", name], "msg": problem, "type": "value_error"}])


def _is_glb(uri: Any) -> bool:
    """Whether this is a data URI of a GLB, of version 2 and as long as it says; the worker reads what is in it."""
    if not isinstance(uri, str) or not uri.startswith(_GLB):
        return False
    text = uri.removeprefix(_GLB)
    try:
        head = base64.b64decode(text[:16], validate=True)
        magic, version, length = struct.unpack("<4sII", head)
    except (ValueError, struct.error):
        return False
    size = len(text) // 4 * 3 - text[-2:].count("=")
    return (magic, version, length) == (b"glTF", 2, size)


def build(
    server: Server, *, clients: Mapping[str, str], hosts: Collection[str], stop: Callable[[], None]
) -> ASGIApp:
    """The application, for `clients` by their tokens."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with server.at_work():
            yield

    app = FastAPI(
        title="Trellis sidecar",
        version=__version__,
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
    )

    @app.exception_handler(OSError)
    async def disk(_: Request, error: OSError) -> JSONResponse:
        text = f"The local process cannot write its files: {error.strerror}"
        return JSONResponse({"detail": text, "error_type": "internal_error"}, 507)

    _add_house_routes(app, server, stop)
    _add_job_routes(app, server)
    return Guard(app, clients=clients, hosts=hosts, called=server.called)


def _add_house_routes(app: FastAPI, server: Server, stop: Callable[[], None]) -> None:
    """Those about the server itself."""

    def only_the_owner(request: Request) -> None:
        if request.state.client != OWNER:
            raise HTTPException(403, "Only who runs this server may do that.")

    @app.get("/health")
    async def health() -> dict[str, Any]:
        queued, running = len(server.queued()), server.running()
        return {
            "version": __version__,
            "queued": queued,
            "running": running,
            "busy": queued + running > 0,
            **server.about(),
        }

    @app.get("/metrics", response_class=PlainTextResponse)
    async def metrics() -> PlainTextResponse:
        return PlainTextResponse(await server.metrics(), media_type=_PROMETHEUS)

    @app.post("/unload")
    async def unload(request: Request) -> dict[str, bool]:
        only_the_owner(request)
        return {"unloaded": await server.unload()}

    @app.post("/shutdown")
    async def shutdown(request: Request) -> dict[str, str]:
        only_the_owner(request)
        stop()
        return {"status": "OK"}


def _add_job_routes(app: FastAPI, server: Server) -> None:
    """fal's queue protocol."""

    def own(request: Request, job_id: str) -> Job:
        """A job, if whoever asks may know of it."""
        job = server.store.jobs.get(job_id)
        if job is None or request.state.client not in (job.client, OWNER):
            raise _NotFound
        return job

    def find(request: Request, owner: str, name: str, job_id: str) -> Job:
        job = own(request, job_id)
        if job.endpoint.split("/")[:2] != [owner, name]:
            raise _NotFound
        return job

    @app.exception_handler(_NotFound)
    async def not_found(_: Request, error: _NotFound) -> JSONResponse:
        return JSONResponse({"status": "NOT_FOUND"}, 404)

    @app.get("/files/{job_id}/model.glb", response_class=FileResponse)
    async def file(request: Request, job_id: str) -> FileResponse:
        job = own(request, job_id)
        if job.output is None:
            raise _NotFound
        return FileResponse(
            server.store.folder(job.id) / "model.glb", media_type="model/gltf-binary"
        )

    @app.get("/{owner}/{name}/requests/{job_id}/status")
    async def status(
        request: Request, owner: str, name: str, job_id: str, logs: bool = False
    ) -> JSONResponse:
        job = find(request, owner, name, job_id)
        answer = _ticket(request, job) | {"status": job.status, "progress": job.progress}
        answer["logs"] = job.logs if logs else None
        if job.status == "IN_QUEUE":
            answer["queue_position"] = server.position(job)
        if job.status == "COMPLETED":
            answer["metrics"] = {"inference_time": job.seconds}
        return JSONResponse(answer, 200 if job.status == "COMPLETED" else 202)

    @app.get("/{owner}/{name}/requests/{job_id}")
    async def result(request: Request, owner: str, name: str, job_id: str) -> JSONResponse:
        job = find(request, owner, name, job_id)
        headers = {"x-fal-request-id": job.id}
        if job.status != "COMPLETED":
            return JSONResponse({"detail": "Request is still in progress"}, 400, headers)
        if job.output is None:
            code, body = job.failure or (500, {"detail": "Internal Server Error"})
            return JSONResponse(body, code, headers)
        url = str(request.base_url).rstrip("/") + job.output["model_glb"]["url"]
        return JSONResponse(
            job.output | {"model_glb": job.output["model_glb"] | {"url": url}}, 200, headers
        )

    @app.put("/{owner}/{name}/requests/{job_id}/cancel")
    async def cancel(request: Request, owner: str, name: str, job_id: str) -> JSONResponse:
        job = find(request, owner, name, job_id)
        if job.status == "COMPLETED":
            return JSONResponse({"status": "ALREADY_COMPLETED"}, 400)
        server.cancel(job)
        return JSONResponse({"status": "CANCELLATION_REQUESTED"}, 202)

    @app.delete("/{owner}/{name}/requests/{job_id}")
    async def collected(request: Request, owner: str, name: str, job_id: str) -> dict[str, str]:
        job = find(request, owner, name, job_id)
        if job.status != "COMPLETED":
            raise HTTPException(400, "Request is still in progress")
        server.store.remove(job.id)
        return {"status": "OK"}

    @app.post("/{endpoint:path}")
    async def submit(
        request: Request,
        endpoint: str,
        body: dict[str, Any],
        idempotency_key: Annotated[uuid.UUID | None, Header()] = None,
    ) -> JSONResponse:
        if endpoint not in ENDPOINTS:
            raise HTTPException(404, f'Application "{endpoint}" not found')
        job_id = str(idempotency_key or uuid.uuid4())
        if job_id in server.store.jobs:
            job = own(request, job_id)
        else:
            body = _checked(endpoint, body)
            job = server.submit(job_id, endpoint, body, request.state.client)
        answer = _ticket(request, job) | {
            "status": job.status,
            "queue_position": len(server.queued()),
        }
        return JSONResponse(answer, headers={"x-fal-request-id": job.id})


class _NotFound(Exception):
    """There is no such job."""


def _ticket(request: Request, job: Job) -> dict[str, Any]:
    owner, name, *_ = job.endpoint.split("/")
    url = f"{str(request.base_url).rstrip('/')}/{owner}/{name}/requests/{job.id}"
    return {
        "request_id": job.id,
        "response_url": url,
        "status_url": f"{url}/status",
        "cancel_url": f"{url}/cancel",
    }

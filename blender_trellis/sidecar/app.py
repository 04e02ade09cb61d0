# SPDX-License-Identifier: GPL-3.0-or-later
"""The sidecar's HTTP routes: fal's queue protocol, plus /health, /shutdown and DELETE for a result that was collected.

Statuses and error bodies are fal's; extra keys (`progress`) are ones that its clients ignore. The guard in front refuses every
request without the token, with a foreign Host, from a web page (it has an Origin), or with too large or too slow a body.
"""

from __future__ import annotations

import asyncio
import hmac
import logging
import time
import uuid
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager
from typing import Annotated, Any

from fastapi import FastAPI, Header, HTTPException, Request
from fastapi.responses import FileResponse, JSONResponse
from pydantic import ValidationError
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .. import __version__
from ..endpoints import get
from .engines import ENDPOINTS
from .store import MAX_STARTS, Job, Store
from .worker import Worker

_log = logging.getLogger(__name__)

MAX_BODY = 256 * 2**20  # four pictures of 4096×4096 pixels that compress badly
BODY_SECONDS = 60  # between two pieces of a body
_CANCELLED = {"detail": "Request cancelled by the client.", "error_type": "client_cancelled"}


class Guard:
    """ASGI middleware that decides who may ask anything at all."""

    def __init__(
        self, app: ASGIApp, *, token: str, hosts: Collection[str], called: Callable[[], None]
    ) -> None:
        self._app = app
        self._called = called
        self._expected = f"Key {token}".encode()
        self._hosts = {host.encode() for host in hosts}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        refusal = self._refusal(dict(scope["headers"]))
        if refusal:
            code, detail = refusal
            await JSONResponse({"detail": detail}, code)(scope, receive, send)
            return
        self._called()
        await self._app(scope, _limited(receive), send)

    def _refusal(self, headers: dict[bytes, bytes]) -> tuple[int, str] | None:
        if headers.get(b"host", b"") not in self._hosts:
            return 421, "This server is not known by that name."
        if b"origin" in headers:
            return 403, "Web pages may not use this server."
        if not hmac.compare_digest(headers.get(b"authorization", b""), self._expected):
            return 401, "invalid key credentials"
        length = headers.get(b"content-length", b"0")
        if not length.isdigit() or int(length) > MAX_BODY:
            return 413, f"A request may have {MAX_BODY >> 20} MiB at most."
        return None


def _limited(receive: Receive) -> Receive:
    """`receive` that gives up on bodies which are too long or too slow."""
    total = 0

    async def limited() -> Message:
        nonlocal total
        try:
            message = await asyncio.wait_for(receive(), BODY_SECONDS if total else None)
        except TimeoutError as error:
            raise HTTPException(408, "The request's body came too slowly.") from error
        total += len(message.get("body", b""))
        if total > MAX_BODY:
            raise HTTPException(413, f"A request may have {MAX_BODY >> 20} MiB at most.")
        return message

    return limited


class Server:
    """The jobs, the worker, and the loop that brings them together."""

    def __init__(self, store: Store, idle_seconds: float, stop: Callable[[], None]) -> None:
        self.store = store
        self.running: Job | None = None
        self._last_call = time.monotonic()
        self._idle_seconds = idle_seconds
        self._stop = stop
        self._worker = Worker()
        self._changed = asyncio.Event()

    def called(self) -> None:
        """Somebody is there."""
        self._last_call = time.monotonic()

    def queued(self) -> list[Job]:
        """Jobs that wait, first come first."""
        return [job for job in self.store.jobs.values() if job.status == "IN_QUEUE"]

    def submit(self, job_id: str, endpoint: str, body: dict[str, Any]) -> Job:
        """Put a new job on the disk and in the queue."""
        job = self.store.add(job_id, endpoint, body)
        self._changed.set()
        return job

    def cancel(self, job: Job) -> None:
        """Take a job out of the queue, or ask the worker to end it."""
        if job is self.running:
            self._worker.cancel(job.id)
        else:
            self._complete(job, failure=(499, _CANCELLED))

    @asynccontextmanager
    async def at_work(self) -> AsyncIterator[None]:
        """Work on jobs, and watch for idleness, as long as the block runs."""
        await self._worker.start()
        tasks = [asyncio.create_task(self._work()), asyncio.create_task(self._watch())]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self._worker.stop()

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(min(self._idle_seconds / 4, 60))
            self.store.remove_old()
            idle = time.monotonic() - self._last_call
            if idle > self._idle_seconds and not self.running and not self.queued():
                _log.info("nobody has called for %.0f s: ending", idle)
                self._stop()

    async def _work(self) -> None:
        while True:
            self._changed.clear()
            waiting = self.queued()
            if not waiting:
                await self._changed.wait()
                continue
            self.running = waiting[0]
            try:
                await self._run(self.running)
            except OSError as error:
                _log.exception("job %s", self.running.id)
                text = f"The local process cannot write its files: {error}"
                self.running.status, self.running.failure = "COMPLETED", (500, {"detail": text})
            finally:
                self.running = None

    async def _run(self, job: Job) -> None:
        if job.starts >= MAX_STARTS:
            text = f"The engine's process ended {job.starts} times during this job."
            self._complete(
                job, failure=(500, {"detail": text, "error_type": "runner_disconnected"})
            )
            return
        job.status, job.starts = "IN_PROGRESS", job.starts + 1
        self.store.save(job)
        _log.info("job %s: start %d, %s", job.id, job.starts, job.endpoint)
        async for event in self._worker.run(job.id, job.endpoint, self.store.folder(job.id)):
            self._hear(job, event)

    def _hear(self, job: Job, event: dict[str, Any]) -> None:
        match event["event"]:
            case "progress":
                job.progress = event["progress"]
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
                }
                job.seconds = event["seconds"]
                self._complete(job, output=output)
            case "failed":
                self._complete(job, failure=_failure(event))
            case "died":
                job.say("The engine's process ended unexpectedly; starting again.")
                job.status = "IN_QUEUE"
                self.store.save(job)

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


def _validate(endpoint: str, body: dict[str, Any]) -> None:
    """422 in fal's shape for a body that the endpoint does not take."""
    model = get(endpoint)
    body = dict(body)
    urls = body.pop(model.image_key, None)
    problem = None
    if not isinstance(urls, list) or not 1 <= len(urls) <= model.max_images:
        problem = f"give 1 to {model.max_images} pictures"
    elif not all(isinstance(url, str) and url.startswith("data:image/") for url in urls):
        problem = "pictures are taken as data URIs only"
    if problem:
        item = {"loc": ["body", model.image_key], "msg": problem, "type": "value_error"}
        raise HTTPException(422, [item])
    try:
        model.model_validate(body)
    except ValidationError as error:
        items = error.errors(include_url=False, include_context=False)
        raise HTTPException(
            422, [{**item, "loc": ["body", *map(str, item["loc"])]} for item in items]
        ) from error


def build(
    server: Server, *, token: str, hosts: Collection[str], stop: Callable[[], None]
) -> ASGIApp:
    """The application."""

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

    _add_routes(app, server, stop)
    return Guard(app, token=token, hosts=hosts, called=server.called)


def _add_routes(app: FastAPI, server: Server, stop: Callable[[], None]) -> None:
    def find(owner: str, name: str, job_id: str) -> Job:
        job = server.store.jobs.get(job_id)
        if job is None or job.endpoint.split("/")[:2] != [owner, name]:
            raise _NotFound
        return job

    @app.exception_handler(_NotFound)
    async def not_found(_: Request, error: _NotFound) -> JSONResponse:
        return JSONResponse({"status": "NOT_FOUND"}, 404)

    @app.get("/health")
    async def health() -> dict[str, Any]:
        queued = len(server.queued())
        running = int(server.running is not None)
        return {
            "version": __version__,
            "queued": queued,
            "running": running,
            "busy": queued + running > 0,
        }

    @app.post("/shutdown")
    async def shutdown() -> dict[str, str]:
        stop()
        return {"status": "OK"}

    @app.get("/files/{job_id}/model.glb")
    async def file(job_id: str) -> FileResponse:
        job = server.store.jobs.get(job_id)
        if job is None or job.output is None:
            raise _NotFound
        return FileResponse(
            server.store.folder(job.id) / "model.glb", media_type="model/gltf-binary"
        )

    @app.get("/{owner}/{name}/requests/{job_id}/status")
    async def status(
        request: Request, owner: str, name: str, job_id: str, logs: bool = False
    ) -> JSONResponse:
        job = find(owner, name, job_id)
        answer = _ticket(request, job) | {"status": job.status, "progress": job.progress}
        answer["logs"] = job.logs if logs else None
        if job.status == "IN_QUEUE":
            answer["queue_position"] = server.queued().index(job)
        if job.status == "COMPLETED":
            answer["metrics"] = {"inference_time": job.seconds}
        return JSONResponse(answer, 200 if job.status == "COMPLETED" else 202)

    @app.get("/{owner}/{name}/requests/{job_id}")
    async def result(request: Request, owner: str, name: str, job_id: str) -> JSONResponse:
        job = find(owner, name, job_id)
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
    async def cancel(owner: str, name: str, job_id: str) -> JSONResponse:
        job = find(owner, name, job_id)
        if job.status == "COMPLETED":
            return JSONResponse({"status": "ALREADY_COMPLETED"}, 400)
        server.cancel(job)
        return JSONResponse({"status": "CANCELLATION_REQUESTED"}, 202)

    @app.delete("/{owner}/{name}/requests/{job_id}")
    async def collected(owner: str, name: str, job_id: str) -> dict[str, str]:
        job = find(owner, name, job_id)
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
        job = server.store.jobs.get(str(idempotency_key))
        if job is None:
            _validate(endpoint, body)
            job = server.submit(str(idempotency_key or uuid.uuid4()), endpoint, body)
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

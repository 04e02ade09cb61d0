# SPDX-License-Identifier: GPL-3.0-or-later
"""The sidecar's HTTP routes: fal's queue protocol, plus /health, /metrics, /unload, /shutdown, and DELETE for a result that was
collected.

Statuses and error bodies are fal's; extra keys (`progress`, `waits_for`) are ones that its clients ignore. Who may ask at all is
decided in door.py.
"""

from __future__ import annotations

import base64
import random
import struct
import uuid
from collections.abc import AsyncIterator, Callable, Collection, Mapping
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Annotated, Any

from fastapi import FastAPI, Header, HTTPException, Request, Security
from fastapi.responses import FileResponse, JSONResponse, PlainTextResponse
from pydantic import ValidationError
from pydantic.json_schema import SkipJsonSchema
from starlette.types import ASGIApp

from .. import __version__
from ..endpoints import get
from ..endpoints.schema import schemas
from . import document
from .access import OWNER
from .door import Guard
from .engines import ENDPOINTS
from .server import Server
from .store import Job

_PROMETHEUS = "text/plain; version=0.0.4; charset=utf-8"


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
        raise _refusal(model.mesh_key, f"give a whole GLB as a data URI: {document.GLB}…")
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
    if not isinstance(uri, str) or not uri.startswith(document.GLB):
        return False
    text = uri.removeprefix(document.GLB)
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
        # For the document alone: the Guard has looked at the key already
        dependencies=[Security(document.KEY)],
        responses=document.REFUSALS,
        docs_url=None,
        redoc_url=None,
    )

    @app.exception_handler(OSError)
    async def disk(_: Request, error: OSError) -> JSONResponse:
        text = f"The local process cannot write its files: {error.strerror}"
        return JSONResponse({"detail": text, "error_type": "internal_error"}, 507)

    @app.exception_handler(_NotFound)
    async def not_found(_: Request, error: _NotFound) -> JSONResponse:
        return JSONResponse({"status": "NOT_FOUND"}, 404)

    _add_house_routes(app, server, stop)
    _add_job_routes(app, server)
    _add_endpoints(app, server)
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
            "waits_for": server.all_lacking(),
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

    def find(request: Request, owner: str, name: str, job_id: str) -> Job:
        job = _own(server, request, job_id)
        if job.endpoint.split("/")[:2] != [owner, name]:
            raise _NotFound
        return job

    @app.get(
        "/files/{job_id}/model.glb",
        response_class=FileResponse,
        responses={200: {"content": {"model/gltf-binary": {}}}, **document.NO_JOB},
    )
    async def file(request: Request, job_id: str) -> FileResponse:
        job = _own(server, request, job_id)
        if job.output is None:
            raise _NotFound
        return FileResponse(
            server.store.folder(job.id) / "model.glb", media_type="model/gltf-binary"
        )

    @app.get(
        "/{owner}/{name}/requests/{job_id}/status", responses=document.ACCEPTED | document.NO_JOB
    )
    async def status(
        request: Request, owner: str, name: str, job_id: str, logs: bool = False
    ) -> JSONResponse:
        job = find(request, owner, name, job_id)
        answer = _ticket(request, job) | {"status": job.status, "progress": job.progress}
        if job.status == "IN_QUEUE":
            answer |= {"queue_position": server.position(job), "waits_for": server.lacking(job)}
        answer["logs"] = job.logs if logs else None
        if job.status == "COMPLETED":
            answer["metrics"] = {"inference_time": job.seconds}
        return JSONResponse(answer, 200 if job.status == "COMPLETED" else 202)

    @app.get(
        "/{owner}/{name}/requests/{job_id}",
        responses=document.NOT_NOW | document.NO_JOB | document.FAILED,
    )
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

    @app.put(
        "/{owner}/{name}/requests/{job_id}/cancel",
        responses=document.ACCEPTED | document.NOT_NOW | document.NO_JOB,
    )
    async def cancel(request: Request, owner: str, name: str, job_id: str) -> JSONResponse:
        job = find(request, owner, name, job_id)
        if job.status == "COMPLETED":
            return JSONResponse({"status": "ALREADY_COMPLETED"}, 400)
        server.cancel(job)
        return JSONResponse({"status": "CANCELLATION_REQUESTED"}, 202)

    @app.delete("/{owner}/{name}/requests/{job_id}", responses=document.NOT_NOW | document.NO_JOB)
    async def collected(request: Request, owner: str, name: str, job_id: str) -> dict[str, str]:
        job = find(request, owner, name, job_id)
        if job.status != "COMPLETED":
            raise HTTPException(400, "Request is still in progress")
        server.store.remove(job.id)
        return {"status": "OK"}


def _add_endpoints(app: FastAPI, server: Server) -> None:
    """Where a job of each endpoint is asked for."""

    async def submit(
        endpoint: str,
        request: Request,
        body: dict[str, Any],
        idempotency_key: Annotated[uuid.UUID | SkipJsonSchema[None], Header()] = None,
    ) -> JSONResponse:
        job_id = str(idempotency_key or uuid.uuid4())
        if job_id in server.store.jobs:
            job = _own(server, request, job_id)
        else:
            body = _checked(endpoint, body)
            job = server.submit(job_id, endpoint, body, request.state.client)
        answer = _ticket(request, job) | {
            "status": job.status,
            "queue_position": server.position(job),
        }
        return JSONResponse(answer, headers={"x-fal-request-id": job.id})

    for endpoint in ENDPOINTS:
        described = app.post(
            f"/{endpoint}",
            responses=document.NO_JSON | document.NO_JOB,
            openapi_extra=document.body_of(endpoint),
        )
        described(partial(submit, endpoint))

    @app.post("/{endpoint:path}", include_in_schema=False)
    async def unknown(endpoint: str) -> None:
        raise HTTPException(404, f'Application "{endpoint}" not found')


class _NotFound(Exception):
    """There is no such job."""


def _own(server: Server, request: Request, job_id: str) -> Job:
    """A job, if whoever asks may know of it."""
    job = server.store.jobs.get(job_id)
    if job is None or request.state.client not in (job.client, OWNER):
        raise _NotFound
    return job


def _ticket(request: Request, job: Job) -> dict[str, Any]:
    owner, name, *_ = job.endpoint.split("/")
    url = f"{str(request.base_url).rstrip('/')}/{owner}/{name}/requests/{job.id}"
    return {
        "request_id": job.id,
        "response_url": url,
        "status_url": f"{url}/status",
        "cancel_url": f"{url}/cancel",
    }

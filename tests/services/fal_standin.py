# SPDX-License-Identifier: GPL-3.0-or-later
"""A stand-in of fal: queue, storage, platform API, uploads and files, as fal documents them and its own clients rely on.

How the jobs to come go is said by `FalStandIn.script`. Jobs move on with the status questions, never with time.
Accepted inputs are a table of this file, made from fal's documentation and independent of the product's own endpoints. Faults of
the connection (a dropped reply, a proxy's 502, a locked account) are no part of this: put `gate.Gate` in front of a host.
"""

from __future__ import annotations

import base64
import binascii
import io
import json
import math
import struct
import uuid
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Literal
from urllib.parse import quote

from PIL import Image

from services.standin import Call, Reply, StandIn

KEY = "11111111-2222-3333-4444-555555555555:0123456789abcdef"
ADMIN_KEY = "99999999-8888-7777-6666-555555555555:fedcba9876543210"

QUEUED, RUNNING, DONE, REMOVED = "IN_QUEUE", "IN_PROGRESS", "COMPLETED", "REMOVED"
EXTRA = {"gateway_request_id": "0f0f0f0f", "added_later": {"by": "fal"}}
_HISTORY_PAGE = 50


# What the endpoints take ------------------------------------------------------------------------------------------------


class Wrong(Exception):
    """One entry of an error's `detail`, without its place."""

    def __init__(self, kind: str, message: str, **ctx: Any) -> None:
        super().__init__(message)
        self.kind, self.message, self.ctx = kind, message, ctx


Check = Callable[[Any], None]
Place = tuple[str | int, ...]
Problem = tuple[Place, Any, Wrong]  # where, the value there, and what is wrong with it


def _number(low: float | None = None, high: float | None = None, *, whole: bool = False) -> Check:
    name, kind = ("integer", "int") if whole else ("number", "float")

    def check(value: Any) -> None:
        try:
            number = math.nan if isinstance(value, bool) else float(value)
        except (TypeError, ValueError):
            number = math.nan
        if not math.isfinite(number) or (whole and number != int(number)):
            raise Wrong(f"{kind}_parsing", f"Input should be a valid {name}")
        if low is not None and number < low:
            text = f"Input should be greater than or equal to {low}"
            raise Wrong("greater_than_equal", text, ge=low)
        if high is not None and number > high:
            raise Wrong("less_than_equal", f"Input should be less than or equal to {high}", le=high)

    return check


def _one_of(*values: int | str) -> Check:
    def check(value: Any) -> None:
        # Older official types say numeric strings, newer ones integers; both work
        if str(value) not in map(str, values):
            raise Wrong("one_of", f"Input should be one of {values}", expected=list(values))

    return check


def _boolean(value: Any) -> None:
    if not isinstance(value, bool):
        raise Wrong("bool_parsing", "Input should be a valid boolean")


def _text(value: Any) -> None:
    if not isinstance(value, str):
        raise Wrong("string_type", "Input should be a valid string")


def _texts(value: Any) -> None:
    if not isinstance(value, list):
        raise Wrong("list_type", "Input should be a valid list")
    if not value:
        raise Wrong("sequence_too_short", "At least 1 item is needed", min_length=1)
    for one in value:
        _text(one)


def _nullable(check: Check) -> Check:
    return lambda value: None if value is None else check(value)


def _stage(prefix: str) -> dict[str, Check]:
    """The sampling keys of one stage of TRELLIS.2."""
    return {
        f"{prefix}_guidance_strength": _number(0, 10),
        f"{prefix}_guidance_rescale": _number(0, 1),
        f"{prefix}_guidance_interval_start": _number(0, 1),
        f"{prefix}_guidance_interval_end": _number(0, 1),
        f"{prefix}_sampling_steps": _number(1, 50, whole=True),
        f"{prefix}_rescale_t": _number(1, 6),
    }


_SEED = {"seed": _nullable(_number(whole=True))}
_STAGES = {**_stage("ss"), **_stage("shape_slat"), **_stage("tex_slat")}
_SIZES = {
    "decimation_target": _number(5_000, 2_000_000, whole=True),
    "texture_size": _one_of(1024, 2048, 4096),
}
_FIRST = {
    **_SEED,
    "ss_guidance_strength": _number(0, 10),
    "ss_sampling_steps": _number(1, 50, whole=True),
    "slat_guidance_strength": _number(0, 10),
    "slat_sampling_steps": _number(1, 50, whole=True),
    "mesh_simplify": _number(0.9, 0.98),
    "texture_size": _one_of(512, 1024, 2048),
}
_SECOND = {
    **_SEED,
    "resolution": _one_of(512, 1024, 1536),
    **_STAGES,
    **_SIZES,
    "remesh": _boolean,
    "remesh_band": _number(0, 4),
    "remesh_project": _number(0, 1),
    "uv_unwrap_angle_threshold_deg": _number(),
    "uv_unwrap_global_iterations": _number(whole=True),
    "uv_unwrap_refine_iterations": _number(whole=True),
    "uv_unwrap_smooth_strength": _number(),
}
_LORAS = ("sparse_structure_lora_url", "geometry_lora_url", "texture_lora_url")
_LORA = {
    **dict.fromkeys(_LORAS, _nullable(_text)),
    **_SEED,
    "resolution": _one_of(512, 1024),
    **_STAGES,
    **_SIZES,
}
_RETEXTURE = {
    "mesh_url": _text,
    "image_url": _text,
    **_SEED,
    "resolution": _one_of(512, 1024),
    **_stage("tex_slat"),
    "texture_size": _SIZES["texture_size"],
}
# Each endpoint's keys in the documented order; those of `_REQUIRED` must be there
ENDPOINTS: dict[str, dict[str, Check]] = {
    "fal-ai/trellis": {"image_url": _text, **_FIRST},
    "fal-ai/trellis/multi": {
        "image_urls": _texts,
        **_FIRST,
        "multiimage_algo": _one_of("stochastic", "multidiffusion"),
    },
    "fal-ai/trellis-2": {"image_url": _text, **_SECOND},
    "fal-ai/trellis-2/multi": {"image_urls": _texts, **_SECOND},
    "fal-ai/trellis-2/retexture": _RETEXTURE,
    "fal-ai/trellis-2-lora": {"image_url": _text, **_LORA},
}
_REQUIRED = ("image_url", "image_urls", "mesh_url")
_APPS = {"/".join(endpoint.split("/")[:2]) for endpoint in ENDPOINTS}
_INTERVALS = {"ss": (0.6, 1), "shape_slat": (0.6, 1), "tex_slat": (0.6, 0.9)}
_ECHOES = {"seed": 1364923, "resolution": 512, "decimation_target": 500_000, "texture_size": 2048}


def _invalid(endpoint: str, given: dict[str, Any]) -> Iterator[Problem]:
    """All that validation finds, in the order of the endpoint's keys."""
    fields = ENDPOINTS[endpoint]
    for name, check in fields.items():
        if name in given:
            try:
                check(given[name])
            except Wrong as wrong:
                yield (name,), given[name], wrong
        elif name in _REQUIRED:
            yield (name,), given, Wrong("missing", "Field required")
    for name, value in given.items():
        # fal does not document whether it ignores such keys; refusing them shows a client that sends them
        if name not in fields:
            yield (name,), value, Wrong("extra_forbidden", "Extra inputs are not permitted")


def _inconsistent(endpoint: str, given: dict[str, Any]) -> Iterator[Wrong]:
    """What is wrong with values that are right each by itself."""
    for prefix, defaults in _INTERVALS.items():
        names = [f"{prefix}_guidance_interval_{end}" for end in ("start", "end")]
        start, end = (float(given.get(*pair)) for pair in zip(names, defaults, strict=True))
        if start > end:
            yield Wrong("value_error", f"Value error, {names[1]} must not be less than {names[0]}")
    if endpoint == "fal-ai/trellis-2-lora" and not any(given.get(name) for name in _LORAS):
        yield Wrong("value_error", "Value error, at least one LoRA URL must be provided")


def _look_at(data: bytes, most: int | None) -> None:
    """Refuse what is no picture, or one with a side of more than `most` pixels."""
    try:
        with Image.open(io.BytesIO(data)) as image:
            image.load()
            width, height = image.size
    except (OSError, SyntaxError, ValueError):
        raise Wrong("image_load_error", "Failed to load the image.") from None
    if most and max(width, height) > most:
        raise Wrong("image_too_large", "The image is too large.", max_height=most, max_width=most)


# Jobs -------------------------------------------------------------------------------------------------------------------


@dataclass
class Script:
    """How a job goes. Each job has its own copy, made when it is submitted."""

    queued: int = 1  # status answers that say IN_QUEUE; positions count down to 0
    running: int = 1  # status answers that say IN_PROGRESS
    bounce: bool = False  # back into the queue once, and to work again
    logs: list[str] = field(default_factory=list)  # one more with each IN_PROGRESS, all at the end
    held: bool = False  # IN_PROGRESS until `FalStandIn.finish`
    outcome: Reply | None = None  # what the result's URL says in place of success
    status_error: tuple[str, str] | None = None  # (error, error_type) of COMPLETED; fails the job
    units: float | None = 6  # X-Fal-Billable-Units
    cancel: Literal["signal", "removed", "ignored"] = "signal"
    sparse: bool = False  # every optional key of every answer is left out
    extra: bool = False  # every object of every answer has unknown keys
    glb: bytes | None = None  # the model; `FalStandIn.glb` if None

    def states(self) -> list[str]:
        """What the status answers say before COMPLETED."""
        work = [RUNNING] * max(self.running, int(self.bounce))
        return [QUEUED] * self.queued + work + ([QUEUED, *work] if self.bounce else [])


@dataclass
class FalJob:
    """One accepted request. Header names are in lower case; `reply` is what became of it, once COMPLETED."""

    request_id: str
    endpoint: str
    input: dict[str, Any]
    headers: dict[str, str]
    query: dict[str, str]
    script: Script
    coming: list[str]  # what status answers say, the current one first, before COMPLETED
    sent_at: datetime
    started_at: datetime | None = None
    ended_at: datetime | None = None
    reply: Reply | None = None
    cancelled: bool = False
    removed: bool = False
    asked: int = 0  # how many status answers there were,
    told: int = 0  # and how many of them said IN_PROGRESS

    @property
    def app(self) -> str:
        return "/".join(self.endpoint.split("/")[:2])

    @property
    def state(self) -> str:
        """What the last status answer said (before the first: what it will say), or REMOVED."""
        if self.removed:
            return REMOVED
        if self.coming:
            return self.coming[0]
        return RUNNING if self.script.held else DONE


_PLATFORM = {
    "request_timeout": 504,
    "startup_timeout": 504,
    "runner_scheduling_failure": 503,
    "runner_connection_timeout": 503,
    "runner_disconnected": 503,
    "runner_connection_refused": 503,
    "runner_connection_error": 503,
    "runner_incomplete_response": 502,
    "client_disconnected": 499,
    "client_cancelled": 499,
    "bad_request": 400,
}
_CANCELLED = ("Request cancelled by the client.", "client_cancelled")


def _failed(error: str, kind: str) -> Reply:
    """A failure of fal's own machinery."""
    body = {"detail": error, "error_type": kind}
    return Reply(_PLATFORM.get(kind, 500), body, {"x-fal-error-type": kind})


def _empty_glb() -> bytes:
    chunk = b'{"asset":{"version":"2.0"}}'.ljust(28)
    return struct.pack("<4sIIII", b"glTF", 2, 20 + len(chunk), len(chunk), 0x4E4F534A) + chunk


def _iso(time: datetime | None) -> str | None:
    return None if time is None else time.isoformat().replace("+00:00", "Z")


# The service ------------------------------------------------------------------------------------------------------------


class FalStandIn(StandIn):
    """fal, on loopback. `jobs` in order of submission, `files` by path on the host "files"."""

    HOSTS = ("queue", "rest", "api", "upload", "files")

    def __init__(self) -> None:
        super().__init__()
        self.script = Script()
        self.jobs: dict[str, FalJob] = {}
        self.submits: list[Call] = []
        self.files: dict[str, tuple[bytes, str]] = {}  # content and its type
        self.glb = _empty_glb()
        self.prices = {name: 0.05 if "trellis-2" in name else 0.02 for name in ENDPOINTS}
        self.balance = 24.5
        self._signed: dict[str, tuple[str, str]] = {}  # where a signed PUT leads, and its type
        self._tokens: set[str] = set()

    def finish(self, request_id: str) -> None:
        """Complete a job now, held or not."""
        with self.lock:
            self._end(self.jobs[request_id])

    def store(self, data: bytes, name: str, content_type: str = "application/octet-stream") -> str:
        """Put a file on the host "files"; the URL of it."""
        with self.lock:
            path = self._place(name)
            self.files[path] = (data, content_type)
            return self.url("files") + path

    def answer(self, call: Call) -> Reply:
        if call.host in ("queue", "rest", "api"):
            refusal = self._refused(call)
            if refusal:
                return refusal
        return getattr(self, f"_{call.host}")(call)

    def _refused(self, call: Call) -> Reply | None:
        key = call.headers.get("authorization")
        if key in (f"Key {KEY}", f"Key {ADMIN_KEY}"):
            return None
        if call.host == "api":
            return self._platform(401, "authorization_error", "Authentication required")
        detail = "invalid key credentials"
        if key is None and call.host == "queue":
            app = "/".join(call.path.split("/")[1:3])
            detail = (
                f'Cannot access application "{app}". '
                "Authentication is required to access this application."
            )
        return Reply(401, self._object({"detail": detail}))

    def _object(
        self,
        needed: dict[str, Any],
        optional: dict[str, Any] | None = None,
        script: Script | None = None,
    ) -> dict[str, Any]:
        """One JSON object of an answer."""
        script = script or self.script
        kept = {} if script.sparse else optional or {}
        return {**needed, **kept, **(EXTRA if script.extra else {})}

    # queue

    def _queue(self, call: Call) -> Reply:
        endpoint, asked, rest = call.path.strip("/").partition("/requests/")
        app = "/".join(endpoint.split("/")[:2])
        if app not in _APPS:
            name = app.split("/")[-1]
            return Reply(404, self._object({"detail": f'Application "{name}" not found'}))
        if not asked and call.method == "POST":
            return self._submit(endpoint, call)
        request_id, _, action = rest.partition("/")
        what = (call.method, action)
        known = (
            ("GET", ""),
            ("GET", "response"),
            ("GET", "status"),
            ("GET", "status/stream"),
            ("PUT", "cancel"),
        )
        if not asked or endpoint != app or what not in known:  # requests live at owner/app alone
            return Reply(405, self._object({"detail": "Method Not Allowed"}))
        job = self.jobs.get(request_id)
        if job is None or job.removed or job.app != app:
            return Reply(404, self._object({"status": "NOT_FOUND"}))
        self._settle(job)
        reply = self._asked(job, action, call)
        return Reply(reply.status, reply.body, {"x-fal-request-id": request_id, **reply.headers})

    def _asked(self, job: FalJob, action: str, call: Call) -> Reply:
        logs = call.query.get("logs", "").lower() in ("1", "true")
        if action == "status":
            body = self._status(job, logs=logs)
            return Reply(200 if body["status"] == DONE else 202, body)
        if action == "status/stream":
            return self._stream(job, logs=logs)
        if action == "cancel":
            return self._cancel(job)
        if job.state != DONE:
            return Reply(
                400, self._object({"detail": "Request is still in progress"}, {}, job.script)
            )
        assert job.reply
        return job.reply

    def _submit(self, endpoint: str, call: Call) -> Reply:
        try:
            given = call.json
        except ValueError as error:
            wrong = Wrong("json_invalid", "JSON decode error", error=str(error))
            return self._unprocessable([((0,), {}, wrong)], self.script)
        if not isinstance(given, dict):
            wrong = Wrong("model_attributes_type", "Input should be a valid dictionary")
            return self._unprocessable([((), given, wrong)], self.script)
        script = deepcopy(self.script)
        job = FalJob(
            request_id=str(uuid.uuid4()),
            endpoint=endpoint,
            input=given,
            headers=call.headers,
            query=call.query,
            script=script,
            coming=script.states(),
            sent_at=datetime.now(UTC),
        )
        self.jobs[job.request_id] = job
        self.submits.append(call)
        self._settle(job)
        ticket = {"request_id": job.request_id, **self._urls(job)}
        position = {"status": QUEUED, "queue_position": max(script.queued - 1, 0)}
        body = self._object(ticket, position, script)
        return Reply(200, body, {"x-fal-request-id": job.request_id})

    def _urls(self, job: FalJob) -> dict[str, str]:
        url = f"{self.url('queue')}/{job.app}/requests/{job.request_id}"
        return {"response_url": url, "status_url": f"{url}/status", "cancel_url": f"{url}/cancel"}

    def _status(self, job: FalJob, *, logs: bool) -> dict[str, Any]:
        """One status answer; all but the first find that the job has moved on."""
        job.coming = job.coming[bool(job.asked) :]
        job.asked += 1
        self._settle(job)
        state, script = job.state, job.script
        needed: dict[str, Any] = {"status": state}
        optional: dict[str, Any] = {"request_id": job.request_id, **self._urls(job)}
        if state == QUEUED:
            optional["queue_position"] = [*job.coming, RUNNING].index(RUNNING) - 1
        else:
            job.told += state == RUNNING
            shown = script.logs if state == DONE else script.logs[: job.told]
            optional["logs"] = [self._log(job, *one) for one in enumerate(shown)] if logs else None
        if state == DONE:
            optional["metrics"] = {"inference_time": 41.83}
            needed |= dict(zip(("error", "error_type"), script.status_error or (), strict=False))
        return self._object(needed, optional, script)

    def _log(self, job: FalJob, number: int, message: str) -> dict[str, Any]:
        time = _iso(job.sent_at + timedelta(seconds=number))
        optional = {"level": "INFO", "source": "USER"}
        return self._object({"message": message, "timestamp": time}, optional, job.script)

    def _stream(self, job: FalJob, *, logs: bool) -> Reply:
        """All status answers that are left, at once, each with the logs that are new."""
        events: list[dict[str, Any]] = []
        seen = 0
        while not events or (job.state != DONE and (job.coming or not job.script.held)):
            event = self._status(job, logs=logs)
            every = event.get("logs")
            if every is not None:
                event["logs"], seen = every[seen:], len(every)
            events.append(event)
        text = "".join(f"data: {json.dumps(event)}\n\n" for event in events)
        return Reply(200, text.encode(), {"content-type": "text/event-stream"})

    def _cancel(self, job: FalJob) -> Reply:
        if job.state == DONE:
            return Reply(400, self._object({"status": "ALREADY_COMPLETED"}, {}, job.script))
        if job.script.cancel == "removed":
            job.removed = True
            return Reply(200, self._object({"status": "OK"}, {}, job.script))
        if job.script.cancel == "signal":
            job.cancelled = True
            self._end(job)
        return Reply(202, self._object({"status": "CANCELLATION_REQUESTED"}, {}, job.script))

    def _end(self, job: FalJob) -> None:
        job.coming.clear()
        job.script.held = False
        self._settle(job)

    def _settle(self, job: FalJob) -> None:
        """Note when the job began and ended, and what became of it."""
        if job.state in (RUNNING, DONE):
            job.started_at = job.started_at or datetime.now(UTC)
        if job.state == DONE and job.reply is None:
            job.reply = self._run(job)
            job.ended_at = datetime.now(UTC)

    # what becomes of a job

    def _run(self, job: FalJob) -> Reply:
        if job.cancelled:
            return _failed(*_CANCELLED)
        if job.endpoint not in ENDPOINTS:
            path = job.endpoint.removeprefix(job.app)
            return Reply(404, self._object({"detail": f"Path {path} not found"}, {}, job.script))
        problems = self._problems(job)
        if problems:
            return self._unprocessable(problems, job.script)
        if job.script.outcome:
            return job.script.outcome
        if job.script.status_error:
            reply = _failed(*job.script.status_error)
            if reply.status == 504 and "x-fal-request-timeout" in job.headers:
                reply.headers["x-fal-request-timeout-type"] = "user"
            return reply
        units = job.script.units
        headers = {} if units is None else {"x-fal-billable-units": f"{units:g}"}
        return Reply(200, self._output(job), headers)

    def _output(self, job: FalJob) -> dict[str, Any]:
        data = self.glb if job.script.glb is None else job.script.glb
        first = job.app == "fal-ai/trellis"
        name = "model.glb" if first else f"{job.request_id[:8]}_trellis2.glb"
        about = {"content_type": "model/gltf-binary", "file_name": name, "file_size": len(data)}
        url = self.store(data, name, "model/gltf-binary")
        file = self._object({"url": url}, about, job.script)
        optional: dict[str, Any] = {}
        if first:
            optional["timings"] = {"preprocess": 0.4, "inference": 11.9, "export": 6.2}
        elif job.app == "fal-ai/trellis-2-lora":
            optional = {name: job.input.get(name) or value for name, value in _ECHOES.items()}
            optional |= {name: job.input.get(name) for name in _LORAS}
        return self._object({"model_mesh" if first else "model_glb": file}, optional, job.script)

    def _problems(self, job: FalJob) -> list[Problem]:
        """All that validation finds; if that is nothing, the first file that is of no use."""
        problems = [*_invalid(job.endpoint, job.input)]
        if not problems:
            problems = [((), job.input, wrong) for wrong in _inconsistent(job.endpoint, job.input)]
        if problems:
            return problems
        for place, url in self._urls_of(job.input):
            try:
                data = self._fetch(url)
                if data is not None and place[0] in ("image_url", "image_urls"):
                    _look_at(data, 4096 if job.app == "fal-ai/trellis-2-lora" else None)
            except Wrong as wrong:
                return [(place, url, wrong)]
        return []

    @staticmethod
    def _urls_of(given: dict[str, Any]) -> Iterator[tuple[Place, str]]:
        for name in ("mesh_url", "image_url", *_LORAS):
            if given.get(name):
                yield (name,), given[name]
        for number, url in enumerate(given.get("image_urls", [])):
            yield ("image_urls", number), url

    def _fetch(self, url: str) -> bytes | None:
        """A data URI's or own file's content; None for a file elsewhere, which is believed to be there."""
        failed = Wrong(
            "file_download_error",
            "Failed to download the file. Please check that the URL is publicly accessible.",
        )
        if url.startswith("data:"):
            try:
                return base64.b64decode(url.partition(";base64,")[2], validate=True)
            except binascii.Error:
                raise failed from None
        if url.startswith(f"{self.url('files')}/"):
            path = url.removeprefix(self.url("files"))
            if path not in self.files:
                raise failed
            return self.files[path][0]
        if not url.startswith(("http://", "https://")):
            raise failed
        return None

    def _unprocessable(self, problems: list[Problem], script: Script) -> Reply:
        detail = []
        for place, value, wrong in problems:
            needed = {"loc": ["body", *place], "msg": wrong.message, "type": wrong.kind}
            url = f"https://docs.fal.ai/errors/#{wrong.kind}"
            about = {"ctx": wrong.ctx, "input": value, "url": url}
            detail.append(self._object(needed, about, script))
        headers = {"x-fal-retryable": "false", "x-fal-billable-units": "0"}
        return Reply(422, self._object({"detail": detail}, {}, script), headers)

    # rest, upload, files

    @staticmethod
    def _place(name: str) -> str:
        return f"/files/b/{uuid.uuid4().hex[:8]}/{quote(name, safe='')}"

    def _rest(self, call: Call) -> Reply:
        kinds = {
            "/storage/upload/initiate": ("fal-cdn-v3", "gcs"),
            "/storage/auth/token": ("fal-cdn-v3",),
        }
        if call.method != "POST" or call.path not in kinds:
            return Reply(404, self._object({"detail": "Not Found"}))
        if call.query.get("storage_type") not in kinds[call.path]:
            return Reply(400, self._object({"detail": "Unknown storage_type"}))
        if call.path == "/storage/auth/token":
            return self._token()
        asked = call.json
        missing = [name for name in ("content_type", "file_name") if not asked.get(name)]
        if missing:
            wrong = Wrong("missing", "Field required")
            return self._unprocessable([((name,), asked, wrong) for name in missing], self.script)
        place = self._place(f"abc_{asked['file_name']}")
        signed = f"/files/upload/{uuid.uuid4().hex}"
        self._signed[signed] = (place, asked["content_type"])
        upload_url = f"{self.url('upload')}{signed}?signature={uuid.uuid4().hex}"
        return Reply(
            200, self._object({"upload_url": upload_url, "file_url": self.url("files") + place})
        )

    def _token(self) -> Reply:
        token = f"eyJ{uuid.uuid4().hex}"
        self._tokens.add(token)
        body = {
            "token": token,
            "token_type": "Bearer",
            "base_url": self.url("upload"),
            "expires_at": (datetime.now(UTC) + timedelta(hours=1)).isoformat(),
        }
        return Reply(200, self._object(body))

    def _upload(self, call: Call) -> Reply:
        authorization = call.headers.get("authorization")
        content_type = call.headers.get("content-type", "application/octet-stream")
        if (call.method, call.path) == ("POST", "/files/upload"):
            if authorization not in {f"Bearer {token}" for token in self._tokens}:
                return Reply(401, self._object({"detail": "Unauthorized"}))
            name = call.headers.get("x-fal-file-name", "upload.bin")
            url = self.store(call.body, f"abc_{name}", content_type)
            return Reply(200, self._object({"access_url": url}))
        if call.method != "PUT" or call.path not in self._signed:
            return Reply(404, self._object({"detail": "Not Found"}))
        if authorization is not None:
            return Reply(400, self._object({"detail": "A signed URL takes no Authorization"}))
        place, expected = self._signed[call.path]
        if content_type != expected:  # the type is part of what was signed
            return Reply(403, self._object({"detail": "SignatureDoesNotMatch"}))
        self.files[place] = (call.body, content_type)
        return Reply(200, self._object({}))

    def _files(self, call: Call) -> Reply:
        if "authorization" in call.headers:
            return Reply(400, {"detail": "Files are public; the key must not be sent here"})
        if call.path not in self.files:
            return Reply(404, {"detail": "Not Found"})
        data, content_type = self.files[call.path]
        return Reply(200, data, {"content-type": content_type})

    # api

    def _platform(self, status: int, kind: str, message: str) -> Reply:
        """The platform API's own form of an error."""
        about = {"docs_url": "https://docs.fal.ai", "request_id": "req-1"}
        error = self._object({"type": kind, "message": message}, about)
        return Reply(status, self._object({"error": error}))

    def _api(self, call: Call) -> Reply:
        routes = {
            ("GET", "/v1/models/pricing"): self._pricing,
            ("POST", "/v1/models/pricing/estimate"): self._estimate,
            ("GET", "/v1/account/billing"): self._billing,
            ("GET", "/v1/models/requests/by-endpoint"): self._history,
        }
        route = routes.get((call.method, call.path))
        if route is None:
            return self._platform(404, "not_found", "Resource not found")
        try:
            return route(call)
        except (ValueError, KeyError, TypeError, AttributeError):
            return self._platform(400, "validation_error", "Invalid request parameters")
        except LookupError:
            return self._platform(404, "not_found", "Resource not found")

    def _asked_for(self, names: list[str]) -> list[str]:
        if not 1 <= len(names) <= 50:
            raise ValueError
        if not set(names) <= self.prices.keys():
            raise LookupError
        return names

    def _pricing(self, call: Call) -> Reply:
        prices = [
            self._object(
                {
                    "endpoint_id": name,
                    "unit_price": self.prices[name],
                    "unit": "units",
                    "currency": "USD",
                }
            )
            for name in self._asked_for(call.query["endpoint_id"].split(","))
        ]
        return Reply(200, self._object({"prices": prices, "next_cursor": None, "has_more": False}))

    def _estimate(self, call: Call) -> Reply:
        asked = call.json
        names = self._asked_for(list(asked["endpoints"]))
        kind = asked["estimate_type"]
        quantity = {"unit_price": "unit_quantity", "historical_api_price": "call_quantity"}[kind]
        total = 0.0
        for name in names:
            amount = asked["endpoints"][name][quantity]
            if isinstance(amount, bool) or amount <= 0:
                raise ValueError
            units = 1 if kind == "unit_price" or "trellis-2" not in name else 6  # of a usual call
            total += amount * units * self.prices[name]
        cost = {"estimate_type": kind, "total_cost": round(total, 6), "currency": "USD"}
        return Reply(200, self._object(cost))

    def _billing(self, call: Call) -> Reply:
        if call.headers["authorization"] != f"Key {ADMIN_KEY}":
            return self._platform(403, "authorization_error", "Access denied")
        body: dict[str, Any] = {"username": "my-team"}
        if "credits" in call.query.get("expand", "").split(","):
            credit = {"current_balance": self.balance, "currency": "USD"}
            body["credits"] = self._object(credit)
        return Reply(200, self._object(body))

    def _history(self, call: Call) -> Reply:
        """Requests that began, the latest first. One in the queue has no `started_at`, so it cannot be listed."""
        query = call.query
        names = query["endpoint_id"].split(",")
        limit = int(query.get("limit", _HISTORY_PAGE))
        page = int(base64.b64decode(query["cursor"], validate=True)) if "cursor" in query else 1
        if not (all(names) and len(names) <= 50 and 1 <= limit <= 100 and page >= 1):
            raise ValueError
        wanted = str(uuid.UUID(query["request_id"])) if "request_id" in query else None
        now = datetime.now(UTC)
        start = _time(query.get("start")) or now - timedelta(days=90 if wanted else 1)
        end = _time(query.get("end")) or now
        found = []
        for job in reversed(self.jobs.values()):
            self._settle(job)
            if (
                job.endpoint in names
                and job.request_id == (wanted or job.request_id)
                and start <= job.sent_at < end
                and job.started_at
                and not job.removed
                and _outcome(job) == query.get("status", _outcome(job))
            ):
                found.append(job)
        payloads = "payloads" in query.get("expand", "").split(",")
        items = [self._item(job, payloads) for job in found[(page - 1) * limit : page * limit]]
        more = len(found) > page * limit
        cursor = base64.b64encode(str(page + 1).encode()).decode() if more else None
        return Reply(200, self._object({"items": items, "next_cursor": cursor, "has_more": more}))

    def _item(self, job: FalJob, payloads: bool) -> dict[str, Any]:
        needed: dict[str, Any] = {
            "request_id": job.request_id,
            "endpoint_id": job.endpoint,
            "started_at": _iso(job.started_at),
            "sent_at": _iso(job.sent_at),
        }
        if payloads and job.headers.get("x-fal-store-io") != "0":
            needed["json_input"] = job.input
            needed |= {"json_output": job.reply.body} if job.reply else {}
        took = job.ended_at and (job.ended_at - job.sent_at).total_seconds()
        optional = {
            "ended_at": _iso(job.ended_at),
            "status_code": job.reply and job.reply.status,
            "duration": took,
        }
        return self._object(needed, optional)


def _outcome(job: FalJob) -> str | None:
    """How the history calls what became of a job."""
    if job.reply is None:
        return None
    return {2: "success", 4: "user_error"}.get(job.reply.status // 100, "error")


def _time(text: str | None) -> datetime | None:
    """A date, or a date and time with its zone."""
    if text is None:
        return None
    time = datetime.fromisoformat(text)
    if len(text) == len("2026-01-01"):
        return time.replace(tzinfo=UTC)
    if time.tzinfo is None:
        raise ValueError
    return time

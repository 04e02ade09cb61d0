# SPDX-License-Identifier: GPL-3.0-or-later
"""A stand-in of Runware: the task API and its files, as Runware documents them and its official Python SDK relies on.

How the tasks to come go is said by `RunwareStandIn.script`. Tasks move on with each getResponse, never with time.
Accepted parameters are a table of this file, made from Runware's documentation and independent of the product's own endpoints.
Refusals at will are in `RunwareStandIn.instead`; for a connection that breaks put `gate.Gate` in front of `api`.
"""

from __future__ import annotations

import base64
import binascii
import json
import random
import re
import uuid
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias
from urllib.parse import urlsplit

from services.standin import Call, Reply, StandIn

KEY = "rw_0123456789abcdefghijklmnop"
MODEL = "microsoft:trellis-2@4b"
BALANCE = 12.34

_FOLDER = "/image/os/a01d21/ws/4/ii"
_DOCUMENTATION = "https://runware.ai/docs/models/microsoft-trellis-2"
_UUID4 = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")
_MAGIC = {
    "image/png": re.compile(rb"\x89PNG\r\n\x1a\n"),
    "image/jpeg": re.compile(rb"\xff\xd8\xff"),
    "image/webp": re.compile(rb"RIFF....WEBP", re.DOTALL),
    "image/gif": re.compile(rb"GIF8[79]a"),
    "image/bmp": re.compile(rb"BM"),
}
Json: TypeAlias = dict[str, Any]


# What the tasks take ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Field:
    """A parameter: its JSON type, what its value must be in words, and whether a value of that type is so."""

    type: str
    must: str
    fits: Callable[[Any], bool] = lambda value: True
    required: bool = False

    def takes(self, value: Any) -> bool:
        types = {"string": str, "integer": int, "number": int | float, "boolean": bool}
        right = isinstance(value, bool) == (self.type == "boolean")
        return right and isinstance(value, types.get(self.type, dict)) and self.fits(value)


Fields: TypeAlias = "dict[str, Field | Fields]"


def _whole(low: int, high: int) -> Field:
    return Field("integer", f"an integer between {low} and {high}", lambda v: low <= v <= high)


def _number(low: float, high: float) -> Field:
    return Field("number", f"a number between {low} and {high}", lambda v: low <= v <= high)


def _one_of(*values: Any) -> Field:
    kind = "integer" if isinstance(values[0], int) else "string"
    return Field(kind, f"one of {', '.join(map(str, values))}", lambda v: v in values)


def _needed(what: Field) -> Field:
    return replace(what, required=True)


_BOOL = Field("boolean", "true or false")
_TEXT = Field("string", "a string")
_UUID = Field("string", "a UUID v4", lambda v: bool(_UUID4.fullmatch(v.lower())))
_URL = Field(
    "string",
    "a URL",
    lambda v: urlsplit(v).scheme in ("http", "https") and bool(urlsplit(v).netloc),
)
_STAGE: Fields = {
    "steps": _whole(1, 50),
    "guidanceStrength": _number(1, 10),
    "guidanceRescale": _number(0, 1),
    "rescaleT": _number(1, 6),
}
_TASKS: dict[str, Fields] = {
    "3dInference": {
        "model": _needed(_one_of(MODEL)),
        "inputs": {"image": _needed(_TEXT)},
        "outputType": _one_of("URL"),
        "outputFormat": _one_of("GLB"),
        "deliveryMethod": _one_of("sync", "async"),
        "numberResults": _whole(1, 4),
        "includeCost": _BOOL,
        "ttl": Field("integer", "at least 60", lambda v: v >= 60),
        "webhookURL": _URL,
        "uploadEndpoint": _URL,
        "routing": Field("object", "an object"),  # only the SDK's schema of 2026-10 names it
        "seed": _whole(0, 2**63 - 1),
        "settings": {
            "resolution": _one_of(512, 1024, 1536),
            "decimationTarget": _whole(100_000, 1_000_000),
            "remesh": _BOOL,
            "textureSize": _one_of(1024, 2048, 3072, 4096),
            "sparseStructure": _STAGE,
            "shapeSlat": _STAGE,
            "texSlat": _STAGE,
        },
    },
    "getResponse": {},
    "getTaskDetails": {},
    "mediaStorage": {
        "operation": _needed(_one_of("upload", "delete")),
        "media": _TEXT,
        "mediaUUID": _UUID,
    },
    "imageUpload": {"image": _needed(_TEXT)},
    "accountManagement": {"operation": _needed(_one_of("getDetails"))},
}


def _problems(values: Json, fields: Fields, at: str = "") -> Iterator[Json]:
    """What is wrong with `values`, as errors of the service; `at` is where they are, with a dot at its end."""
    for name in values:
        if name not in fields:
            yield {
                "code": "unknownParameter",
                "message": f"Unknown parameter '{at}{name}'.",
                "parameter": f"{at}{name}",
            }
    for name, known in fields.items():
        if isinstance(known, dict):
            inner = values.get(name, {})
            if isinstance(inner, dict):
                yield from _problems(inner, known, f"{at}{name}.")
            else:
                yield _invalid(f"{at}{name}", "an object", "object")
        elif name in values and not known.takes(values[name]):
            yield _invalid(f"{at}{name}", known.must, known.type)
        elif name not in values and known.required:
            yield _missing(f"{at}{name}", known.type)


def _invalid(parameter: str, must: str, kind: str = "string") -> Json:
    message = f"Invalid value for '{parameter}': must be {must}."
    return {"code": _code("invalid", parameter), "message": message, **_place(parameter, kind)}


def _missing(parameter: str, kind: str = "string") -> Json:
    message = f"Missing required parameter '{parameter}'."
    return {"code": _code("missing", parameter), "message": message, **_place(parameter, kind)}


def _code(verdict: str, parameter: str) -> str:
    name = parameter.rpartition(".")[2]
    return verdict + name[0].upper() + name[1:]


def _place(parameter: str, kind: str) -> Json:
    anchor = parameter.replace(".", "-").lower()
    return {
        "parameter": parameter,
        "type": kind,
        "documentation": f"{_DOCUMENTATION}#request-{anchor}",
    }


def _image(text: str) -> tuple[str, bytes] | None:
    """The media type and the bytes of the image in a data URI or in bare base64; None if there is none."""
    head, _, encoded = text.rpartition(",")
    try:
        data = base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError):
        return None
    for media_type, magic in _MAGIC.items():
        if magic.match(data):
            return (media_type, data) if head in ("", f"data:{media_type};base64") else None
    return None


# The tasks --------------------------------------------------------------------------------------------------------------


@dataclass
class Script:
    """How the 3dInference tasks go that are submitted while it is set; each takes a copy of it.

    The task answers `processing` times that it is at work, with `word` as its status, and for as long as it is `held`
    (until `RunwareStandIn.finish`). Then it has ended as a whole or, with `dribble`, one variation at each answer.
    `error` ends all of it. `failed` names variations that fail: in `errors`, or in `data` with `item_errors`. `cost` is
    that of one result. `no_status` leaves the status out of results; `index` numbers the items of several results with
    `resultIndex`, without which Runware's SDK waits for ever. `glb` is what is served, `RunwareStandIn.glb` if None.

    `extra` (unknown keys in every object) and `balance_object` are not copied: they hold for answers while they are set.
    """

    processing: int = 1
    held: bool = False
    word: str = "processing"
    dribble: bool = False
    error: Json | None = None
    failed: dict[int, Json] = field(default_factory=dict)
    item_errors: bool = False
    cost: float | None = 0.0256
    no_status: bool = False
    index: bool = True
    glb: bytes | None = None
    extra: bool = False
    balance_object: bool = True


@dataclass
class RunwareTask:
    """A 3dInference task that was accepted. `files` are the ids of its variations; `polls` counts its getResponse answers;
    `ended` says how many variations have ended, as the last answer told."""

    task: Json
    script: Script
    seed: int
    files: list[str]
    polls: int = 0
    ended: int = 0

    @property
    def ttl(self) -> int | None:
        return self.task.get("ttl")

    @property
    def state(self) -> str:
        """As the last answer told: "processing", "success" (of at least one variation) or "error"."""
        if self.ended < len(self.files):
            return "processing"
        nothing = all(number in self.script.failed for number in range(len(self.files)))
        return "error" if self.script.error or nothing else "success"

    def advance(self) -> None:
        """One getResponse further."""
        self.polls += 1
        if not self.script.held and self.polls > self.script.processing:
            one_by_one = self.script.dribble and not self.script.error
            self.ended = min(self.ended + 1, len(self.files)) if one_by_one else len(self.files)

    def report(self, origin: str) -> tuple[list[Json], list[Json]]:
        """The whole state as `data` and `errors`, what is at work first, as Runware's documentation of getResponse shows."""
        names = {"taskType": "3dInference", "taskUUID": self.task["taskUUID"]}
        if self.script.error and self.state == "error":
            return [], [{"status": "error", **names, **self.script.error}]
        data: list[Json] = []
        errors: list[Json] = []
        for number in [*range(self.ended, len(self.files)), *range(self.ended)]:
            numbered = self.script.index and len(self.files) > 1
            head = {**names, "resultIndex": number} if numbered else names
            failure = self.script.failed.get(number)
            if number >= self.ended:
                data.append({**head, "status": self.script.word})
            elif failure is None:
                data.append({**head, **self._result(number, origin)})
            elif self.script.item_errors:
                data.append({**head, "status": "error", "error": failure})
            else:
                errors.append({"status": "error", **names, **failure})
        return data, errors

    def _result(self, number: int, origin: str) -> Json:
        result: Json = {} if self.script.no_status else {"status": "success"}
        result["seed"] = (self.seed + number) % 2**63
        if self.task.get("includeCost") and self.script.cost is not None:
            result["cost"] = self.script.cost
        url = f"{origin}{_FOLDER}/{self.files[number]}.glb"
        return {**result, "outputs": {"files": [{"uuid": self.files[number], "url": url}]}}


# The service ------------------------------------------------------------------------------------------------------------


class Refused(Exception):
    """A task, or the whole request, that is not accepted."""

    def __init__(self, status: int, *errors: Json) -> None:
        super().__init__(status)
        self.status, self.errors = status, errors


class RunwareStandIn(StandIn):
    """`tasks` are the accepted 3dInference tasks by their taskUUID, `submits` the same as they came, `uploads` what is stored
    by its mediaUUID. `instead[taskType]` are replies to give, one each, to the next requests that begin with such a task.

    Several tasks in one request are carried out one after the other. Where all of them are refused, the reply has the HTTP
    status of the first refusal and only `errors`; else it has status 200, `data`, and `errors` if there are any.
    """

    HOSTS = ("api", "files")

    def __init__(self) -> None:
        super().__init__()
        self.script = Script()
        self.glb = b""
        self.tasks: dict[str, RunwareTask] = {}
        self.submits: list[Json] = []
        self.uploads: dict[str, bytes] = {}
        self.instead: dict[str, list[Reply]] = {}
        self._used: set[str] = set()

    @property
    def base(self) -> str:
        """The URL that clients are given."""
        return f"{self.url('api')}/v1"

    def finish(self, task_uuid: str) -> None:
        """Let go of a task that is held: its next getResponse tells of results."""
        with self.lock:
            script = self.tasks[task_uuid].script
            script.held, script.processing = False, 0

    def answer(self, call: Call) -> Reply:
        if call.host == "files":
            return self._file(call)
        try:
            tasks = _tasks_of(call)
            if tasks and (replies := self.instead.get(str(tasks[0].get("taskType")))):
                return replies.pop(0)
            reply = self._carry_out(tasks, call.headers.get("x-runware-dry-run") == "1")
        except Refused as refused:
            reply = Reply(refused.status, {"errors": [*refused.errors]})
        return replace(reply, body=_with_extra(reply.body)) if self.script.extra else reply

    def _file(self, call: Call) -> Reply:
        if "authorization" in call.headers:
            return Reply(400, b"The files need no key, and must not be shown one.")
        named = re.fullmatch(rf"{_FOLDER}/([0-9a-f-]+)\.(\w+)", call.path)
        if named is None or call.method != "GET":
            return Reply(404, b"Not found")
        if named[1] in self.uploads:
            return Reply(200, self.uploads[named[1]], {"content-type": f"image/{named[2]}"})
        for task in self.tasks.values():
            if named[1] in task.files:
                glb = self.glb if task.script.glb is None else task.script.glb
                return Reply(200, glb, {"content-type": "model/gltf-binary"})
        return Reply(404, b"Not found")

    def _carry_out(self, tasks: list[Json], dry: bool) -> Reply:
        data: list[Json] = []
        errors: list[Json] = []
        refusals: list[int] = []
        for task in tasks:
            try:
                told, failures = self._one(task, dry)
                data += told
                errors += failures
            except Refused as refused:
                refusals.append(refused.status)
                named = ("taskUUID", "taskType")
                names = {key: value for key, value in task.items() if key in named}
                errors += [{**error, **names} for error in refused.errors]
        if refusals and len(refusals) == len(tasks):
            return Reply(refusals[0], {"errors": errors})
        return Reply(200, {"data": data, "errors": errors} if errors else {"data": data})

    def _one(self, task: Json, dry: bool) -> tuple[list[Json], list[Json]]:
        """One task's `data` and `errors`."""
        kind = task.get("taskType")
        if not isinstance(kind, str) or kind not in _TASKS:
            raise Refused(400, _invalid("taskType", f"one of {', '.join(_TASKS)}"))
        fields = {"taskType": _TEXT, "taskUUID": _needed(_UUID), **_TASKS[kind]}
        if wrong := [*_problems(task, fields)]:
            raise Refused(400, *wrong)
        if kind == "getResponse":
            known = self._known(task)
            known.advance()
            return known.report(self.url("files"))
        if kind == "getTaskDetails":
            return [self._details(task)], []
        if kind == "accountManagement":
            return [{**task, **_account(self.script.balance_object)}], []
        if kind == "3dInference":
            return self._submit(task, dry)
        return [self._store(task, dry)], []

    def _known(self, task: Json) -> RunwareTask:
        known = self.tasks.get(task["taskUUID"])
        if known is None:
            # The code is Runware's; the HTTP status that goes with it is not documented
            message = "The task failed, or no task with this taskUUID was found."
            error = {"code": "taskFailedOrNotFound", "message": message, "parameter": "taskUUID"}
            raise Refused(404, error)
        return known

    def _details(self, task: Json) -> Json:
        known = self._known(task)
        data, errors = known.report(self.url("files"))
        response = {key: list_ for key, list_ in (("data", data), ("errors", errors)) if list_}
        return {**task, "request": [known.task], "response": response}

    def _submit(self, task: Json, dry: bool) -> tuple[list[Json], list[Json]]:
        if not self._is_image(task["inputs"]["image"]):
            must = "the UUID of an upload, a URL, a data URI or base64 of an image"
            raise Refused(400, _invalid("inputs.image", must))
        count = task.get("numberResults", 1)
        if dry:
            cost = self.script.cost
            return [_head(task, **({} if cost is None else {"cost": round(cost * count, 6)}))], []
        self._use(task)
        seed = task.get("seed", random.getrandbits(32))
        files = [str(uuid.uuid4()) for _ in range(count)]
        taken = RunwareTask(task, deepcopy(self.script), seed, files)
        self.tasks[task["taskUUID"]] = taken
        self.submits.append(task)
        if task.get("deliveryMethod") != "sync":
            return [_head(task)], []
        # Runware's own examples of synchronous results have no status
        taken.script.no_status = True
        taken.ended = count
        return taken.report(self.url("files"))

    def _is_image(self, text: str) -> bool:
        if _UUID.takes(text):
            return text in self.uploads
        return _URL.takes(text) or _image(text) is not None

    def _use(self, task: Json) -> None:
        if task["taskUUID"] in self._used:
            message = "A task with this taskUUID exists already."
            error = {"code": "conflictTaskUUID", "message": message}
            raise Refused(400, {**error, **_place("taskUUID", "string")})
        self._used.add(task["taskUUID"])

    def _store(self, task: Json, dry: bool) -> Json:
        """mediaStorage and the older imageUpload."""
        if task.get("operation") == "delete":
            return self._delete(task, dry)
        thing = "image" if task["taskType"] == "imageUpload" else "media"
        if thing not in task:
            raise Refused(400, _missing(thing))
        image = _image(task[thing])
        if image is None:
            raise Refused(400, _invalid(thing, "a data URI or base64 of an image"))
        if dry:
            return _head(task, cost=0)
        self._use(task)
        media_type, data = image
        media_uuid = str(uuid.uuid4())
        self.uploads[media_uuid] = data
        url = f"{self.url('files')}{_FOLDER}/{media_uuid}.{media_type.partition('/')[2]}"
        return _head(task, **{f"{thing}UUID": media_uuid, f"{thing}URL": url})

    def _delete(self, task: Json, dry: bool) -> Json:
        if "mediaUUID" not in task:
            raise Refused(400, _missing("mediaUUID"))
        if task["mediaUUID"] not in self.uploads:
            message = "No media with this mediaUUID was found."
            error = {"code": "mediaNotFound", "message": message, "parameter": "mediaUUID"}
            raise Refused(404, error)
        if not dry:
            self._use(task)
            del self.uploads[task["mediaUUID"]]
        return _head(task, mediaUUID=task["mediaUUID"])


def _tasks_of(call: Call) -> list[Json]:
    """The tasks of a request that comes with the key, without the one that authenticates."""
    if (call.method, call.path) != ("POST", "/v1"):
        raise Refused(404, {"code": "routeNotFound", "message": "There is only POST /v1."})
    try:
        tasks = json.loads(call.body)
    except ValueError:
        tasks = None
    if not isinstance(tasks, list) or not tasks or not all(isinstance(t, dict) for t in tasks):
        message = "The body must be a JSON array of task objects."
        raise Refused(400, {"code": "invalidRequestBody", "message": message})
    inside = tasks[0].get("taskType") == "authentication"
    header = call.headers.get("authorization", "")
    if (f"Bearer {tasks[0].get('apiKey')}" if inside else header) != f"Bearer {KEY}":
        message = "Invalid API key. Get one at https://my.runware.ai/signup"
        about = {"parameter": "apiKey", "type": "string", "taskType": "authentication"}
        raise Refused(401, {"code": "invalidApiKey", "message": message, **about})
    return tasks[1:] if inside else tasks


def _head(task: Json, **more: Any) -> Json:
    """How every answer to a task begins."""
    names = ("taskType", "taskUUID", "operation")
    return {**{name: task[name] for name in names if name in task}, **more}


def _account(balance_object: bool) -> Json:
    usage = {"credits": 1.2, "requests": 40}
    balance = {"amount": BALANCE, "currency": "USD", "freeBalance": 0}
    return {
        "organizationUUID": "5d3ef3e4-2f6c-4b5a-9c1d-7a5d2b1f0c33",
        "organizationName": "Stand-in Studio",
        "AIRSource": "standin",
        "balance": balance if balance_object else BALANCE,
        "team": [{"name": "Ada", "email": "ada@studio.example", "roles": ["admin"]}],
        "apiKeys": [{"name": "blender", "apiKey": f"{KEY[:6]}…", "enabled": True}],
        "usage": dict.fromkeys(("total", "today", "last7Days", "last30Days"), usage),
    }


def _with_extra(value: Any) -> Any:
    """The same with a key in every object that no client knows."""
    if isinstance(value, dict):
        return {**{k: _with_extra(v) for k, v in value.items()}, "addedLater": {"by": "Runware"}}
    return [_with_extra(item) for item in value] if isinstance(value, list) else value

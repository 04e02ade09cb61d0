# SPDX-License-Identifier: GPL-3.0-or-later
"""All faults × both services: what goes wrong, and what a job must make of it. This table is the documentation of that.

Nothing in it comes from the product: the services' words are those of their documentation, and what becomes of a job follows from
the promises that nothing is paid twice, nothing that was paid is lost, and nobody is told a fairy tale about a charge.
Where a fault has no meaning at a service, the cell says why. `fault_stage.py` makes the faults happen.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

from gate import Point
from services.file_host import Serve
from services.standin import Reply

# The parts of a fault -------------------------------------------------------------------------------------------------

# Steps of a job: requests of these kinds. RESULT is the question that follows the one which said that it is done
SUBMIT, POLL, RESULT, CANCEL, PRICE = "submit", "poll", "result", "cancel", "price"
DOWNLOAD, BALANCE = "download", "balance"
DROP, RESET = "drop", "reset"  # the connection ends; the connection breaks (TCP's RST)
ALWAYS = 10**9

JOB = "bd373968-8512-4315-a95f-95a4401fea3e"  # every job's id, and its task's UUID at Runware
ELSEWHERE = (
    "https://elsewhere.example"  # stands for another origin, which serves a model to whoever asks
)
SERVICE = "https://service.example"  # stands for the service's own origin
KEY = "<the key>"  # stands for the key that the request came with


@dataclass(frozen=True)
class At:
    """A step is answered with `what` in place of the service's own answer: before it gets there, or after. `half`: the service's
    own answer breaks off in the middle."""

    step: str
    what: Reply | str
    times: int = 1
    point: Point = "before"
    skip: int = 0


@dataclass(frozen=True)
class Cancels:
    """The user cancels while a step waits at `point`; after that the reply comes, or the line is cut (`then`), or neither."""

    step: str
    point: Point = "after"
    skip: int = 0
    then: str = "silence"


class Goes:
    """How the service carries the job out: fields of the stand-in's Script."""

    def __init__(self, **script: Any) -> None:
        self.script = script


class Asks:
    """What is asked for: parameters, and `max_cost`."""

    def __init__(self, max_cost: float | None = None, **parameters: Any) -> None:
        self.max_cost, self.parameters = max_cost, parameters


class Serves:
    """How the downloads go, one after the other, from a host that stands in for the service's own. `origin` is where the
    result says that its files are, in place of that host."""

    def __init__(self, *serves: Serve, origin: str = "") -> None:
        self.serves, self.origin = serves, origin


@dataclass(frozen=True)
class Via:
    """The service's address leads to `nobody` (the port is closed), no host at all (`no host`), a server with a certificate that
    nobody signed (`no trust`), or one that speaks no TLS (`no tls`)."""

    way: str


@dataclass(frozen=True)
class Limit:
    """The longest file, or reply, that is taken, in bytes."""

    file: int | None = None
    reply: int | None = None


Act: TypeAlias = At | Cancels | Goes | Asks | Serves | Via | Limit

# A charge: the service tells what a result usually costs; it tells nothing, and the estimate stays
TOLD, ESTIMATED = "told", "estimated"


@dataclass(frozen=True)
class Ends:
    """How a job ends.

    `error` is the class of the error that is told, "" where it is ready, and `words` are in its message (of a job that is ready:
    in a note, or in what was told meanwhile). `accepted` is how many jobs the service has taken on, `sent` how many submits were
    sent, where that matters. `told` says whether the error names the service's id of the request, or which. `charge` is what
    goes into the record of spendings: TOLD, ESTIMATED, another sum that was told, or "about" a sum. `fetches` are the downloads:
    "" for a whole one, else the Range asked for and its If-Range.
    """

    state: str
    error: str = ""
    words: tuple[str, ...] = ()
    accepted: int = 1
    sent: int | None = None
    told: bool | str = True
    parameter: str = ""
    charge: str | float | None = None
    fetches: tuple[str, ...] | None = None
    kept: str = "the file"


Cell: TypeAlias = tuple[Any, ...]  # Acts, and Ends as the last


@dataclass(frozen=True)
class Fault:
    """A row. Each service has a cell, or words that say why it has none."""

    name: str
    fal: Cell | str
    runware: Cell | str


def ready(*words: str, **more: Any) -> Ends:
    return replace(Ends("ready", "", words, charge=TOLD), **more)


def failed(error: str, *words: str, **more: Any) -> Ends:
    return replace(Ends("failed", error, words), **more)


def unsent(error: str, *words: str, **more: Any) -> Ends:
    """Nothing was taken on."""
    return failed(error, *words, **{"accepted": 0, "told": False, **more})


def uncertain(*words: str, **more: Any) -> Ends:
    """It may have been taken on; fal is not asked a second time."""
    ends = Ends("uncertain", "UncertainError", ("may be at work", "and charged", *words), sent=1)
    return replace(ends, **{"told": False, **more})


def cancelled(*words: str, **more: Any) -> Ends:
    return replace(Ends("cancelled", "CancelledError", words), **more)


def left(state: str, *words: str, **more: Any) -> Ends:
    """Nobody waits for it any more, and it can be collected later."""
    return replace(Ends(state, "LeftError", ("esume", *words)), **more)


# What the services say ------------------------------------------------------------------------------------------------


def detail(status: int, what: Any, **headers: str) -> Reply:
    """fal's form of an error; header names with _ for -."""
    return Reply(
        status, {"detail": what}, {name.replace("_", "-"): text for name, text in headers.items()}
    )


def place(parameter: str, kind: str, words: str) -> list[dict[str, Any]]:
    """fal's list of a model's errors, with one entry."""
    return [{"loc": ["body", parameter], "msg": words, "type": kind, "ctx": {}, "input": "…"}]


def error(code: str, message: str, **more: Any) -> dict[str, Any]:
    """One of Runware's errors."""
    return {"code": code, "message": message, "taskUUID": JOB, **more}


def errors(status: int, code: str, message: str, **more: Any) -> Reply:
    return Reply(status, {"errors": [error(code, message, **more)]})


def page(status: int, words: str) -> Reply:
    body = f"<html><head><title>{words}</title></head><body>{words}</body></html>"
    return Reply(status, body.encode(), {"content-type": "text/html"})


def item(**more: Any) -> Reply:
    """Runware's answer to a question after the task."""
    return Reply(200, {"data": [{"taskType": "3dInference", "taskUUID": JOB, **more}]})


NGINX = page(502, "502 Bad Gateway</h1><hr><center>nginx</center>")
LOGIN = page(200, "Sign in to the studio's network")
HALF = Reply(200, b'{"request_id": "764cabcf", "data": [{"taskType": ')
LONG = Reply(200, {"no": 20_000 * "x"}, {"x-fal-request-id": "764cabcf"})
HALF_OF_FALS = replace(HALF, headers={"x-fal-request-id": "764cabcf"})
MOVED = Reply(307, b"", {"location": f"{ELSEWHERE}/v2"})
FAL_ID = {"x-fal-request-id": "764cabcf"}
ECHO = f"cannot read your key {KEY} there"

UNAUTHORIZED = detail(401, "invalid key credentials")
LOCKED = detail(403, "User is locked. Reason: Exhausted balance. Top up your balance.")
BUSY = detail(429, "Too many requests", x_fal_needs_retry="1")
BROKEN = detail(500, "Internal Server Error")
BAD_KEY = errors(401, "invalidApiKey", "Invalid API key", parameter="apiKey")
NO_RIGHT = errors(403, "permissionDenied", "This key may not run models")
NO_CREDIT = errors(402, "insufficientCredits", "Insufficient credits to run this task")
CROWDED = errors(429, "queueRateLimit", "Too many tasks")
DEFECT = errors(500, "internalServerError", "Something went wrong")
UNKNOWN = errors(404, "taskFailedOrNotFound", "The task failed, or was not found")
OUT_OF_MEMORY = error("inferenceError", "CUDA out of memory")
NOT_FOUND = Reply(404, {"status": "NOT_FOUND"})
NO_ROUTE = {"message": "no route matched"}  # as a proxy says it
PAUSED = Reply(202, {"status": "PAUSED", "request_id": "764cabcf"})

NO_KEY_HERE = "to which the key is not sent"
NOT_JSON = "a web page"
SHORT, TOO_LONG = Limit(reply=10_000), "a reply of more than"
COMPLETED = 2  # status answers of the usual job that come before the one which says that it is done


# The table ------------------------------------------------------------------------------------------------------------

NO_CONNECTION = [
    Fault(
        "connection refused",
        fal=(
            Via("nobody"),
            unsent("UnreachableError", "fal cannot be reached", "nothing was sent or charged"),
        ),
        runware=(
            Via("nobody"),
            unsent("UnreachableError", "Runware cannot be reached", "nothing was sent or charged"),
        ),
    ),
    Fault(
        "the host's name is not known",
        fal=(Via("no host"), unsent("UnreachableError", "fal cannot be reached")),
        runware=(Via("no host"), unsent("UnreachableError", "Runware cannot be reached")),
    ),
    Fault(
        "a certificate that nobody signed",
        fal=(
            Via("no trust"),
            unsent("UnreachableError", "certificate is not trusted", "nothing was sent"),
        ),
        runware=(
            Via("no trust"),
            unsent("UnreachableError", "certificate is not trusted", "nothing was sent"),
        ),
    ),
    Fault(
        "no TLS where it is expected",
        fal=(
            Via("no tls"),
            unsent("UnreachableError", "no encrypted connection", "nothing was sent"),
        ),
        runware=(
            Via("no tls"),
            unsent("UnreachableError", "no encrypted connection", "nothing was sent"),
        ),
    ),
    Fault(
        "the connection ends before the submit is read",
        fal=(At(SUBMIT, DROP), uncertain("broke after the request was sent", accepted=0)),
        runware=(At(SUBMIT, DROP), ready(sent=2)),
    ),
    Fault(
        "the connection is reset before the submit is read",
        fal=(At(SUBMIT, RESET), uncertain("broke after the request was sent", accepted=0)),
        runware=(At(SUBMIT, RESET), ready(sent=2)),
    ),
    Fault(
        "the connection is reset after the submit was read",
        fal=(At(SUBMIT, RESET, point="after"), uncertain()),
        runware=(At(SUBMIT, RESET, point="after"), ready(sent=1)),
    ),
    Fault(
        "the same, and the service's history lists the job",
        fal=(Goes(queued=0), At(SUBMIT, RESET, point="after"), ready(sent=1)),
        runware="Runware is asked for the task itself: the row above",
    ),
    Fault(
        "the reply to the submit breaks off in the middle",
        fal=(At(SUBMIT, DROP, point="half"), uncertain()),
        runware=(At(SUBMIT, DROP, point="half"), ready(sent=1)),
    ),
    Fault(
        "the reply is lost, and for a moment the service does not list what it has taken on",
        fal="what fal's history does not list stays uncertain: a row above",
        # the second submit hears conflictTaskUUID, which says that the first one arrived
        runware=(At(SUBMIT, RESET, point="after"), At(POLL, UNKNOWN), ready(sent=2)),
    ),
]

REFUSED = [
    Fault(
        "401 to the submit",
        fal=(
            At(SUBMIT, UNAUTHORIZED),
            unsent(
                "AccountError",
                "fal refuses the key: invalid key credentials. Nothing was charged.",
                "fal.ai/dashboard/keys",
                sent=1,
            ),
        ),
        runware=(
            At(SUBMIT, BAD_KEY),
            unsent(
                "AccountError",
                "Runware refuses the key: Invalid API key. Nothing was charged.",
                "my.runware.ai/keys",
                sent=1,
                told=True,
            ),
        ),
    ),
    Fault(
        "402: there is no credit left",
        fal="fal says so with a 403: the row below",
        runware=(
            At(SUBMIT, NO_CREDIT),
            unsent(
                "AccountError",
                "cannot pay for this: Insufficient credits to run this task. Nothing was charged.",
                "Add credits",
                told=True,
            ),
        ),
    ),
    Fault(
        "403 to the submit",
        fal=(
            At(SUBMIT, LOCKED),
            unsent(
                "AccountError",
                "fal refuses the account: User is locked. Reason: Exhausted balance.",
                "Nothing was charged.",
                "fal.ai/dashboard/billing",
            ),
        ),
        runware=(
            At(SUBMIT, NO_RIGHT),
            unsent("AccountError", "This key may not run models. Nothing was charged.", told=True),
        ),
    ),
    Fault(
        "404 to the submit",
        fal=(
            At(SUBMIT, detail(404, 'Application "trellis-2" not found')),
            unsent(
                "RejectedError",
                'Application "trellis-2" not found. Nothing was charged.',
                "look for an update",
            ),
        ),
        runware=(
            At(SUBMIT, errors(404, "modelNotFound", "No such model", parameter="model")),
            unsent(
                "RejectedError",
                "No such model. Nothing was charged.",
                told=True,
                parameter="model",
            ),
        ),
    ),
    Fault(
        "405 to the submit",
        fal=(
            At(SUBMIT, detail(405, "Method Not Allowed")),
            unsent("RejectedError", "Method Not Allowed. Nothing was charged."),
        ),
        runware="Runware has one path and one method",
    ),
    Fault(
        "a parameter is refused at the submit",
        fal=(
            At(SUBMIT, detail(422, place("texture_size", "one_of", "Input should be 1024"))),
            unsent(
                "RejectedError",
                "texture_size: Input should be 1024. Nothing was charged. Change texture_size.",
                parameter="texture_size",
            ),
        ),
        runware=(
            At(
                SUBMIT,
                errors(
                    400, "invalidTextureSize", "Must be 1024.", parameter="settings.textureSize"
                ),
            ),
            unsent(
                "RejectedError",
                "Must be 1024. Nothing was charged. Change settings.textureSize.",
                told=True,
                parameter="settings.textureSize",
            ),
        ),
    ),
    Fault(
        "several parameters are to blame",
        fal=(
            At(SUBMIT, detail(422, place("seed", "a", "Bad.") + place("remesh", "b", "Worse."))),
            unsent("RejectedError", "seed: Bad.; remesh: Worse. Nothing", parameter="seed"),
        ),
        runware=(
            At(
                SUBMIT,
                errors(
                    400,
                    "incompatibleParameters",
                    "They do not go together.",
                    parameter=["settings.resolution", "settings.textureSize"],
                ),
            ),
            unsent(
                "RejectedError",
                "They do not go together. Nothing was charged.",
                told=True,
                parameter="settings.resolution",
            ),
        ),
    ),
    Fault(
        "a refusal in plain words",
        fal=(
            At(SUBMIT, detail(422, "The body is too long")),
            unsent("RejectedError", "The body is too long. Nothing was charged."),
        ),
        runware=(
            At(SUBMIT, Reply(400, {"error": "The body is too long"})),
            unsent("RejectedError", "The body is too long. Nothing was charged.", told=True),
        ),
    ),
    Fault(
        "a refusal inside a 200",
        fal="a 200 of fal is a yes",
        runware=(
            At(SUBMIT, errors(200, "insufficientCredits", "Insufficient credits")),
            unsent("AccountError", "Insufficient credits. Nothing was charged.", told=True),
        ),
    ),
    Fault(
        "a refusal that repeats the request with its key",
        fal=(
            At(SUBMIT, detail(400, ECHO)),
            unsent("RejectedError", "cannot read your key … there"),
        ),
        runware=(
            At(SUBMIT, errors(400, "invalidHeader", ECHO)),
            unsent("RejectedError", "cannot read your key … there", told=True),
        ),
    ),
]

NO_ANSWER = [
    Fault(
        "429 to the submit, once",
        fal=(At(SUBMIT, BUSY), ready("fal is busy (429): Too many requests.", sent=2)),
        runware=(At(SUBMIT, CROWDED), ready("Runware is busy: Too many tasks.", sent=2)),
    ),
    Fault(
        "429 to the submit for ever",
        fal=(
            At(SUBMIT, BUSY, ALWAYS),
            unsent(
                "UnreachableError", "Too many requests. Nothing was taken on; try again", sent=6
            ),
        ),
        runware=(
            At(SUBMIT, CROWDED, ALWAYS),
            unsent("UnreachableError", "Too many tasks. Nothing was charged; try again", sent=6),
        ),
    ),
    Fault(
        "a proxy's own 502 to the submit, once",
        fal=(At(SUBMIT, NGINX), ready(sent=2)),
        runware=(At(SUBMIT, NGINX), ready(sent=2)),
    ),
    Fault(
        "a proxy's own 502 to the submit for ever",
        fal=(
            At(SUBMIT, NGINX, ALWAYS),
            unsent("UnreachableError", "fal is busy (502)", "try again later", sent=6),
        ),
        runware=(
            At(SUBMIT, NGINX, ALWAYS),
            unsent("UnreachableError", "Runware is busy (502)", "try again later", sent=6),
        ),
    ),
    Fault(
        "500 to the submit: the service itself tripped",
        fal=(At(SUBMIT, BROKEN), uncertain("fal answered 500", accepted=0)),
        runware=(At(SUBMIT, DEFECT), ready(sent=2)),
    ),
    Fault(
        "503 to the submit",
        fal=(At(SUBMIT, detail(503, "Unavailable")), uncertain("Unavailable", accepted=0)),
        runware=(At(SUBMIT, errors(503, "serviceUnavailable", "Try later")), ready(sent=2)),
    ),
    Fault(
        "500 after the submit was taken on",
        fal=(At(SUBMIT, BROKEN, point="after"), uncertain("fal answered 500")),
        runware=(At(SUBMIT, DEFECT, point="after"), ready(sent=1)),
    ),
    Fault(
        "500 to the submit for ever",
        fal="fal is not sent it a second time: the rows above",
        # it is asked for, and sent again, for as long as somebody waits
        runware=(
            Cancels(POLL, "before", skip=3),
            At(SUBMIT, DEFECT, ALWAYS),
            uncertain(
                "Runware answered 500", "to ask Runware again", accepted=0, sent=4, told=True
            ),
        ),
    ),
    Fault(
        "a web page in place of the reply to the submit",
        fal=(At(SUBMIT, LOGIN), uncertain(NOT_JSON, accepted=0)),
        runware=(At(SUBMIT, LOGIN), ready(sent=2)),
    ),
    Fault(
        "half a JSON in reply to the submit",
        fal=(At(SUBMIT, HALF_OF_FALS), uncertain(accepted=0, told="764cabcf")),
        runware=(At(SUBMIT, HALF), ready(sent=2)),
    ),
    Fault(
        "a reply to the submit that is longer than any",
        fal=(SHORT, At(SUBMIT, LONG), uncertain(TOO_LONG, accepted=0, told="764cabcf")),
        runware=(SHORT, At(SUBMIT, LONG), ready(TOO_LONG, sent=2)),
    ),
    Fault(
        "the submit is redirected to another origin",
        fal=(At(SUBMIT, MOVED), unsent("RejectedError", "a redirect to", NO_KEY_HERE, sent=1)),
        runware=(At(SUBMIT, MOVED), ready(sent=2)),
    ),
    *(
        Fault(
            f"the reply's {name} is on another origin",
            fal=(
                At(
                    SUBMIT,
                    Reply(
                        200,
                        {
                            "request_id": "764cabcf",
                            "status_url": f"{SERVICE}/fal-ai/trellis-2/requests/764cabcf/status",
                            "response_url": f"{SERVICE}/fal-ai/trellis-2/requests/764cabcf",
                            "cancel_url": f"{SERVICE}/fal-ai/trellis-2/requests/764cabcf/cancel",
                            name: f"{ELSEWHERE}/fal-ai/trellis-2/requests/764cabcf",
                        },
                        FAL_ID,
                    ),
                ),
                uncertain("cannot be understood", accepted=0, told="764cabcf"),
            ),
            runware="Runware names no addresses to ask at",
        )
        for name in ("status_url", "response_url", "cancel_url")
    ),
]

FAILED_AT_WORK = [
    Fault(
        "the picture is refused",
        fal=(
            Goes(
                outcome=detail(
                    422,
                    place("image_url", "image_load_error", "Failed to load the image."),
                    x_fal_billable_units="0",
                )
            ),
            failed(
                "RejectedError",
                "Failed to load the image. Nothing was charged. Use another picture.",
                parameter="image_url",
            ),
        ),
        runware=(
            Goes(error=error("invalidImage", "Failed to load it.", parameter="inputs.image")),
            failed(
                "RejectedError",
                "Failed to load it. Whether it was charged, my.runware.ai tells.",
                parameter="inputs.image",
            ),
        ),
    ),
    Fault(
        "a refusal in words, as the result",
        fal=(
            Goes(outcome=detail(422, "No object was found")),
            failed(
                "RejectedError", "No object was found. Whether it was charged, fal's pages tell."
            ),
        ),
        runware=(
            Goes(error=error("invalidRequest", "No object was found")),
            failed("RejectedError", "No object was found. Whether it was charged"),
        ),
    ),
    Fault(
        "a refusal after a GPU had worked",
        fal=(
            Goes(
                outcome=detail(
                    422,
                    place("image_url", "no_media_generated", "Nothing was made."),
                    x_fal_billable_units="5",
                )
            ),
            failed(
                "RejectedError",
                "It was charged all the same, about $0.25.",
                parameter="image_url",
                charge="about 0.25",  # told in units, whose price is the table's
            ),
        ),
        runware="Runware names no charge of a task that failed",
    ),
    Fault(
        "the content is not allowed",
        fal=(
            Goes(outcome=detail(422, place("image_url", "content_policy_violation", "Unsafe."))),
            failed("RejectedError", "Unsafe.", "Use another picture.", parameter="image_url"),
        ),
        runware=(
            Goes(error=error("contentPolicyViolation", "Unsafe.")),
            failed("RejectedError", "Unsafe.", "Use another picture"),
        ),
    ),
    Fault(
        "the GPU's memory is full",
        fal=(
            Goes(outcome=detail(503, "CUDA error: out of memory")),
            failed(
                "GenerationError",
                "CUDA error: out of memory. Nothing was charged. Lower the resolution",
            ),
        ),
        runware=(
            Goes(error=OUT_OF_MEMORY),
            failed("GenerationError", "CUDA out of memory.", "Generate again."),
        ),
    ),
    Fault(
        "it did not start in time, by the limit that was set",
        fal=(
            Asks(start_timeout=30),
            Goes(status_error=("Request timed out", "request_timeout")),
            failed(
                "GenerationError",
                "Request timed out. Nothing was charged.",
                "within the start timeout that was set",
            ),
        ),
        runware="Runware has no such limit",
    ),
    Fault(
        "it took too long, by the service's own limit",
        fal=(
            Goes(status_error=("Request timed out", "request_timeout")),
            failed("GenerationError", "Request timed out. Nothing was charged.", "Generate again."),
        ),
        runware=(
            Goes(error=error("timeoutProvider", "The provider did not respond.")),
            failed("GenerationError", "The provider did not respond.", "Generate again."),
        ),
    ),
    Fault(
        "the model's program tripped",
        fal=(
            Goes(outcome=BROKEN),
            failed("GenerationError", "Internal Server Error. Nothing was charged."),
        ),
        runware=(
            Goes(error=error("processingFailed", "It tripped")),
            failed("GenerationError", "It tripped. Whether it was charged, my.runware.ai tells."),
        ),
    ),
    Fault(
        "the status tells of an error, and the result of nothing",
        fal=(
            Goes(status_error=("Runner disconnected", "runner_disconnected")),
            At(RESULT, NOT_FOUND),
            failed("GenerationError", "Runner disconnected."),
        ),
        runware="status and result are one answer",
    ),
    Fault(
        "the account is empty when the task begins",
        fal="fal looks at the account at the submit",
        runware=(
            Goes(error=error("insufficientCredits", "Insufficient credits")),
            failed("AccountError", "Insufficient credits.", "Add credits"),
        ),
    ),
    Fault(
        "somebody cancelled it on the service's own pages",
        fal=(
            Goes(outcome=detail(499, "Request cancelled by the client.")),
            cancelled("The job was cancelled."),
        ),
        runware=(
            Goes(error=error("taskCancelled", "The task was cancelled.")),
            failed("GenerationError", "The task was cancelled."),
        ),
    ),
    Fault(
        "done, and no model is named",
        fal=(
            Goes(outcome=Reply(200, {"timings": {}}, {"x-fal-billable-units": "6"})),
            left("downloading", "names no model", "may have charged", "asked 50 times."),
        ),
        runware=(
            At(POLL, item(status="success", cost=0.0256, outputs={"files": []}), ALWAYS),
            left("downloading", "names no model", "may have charged", "asked 50 times."),
        ),
    ),
    Fault(
        "done, and the model is named only when it is asked again",
        fal=(At(RESULT, Reply(200, {"model_glb": {"url": 5}}, FAL_ID), 2), ready(sent=1)),
        runware=(At(RESULT, item(status="success", outputs={"files": []}), 2), ready(sent=1)),
    ),
    Fault(
        "done at once, and no model is named",
        fal="fal's answer to a submit names no model",
        runware=(At(SUBMIT, item(status="success", outputs={}), point="after"), ready(sent=1)),
    ),
    Fault(
        "the service has forgotten the job",
        fal=(
            At(POLL, NOT_FOUND, ALWAYS),
            failed("GenerationError", "fal does not know this job any more"),
        ),
        runware=(
            At(POLL, UNKNOWN, ALWAYS),
            failed("GenerationError", "Runware does not know this task any more"),
        ),
    ),
    Fault(
        "the service does not know the job yet",
        fal=(At(POLL, NOT_FOUND, 3), ready()),
        runware=(At(POLL, UNKNOWN, 3), ready()),
    ),
    Fault(
        "the service does not know the result yet",
        fal=(At(RESULT, NOT_FOUND, 3), ready()),
        runware=(At(RESULT, UNKNOWN, 3), ready()),
    ),
    Fault(
        "the service has forgotten the result",
        fal=(At(RESULT, NOT_FOUND, ALWAYS), failed("GenerationError", "does not know this job")),
        runware=(At(RESULT, UNKNOWN, ALWAYS), failed("GenerationError", "not know this task")),
    ),
    Fault(
        "one of two variations failed, told among the errors",
        fal="fal makes one model a job",
        runware=(
            Asks(numberResults=2),
            Goes(failed={0: OUT_OF_MEMORY}),
            ready("1 of 2 models failed: CUDA out of memory"),
        ),
    ),
    Fault(
        "one of two variations failed, told among the results",
        fal="fal makes one model a job",
        runware=(
            Asks(numberResults=2),
            Goes(failed={1: OUT_OF_MEMORY}, item_errors=True),
            ready("1 of 2 models failed: CUDA out of memory"),
        ),
    ),
    Fault(
        "both variations failed",
        fal="fal makes one model a job",
        runware=(
            Asks(numberResults=2),
            Goes(failed={0: OUT_OF_MEMORY, 1: OUT_OF_MEMORY}, item_errors=True),
            failed("GenerationError", "CUDA out of memory"),
        ),
    ),
]

# Answers to a question after a job that say nothing about the job: it is asked again, and goes on
_NOTHING_SAID: dict[str, tuple[Reply | str, Reply | str]] = {
    "401": (UNAUTHORIZED, BAD_KEY),
    "402": (detail(402, "Payment required"), NO_CREDIT),
    "403": (LOCKED, NO_RIGHT),
    "403 with a code that nobody knows": (
        detail(403, "Forbidden"),
        errors(403, "regionBlocked", "Not from here"),
    ),
    "408": (detail(408, "Request Timeout"), errors(408, "requestTimeout", "Too slow")),
    "429": (BUSY, CROWDED),
    "500": (
        page(500, "Internal Server Error"),
        DEFECT,
    ),
    "503": (detail(503, "Unavailable"), errors(503, "serviceUnavailable", "Try later")),
    **{
        f"{status} in a proxy's JSON": (Reply(status, NO_ROUTE), Reply(status, NO_ROUTE))
        for status in (400, 404, 422, 499, 500)
    },
    "a proxy's error in JSON": (
        Reply(200, {"error": "no route"}),
        Reply(200, {"errors": [{"code": "noRoute", "message": "no route matched"}]}),
    ),
    "504": (page(504, "Gateway Timeout"), errors(504, "gatewayTimeout", "Too slow")),
    "a proxy's own 502": (NGINX, NGINX),
    "a web page": (LOGIN, LOGIN),
    "half a JSON": (HALF, HALF),
    "a JSON list": (Reply(200, ["?"]), Reply(200, ["?"])),
    "a JSON without an end": (Reply(200, b"[" * 100_000), Reply(200, b"[" * 100_000)),
    "an empty object": (Reply(200, {"no": "state"}), Reply(200, {"data": []})),
    "a redirect": (MOVED, MOVED),
    "a 500 that repeats the key": (
        Reply(500, ECHO.encode(), {"content-type": "text/plain"}),
        Reply(500, ECHO.encode(), {"content-type": "text/plain"}),
    ),
    "a connection that ends": (DROP, DROP),
    "a connection that is reset": (RESET, RESET),
}
ASKED_AGAIN = [
    Fault(
        f"{name} to a question after the {what}",
        fal=(At(step, fal, 2), ready(sent=1)),
        runware=(At(step, runware, 2), ready(sent=1)),
    )
    for step, what in ((POLL, "job"), (RESULT, "result"))
    for name, (fal, runware) in _NOTHING_SAID.items()
] + [
    *(
        Fault(
            f"a reply that is longer than any to a question after the {what}",
            fal=(SHORT, At(step, LONG, 2), ready(TOO_LONG, sent=1)),
            runware=(SHORT, At(step, LONG, 2), ready(TOO_LONG, sent=1)),
        )
        for step, what in ((POLL, "job"), (RESULT, "result"))
    ),
    Fault(
        "a result that is always longer than any reply",
        fal=(SHORT, At(RESULT, LONG, ALWAYS), left("downloading", TOO_LONG, "asked 50 times.")),
        runware=(SHORT, At(RESULT, LONG, ALWAYS), left("downloading", TOO_LONG, "asked 50 times.")),
    ),
    Fault(
        "answers that never make sense",
        fal=(At(POLL, Reply(200, {}), ALWAYS), left("running", "It was asked 50 times.")),
        runware=(At(POLL, Reply(200, {"data": []}), ALWAYS), left("running", "asked 50 times.")),
    ),
    Fault(
        "500 in JSON to a question after the job",
        fal=(At(POLL, BROKEN, 2), ready(sent=1)),
        runware="a row above",
    ),
    Fault(
        "the result is not there yet after all",
        fal=(At(RESULT, detail(400, "Request is still in progress"), 2), ready(sent=1)),
        runware="status and result are one answer",
    ),
    Fault(
        "keys that nobody knows in every answer",
        fal=(Goes(extra=True), ready()),
        runware=(Goes(extra=True), ready()),
    ),
    Fault(
        "every key missing that may be missing",
        fal=(Goes(sparse=True, units=None), ready(charge=ESTIMATED)),
        runware=(Goes(no_status=True, index=False, cost=None), ready(charge=ESTIMATED)),
    ),
    Fault(
        "a word for the state that nobody knows",
        fal=(At(POLL, PAUSED, 2), ready("State PAUSED")),
        runware=(Goes(word="pausing", processing=3), ready()),
    ),
    Fault(
        "back in the queue after it was at work",
        fal=(Goes(bounce=True), ready("Waiting in the queue")),
        runware="Runware tells no queue",
    ),
]

CANCELLED = [
    Fault(
        "cancelled before it is sent",
        fal=(
            Asks(max_cost=1.0),
            Cancels(PRICE, "before"),
            cancelled(accepted=0, sent=0, told=False),
        ),
        runware=(
            Asks(max_cost=1.0),
            Cancels(PRICE, "before"),
            cancelled(accepted=0, sent=0, told=False),
        ),
    ),
    Fault(
        "cancelled while it is sent, and the reply comes",
        fal=(Goes(held=True), Cancels(SUBMIT, then="reply"), cancelled(sent=1)),
        runware=(
            Goes(held=True),
            Cancels(SUBMIT, then="reply"),
            left("running", "Runware cannot cancel: the job goes on there", sent=1),
        ),
    ),
    Fault(
        "cancelled while it is sent, and no reply comes",
        fal=(Cancels(SUBMIT, then=DROP), uncertain("No reply came")),
        runware=(Cancels(SUBMIT, then=DROP), uncertain("No reply came")),
    ),
    Fault(
        "cancelled in the queue, and the service sends a signal",
        fal=(
            Goes(cancel="signal"),
            Cancels(POLL),
            cancelled("If fal had begun already, it may finish the job and charge it."),
        ),
        runware="Runware tells no queue",
    ),
    Fault(
        "cancelled in the queue, and the service removes it",
        fal=(Goes(cancel="removed"), Cancels(POLL), cancelled()),
        runware="Runware tells no queue",
    ),
    Fault(
        "cancelled at work, and the service sends a signal",
        fal=(Goes(cancel="signal"), Cancels(POLL, skip=1), cancelled("may finish the job")),
        runware=(
            Cancels(POLL),
            left("running", "Runware cannot cancel: the job goes on there, and is charged."),
        ),
    ),
    Fault(
        "cancelled at work, and the model pays no attention",
        fal=(
            Goes(cancel="ignored", held=True),
            Cancels(POLL, skip=1),
            cancelled("may finish the job and charge it"),
        ),
        runware="the row above",
    ),
    Fault(
        "cancelled when it is done and nobody knows yet",
        fal=(
            Cancels(POLL, skip=COMPLETED),
            ready("It was finished before it could be cancelled."),
        ),
        runware=(Cancels(POLL, skip=1), left("running", "Runware cannot cancel")),
    ),
    Fault(
        "cancelled when it is done, and the result never makes sense",
        fal=(
            Cancels(POLL, skip=COMPLETED),
            At(RESULT, HALF, ALWAYS),
            left("downloading", "It was asked 50 times."),
        ),
        runware="nothing can be cancelled there",
    ),
    Fault(
        "cancelled, and the service has forgotten the job",
        fal=(
            Cancels(POLL),
            At(CANCEL, NOT_FOUND),
            cancelled(),
        ),
        runware="nothing can be cancelled there",
    ),
    *(
        Fault(
            f"cancelled, and {name} answers",
            fal=(
                Cancels(POLL),
                At(CANCEL, what, ALWAYS),
                cancelled("fal could not be told", "it may go on, and charge the job"),
            ),
            runware="nothing can be cancelled there",
        )
        for name, what in (
            ("a 401", UNAUTHORIZED),
            ("a 500", BROKEN),
            ("nobody", DROP),
            ("a redirect", MOVED),
        )
    ),
    Fault(
        "cancelled while the model is fetched",
        fal=(
            Serves(Serve(until=1000, held=True)),
            Cancels(DOWNLOAD),
            left("downloading", "The model is made and paid for", fetches=("",)),
        ),
        runware=(
            Serves(Serve(until=1000, held=True)),
            Cancels(DOWNLOAD),
            left("downloading", "The model is made and paid for", fetches=("",)),
        ),
    ),
]


def _both(name: str, *cell: Any) -> Fault:
    """A fault of the files' host, which is the same for both services."""
    return Fault(name, cell, cell)


V1 = Serve(etag='"v1"')
HERE = 'bytes=1000- "v1"'  # the rest, if it is still that version

DOWNLOADS = [
    _both("all is well", Serves(Serve()), ready(fetches=("",))),
    _both(
        "cut off, the length was told",
        Serves(Serve(until=1000), Serve()),
        ready(fetches=("", "")),
    ),
    _both(
        "cut off among chunks",
        Serves(Serve(until=1000, framing="chunks"), Serve()),
        ready(fetches=("", "")),
    ),
    _both(
        "cut off, which only the file itself tells",
        Serves(Serve(until=1000, framing="close"), Serve()),
        ready(fetches=("", "")),
    ),
    _both(
        "cut off before the first byte",
        Serves(Serve(until=0, etag='"v1"'), Serve()),
        ready(fetches=("", "")),
    ),
    _both(
        "cut off, and gone on with where it broke",
        Serves(replace(V1, until=1000), V1),
        ready(fetches=("", HERE)),
    ),
    _both(
        "cut off twice",
        Serves(replace(V1, until=1000), replace(V1, until=1500, framing="chunks"), V1),
        ready(fetches=("", HERE, 'bytes=1500- "v1"')),
    ),
    _both(
        "cut off, and another version lies there now",
        Serves(replace(V1, until=1000), Serve(etag='"v2"', body=b"<the other file>")),
        ready(fetches=("", HERE), kept="the other file"),
    ),
    _both(
        "cut off, and gone on with in another version",
        Serves(
            replace(V1, until=1000),
            Serve(etag='"v2"', body=b"<the other file>", stubborn=True),
            Serve(etag='"v2"', body=b"<the other file>"),
        ),
        ready(fetches=("", HERE, ""), kept="the other file"),
    ),
    _both(
        "cut off, and gone on with at a wrong place",
        Serves(replace(V1, until=1000), replace(V1, skewed=True), V1),
        ready(fetches=("", HERE, "")),
    ),
    _both(
        "cut off, and the version promises nothing",
        Serves(Serve(until=1000, etag='W/"v1"'), Serve()),
        ready(fetches=("", "")),
    ),
    _both("it arrives in drops", Serves(Serve(drops=True)), ready(fetches=("",))),
    _both(
        "longer than any model, as told",
        Limit(file=1000),
        Serves(Serve()),
        failed("ResultError", "longer than any model", charge=TOLD, fetches=("",) * 3),
    ),
    _both(
        "longer than any model, as it turns out",
        Limit(file=1000),
        Serves(Serve(framing="chunks")),
        failed("ResultError", "longer than any model", charge=TOLD, fetches=("",) * 3),
    ),
    _both(
        "called an image",
        Serves(Serve(headers={"content-type": "image/png"})),
        ready(fetches=("",)),
    ),
    _both(
        "no model at all",
        Serves(Serve(body=b"<html>Sign in</html>")),
        failed("ResultError", "broken GLB", charge=TOLD, fetches=("", "", "")),
    ),
    _both(
        "no model at first",
        Serves(Serve(body=b"<html>Sign in</html>"), Serve()),
        ready(fetches=("", "")),
    ),
    _both(
        "nothing at all",
        Serves(Serve(body=b"")),
        failed("ResultError", "broken GLB", charge=TOLD, fetches=("", "", "")),
    ),
    *(
        _both(
            f"{status} for the file",
            Serves(Serve(status)),
            failed("ResultError", "no longer has the model", charge=TOLD, fetches=("",) * 3),
        )
        for status in (403, 404, 410)
    ),
    *(
        _both(f"{status} for the file at first", Serves(Serve(status), Serve()), ready())
        for status in (403, 404, 410)
    ),
    Fault(
        "the file is elsewhere when it is asked for again",
        fal=(
            Serves(Serve()),
            At(RESULT, Reply(200, {"model_glb": {"url": "http://["}}, FAL_ID), 2),
            ready(fetches=("",), charge=ESTIMATED),
        ),
        runware=(
            Serves(Serve()),
            At(RESULT, item(outputs={"files": [{"uuid": "1", "url": "http://["}]}), 2),
            ready(fetches=("",), charge=ESTIMATED),
        ),
    ),
    *(
        _both(
            f"{status} for the file, twice",
            Serves(Serve(status), Serve(status), Serve()),
            ready(fetches=("", "", "")),
        )
        for status in (429, 500, 503)
    ),
    _both(
        "the download is redirected to another origin",
        Serves(Serve(302, headers={"location": f"{ELSEWHERE}/model.glb"})),
        ready(fetches=("",)),
    ),
    _both(
        "the model is on another origin",
        Serves(origin=ELSEWHERE),
        ready(fetches=()),
    ),
    _both(
        "the model is offered without encryption",
        Serves(origin="http://files.example"),
        failed("ResultError", "without encryption", charge=TOLD, fetches=()),
    ),
    Fault(
        "the model is on the service's own origin, which sends it elsewhere",
        fal=(
            Serves(origin=f"{SERVICE}/own"),
            At(DOWNLOAD, Reply(302, b"", {"location": f"{ELSEWHERE}/model.glb"}), 2),
            At(DOWNLOAD, Reply(200, b"<the file>", {"content-type": "model/gltf-binary"})),
            ready(fetches=()),
        ),
        runware="the key goes to none of Runware's files",
    ),
    Fault(
        "one of two models is broken",
        fal="fal makes one model a job",
        runware=(
            Asks(numberResults=2),
            Serves(*[Serve(body=b"<html>Sign in</html>")] * 3, Serve()),
            ready("1 of 2 models failed: ", "broken GLB", charge=0.0512, fetches=("",) * 4),
        ),
    ),
]

TABLE = [
    *NO_CONNECTION,
    *REFUSED,
    *NO_ANSWER,
    *FAILED_AT_WORK,
    *ASKED_AGAIN,
    *CANCELLED,
    *DOWNLOADS,
]


def cells() -> list[tuple[str, str, Cell]]:
    """Service, name of the fault, and cell, of every cell that is not empty."""
    found = []
    for fault in TABLE:
        for service in ("fal", "runware"):
            cell = getattr(fault, service)
            if not isinstance(cell, str):
                found.append((service, fault.name, cell))
    return found


def as_json(reply: Reply) -> bytes:
    """The body of a reply as it goes out."""
    return reply.body if isinstance(reply.body, bytes) else json.dumps(reply.body).encode()

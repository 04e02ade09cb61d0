# SPDX-License-Identifier: GPL-3.0-or-later
"""fal's queue protocol: submit, status with logs, result, cancel, download.

Source: fal's documentation of its queue and the behaviour of its own clients. The rules that matter:
- status, result and cancel go to the URLs of the submit's reply, never to ones made up here; the key goes with them only if
  their origin is the configured base;
- a job that failed is COMPLETED too; what became of it is told by the result's URL;
- it has failed only where the service itself says so: what makes no sense is asked for again, since it may be paid for;
- a 401, 403, 429 or 5xx to a question after a job says nothing about the job;
- a lost reply to a submit is no reason to send it again, unless the server takes a key that makes it one job.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx

from ..errors import (
    AccountError,
    CancelledError,
    GenerationError,
    InputError,
    RejectedError,
    TrellisError,
    UncertainError,
    UnreachableError,
)
from . import AT_WORK, Account, Made, Outcome, Status, Submission, Ticket, wire

_STATES = ("IN_QUEUE", "IN_PROGRESS", "COMPLETED")
_IMAGE_KEYS = ("image_url", "image_urls")


class QueueService:
    """A server that speaks fal's queue protocol, at `base_url`, with `key`."""

    name = "fal"
    repeatable = False
    attempts: int | None = None
    cancellable = True
    poll_seconds = (1.0, 3.0)
    patience = 1  # answers that it does not know a job, after which that is believed

    def __init__(self, base_url: str, key: str) -> None:
        self._base_url = base_url
        self._key = key
        self._client = wire.open_client(base_url)
        self._missed: Counter[str] = Counter()

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    async def ready(self) -> None:
        """Nothing to prepare: a remote server is there or not."""

    async def _address(self) -> tuple[str, str]:
        """Base URL and key."""
        return self._base_url, self._key

    async def _send(self, method: str, url: str, **more: Any) -> httpx.Response:
        """One request to the service itself; `url` is relative to the base."""
        base, key = await self._address()
        headers = {"Authorization": f"Key {key}", **more.pop("headers", {})}
        return await wire.send(self._client, method, base + url, headers=headers, **more)

    async def _ask(self, method: str, url: str, **more: Any) -> httpx.Response:
        """One request that can be repeated; raises UnreachableError where there is no answer of the service's own."""
        try:
            reply = await self._send(method, url, **more)
        except httpx.HTTPError as error:
            raise UnreachableError(f"{self.name} does not answer ({wire.why(error)}).") from error
        if reply.is_redirect or reply.status_code in (401, 403, 408, 409, 429):
            raise wire.later(
                reply,
                f"{self.name} answered {reply.status_code} instead of the job's state: {said(reply)}.",
            )
        return reply

    async def attach(self, data: bytes, media_type: str) -> str:
        """A data URI."""
        return wire.data_uri(data, media_type)

    async def submit(self, submission: Submission) -> Ticket:
        """Send a request; its key names it where the service can tell a repetition by it.

        Raises:
            UnreachableError: nothing was accepted; it may be sent again.
            UncertainError: it was sent, and no reply tells what became of it.
            AccountError, RejectedError: the service said no.
        """
        headers = {"Idempotency-Key": submission.key, "Accept": "application/json"}
        try:
            reply = await self._send(
                "POST",
                f"/{submission.endpoint}",
                json=submission.body,
                params=submission.query,
                headers=headers | submission.headers,
            )
        except wire.NEVER_SENT as error:
            raise UnreachableError(
                f"{self.name} cannot be reached ({wire.why(error)}); nothing was sent or charged. Check the connection."
            ) from error
        except httpx.HTTPError as error:
            raise self._uncertain(
                f"The connection to {self.name} broke after the request was sent ({wire.why(error)})."
            ) from error
        if reply.is_success:
            return await self._ticket(reply)
        if reply.status_code == 429 or wire.refused_by_proxy(reply):
            raise wire.later(
                reply,
                f"{self.name} is busy ({reply.status_code}): {said(reply)}. Nothing was taken on; try again later.",
            )
        if reply.status_code >= 500:
            words = f"{self.name} answered {reply.status_code} to the request: {said(reply)}."
            raise wire.later(reply, words) if self.repeatable else self._uncertain(words, reply)
        raise self._refusal(reply)

    async def _ticket(self, reply: httpx.Response) -> Ticket:
        answer = wire.json_object(reply)
        try:
            if answer is None:
                raise ValueError("no JSON object")
            return Ticket(
                request_id=_text(answer["request_id"]),
                status_url=await self._relative(answer["status_url"]),
                response_url=await self._relative(answer["response_url"]),
                cancel_url=await self._relative(answer["cancel_url"]),
            )
        except (ValueError, KeyError, TypeError, AttributeError, httpx.InvalidURL) as error:
            raise self._uncertain(
                f"{self.name} accepted the request with an answer that cannot be understood: {wire.excerpt(reply)}.",
                reply,
            ) from error

    def _uncertain(self, message: str, reply: httpx.Response | None = None) -> UncertainError:
        request_id = reply.headers.get("x-fal-request-id") if reply else None
        return UncertainError(
            f"{message} It may be at work, and charged; look at {self.name} before sending it again.",
            request_id=request_id,
        )

    async def find(self, submission: Submission, known: frozenset[str]) -> Ticket | None:
        """The protocol has no way to ask for a job without its id."""
        return None

    async def adopt(self, submission: Submission, request_id: str) -> Ticket:
        """A ticket for a request whose id alone is known.

        Raises:
            UnreachableError: ask again.
            InputError: the service does not know it.
        """
        ticket = self._ticket_of(submission, request_id)
        reply = await self._ask("GET", ticket.status_url)
        if reply.status_code == 404:
            raise InputError(
                f"{self.name} knows no request {request_id} of {submission.endpoint}. Copy its id from {self.name}'s own pages."
            )
        return ticket

    @staticmethod
    def _ticket_of(submission: Submission, request_id: str) -> Ticket:
        """A ticket made by fal's rule: the URLs name owner and app alone, whatever path the endpoint has below them."""
        owner, app, *_ = submission.endpoint.split("/")
        job = f"/{owner}/{app}/requests/{quote(request_id, safe='')}"
        return Ticket(request_id, f"{job}/status", job, f"{job}/cancel")

    async def _relative(self, url: str) -> str:
        """`url` without the base. Anything elsewhere is refused, as the key would go with it."""
        base, _ = await self._address()
        if not url.startswith(f"{base}/"):
            raise ValueError("a URL of the reply is not on the service itself")
        httpx.URL(url)  # raises InvalidURL for what nobody could ask
        return url.removeprefix(base)

    async def _ask_status(self, ticket: Ticket, *, logs: str) -> httpx.Response:
        # httpx's `params` would drop a query that the server's URL has
        url = httpx.URL(ticket.status_url).copy_merge_params({"logs": logs})
        return await self._ask("GET", str(url))

    async def status(self, ticket: Ticket) -> Status:
        """How far the job is.

        Raises:
            UnreachableError: no answer, or one that says nothing about the job: ask again.
            GenerationError: the service does not know the job any more.
        """
        reply = await self._ask_status(ticket, logs="1")
        answer = wire.json_object(reply)
        if _knows_no_job(reply):
            raise self._missing(reply, ticket)
        state = (answer or {}).get("status")
        if answer is None or reply.status_code >= 300 or not isinstance(state, str):
            raise wire.later(reply, f"{self.name} answered without a state: {said(reply)}.")
        return Status(
            completed=state == "COMPLETED",
            message=_message(answer, state),
            **_progress(answer, state),
        )

    async def result(self, ticket: Ticket) -> Outcome:
        """What a completed job made.

        Raises:
            UnreachableError: ask again.
            CancelledError, RejectedError, GenerationError: what became of it instead.
        """
        reply = await self._ask("GET", ticket.response_url)
        answer = wire.json_object(reply)
        if _knows_no_job(reply):
            raise await self._end_by_status(reply, ticket)
        if not reply.is_success:
            raise self._failure(reply, ticket)
        if answer is None:
            raise wire.later(
                reply, f"{self.name}'s answer cannot be understood: {wire.excerpt(reply)}."
            )
        file = answer.get("model_glb") or answer.get("model_mesh") or {}
        if not isinstance(file, dict) or not isinstance(file.get("url"), str):
            raise wire.later(
                reply,
                f"{self.name} says that it is done but names no model. It may have charged for it; ask {self.name}'s "
                "support with the request's id.",
            )
        base, _ = await self._address()
        seed = answer.get("seed")
        url = file["url"].removeprefix(base)  # it may have another port when it is fetched
        made = Made(url, seed if isinstance(seed, int) else None)
        notes = answer.get("notes")  # the sidecar's
        said_of_it = [str(note) for note in notes] if isinstance(notes, list) else []
        return Outcome([made], await self._charge(reply), notes=said_of_it)

    async def _charge(self, reply: httpx.Response) -> dict[str, Any] | None:
        """What a job cost, as far as its result tells: nothing here."""
        return None

    def _failure(self, reply: httpx.Response, ticket: Ticket) -> TrellisError:
        """The error behind a result that is none."""
        if reply.status_code == 400 and said(reply).startswith("Request is still in progress"):
            return wire.later(reply, f"{self.name} has not finished after all.")
        # The answer of the job itself carries its id, or an error's shape; a proxy's has neither
        of_the_job = reply.status_code != 404 and (
            "x-fal-request-id" in reply.headers
            or (reply.status_code in (400, 422, 499, 500) and _is_error(reply))
        )
        if not of_the_job:
            return wire.later(
                reply,
                f"{self.name} answered {reply.status_code} in place of the result: {said(reply)}.",
            )
        if reply.status_code == 499:
            return CancelledError("The job was cancelled.", request_id=ticket.request_id)
        return self._refusal(reply, ticket)

    async def _end_by_status(self, gone: httpx.Response, ticket: Ticket) -> TrellisError:
        """A result that is gone: the status may still say what the job ended with."""
        answer = wire.json_object(await self._ask_status(ticket, logs="0")) or {}
        if isinstance(answer.get("error"), str):
            return GenerationError(
                f"{self.name} failed: {wire.short(answer['error'])}. It is not charged, as far as is known. Generate again.",
                request_id=ticket.request_id,
            )
        return self._missing(gone, ticket)

    async def cancel(self, ticket: Ticket) -> bool:
        """Ask for cancellation. A queued job goes; a running one hears a signal, and may finish and cost all the same.

        Returns False where it comes too late.
        """
        reply = await self._ask("PUT", ticket.cancel_url)
        if reply.status_code >= 500:
            raise wire.later(reply, f"{self.name} answered {reply.status_code}: {said(reply)}.")
        answer = wire.json_object(reply) or {}
        return answer.get("status") != "ALREADY_COMPLETED"

    async def collected(self, ticket: Ticket) -> None:
        """The result is kept here: fal needs no telling."""

    async def price(self, submission: Submission) -> float | None:
        """The protocol knows no prices."""
        return None

    async def account(self) -> Account:
        """The protocol knows no accounts."""
        return Account()

    async def download(self, url: str, to: Path, progress: Callable[[float], None]) -> None:
        """Write the file at `url` to `to`; the key goes along only to the service itself."""
        base, key = await self._address()
        url = wire.address(url, base)
        ours = wire.same_origin(url, base)
        headers = {"Authorization": f"Key {key}"} if ours else {}
        await wire.download(self._client, url, to, progress, headers)

    def _missing(self, reply: httpx.Response, ticket: Ticket) -> TrellisError:
        """The error behind an answer that the service does not know the job."""
        self._missed[ticket.request_id] += 1
        if self._missed[ticket.request_id] < self.patience:
            return wire.later(reply, f"{self.name} does not find the job.")
        return GenerationError(
            f"{self.name} does not know this job any more. Whether it was charged, its own pages tell. Generate again.",
            request_id=ticket.request_id,
        )

    def _refusal(self, reply: httpx.Response, ticket: Ticket | None = None) -> TrellisError:
        """The error behind an answer that is no success."""
        request_id = ticket.request_id if ticket else reply.headers.get("x-fal-request-id")
        if reply.status_code in (401, 403):
            return AccountError(
                f"{self.name} refuses the key: {said(reply)}. Check it in the preferences.",
                request_id=request_id,
            )
        if reply.is_redirect or reply.status_code in (400, 404, 405, 408, 409, 413, 422):
            return RejectedError(
                f"{self.name} refuses the request: {said(reply)}.",
                request_id=request_id,
                parameter=parameter(reply),
            )
        return GenerationError(f"{self.name} failed: {said(reply)}.", request_id=request_id)


def _is_error(reply: httpx.Response) -> bool:
    """Whether it has the form of fal's errors."""
    return not {"detail", "error", "error_type"}.isdisjoint(wire.json_object(reply) or {})


def _knows_no_job(reply: httpx.Response) -> bool:
    """Whether the service itself, and not something in between, says that there is no such job."""
    named = (wire.json_object(reply) or {}).get("status") == "NOT_FOUND"
    return reply.status_code == 404 and (named or _is_error(reply))


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise TypeError("no text")
    return value


def _message(answer: dict[str, Any], state: str) -> str:
    if state == "IN_QUEUE":
        if (waits := answer.get("waits_for")) and isinstance(waits, str):  # the sidecar's
            return wire.short(waits)
        ahead = answer.get("queue_position")
        return f"Waiting in the queue, {ahead} ahead" if ahead else "Waiting in the queue"
    if state not in _STATES:  # a word that this client does not know is no end
        return f"State {wire.short(state)}"
    logs = answer.get("logs")
    last = logs[-1] if isinstance(logs, list) and logs else None
    return wire.short(str(last.get("message", ""))) if isinstance(last, dict) else ""


def _progress(answer: dict[str, Any], state: str) -> dict[str, Any]:
    """What the sidecar says beyond fal: stage, step, steps, fraction, seconds left."""
    progress = answer.get("progress")
    if not isinstance(progress, dict):
        return {"stage": AT_WORK if state == "IN_PROGRESS" else ""}
    numbers = {
        name: float(progress[name]) if isinstance(progress.get(name), int | float) else None
        for name in ("step", "steps", "fraction", "eta")
    }
    return {
        "stage": wire.short(str(progress.get("stage", ""))),
        "step": int(numbers["step"] or 0),
        "steps": int(numbers["steps"] or 0),
        "fraction": numbers["fraction"],
        "eta": numbers["eta"],
    }


def _places(reply: httpx.Response) -> list[tuple[str, str]]:
    """Parameter and message of each entry in fal's list of a model's errors; [] where it is another shape."""
    detail = (wire.json_object(reply) or {}).get("detail")
    found = []
    for item in detail if isinstance(detail, list) else []:
        if isinstance(item, dict) and "msg" in item:
            loc = item.get("loc")
            where = [str(part) for part in loc if part != "body"] if isinstance(loc, list) else []
            found.append((where[0] if where else "", str(item["msg"])))
    return found


def parameter(reply: httpx.Response) -> str:
    return next((wire.short(where) for where, _ in _places(reply) if where), "")


def said(reply: httpx.Response) -> str:
    """The words of an error, without their last full stop: fal's list of model errors, its platform errors, or whatever a
    proxy wrote."""
    places = _places(reply)
    if places:
        # what is said of a picture needs no field's name
        named = [
            f"{where}: {text}" if where not in ("", *_IMAGE_KEYS) else text
            for where, text in places
        ]
        return wire.short("; ".join(named).rstrip(". "))
    answer = wire.json_object(reply) or {}
    if isinstance(answer.get("detail"), str) and answer["detail"]:
        return wire.short(answer["detail"].rstrip(". "))
    return wire.excerpt(reply).rstrip(". ")

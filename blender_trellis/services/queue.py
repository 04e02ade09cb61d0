# SPDX-License-Identifier: GPL-3.0-or-later
"""fal's queue protocol: submit, status with logs, result, cancel, download.

Source: fal's documentation of its queue and the behaviour of its own clients. The rules that matter:
- status, result and cancel go to the URLs of the submit's reply, never to ones made up here; the key goes with them only if
  their origin is the configured base;
- a job that failed is COMPLETED too; what became of it is told by the result's URL;
- a lost reply to a submit is no reason to send it again, unless the server takes a key that makes it one job.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urljoin, urlsplit

import httpx

from ..config import LOOPBACK
from ..errors import (
    AccountError,
    CancelledError,
    GenerationError,
    RejectedError,
    ResultError,
    TrellisError,
    UncertainError,
    UnreachableError,
)
from . import Outcome, Status, Ticket

_IMAGE_KEYS = ("image_url", "image_urls")

_NEVER_SENT = (
    httpx.ConnectError,
    httpx.ConnectTimeout,
    httpx.PoolTimeout,
    httpx.UnsupportedProtocol,
)
# No GLB that a model makes comes near; a longer body is a mistake or an attack
MAX_RESULT_BYTES = 4 * 2**30


class QueueService:
    """A server that speaks fal's queue protocol, at `base_url`, with `key`."""

    repeatable = False
    poll_seconds = (1.0, 3.0)
    name = "fal"

    def __init__(self, base_url: str, key: str) -> None:
        self._base_url = base_url
        self._key = key
        # A model may compute for minutes between two bytes of nothing, but every single answer is short
        timeout = httpx.Timeout(60, connect=10, write=300)
        ours = (
            not base_url or urlsplit(base_url).hostname in LOOPBACK
        )  # no proxy leads to this computer
        self._client = httpx.AsyncClient(timeout=timeout, trust_env=not ours)

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
        return await self._client.request(method, base + url, headers=headers, **more)

    async def _ask(self, method: str, url: str, **more: Any) -> httpx.Response:
        """One request that can be repeated; raises UnreachableError where repeating it may help."""
        try:
            reply = await self._send(method, url, **more)
        except httpx.HTTPError as error:
            raise UnreachableError(f"{self.name} does not answer ({_why(error)}).") from error
        # An answer of the job itself carries its id; any other of these says nothing about the job (fal's own clients)
        about_job = "x-fal-request-id" in reply.headers
        if reply.status_code in (401, 403, 408, 429) or (
            reply.status_code >= 500 and not about_job
        ):
            raise UnreachableError(
                f"{self.name} answered {reply.status_code} instead of the job's state: {_detail(reply)}"
            )
        return reply

    async def submit(
        self, key: str, endpoint: str, body: dict[str, Any], headers: dict[str, str]
    ) -> Ticket:
        """Send a request; `key` names it where the service can tell a repetition by it.

        Raises:
            UnreachableError: the connection was never made: nothing was sent.
            UncertainError: it was sent and no reply came.
            AccountError, RejectedError: the service said no.
        """
        try:
            reply = await self._send(
                "POST", f"/{endpoint}", json=body, headers={"Idempotency-Key": key, **headers}
            )
        except _NEVER_SENT as error:
            raise UnreachableError(
                f"{self.name} cannot be reached ({_why(error)}); nothing was sent. Check the connection."
            ) from error
        except httpx.HTTPError as error:
            raise UncertainError(
                f"The connection to {self.name} broke after the request was sent ({_why(error)}). It may be at work, "
                "and charged; look there before sending it again."
            ) from error
        if not reply.is_success:
            raise self._refusal(reply)
        try:
            answer = reply.json()
            return Ticket(
                request_id=str(answer["request_id"]),
                status_url=await self._relative(answer["status_url"]),
                response_url=await self._relative(answer["response_url"]),
                cancel_url=await self._relative(answer["cancel_url"]),
            )
        except (ValueError, KeyError, TypeError) as error:
            raise UncertainError(
                f"{self.name} accepted the request with an answer that cannot be understood. Look there before sending it again."
            ) from error

    async def _relative(self, url: str) -> str:
        """`url` without the base. Anything elsewhere is refused, as the key would go with it."""
        base, _ = await self._address()
        if not url.startswith(f"{base}/"):
            raise ValueError("a URL of the reply is not on the service itself")
        return url.removeprefix(base)

    async def status(self, ticket: Ticket) -> Status:
        """How far the job is.

        Raises:
            UnreachableError: no answer, or one that says nothing about the job: ask again.
            GenerationError: the service does not know the job any more.
        """
        reply = await self._ask("GET", ticket.status_url, params={"logs": "1"})
        if reply.status_code == 404:
            raise self._lost(ticket)
        answer = _json(reply, ticket)
        if answer.get("status") not in ("IN_QUEUE", "IN_PROGRESS", "COMPLETED"):
            raise UnreachableError(f"{self.name} answered without a state: {_detail(reply)}")
        progress = answer.get("progress") or {}
        logs = answer.get("logs") or []
        message = str(logs[-1].get("message", "")) if logs else ""
        if answer["status"] == "IN_QUEUE":
            ahead = answer.get("queue_position")
            message = "Waiting in the queue" + (f", {ahead} ahead" if ahead else "")
        return Status(
            completed=answer["status"] == "COMPLETED",
            stage=str(progress.get("stage", "")),
            step=int(progress.get("step", 0)),
            steps=int(progress.get("steps", 0)),
            fraction=progress.get("fraction"),
            message=message,
        )

    async def result(self, ticket: Ticket) -> Outcome:
        """What a completed job made.

        Raises:
            UnreachableError: ask again.
            CancelledError, RejectedError, GenerationError: what became of it instead.
            ResultError: an answer without a file.
        """
        reply = await self._ask("GET", ticket.response_url)
        if reply.status_code == 404:
            raise self._lost(ticket)
        if reply.status_code == 499:
            raise CancelledError("The job was cancelled.", request_id=ticket.request_id)
        if not reply.is_success:
            raise self._refusal(reply, ticket)
        answer = _json(reply, ticket)
        file = answer.get("model_glb") or answer.get("model_mesh") or {}
        if not isinstance(file, dict) or not isinstance(file.get("url"), str):
            raise ResultError(
                f"{self.name} says that it is done but names no model.",
                request_id=ticket.request_id,
            )
        base, _ = await self._address()
        seed = answer.get("seed")
        url = file["url"].removeprefix(base)  # it may have another port when it is fetched
        return Outcome([url], seed if isinstance(seed, int) else None)

    async def cancel(self, ticket: Ticket) -> None:
        """Ask for cancellation; that it comes too late is no error."""
        await self._ask("PUT", ticket.cancel_url)

    async def collected(self, ticket: Ticket) -> None:
        """The result is kept here: fal needs no telling."""

    async def download(self, url: str, to: Path, progress: Callable[[float], None]) -> None:
        """Write the file at `url` to `to`; `progress` hears the fraction.

        Raises:
            UnreachableError: try again.
            ResultError: the file is gone, or longer than any model.
        """
        base, key = await self._address()
        url = urljoin(f"{base}/", url)
        ours = urlsplit(url)[:2] == urlsplit(base)[:2]
        headers = {"Authorization": f"Key {key}"} if ours else {}
        try:
            # Away from the service, files are public and may be redirected; the key never goes there
            async with self._client.stream(
                "GET", url, headers=headers, follow_redirects=not ours
            ) as reply:
                if reply.status_code in (404, 410):
                    raise ResultError("The service no longer has the model. Generate again.")
                if not reply.is_success:
                    raise UnreachableError(f"The model's download answered {reply.status_code}.")
                await _write(reply, to, progress)
        except httpx.HTTPError as error:
            raise UnreachableError(f"The model's download broke off ({_why(error)}).") from error

    def _lost(self, ticket: Ticket) -> GenerationError:
        return GenerationError(
            f"{self.name} does not know this job any more. Generate again.",
            request_id=ticket.request_id,
        )

    def _refusal(self, reply: httpx.Response, ticket: Ticket | None = None) -> TrellisError:
        """The error behind an answer that is no success."""
        request_id = ticket.request_id if ticket else reply.headers.get("x-fal-request-id")
        detail = _detail(reply)
        if reply.status_code in (401, 403):
            return AccountError(
                f"{self.name} refuses the key: {detail} Check it in the preferences.",
                request_id=request_id,
            )
        if reply.status_code in (400, 404, 405, 413, 422):
            return RejectedError(
                f"{self.name} refuses the request: {detail}", request_id=request_id
            )
        if ticket is None and reply.status_code in (408, 429, 502, 503, 504):
            return UnreachableError(
                f"{self.name} is busy ({reply.status_code}): {detail} Try again later.",
                request_id=request_id,
            )
        return GenerationError(f"{self.name} failed: {detail}", request_id=request_id)


async def _write(reply: httpx.Response, to: Path, progress: Callable[[float], None]) -> None:
    total = int(reply.headers.get("content-length", 0))
    done = 0
    with to.open("wb") as file:
        async for piece in reply.aiter_bytes(1 << 20):
            file.write(piece)
            done += len(piece)
            if done > MAX_RESULT_BYTES:
                raise ResultError("The service sends a file that is longer than any model.")
            if total:
                progress(done / total)


def _why(error: httpx.HTTPError) -> str:
    return str(error) or type(error).__name__


def _json(reply: httpx.Response, ticket: Ticket) -> dict[str, Any]:
    try:
        answer = reply.json()
    except ValueError:
        answer = None
    if not isinstance(answer, dict):
        raise UnreachableError(
            "The service's answer cannot be understood.", request_id=ticket.request_id
        )
    return answer


def _detail(reply: httpx.Response) -> str:
    """The words of an error: fal's list of model errors, its platform errors, or whatever a proxy wrote."""
    try:
        answer = reply.json()
        detail = answer["detail"]
        if isinstance(detail, str):
            return detail
        parts = []
        for item in detail:
            where = ".".join(str(part) for part in item["loc"] if part != "body")
            named = (
                where and where not in _IMAGE_KEYS
            )  # what is said of a picture needs no field's name
            parts.append(f"{where}: {item['msg']}" if named else str(item["msg"]))
        return "; ".join(parts)
    except (ValueError, KeyError, TypeError):
        return reply.text[:200].strip() or reply.reason_phrase

# SPDX-License-Identifier: GPL-3.0-or-later
"""Runware's task objects: every request is a JSON array of tasks, every answer has `data`, `errors`, or both.

Sources: Runware's documentation and its Python SDK (docs/runware.md names what is not confirmed). The rules that matter:
- the task's UUID is made here, before anything is sent: it tells what became of a request whose reply was lost, and sending it
  again makes no second task (`conflictTaskUUID`);
- errors come with any HTTP status, 200 included;
- nothing can be cancelled.
"""

from __future__ import annotations

import asyncio
import hashlib
import uuid
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx

from ..config import Config
from ..errors import (
    AccountError,
    GenerationError,
    InputError,
    RejectedError,
    TrellisError,
    UncertainError,
    UnreachableError,
)
from . import AT_WORK, Account, Made, Outcome, Status, Submission, Ticket, wire

# A synchronous request is held open while the model is computed
_PATIENT = httpx.Timeout(300, connect=10)
# A task that was taken on a moment ago may not be listed yet: this many times it is asked for before it counts as lost
_PATIENCE = 4

# Codes are still being standardised and differ between providers, so they are judged by their words (Runware's SDK)
_QUOTA = ("credits", "quota", "balance", "paymentrequired")
_ACCOUNT = ("apikey", "unauthorized", "forbidden", "permission", "tokenexpired", "accountsuspended")
_BUSY = ("ratelimit",)
_REFUSED = (401, 402, 403)  # HTTP: key or account, whatever was asked
_MISSING = ("notfound", "expired")
_CONTENT = ("content", "prompt", "imageblocked", "moderation", "nsfw")
_WRONG = ("invalid", "missing", "conflict", "duplicate", "unsupported", "value", "array", "max")
_WRONG_TOO = ("unknownparameter", "incompatibleparameters")


class RunwareService:
    """Runware, at `base_url`, with `key`."""

    name = "Runware"
    repeatable = True
    attempts: int | None = None
    cancellable = False
    poll_seconds = (1.5, 10.0)

    def __init__(self, config: Config) -> None:
        self._url = config.runware_url
        self._key = config.runware_key
        self._client = wire.open_client(config.runware_url)
        self._uses: Counter[str] = Counter()
        self._uploads: dict[str, str] = {}
        self._uploading = asyncio.Lock()
        self._missed: Counter[str] = Counter()

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    async def ready(self) -> None:
        """Nothing to prepare."""

    async def _post(self, *tasks: dict[str, Any], **more: Any) -> httpx.Response:
        headers = {"Authorization": f"Bearer {self._key}", **more.pop("headers", {})}
        return await wire.send(
            self._client, "POST", self._url, json=list(tasks), headers=headers, **more
        )

    async def _ask(self, task: dict[str, Any], **more: Any) -> _Answer:
        """A task that costs nothing and can be repeated.

        Raises:
            UnreachableError: no answer of Runware's own, or one that says nothing about what was asked.
        """
        try:
            reply = await self._post(task, **more)
        except httpx.HTTPError as error:
            raise UnreachableError(f"Runware does not answer ({wire.why(error)}).") from error
        answer = _Answer.read(reply)
        tripped = reply.status_code >= 500 or reply.status_code in (408, 429)
        if answer is None or tripped or (reply.status_code != 200 and not answer.errors):
            said = _words(answer.errors[0]) if answer and answer.errors else wire.excerpt(reply)
            raise wire.later(reply, f"Runware answered {reply.status_code}: {said}.")
        return answer

    async def attach(self, data: bytes, media_type: str) -> str:
        """A data URI at first; the id of an upload once the same file is used again.

        Raises:
            UnreachableError: try again; an upload costs nothing.
            AccountError, RejectedError: the storage said no.
        """
        inline = wire.data_uri(data, media_type)
        digest = hashlib.sha256(data).hexdigest()
        self._uses[digest] += 1
        if self._uses[digest] == 1:
            return inline
        async with self._uploading:  # jobs that start together wait for one upload
            if digest not in self._uploads:
                self._uploads[digest] = await self._upload(inline)
        return self._uploads[digest]

    async def _upload(self, inline: str) -> str:
        task = {**_task("mediaStorage"), "operation": "upload", "media": inline}
        answer = await self._ask(task)
        if answer.errors:
            raise _refusal(answer.errors[0], task["taskUUID"], answer.status)
        media = answer.data[0].get("mediaUUID") if answer.data else None
        if not isinstance(media, str):
            raise UnreachableError("Runware's storage named no upload.")
        return media

    def _task_of(self, submission: Submission) -> dict[str, Any]:
        return {**submission.body, "taskUUID": submission.key}

    async def submit(self, submission: Submission) -> Ticket:
        """Send a task, whose UUID is the submission's key.

        Raises:
            UnreachableError: nothing was accepted; it may be sent again.
            UncertainError: it was sent, and no reply tells what became of it: `find` does.
            AccountError, RejectedError: Runware said no.
        """
        task = self._task_of(submission)
        try:
            reply = await self._post(task, timeout=_PATIENT)
        except wire.NEVER_SENT as error:
            raise UnreachableError(
                f"Runware cannot be reached ({wire.why(error)}); nothing was sent or charged. Check the connection."
            ) from error
        except httpx.HTTPError as error:
            raise _uncertain(
                submission, f"The connection broke after the request was sent ({wire.why(error)})."
            ) from error
        answer = _Answer.read(reply)
        ticket = Ticket(submission.key, results=int(task.get("numberResults", 1)))
        if answer is None:
            if reply.status_code == 429 or wire.refused_by_proxy(reply):
                raise wire.later(
                    reply,
                    f"Runware is busy ({reply.status_code}). Nothing was charged; try again later.",
                )
            raise _uncertain(submission, f"Runware's answer is {wire.excerpt(reply)}.")
        errors = answer.errors_of(submission.key)
        if any("conflicttaskuuid" in _code(error) for error in errors):
            return ticket  # this very task is there already
        if errors and not answer.data:
            raise self._no(errors[0], reply, submission)
        if not answer.items(submission.key):
            raise _uncertain(submission, "Runware's answer does not name the task.")
        held = any("outputs" in item for item in answer.data)
        return ticket if not held else Ticket(ticket.request_id, answer=answer.as_dict())

    @staticmethod
    def _no(error: dict[str, Any], reply: httpx.Response, submission: Submission) -> TrellisError:
        """The error behind a task that was not accepted."""
        if reply.status_code == 429 or _is(error, _BUSY):
            return wire.later(
                reply,
                f"Runware is busy: {_words(error)}. Nothing was charged; try again later.",
            )
        if reply.status_code >= 500:
            return _uncertain(submission, f"Runware answered {reply.status_code}: {_words(error)}.")
        if reply.status_code == 200:
            return _failure(error, submission.key)
        return _refusal(error, submission.key, reply.status_code)

    async def find(self, submission: Submission, known: frozenset[str]) -> Ticket | None:
        """Ask for the task by its UUID; None if Runware does not know it."""
        answer = await self._state(submission.key)
        errors = answer.errors_of(submission.key)
        if errors and not answer.items(submission.key) and _is(errors[0], _MISSING):
            return None
        return Ticket(submission.key, results=int(submission.body.get("numberResults", 1)))

    async def adopt(self, submission: Submission, request_id: str) -> Ticket:
        """A ticket for the task with this UUID.

        Raises:
            UnreachableError: ask again.
            InputError: Runware does not know it.
        """
        ticket = await self.find(replace(submission, key=request_id), frozenset())
        if ticket is None:
            raise InputError(
                f"Runware knows no task {request_id}. Copy its UUID from my.runware.ai."
            )
        return ticket

    async def _state(self, task_uuid: str) -> _Answer:
        """What Runware says about a task.

        Raises:
            UnreachableError: nothing about the task itself.
        """
        answer = await self._ask({"taskType": "getResponse", "taskUUID": task_uuid})
        # A task's own end has a status; what is wrong with key, account or queue at the moment of asking has none, and what
        # something in between says names no task
        ended = [error for error in answer.errors if error.get("status") == "error"]
        not_now = [
            error
            for error in answer.errors
            if error not in ended
            and (answer.status in _REFUSED or _is(error, (*_QUOTA, *_ACCOUNT, *_BUSY)))
        ]
        about_us = ended + [
            error
            for error in answer.errors
            if error not in ended + not_now and ("taskUUID" in error or _is(error, _MISSING))
        ]
        if not answer.items(task_uuid) and not about_us:
            said = _words(answer.errors[0]) if answer.errors else "nothing"
            raise _senseless(f"Runware says {said} instead of the task's state.", not not_now)
        return _Answer(answer.data, about_us)

    async def status(self, ticket: Ticket) -> Status:
        """How far the task is.

        Raises:
            UnreachableError: no answer, or one that says nothing about the task: ask again.
            GenerationError: Runware does not know the task any more.
        """
        if ticket.answer:
            return Status(completed=True)
        answer = await self._state(ticket.request_id)
        items, errors = answer.items(ticket.request_id), answer.errors_of(ticket.request_id)
        if errors and not items and self._not_listed(ticket, errors[0]):
            return Status(completed=False, message="Runware does not list the task yet")
        open_items = [item for item in items if not _is_terminal(item)]
        ended = len(items) - len(open_items)
        completed = not open_items and bool(errors or ended >= ticket.results)
        told = [item["progress"] for item in open_items if _is_number(item.get("progress"))]
        done = ended + sum(min(max(percent, 0), 100) / 100 for percent in told)
        at_work = any(item.get("status") == "processing" for item in open_items)
        return Status(
            completed=completed,
            stage=AT_WORK if at_work else "",
            fraction=min(done / max(ticket.results, 1), 1.0) if done or completed else None,
            message=f"{ended} of {ticket.results} done" if ticket.results > 1 else "At work",
        )

    def _not_listed(self, ticket: Ticket, error: dict[str, Any]) -> bool:
        """Whether an error says that Runware does not know the task, and has not been said so often that it is believed."""
        if not _is(error, _MISSING):
            return False
        self._missed[ticket.request_id] += 1
        return self._missed[ticket.request_id] < _PATIENCE

    async def result(self, ticket: Ticket) -> Outcome:
        """What a finished task made; variations that failed are told beside those that did not.

        Raises:
            UnreachableError: ask again.
            AccountError, RejectedError, GenerationError: there is nothing but errors.
        """
        answer = _Answer(**ticket.answer) if ticket.answer else _Answer([], [])
        if not (_made(answer.items(ticket.request_id)) or answer.failures_of(ticket.request_id)):
            answer = await self._state(ticket.request_id)
        items = answer.items(ticket.request_id)
        errors = answer.failures_of(ticket.request_id)
        made = _made(items)
        if not made and errors and not self._not_listed(ticket, errors[0]):
            raise _failure(errors[0], ticket.request_id)
        if not made:
            raise _senseless(
                "Runware says that it is done but names no model. It may have charged for it; ask Runware's support "
                "with the request's id."
            )
        return Outcome(made, _cost(items), [_words(error) for error in errors])

    async def cancel(self, ticket: Ticket) -> bool:
        """Runware has no way to cancel."""
        return False

    async def download(self, url: str, to: Path, progress: Callable[[float], None]) -> None:
        """Write the file at `url` to `to`; the key never goes there."""
        await wire.download(self._client, url, to, progress, {})

    async def collected(self, ticket: Ticket) -> None:
        """The result is kept here: Runware needs no telling."""

    async def price(self, submission: Submission) -> float | None:
        """What Runware says to a dry run, which is neither carried out nor charged. Its answer's form is not documented."""
        task = self._task_of(submission) | {"taskUUID": str(uuid.uuid4())}
        answer = await self._ask(task, headers={"X-Runware-Dry-Run": "1"})
        if answer.errors:
            raise _refusal(answer.errors[0], task["taskUUID"], answer.status)
        cost = _cost(answer.data)
        return cost["amount"] if cost else None

    async def account(self) -> Account:
        """Whether Runware knows the key, and the balance.

        Raises:
            AccountError: it does not know the key.
            UnreachableError: Runware does not answer.
        """
        # The answer holds names and addresses of the team: nothing of it is kept or logged
        answer = await self._ask({**_task("accountManagement"), "operation": "getDetails"})
        if answer.errors:
            raise _refusal(answer.errors[0], None, answer.status)
        balance = answer.data[0].get("balance") if answer.data else None
        told = balance if isinstance(balance, dict) else {"amount": balance}
        amount = told.get("amount")
        return Account(
            float(amount) if isinstance(amount, int | float) else None,
            str(told.get("currency", "USD")),
        )


class _Answer:
    """The envelope of an answer: `data` and `errors`, each a list of objects; `status` is its HTTP status."""

    def __init__(
        self, data: list[dict[str, Any]], errors: list[dict[str, Any]], status: int = 200
    ) -> None:
        self.data = data
        self.errors = errors
        self.status = status

    @classmethod
    def read(cls, reply: httpx.Response) -> _Answer | None:
        """The envelope of a reply, tolerant as Runware's own SDK is; None if it is none."""
        answer = wire.json_object(reply)
        if answer is None or not {"data", "errors", "error"} & answer.keys():
            return None
        errors = _objects(answer.get("errors")) + _objects(answer.get("error"))
        return cls(_objects(answer.get("data")), errors, reply.status_code)

    def as_dict(self) -> dict[str, Any]:
        return {"data": self.data, "errors": self.errors}

    def items(self, task_uuid: str) -> list[dict[str, Any]]:
        """What there is of one task."""
        return [item for item in self.data if item.get("taskUUID") == task_uuid]

    def errors_of(self, task_uuid: str) -> list[dict[str, Any]]:
        """The errors of one task, and those that name none."""
        return [error for error in self.errors if error.get("taskUUID") in (None, task_uuid)]

    def failures_of(self, task_uuid: str) -> list[dict[str, Any]]:
        """The same, and what ended its variations."""
        ended = [item for item in self.items(task_uuid) if item.get("status") == "error"]
        inside = [_objects(item.get("error") or item)[0] for item in ended]
        return self.errors_of(task_uuid) + inside


def _objects(value: Any) -> list[dict[str, Any]]:
    every = value if isinstance(value, list) else [] if value is None else [value]
    return [item if isinstance(item, dict) else {"message": str(item)} for item in every]


def _task(kind: str) -> dict[str, Any]:
    return {"taskType": kind, "taskUUID": str(uuid.uuid4())}


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_terminal(item: dict[str, Any]) -> bool:
    """Any word but these two means that it is not done yet; without one, the outputs tell."""
    if isinstance(item.get("status"), str):
        return item["status"] in ("success", "error")
    return "outputs" in item


def _made(items: list[dict[str, Any]]) -> list[Made]:
    """The models of all variations; every answer names all of them again, so each file counts once."""
    found: dict[str, Made] = {}
    for item in items:
        outputs = item.get("outputs")
        files = outputs.get("files") if isinstance(outputs, dict) else None
        for file in files if isinstance(files, list) else []:
            if isinstance(file, dict) and isinstance(file.get("url"), str):
                seed = item.get("seed")
                made = Made(file["url"], seed if isinstance(seed, int) else None)
                found.setdefault(str(file.get("uuid") or file["url"]), made)
    return list(found.values())


def _cost(items: list[dict[str, Any]]) -> dict[str, Any] | None:
    costs = [wire.amount(item.get("cost")) for item in items]
    told = [cost for cost in costs if cost is not None]
    return {"amount": sum(told), "currency": "USD", "estimate": False} if told else None


def _code(error: dict[str, Any]) -> str:
    return str(error.get("code", "")).lower()


def _is(error: dict[str, Any], words: tuple[str, ...]) -> bool:
    return any(word in _code(error) for word in words)


def _words(error: dict[str, Any]) -> str:
    """What an error says, without its last full stop."""
    words = str(error.get("message") or error.get("code") or "an error without words")
    return wire.short(words.rstrip(". "))


def _parameter(error: dict[str, Any]) -> str:
    named = error.get("parameter")
    first = named[0] if isinstance(named, list) and named else named
    return wire.short(first) if isinstance(first, str) else ""


def _senseless(message: str, answered: bool = True) -> UnreachableError:
    """An error that says to ask again."""
    error = UnreachableError(message)
    error.answered = answered
    return error


def _uncertain(submission: Submission, message: str) -> UncertainError:
    return UncertainError(
        f"{message} The task may be at work, and charged. Resume the job to ask Runware again.",
        request_id=submission.key,
    )


def _refusal(error: dict[str, Any], task_uuid: str | None, status_code: int = 400) -> TrellisError:
    """The error behind a task that Runware did not take on."""
    said = _words(error)
    if status_code == 402 or _is(error, _QUOTA):
        return AccountError(
            f"Runware's account cannot pay for this: {said}. Nothing was charged. Add credits at my.runware.ai.",
            request_id=task_uuid,
        )
    if status_code in (401, 403) or _is(error, _ACCOUNT):
        return AccountError(
            f"Runware refuses the key: {said}. Nothing was charged. Check the key in the preferences, or make one at "
            "my.runware.ai/keys.",
            request_id=task_uuid,
        )
    named = _parameter(error)
    remedy = f"Change {named}." if named else "Change the request."
    return RejectedError(
        f"Runware refuses the request: {said}. Nothing was charged. {remedy}",
        request_id=task_uuid,
        parameter=named,
    )


def _failure(error: dict[str, Any], task_uuid: str) -> TrellisError:
    """The error behind a task that was taken on and ended with nothing."""
    code, said = _code(error), _words(error)
    if _is(error, (*_QUOTA, *_ACCOUNT)):
        return _refusal(error, task_uuid)
    if code.endswith(_MISSING):
        return GenerationError(
            f"Runware does not know this task any more: {said}. Whether it was charged, my.runware.ai tells. Generate "
            "again.",
            request_id=task_uuid,
        )
    wrong = code.startswith(_WRONG) or code in _WRONG_TOO
    if wrong or _is(error, _CONTENT):
        named = _parameter(error)
        remedy = f"Change {named}." if named else "Use another picture or other parameters."
        return RejectedError(
            f"Runware refuses the request: {said}. Whether it was charged, my.runware.ai tells. {remedy}",
            request_id=task_uuid,
            parameter=named,
        )
    return GenerationError(
        f"Runware could not make the model: {said}. Whether it was charged, my.runware.ai tells. Generate again.",
        request_id=task_uuid,
    )

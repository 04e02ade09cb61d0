# SPDX-License-Identifier: GPL-3.0-or-later
"""fal: its queue, and what it has beyond the queue protocol: uploads, prices, past requests, the account.

Sources: fal's documentation and its clients in Python and JavaScript (docs/fal.md names what is not confirmed).
"""

from __future__ import annotations

import json
import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx

from ..config import Config
from ..endpoints import prices
from ..errors import AccountError, GenerationError, RejectedError, TrellisError, UnreachableError
from . import Account, Submission, Ticket, wire
from .queue import QueueService, parameter, said

# Of a request's body; fal publishes no limit for data URIs, only a warning that large ones are slow
INLINE_BYTES = 4_000_000
# An uploaded picture is of no use once the job is done
_UPLOAD_SECONDS = 86_400
_FILE_NAMES = {"image/png": "picture.png", "model/gltf-binary": "mesh.glb"}
_MARGIN = timedelta(minutes=2)  # by which fal's clock and this computer's may differ
# Of past requests, each of which may have a picture inline: a page of them stays shorter than the longest reply
_PER_PAGE, _PAGES = 25, 20


class FalService(QueueService):
    """One of fal's endpoints."""

    name = "fal"
    patience = 4

    def __init__(self, config: Config, endpoint: str) -> None:
        super().__init__(config.fal_queue_url, config.fal_key)
        self._rest_url = config.fal_rest_url
        self._api_url = config.fal_api_url
        self._endpoint = endpoint
        self._unit_price: float | None = None

    async def attach(self, data: bytes, media_type: str) -> str:
        """A data URI, or the URL of an upload where it would be too long.

        Raises:
            UnreachableError: try again; an upload costs nothing.
            AccountError, RejectedError: the storage said no.
        """
        inline = wire.data_uri(data, media_type)
        return inline if len(inline) < INLINE_BYTES else await self._upload(data, media_type)

    async def _upload(self, data: bytes, media_type: str) -> str:
        """The two steps of fal's JavaScript client: a signed URL, and a PUT to it, without the key."""
        reply = await self._call(
            "POST",
            f"{self._rest_url}/storage/upload/initiate",
            params={"storage_type": "fal-cdn-v3"},
            json={"content_type": media_type, "file_name": _FILE_NAMES[media_type]},
            headers={
                "X-Fal-Object-Lifecycle": json.dumps(
                    {"expiration_duration_seconds": _UPLOAD_SECONDS}
                )
            },
        )
        answer = wire.json_object(reply) or {}
        to, url = answer.get("upload_url"), answer.get("file_url")
        if not (isinstance(to, str) and isinstance(url, str) and wire.trusted(to)):
            raise UnreachableError(
                f"fal's storage gave no address to upload to: {wire.excerpt(reply)}."
            )
        try:
            done = await wire.send(
                self._client, "PUT", to, content=data, headers={"Content-Type": media_type}
            )
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise UnreachableError(
                f"The picture's upload broke off ({wire.why(error)})."
            ) from error
        if not done.is_success:
            raise wire.later(done, f"The picture's upload answered {done.status_code}.")
        return url

    async def find(self, submission: Submission, known: frozenset[str]) -> Ticket | None:
        """Look for the job among the account's past requests: one of the same input, seed included, that no other job has.

        None says little: whether fal lists a request before it has ended is not documented.

        Raises:
            UnreachableError: there is no answer now.
        """
        start = datetime.fromtimestamp(submission.created, UTC) - _MARGIN
        query = {
            "endpoint_id": submission.endpoint,
            "start": start.isoformat(timespec="seconds").replace("+00:00", "Z"),
            "expand": "payloads",
            "limit": str(_PER_PAGE),
        }
        try:
            for _ in range(_PAGES):
                reply = await self._call(
                    "GET", f"{self._api_url}/models/requests/by-endpoint", params=query
                )
                page = wire.json_object(reply) or {}
                items = page.get("items")
                for item in items if isinstance(items, list) else []:
                    if _same_request(item, submission) and item["request_id"] not in known:
                        return self._ticket_of(submission, item["request_id"])
                if not page.get("has_more") or not page.get("next_cursor"):
                    break
                query["cursor"] = str(page["next_cursor"])
        except (AccountError, RejectedError):
            pass  # not every key may read the list
        return None

    async def price(self, submission: Submission) -> float | None:
        """The table's units at fal's own unit price."""
        unit_price = await self._ask_unit_price()
        if unit_price is None:
            return None
        estimate = prices.estimate(submission.endpoint, submission.body, unit_price)
        return estimate.amount if estimate else None

    async def _ask_unit_price(self) -> float | None:
        """fal's price of one unit, asked for once; None while it does not answer."""
        if self._unit_price is None:
            try:
                reply = await self._call(
                    "GET",
                    f"{self._api_url}/models/pricing",
                    params={"endpoint_id": self._endpoint},
                )
                listed = (wire.json_object(reply) or {}).get("prices") or []
                named = {item["endpoint_id"]: item for item in listed}
                self._unit_price = wire.amount(named[self._endpoint]["unit_price"])
            except (TrellisError, KeyError, TypeError, ValueError):
                return None
        return self._unit_price

    async def _charge(self, reply: httpx.Response) -> dict[str, Any] | None:
        units = _units(reply)
        if units is None:
            return None
        unit_price = await self._ask_unit_price()
        amount = prices.charge(self._endpoint, units, unit_price)
        return {"amount": amount, "currency": "USD", "estimate": unit_price is None}

    async def account(self) -> Account:
        """Whether fal knows the key, by a question after a job that does not exist; and the balance if the key may read it.

        Raises:
            AccountError: it does not know the key, or the account is locked.
            UnreachableError: fal does not answer.
        """
        nobody = f"{self._base_url}/fal-ai/trellis-2/requests/{uuid.uuid4()}/status"
        known = await self._call("GET", nobody)
        if wire.json_object(known) is None:
            raise UnreachableError(f"fal answered {wire.excerpt(known)}.")
        try:
            reply = await self._call(
                "GET", f"{self._api_url}/account/billing", params={"expand": "credits"}
            )
            credits = (wire.json_object(reply) or {})["credits"]
            return Account(float(credits["current_balance"]), str(credits.get("currency", "USD")))
        except (TrellisError, KeyError, TypeError, ValueError):
            return Account()  # only an administrator's key may read it

    async def _call(self, method: str, url: str, **more: Any) -> httpx.Response:
        """A request to fal with the key that costs nothing and can be repeated.

        Raises:
            AccountError, RejectedError, UnreachableError: the answer is no, or none.
        """
        headers = {"Authorization": f"Key {self._key}", **more.pop("headers", {})}
        try:
            reply = await wire.send(self._client, method, url, headers=headers, **more)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise UnreachableError(f"fal does not answer ({wire.why(error)}).") from error
        if reply.status_code >= 500 or reply.status_code in (408, 429):
            raise wire.later(reply, f"fal answered {reply.status_code}: {said(reply)}.")
        if not reply.is_success and reply.status_code != 404:
            raise self._refusal(reply)
        return reply

    def _refusal(self, reply: httpx.Response, ticket: Ticket | None = None) -> TrellisError:
        """fal's errors in words: whose doing it was, whether it was charged, and what to do."""
        request_id = ticket.request_id if ticket else reply.headers.get("x-fal-request-id")
        theirs = said(reply)
        cost = self._charged_all_the_same(reply)
        charged = _charged(reply, cost, submitted=ticket is not None)
        if reply.status_code == 401:
            return AccountError(
                f"fal refuses the key: {theirs}. {charged} Check the key in the preferences, or make one at "
                "fal.ai/dashboard/keys.",
                request_id=request_id,
            )
        if reply.status_code == 403:
            return AccountError(
                f"fal refuses the account: {theirs}. {charged} Settle it at fal.ai/dashboard/billing.",
                request_id=request_id,
            )
        if reply.status_code < 500:
            named = parameter(reply)
            return RejectedError(
                f"fal refuses the request: {theirs}. {charged} {_remedy(reply, named)}",
                request_id=request_id,
                parameter=named,
                cost=cost,
            )
        return GenerationError(
            f"fal could not make the model: {theirs}. {charged} {_remedy(reply, '')}",
            request_id=request_id,
            cost=cost,
        )

    def _charged_all_the_same(self, reply: httpx.Response) -> dict[str, Any] | None:
        units = _units(reply)
        if not units:
            return None
        amount = prices.charge(self._endpoint, units, self._unit_price)
        return {"amount": amount, "currency": "USD", "estimate": self._unit_price is None}


def _same_request(item: Any, submission: Submission) -> bool:
    """Whether a past request had this input. Its pictures tell only where both have them inline, since fal may keep them in
    another form."""
    theirs = item.get("json_input") if isinstance(item, dict) else None
    if not isinstance(theirs, dict) or not isinstance(item.get("request_id"), str):
        return False
    return all(
        theirs.get(name) == value
        or ("_url" in name and not (_inline(value) and _inline(theirs.get(name))))
        for name, value in submission.body.items()
    )


def _inline(value: Any) -> bool:
    """Whether this is a picture, or a list of pictures, as data URIs."""
    several = value if isinstance(value, list) else [value]
    return all(isinstance(one, str) and one.startswith("data:") for one in several)


def _units(reply: httpx.Response) -> float | None:
    try:
        return wire.amount(float(reply.headers["x-fal-billable-units"]))
    except (KeyError, ValueError):
        return None


def _charged(reply: httpx.Response, cost: dict[str, Any] | None, *, submitted: bool) -> str:
    """What is known of the charge. fal: a 5xx is never billed; a 422 may be, once a GPU has worked."""
    if cost:
        return f"It was charged all the same, about ${cost['amount']:.2f}."
    if not submitted or reply.status_code >= 500 or _units(reply) == 0:
        return "Nothing was charged."
    return "Whether it was charged, fal's pages tell."


# What to do, by words in fal's name for the kind of an error, in this order
_REMEDIES = {
    "content_policy": "Use another picture.",
    "image": "Use another picture.",
    "file": "Use another picture or file.",
    "memory": "Lower the resolution or the density, or generate again.",
}


def _remedy(reply: httpx.Response, named: str) -> str:
    """What to do about a refused or failed request."""
    if reply.headers.get("x-fal-request-timeout-type") == "user":
        return "It did not start within the start timeout that was set: set a longer one, or none."
    kind = _kind(reply)
    known = next((remedy for word, remedy in _REMEDIES.items() if word in kind), "")
    if known or named:
        return known or f"Change {named}."
    if reply.status_code == 404:
        return "The endpoint may have been renamed: look for an update of Trellis."
    return "Generate again." if reply.status_code >= 500 else "Change the request."


def _kind(reply: httpx.Response) -> str:
    """fal's name for the kind of an error; where it gives none, its words."""
    answer = wire.json_object(reply) or {}
    detail = answer.get("detail")
    if isinstance(detail, list):
        return " ".join(str(item.get("type")) for item in detail if isinstance(item, dict))
    named = answer.get("error_type") or reply.headers.get("x-fal-error-type")
    return str(named or detail or "").lower()

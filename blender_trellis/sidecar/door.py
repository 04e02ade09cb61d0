# SPDX-License-Identifier: GPL-3.0-or-later
"""The sidecar's door: who may ask anything, how much may be brought, and how slowly.

A request without a token, with a foreign Host, or from a web page (it has an Origin) is refused before its body is read. A
connection that dawdles ends; it holds nobody else up meanwhile.
"""

from __future__ import annotations

import asyncio
import hmac
import time
from collections.abc import Callable, Collection, Mapping

import h11
from fastapi import HTTPException
from fastapi.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

# Four pictures of 4096×4096 pixels that compress badly, or eight of 2048×2048 and a mesh of 60 MB
MAX_BODY = 256 * 2**20
HEAD_SECONDS = 10.0  # that the head of a request may take
BODY_SECONDS = (
    60.0  # that a body may take, and a second more for each so many bytes that have come:
)
BODY_RATE = 10_000


class Connection(H11Protocol):
    """A connection that ends when no request comes of it in time."""

    _late: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._late = self.loop.call_later(HEAD_SECONDS, transport.close)

    def data_received(self, data: bytes) -> None:
        if self._late is None and self.conn.their_state is h11.IDLE:  # another request begins
            self._late = self.loop.call_later(HEAD_SECONDS, self.transport.close)
        super().data_received(data)
        if self._late and self.conn.their_state is not h11.IDLE:
            self._in_time()

    def connection_lost(self, exc: Exception | None) -> None:
        self._in_time()
        super().connection_lost(exc)

    def _in_time(self) -> None:
        if self._late:
            self._late.cancel()
            self._late = None


class Guard:
    """ASGI middleware that decides who may ask anything at all."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        clients: Mapping[str, str],
        hosts: Collection[str],
        called: Callable[[], None],
    ) -> None:
        self._app = app
        self._called = called
        self._clients = [(f"Key {token}".encode(), name) for token, name in clients.items()]
        self._hosts = {host.encode() for host in hosts}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        client = self._client(headers.get(b"authorization", b""))
        refusal = self._refusal(headers, client)
        if refusal:
            code, detail = refusal
            await JSONResponse({"detail": detail}, code)(scope, receive, send)
            return
        self._called()
        scope.setdefault("state", {})["client"] = client
        await self._app(scope, _limited(receive), send)

    def _client(self, key: bytes) -> str | None:
        """Whose key this is, in the same time whosever it is; None for nobody's."""
        found = [name for expected, name in self._clients if hmac.compare_digest(key, expected)]
        return found[0] if found else None

    def _refusal(self, headers: dict[bytes, bytes], client: str | None) -> tuple[int, str] | None:
        if headers.get(b"host", b"") not in self._hosts:
            return 421, "This server is not known by that name."
        if b"origin" in headers:
            return 403, "Web pages may not use this server."
        if client is None:
            return 401, "invalid key credentials"
        length = headers.get(b"content-length", b"0")
        if not length.isdigit() or int(length) > MAX_BODY:
            return 413, f"A request may have {MAX_BODY >> 20} MiB at most."
        return None


def _limited(receive: Receive) -> Receive:
    """`receive` that gives up on bodies which are too long or too slow."""
    total, whole, began = 0, False, time.monotonic()

    async def limited() -> Message:
        nonlocal total, whole
        left = began + BODY_SECONDS + total / BODY_RATE - time.monotonic()
        try:
            message = await asyncio.wait_for(receive(), None if whole else max(left, 0))
        except TimeoutError as error:
            raise HTTPException(408, "The request's body came too slowly.") from error
        total += len(message.get("body", b""))
        whole = not message.get("more_body", False)
        if total > MAX_BODY:
            raise HTTPException(413, f"A request may have {MAX_BODY >> 20} MiB at most.")
        return message

    return limited

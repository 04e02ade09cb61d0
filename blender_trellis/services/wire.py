# SPDX-License-Identifier: GPL-3.0-or-later
"""What all services share on the wire: the HTTP client, whole replies, what a request that failed means, and downloads that go
on where they broke off."""

from __future__ import annotations

import asyncio
import base64
import json
import math
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urljoin, urlsplit

import httpx

from ..config import LOOPBACK
from ..errors import ResultError, UnreachableError

# With these, not one byte of the request has left
NEVER_SENT = (
    httpx.ConnectError,
    httpx.ConnectTimeout,
    httpx.PoolTimeout,
    httpx.ProxyError,
    httpx.UnsupportedProtocol,
)
# No GLB that a model makes comes near, and no answer; a longer body is a mistake or an attack
MAX_RESULT_BYTES = 4 * 2**30
MAX_REPLY_BYTES = 128 * 2**20
_NOT_NOW = (401, 403, 408, 425, 429)  # said of the one who asks, or of the moment
_MOST = 1e6  # dollars, or units that are charged for
_LONGEST_WORDS = 500  # letters
_LONGEST_WISH = 120.0  # seconds; a server may not put a job off for longer than this at a time


def open_client(base_url: str) -> httpx.AsyncClient:
    """A client for one service. It follows no redirect by itself, since the key would go along; and it asks nobody else without
    encryption, also not where a redirect leads to one who is asked for a file without the key: ResultError."""

    allowed = None if trusted(base_url) else urlsplit(base_url).hostname  # by the settings

    async def check_encrypted(
        request: httpx.Request,
    ) -> None:  # before each request, and each redirect's
        host = request.url.host
        if host != allowed and not trusted(str(request.url)):
            raise ResultError(
                f"The model is offered at an address without encryption ({host}), and was not fetched."
            )

    # A model may compute for minutes between two bytes of nothing, but every single answer is short
    timeout = httpx.Timeout(60, connect=10, write=300)
    # No proxy leads to this computer
    ours = not base_url or urlsplit(base_url).hostname in LOOPBACK
    hooks = {"request": [check_encrypted]}
    return httpx.AsyncClient(timeout=timeout, trust_env=not ours, event_hooks=hooks)


async def send(client: httpx.AsyncClient, method: str, url: str, **more: Any) -> httpx.Response:
    """A request, and the whole of its reply, as `httpx.AsyncClient.request` has it. What a reply says that is longer than
    `MAX_REPLY_BYTES` is not taken: it then says just that, which is no service's answer."""
    content = bytearray()
    async with client.stream(method, url, **more) as reply:
        async for piece in reply.aiter_bytes():
            content += piece
            if len(content) > MAX_REPLY_BYTES:
                break
    return _complete(reply, content)


def get(client: httpx.Client, url: str, **more: Any) -> httpx.Response:
    """The same for a question by a client that waits."""
    content = bytearray()
    with client.stream("GET", url, **more) as reply:
        for piece in reply.iter_bytes():
            content += piece
            if len(content) > MAX_REPLY_BYTES:
                break
    return _complete(reply, content)


def _complete(reply: httpx.Response, content: bytearray) -> httpx.Response:
    """A reply with its content, unpacked already."""
    if len(content) > MAX_REPLY_BYTES:
        limit = MAX_REPLY_BYTES >> 20
        content = bytearray(f"a reply of more than {limit} MiB".encode())
    headers = [pair for pair in reply.headers.raw if pair[0].lower() != b"content-encoding"]
    return httpx.Response(
        reply.status_code,
        headers=headers,
        content=bytes(content),
        request=reply.request,
        extensions=reply.extensions,
    )


def why(error: Exception) -> str:
    """The reason of a request's failure, in words."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return (
                "its certificate is not trusted here: is the address right, or does a proxy need SSL_CERT_FILE? "
                f"{cause.verify_message}"
            )
        if isinstance(cause, ssl.SSLError):
            return f"no encrypted connection is possible: {cause.reason or cause}"
        cause = cause.__cause__ or cause.__context__
    return short(str(error)) or type(error).__name__


def refused_by_proxy(reply: httpx.Response) -> bool:
    """Whether a 502–504 is nginx's own, in front of the service: the service itself has not seen the request.

    Source: fal's Python client repeats a submit on these alone.
    """
    return (
        reply.status_code in (502, 503, 504)
        and "x-fal-request-id" not in reply.headers
        and b"nginx" in reply.content.lower()
    )


def later(reply: httpx.Response, message: str) -> UnreachableError:
    """An error that says to come back, after as long as the reply asks for."""
    error = UnreachableError(message, request_id=reply.headers.get("x-fal-request-id"))
    wish = reply.headers.get("retry-after", "")
    error.answered = reply.status_code < 500 and reply.status_code not in _NOT_NOW
    error.pause = min(float(wish), _LONGEST_WISH) if wish.isdecimal() else 0.0
    return error


def data_uri(data: bytes, media_type: str) -> str:
    """A file as it goes into a request's body."""
    return f"data:{media_type};base64,{base64.b64encode(data).decode()}"


def _content(reply: httpx.Response) -> bytes:
    """What a reply says, without the key that the request came with: some proxies' pages repeat the request, and what a reply
    says goes into messages and the journal."""
    key = reply.request.headers.get("authorization", "").partition(" ")[2]
    return reply.content.replace(key.encode(), "…".encode()) if key else reply.content


def json_object(reply: httpx.Response) -> dict[str, Any] | None:
    """The JSON object that a reply is, or None if it is none."""
    try:
        answer = json.loads(
            _content(reply), parse_float=_real, parse_int=_whole, parse_constant=lambda _: None
        )
        # Half of a surrogate pair may be written as an escape, and no database takes it
        text = json.dumps(answer, ensure_ascii=False)
        if not text.isascii():
            answer = json.loads(text.encode("utf-8", "replace"))
    except (ValueError, RecursionError):
        return None
    return answer if isinstance(answer, dict) else None


def _real(text: str) -> float | None:
    number = float(text)
    return number if math.isfinite(number) else None


def _whole(text: str) -> int | None:
    """No seed, size or count has more than 64 bits."""
    return int(text) if len(text) <= 20 else None


def amount(value: Any) -> float | None:
    """A number of dollars or units; None where this is none that anybody charges."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if number and 0 <= value < _MOST else None


def short(text: str) -> str:
    """What somebody else says, no longer than a person reads."""
    return text if len(text) <= _LONGEST_WORDS else f"{text[: _LONGEST_WORDS - 1]}…"


def excerpt(reply: httpx.Response) -> str:
    """The beginning of a reply that is not what the service documents, for a message."""
    kind = reply.headers.get("content-type", "").split(";")[0]
    if reply.has_redirect_location:
        try:
            host = urlsplit(urljoin(str(reply.url), reply.headers["location"])).hostname
        except ValueError:
            host = None
        return f"a redirect to {host}, to which the key is not sent"
    if "html" in kind:
        return (
            f"a web page (HTTP {reply.status_code}); a proxy or a login page may stand in between"
        )
    text = _content(reply).decode("utf-8", "replace")
    return text[:200].strip() or reply.reason_phrase or f"HTTP {reply.status_code}"


def trusted(url: str) -> bool:
    """Whether nobody on the way can read or change what goes there."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return False
    return parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in LOOPBACK)


def address(url: str, base: str = "") -> str:
    """Where a model is, `url` being relative to `base` if that is given.

    Raises:
        ResultError: no such address can be asked.
    """
    try:
        whole = urljoin(f"{base}/", url) if base else url
        httpx.URL(whole)
        _ = urlsplit(whole).port
    except (ValueError, httpx.InvalidURL) as error:
        raise ResultError(
            "The service names an address for the model that is none. It may have charged for it; ask its support."
        ) from error
    return whole


def same_origin(url: str, base: str) -> bool:
    """Whether `url` is on the server at `base`."""
    return urlsplit(url)[:2] == urlsplit(base)[:2]


async def download(
    client: httpx.AsyncClient,
    url: str,
    to: Path,
    progress: Callable[[float], None],
    headers: dict[str, str],
) -> None:
    """Write the file at `url` to `to`; `progress` hears the fraction.

    A line that breaks is taken up again where it broke, for as long as each attempt brings something and the server says that
    the file is still the same.

    Raises:
        UnreachableError: try again.
        ResultError: the file is gone, longer than any model, or offered without encryption.
    """
    url = address(url)
    piecewise = _Download(to, progress)
    while True:
        before = piecewise.done
        wanted = {"Accept-Encoding": "identity", **piecewise.continuation(), **headers}
        try:
            # Files are public, wherever they are; a request with the key in it goes nowhere else
            async with client.stream(
                "GET", url, headers=wanted, follow_redirects=not headers
            ) as reply:
                await piecewise.take(reply)
            return
        except (httpx.HTTPError, ExceptionGroup, OverflowError) as error:
            # The last two where a redirect leads to a port that is none
            if piecewise.done == before or not piecewise.version:
                raise UnreachableError(f"The model's download broke off ({why(error)}).") from error
        await asyncio.sleep(0.2)


class _Download:
    """What has arrived of a file, and which version of the file it is (its ETag or date)."""

    def __init__(self, to: Path, progress: Callable[[float], None]) -> None:
        self.done = 0
        self.version = ""
        self._to = to
        self._progress = progress

    def continuation(self) -> dict[str, str]:
        """The headers that ask for the rest."""
        if not self.done or not self.version:
            return {}
        return {"Range": f"bytes={self.done}-", "If-Range": self.version}

    async def take(self, reply: httpx.Response) -> None:
        """Write what a reply brings."""
        if reply.status_code in (403, 404, 410):
            raise ResultError(
                f"The service no longer has the model (HTTP {reply.status_code}): its files are kept for a limited "
                "time. Generate again."
            )
        if reply.status_code not in (200, 206):
            raise later(reply, f"The model's download answered {reply.status_code}.")
        continued = reply.status_code == 206
        place = reply.headers.get("content-range", "")
        tag = reply.headers.get("etag", "")
        same = not self.version or tag in ("", self.version)
        if continued and not (same and place.startswith(f"bytes {self.done}-")):
            raise later(reply, "The model's download went on at a wrong place, or in another file.")
        self.done = self.done if continued else 0
        # A weak tag does not promise equal bytes (RFC 9110, 13.1.5)
        self.version = tag if tag and not tag.startswith("W/") else ""
        total = self.done + int(reply.headers.get("content-length", 0))
        _check_length(total)
        with self._to.open("ab" if continued else "wb") as file:
            async for piece in reply.aiter_bytes():
                file.write(piece)
                self.done += len(piece)
                _check_length(self.done)
                if total:
                    self._progress(min(self.done / total, 1.0))


def _check_length(length: int) -> None:
    if length > MAX_RESULT_BYTES:
        raise ResultError("The service sends a file that is longer than any model.")

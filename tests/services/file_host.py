# SPDX-License-Identifier: GPL-3.0-or-later
"""A host of files whose line breaks, drips or comes back as something else: one `Serve` says how one download goes."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Literal

from local_server import LocalServer
from services.standin import Call


@dataclass(frozen=True)
class Serve:
    """One answer. `body` is the host's file if None; the line breaks after `until` bytes of that file, or stops there and
    waits if `held`.

    The length is told in advance, the body is sent in `chunks`, or it just ends where the connection does, which no client
    can tell from a line that broke. With an `etag` the answer honours Range if If-Range names it; `stubborn` honours Range
    without looking at If-Range; `skewed` sends a part from elsewhere. `drops`: byte by byte.
    """

    status: int = 200
    body: bytes | None = None
    headers: dict[str, str] = field(default_factory=dict)
    until: int | None = None
    held: bool = False
    framing: Literal["length", "chunks", "close"] = "length"
    etag: str = ""
    stubborn: bool = False
    skewed: bool = False
    drops: bool = False


class FileHost:
    """A context manager; `file` lies everywhere below `url`. `serves` go to one request each, the last one to all that follow."""

    def __init__(self, file: bytes) -> None:
        self.file = file
        self.serves: list[Serve] = [Serve()]
        self.calls: list[Call] = []
        self.held = threading.Event()  # a download has come to where it waits
        self._release = threading.Event()
        self._server = LocalServer(self._serve)
        self.url = self._server.url

    def __enter__(self) -> FileHost:
        self._server.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._release.set()
        self._server.stop()

    def _serve(self, handler: BaseHTTPRequestHandler) -> None:
        headers = {name.lower(): value for name, value in handler.headers.items()}
        serve = self.serves[min(len(self.calls), len(self.serves) - 1)]
        self.calls.append(Call("files", "GET", handler.path, {}, headers, b""))
        file = self.file if serve.body is None else serve.body
        status, start, more = serve.status, 0, {}
        same = bool(serve.etag) and headers.get("if-range") == serve.etag
        if "range" in headers and (same or serve.stubborn):
            start = int(headers["range"].removeprefix("bytes=").removesuffix("-"))
            status = 206
            told = start - 1 if serve.skewed else start
            more["content-range"] = f"bytes {told}-{len(file) - 1}/{len(file)}"
        if serve.etag:
            more["etag"] = serve.etag
        if serve.framing == "length":
            more["content-length"] = str(len(file) - start)
        else:
            closed = serve.framing == "close"
            more["connection" if closed else "transfer-encoding"] = "close" if closed else "chunked"
        handler.send_response(status)
        for name, value in {"content-type": "model/gltf-binary", **more, **serve.headers}.items():
            handler.send_header(name, value)
        handler.end_headers()
        for piece in _pieces(file[start : serve.until], 1 if serve.drops else 1000):
            chunked = b"%x\r\n%b\r\n" % (len(piece), piece)
            handler.wfile.write(chunked if serve.framing == "chunks" else piece)
        if serve.held:
            self.held.set()
            self._release.wait()
        if serve.until is None and serve.framing == "chunks":
            handler.wfile.write(b"0\r\n\r\n")
        handler.close_connection = serve.until is not None or serve.framing == "close"


def _pieces(data: bytes, size: int) -> Iterator[bytes]:
    return (data[start : start + size] for start in range(0, len(data), size))

# SPDX-License-Identifier: GPL-3.0-or-later
"""What the stand-ins of the services share: real HTTP on loopback, every call recorded, one origin for each host."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from local_server import LocalServer


@dataclass(frozen=True)
class Call:
    """One request as it arrived at `host`. Header names are in lower case; `path` is without the query."""

    host: str
    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(frozen=True)
class Reply:
    """An answer; `body` is bytes as they are, or anything else as JSON."""

    status: int
    body: Any = None
    headers: dict[str, str] = field(default_factory=dict)


class StandIn:
    """A context manager. `answer(call)` is the service; each of `HOSTS` is a server of its own, at `url(host)`."""

    HOSTS: tuple[str, ...] = ()

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.lock = threading.RLock()
        self._servers = {
            host: LocalServer(partial(_answer, host, self._take)) for host in self.HOSTS
        }

    def answer(self, call: Call) -> Reply:
        """What the service says; called with `lock` held."""
        raise NotImplementedError

    def url(self, host: str) -> str:
        """The origin of one host."""
        return self._servers[host].url

    def _take(self, call: Call) -> Reply:
        with self.lock:
            self.calls.append(call)
            return self.answer(call)

    def __enter__(self) -> StandIn:
        for server in self._servers.values():
            server.start()
        return self

    def __exit__(self, *_: object) -> None:
        for server in self._servers.values():
            server.stop()


def _answer(host: str, take: Callable[[Call], Reply], handler: BaseHTTPRequestHandler) -> None:
    parts = urlsplit(handler.path)
    body = handler.rfile.read(int(handler.headers.get("content-length", 0)))
    headers = {name.lower(): value for name, value in handler.headers.items()}
    query = dict(parse_qsl(parts.query, keep_blank_values=True))
    reply = take(Call(host, handler.command, parts.path, query, headers, body))
    content = reply.body
    if not isinstance(content, bytes):
        content = json.dumps(content).encode()
    handler.send_response(reply.status)
    for name, value in {"content-type": "application/json", **reply.headers}.items():
        handler.send_header(name, value)
    handler.send_header("content-length", str(len(content)))
    handler.end_headers()
    handler.wfile.write(content)

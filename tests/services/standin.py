# SPDX-License-Identifier: GPL-3.0-or-later
"""What the stand-ins of the services share: real HTTP on loopback, every call recorded, one origin for each host."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit


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
        self._servers = {host: _server(host, self._take) for host in self.HOSTS}

    def answer(self, call: Call) -> Reply:
        """What the service says; called with `lock` held."""
        raise NotImplementedError

    def url(self, host: str) -> str:
        """The origin of one host."""
        return f"http://127.0.0.1:{self._servers[host].server_port}"

    def _take(self, call: Call) -> Reply:
        with self.lock:
            self.calls.append(call)
            return self.answer(call)

    def __enter__(self) -> StandIn:
        for server in self._servers.values():
            threading.Thread(
                target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True
            ).start()
        return self

    def __exit__(self, *_: object) -> None:
        for server in self._servers.values():
            server.shutdown()
            server.server_close()


def _server(host: str, take: Callable[[Call], Reply]) -> ThreadingHTTPServer:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True  # head and body are two writes

        def _any(self) -> None:
            parts = urlsplit(self.path)
            body = self.rfile.read(int(self.headers.get("content-length", 0)))
            headers = {name.lower(): value for name, value in self.headers.items()}
            query = dict(parse_qsl(parts.query, keep_blank_values=True))
            reply = take(Call(host, self.command, parts.path, query, headers, body))
            content = reply.body
            if not isinstance(content, bytes):
                content = json.dumps(content).encode()
            self.send_response(reply.status)
            for name, value in {"content-type": "application/json", **reply.headers}.items():
                self.send_header(name, value)
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = do_PUT = do_DELETE = do_HEAD = _any  # noqa: N815

        def log_message(self, *args: Any) -> None:
            """Quiet."""

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        block_on_close = False
        request_queue_size = 128

        def handle_error(self, *args: Any) -> None:
            """A client that was killed is no news."""

    return Server(("127.0.0.1", 0), Handler)

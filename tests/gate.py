# SPDX-License-Identifier: GPL-3.0-or-later
"""A proxy in front of a real server that can hold, break or fail requests at an exact point.

It lets a test stop time: the client waits, the test looks at the world or kills a process, and nothing else happens meanwhile.
"""

from __future__ import annotations

import re
import socket
import struct
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from email.message import Message
from http.server import BaseHTTPRequestHandler
from typing import Any, Literal
from urllib.parse import urlsplit

import httpx

from local_server import LocalServer

Point = Literal["before", "after", "half"]


@dataclass
class Rule:
    """What happens to requests whose "METHOD path" matches: at `point`, call `act`, up to `times` times, once `skip` such
    requests have passed.

    `before` the request is passed on, `after` the server answered but before the client hears of it, or when `half` of the
    answer's body has been sent. `act` returns an HTTP answer to give instead, None to go on, "drop" to end the connection, or
    "reset" to break it (TCP's RST, as a router that forgot it).
    """

    pattern: str
    point: Point
    act: Callable[[], Any]
    times: int = 10**9
    skip: int = 0
    reached: threading.Event = field(default_factory=threading.Event)


class Gate:
    """A context manager; `url` is where clients go. `label(headers, body)` is added to the "METHOD path" of a request, where
    one path serves for everything."""

    def __init__(self, target: str, label: Callable[[Message, bytes], str] | None = None) -> None:
        self._target = target
        self._label = label
        self._client = httpx.Client(timeout=60, trust_env=False, verify=False)
        self._release = threading.Event()
        self.rules: list[Rule] = []
        self.seen: list[str] = []
        self._server = LocalServer(self._pass_on)
        self.url = self._server.url

    def __enter__(self) -> Gate:
        self._server.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._release.set()
        self._server.stop()
        self._client.close()

    def hold(
        self, pattern: str, point: Point, times: int = 10**9, skip: int = 0
    ) -> threading.Event:
        """Let matching requests wait until the gate closes; the event says that one has come."""
        return self.on(
            pattern, point, lambda: "drop" if self._release.wait() else None, times, skip
        )

    def on(
        self,
        pattern: str,
        point: Point,
        act: Callable[[], Any],
        times: int = 10**9,
        skip: int = 0,
    ) -> threading.Event:
        """Add a rule; the event says that it has been met."""
        rule = Rule(pattern, point, act, times, skip)
        self.rules.append(rule)
        return rule.reached

    def _act(self, line: str, point: Point) -> Any:
        for rule in self.rules:
            if rule.point == point and rule.times and re.search(rule.pattern, line):
                if rule.skip:
                    rule.skip -= 1
                    continue
                rule.times -= 1
                rule.reached.set()
                return rule.act()
        return None

    def _pass_on(self, handler: BaseHTTPRequestHandler) -> None:
        line = f"{handler.command} {handler.path}"
        body = handler.rfile.read(int(handler.headers.get("content-length", 0)))
        if self._label:
            line += f" {self._label(handler.headers, body)}"
        self.seen.append(line)
        answer = self._act(line, "before")
        if answer is None:
            headers = dict(handler.headers) | {"host": urlsplit(self._target).netloc}
            headers.pop("Host", None)
            answer = self._client.request(
                handler.command, self._target + handler.path, content=body, headers=headers
            )
            answer = self._act(line, "after") or answer
        if isinstance(answer, str):
            _cut(handler, answer)
            return
        content = answer.content
        if "json" in answer.headers.get("content-type", ""):
            content = content.replace(self._target.encode(), self.url.encode())
        self._answer(handler, line, answer, content)

    def _answer(
        self, handler: BaseHTTPRequestHandler, line: str, answer: httpx.Response, content: bytes
    ) -> None:
        handler.send_response(answer.status_code)
        for name, value in answer.headers.items():
            if name not in (
                "content-length",
                "transfer-encoding",
                "connection",
                "content-encoding",
            ):
                handler.send_header(name, value)
        handler.send_header("content-length", str(len(content)))
        handler.end_headers()
        middle = len(content) // 2
        handler.wfile.write(content[:middle])
        if cut := self._act(line, "half"):
            _cut(handler, cut)
            return
        handler.wfile.write(content[middle:])


def _cut(handler: BaseHTTPRequestHandler, how: str) -> None:
    """End a connection, or break it: without lingering a close sends RST."""
    if how == "reset":
        off = struct.pack("ii", 1, 0)
        handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, off)
        handler.rfile.close()  # the descriptor is closed with the last of those who use it
        handler.wfile.close()
    handler.close_connection = True
    handler.connection.close()

# SPDX-License-Identifier: GPL-3.0-or-later
"""A stand-in of the hub that has the weights: two real HTTP servers, the hub and the host that large files are kept at.

Answers as https://huggingface.co does: a large file is a redirect to the other host, with its hash and size in the headers; a
small one a redirect on the hub itself, whose ETag is git's hash; a gated repository 401 without a token, 403 with one of
somebody who has not accepted. As a mirror of GitHub, once `release` was called, it redirects and says nothing of the file.
"""

from __future__ import annotations

import hashlib
import json
import struct
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import urlsplit

from blender_trellis.install import weights
from local_server import LocalServer

TOKEN = "hf_standinstandinstandinstandin"
COMMIT = "0123456789abcdef0123456789abcdef01234567"  # what a branch's name leads to
GATED = "facebook/dinov3-vitl16-pretrain-lvd1689m"


@dataclass(frozen=True)
class Call:
    """One request. `host` is "hub" or "files"."""

    host: str
    method: str
    path: str
    headers: dict[str, str]

    @property
    def begins(self) -> int:
        """The first byte that is asked for."""
        return int(self.headers.get("range", "bytes=0-").removeprefix("bytes=").rstrip("-"))


@dataclass
class Trouble:
    """What happens to the next downloads of one file: the line breaks, or stands still, once `after` bytes have gone.

    `instead` comes in place of the right bytes. `held` is set when a download has come to where it stands still.
    """

    after: int | None = None
    hold: bool = False
    instead: bytes | None = None
    status: int = 200
    times: int = 1
    held: threading.Event = field(default_factory=threading.Event)


def tensors(size: int, seed: str) -> bytes:
    """A whole safetensors file with one tensor of `size` bytes."""
    entry = {"x": {"dtype": "U8", "shape": [size], "data_offsets": [0, size]}}
    header = json.dumps(entry).encode()
    block = hashlib.sha256(seed.encode()).digest()
    return struct.pack("<Q", len(header)) + header + (block * (size // 32 + 1))[:size]


class Hub:
    """A context manager; `url` is the hub's. It has every file of the model, each some kilobytes."""

    def __init__(self, size: int = 200_000) -> None:
        self.calls: list[Call] = []
        self.trouble: dict[str, Trouble] = {}
        self.gated = {GATED}
        self.deaf = False  # the host of large files knows no ranges
        self.files: dict[str, bytes] = {}
        for without_gate in (False, True):
            for file in weights.wanted("all", retexture=True, without_gate=without_gate):
                if file.url:
                    continue
                name = f"{file.repository}/{file.path}"
                small = json.dumps({"name": name}).encode()
                self.files[name] = small if name.endswith(".json") else tensors(size, name)
        self._release = threading.Event()
        self._hub = LocalServer(self._answer)
        self._host = LocalServer(self._serve)
        self.url = self._hub.url

    def __enter__(self) -> Hub:
        self._hub.start()
        self._host.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._release.set()
        self._hub.stop()
        self._host.stop()

    def release(self, content: bytes) -> str:
        """Have a mirror's copy of the file that is at GitHub; returns its path."""
        (file,) = [file for file in weights.wanted("512") if file.url]
        path = urlsplit(file.url).path.strip("/")
        self.files[path] = content
        return path

    def served(self, path: str) -> list[Call]:
        """The downloads of a file."""
        return [call for call in self.calls if call.host == "files" and call.path.endswith(path)]

    def _note(self, host: str, handler: BaseHTTPRequestHandler) -> Call:
        headers = {name.lower(): value for name, value in handler.headers.items()}
        call = Call(host, handler.command, urlsplit(handler.path).path, headers)
        self.calls.append(call)
        return call

    def _answer(self, handler: BaseHTTPRequestHandler) -> None:
        call = self._note("hub", handler)
        cached = call.path.startswith("/api/resolve-cache/")
        repository, _, rest = call.path.removeprefix("/api/resolve-cache").partition("/resolve/")
        name = f"{repository.strip('/')}/{rest.partition('/')[2]}"
        revision = rest.partition("/")[0]
        commit = revision if len(revision) == 40 else COMMIT
        content = self.files.get(name)
        if (
            repository.strip("/") in self.gated
            and call.headers.get("authorization") != f"Bearer {TOKEN}"
        ):
            status = 403 if "authorization" in call.headers else 401
            _send(
                handler,
                status,
                b"{}",
                {"X-Error-Code": "GatedRepo", "X-Error-Message": "Access is restricted."},
            )
        elif call.path.strip("/") in self.files:
            _send(handler, 302, b"", {"Location": f"{self._host.url}{call.path}?signed"})
        elif content is None:
            _send(handler, 404, b"{}", {"X-Error-Code": "EntryNotFound"})
        elif not name.endswith(".json"):
            headers = {
                "Location": f"{self._host.url}/{name}?signed",
                "X-Linked-Size": str(len(content)),
                "X-Linked-Etag": f'"{hashlib.sha256(content).hexdigest()}"',
                "X-Repo-Commit": commit,
            }
            _send(handler, 302, b"", headers)
        elif not cached:
            _send(handler, 307, b"", {"Location": f"/api/resolve-cache{call.path}"})
        else:
            git = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
            _send(handler, 200, content, {"ETag": f'"{git}"', "X-Repo-Commit": commit})

    def _serve(self, handler: BaseHTTPRequestHandler) -> None:
        call = self._note("files", handler)
        name = call.path.strip("/")
        content = self.files[name]
        trouble = self.trouble.get(name, Trouble())
        if trouble.times and name in self.trouble:
            trouble.times -= 1
        else:
            trouble = Trouble()
        if trouble.status != 200:
            _send(handler, trouble.status, b"", {})
            return
        whole = trouble.instead or content
        begins = 0 if self.deaf else call.begins
        headers = (
            {"Content-Range": f"bytes {begins}-{len(whole) - 1}/{len(whole)}"} if begins else {}
        )
        handler.send_response(206 if begins else 200)
        for header, value in headers.items():
            handler.send_header(header, value)
        handler.send_header("Content-Length", str(len(whole) - begins))
        handler.end_headers()
        end = None if trouble.after is None else begins + trouble.after
        handler.wfile.write(whole[begins:end])
        if trouble.hold:
            trouble.held.set()
            self._release.wait()
        handler.close_connection = trouble.after is not None


def _send(
    handler: BaseHTTPRequestHandler, status: int, body: bytes, headers: dict[str, Any]
) -> None:
    handler.send_response(status)
    for name, value in headers.items():
        handler.send_header(name, value)
    handler.send_header("Content-Length", str(len(body)))
    handler.end_headers()
    if handler.command != "HEAD":
        handler.wfile.write(body)

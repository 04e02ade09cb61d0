# SPDX-License-Identifier: GPL-3.0-or-later
"""A package index over HTTP, of wheels that are made here: they can be imported, and do nothing. Only pip is the real one."""

from __future__ import annotations

import base64
import hashlib
import io
import re
import threading
import zipfile
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler
from pathlib import Path

from blender_trellis.install import environment
from local_server import LocalServer

_TORCH = """
class _Tensor:
    def __matmul__(self, other): return self
    def sum(self): return 256.0 ** 3
class cuda:
    is_available = staticmethod(lambda: False)
class version:
    hip = None
class backends:
    class mps:
        is_available = staticmethod(lambda: False)
def ones(*shape, device): return _Tensor()
__version__ = "2.13.0+cpu"
"""
_MODULES = {  # what check.py imports, by the package that brings it
    "torch": {"torch/__init__.py": _TORCH},
    "numpy": {"numpy/__init__.py": "__version__ = '2.4.6'"},
    "pillow": {"PIL/__init__.py": ""},
    "libigl": {"igl/__init__.py": ""},
    "scipy": {"scipy/__init__.py": "", "scipy/sparse.py": ""},
    "safetensors": {"safetensors/__init__.py": "", "safetensors/torch.py": ""},
    "onnxruntime": {"onnxruntime/__init__.py": "__version__ = '1.28.0'"},
    "fast-simplification": {"fast_simplification/__init__.py": ""},
}


def wheel(name: str, version: str, modules: Mapping[str, str]) -> tuple[str, bytes]:
    """A wheel for every Python and platform: its file's name and content."""
    stem = f"{name.replace('-', '_')}-{version}"
    info = f"{stem}.dist-info"
    files = dict(modules) | {
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = ""
    for path, text in files.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=")
        record += f"{path},sha256={digest.decode()},{len(text.encode())}\n"
    files[f"{info}/RECORD"] = f"{record}{info}/RECORD,,\n"
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for path, text in files.items():
            archive.writestr(path, text)
    return f"{stem}-py3-none-any.whl", packed.getvalue()


def pins() -> dict[str, str]:
    """Name and version of all that is installed beside pip."""
    lines = environment.REQUIREMENTS.read_text(encoding="utf-8").splitlines()
    listed = dict(line.split("==") for line in lines if "==" in line and not line.startswith("#"))
    return {"torch": "2.13.0+cpu", **listed}


class Index:
    """A context manager; `url` is what pip calls an index. `seen` are the files that were downloaded, and how often."""

    def __init__(self, pip: Path) -> None:
        made = [wheel(name, version, _MODULES.get(name, {})) for name, version in pins().items()]
        self.wheels = {**dict(made), pip.name: pip.read_bytes()}
        self.seen: list[str] = []
        self.held = threading.Event()
        self._hold = ""
        self._release = threading.Event()
        self._server = LocalServer(self._answer)
        self.url = f"{self._server.url}/simple"

    def __enter__(self) -> Index:
        self._server.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.let_go()
        self._server.stop()

    def hold(self, package: str) -> None:
        """Have the next download of a package's wheel stand still; `held` says that one does."""
        self.held.clear()
        self._release.clear()
        self._hold = package

    def let_go(self) -> None:
        """Have no download stand still any more."""
        self._hold = ""
        self._release.set()

    def _answer(self, handler: BaseHTTPRequestHandler) -> None:
        kind, _, name = handler.path.strip("/").partition("/")
        if kind == "simple":
            wheels = [each for each in self.wheels if _normal(each.split("-")[0]) == _normal(name)]
            links = "".join(
                f'<a href="/wheels/{each.replace("+", "%2B")}">{each}</a>' for each in wheels
            )
            _send(
                handler,
                200 if wheels else 404,
                f"<html><body>{links}</body></html>".encode(),
                "text/html",
            )
            return
        file = name.replace("%2B", "+")
        self.seen.append(file)
        if self._hold and _normal(file.split("-")[0]) == _normal(self._hold):
            self.held.set()
            self._release.wait()
        _send(handler, 200, self.wheels[file], "application/octet-stream")


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _send(handler: BaseHTTPRequestHandler, status: int, body: bytes, kind: str) -> None:
    handler.send_response(status)
    handler.send_header("Content-Type", kind)
    handler.send_header("Content-Length", str(len(body)))
    handler.end_headers()
    if handler.command != "HEAD":
        handler.wfile.write(body)

# SPDX-License-Identifier: GPL-3.0-or-later
"""The worker process, in which the engines run: `main` is that process, `Worker` the server's handle on it.

They talk in lines of JSON. To the worker: {"run": id, "endpoint": …, "folder": …} and {"cancel": id}. From it: {"id": …,
"event": "progress" | "done" | "failed", …}. The worker ends when its standard input does, so that it never outlives its server,
and the server outlives whatever an engine does to the worker.

`command` says in which Python it runs: the server's own, or the one that was installed for TRELLIS.2, which knows nothing of
Blender's.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import ctypes
import importlib.util
import io
import json
import logging
import os
import sys
import threading
import time
import warnings
from collections.abc import AsyncGenerator, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from ..install import environment as installed
from .engines import OWN
from .engines.stages import EngineError

_log = logging.getLogger(__name__)

SPARE = "Close other programs, or choose a lower resolution, decimation target or texture size."
"""What can be done about too little memory."""

_KILLED = (-9, 0xC0000017, 0xC000012D)
"""Exit codes of who took too much memory: Linux and macOS kill with signal 9, written so by asyncio; Windows has two statuses."""

CANCEL_SECONDS = 5  # how long an engine has to notice a cancellation before its process is ended
_LINE_LIMIT = 1 << 20
_BOOT = (
    "import os, runpy, sys; sys.path.extend(p for p in sys.argv.pop(1).split(os.pathsep) if p not in sys.path); "
    f"runpy.run_module('{__name__}', run_name='__main__')"
)


def command(environment: str, home: Path) -> list[str]:
    """The command line of a worker in one of the `engines.ENVIRONMENTS`.

    Raises:
        EngineError: that environment is not installed.
    """
    package = str(Path(__file__).parents[2])
    own = [sys.executable, "-c", _BOOT, os.pathsep.join([package, *sys.path])]
    if environment == OWN:
        return own
    if python := installed.python(home):
        # Isolated (-I), and given the package's folder alone: Blender's modules are another Python's
        return [str(python), "-I", "-c", _BOOT, package]
    if importlib.util.find_spec("torch"):
        return own
    raise EngineError(
        "TRELLIS.2 is not installed. Install it in the add-on's preferences, or with `trellis sidecar install`."
    )


class Worker:
    """The server's side: one process that works on one job at a time. `command` is asked at every start of it.

    `stays`: it is there before its first job, and however long it is idle.
    """

    machine = ""

    def __init__(self, command: Callable[[], list[str]], *, stays: bool = False) -> None:
        self._command = command
        self.stays = stays
        self._process: asyncio.subprocess.Process | None = None
        self._current: str | None = None
        self._cancelled: str | None = None

    @property
    def is_there(self) -> bool:
        """Whether the process runs."""
        return self._process is not None and self._process.returncode is None

    async def ready(self) -> None:
        """Start one that stays, so that the first job need not wait for imports; why it cannot be started, that job will say."""
        if self.stays:
            with suppress(EngineError):
                await self.start()

    async def start(self) -> None:
        """Start the process if it is not there.

        Raises:
            EngineError: its Python is not there, or cannot be started.
        """
        if self.is_there:
            return
        line = self._command()
        try:
            self._process = await asyncio.create_subprocess_exec(
                *line,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                limit=_LINE_LIMIT,
            )
        except OSError as error:
            raise EngineError(
                f"The engine's Python ({line[0]}) cannot be started: {error}. Install the engine again."
            ) from error

    async def run(
        self, job_id: str, endpoint: str, folder: Path
    ) -> AsyncGenerator[dict[str, Any], None]:
        """The worker's events for one job; the last is `done`, `failed`, or `died` when the process ended by itself.

        After a failure that nobody foresaw (of the kind "broken") the process is ended: a GPU that failed stays broken in it.
        """
        try:
            await self.start()
        except EngineError as error:
            yield {"id": job_id, "event": "failed", "kind": "error", "message": str(error)}
            return
        if self._cancelled == job_id:  # while the process was started, which so has not heard of it
            yield {"id": job_id, "event": "failed", "kind": "cancelled"}
            return
        process = self._process
        assert process and process.stdout
        self._current = job_id
        event: dict[str, Any] = {}
        try:
            self._write({"run": job_id, "endpoint": endpoint, "folder": str(folder)})
            while line := await process.stdout.readline():
                event = json.loads(line)
                if event["id"] == job_id:
                    yield event
                    if event.get("kind") == "broken":
                        break
                    if event["event"] in ("done", "failed"):
                        return
        except (ConnectionError, ValueError) as error:
            _log.warning("the worker's line is broken: %s", error)
        finally:
            self._current = None
        if event.get("kind") == "broken":
            await self.stop()
            return
        with suppress(TimeoutError):
            # Whoever signals a process that is just ending takes its exit code away from asyncio, which says 255 then
            await asyncio.wait_for(process.wait(), CANCEL_SECONDS)
        await self.stop()
        if self._cancelled == job_id:
            yield {"id": job_id, "event": "failed", "kind": "cancelled"}
        else:
            yield {"id": job_id, "event": "died", "why": _why(process.returncode)}

    def cancel(self, job_id: str) -> None:
        """Ask for the end of a job; it is enforced after `CANCEL_SECONDS`."""
        self._cancelled = job_id
        self._write({"cancel": job_id})
        asyncio.get_running_loop().call_later(CANCEL_SECONDS, self._enforce, job_id, self._process)

    def _enforce(self, job_id: str, process: asyncio.subprocess.Process | None) -> None:
        if process is not None and process.returncode is None and self._current == job_id:
            _log.warning("job %s does not heed its cancellation: ending the worker", job_id)
            process.kill()

    def _write(self, message: dict[str, Any]) -> None:
        if self._process and self._process.stdin and not self._process.stdin.is_closing():
            self._process.stdin.write(json.dumps(message).encode() + b"\n")

    async def stop(self) -> None:
        """End the process."""
        process, self._process = self._process, None
        if process is not None:
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()


def _why(code: int | None) -> str:
    """What the exit code of a dead worker tells."""
    if code in _KILLED:
        return f"Something killed it; perhaps memory ran out. {SPARE}"
    return f"Its exit code was {code}."


class _Inbox:
    """What the server asked for, read by a thread so that a cancellation arrives while an engine works."""

    def __init__(self) -> None:
        self._cancelled: set[str] = set()
        self._runs: list[dict[str, Any]] = []
        self._changed = threading.Condition()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        for line in sys.stdin:
            message = json.loads(line)
            with self._changed:
                if "cancel" in message:
                    self._cancelled.add(message["cancel"])
                else:
                    self._runs.append(message)
                self._changed.notify()
        os._exit(0)  # the server is gone, whatever an engine is in the middle of

    def next(self) -> dict[str, Any]:
        with self._changed:
            self._changed.wait_for(lambda: self._runs)
            return self._runs.pop(0)

    def is_cancelled(self, job_id: str) -> bool:
        return job_id in self._cancelled


def _send(job_id: str, event: str, **more: Any) -> None:
    sys.__stdout__.write(json.dumps({"id": job_id, "event": event, **more}) + "\n")  # type: ignore[union-attr]
    sys.__stdout__.flush()  # type: ignore[union-attr]


def _images(urls: list[str]) -> list[Any]:
    """The pictures in data URIs, which the server has checked to be such."""
    from PIL import Image

    pictures = []
    for url in urls:
        try:
            data = base64.b64decode(url.partition(",")[2], validate=True)
            with warnings.catch_warnings(action="error", category=Image.DecompressionBombWarning):
                picture = Image.open(io.BytesIO(data), formats=("PNG", "JPEG", "WEBP"))
                picture.load()
        except (
            binascii.Error,
            OSError,
            ValueError,
            SyntaxError,
            Image.DecompressionBombError,
            Image.DecompressionBombWarning,
        ) as error:
            raise EngineError(f"The picture cannot be read: {error}", "image_urls") from error
        pictures.append(picture if picture.mode in ("RGB", "RGBA") else picture.convert("RGBA"))
    return pictures


def _mesh(uri: str) -> bytes:
    """The GLB in a data URI, which the server has checked to be one."""
    try:
        return base64.b64decode(uri.partition(",")[2], validate=True)
    except binascii.Error as error:
        raise EngineError(f"The mesh cannot be read: {error}", "mesh_url") from error


def _work(run: dict[str, Any], inbox: _Inbox) -> None:
    from ..endpoints.schema import schemas
    from ..home import atomic_write
    from .engines import engine
    from .engines.stages import Progress, Report

    job_id, folder = run["run"], Path(run["folder"])
    request = json.loads((folder / "request.json").read_text(encoding="utf-8"))
    worker = engine(run["endpoint"], folder.parents[1])
    images = _images(request.pop("image_urls"))
    if "mesh_url" in request:
        request["mesh"] = _mesh(request.pop("mesh_url"))
    parameters = schemas()[run["endpoint"]]["properties"]
    request = {name: parameter["default"] for name, parameter in parameters.items()} | request

    def listen(report: Report) -> None:
        _send(job_id, "progress", progress=report.as_dict())

    started = time.monotonic()
    progress = Progress(
        worker.plan(request, len(images)), listen, lambda: inbox.is_cancelled(job_id)
    )
    with progress.heartbeat():
        glb = worker.run(request, images, progress)
    with atomic_write(folder / "model.glb", 0o600) as part:
        part.write_bytes(glb)
    _send(
        job_id,
        "done",
        seed=request.get("seed"),
        bytes=len(glb),
        seconds=time.monotonic() - started,
        notes=progress.notes,
    )


def _give_back() -> None:
    """Have the C library give back what is free: by itself glibc may keep as much as the largest job needed, for good."""
    if sys.platform == "linux":
        # other C libraries have no such function
        trim = getattr(ctypes.CDLL(None), "malloc_trim", lambda _: 0)
        trim(0)


def main() -> None:
    """Work on one job after another until standard input ends."""
    sys.stdout = sys.stderr  # whatever a library prints must not end up between the lines of JSON
    inbox = _Inbox()
    from .engines.stages import Cancelled

    while True:
        run = inbox.next()
        job_id = run["run"]
        try:
            _work(run, inbox)
        except Cancelled:
            _send(job_id, "failed", kind="cancelled")
        except EngineError as error:
            kind = "input" if error.field else "error"
            _send(job_id, "failed", kind=kind, message=str(error), field=error.field)
        except MemoryError:
            _log.exception("job %s failed", job_id)
            _send(
                job_id, "failed", kind="broken", message=f"The computer's memory ran out. {SPARE}"
            )
        except Exception as error:  # noqa: BLE001  an engine may fail in any way; the client is told
            _log.exception("job %s failed", job_id)
            reason = str(error).strip().partition("\n")[0]
            words = f"The engine failed unexpectedly ({type(error).__name__}: {reason}). It begins afresh: try again."
            _send(job_id, "failed", kind="broken", message=words)
        _give_back()


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(asctime)s worker %(levelname)s %(message)s")
    main()

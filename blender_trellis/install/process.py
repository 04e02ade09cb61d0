# SPDX-License-Identifier: GPL-3.0-or-later
"""One child process: its lines as they come, a log of them, and an end at once when it is not wanted any more."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, TextIO

from ..config import SECRETS
from ..errors import CancelledError
from . import Cancelled

GUARD = Path(__file__).with_name("guard.py")
_LOOK_SECONDS = 0.1  # between two looks whether it was cancelled


def python_command(python: Path, *arguments: str | Path) -> list[str]:
    """A Python that looks at nothing of the user's or of Blender's, ends with this process, and speaks UTF-8 line by line."""
    return [str(python), "-I", "-X", "utf8", "-u", str(GUARD), *map(str, arguments)]


def run(
    command: Sequence[str], log: Path, line: Callable[[str], None], cancelled: Cancelled
) -> int:
    """Run a child to its end; returns its exit code. Each line of output goes to `line`, and to the end of `log`.

    Raises:
        CancelledError: `cancelled` said so; the child and what it started have been killed.
        OSError: it cannot be started.
    """
    with _temporary(log.parent) as temporary, log.open("a", encoding="utf-8") as written:
        print(f"$ {' '.join(command)}", file=written, flush=True)
        with subprocess.Popen(
            command,
            stdin=subprocess.PIPE,  # its end is how the guard knows that this process has gone
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            errors="replace",
            env=_environment(temporary),
            cwd=log.parent,
            start_new_session=sys.platform != "win32",
            **hidden(),
        ) as child:
            try:
                return _listen(child, written, line, cancelled)
            finally:
                _kill(child)


@contextlib.contextmanager
def _temporary(place: Path) -> Iterator[Path]:
    """A folder for the child's temporary files, where room was asked for: /tmp may be too small for gigabytes."""
    path = place / "temporary"
    shutil.rmtree(path, ignore_errors=True)  # of one that was killed
    path.mkdir(exist_ok=True)
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def _environment(temporary: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name not in SECRETS}
    return kept | dict.fromkeys(("TMPDIR", "TEMP", "TMP"), str(temporary))


def _listen(
    child: subprocess.Popen[str], log: TextIO, line: Callable[[str], None], cancelled: Cancelled
) -> int:
    lines: SimpleQueue[str | None] = SimpleQueue()
    reader = threading.Thread(target=_read, args=(child.stdout, lines), daemon=True)
    reader.start()
    while True:
        check(cancelled)
        try:
            text = lines.get(timeout=_LOOK_SECONDS)
        except Empty:
            continue
        if text is None:
            reader.join()
            return child.wait()
        if not text.startswith(("Progress ", '{"event": "bytes"')):  # several times a second
            print(text, file=log, flush=True)
        line(text)


def check(cancelled: Cancelled) -> None:
    """Stop here if it was cancelled.

    Raises:
        CancelledError: it was.
    """
    if cancelled():
        raise CancelledError("The installation was cancelled. Install again to go on from here.")


def _read(stream: Any, lines: SimpleQueue[str | None]) -> None:
    for text in stream:
        if text.strip():
            lines.put(text.rstrip())
    lines.put(None)


def _kill(child: subprocess.Popen[str]) -> None:
    """End the child and all that it started."""
    if child.poll() is not None:
        return
    if sys.platform == "win32":
        ended = ["taskkill", "/F", "/T", "/PID", str(child.pid)]
        subprocess.run(ended, capture_output=True, check=False, **hidden())
    else:
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()


def hidden() -> dict[str, Any]:
    """Arguments for a child that opens no console window on Windows."""
    if sys.platform == "win32":
        return {"creationflags": subprocess.CREATE_NO_WINDOW}
    return {}

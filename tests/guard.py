# SPDX-License-Identifier: GPL-3.0-or-later
"""Keeps a Python that tries the installed copy from the project's sources, and from all addresses but this computer's own.

Needs the standard library alone: it is copied beside other Pythons, and runs inside Blender.
"""

from __future__ import annotations

import sys
from pathlib import Path

HERE = ("127.0.0.1", "::1")


def put_up(source: str, log: str) -> None:
    """From now on raise PermissionError in this process, with a line in `log`, where a file below `source` is opened or another
    computer is named. It cannot be taken down again."""

    def guard(event: str, arguments: tuple[object, ...]) -> None:
        if event == "open":
            name = arguments[0]
            allowed = not isinstance(name, str) or not name.startswith(source)
        elif event in ("socket.connect", "socket.sendto"):
            name = arguments[1]
            allowed = not isinstance(name, tuple) or name[0] in HERE
        elif event == "socket.getaddrinfo":
            name = arguments[0]
            allowed = name in (None, "localhost", *HERE)
        else:
            return
        if not allowed:
            said = f"not in a test: {event} {name}"
            with Path(log).open("a", encoding="utf-8") as written:
                written.write(f"Error: {said}\n")
            raise PermissionError(said)

    sys.addaudithook(guard)

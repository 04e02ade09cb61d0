# SPDX-License-Identifier: GPL-3.0-or-later
"""Drops files on the window under a point of the screen as a file manager does, by version 5 of the XDND protocol:
`python3 drop.py X Y FILE...`. A program of its own, since it answers the window's questions while that window draws.

https://www.freedesktop.org/wiki/Specifications/XDND/
"""

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from Xlib import X, Xatom, display
from Xlib.protocol import event

VERSION = 5


class Source:
    """The window that the files come from."""

    def __init__(self, paths: list[Path]) -> None:
        self.display = display.Display()
        self.root = self.display.screen().root
        self.window = self.root.create_window(0, 0, 1, 1, 0, X.CopyFromParent)
        self.content = "".join(f"{path.resolve().as_uri()}\r\n" for path in paths).encode()
        self.accepted: bool | None = None
        self.finished = False

    def atom(self, name: str) -> int:
        return int(self.display.intern_atom(name))

    def target(self, x: int, y: int) -> Any:
        """The window at x, y that takes drops: below the pointer, going inwards."""
        self.root.warp_pointer(x, y)
        self.display.sync()
        found, here = None, self.root
        while True:
            inner = here.query_pointer().child
            if not inner:
                return found
            here = inner
            if here.get_full_property(self.atom("XdndAware"), X.AnyPropertyType):
                found = here

    def send(self, target: Any, name: str, *data: int) -> None:
        values = [self.window.id, *data, 0, 0, 0, 0][:5]
        message = event.ClientMessage(window=target, client_type=self.atom(name), data=(32, values))
        target.send_event(message)
        self.display.flush()

    def serve(self, until: Callable[[], Any], seconds: float) -> None:
        """Answer what the target asks, until something happened or the time is over."""
        deadline = time.monotonic() + seconds
        while not until() and time.monotonic() < deadline:
            while self.display.pending_events():
                self._take(self.display.next_event())
            time.sleep(0.02)

    def _take(self, happened: Any) -> None:
        if happened.type == X.ClientMessage:
            if happened.client_type == self.atom("XdndStatus"):
                self.accepted = bool(happened.data[1][1] & 1)
            elif happened.client_type == self.atom("XdndFinished"):
                self.finished = True
        elif happened.type == X.SelectionRequest:
            self._hand_over(happened)

    def _hand_over(self, asked: Any) -> None:
        given = asked.property or asked.target
        if asked.target == self.atom("text/uri-list"):
            asked.requestor.change_property(given, asked.target, 8, self.content)
        elif asked.target == self.atom("TARGETS"):
            kinds = [self.atom("text/uri-list")]
            asked.requestor.change_property(given, Xatom.ATOM, 32, kinds)
        else:
            given = X.NONE
        answer = event.SelectionNotify(
            time=asked.time,
            requestor=asked.requestor,
            selection=asked.selection,
            target=asked.target,
            property=given,
        )
        asked.requestor.send_event(answer)
        self.display.flush()


def drop(x: int, y: int, paths: list[Path]) -> str:
    """Drop them; what went wrong, or nothing."""
    source = Source(paths)
    target = source.target(x, y)
    if target is None:
        return f"No window at {x}, {y} takes drops."
    source.window.set_selection_owner(source.atom("XdndSelection"), X.CurrentTime)
    source.send(target, "XdndEnter", VERSION << 24, source.atom("text/uri-list"))
    # Several moves: Blender looks for who takes a drop on the move events alone
    for step in range(6):
        source.accepted = None
        place = (x - 5 + step) << 16 | y
        source.send(target, "XdndPosition", 0, place, X.CurrentTime, source.atom("XdndActionCopy"))
        source.serve(lambda: source.accepted is not None, 1.0)
        time.sleep(0.1)
    if not source.accepted:
        source.send(target, "XdndLeave")
        return "The window refuses these files here."
    source.send(target, "XdndDrop", 0, X.CurrentTime)
    source.serve(lambda: source.finished, 5.0)
    return "" if source.finished else "The window did not take the files."


if __name__ == "__main__":
    sys.exit(drop(int(sys.argv[1]), int(sys.argv[2]), [Path(name) for name in sys.argv[3:]]) or 0)

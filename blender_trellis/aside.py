# SPDX-License-Identifier: GPL-3.0-or-later
"""Work that may take for ever, as of somebody else's dialog or server: in a thread that nothing waits for at the end."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from concurrent.futures import Future

_T = TypeVar("_T")


def aside(work: Callable[[], _T], name: str) -> Future[_T]:
    """Begin `work` in a thread of its own, called `name`. It cannot be cancelled, but left behind."""
    from concurrent.futures import Future

    future: Future[_T] = Future()
    future.set_running_or_notify_cancel()  # who waits may be cancelled, the work itself cannot

    def run() -> None:
        try:
            done = work()
        except BaseException as error:  # noqa: BLE001  whoever waits raises it
            future.set_exception(error)
        else:
            future.set_result(done)

    threading.Thread(target=run, name=name, daemon=True).start()
    return future

# SPDX-License-Identifier: GPL-3.0-or-later
"""What the keychain holds, as panel and preferences show it, and what is asked of it. In a window nothing here waits: an answer
comes as a call in the pump's inbox, however long a dialog of the keychain is open."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from .. import keychain
from ..errors import AccessError, TrellisError
from . import jobs, preferences

if TYPE_CHECKING:
    from concurrent.futures import Future

    from ..keychain import Held

Then = Callable[[], object]


class Keys:
    """All methods are the main thread's. `board` gets what is to be told of a key, `inbox` the calls for the next tick."""

    def __init__(self, board: jobs.Board, inbox: Callable[[Callable[[], None]], None]) -> None:
        self._board = board
        self._inbox = inbox
        self._held: dict[str, Held | None] = {}
        self._asked = 0

    @property
    def busy(self) -> bool:
        """Whether an answer is on the way."""
        return self._asked > 0

    @property
    def absent(self) -> bool:
        """Whether this computer is known to have no keychain."""
        return any(held and not held.name and not held.trouble for held in self._held.values())

    def held(self, service: str) -> Held | None:
        """What the keychain holds for a service; None until that is known. The first question has it asked."""
        if service not in self._held:
            self.look(service)
        return self._held[service]

    def look(self, service: str, then: Then = lambda: None, *, anew: bool = False) -> None:
        """Ask the keychain for a service's key, and have `then` called when the answer is there."""
        self._held.setdefault(service, None)
        self._follow(service, keychain.ask(service, anew=anew), then)

    def keep(self, service: str) -> None:
        """Move a service's key from the preferences into the keychain.

        Raises:
            AccessError: in background mode, where this waits: the keychain did not take it.
        """
        key = preferences.typed(service)
        drop = partial(preferences.drop, service, key)
        self._change(service, keychain.keep(service, key.strip()), drop)

    def remove(self, service: str) -> None:
        """Delete a service's key from the keychain.

        Raises:
            AccessError: in background mode, where this waits: the keychain did not do it.
        """
        self._change(service, keychain.remove(service), lambda: None)

    def _change(self, service: str, question: Future[Held], then: Then) -> None:
        from . import pump

        def changed() -> None:
            held = self._held[service]
            if held and held.trouble:  # it did not answer in time
                raise AccessError(held.trouble)
            pump.reconfigure()
            then()

        self._board.keys[service] = jobs.ASKING
        self._follow(service, question, changed)

    def _follow(self, service: str, question: Future[Held], then: Then) -> None:
        from . import operators, pump

        if operators.waits():
            self._held[service] = keychain.wait(question)
            then()
            return
        self._asked += 1
        question.add_done_callback(
            lambda done: self._inbox(partial(self._answered, service, done, then))
        )
        pump.wake()

    def _answered(self, service: str, question: Future[Held], then: Then) -> None:
        from . import pump

        self._asked -= 1
        try:
            self._held[service] = question.result()
            then()
        except TrellisError as error:
            self._board.keys[service] = error.message
        self._board.dirty = True
        pump.redraw_preferences()

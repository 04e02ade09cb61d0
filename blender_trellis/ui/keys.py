# SPDX-License-Identifier: GPL-3.0-or-later
"""The services' keys, as panel and preferences show them: what the keychain holds and what is asked of it, and what a service
says of its key. In a window nothing here waits: an answer comes with a tick, however long a dialog of the keychain is open."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from .. import keychain
from ..config import in_environment
from ..errors import AccessError, TrellisError
from . import jobs, preferences, screen

if TYPE_CHECKING:
    from concurrent.futures import Future

    from ..config import Config
    from ..keychain import Held
    from .clerk import Clerk

Then = Callable[[], object]


class Keys:
    """All methods are the main thread's, except those that say otherwise.

    `board` gets what is to be told of a key; `outdate` is called when another one may be used from now on.
    """

    def __init__(self, board: jobs.Board, clerk: Clerk, outdate: Callable[[], None]) -> None:
        self._board = board
        self._clerk = clerk
        self._outdate = outdate
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

    def check(self, service: str) -> None:
        """Ask a service what it says of its key; the answer comes to the board.

        Raises:
            InputError: a base URL in the preferences is not one.
        """
        config = preferences.config()
        self._board.keys[service] = jobs.ASKING

        def ask() -> None:
            self._outdate()  # the keychain may hold another one than the runner knows
            self._clerk.later(partial(self._try, service, config))

        if in_environment(service):
            ask()
        else:
            self.look(service, ask, anew=True)

    def _try(self, service: str, config: Config) -> None:
        """In the clerk's thread: asks."""
        from ..services import check_key
        from .money import accepted

        try:
            words = accepted(check_key(service, config))
        except TrellisError as error:
            words = error.message
        self._clerk.tell(partial(self._show, service, words))

    def _show(self, service: str, words: str) -> None:
        if service in self._board.keys:  # else it was changed meanwhile
            self._board.keys[service] = words
            screen.redraw_preferences()

    def forget(self) -> None:
        """No key is known to be good any more."""
        self._board.keys.clear()

    def _change(self, service: str, question: Future[Held], then: Then) -> None:
        def changed() -> None:
            held = self._held[service]
            if held and held.trouble:  # it did not answer in time
                raise AccessError(held.trouble)
            self._outdate()
            self.forget()
            then()

        self._board.keys[service] = jobs.ASKING
        self._follow(service, question, changed)

    def _follow(self, service: str, question: Future[Held], then: Then) -> None:
        if screen.waits():
            self._held[service] = keychain.wait(question)
            then()
            return
        self._asked += 1
        question.add_done_callback(
            lambda done: self._clerk.tell(partial(self._answered, service, done, then))
        )
        self._clerk.wake()

    def _answered(self, service: str, question: Future[Held], then: Then) -> None:
        self._asked -= 1
        try:
            self._held[service] = question.result()
            then()
        except TrellisError as error:
            self._board.keys[service] = error.message
        self._board.dirty = True
        screen.redraw_preferences()

# SPDX-License-Identifier: GPL-3.0-or-later
"""The operating system's keychain as a place for the services' keys: Windows' Credential Manager, macOS' Keychain, and what else
`keyring` recommends. Where that package or a keychain is missing, there is simply none.

A keychain may open a dialog and wait for somebody, or never answer: each question has a thread of its own, for which nothing
waits when the program ends, and `ask`, `keep` and `remove` return at once. Nothing that a keychain says of an error is passed on,
since a key might be in it; what went wrong is told in our own words, with the error's class.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from .aside import aside
from .config import KEYS, Config, in_environment
from .errors import AccessError

if TYPE_CHECKING:
    import logging
    from concurrent.futures import Future

SYSTEM = "Trellis for Blender"  # what the keychain's own window calls the program; the user's name there is the service's
PATIENCE = 60.0  # seconds for somebody to answer the keychain's dialog
_RECOMMENDED = 1  # keyring's priority of a backend, below which are plain files, and none at all
_SILENT = (
    "The keychain does not answer. See whether a dialog of it is open, unlock it and try again, or set the key in the "
    "preferences."
)

_asking = threading.Lock()
_one_at_a_time = threading.Lock()
_answers: dict[str, Future[Held]] = {}


@dataclass(frozen=True)
class Held:
    """What the keychain holds for a service. `name` is the keychain's, "" where there is none; `key` is "" where it has none;
    `trouble` says in words why it could not be read."""

    name: str = ""
    key: str = field(default="", repr=False)
    trouble: str = ""


def _log() -> logging.Logger:
    import logging

    return logging.getLogger(__name__)


def ask(service: str, *, anew: bool = False) -> Future[Held]:
    """What the keychain holds for "fal" or "runware". An answer stays known, unless there was trouble or it is asked `anew`;
    who asks meanwhile gets the same answer."""
    with _asking:
        known = _answers.get(service)
        if known is None or (known.done() and (anew or known.result().trouble)):
            known = _answers[service] = _start(partial(_read, service))
        return known


def keep(service: str, key: str) -> Future[Held]:
    """Put a key into the keychain, in place of the one that it has. An AccessError if it does not take it."""
    return _start(partial(_change, service, key))


def remove(service: str) -> Future[Held]:
    """Delete a key from the keychain. An AccessError if that cannot be done."""
    return _start(partial(_change, service, ""))


def wait(question: Future[Held]) -> Held:
    """The answer to a question, which is trouble after `PATIENCE`; blocks, so it is not for Blender's main thread in a window,
    nor for an event loop.

    Raises:
        AccessError: the keychain did not do what it was asked to.
    """
    try:
        return question.result(PATIENCE)
    except TimeoutError:
        return Held(trouble=_SILENT)


def forget() -> None:
    """Let go of all keys that are known, so that each is asked for anew."""
    _answers.clear()


async def complete(config: Config, service: str) -> Config:
    """`config` with the key that the keychain holds for a service, where the environment does not name one.

    Raises:
        AccessError: the keychain cannot be read, and `config` has no key either.
    """
    import asyncio

    if service not in KEYS or in_environment(service):
        return config
    try:
        held = await asyncio.wait_for(asyncio.wrap_future(ask(service)), PATIENCE)
    except TimeoutError:
        held = Held(trouble=_SILENT)
    if held.key:
        given: dict[str, Any] = {f"{service}_key": held.key}
        return replace(config, **given)
    if held.trouble and not getattr(config, f"{service}_key"):
        raise AccessError(held.trouble)
    if held.trouble:
        _log().warning("%s The preferences' key is used.", held.trouble)
    return config


def _start(work: Callable[[], Held]) -> Future[Held]:
    """Have a thread do it that may be left behind."""

    def alone() -> Held:
        with _one_at_a_time:
            return work()

    return aside(alone, "trellis-keychain")


def _backend() -> tuple[Any, str]:
    """The backend that keyring recommends on this computer, and its name; "" if there is none."""
    try:
        import keyring

        backend: Any = keyring.get_keyring()
        return backend, str(backend.name) if backend.priority >= _RECOMMENDED else ""
    except Exception as error:  # noqa: BLE001  not installed, or set to one that does not exist
        _log().debug("there is no keychain: %s", type(error).__name__)
        return None, ""


def _read(service: str) -> Held:
    backend, name = _backend()
    if not name:
        return Held()
    try:
        key = backend.get_password(SYSTEM, service)
    except Exception as error:  # noqa: BLE001  each keychain has its own
        return Held(name, trouble=_refusal("give", type(error).__name__))
    return Held(name, (key or "").strip())


def _change(service: str, key: str) -> Held:
    """Have the keychain hold `key`, and look whether it does; nothing if that is empty."""
    from concurrent.futures import Future

    backend, name = _backend()
    if not name:
        raise AccessError("There is no keychain on this computer. Keep the key in the preferences.")
    why = ""
    try:
        if key:
            backend.set_password(SYSTEM, service, key)
        elif backend.get_password(SYSTEM, service) is not None:
            backend.delete_password(SYSTEM, service)
        if (backend.get_password(SYSTEM, service) or "") != key:
            why = "it holds another one"
    except Exception as error:  # noqa: BLE001  raised below, without what it says
        why = type(error).__name__
    if why:
        raise AccessError(_refusal("take" if key else "delete", why))
    known: Future[Held] = Future()
    known.set_result(Held(name, key))
    _answers[service] = known
    return known.result()


def _refusal(what: str, why: str) -> str:
    return f"The keychain does not {what} the key ({why}). Unlock it and try again, or set the key in the preferences."

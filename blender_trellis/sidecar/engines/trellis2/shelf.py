# SPDX-License-Identifier: GPL-3.0-or-later
"""Networks that stay loaded from one job of a process to its next, as long as there is plenty of memory without theirs."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn

from .memory import Machine

_log = logging.getLogger(__name__)


class Shelf:
    """One network of each name, the one that was used last at the end.

    Whenever a network is about to be used there is plenty of memory (`Machine.has_plenty`), or nothing is here: work goes as if
    nothing ever were. What was used last is let go first. Jobs use networks in the same order, so it is the one that is wanted
    last; letting go what was not used for longest would, where not all have room, let each go just before it is wanted.
    """

    def __init__(self) -> None:
        self._there: dict[str, tuple[Any, nn.Module]] = {}

    @contextmanager
    def network(
        self,
        name: str,
        identity: Any,
        load: Callable[[], nn.Module],
        machine: Machine,
        *,
        stays: bool = True,
    ) -> Iterator[nn.Module]:
        """A network, to be used in the block; of another `identity` than the one that is here, it is loaded.

        Afterwards it is here if it `stays`, nothing was raised and there is plenty of memory; else its weights are gone.
        """
        before, network = self._there.pop(name, (None, None))
        if network is not None and before != identity:
            _let_go(network, machine)
            network = None
        self.make_room(machine)
        if network is None:
            started = time.monotonic()
            network = load()
            _log.info("%s: loaded in %.1f s", name, time.monotonic() - started)
        try:
            yield network
        except BaseException:
            _let_go(network, machine)
            raise
        if stays:
            self._there[name] = identity, network
            machine.clean()
            self.make_room(machine)
        else:
            _let_go(network, machine)

    def make_room(self, machine: Machine) -> None:
        """Let go until there is plenty of memory."""
        while self._there and not machine.has_plenty():
            _, (_, network) = self._there.popitem()
            _let_go(network, machine)

    def clear(self, machine: Machine) -> bool:
        """Let all go; False if nothing was here."""
        there = [network for _, network in self._there.values()]
        self._there.clear()
        for network in there:
            _let_go(network, machine)
        return bool(there)


def _let_go(network: nn.Module, machine: Machine) -> None:
    network.to("meta")  # whoever still holds it holds no weights
    machine.clean()

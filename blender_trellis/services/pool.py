# SPDX-License-Identifier: GPL-3.0-or-later
"""The services that are open, one for each endpoint that is asked, by the settings of the moment."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import AsyncIterator

from ..config import Config
from . import Service, open_service, with_key


class Pool:
    """Opens services and closes them. All of it belongs to one loop; `config` is changed by `reconfigure`."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self._open: dict[str, Service] = {}  # by endpoint
        self._uses: Counter[Service] = Counter()  # also of those that are no longer in `_open`

    @contextlib.asynccontextmanager
    async def using(self, endpoint: str) -> AsyncIterator[Service]:
        """The service of an endpoint, which stays open until the block ends.

        Raises:
            AccessError: it needs a key and there is none, or Blender may not go online.
        """
        service = await self._get(endpoint)
        self._uses[service] += 1
        try:
            yield service
        finally:
            self._uses[service] -= 1
            await self._let_go(service)

    async def _get(self, endpoint: str) -> Service:
        while endpoint not in self._open:
            config = self.config
            keyed = await with_key(endpoint, config)
            # Another job may have opened it meanwhile, or the settings may be others
            if endpoint not in self._open and config is self.config:
                self._open[endpoint] = open_service(endpoint, keyed)
        return self._open[endpoint]

    async def reconfigure(self, config: Config) -> None:
        """Take up other settings, from the next question to a service on. What is open by the former ones is closed when nobody
        uses it any more."""
        former = [*self._open.values()]
        self.config, self._open = config, {}
        for service in former:
            await self._let_go(service)

    async def _let_go(self, service: Service) -> None:
        """Close a service of former settings that nobody uses."""
        if not self._uses[service] and service not in self._open.values():
            del self._uses[service]
            await service.close()

    async def close(self) -> None:
        """Let go of every connection."""
        for service in {*self._open.values(), *self._uses}:
            await service.close()

# SPDX-License-Identifier: GPL-3.0-or-later
"""WHAT can be asked for: a pydantic model per endpoint, a file per service.

Importing this package, `schema` and `prices` loads no third-party module; `get` and `models` load pydantic, on first use.
To add an endpoint: write its class, with an `id`, in its service's file, and its price in `prices`; run `python build.py docs`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .schema import unknown_endpoint

if TYPE_CHECKING:
    from .base import Endpoint


def models() -> dict[str, type[Endpoint]]:
    """Every endpoint's model, by id: the classes in the services' files that have an `id` of their own, in their order."""
    from . import fal, local, runware
    from .base import Endpoint

    return {
        found.id: found
        for module in (local, fal, runware)
        for found in vars(module).values()
        if isinstance(found, type)
        and issubclass(found, Endpoint)
        and found.__module__ == module.__name__
        and "id" in vars(found)
    }


def get(endpoint: str) -> type[Endpoint]:
    """The model of `endpoint`.

    Raises:
        EndpointError: there is no such endpoint.
    """
    known = models()
    if endpoint not in known:
        raise unknown_endpoint(endpoint)
    return known[endpoint]

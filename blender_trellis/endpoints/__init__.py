# SPDX-License-Identifier: GPL-3.0-or-later
"""WHAT can be asked for: a pydantic model per endpoint, a file per service.

Importing this package, and `schema`, loads no third-party module; `get` and `models` load pydantic, on first use.
To add an endpoint: write its class in its service's file, list it in `models`, run `python build.py docs`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..errors import EndpointError

if TYPE_CHECKING:
    from .base import Endpoint


def models() -> dict[str, type[Endpoint]]:
    """Every endpoint's model, by id."""
    from . import fal, local, runware

    every: tuple[type[Endpoint], ...] = (
        local.LocalDraft,
        local.LocalTrellis2,
        fal.FalTrellis2,
        fal.FalTrellis2Lora,
        fal.FalTrellis,
        fal.FalTrellisMulti,
        runware.RunwareTrellis2,
    )
    return {model.id: model for model in every}


def get(endpoint: str) -> type[Endpoint]:
    """The model of `endpoint`.

    Raises:
        EndpointError: there is no such endpoint.
    """
    known = models()
    if endpoint not in known:
        raise EndpointError(f"There is no endpoint {endpoint!r}. Choose one of {', '.join(known)}.")
    return known[endpoint]

# SPDX-License-Identifier: GPL-3.0-or-later
"""The engines, by the endpoint that they carry out. To add one, write a class with the methods of `stages.Engine`."""

from __future__ import annotations

import os
from pathlib import Path

from .stages import Engine, EngineError

OWN, TRELLIS2 = "own", "trellis2"
ENVIRONMENTS = (OWN, TRELLIS2)
"""The Pythons that engines run in: the server's own, and the one that is installed in the folder of that name."""

ENDPOINTS = {
    "local/draft": OWN,
    "local/trellis-2": TRELLIS2,
    "local/trellis-2/retexture": TRELLIS2,
}
"""Every endpoint, and the environment that it runs in."""


def engine(endpoint: str, sidecar: Path) -> Engine:
    """The engine behind `endpoint`, for a sidecar in the folder `sidecar`; its imports are paid on first use.

    Raises:
        EngineError: there is none, or its environment lacks something.
    """
    if endpoint == "local/draft":
        from .draft import DraftEngine

        return DraftEngine()
    if endpoint not in ENDPOINTS:
        raise EngineError(f"This version of the local process has no endpoint {endpoint!r}.")
    # Before torch is imported: what Apple's GPUs cannot do is then done by the CPU
    os.environ.setdefault("PYTORCH_ENABLE_MPS_FALLBACK", "1")
    try:
        from .trellis2.engine import RetextureEngine, Trellis2Engine
    except (ImportError, OSError) as error:  # on Windows a missing DLL of torch is an OSError
        raise EngineError(
            f"TRELLIS.2's installation is not complete ({error}). Install it again, with `trellis sidecar install`."
        ) from error
    if endpoint == "local/trellis-2":
        return Trellis2Engine(sidecar)
    return RetextureEngine(sidecar)

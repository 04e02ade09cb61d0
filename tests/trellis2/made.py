# SPDX-License-Identifier: GPL-3.0-or-later
"""Jobs for the local engine with the tiny checkpoint: in this process, on the CPU, in float32.

Import this only after `pytest.importorskip("torch")`.
"""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from PIL import Image, ImageDraw

from blender_trellis.endpoints.schema import schemas
from blender_trellis.generation import glb
from blender_trellis.sidecar.engines.stages import Engine, Progress, Report, Stage
from blender_trellis.sidecar.engines.trellis2.engine import RetextureEngine, Trellis2Engine
from blender_trellis.sidecar.engines.trellis2.memory import Machine
from blender_trellis.sidecar.engines.trellis2.shelf import Shelf
from trellis2 import checkpoint

ENDPOINT, RETEXTURE = "local/trellis-2", "local/trellis-2/retexture"
QUICK = {"resolution": 512, "seed": 51, "texture_size": 256, "decimation_target": 2000}
"""Below the ranges of the endpoint, which the engine does not know, so that the mesh stage takes no time."""


def picture(colour: str = "red", size: int = 96) -> Image.Image:
    """An ellipse, cut out."""
    image = Image.new("RGBA", (size, size))
    ImageDraw.Draw(image).ellipse((size // 5, 4, size * 3 // 4, size - 4), fill=colour)
    return image


def computer(gib: Callable[[], float] = lambda: 0, flow: torch.dtype = torch.float32) -> Machine:
    """The CPU, with so much free memory as `gib` says, and not as happens to be free."""

    class Computer(Machine):
        def free(self) -> int:
            return int(gib() * 2**30)

    return Computer(torch.device("cpu"), flow)


@dataclass(frozen=True)
class Made:
    """A finished model, and what was told while it was made."""

    data: bytes
    reports: list[Report]
    extras: dict[str, Any] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "extras", extras(self.data))

    @property
    def binary(self) -> bytes:
        """Mesh and pictures, without what is said of them."""
        length = struct.unpack_from("<I", self.data, 12)[0]
        return self.data[20 + length :]

    @property
    def forwards(self) -> dict[str, int]:
        found: dict[str, int] = self.extras["forwards"]
        return found


def extras(data: bytes) -> dict[str, Any]:
    """What a GLB says of its making."""
    length = struct.unpack_from("<I", data, 12)[0]
    found: dict[str, Any] = json.loads(data[20 : 20 + length])["asset"]["extras"]
    return found


class Studio:
    """A home with weights; jobs in it share its cache, and the networks that stay: by default none does."""

    def __init__(self, home: Path, machine: Machine | None = None) -> None:
        self.home = home
        self._machine = machine or computer()
        self._shelf = Shelf()
        self._weights = checkpoint.write(home / "trellis2" / "weights")

    def engine(self, endpoint: str = ENDPOINT) -> Engine:
        kind = RetextureEngine if endpoint == RETEXTURE else Trellis2Engine
        return kind(self.home / "sidecar", self._machine, self._shelf)

    def request(self, endpoint: str = ENDPOINT, **changes: Any) -> dict[str, Any]:
        """A complete body without pictures."""
        properties = schemas()[endpoint]["properties"]
        return {name: each["default"] for name, each in properties.items()} | QUICK | changes

    def plan(self, images: int = 1, **changes: Any) -> list[Stage]:
        return list(self.engine().plan(self.request(**changes), images))

    def make(
        self,
        *images: Image.Image,
        endpoint: str = ENDPOINT,
        colour: str = "red",
        cancelled: Callable[[], bool] = lambda: False,
        **changes: Any,
    ) -> Made:
        """A model of `images`, by default a picture in `colour`, with QUICK changed by `changes`."""
        shown = images or (picture(colour),)
        request = self.request(endpoint, **changes)
        engine, reports = self.engine(endpoint), list[Report]()
        progress = Progress(engine.plan(request, len(shown)), reports.append, cancelled)
        data = engine.run(request, shown, progress)
        path = self.home / "made.glb"
        path.write_bytes(data)
        glb.check(path)
        return Made(data, reports)

    def touch(self, model: str) -> None:
        """Make a network's file look changed."""
        path = checkpoint.path_of(self._weights, model)
        state = path.stat()
        os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns + 1))

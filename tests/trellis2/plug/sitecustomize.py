# SPDX-License-Identifier: GPL-3.0-or-later
"""On the path of a sidecar's processes this lets a test hold the engine at a stage, or take its memory away there, and say how
much memory there is.

The test says so by files in the folder PLUG: `hold.STAGE`, `deaf.STAGE` (held, and deaf to a cancellation), `oom.STAGE`,
and `broken.STAGE` for a GPU that fails; `at.STAGE`, with the process's id, answers. It is done where every engine comes by, in
`Progress.step`, after the step was told. `free` holds how much memory is free, in GiB; without it none is known to be.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

_FOLDER = Path(os.environ["PLUG"])


def _stages(stages: ModuleType) -> None:
    told = stages.Progress.step

    def step(self: Any, name: str, number: int, *arguments: Any, **more: Any) -> None:
        told(self, name, number, *arguments, **more)
        if "torch" not in sys.modules:  # the Draft engine
            return
        shortage, broken, hold, deaf = (
            _FOLDER / f"{what}.{name}" for what in ("oom", "broken", "hold", "deaf")
        )
        if broken.exists():
            broken.unlink()
            raise RuntimeError("CUDA error: an illegal memory access was encountered\nand more")
        if shortage.exists() and number:  # what is no step costs no memory
            shortage.unlink()
            import torch

            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        if hold.exists() or deaf.exists():
            part = _FOLDER / "part"
            part.write_text(str(os.getpid()))
            part.replace(_FOLDER / f"at.{name}")
        while hold.exists():
            self.check()
            time.sleep(0.01)
        while deaf.exists():
            time.sleep(0.01)

    stages.Progress.step = step  # type: ignore[attr-defined]


def _memory(memory: ModuleType) -> None:
    def free(_: Any) -> int:
        there = _FOLDER / "free"
        return int(there.read_text()) * 2**30 if there.exists() else 0

    memory.Machine.free = free  # type: ignore[attr-defined]


_ENGINES = "blender_trellis.sidecar.engines"
_PLUGS = {f"{_ENGINES}.stages": _stages, f"{_ENGINES}.trellis2.memory": _memory}


class _Finder(importlib.abc.MetaPathFinder):
    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if name not in _PLUGS:
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path)
        assert spec and spec.loader
        load = spec.loader.exec_module

        def exec_module(module: ModuleType) -> None:
            load(module)
            _PLUGS[name](module)

        spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


sys.meta_path.insert(0, _Finder())

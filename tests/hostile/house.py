# SPDX-License-Identifier: GPL-3.0-or-later
"""The import worker for thousands of files: a Blender that has started once forks for each one. Run by `importing.py`.

What is forked runs the very function that the worker runs, in a process of its own, with a limit of time and of memory. Lines of
JSON go in (`folder`, `request`) and come out (`reply`, `signal`, `bytes`: the most memory it had, `left`: unfinished files).
"""

from __future__ import annotations

import importlib.util
import json
import os
import resource
import shutil
import signal
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import bpy

SCENE = Path(__file__).parents[2] / "blender_trellis" / "scene"
SECONDS = 60
MEMORY = 4 * 2**30  # bytes of addresses, beyond what Blender has when it begins


def load_worker() -> ModuleType:
    spec = importlib.util.spec_from_file_location("worker_main", SCENE / "worker_main.py")
    assert spec is not None and spec.loader is not None
    worker = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(worker)
    worker.load_package()
    for name in ("errors", "scene.prepare", "scene.preview", "scene.lods", "scene.assets"):
        worker.module(name)
    return worker


def carry_out(worker: ModuleType, asked: dict[str, Any]) -> dict[str, Any]:
    folder = Path(asked["folder"])
    request = asked["request"] | {"blend": str(folder / "m.blend"), "part": str(folder / "m.part")}
    return worker.answer(request, folder)


def fork(worker: ModuleType, asked: dict[str, Any]) -> dict[str, Any]:
    """What became of one file."""
    folder = Path(asked["folder"])
    folder.mkdir()
    child = os.fork()
    if child == 0:
        nothing = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nothing, 1)
        os.dup2(nothing, 2)
        there = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (there + MEMORY, there + MEMORY))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(SECONDS)
        reply = carry_out(worker, asked)
        (folder / "reply.json").write_text(json.dumps(reply))
        os._exit(0)
    _, status, usage = os.wait4(child, 0)
    told = folder / "reply.json"
    reply = json.loads(told.read_text()) if told.exists() else None
    left = sorted({each.name for each in folder.iterdir()} - {"m.blend", "reply.json"})
    shutil.rmtree(folder)
    ended = os.WTERMSIG(status) if os.WIFSIGNALED(status) else -os.WEXITSTATUS(status)
    return {
        "reply": reply,
        "signal": ended,
        "bytes": usage.ru_maxrss * 1024,
        "left": left if reply else [],
    }


def main() -> None:
    worker = load_worker()
    bpy.ops.wm.read_factory_settings(use_empty=True)
    out = os.fdopen(os.dup(1), "w")
    for line in sys.stdin:
        out.write(json.dumps(fork(worker, json.loads(line))) + "\n")
        out.flush()


if __name__ == "__main__":
    main()

# SPDX-License-Identifier: GPL-3.0-or-later
"""What `doctor` finds out: versions, folders, which keys are present (never their value), the local process, GPU."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import platform
import shutil
import subprocess
import sys
from typing import Any

from . import __version__
from .config import Config
from .endpoints.schema import CARRIED_OUT
from .services import sidecar

_PACKAGES = ("httpx", "pydantic", "pillow", "fastapi", "uvicorn", "numpy")


def examine(config: Config) -> dict[str, Any]:
    """Every finding by name."""
    found: dict[str, Any] = {
        "trellis": __version__,
        "python": f"{platform.python_version()} ({sys.executable})",
        "platform": platform.platform(),
        "blender": _blender(),
    }
    found |= {name: _version(name) for name in _PACKAGES}
    found["home"] = str(config.home)
    found["results"] = str(config.results or config.home / "results")
    found["FAL_KEY"] = "present" if config.fal_key else "not set"
    found["RUNWARE_API_KEY"] = "present" if config.runware_key else "not set"
    state = sidecar.health(sidecar.read_address(config.shared))
    found["sidecar"] = f"running, version {state['version']}" if state else "not running"
    found["endpoints"] = ", ".join(sorted(CARRIED_OUT))
    found["gpu"] = _gpu()
    found["weights"] = "none needed: no endpoint of this version uses a model"
    return found


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "missing"


def _blender() -> str:
    if importlib.util.find_spec("bpy") is None:
        return "not here: .blend files cannot be written"
    import bpy

    return str(bpy.app.version_string)


def _gpu() -> str:
    """Graphics cards as NVIDIA's tool names them; nothing here uses one yet."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return "none found"
    listed = subprocess.run([tool, "-L"], capture_output=True, text=True, check=False, timeout=30)
    return listed.stdout.strip().replace("\n", "; ") or "none found"

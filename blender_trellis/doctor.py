# SPDX-License-Identifier: GPL-3.0-or-later
"""What `doctor` finds out: versions, folders, which keys are present and where (never their value), whether their services take
them, the local process, GPU."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import platform
import shutil
import subprocess
import sys
from typing import Any
from urllib.parse import urlsplit

import httpx

from . import __version__, keychain
from .config import KEYS, LOOPBACK, Config, in_environment
from .endpoints.schema import schemas
from .errors import TrellisError
from .generation.journal import Journal
from .install import installer
from .services import check_key, sidecar, wire

_PACKAGES = ("httpx", "pydantic", "pillow", "fastapi", "uvicorn", "numpy", "keyring")
_SECONDS = 5  # for a service to say anything at all


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
    found["results"] = str(config.models)
    found["journal"] = _journal(config)
    held = {name: keychain.wait(keychain.ask(name)) for name in KEYS if not in_environment(name)}
    names = [each.name for each in held.values() if each.name]
    found["keychain"] = (names or ["none found" if held else "not asked"])[0]
    for service, url in (("fal", config.fal_queue_url), ("runware", config.runware_url)):
        found[KEYS[service]], there = _key(service, held.get(service), config)
        found[service] = _service(service, url, there, config)
    found |= _sidecar(config)
    found["endpoints"] = ", ".join(sorted(schemas()))
    found["gpu"] = _gpu()
    installed = installer.status(config.shared)
    found["TRELLIS.2"] = installed.environment_words()
    found["TRELLIS.2 weights"] = installed.weights_words()
    return found


def _journal(config: Config) -> str:
    try:
        journal = Journal(config.home)
    except TrellisError as error:
        return error.message
    try:
        return f"{len(journal.jobs())} jobs"
    finally:
        journal.close()


def _key(service: str, held: keychain.Held | None, config: Config) -> tuple[str, bool]:
    """Where the key of a service is, and whether there is one."""
    if held is None:
        return "present, in the environment", True
    if held.key:
        return "present, in the keychain", True
    if getattr(config, f"{service}_key"):
        return "present, in the preferences", True
    return held.trouble or "not set", False


def _service(name: str, url: str, key: bool, config: Config) -> str:
    """Whether a service answers, and takes the key where there is one; costs nothing."""
    host = urlsplit(url).netloc
    try:
        if key:
            account = check_key(name, config)
            if account.balance is None:
                return f"{host} takes the key"
            return f"{host} takes the key, balance {account.balance:.2f} {account.currency}"
        if config.offline:
            return "not asked: Blender may not go online"
        httpx.head(url, timeout=_SECONDS)
    except TrellisError as error:
        return error.message
    except httpx.HTTPError as error:
        return f"{host} does not answer ({wire.why(error)})"
    return f"{host} answers; there is no key"


def _sidecar(config: Config) -> dict[str, str]:
    """The local process, or the server that was set in its place: whether it answers, and who works for it."""
    if not config.sidecar_url:
        state = sidecar.health(sidecar.read_address(config.shared))
        return {"sidecar": f"running, version {state['version']}" if state else "not running"}
    host = urlsplit(config.sidecar_url).netloc
    if config.offline and urlsplit(config.sidecar_url).hostname not in LOOPBACK:
        return {"sidecar": "not asked: Blender may not go online"}
    try:
        reply = sidecar.ask(config.sidecar_url, config.sidecar_token, "/health")
        state = wire.json_object(reply) or {}
    except httpx.HTTPError as error:
        return {"sidecar": f"{host} does not answer ({wire.why(error)})"}
    if not reply.is_success or "version" not in state:
        return {"sidecar": f"{host} answers {reply.status_code}: {wire.excerpt(reply)}"}
    words = f"{host} answers, version {state['version']}"
    if "workers" in state:
        words += f", {state['workers']} workers ({state['executor']}), {state['queued']} jobs wait"
    found = {"sidecar": words}
    if waits := state.get("waits_for"):
        found["waiting jobs"] = "; ".join(map(str, waits))
    if troubles := state.get("troubles"):
        found["machines that cannot work"] = "; ".join(map(str, troubles))
    if state.get("dashboard"):
        found["ray dashboard"] = str(state["dashboard"])
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
    """Graphics cards as NVIDIA's tool names them."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return "none found"
    listed = subprocess.run([tool, "-L"], capture_output=True, text=True, check=False, timeout=30)
    return listed.stdout.strip().replace("\n", "; ") or "none found"

# SPDX-License-Identifier: GPL-3.0-or-later
"""What a process was told: folders, base URLs and keys, from the environment first, then from the add-on's preferences.
Between the two stands the keychain's key, which `keychain.complete` puts in.

Keys live here and in the Authorization header alone; `repr` does not show them.
"""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

from .errors import InputError
from .home import default_home

KEYS = {"fal": "FAL_KEY", "runware": "RUNWARE_API_KEY"}  # by service
SECRETS = (*KEYS.values(), "TRELLIS_SIDECAR_TOKEN")  # variables that no child process has a use for
_ENVIRONMENT = {
    "fal_key": KEYS["fal"],
    "runware_key": KEYS["runware"],
    "fal_queue_url": "TRELLIS_FAL_QUEUE_URL",
    "fal_rest_url": "TRELLIS_FAL_REST_URL",
    "fal_api_url": "TRELLIS_FAL_API_URL",
    "runware_url": "TRELLIS_RUNWARE_URL",
    "sidecar_url": "TRELLIS_SIDECAR_URL",
    "sidecar_token": "TRELLIS_SIDECAR_TOKEN",
    "sidecar_allow_http": "TRELLIS_SIDECAR_ALLOW_HTTP",
    "jobs_at_once": "TRELLIS_JOBS_AT_ONCE",
}
JOBS_AT_ONCE = 4
LOOPBACK = ("127.0.0.1", "localhost", "::1")
_PRIVATE = "If nobody else can listen on the way there, say so: Allow HTTP in the preferences, or TRELLIS_SIDECAR_ALLOW_HTTP=1."


@dataclass(frozen=True)
class Config:
    """Everything a runner needs to know.

    `results` is the result library's folder where the user chose one. `shared` is one for all Blenders of a user, whose
    extensions have a `home` each, which Blender deletes with them; it holds the models and the sidecar's files. `jobs_at_once` is
    how many jobs may be at one remote service at a time. `sidecar_allow_http`: nobody else can listen on the way to
    `sidecar_url`, so it need not be https. `offline`: Blender may not go online.
    """

    home: Path
    results: Path | None = None
    shared: Path = field(default_factory=default_home)
    fal_key: str = field(default="", repr=False)
    runware_key: str = field(default="", repr=False)
    fal_queue_url: str = "https://queue.fal.run"
    fal_rest_url: str = "https://rest.fal.ai"
    fal_api_url: str = "https://api.fal.ai/v1"
    runware_url: str = "https://api.runware.ai/v1"
    sidecar_url: str = ""
    sidecar_token: str = field(default="", repr=False)
    sidecar_allow_http: bool = False
    jobs_at_once: int = JOBS_AT_ONCE
    offline: bool = False

    @property
    def models(self) -> Path:
        """The result library's folder: never one that goes with the extension, since models may have been paid for."""
        return self.results or self.shared / "results"

    @classmethod
    def load(cls, **preferences: Any) -> Self:
        """The configuration; the environment wins over `preferences`, and an empty preference over nothing.

        Raises:
            InputError: a base URL is not one, or a number none, or neither yes nor no.
        """
        given: dict[str, Any] = {name: value for name, value in preferences.items() if value}
        given |= {
            name: os.environ[variable].strip()
            for name, variable in _ENVIRONMENT.items()
            if os.environ.get(variable)
        }
        if os.environ.get("TRELLIS_HOME") or "home" not in given:
            given["home"] = default_home()
        if "sidecar_allow_http" in given:
            variable = _ENVIRONMENT["sidecar_allow_http"]
            given["sidecar_allow_http"] = _yes(given["sidecar_allow_http"], variable)
        allowed = {"sidecar_url"} if given.get("sidecar_allow_http") else set()
        for name, value in given.items():
            if name.endswith("_url"):
                given[name] = check_base_url(value, _ENVIRONMENT[name], allow_http=name in allowed)
        if "jobs_at_once" in given:
            given["jobs_at_once"] = _count(given["jobs_at_once"], _ENVIRONMENT["jobs_at_once"])
        return cls(**given)


def _count(value: Any, name: str) -> int:
    with contextlib.suppress(ValueError):
        if int(value) > 0:
            return int(value)
    raise InputError(f"{name} must be a whole number from 1 on, not {value!r}.")


def _yes(value: Any, name: str) -> bool:
    if value in (True, "1", "0"):
        return value in (True, "1")
    raise InputError(f"{name} must be 1 for yes or 0 for no, not {value!r}.")


def in_environment(service: str) -> bool:
    """Whether the environment names the key of "fal" or "runware", which then wins."""
    return bool(os.environ.get(KEYS[service]))


def check_base_url(url: str, name: str, *, allow_http: bool = False) -> str:
    """`url` without a trailing slash.

    Raises:
        InputError: it is no http(s) URL, or plain http to a host other than this one, which would show the key to anyone
            on the way.
    """
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise InputError(f"{name} is not a base URL: {url!r}. Write it as https://host[:port].")
    if parts.scheme == "http" and parts.hostname not in LOOPBACK and not allow_http:
        words = [f"{name} must begin with https:// since {parts.hostname} is not this computer."]
        if name == _ENVIRONMENT["sidecar_url"]:
            words.append(_PRIVATE)
        raise InputError(" ".join(words))
    return url.rstrip("/")

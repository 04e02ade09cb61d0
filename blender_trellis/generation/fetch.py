# SPDX-License-Identifier: GPL-3.0-or-later
"""A picture at a web address, fetched once and kept: as large as a picture may be, and within a time that somebody waits for."""

from __future__ import annotations

import hashlib
import re
import shutil
import tempfile
import time
from pathlib import Path
from urllib.parse import urlsplit

import httpx

from ..config import LOOPBACK
from ..errors import ImageError
from ..services import wire
from . import images
from .library import storage_error

_SECONDS = 30.0  # for all of it
_REDIRECTS = 5


def fetch(url: str, folder: Path, *, online: bool) -> Path:
    """The picture at `url` as a file in `folder`, where it stays.

    Raises:
        ImageError: it cannot be had, is no picture, or `online` is false and it is not on this computer.
        StorageError: `folder` cannot be written.
    """
    place = folder / hashlib.sha256(url.encode()).hexdigest()[:16]
    if place.is_dir():
        return next(place.iterdir())
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".fetch-", dir=folder) as part:
            path = Path(part) / "whole" / _file_name(url)
            path.parent.mkdir()
            _download(url, path, online)
            images.read(path, images.MIN_SIDE)
            if not place.is_dir():
                shutil.move(path.parent, place)
    except OSError as error:
        raise storage_error(error, folder) from error
    return next(place.iterdir())


def _file_name(url: str) -> str:
    """What the job is called after; no name leads out of its folder."""
    return re.sub(r"[^\w .()-]+", "_", images.name_of(url)).strip(" .")[-80:] or "picture"


def _download(url: str, path: Path, online: bool) -> None:
    host: str | None = url

    def allowed(request: httpx.Request) -> None:  # of each redirect too
        if not online and request.url.host not in LOOPBACK:
            raise ImageError(
                "Pictures cannot be fetched from the web: allow Online Access in the preferences, under System."
            )

    until = time.monotonic() + _SECONDS
    try:
        host = urlsplit(url).hostname
        with (
            httpx.Client(
                follow_redirects=True,
                max_redirects=_REDIRECTS,
                timeout=10,
                trust_env=host not in LOOPBACK,  # no proxy leads to this computer
                event_hooks={"request": [allowed]},
            ) as client,
            client.stream("GET", url, headers={"Accept": "image/*"}) as reply,
        ):
            if reply.status_code != httpx.codes.OK:
                raise ImageError(
                    f"{host} does not give the picture out (HTTP {reply.status_code}). Save it as a file and open that."
                )
            _take(reply, path, until)
    except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
        why = wire.why(error) if isinstance(error, httpx.HTTPError) else error
        raise ImageError(f"The picture could not be fetched from {host} ({why}).") from error


def _take(reply: httpx.Response, path: Path, until: float) -> None:
    size = 0
    with path.open("wb") as file:
        for piece in reply.iter_bytes():
            size += len(piece)
            images.check_bytes(path.name, size)
            if time.monotonic() > until:
                raise ImageError(
                    f"{path.name} takes too long to arrive. Save it as a file and open that."
                )
            file.write(piece)

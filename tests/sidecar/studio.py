# SPDX-License-Identifier: GPL-3.0-or-later
"""A sidecar as a studio starts it: by its command line, with tokens, certificate and executor as they are given."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from harness import REPOSITORY

ANNA, BERT = "token-of-anna-0123456789", "token-of-bert-0123456789"


def certificate(folder: Path, name: str, address: str) -> tuple[Path, Path]:
    """A certificate that vouches for itself, and its key."""
    made, key = folder / "certificate.pem", folder / "key.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"]
    command += ["-subj", f"/CN={name}", "-addext", f"subjectAltName=DNS:{name},IP:{address}"]
    subprocess.run([*command, "-out", made, "-keyout", key], check=True, capture_output=True)
    return made, key


def tokens(folder: Path) -> Path:
    """A token file for Anna and Bert."""
    path = folder / "tokens"
    path.write_text(f"anna {ANNA}\nbert {BERT}\n", encoding="utf-8")
    return path


def command(folder: Path, *options: str | Path | float) -> list[str]:
    """The command line of a sidecar with this folder."""
    return [
        *(sys.executable, "-m", "blender_trellis.sidecar", "--folder", str(folder)),
        *map(str, options),
    ]


@contextmanager
def served(
    home: Path, *options: str | Path, prefix: Sequence[str] = (), seconds: float = 60
) -> Iterator[dict[str, Any]]:
    """What its address file says of a server, once it serves; it is killed when the block ends. `prefix`: what runs Python."""
    if not Path("/proc/net/tcp").exists():
        pytest.skip("whether a server listens is read in Linux's /proc")
    folder = home / "sidecar"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "start.log").open("wb") as out:
        process = subprocess.Popen(
            [*prefix, *command(folder, *options)],
            cwd=REPOSITORY,
            env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
            stdout=out,
            stderr=out,
        )
    try:
        yield _address(folder, process, time.monotonic() + seconds)
    finally:
        process.kill()
        process.wait()


def _address(folder: Path, process: subprocess.Popen[bytes], deadline: float) -> dict[str, Any]:
    address = folder / "address.json"
    while True:
        assert process.poll() is None, (folder / "start.log").read_text("utf-8")
        assert time.monotonic() < deadline, (folder / "log.txt").read_text("utf-8")
        if address.exists():
            found: dict[str, Any] = json.loads(address.read_text("utf-8"))
            if found["pid"] == process.pid and _listens(process.pid, urlsplit(found["url"]).port):
                return found
        time.sleep(0.05)


def _listens(pid: int, port: int | None) -> bool:
    """Whether somebody takes connections at a port of the host that a process is on."""
    lines = Path(f"/proc/{pid}/net/tcp").read_text("utf-8").splitlines()[1:]
    return any(
        line.split()[1].endswith(f":{port:04X}") and line.split()[3] == "0A" for line in lines
    )

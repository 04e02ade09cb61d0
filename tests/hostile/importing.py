# SPDX-License-Identifier: GPL-3.0-or-later
"""Mutated GLBs through the checker, and what it lets pass through the import worker."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import Any

import bpy  # noqa: F401  the worker asks it for its binary, and it is large: it is no growth

from blender_trellis import errors
from blender_trellis.generation import glb
from blender_trellis.scene.recipe import Recipe
from blender_trellis.scene.worker import ImportWorker
from hostile.glb_mutations import good, make
from hostile.tally import ACCEPTED, CRASHED, HUNG, LEAKED, LOST, REFUSED, Tally

WORKER_REFUSED = "refused in the worker"
DIED = "worker died"
COLUMNS = (REFUSED, WORKER_REFUSED, DIED, ACCEPTED, CRASHED, HUNG, LOST, LEAKED)
CHECK_SECONDS = 5.0
GROWTH = 200 * 2**20  # bytes that the checker's own process may grow by, whatever it is given
_REAL = 50  # each so many of the files that pass go through a worker of their own too
_LONGEST = 600  # letters of a message that a person can still read
# How the worker calls an exception that nobody foresaw. What Blender's importer raises comes to it as another one
UNFORESEEN = "The model cannot be imported: "
_HOUSE = Path(__file__).with_name("house.py")


class House:
    """The second Blender, for many files (`house.py`). A context manager."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        places = ("TMPDIR", "TMP", "TEMP", "BLENDER_USER_RESOURCES")
        self._process = subprocess.Popen(
            [sys.executable, "-P", str(_HOUSE)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=os.environ | dict.fromkeys(places, str(folder)),
        )

    def __enter__(self) -> House:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()

    def take(self, path: Path) -> dict[str, Any]:
        """What became of a file: `reply` of the worker, and `signal` that ended it."""
        request = {
            "glb": str(path), "recipe": Recipe("local/draft").to_json(), "name": "x", "height": 1.0,
            "metres_per_unit": 1.0, "preview": None, "lods": [], "asset": None, "library": None,
        }  # fmt: skip
        asked = {"folder": str(self._folder / "one"), "request": request}
        assert self._process.stdin and self._process.stdout
        self._process.stdin.write(json.dumps(asked).encode() + b"\n")
        self._process.stdin.flush()
        while line := self._process.stdout.readline():
            if line.startswith(b'{"reply"'):
                told: dict[str, Any] = json.loads(line)
                return told
        raise AssertionError("the house fell down")


@contextmanager
def house(folder: Path) -> Iterator[House | None]:
    """None where processes cannot be forked: then every file goes through a worker of its own."""
    if not hasattr(os, "fork") or sys.platform == "darwin":
        yield None
        return
    with House(folder) as opened:
        yield opened


def fuzz(
    count: int, seed: int, folder: Path, keep: Path, *, real: int = _REAL, first: int = 0
) -> Tally:
    """Try `count` files, from number `first` on; what must not be is kept in `keep`."""
    tally = Tally("GLB", keep)
    path = folder / "model.glb"
    passed = 0
    scratch = folder / "house"
    scratch.mkdir()
    before = 0
    with house(scratch) as blender:
        for number in range(first, first + count):
            if number == first + count // 10:  # by now all is imported that is needed
                before = _peak()
            way, data = make(Random(f"{seed} {number}"))
            path.write_bytes(data)
            if not _checked(tally, way, path, data):
                continue
            passed += 1
            outcome = outcome_of(blender.take(path)) if blender else ""
            if not outcome or outcome == DIED or passed % real == 0:
                outcome = _both(outcome, _truly_imported(folder, path))
            if outcome in (REFUSED, WORKER_REFUSED, DIED, ACCEPTED):
                tally.add(way, outcome)
            else:
                tally.bad(way, outcome.partition(":")[0], outcome, data)
    grown = _peak() - before
    if grown > GROWTH:
        tally.findings.append(f"{LEAKED}: the checker's process grew by {grown >> 20} MiB")
    return tally


def _peak() -> int:
    """The most bytes that this process has had; 0 where the system does not say."""
    if sys.platform == "win32":
        return 0
    import resource

    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return used if sys.platform == "darwin" else used * 1024


def _checked(tally: Tally, way: str, path: Path, data: bytes) -> bool:
    """Whether the checker lets it pass."""
    started = time.monotonic()
    try:
        glb.check(path)
    except errors.ResultError as error:
        words = _unreadable(error.message)
        if words:
            tally.bad(way, LOST, words, data)
        else:
            tally.add(way, REFUSED)
        return False
    except Exception as error:  # noqa: BLE001  that there is none is what is tried
        tally.bad(way, CRASHED, f"the checker: {error!r:.200}", data)
        return False
    if time.monotonic() - started > CHECK_SECONDS:
        tally.bad(way, HUNG, "the checker", data)
        return False
    return True


def _unreadable(message: str) -> str:
    """What is wrong with a message; "" where nothing is."""
    if len(message) > _LONGEST or not message.strip():
        return f"a message of {len(message)} letters: {message[:100]}"
    return ""


def outcome_of(told: dict[str, Any]) -> str:
    """What `House.take` tells, in a word, with more words behind it where it must not be."""
    reply = told["reply"]
    if told["signal"] == 14:  # SIGALRM
        return HUNG
    if told["signal"] or reply is None:
        return DIED
    if told["left"]:
        return f"{LEAKED}: {told['left']}"
    return _judged(reply.get("error"), reply.get("message", ""))


def _both(in_the_house: str, alone: str) -> str:
    """What to call a file that went through both. Alone it has neither a minute nor 4 GiB as its limit."""
    if in_the_house == DIED and alone in (ACCEPTED, WORKER_REFUSED):
        return f"{CRASHED}: only within the limit of memory; else {alone}"
    return alone if in_the_house in ("", DIED, ACCEPTED, WORKER_REFUSED) else in_the_house


def _judged(kind: str | None, message: str) -> str:
    if kind is None:
        return ACCEPTED
    if message.startswith(UNFORESEEN) or MemoryError.__name__ in message:
        return f"{CRASHED}: {message[:_LONGEST]}"
    if kind != "ResultError" or _unreadable(message):
        return f"{LOST}: {kind} {_unreadable(message)}"
    return WORKER_REFUSED


def _truly_imported(folder: Path, path: Path) -> str:
    """What becomes of a file in a worker of its own; after a death the next import must work."""
    temporary = folder / "temporary"
    temporary.mkdir(exist_ok=True)
    before, tempfile.tempdir = tempfile.tempdir, str(temporary)
    try:
        outcome = _one_import(path)
        if outcome == DIED:
            whole = folder / "whole.glb"
            whole.write_bytes(good()[0])
            if _one_import(whole) != ACCEPTED:
                return f"{LOST}: the import after a death"
    finally:
        tempfile.tempdir = before
    left = [each.name for each in temporary.iterdir()]
    return f"{LEAKED}: {left}" if left else outcome


def _one_import(path: Path) -> str:
    with ImportWorker() as worker:
        worker.request(path, Recipe("local/draft"), name="x", height=1.0)
        until = time.monotonic() + 120
        try:
            while worker.poll() is None:
                if time.monotonic() > until:
                    return HUNG
                time.sleep(0.05)
        except errors.TrellisError as error:
            if "died" in error.message:
                return DIED
            return _judged(error.kind, error.message)
    return ACCEPTED

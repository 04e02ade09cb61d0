# SPDX-License-Identifier: GPL-3.0-or-later
"""The second Blender as the first one sees it: a process that turns one GLB into one .blend.

It costs the user no frame, and what a hostile file breaks is not the user's session. One JSON line goes in on stdin, one
comes back on stdout; the process ends when its stdin closes, so it never outlives this one.
"""

from __future__ import annotations

import json
import logging
import math
import os
import queue
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .. import errors
from .recipe import Recipe

log = logging.getLogger(__name__)

# That an import may take, from the request on. The largest models that are let through take a minute or two; Blender's importer
# does not return from some files at all, and one import waits for another
MINUTES = 15
_MAIN = Path(__file__).with_name("worker_main.py")


@dataclass(frozen=True)
class Prepared:
    """A .blend ready to be appended. Lies in the worker's own folder unless `request` named another place.

    `blocks` are the sizes of its large arrays, as `memory.make_ready` takes them.
    """

    blend: Path
    preview: Path | None
    vertices: int
    faces: int
    blocks: tuple[int, ...]


class ImportWorker:
    """One process for one import; started by the constructor, before there is anything to import."""

    def __init__(self, binary: str | None = None) -> None:
        """`binary` is `bpy.app.binary_path`, needed off the main thread, which alone may read it."""
        try:
            self._folder = Path(tempfile.mkdtemp(prefix="trellis-import-"))
        except OSError as error:
            raise errors.StorageError(
                f"No temporary folder can be made ({error}). Free some space on that disk."
            ) from error
        self._replies: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
        self._chatter: deque[str] = deque(maxlen=20)
        self._part: Path | None = None
        self._glb = Path("the model")
        self._until = math.inf
        self._started = False
        self._outcome: Prepared | errors.TrellisError | None = None
        try:
            self._process = _spawn(self._folder, binary)
        except OSError as error:
            shutil.rmtree(self._folder, ignore_errors=True)
            raise errors.TrellisError(
                f"The import process cannot be started ({error}). Restart Blender and try again."
            ) from error
        self._reader = threading.Thread(target=self._read, name="trellis-import", daemon=True)
        self._reader.start()

    def request(
        self,
        glb: Path,
        recipe: Recipe,
        *,
        name: str,
        height: float | None = None,
        metres_per_unit: float = 1.0,
        blend: Path | None = None,
        preview: tuple[Path, int] | None = None,
        lods: Sequence[float] = (),
        asset: Sequence[str] | None = None,
        library: Path | None = None,
    ) -> None:
        """Ask for `glb` as a model called `name`, `height` metres tall (as generated where None).

        `metres_per_unit` is the target scene's unit scale. `blend` is where the file is to lie, by default in a folder
        that `close` removes. `preview` asks for a PNG of that many pixels a side. `lods` asks for a coarser copy for each
        share of the faces, between 0 and 1. `asset` marks the model as one, with these tags; `library` is the folder of the
        asset library that the target file lies in, if it does. Once per worker.
        Raises ParameterError for a height or a share that is none.
        """
        if height is not None and not 0 < height < math.inf:
            raise errors.ParameterError(
                f"The height must be more than 0 m, not {height:g} m.", parameter="height"
            )
        for ratio in lods:
            if not 0 < ratio < 1:
                raise errors.ParameterError(
                    f"A LOD's share of the faces must be between 0 and 1, not {ratio:g}.",
                    parameter="lods",
                )
        blend = Path(blend or self._folder / "model.blend").absolute()
        # not made from the name of the .blend, which may be as long as a name can be
        self._part = blend.with_name(f"trellis-{self._process.pid}.part")
        self._glb = Path(glb).absolute()
        self._until = time.monotonic() + 60 * MINUTES
        line = json.dumps(
            {
                "glb": str(self._glb),
                "blend": str(blend),
                "part": str(self._part),
                "recipe": recipe.to_json(),
                "name": name,
                "height": height,
                "metres_per_unit": metres_per_unit,
                "preview": [str(preview[0].absolute()), preview[1]] if preview else None,
                "lods": sorted(lods, reverse=True),
                "asset": None if asset is None else list(asset),
                "library": library and str(library),
            }
        )
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(line.encode() + b"\n")
            self._process.stdin.flush()
        except OSError:
            log.debug("the import process is gone; poll() tells why")

    def poll(self) -> Prepared | None:
        """What became of the request, None while it is unknown.

        Raises ResultError where the file cannot be imported, crashed the process or kept it busy for `MINUTES`, OutputError
        where the .blend cannot be written, TrellisError where the process never ran.
        """
        while self._outcome is None:
            try:
                self._take(self._replies.get_nowait())
            except queue.Empty:
                if time.monotonic() < self._until:
                    return None
                self._process.kill()
                self._outcome = self._endless()
        if isinstance(self._outcome, errors.TrellisError):
            raise self._outcome
        return self._outcome

    def wait(self) -> Prepared:
        """`poll`, but waits. Ctrl+C ends the wait on every platform."""
        while (prepared := self.poll()) is None:
            try:
                self._take(self._replies.get(timeout=0.2))
            except queue.Empty:
                continue
        return prepared

    def close(self) -> None:
        """End the process, whatever it does, and remove every temporary file. May be called twice."""
        self._process.kill()
        self._process.wait()
        self._reader.join()
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            try:
                pipe.close()
            except OSError:
                log.debug("the pipe was broken already")
        if self._part:
            remove_part(self._part)
        shutil.rmtree(self._folder, ignore_errors=True)

    def __enter__(self) -> ImportWorker:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _read(self) -> None:
        """The reader thread: sorts replies from chatter until the process ends."""
        assert self._process.stdout is not None
        for raw in self._process.stdout:
            line = raw.decode(errors="replace").rstrip()
            reply = _reply(line, self._folder)
            if reply is not None:
                self._replies.put(reply)
            elif line:
                self._chatter.append(line)
        self._process.wait()
        self._replies.put(None)

    def _take(self, reply: dict[str, Any] | None) -> None:
        if reply is None:
            self._outcome = self._death()
        elif "ready" in reply:
            self._started = True
        elif "error" in reply:
            self._outcome = errors.from_record(reply["error"], reply["message"])
        else:
            preview = Path(reply["preview"]) if reply["preview"] else None
            self._outcome = Prepared(
                Path(reply["blend"]),
                preview,
                reply["vertices"],
                reply["faces"],
                tuple(reply["blocks"]),
            )

    def _endless(self) -> errors.TrellisError:
        return errors.ResultError(
            f"Blender had not imported {self._glb.name} after {MINUTES} minutes, so the import was stopped. The file is kept as "
            f"{self._glb}: open it in another program, or generate the model again. Your scene is unchanged."
        )

    def _death(self) -> errors.TrellisError:
        log.warning(
            "import process ended with %s:\n%s", self._process.returncode, "\n".join(self._chatter)
        )
        if self._started:
            return errors.ResultError(
                f"The process that imports {self._glb.name} died (exit status {self._process.returncode}): the file is "
                "broken, or too large for the memory of this computer. Your scene is unchanged."
            )
        return errors.TrellisError(
            f"The import process did not start (exit status {self._process.returncode}): "
            + (self._chatter[-1] if self._chatter else "it said nothing")
        )


def mark(folder: Path) -> str:
    """What a reply's line begins with. Blender prints on stdout too, names of the file among it, and no file can know this."""
    return f"@{folder.name} "


def _reply(line: str, folder: Path) -> dict[str, Any] | None:
    """The reply that a line is; None for what Blender prints."""
    if not line.startswith(mark(folder)):
        return None
    try:
        reply = json.loads(line.removeprefix(mark(folder)))
    except (ValueError, RecursionError):
        return None
    return reply if isinstance(reply, dict) else None


def remove_part(part: Path) -> None:
    """Remove an unfinished .blend, and the file beside it that Blender fills before it takes that name."""
    for path in (part, part.with_name(part.name + "@")):
        path.unlink(missing_ok=True)


def _command(binary: str | None) -> Sequence[str]:
    if binary is None:
        import bpy

        binary = bpy.app.binary_path
    if binary:
        blender = [binary, "--background", "--factory-startup", "--offline-mode"]
        return [*blender, "--python-exit-code", "1", "--python", str(_MAIN), "--"]
    # -P: the script's own folder must not lend its module names to everybody
    return [sys.executable, "-P", str(_MAIN), "--"]


def _spawn(folder: Path, binary: str | None) -> subprocess.Popen[bytes]:
    # Blender makes a session folder and crash reports in the temporary folder, and a killed one leaves them there. A profile
    # of its own, because reading factory settings removes the wheels of every extension of the profile (4.2 to 5.2).
    places = ("TMPDIR", "TMP", "TEMP", "BLENDER_USER_RESOURCES")
    environment = os.environ | dict.fromkeys(places, str(folder))
    flags = 0
    if sys.platform == "win32":
        flags = subprocess.CREATE_NO_WINDOW | subprocess.BELOW_NORMAL_PRIORITY_CLASS
    return subprocess.Popen(
        [*_command(binary), str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=environment,
        creationflags=flags,
    )

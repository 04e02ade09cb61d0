# SPDX-License-Identifier: GPL-3.0-or-later
"""`build.py demo`: from a picture to a GLB, a .blend and a picture of that, which the command line names in this order."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from blender_trellis import api
from blender_trellis.generation.job import Event
from blender_trellis.scene.importer import write_blend
from blender_trellis.services import sidecar

said: list[str] = []


def show(event: Event) -> None:
    """A bar for people, a line for each step otherwise."""
    done = round(40 * (event.fraction or 0))
    line = f"[{'#' * done}{'.' * (40 - done)}] {event.message or event.stage or event.state}"
    if sys.stdout.isatty():
        print(f"\r{line:<90}", end="", flush=True)
    elif line not in said:
        print(line, flush=True)
        said.append(line)


image, glb, blend, preview = map(Path, sys.argv[1:])
try:
    result = api.generate([image], endpoint="local/draft", output=glb, on_event=show)
finally:
    sidecar.stop(Path(os.environ["TRELLIS_HOME"]))
print("\nMaking the scene and its picture", flush=True)
write_blend(
    result.files[0], api.recipe_of(result), blend, name=result.title, preview=(preview, 768)
)

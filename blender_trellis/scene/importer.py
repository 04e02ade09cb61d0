# SPDX-License-Identifier: GPL-3.0-or-later
"""The whole road from GLB to scene or .blend in one call that waits: for scripts, the command line and background mode.

The panel does the same steps without waiting, see ui/arrivals.py.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

import bpy
from bpy.types import Object, Scene

from .. import errors
from .append import append
from .assets import library_of
from .recipe import Recipe
from .worker import ImportWorker


def import_blocking(
    glb: Path,
    recipe: Recipe,
    *,
    name: str,
    height: float | None = None,
    scene: Scene | None = None,
    location: Sequence[float] | None = None,
    lods: Sequence[float] = (),
    asset: Sequence[str] | None = None,
) -> list[Object]:
    """Import `glb` into `scene` (the current one where None) as `append` does; `height` in metres, `lods` and `asset` as
    `ImportWorker.request` takes them.

    Also in the bpy module and in background mode a second process imports: nothing of the caller's file takes part until
    the model is ready, so there is nothing to restore. Raises ResultError.
    """
    scene = scene or bpy.context.scene
    with ImportWorker() as worker:
        worker.request(
            Path(glb),
            recipe,
            name=name,
            height=height,
            metres_per_unit=scene.unit_settings.scale_length,
            lods=lods,
            asset=asset,
            library=library_of(bpy.data.filepath),
        )
        return append(worker.wait().blend, scene=scene, location=location)


def write_blend(
    glb: Path,
    recipe: Recipe,
    out: Path,
    *,
    name: str,
    height: float | None = None,
    preview: tuple[Path, int] | None = None,
) -> Path:
    """Write `glb` as a .blend that opens with the model, textures packed; the caller's own file takes no part.

    `preview` asks for a PNG of that many pixels a side as well. Replaces `out` only when complete. Raises ResultError and
    OutputError.
    """
    out = Path(out).absolute()
    for path in (out, *(preview or ())[:1]):
        _check_writable(Path(path).absolute())
    with ImportWorker() as worker:
        worker.request(Path(glb), recipe, name=name, height=height, blend=out, preview=preview)
        return worker.wait().blend


def _check_writable(path: Path) -> None:
    """Say early what would otherwise show only after the import."""
    try:
        if path.is_dir():
            raise errors.OutputError(f"{path} is a folder. Name a file.")
        if not path.parent.is_dir():
            raise errors.OutputError(
                f"The folder {path.parent} does not exist. Create it, or choose another."
            )
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise errors.OutputError(
            f"{path} cannot be written ({error.strerror}). Choose another place or name."
        ) from error

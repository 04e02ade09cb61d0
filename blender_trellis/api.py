# SPDX-License-Identifier: GPL-3.0-or-later
"""The scripting interface: the same generation as the panel's, blocking.

from blender_trellis import api
result = api.generate(["front.png"], endpoint="local/draft", seed=7)
objects = api.import_result(result)     # with bpy
"""

from __future__ import annotations

import atexit
import functools
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import __version__
from .config import Config
from .errors import OutputError
from .generation.job import Event, Job
from .generation.library import check_output, copy_out
from .generation.runner import Request, Runner

if TYPE_CHECKING:
    import bpy

    from .scene.recipe import Recipe


@dataclass(frozen=True)
class Result:
    """A finished job. `files` are the kept GLBs; `cost` is {"amount", "currency", "estimate"} or None."""

    job_id: str
    endpoint: str
    parameters: dict[str, Any]
    files: list[Path]
    seed: int
    cost: dict[str, Any] | None
    request_id: str | None
    title: str
    images: list[str]
    created: float


def config() -> Config:
    """What environment and, within Blender, the add-on's preferences say."""
    if "bpy" in sys.modules:
        from .ui import preferences

        return preferences.config()
    return Config.load()


@functools.cache
def _runner() -> Runner:
    runner = Runner(config())
    atexit.register(runner.close)
    return runner


def generate(
    images: str | Path | Sequence[str | Path],
    *,
    endpoint: str = "local/draft",
    output: str | Path | None = None,
    timeout: float | None = None,
    on_event: Callable[[Event], None] | None = None,
    **parameters: Any,
) -> Result:
    """Make a model of `images`, a picture file or several views, and wait for it.

    `parameters` go by documented or common name (docs/parameters.md). `output` is a .glb or .blend to write as well; the
    kept files are in `Result.files` anyhow. `timeout` is in seconds, and ends the waiting, not the job.

    Raises:
        errors.TrellisError: with the reason in words; its subclasses tell input, service and connection apart.
    """
    if output is not None:
        check_output(Path(output))
    runner = _runner()
    several = [images] if isinstance(images, str | Path) else images
    request = Request(endpoint, [Path(image) for image in several], parameters)
    result = result_of(runner.wait(runner.submit(request), on_event, timeout))
    if output is not None:
        write(result, Path(output))
    return result


def result_of(job: Job) -> Result:
    """What a ready job made."""
    return Result(
        job_id=job.id,
        endpoint=job.endpoint,
        parameters=job.parameters,
        files=[Path(path) for path in job.files],
        seed=job.seed,
        cost=job.cost,
        request_id=job.request_id,
        title=job.title,
        images=job.names,
        created=job.created,
    )


def recipe_of(result: Result) -> Recipe:
    """How the model was made, as it is stamped on the objects."""
    from .scene.recipe import Recipe

    return Recipe(
        endpoint=result.endpoint,
        parameters=result.parameters,
        seed=result.seed,
        job_id=result.job_id,
        request_id=result.request_id,
        cost=result.cost,
        version=__version__,
        created=datetime.fromtimestamp(result.created, UTC).isoformat(timespec="seconds"),
        images=tuple(result.images),
    )


def write(result: Result, output: Path) -> None:
    """Write a result's model to `output`: the GLB itself, or a .blend that opens with it.

    Raises:
        OutputError: it cannot be written, or a .blend is wanted where no Blender is.
    """
    if output.suffix.lower() == ".glb":
        copy_out(result.files[0], output)
        return
    try:
        from .scene.importer import write_blend
    except ImportError as error:
        raise OutputError(
            f"Cannot write {output}: that needs Blender or the bpy module. Write a .glb, or run this in Blender."
        ) from error
    write_blend(result.files[0], recipe_of(result), output, name=result.title)


def import_result(
    result: Result, *, height: float | None = None, location: Sequence[float] | None = None
) -> list[bpy.types.Object]:
    """Put a result's models into the present scene: standing on `location`, by default the 3D cursor, `height` metres tall.

    Raises:
        errors.ResultError: Blender cannot read the file; the scene is as it was.
    """
    from .scene.importer import import_blocking

    objects = []
    for path in result.files:
        objects += import_blocking(
            path, recipe_of(result), name=result.title, height=height, location=location
        )
    return objects

# SPDX-License-Identifier: GPL-3.0-or-later
"""The scripting interface: the same generation as the panel's, blocking.

from blender_trellis import api
result = api.generate(["front.png"], endpoint="local/draft", seed=7)
objects = api.import_result(result)     # with bpy
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import __version__
from .config import Config
from .errors import InputError, OutputError, SidecarError
from .generation.job import Event, Job
from .generation.library import check_output, copy_out, numbered, output_error
from .generation.request import Request
from .generation.runner import Runner
from .install import Cancelled, Tell, installer
from .services import sidecar

if TYPE_CHECKING:
    import bpy

    from .scene.recipe import Recipe


@dataclass(frozen=True)
class Result:
    """A finished job. `files` are the kept GLBs, `seeds` theirs; `cost` of all is {"amount", "currency", "estimate"} or None.
    `failures` says what became of variations that are missing, and what is worth knowing of the others."""

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
    seeds: list[int] = field(default_factory=list)
    failures: str = ""


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
    mesh: str | Path | None = None,
    output: str | Path | None = None,
    timeout: float | None = None,
    max_cost: float | None = None,
    cut_out: bool = False,
    on_event: Callable[[Event], None] | None = None,
    **parameters: Any,
) -> Result:
    """Make a model of `images`, a picture file or several views, and wait for it.

    A picture may also be a data URI or base64 text, or a URL where the endpoint takes one. `mesh` is the GLB that an endpoint
    works on. `parameters` go by documented or common name (docs/local.md, docs/fal.md, docs/runware.md). `output` is a .glb or
    .blend to write as well; further results get a number; the kept files are in `Result.files` anyhow. `timeout` is in seconds,
    and ends the waiting, not the job. `max_cost`, in US dollars, refuses what would cost more. `cut_out` takes a plain background
    away here, instead of leaving it to whoever makes the model; a picture that has a transparent one stays as it is.

    Raises:
        errors.TrellisError: with the reason in words; its subclasses tell input, service and connection apart.
    """
    if output is not None:
        check_output(Path(output))
    runner = _runner()
    several = [images] if isinstance(images, str | Path) else images
    request = Request(
        endpoint,
        several,
        parameters,
        mesh=Path(mesh) if mesh else None,
        max_cost=max_cost,
        cut_out=cut_out,
    )
    result = result_of(runner.wait(runner.submit(request), on_event, timeout))
    if output is not None:
        write_all(result, Path(output))
    return result


def price(
    endpoint: str,
    parameters: dict[str, Any] | None = None,
    *,
    image: str | Path | None = None,
) -> dict[str, Any]:
    """What a model would cost: {"amount", "low", "high", "currency", "source", "date"}; amount is None where nothing is charged.

    From the table of prices; with `image`, the service is asked as well, which costs nothing.

    Raises:
        errors.TrellisError: the parameters are wrong, or the service refuses them.
    """
    from .endpoints import get, prices

    values = get(endpoint).parse(parameters or {}).values()
    estimate = prices.estimate(endpoint, values)
    if estimate is None:
        return dict.fromkeys(("amount", "low", "high", "currency", "source", "date"))
    row = prices.PRICES[endpoint]
    found = asdict(estimate) | {"source": row.source, "date": row.date}
    if image is not None:
        amount = _runner().price(Request(endpoint, [image], parameters or {}))
        if amount is not None:
            found |= {"amount": amount, "low": amount, "high": amount}
            found |= {"source": "the service", "date": datetime.now(UTC).date().isoformat()}
    return found


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
        seeds=job.seeds or [job.seed] * len(job.files),
        failures=job.error["message"] if job.error else "",
    )


def recipe_of(result: Result, number: int = 0) -> Recipe:
    """How the model of `result.files[number]` was made, as it is stamped on the objects. Its cost is an equal share."""
    from .scene.recipe import Recipe

    cost = result.cost and result.cost | {"amount": result.cost["amount"] / len(result.files)}
    return Recipe(
        endpoint=result.endpoint,
        parameters=result.parameters,
        seed=result.seeds[number],
        job_id=result.job_id,
        request_id=result.request_id,
        cost=cost,
        version=__version__,
        created=datetime.fromtimestamp(result.created, UTC).isoformat(timespec="seconds"),
        images=tuple(result.images),
    )


def write_all(result: Result, output: Path) -> list[Path]:
    """Write every model of a result: the first one to `output`, further ones beside it, as name-2.glb; returns all paths.

    Raises:
        OutputError: one cannot be written, or a .blend is wanted where no Blender is.
    """
    written = []
    for number in range(len(result.files)):
        path = numbered(output, number)
        _write(result, number, path)
        written.append(path)
    return written


def deliver(job: Job, output: Path) -> None:
    """Write every model of a ready job as `write_all` does, in a folder that is made if need be. Raises as `write_all`."""
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise output_error(error, output) from error
    write_all(result_of(job), output)


def _write(result: Result, number: int, output: Path) -> None:
    """The GLB itself, or a .blend that opens with it."""
    if output.suffix.lower() == ".glb":
        copy_out(result.files[number], output)
        return
    try:
        from .scene.importer import write_blend
    except ImportError as error:
        raise OutputError(
            f"Cannot write {output}: that needs Blender or the bpy module. Write a .glb, or run this in Blender."
        ) from error
    write_blend(result.files[number], recipe_of(result, number), output, name=result.title)


def import_result(
    result: Result,
    *,
    height: float | None = None,
    location: Sequence[float] | None = None,
    lods: Sequence[float] = (),
    asset: bool | Sequence[str] = False,
) -> list[bpy.types.Object]:
    """Put a result's models into the present scene: standing on `location`, by default the 3D cursor, `height` metres tall.
    Several stand in a row along X.

    `lods` are shares of the faces, as (0.5, 0.1): each model gets a coarser copy for each, in a collection that is switched
    off. `asset` marks the models as assets: True, or their tags.

    Raises:
        errors.ParameterError: a height or a share is none.
        errors.ResultError: Blender cannot read the file; the scene is as it was.
    """
    from .scene.append import beside
    from .scene.importer import import_blocking

    objects: list[bpy.types.Object] = []
    for number, path in enumerate(result.files):
        made = import_blocking(
            path,
            recipe_of(result, number),
            name=result.title,
            height=height,
            location=location,
            lods=lods,
            asset=(() if asset is True else asset) if asset is not False else None,
        )
        location = beside(made)[:]
        objects += made
    return objects


def install_local(
    wish: installer.Wish | None = None,
    *,
    on_report: Tell = lambda _: None,
    on_plan: Callable[[installer.Plan], None] = lambda _: None,
    cancelled: Cancelled = lambda: False,
    home: Path | None = None,
) -> installer.Plan:
    """Install the local engine TRELLIS.2: its Python environment and its weights. What is there already is left alone.

    `on_plan` gets what will be downloaded before it is, and may raise to refuse; where a plan has a `problem`, that is raised
    next. `home` is the folder of the sidecar's files, that of the configuration if None. Returns the plan as it was carried
    out, whose `lost` names what did not come and is not needed.

    Raises:
        errors.TrellisError: those of `install.installer.install`; the next call goes on where it stopped.
    """
    wish = wish or installer.Wish()
    home = home or config().shared
    if installer.plan(home, wish).steps:
        _check_idle(home)
    with contextlib.ExitStack() as stack:

        def begin(plan: installer.Plan) -> None:
            on_plan(plan)
            if plan.steps and not plan.problem:
                # Its worker may run in the environment that is made anew
                stack.enter_context(_without_sidecar(home))

        return installer.install(home, wish, on_report, cancelled, begin)


def uninstall_local(only: str = "", *, home: Path | None = None) -> bool:
    """Delete the local engine's environment and weights, or `only` one of "environment" and "weights".

    Returns whether there was anything to delete.

    Raises:
        errors.InputError: it is at work.
        errors.StorageError: something cannot be deleted.
    """
    home = home or config().shared
    with _without_sidecar(home):
        return installer.uninstall(home, only)


def _check_idle(home: Path) -> None:
    state = sidecar.health(sidecar.read_address(home))
    if state and state["busy"]:
        raise InputError("The local process works on a model. Wait for it, or cancel it.")


@contextlib.contextmanager
def _without_sidecar(home: Path) -> Iterator[None]:
    """Ends the sidecar, and starts it again afterwards if there was one, however that went."""
    _check_idle(home)
    ended = sidecar.stop(home)
    try:
        yield
    finally:
        if ended:
            with contextlib.suppress(SidecarError):  # the next job tries again, and tells
                sidecar.ensure(home)

# SPDX-License-Identifier: GPL-3.0-or-later
"""A request as somebody makes it, and everything that is checked before it becomes a job."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..config import Config
from ..endpoints import get, prices
from ..errors import EndpointError, ImageError, InputError, PriceError, ResultError
from ..services import check_access, check_installed
from . import glb, images
from .job import Job
from .library import Library

if TYPE_CHECKING:
    from ..endpoints.base import Endpoint


@dataclass(frozen=True)
class Request:
    """What somebody asks for: an endpoint, its parameters by documented or common name, and pictures.

    A picture is a file, a data URI or base64 text, or, where the endpoint takes it, the URL or id of one. `mesh` is a GLB for
    the endpoints that work on one. `max_cost` is in US dollars. `cut_out`: take the background of opaque pictures away here,
    before they are sent.
    """

    endpoint: str
    images: Sequence[Path | str]
    parameters: dict[str, Any] = field(default_factory=dict)
    wish: dict[str, Any] = field(default_factory=dict)
    mesh: Path | None = None
    max_cost: float | None = None
    cut_out: bool = False


def admit(request: Request, job_id: str, library: Library, config: Config) -> Job:
    """The job for a request, with its pictures kept; not in the journal yet.

    Raises:
        TrellisError: everything that can be wrong with a request is found here, before there is a row.
    """
    model = get(request.endpoint)
    check_count(model, len(request.images))
    parameters = dict(request.parameters)
    parameters.setdefault("seed", random.SystemRandom().randrange(2**31))
    values = model.parse(parameters).values()
    estimate = prices.estimate(model.id, values)
    check_price(request.max_cost, estimate.amount if estimate else None)
    check_access(model.id, config)
    check_installed(model.id, values, config)
    return Job(
        id=job_id,
        endpoint=model.id,
        parameters=values,
        images=[_keep_picture(library, model, given, request.cut_out) for given in request.images],
        names=[images.name_of(str(given)) for given in request.images],
        wish=request.wish,
        fulfilled=not request.wish,
        mesh=_keep_mesh(library, model, request.mesh),
        cost=_expected(estimate) if estimate else None,
        max_cost=request.max_cost,
    )


def anew(job: Job, job_id: str, library: Library, config: Config, *, wish: dict[str, Any]) -> Job:
    """A job that asks for the same as `job` did, of the same pictures; not in the journal yet.

    Raises:
        TrellisError: the endpoint, a key or a picture is not there any more.
    """
    model = get(job.endpoint)
    values = model.parse(job.parameters).values()
    estimate = prices.estimate(model.id, values)
    check_price(job.max_cost, estimate.amount if estimate else None)
    check_access(model.id, config)
    check_installed(model.id, values, config)
    for name in [*job.images, *filter(None, [job.mesh])]:
        if not images.reference(name) and not (library.inputs / name).is_file():
            raise ImageError(f"What {job.title} was made of is gone: {name}. Choose it again.")
    return Job(
        id=job_id,
        endpoint=model.id,
        parameters=values,
        images=job.images,
        names=job.names,
        wish=wish,
        fulfilled=not wish,
        mesh=job.mesh,
        cost=_expected(estimate) if estimate else None,
        max_cost=job.max_cost,
    )


def check_inputs(request: Request) -> None:
    """Refuse what can be seen to be unusable without reading all of it: pictures, references and the mesh.

    Raises:
        TrellisError: in words.
    """
    model = get(request.endpoint)
    check_count(model, len(request.images))
    for given in request.images:
        if not _is_reference(model, given, request.cut_out):
            images.glance(Path(given))
    _check_mesh(model, request.mesh)


def _is_reference(model: type[Endpoint], given: Path | str, cut_out: bool) -> bool:
    """Whether a picture is a reference, which goes to the service as it is."""
    kind = images.reference(str(given))
    if kind is None:
        return False
    if kind not in model.references:
        raise ImageError(f"{model.id} does not take a picture's {kind.upper()}. Give a file.")
    if cut_out:
        raise ImageError(
            f"A picture's {kind.upper()} cannot be cut out here. Give a file, or let the service do it."
        )
    return True


def _keep_picture(library: Library, model: type[Endpoint], given: Path | str, cut_out: bool) -> str:
    """The library's name of a picture, or the reference that it is."""
    if _is_reference(model, given, cut_out):
        return str(given)
    return library.keep_input(images.read(given, model.max_side, cut_out=cut_out).data)


def _check_mesh(model: type[Endpoint], mesh: Path | None) -> None:
    if bool(model.mesh_key) is not bool(mesh):
        raise EndpointError(
            f"{model.id} works on a mesh. Give a GLB file."
            if model.mesh_key
            else f"{model.id} takes no mesh. Leave it out."
        )
    if mesh is not None:
        with _reading(mesh):
            glb.check(mesh)


def _keep_mesh(library: Library, model: type[Endpoint], mesh: Path | None) -> str | None:
    _check_mesh(model, mesh)
    if mesh is None:
        return None
    with _reading(mesh):
        data = mesh.read_bytes()
    return library.keep_input(data, ".glb")


@contextlib.contextmanager
def _reading(mesh: Path) -> Iterator[None]:
    """In words what goes wrong with a mesh meanwhile."""
    try:
        yield
    except ResultError as error:
        raise InputError(
            f"{mesh.name} cannot be used: it is no whole GLB with a mesh in it. Export it as glTF Binary (.glb)."
        ) from error
    except OSError as error:
        raise InputError(f"There is no mesh {mesh}. Check the path.") from error


def check_price(limit: float | None, amount: float | None) -> None:
    """Refuse what costs more than was allowed.

    Raises:
        PriceError: in words.
    """
    if limit is not None and amount is not None and amount > limit:
        raise PriceError(
            f"This would cost about ${amount:.2f}, more than the ${limit:.2f} allowed. Nothing was sent. Allow more, or lower "
            "resolution or number of results."
        )


def check_count(model: type[Endpoint], count: int) -> None:
    """Refuse no image, and more than the endpoint takes.

    Raises:
        ImageError, EndpointError: in words.
    """
    if not count:
        raise ImageError("There is no image. Add one.")
    if count > model.max_images:
        allowed = "one image" if model.max_images == 1 else f"{model.max_images} images at most"
        raise EndpointError(f"{model.id} takes {allowed}, and {count} were given. Remove some.")


def _expected(estimate: prices.Estimate) -> dict[str, Any]:
    return {"amount": estimate.amount, "currency": estimate.currency, "estimate": True}

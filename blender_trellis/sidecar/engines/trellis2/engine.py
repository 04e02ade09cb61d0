# SPDX-License-Identifier: GPL-3.0-or-later
"""The engines behind local/trellis-2 and local/trellis-2/retexture: the order of a job's stages, and where things are."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from ....install import weights as installed
from ..matte import FILE
from ..stages import Progress, Stage
from .cache import Cache
from .incoming import Model, read
from .job import Job
from .memory import Machine
from .mesh import Surface, finish, paint
from .request import Wish, mesh_options, texture_options
from .shelf import Shelf
from .volume import Volume
from .weights import Checkpoint

_SHELF = Shelf()
"""This process's: every job has an engine of its own."""


class _Engine:
    """What both have in common.

    Args:
        sidecar: the sidecar's folder; the cache is in it, and the engine's own folder beside it.
    """

    def __init__(
        self, sidecar: Path, machine: Machine | None = None, shelf: Shelf = _SHELF
    ) -> None:
        self._weights = installed.folder(sidecar.parent)
        self._cache = Cache(sidecar / "cache")
        self._machine = machine or Machine.found()
        self._shelf = shelf

    def _job(
        self, wish: Wish, images: Sequence[Image.Image], progress: Progress, config: str
    ) -> Job:
        return Job(
            wish,
            images,
            Checkpoint(self._weights, config),
            self._machine,
            cache=self._cache,
            shelf=self._shelf,
            progress=progress,
            matte=self._weights / FILE,
        )


class Trellis2Engine(_Engine):
    """Pictures of one object to a textured model."""

    def plan(self, request: dict[str, Any], images: int) -> list[Stage]:
        """The stages; a step of one is a forward of a network."""
        return Wish.of(request, images).plan(self._machine.teraflops)

    def run(
        self, request: dict[str, Any], images: Sequence[Image.Image], progress: Progress
    ) -> bytes:
        """A GLB from 1 to 8 pictures, RGB or RGBA.

        Raises:
            EngineError: weights, pictures, a LoRA or the memory do not allow it.
            Cancelled: from `progress`.
        """
        job = self._job(Wish.of(request, len(images)), images, progress, "pipeline.json")
        return job.finished(lambda: _model(job, request))


def _model(job: Job, request: dict[str, Any]) -> bytes:
    latent = job.shape()
    model, voxels = job.decoded(latent)
    field = None
    if job.wish.texture:
        attributes = job.attributes(latent, model, voxels)
        field = Volume(voxels.coords, attributes, latent.resolution)
    surface = Surface(model.arrays["vertices"], model.arrays["faces"])
    options = mesh_options(request, latent.resolution)
    return finish(surface, field, options, job.mesh_step, extras=job.extras(), doubt=job.doubt)


class RetextureEngine(_Engine):
    """A mesh and pictures of how it shall look to the same mesh with new textures."""

    def plan(self, request: dict[str, Any], images: int) -> list[Stage]:
        """The stages; a step of one is a forward of a network."""
        return Wish.of_retexture(request, images).plan(self._machine.teraflops)

    def run(
        self, request: dict[str, Any], images: Sequence[Image.Image], progress: Progress
    ) -> bytes:
        """A GLB from 1 to 8 pictures, RGB or RGBA, and the GLB `request["mesh"]`, with the mesh's faces, normals and UVs.

        The model fills the unit cube, wherever the mesh stood.

        Raises:
            EngineError: weights, pictures, the mesh, a LoRA or the memory do not allow it.
            Cancelled: from `progress`.
        """
        wish = Wish.of_retexture(request, len(images))
        job = self._job(wish, images, progress, "texturing_pipeline.json")
        model = read(request["mesh"])
        return job.finished(lambda: _retextured(job, model, request))


def _retextured(job: Job, model: Model, request: dict[str, Any]) -> bytes:
    points, faces = model.welded()
    latent, kept, voxels = job.encoded(points, faces)
    attributes = job.attributes(latent, kept, voxels)
    field = Volume(voxels.coords, attributes, latent.resolution)
    options = texture_options(request, latent.resolution)
    surface, atlas, normals = model.laid_out(options, lambda words, _: job.mesh_step(words, 0))
    return paint(
        surface, atlas, field, options, job.mesh_step, normals=normals, extras=job.extras()
    )

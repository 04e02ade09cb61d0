# SPDX-License-Identifier: GPL-3.0-or-later
"""The geometry half of the mesh stage: from the raw surface to the mesh that gets a texture."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ...stages import EngineError
from ..doubts import of_crumbs
from .clean import clean, without_crumbs
from .holes import fill
from .orient import face_areas, orient
from .progress import beating, part
from .remesh import remesh
from .simplify import simplify
from .surface import Floats, Ints, MeshOptions, Step, Surface


def repair(
    surface: Surface,
    options: MeshOptions,
    step: Step,
    doubt: Callable[[str], None] = lambda _: None,
) -> tuple[Surface, Surface]:
    """The surface with small holes filled and all faces wound outwards, of which colours are taken; and the finished mesh.

    With `options.remesh` that is a closed 2-manifold wound one way. Without, it is a 2-manifold, wound one way, that has holes
    where the surface has large ones. Either has at most `options.decimation_target` faces.

    Args:
        step: called several times a second, from this thread, with the fraction of this half that is done.
        doubt: gets a sentence if the surface is probably rubbish, "" if not.

    Raises:
        EngineError: there is no surface, or one that is broken.
        whatever `step` raises.
    """
    _check(surface)
    return beating(lambda step: _repair(surface, options, step, doubt), step)


def _check(surface: Surface) -> None:
    points, faces = surface.points, surface.faces
    if not len(faces):
        raise EngineError("The model has no surface. Try another picture, or another seed.")
    if not np.isfinite(points).all() or faces.min() < 0 or faces.max() >= len(points):
        raise EngineError(
            "The model's surface is broken: it has points at no place, or faces without points. Try another seed."
        )


def _repair(
    surface: Surface, options: MeshOptions, step: Step, doubt: Callable[[str], None]
) -> tuple[Surface, Surface]:
    step("Cleaning the surface", 0.0)
    points, faces = clean(surface.points.astype(np.float64), surface.faces)
    if not len(faces):
        raise EngineError("All faces of the model are empty. Try another seed.")
    step("Winding the faces outwards", 0.05)
    faces = orient(points, faces)
    step("Filling holes", 0.1)
    filled = fill(points, faces)
    points, faces = without_crumbs(*filled)
    doubt(of_crumbs(1 - face_areas(points, faces).sum() / face_areas(*filled).sum()))
    original = _surface(points, faces)
    if options.remesh:
        points, faces = remesh(points, faces, options, part(step, 0.15, 0.7))
        points, faces = without_crumbs(points, faces)
    points, faces = simplify(points, faces, options.decimation_target, part(step, 0.7, 1.0))
    return original, _surface(points, faces)


def _surface(points: Floats, faces: Ints) -> Surface:
    return Surface(points.astype(np.float32), faces.astype(np.int32))

# SPDX-License-Identifier: GPL-3.0-or-later
"""The mesh stage: a raw surface and its colours become a GLB. On the CPU, without torch.

In the order of the work: `repair` leads the geometry (`clean`, `orient`, `holes`, `remesh`, `simplify`); `charts`, `unwrap` and
`pack` lay the mesh out in a texture, `raster` and `bake` paint it.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from ...gltf import Material, encode
from .bake import Textures, bake
from .progress import beating, part
from .repair import repair
from .surface import Field, Floats, MeshOptions, Step, Surface
from .unwrap import Atlas, unwrap

__all__ = ["PLAN", "Atlas", "Field", "MeshOptions", "Surface", "finish", "paint", "unwrap"]

Extras = dict[str, Any]

PLAN = {"repair": 0.4, "unwrap": 0.15, "bake": 0.4, "write": 0.05}
"""The parts of `finish` in their order, and about what share of its time each takes."""

_TRANSPARENT = 0.01
"""The share of the surface that must be more transparent than not for the material to let anything through."""


def finish(
    surface: Surface,
    field: Field | None,
    options: MeshOptions,
    step: Step,
    *,
    extras: Extras | None = None,
    doubt: Callable[[str], None] = lambda _: None,
) -> bytes:
    """The GLB of `surface`: mended, simplified, and painted with `field` unless that is None or the options say otherwise.

    Args:
        surface: as the shape decoder leaves it.
        step: called several times a second, from this thread, with the fraction of the stage that is done.
        extras: what the file says of its making.
        doubt: gets a sentence if the surface is probably rubbish, "" if not.

    Raises:
        EngineError: there is no surface, a broken one, or one in too many pieces for its texture.
        whatever `step` raises.
    """
    if options.untextured or field is None:
        _, mesh = repair(surface, options, step, doubt)
        return _glb(mesh, extras=extras)
    original, mesh = repair(surface, options, _steps(step, "repair"), doubt)
    atlas = beating(lambda step: unwrap(mesh, options, step), _steps(step, "unwrap"))
    return paint(mesh, atlas, field, options, step, original=original, extras=extras)


def paint(
    mesh: Surface,
    atlas: Atlas,
    field: Field,
    options: MeshOptions,
    step: Step,
    *,
    original: Surface | None = None,
    normals: Floats | None = None,
    extras: Extras | None = None,
) -> bytes:
    """The GLB of `mesh` with the colours of `field` in textures laid out as `atlas`.

    Args:
        step: as of `finish`.
        original: where `field` is asked: at its nearest points; None: on `mesh` itself.
        normals: (N, 3) at the atlas's places; None: the mean of the faces around each point.
        extras: what the file says of its making.
    """

    def work(step: Step) -> bytes:
        textures = bake(mesh, atlas, original, field, _steps(step, "bake"))
        material = _material(textures, options, _steps(step, "write"))
        return _glb(mesh, atlas, material, normals, extras)

    return beating(work, step)


def _material(textures: Textures, options: MeshOptions, step: Step) -> Material:
    step("Compressing the textures", 0.0)
    # What the decoder says of alpha is noisy, and Blender draws blended faces in any order: so only where it matters
    blend = textures.transparent > _TRANSPARENT
    return Material(
        colour=_encoded(textures.colour, options),
        metallic_roughness=_encoded(textures.metallic_roughness, options),
        alpha_mode="BLEND" if blend else "OPAQUE",
        double_sided=not options.remesh,
    )


def _steps(step: Step, name: str) -> Step:
    """`step` for one part of the plan."""
    before = sum(list(PLAN.values())[: list(PLAN).index(name)])
    return part(step, before, before + PLAN[name])


def _encoded(picture: npt.NDArray[np.uint8], options: MeshOptions) -> bytes:
    file = io.BytesIO()
    image = Image.fromarray(picture)
    if options.texture_format == "webp":
        # exact: what has no alpha keeps its colour, which an opaque material shows
        image.save(file, "WEBP", quality=90, method=2, exact=True)
    else:
        image.save(file, "PNG", compress_level=1)
    return file.getvalue()


def _glb(
    mesh: Surface,
    atlas: Atlas | None = None,
    material: Material | None = None,
    normals: Floats | None = None,
    extras: Extras | None = None,
) -> bytes:
    vertex = np.arange(len(mesh.points)) if atlas is None else atlas.vertex
    shading = _normals(mesh)[vertex] if normals is None else normals.astype(np.float32)
    return encode(
        generator="Trellis for Blender, TRELLIS.2 engine",
        extras={"engine": "trellis-2"} | (extras or {}),
        positions=_y_up(mesh.points)[vertex],
        normals=_y_up(shading),
        faces=mesh.faces if atlas is None else atlas.faces,
        uvs=None if atlas is None else (atlas.texels / atlas.size).astype(np.float32),
        material=material,
    )


def _normals(mesh: Surface) -> Floats:
    """(V, 3), float32, of length 1: the mean of the faces around each point, by area."""
    corners = mesh.points[mesh.faces].astype(np.float64)
    faces = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    at = mesh.faces.ravel()
    sums = [np.bincount(at, np.repeat(faces[:, k], 3), len(mesh.points)) for k in range(3)]
    normals = np.stack(sums, 1)
    lengths = np.linalg.norm(normals, axis=1, keepdims=True)
    return np.where(
        lengths > 0, normals / np.where(lengths > 0, lengths, 1), [0.0, 0.0, 1.0]
    ).astype(np.float32)


def _y_up(vectors: Floats) -> Floats:
    """From Blender's axes to glTF's."""
    return np.stack([vectors[:, 0], vectors[:, 2], -vectors[:, 1]], 1)

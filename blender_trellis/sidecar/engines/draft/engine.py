# SPDX-License-Identifier: GPL-3.0-or-later
"""The Draft engine: the order of the work, its plan, and the model's place in space."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from PIL import Image

from ....pixels.grids import Floats
from ..gltf import Material, encode
from ..stages import Progress, Stage
from .atlas import BACK, FRONT, Atlas, unwrap
from .silhouette import View, see
from .structure import Solid, brightness_relief, hull, inflate
from .surface import Mesh, extract
from .texture import Painter, bake, sources

_VIEWS = ("front", "right", "back", "left")
_MARGIN = 1e-3
"""Left free at either end of the unit cube."""

_FINEST = 2048
"""Longer side, in pixels, of the colours that are kept; enough for charts of half a 4096 texture."""
_SHAPE_STEPS = 9
_RECORDED = ("seed", "resolution", "decimation_target", "texture_size")


class DraftEngine:
    """Pictures to a closed, textured mesh by classical geometry: no AI, nothing random.

    The model stands in Blender's space, Z up, its front towards -Y. The pictures show it: the front from -Y looking
    along +Y, the right from +X looking along -X, the back from +Y looking along -Y, the left from -X looking along +X.
    So +X is on the right of the front picture, and +Y on the right of the right one.
    """

    def plan(self, request: dict[str, Any], images: int) -> list[Stage]:
        """Stages for `images` pictures, in the order of the work."""
        return [
            Stage("image", 1 + images, 0.15 + 0.1 * images),
            Stage("structure", 2, 0.2),
            Stage("shape", _SHAPE_STEPS, 0.3),
            Stage("texture", 5 + _bands(request), 0.4 * (request["texture_size"] / 1024) ** 2),
            Stage("mesh", 3, 0.2 * (request["texture_size"] / 1024) ** 2),
        ]

    def run(
        self, request: dict[str, Any], images: Sequence[Image.Image], progress: Progress
    ) -> bytes:
        """A GLB from 1 to 4 pictures (RGB or RGBA): front, right, back, left.

        Args:
            request: resolution (pixels at which pictures are analysed), decimation_target (vertices at most),
                texture_size (texels a side), seed (only recorded).

        Raises:
            EngineError: a picture shows no subject.
            Cancelled: from `progress`.
        """
        plan = self.plan(request, len(images))
        image, structure, shape, texture, packing = (_Steps(progress, stage) for stage in plan)
        views = _views(request, images, image)
        image.finish("Subject found")
        solid = _solid(request, views, structure)
        structure.finish("Solid ready")
        mesh = extract(solid, request["decimation_target"], 1 / request["resolution"], shape)
        shape.finish(f"{len(mesh.points)} vertices")
        directions = [FRONT, BACK] if solid.side is None else list(range(6))
        atlas = unwrap(mesh, directions, request["texture_size"])
        texture("Texture coordinates laid out")
        painter = Painter(mesh, sources(views, solid.extent))
        texture("Pictures placed")
        pictures = bake(mesh, atlas, painter, _bands(request), texture)
        texture.finish("Textures painted")
        files = [_png(picture, packing) for picture in pictures]
        data = _glb(mesh, atlas, files, _extras(request, len(images)))
        packing.finish("Model ready")
        return data


class _Steps:
    """Reports the steps of one stage; steps more than planned repeat the last but one."""

    def __init__(self, progress: Progress, stage: Stage) -> None:
        self._progress, self._stage, self._done = progress, stage, 0

    def __call__(self, message: str) -> None:
        self._done = min(self._done + 1, self._stage.steps - 1)
        self._progress.step(self._stage.name, self._done, message)

    def finish(self, message: str) -> None:
        self._progress.step(self._stage.name, self._stage.steps, message)


def _bands(request: dict[str, Any]) -> int:
    """Parts in which the texture is painted: some tenths of a second each."""
    return max(2, int(request["texture_size"]) ** 2 // 2**19)


def _views(
    request: dict[str, Any], images: Sequence[Image.Image], step: Callable[[str], None]
) -> dict[str, View]:
    views = {}
    finest = min(request["texture_size"], _FINEST)
    for name, image in zip(_VIEWS, images, strict=False):
        views[name] = see(image, request["resolution"], finest)
        step(f"Subject cut out of the {name} picture")
    return views


def _solid(request: dict[str, Any], views: dict[str, View], step: Callable[[str], None]) -> Solid:
    # Some five pixels per voxel; on average a model's surface is two and a half times its longer side squared.
    spacing = np.sqrt(2.5 / request["decimation_target"])
    pixels = int(np.clip(5 / spacing, 192, request["resolution"]))
    if "right" in views:
        return hull(views, pixels, step)
    coarse, _ = brightness_relief(views["front"])
    step("Relief read from the picture")
    return inflate(views["front"], coarse, pixels)


def _png(picture: Image.Image, step: Callable[[str], None]) -> bytes:
    file = io.BytesIO()
    picture.save(file, "PNG", compress_level=1)
    step("Texture compressed")
    return file.getvalue()


def _extras(request: dict[str, Any], images: int) -> dict[str, Any]:
    """What the file says of its making."""
    made = {"engine": "draft", "note": "geometry from silhouettes, no AI", "images": images}
    return made | {key: request[key] for key in _RECORDED}


def _glb(mesh: Mesh, atlas: Atlas, files: list[bytes], extras: dict[str, Any]) -> bytes:
    colour, normal = files
    return encode(
        generator="Trellis for Blender, Draft engine",
        extras=extras,
        positions=_y_up(_in_unit_cube(mesh.points))[atlas.vertex],
        normals=_y_up(mesh.normals)[atlas.vertex],
        uvs=atlas.texels / np.float32(atlas.size),
        faces=atlas.faces,
        material=Material(colour=colour, normal=normal, metallic=0.0, roughness=0.7),
    )


def _in_unit_cube(points: Floats) -> Floats:
    """Centred, the longest side filling the cube from -0.5 to 0.5 but for a margin."""
    low, high = points.min(0), points.max(0)
    scale = (1 - 2 * _MARGIN) / float((high - low).max())
    return np.asarray((points - (low + high) / 2) * np.float32(scale))


def _y_up(vectors: Floats) -> Floats:
    """From Blender's axes to glTF's."""
    return np.stack([vectors[:, 0], vectors[:, 2], -vectors[:, 1]], -1)

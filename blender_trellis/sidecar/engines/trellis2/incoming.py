# SPDX-License-Identifier: GPL-3.0-or-later
"""A model that is to be textured anew: read from a GLB, and placed as the networks know models."""

from __future__ import annotations

import struct
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ....pixels.gltf import Gltf
from ..stages import EngineError
from .mesh import Atlas, MeshOptions, Surface, unwrap
from .mesh.surface import Step
from .volume import Floats, Ints

_FILL = 0.99999
"""The side of the unit cube that a model's longest side fills; officially so."""


@dataclass(frozen=True)
class Model:
    """A triangle mesh in Blender's axes, Z up. Points on UV seams stand once for each place in the texture.

    `uvs` is (V, 2), v from the top, None where the model has no UVs for all of it in the unit square. `normals` is (V, 3),
    None where it lacks some.
    """

    points: Floats
    faces: Ints
    uvs: Floats | None = None
    normals: Floats | None = None

    def welded(self) -> tuple[Floats, Ints]:
        """Points and faces with equal points made one."""
        points, index = np.unique(self.points, axis=0, return_inverse=True)
        return points, index.reshape(-1)[self.faces].astype(np.int32)

    def laid_out(self, options: MeshOptions, step: Step) -> tuple[Surface, Atlas, Floats | None]:
        """The mesh, its places in the texture, by its UVs or by new ones, and the normals (N, 3) of those places."""
        if self.uvs is not None:
            surface = Surface(self.points.astype(np.float32), self.faces)
            texels = np.asarray(self.uvs * options.texture_size, np.float64)
            vertex = np.arange(len(self.points))
            atlas = Atlas(vertex, texels, self.faces, options.texture_size)
            return surface, atlas, self.normals
        points, faces = self.welded()
        surface = Surface(points.astype(np.float32), faces)
        atlas = unwrap(surface, options, step)
        if self.normals is None:
            return surface, atlas, None
        # Faces that share a place in the texture may still have an edge with two normals between them
        pairs = np.stack([atlas.faces.ravel(), self.faces.ravel()], 1)
        pairs, corner = np.unique(pairs, axis=0, return_inverse=True)
        place, own = pairs.T
        corner = corner.reshape(-1, 3)
        split = Atlas(atlas.vertex[place], atlas.texels[place], corner, atlas.size)
        return surface, split, self.normals[own]


_NOTHING = Model(np.zeros((0, 3)), np.zeros((0, 3), np.int32))


def read(data: bytes) -> Model:
    """The model in a GLB, centred in the cube from -0.5 to 0.5, which its longest side fills.

    Raises:
        EngineError: it cannot be read, or has no faces.
    """
    try:
        model = _model(_opened(data))
    except (
        struct.error,
        ValueError,
        LookupError,
        TypeError,
        AttributeError,
        OverflowError,
        RecursionError,
    ) as error:
        raise EngineError(f"The model cannot be read: {error}", "mesh_url") from error
    if len(model.faces) == 0 or not np.isfinite(model.points).all():
        raise EngineError("The model has no faces to give a texture.", "mesh_url")
    used = model.points[model.faces].reshape(-1, 3)
    low, high = used.min(0), used.max(0)
    if not (high > low).any():
        raise EngineError("The model has no size.", "mesh_url")
    scale = _FILL / float((high - low).max())
    points = ((model.points - (low + high) / 2) * scale).astype(np.float32)
    return replace(model, points=points)


def _opened(data: bytes) -> Gltf:
    magic, version, _ = struct.unpack_from("<4sII", data)
    if magic != b"glTF" or version != 2:
        raise ValueError("it is no GLB of version 2")
    gltf = Gltf(data)
    if required := gltf.document.get("extensionsRequired"):
        known = {"KHR_texture_transform", "EXT_texture_webp", "KHR_materials_unlit"}
        if unknown := sorted(set(required) - known):
            raise ValueError(f"it needs {', '.join(unknown)}; export it without compression")
    return gltf


def _model(gltf: Gltf) -> Model:
    """All triangles of the scene, as one mesh."""
    parts = [_part(gltf, primitive, matrix) for primitive, matrix in gltf.triangles()]
    parts = [part for part in parts if len(part.faces)]
    if not parts:
        return _NOTHING
    starts = np.cumsum([0, *(len(part.points) for part in parts)])
    faces = [part.faces + start for part, start in zip(parts, starts[:-1], strict=True)]
    return Model(
        np.concatenate([part.points for part in parts]),
        np.concatenate(faces).astype(np.int32),
        _joined([part.uvs for part in parts]),
        _joined([part.normals for part in parts]),
    )


def _part(gltf: Gltf, primitive: dict[str, Any], matrix: Floats) -> Model:
    attributes = primitive["attributes"]
    points = gltf.values(attributes["POSITION"])
    points = _z_up(points @ matrix[:3, :3].T + matrix[:3, 3])
    faces = gltf.faces(primitive)
    if faces.size and not 0 <= faces.min() <= faces.max() < len(points):
        raise ValueError("a face has a corner that does not exist")
    if np.linalg.det(matrix[:3, :3]) < 0:
        faces = faces[:, ::-1]
    uvs = None
    if "TEXCOORD_0" in attributes:
        found = gltf.values(attributes["TEXCOORD_0"])
        inside = found.shape == (len(points), 2) and 0 <= found.min() <= found.max() <= 1
        uvs = found if inside else None
    normals = None
    if "NORMAL" in attributes:
        turned = gltf.values(attributes["NORMAL"]) @ np.linalg.pinv(matrix[:3, :3])
        lengths = np.linalg.norm(turned, axis=1, keepdims=True)
        normals = _z_up(turned / np.maximum(lengths, 1e-30))
    return Model(points, faces, uvs, normals)


def _joined(parts: list[Floats | None]) -> Floats | None:
    there = [part for part in parts if part is not None]
    return np.concatenate(there) if len(there) == len(parts) else None


def _z_up(vectors: Floats) -> Floats:
    """From glTF's axes to Blender's."""
    return np.stack([vectors[:, 0], -vectors[:, 2], vectors[:, 1]], 1)

# SPDX-License-Identifier: GPL-3.0-or-later
"""What the parts of the mesh stage hand to each other: the surface, its colours, what is wished, and how progress is told."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.floating[Any]]
Ints = npt.NDArray[np.integer[Any]]
Bools = npt.NDArray[np.bool_]

Field = Callable[[Floats], Floats]
"""Points (N, 3) to (N, 6): base colour 0:3, metallic 3, roughness 4, alpha 5, in 0..1."""

Step = Callable[[str, float], None]
"""Takes a message and the fraction (0..1) that is done; it raises when the job was cancelled."""


@dataclass(frozen=True)
class Surface:
    """A triangle mesh with Z up in the cube from -0.5 to 0.5."""

    points: npt.NDArray[np.float32]
    """(V, 3)"""
    faces: npt.NDArray[np.int32]
    """(F, 3), counter-clockwise seen from outside where the surface is oriented."""


@dataclass(frozen=True, kw_only=True)
class MeshOptions:
    """What is wished of the mesh; the parameters of `o_voxel.postprocess.to_glb`, by shorter names."""

    decimation_target: int
    """Faces at most."""
    texture_size: int
    """Texels a side."""
    remesh: bool
    """Rebuild the surface as a closed 2-manifold."""
    resolution: int
    """Voxels a side of the grid that the surface came from."""
    remesh_band: float = 1.0
    """How far outside an open surface its shell lies, in voxels."""
    remesh_project: float = 0.0
    """How far the rebuilt points are moved back onto the surface, 0 to 1."""
    cone_half_angle: float = math.pi / 2
    """Most that normals in one chart may differ from its axis, in radians."""
    refine_iterations: int = 0
    global_iterations: int = 1
    smooth_strength: int = 1
    texture_format: Literal["png", "webp"] = "png"
    untextured: bool = False

# SPDX-License-Identifier: GPL-3.0-or-later
"""The endpoints that the sidecar on this computer, or on a server of the user's own, carries out."""

from __future__ import annotations

from typing import Literal

from .base import VIEWS, Endpoint, parameter, seed
from .trellis2 import MeshExtraction, StageSampling, decimation_target, texture_size


class _Local(Endpoint):
    service = "local"
    source = "docs/architecture.md"
    image_key = "image_urls"
    max_images = len(VIEWS)
    max_side = 4096

    seed: int = seed()


class LocalDraft(_Local):
    """The Draft engine: silhouettes to a closed, textured mesh. No AI, no GPU, about a second."""

    id = "local/draft"
    title = "Draft · This computer"

    resolution: Literal[512, 1024, 1536] = parameter(
        1024,
        stage="structure",
        label="Resolution",
        help="How finely silhouette and relief are read from the picture; higher is finer and slower",
        unit="pixels",
        always=True,
    )
    texture_size: Literal[512, 1024, 2048, 4096] = texture_size(1024)
    decimation_target: int = decimation_target(20_000, 5_000, 2_000_000, "vertices")


class LocalTrellis2(MeshExtraction, StageSampling, _Local):
    """TRELLIS.2 on this computer's GPU."""

    id = "local/trellis-2"
    title = "TRELLIS.2 · This computer"

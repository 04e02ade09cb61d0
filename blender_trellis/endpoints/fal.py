# SPDX-License-Identifier: GPL-3.0-or-later
"""fal's TRELLIS endpoints. Parameters: the model pages on fal.ai, read in October 2026."""

from __future__ import annotations

import json
from typing import Literal, Self

from pydantic import model_validator

from .base import Endpoint, parameter, seed
from .trellis2 import (
    MeshExtraction,
    StageSampling,
    decimation_target,
    guidance,
    resolution,
    steps,
    texture_size,
)

_LIFETIME = "X-Fal-Object-Lifecycle-Preference"


class _Fal(Endpoint):
    """What every fal endpoint takes."""

    service = "fal"
    image_key = "image_url"

    seed: int = seed()
    expiration_duration_seconds: int = parameter(
        None,
        stage="delivery",
        label="File Lifetime",
        help="How long fal keeps the produced file; unset leaves it to the account's setting",
        unit="seconds",
        header=_LIFETIME,
        advanced=True,
        ge=60,
    )

    def headers(self) -> dict[str, str]:
        """The file lifetime, in fal's JSON form."""
        seconds = self.expiration_duration_seconds
        return {_LIFETIME: json.dumps({"expiration_duration_seconds": seconds})} if seconds else {}


class FalTrellis(_Fal):
    """TRELLIS, the first one, from one picture."""

    id = "fal-ai/trellis"
    title = "TRELLIS · fal"
    source = "https://fal.ai/models/fal-ai/trellis"

    ss_guidance_strength: float = guidance("structure", 7.5)
    ss_sampling_steps: int = steps("structure", 12)
    slat_guidance_strength: float = guidance("shape", 3.0)
    slat_sampling_steps: int = steps("shape", 12)
    mesh_simplify: float = parameter(
        0.95,
        stage="mesh",
        label="Simplify",
        help="Fraction of the mesh that is removed; higher leaves a lighter mesh with less detail",
        unit="of the faces",
        always=True,
        ge=0.9,
        le=0.98,
    )
    texture_size: Literal[512, 1024, 2048] = texture_size(1024)


class FalTrellisMulti(FalTrellis):
    """TRELLIS, the first one, from several pictures of one object."""

    id = "fal-ai/trellis/multi"
    title = "TRELLIS, several views · fal"
    source = "https://fal.ai/models/fal-ai/trellis/multi"
    image_key = "image_urls"
    max_images = 8

    multiimage_algo: Literal["stochastic", "multidiffusion"] = parameter(
        "stochastic",
        stage="image",
        label="Views",
        help="How several pictures are combined: one at a time by turns, or all at every step (slower)",
    )


class FalTrellis2(MeshExtraction, StageSampling, _Fal):
    """TRELLIS.2 from one picture."""

    id = "fal-ai/trellis-2"
    title = "TRELLIS.2 · fal"
    source = "https://fal.ai/models/fal-ai/trellis-2"


class FalTrellis2Lora(StageSampling, _Fal):
    """TRELLIS.2 with LoRA adapters."""

    id = "fal-ai/trellis-2-lora"
    title = "TRELLIS.2 with LoRA · fal"
    source = "https://fal.ai/models/fal-ai/trellis-2-lora"

    resolution: Literal[512, 1024] = resolution("512 or 1024, as the LoRA was trained", 512)
    texture_size: Literal[1024, 2048, 4096] = texture_size(2048)
    decimation_target: int = decimation_target(500_000, 5_000, 2_000_000, "vertices")
    sparse_structure_lora_url: str = parameter(
        None,
        stage="structure",
        label="Structure LoRA",
        help="URL of a LoRA for the structure stage; at least one of the three LoRAs is needed",
        pattern="^https?://",
    )
    geometry_lora_url: str = parameter(
        None,
        stage="shape",
        label="Geometry LoRA",
        help="URL of a LoRA for the shape stage; at least one of the three LoRAs is needed",
        pattern="^https?://",
    )
    texture_lora_url: str = parameter(
        None,
        stage="texture",
        label="Texture LoRA",
        help="URL of a LoRA for the texture stage; at least one of the three LoRAs is needed",
        pattern="^https?://",
    )

    @model_validator(mode="after")
    def _one_adapter(self) -> Self:
        if not (self.sparse_structure_lora_url or self.geometry_lora_url or self.texture_lora_url):
            raise ValueError(
                "fal-ai/trellis-2-lora needs at least one of sparse_structure_lora_url, "
                "geometry_lora_url and texture_lora_url."
            )
        return self

# SPDX-License-Identifier: GPL-3.0-or-later
"""fal's TRELLIS endpoints. Parameters: the model pages on fal.ai, read in October 2026."""

from __future__ import annotations

import json
from typing import Literal, Self

from pydantic import model_validator

from .base import Endpoint, parameter, seed
from .schema import HTTP_URL, HTTPS_URL
from .trellis2 import (
    FAL_TYPES,
    MeshExtraction,
    StageSampling,
    TextureSampling,
    decimation_target,
    guidance,
    resolution,
    steps,
    texture_size,
)

_LIFETIME = "X-Fal-Object-Lifecycle-Preference"
_HEADERS = "https://fal.ai/docs/documentation/model-apis/common-parameters.md"
_QUEUE = "https://docs.fal.ai/documentation/model-apis/inference/queue"


class _Fal(Endpoint):
    """What every fal endpoint takes."""

    service = "fal"
    image_key = "image_url"
    references = frozenset({"url"})

    seed: int = seed()
    queue_priority: Literal["normal", "low"] = parameter(
        "normal",
        stage="delivery",
        label="Priority",
        help="Place in fal's queue; low lets other requests go first",
        header="X-Fal-Queue-Priority",
        source=_HEADERS,
        advanced=True,
        always=True,
    )
    start_timeout: float = parameter(
        None,
        stage="delivery",
        label="Timeout",
        help="How long fal may take until it starts to compute, waiting in the queue included; computing itself is not "
        "limited. A higher value waits longer, unset without end",
        unit="seconds",
        header="X-Fal-Request-Timeout",
        source=_HEADERS,
        advanced=True,
        gt=1,
    )
    expiration_duration_seconds: int = parameter(
        None,
        stage="delivery",
        label="Lifetime",
        help="How long fal keeps the produced file; higher keeps it longer, unset leaves it to the account's setting",
        unit="seconds",
        header=_LIFETIME,
        source=_HEADERS,
        advanced=True,
        ge=60,
    )
    webhook_url: str = parameter(
        None,
        stage="delivery",
        label="Webhook",
        help="URL that fal calls when the request has ended",
        query="fal_webhook",
        source=_QUEUE,
        advanced=True,
        pattern=HTTPS_URL,
    )

    def headers(self) -> dict[str, str]:
        """As for every endpoint, with the file lifetime in fal's JSON form."""
        headers = super().headers()
        if _LIFETIME in headers:
            seconds = self.expiration_duration_seconds
            headers[_LIFETIME] = json.dumps({"expiration_duration_seconds": seconds})
        return headers


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
    one_of = ("sparse_structure_lora_url", "geometry_lora_url", "texture_lora_url")

    resolution: Literal[512, 1024] = resolution("512 or 1024, as the LoRA was trained", 512)
    texture_size: Literal[1024, 2048, 4096] = texture_size(2048)
    decimation_target: int = decimation_target(500_000, 5_000, 2_000_000, "vertices")
    sparse_structure_lora_url: str = parameter(
        None,
        stage="structure",
        label="LoRA",
        help="URL of a LoRA for the structure stage; at least one of the three LoRAs is needed",
        pattern=HTTP_URL,
    )
    geometry_lora_url: str = parameter(
        None,
        stage="shape",
        label="LoRA",
        help="URL of a LoRA for the shape stage; at least one of the three LoRAs is needed",
        pattern=HTTP_URL,
    )
    texture_lora_url: str = parameter(
        None,
        stage="texture",
        label="LoRA",
        help="URL of a LoRA for the texture stage; at least one of the three LoRAs is needed",
        pattern=HTTP_URL,
    )

    @model_validator(mode="after")
    def _one_adapter(self) -> Self:
        if not any(getattr(self, name) for name in self.one_of):
            *first, last = self.one_of
            raise ValueError(f"{self.id} needs at least one of {', '.join(first)} and {last}.")
        return self


class FalTrellis(_Fal):
    """TRELLIS, the first one, from one picture."""

    id = "fal-ai/trellis"
    title = "TRELLIS · fal"
    source = "https://fal.ai/models/fal-ai/trellis"
    margin = 0.1

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


class FalTrellis2Multi(FalTrellis2):
    """TRELLIS.2 from several pictures of one object. Unconfirmed: others use it, but fal's own documentation does not name it."""

    id = "fal-ai/trellis-2/multi"
    title = "TRELLIS.2, several views (unconfirmed) · fal"
    image_key = "image_urls"
    max_images = 8
    unconfirmed = True


class FalTrellis2Retexture(TextureSampling, _Fal):
    """A new texture by TRELLIS.2 for a mesh that exists (GLB, OBJ, PLY or STL), after one picture."""

    id = "fal-ai/trellis-2/retexture"
    title = "TRELLIS.2 retexture · fal"
    source = FAL_TYPES
    mesh_key = "mesh_url"

    resolution: Literal[512, 1024] = resolution("512 or 1024", 1024)
    texture_size: Literal[1024, 2048, 4096] = texture_size(2048)

# SPDX-License-Identifier: GPL-3.0-or-later
"""Runware's TRELLIS.2. Parameters: Runware's model page, read in October 2026; it documents no default for the stages."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from .base import Endpoint, parameter, seed
from .schema import HTTP_URL
from .trellis2 import (
    decimation_target,
    guidance,
    remesh,
    rescale,
    rescale_t,
    resolution,
    steps,
    texture_size,
)


class RunwareTrellis2(Endpoint):
    """TRELLIS.2 from one picture; the documented names are paths in the task object."""

    id = "runware/trellis-2"
    title = "TRELLIS.2 · Runware"
    service = "runware"
    source = "https://runware.ai/docs/models/microsoft-trellis-2"
    image_key = "inputs.image"
    references = frozenset({"url", "uuid"})
    fixed: ClassVar[dict[str, Any]] = {
        "taskType": "3dInference",
        "model": "microsoft:trellis-2@4b",
        "outputType": "URL",
    }

    seed: int = seed(wire="seed", maximum=2**63 - 1)
    resolution: Literal[512, 1024, 1536] = resolution(
        "512, 1024 or 1536", 1024, wire="settings.resolution"
    )
    ss_guidance_strength: float = guidance(
        "structure", None, low=1, wire="settings.sparseStructure.guidanceStrength"
    )
    ss_guidance_rescale: float = rescale(
        "structure", None, wire="settings.sparseStructure.guidanceRescale"
    )
    ss_sampling_steps: int = steps("structure", None, wire="settings.sparseStructure.steps")
    ss_rescale_t: float = rescale_t("structure", None, wire="settings.sparseStructure.rescaleT")
    shape_slat_guidance_strength: float = guidance(
        "shape", None, low=1, wire="settings.shapeSlat.guidanceStrength"
    )
    shape_slat_guidance_rescale: float = rescale(
        "shape", None, wire="settings.shapeSlat.guidanceRescale"
    )
    shape_slat_sampling_steps: int = steps("shape", None, wire="settings.shapeSlat.steps")
    shape_slat_rescale_t: float = rescale_t("shape", None, wire="settings.shapeSlat.rescaleT")
    tex_slat_guidance_strength: float = guidance(
        "texture", None, low=1, wire="settings.texSlat.guidanceStrength"
    )
    tex_slat_guidance_rescale: float = rescale(
        "texture", None, wire="settings.texSlat.guidanceRescale"
    )
    tex_slat_sampling_steps: int = steps("texture", None, wire="settings.texSlat.steps")
    tex_slat_rescale_t: float = rescale_t("texture", None, wire="settings.texSlat.rescaleT")
    texture_size: Literal[1024, 2048, 3072, 4096] = texture_size(2048, wire="settings.textureSize")
    decimation_target_polygons: int = decimation_target(
        500_000, 100_000, 1_000_000, "polygons", wire="settings.decimationTarget"
    )
    remesh: bool = remesh(wire="settings.remesh", always=True)
    number_results: int = parameter(
        1,
        stage="delivery",
        label="Results",
        help="How many variations to make, each with a seed of its own; each is charged",
        unit="results",
        wire="numberResults",
        always=True,
        ge=1,
        le=4,
    )
    output_format: Literal["GLB"] = parameter(
        "GLB",
        stage="delivery",
        label="Format",
        help="File format of the model; GLB is the only one",
        wire="outputFormat",
        advanced=True,
        always=True,
    )
    delivery_method: Literal["async", "sync"] = parameter(
        "async",
        stage="delivery",
        label="Delivery",
        help="async asks again until the model is done; sync holds one connection open, about 120 s at most",
        wire="deliveryMethod",
        advanced=True,
        always=True,
    )
    include_cost: bool = parameter(
        True,
        stage="delivery",
        label="Tell Cost",
        help="Have the reply say what was charged; off at Runware, but on here, since the charge is part of our record",
        wire="includeCost",
        advanced=True,
        always=True,
    )
    ttl: int = parameter(
        None,
        stage="delivery",
        label="Lifetime",
        help="How long Runware keeps the produced file; higher keeps it longer, unset for good",
        unit="seconds",
        wire="ttl",
        advanced=True,
        ge=60,
    )
    upload_endpoint: str = parameter(
        None,
        stage="delivery",
        label="Upload To",
        help="URL to which Runware sends the file itself, as an HTTP PUT",
        wire="uploadEndpoint",
        advanced=True,
        pattern=HTTP_URL,
    )
    webhook_url: str = parameter(
        None,
        stage="delivery",
        label="Webhook",
        help="URL that Runware calls when a result is ready",
        wire="webhookURL",
        advanced=True,
        pattern=HTTP_URL,
    )

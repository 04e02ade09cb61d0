# SPDX-License-Identifier: GPL-3.0-or-later
"""The endpoints that the sidecar on this computer, or on a server of the user's own, carries out."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import field_validator

from .base import VIEWS, Endpoint, parameter, seed
from .trellis2 import (
    MeshExtraction,
    StageSampling,
    TextureSampling,
    decimation_target,
    texture_size,
    uv_angle,
    uv_global_passes,
    uv_refine_passes,
    uv_smoothing,
)


class _Local(Endpoint):
    service = "local"
    image_key = "image_urls"

    seed: int = seed()


class LocalDraft(_Local):
    """The Draft engine: silhouettes to a closed, textured mesh. No AI, no GPU, about a second."""

    id = "local/draft"
    title = "Draft · This computer"
    source = "docs/architecture.md"
    max_images = len(VIEWS)
    views = VIEWS
    max_side = 4096
    margin = 0.12

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


def _resolution(choices: str) -> Any:
    return parameter(
        1024,
        stage="structure",
        label="Resolution",
        help=f"Voxels along each side of the model's cube ({choices}); higher is finer, slower and needs more GPU memory",
        unit="voxels per side",
        always=True,
    )


def _lora(stage: str) -> Any:
    return parameter(
        None,
        stage=stage,
        label="LoRA",
        help=f"A .safetensors file with a LoRA for the {stage} stage, on the computer that computes. It changes the weights "
        "for this model only",
        file=True,
        min_length=1,
    )


def _lora_scale(stage: str, label: str) -> Any:
    return parameter(
        1.0,
        stage=stage,
        label="LoRA Scale",
        help=f"How strongly the {label} LoRA works; higher is stronger: 0 is not at all, 1 as it was trained",
        ge=0,
        le=4,
    )


class _LocalTrellis2(TextureSampling, _Local):
    """What both endpoints take. The engine looks at 1024 pixels of a picture at most, so 2048 lose nothing."""

    source = "docs/local.md"
    max_images = 8
    max_side = 2048

    multi_image: Literal["stochastic", "average"] = parameter(
        "stochastic",
        stage="image",
        label="Views",
        help="How several pictures of one object are combined: one at a time by turns, or the mean of all at every step, which "
        "is slower. Experimental: TRELLIS.2 was trained with one picture",
    )
    texture_lora_path: str = _lora("texture")
    texture_lora_scale: float = _lora_scale("texture", "texture")
    texture_size: Literal[1024, 2048, 4096] = texture_size(2048)
    texture_format: Literal["png", "webp"] = parameter(
        "png",
        stage="texture",
        label="File Format",
        help="How the textures are stored: PNG is read everywhere, WebP is smaller, and glTF readers need an extension for it",
        advanced=True,
    )


class LocalTrellis2(MeshExtraction, StageSampling, _LocalTrellis2):
    """TRELLIS.2 on this computer's GPU, or slowly on its CPU."""

    id = "local/trellis-2"
    title = "TRELLIS.2 · This computer"

    resolution: Literal[512, 1024, 1536] = _resolution("512, 1024 or 1536")
    pipeline_type: Literal["512", "1024", "1024_cascade", "1536_cascade"] = parameter(
        None,
        stage="structure",
        label="Pipeline",
        help="Which networks work in which order, in place of what the resolution chooses: 512, 1024_cascade and "
        "1536_cascade. 1024 needs no cascade, and more memory",
        advanced=True,
    )
    max_num_tokens: int = parameter(
        49_152,
        stage="shape",
        label="Token Limit",
        help="Voxels of the latent shape above which 1536 is lowered in steps; less needs less GPU memory",
        unit="tokens",
        advanced=True,
        ge=4_096,
        le=262_144,
    )
    sparse_structure_lora_path: str = _lora("structure")
    sparse_structure_lora_scale: float = _lora_scale("structure", "structure")
    geometry_lora_path: str = _lora("shape")
    geometry_lora_scale: float = _lora_scale("shape", "geometry")
    untextured: bool = parameter(
        False,
        stage="texture",
        label="Untextured",
        help="Make the mesh alone, without textures; faster, and needs less memory",
    )
    decimation_target: int = decimation_target(500_000, 5_000, 2_000_000, "faces")
    # The mesh stage is ours, so these have limits
    uv_unwrap_angle_threshold_deg: float = uv_angle(ge=1, le=180)
    uv_unwrap_global_iterations: int = uv_global_passes(ge=1, le=10)
    uv_unwrap_refine_iterations: int = uv_refine_passes(ge=0, le=100)
    uv_unwrap_smooth_strength: int = uv_smoothing(1, ge=0, le=10)

    @field_validator("pipeline_type", mode="before")
    @classmethod
    def _as_text(cls, value: Any) -> Any:
        """On a command line 512 and 1024 are numbers."""
        return str(value) if type(value) is int else value


class LocalTrellis2Retexture(_LocalTrellis2):
    """A new texture by TRELLIS.2 for a mesh that exists, after one or more pictures, on this computer."""

    id = "local/trellis-2/retexture"
    title = "TRELLIS.2 retexture · This computer"
    mesh_key = "mesh_url"

    resolution: Literal[512, 1024] = _resolution("512 or 1024")

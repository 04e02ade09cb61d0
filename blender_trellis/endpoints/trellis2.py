# SPDX-License-Identifier: GPL-3.0-or-later
"""The parameters of TRELLIS.2 that several endpoints share, under fal's names: one function a kind, one class a group.

Ranges and defaults are those of fal's page for trellis-2 unless an endpoint says otherwise.
"""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import model_validator

from .base import Endpoint, parameter

# fal's own client in JavaScript: it names ten parameters of trellis-2, and an endpoint, that fal's pages do not
FAL_TYPES = "https://github.com/fal-ai/fal-js, libs/client/src/types/endpoints.ts, 2026-08-02"

_PART = {"structure": "the coarse structure", "shape": "the shape", "texture": "the texture"}


def guidance(stage: str, default: float | None, *, low: float = 0, **more: Any) -> Any:
    """How strongly the picture steers a stage."""
    return parameter(
        default,
        stage=stage,
        label="Guidance",
        help=f"Guidance strength: how closely {_PART[stage]} follows the picture; higher is closer, too high adds artefacts",
        ge=low,
        le=10,
        **more,
    )


def rescale(stage: str, default: float | None, **more: Any) -> Any:
    """Guidance rescale of a stage."""
    return parameter(
        default,
        stage=stage,
        label="Rescale",
        help=f"Guidance rescale: damps the contrast that guidance adds to {_PART[stage]}; higher is calmer",
        ge=0,
        le=1,
        **more,
    )


def steps(stage: str, default: int | None, **more: Any) -> Any:
    """Sampling steps of a stage."""
    return parameter(
        default,
        stage=stage,
        label="Steps",
        help=f"Sampling steps for {_PART[stage]}; more is slower and sometimes finer",
        unit="steps",
        ge=1,
        le=50,
        **more,
    )


def rescale_t(stage: str, default: float | None, **more: Any) -> Any:
    """Time rescaling of a stage's sampler."""
    return parameter(
        default,
        stage=stage,
        label="Rescale T",
        help=f"Spends more of the steps of {_PART[stage]} on the large forms, and fewer on details; higher does so more",
        ge=1,
        le=6,
        **more,
    )


def interval(stage: str, edge: str, default: float) -> Any:
    """One edge of the guidance interval of a stage, in the sampler's time: 1 is noise, 0 is done."""
    effect = {
        "Start": "higher frees the last steps from it",
        "End": "lower frees the first steps from it",
    }
    return parameter(
        default,
        stage=stage,
        label=f"Guide {edge}",
        help=f"Guidance interval: guidance on {_PART[stage]} works between start and end, in the sampler's time, which runs from "
        f"1 to 0; {effect[edge]}",
        source=FAL_TYPES,
        advanced=True,
        ge=0,
        le=1,
    )


def resolution(choices: str, default: int, **more: Any) -> Any:
    """Resolution of the voxel grid."""
    return parameter(
        default,
        stage="structure",
        label="Resolution",
        help=f"Voxels along each side of the model's cube ({choices}); higher is finer, slower and dearer",
        unit="voxels per side",
        always=True,
        **more,
    )


def texture_size(default: int, **more: Any) -> Any:
    """Side of the square textures."""
    return parameter(
        default,
        stage="texture",
        label="Size",
        help="Texture size: the side of the square textures; higher is sharper and a larger file",
        unit="pixels",
        always=True,
        **more,
    )


def decimation_target(default: int, low: int, high: int, unit: str, **more: Any) -> Any:
    """How many vertices (or polygons) the mesh keeps."""
    return parameter(
        default,
        stage="mesh",
        label="Density",
        help=f"Decimation target: the {unit} that the mesh is reduced to; higher keeps more detail and is heavier",
        unit=unit,
        always=True,
        ge=low,
        le=high,
        **more,
    )


def remesh(**more: Any) -> Any:
    """Whether the mesh is rebuilt as one closed surface."""
    return parameter(
        True,
        stage="mesh",
        label="Remesh",
        help="Rebuild the mesh as one clean closed surface; off keeps the raw surface and is faster",
        **more,
    )


def uv_angle(**more: Any) -> Any:
    """How much the faces of one UV chart may differ in direction."""
    return parameter(
        90.0,
        stage="mesh",
        label="UV Angle",
        help="Faces that differ by less than this angle share a UV chart; higher gives fewer, larger charts",
        unit="degrees",
        source=FAL_TYPES,
        advanced=True,
        **more,
    )


def uv_global_passes(**more: Any) -> Any:
    """Passes over all UV charts together."""
    return parameter(
        1,
        stage="mesh",
        label="UV Passes",
        help="Passes over all UV charts together; more is slower and may give fewer charts",
        unit="passes",
        source=FAL_TYPES,
        advanced=True,
        **more,
    )


def uv_refine_passes(**more: Any) -> Any:
    """Passes over the borders of the UV charts."""
    return parameter(
        0,
        stage="mesh",
        label="UV Refining",
        help="Passes that refine the borders of the UV charts; more is slower and smoother",
        unit="passes",
        source=FAL_TYPES,
        advanced=True,
        **more,
    )


def uv_smoothing(default: float = 1.0, **more: Any) -> Any:
    """How strongly the borders of the UV charts are smoothed."""
    return parameter(
        default,
        stage="mesh",
        label="UV Smooth",
        help="How strongly the borders of the UV charts are smoothed; higher is smoother",
        source=FAL_TYPES,
        advanced=True,
        **more,
    )


class _Sampling(Endpoint):
    @model_validator(mode="after")
    def _intervals_in_order(self) -> Self:
        for last in type(self).model_fields:
            if last.endswith("_guidance_interval_end"):
                first = last.removesuffix("end") + "start"
                start, end = getattr(self, first), getattr(self, last)
                if end < start:
                    raise ValueError(
                        f"{last} must be at least {first}, but {end:g} is less than {start:g}."
                    )
        return self


class FormSampling(_Sampling):
    """How the structure and the shape are sampled."""

    ss_guidance_strength: float = guidance("structure", 7.5)
    ss_guidance_rescale: float = rescale("structure", 0.7)
    ss_guidance_interval_start: float = interval("structure", "Start", 0.6)
    ss_guidance_interval_end: float = interval("structure", "End", 1.0)
    ss_sampling_steps: int = steps("structure", 12)
    ss_rescale_t: float = rescale_t("structure", 5.0)
    shape_slat_guidance_strength: float = guidance("shape", 7.5)
    shape_slat_guidance_rescale: float = rescale("shape", 0.5)
    shape_slat_guidance_interval_start: float = interval("shape", "Start", 0.6)
    shape_slat_guidance_interval_end: float = interval("shape", "End", 1.0)
    shape_slat_sampling_steps: int = steps("shape", 12)
    shape_slat_rescale_t: float = rescale_t("shape", 3.0)


class TextureSampling(_Sampling):
    """How the texture is sampled."""

    tex_slat_guidance_strength: float = guidance("texture", 1.0)
    tex_slat_guidance_rescale: float = rescale("texture", 0.0)
    tex_slat_guidance_interval_start: float = interval("texture", "Start", 0.6)
    tex_slat_guidance_interval_end: float = interval("texture", "End", 0.9)
    tex_slat_sampling_steps: int = steps("texture", 12)
    tex_slat_rescale_t: float = rescale_t("texture", 3.0)


class StageSampling(TextureSampling, FormSampling):
    """How all three stages are sampled."""


class MeshExtraction(Endpoint):
    """How TRELLIS.2's mesh becomes a GLB. fal publishes no ranges for the UV unwrap, so it judges those itself."""

    resolution: Literal[512, 1024, 1536] = resolution("512, 1024 or 1536", 1024)
    texture_size: Literal[1024, 2048, 4096] = texture_size(2048)
    decimation_target: int = decimation_target(500_000, 5_000, 2_000_000, "vertices")
    remesh: bool = remesh()
    remesh_band: float = parameter(
        1.0,
        stage="mesh",
        label="Band",
        help="Width of the band around the surface that remeshing looks at; higher closes wider gaps",
        unit="voxels",
        advanced=True,
        ge=0,
        le=4,
    )
    remesh_project: float = parameter(
        0.0,
        stage="mesh",
        label="Projection",
        help="How far the remeshed surface is pulled back onto the original one; higher is closer, 1 is all the way",
        advanced=True,
        ge=0,
        le=1,
    )
    uv_unwrap_angle_threshold_deg: float = uv_angle()
    uv_unwrap_global_iterations: int = uv_global_passes()
    uv_unwrap_refine_iterations: int = uv_refine_passes()
    uv_unwrap_smooth_strength: float = uv_smoothing()

# SPDX-License-Identifier: GPL-3.0-or-later
"""What a model that came out as rubbish is known by, in words.

Some GPUs and drivers compute wrongly in silence, and what they make passes every stage. None of these signs is proof, so
the model is delivered all the same, and its maker is told. Each function returns a sentence, "" where nothing is suspect.
"""

from __future__ import annotations

from .volume import Floats, Ints

ADVICE = (
    "So the model is probably broken: look at it, and try another seed or picture. If all models come out like this, the GPU or "
    "its driver computes wrongly: update the driver, or set TRELLIS_DEVICE=cpu to compute on the CPU, which is slow."
)

_FULL, _SMALL = 0.7, 0.25
"""A structure is the voxels that a surface passes through, some percent of a grid of 64 and at most a third of one of 32. Its
longest side is about the grid's, since the networks learned from models that fill the cube."""

_SPREAD = 0.3, 3.0
"""A sampled latent has, before it is scaled, about the spread of those that the networks learned from: 1."""

_THICK = 1500
"""Finest voxels to a token: a surface has some 250 of the 16³ = 4096, which solid and noise fill."""

_LOOSE = 0.5
"""Faces to a voxel: a closed surface has two. A face needs four voxels side by side, and scattered ones have few."""

_WILD, _MOSTLY = 0.1, 0.2
"""Attributes are learned from 0 to 1; how far outside they are no more noise, and what share of them may be."""

_CRUMBS = 0.3
"""The share of a surface's area in crumbs that should not pass without a word."""


def of_structure(coords: Ints, side: int) -> str:
    """Of the occupied voxels (N, 3) of a grid of `side` voxels."""
    share = len(coords) / side**3
    if share > _FULL:
        return f"The structure fills {share:.0%} of its space, as noise does."
    length = int((coords.max(0) - coords.min(0)).max()) + 1
    if length < _SMALL * side:
        return f"The structure is only {length} of {side} voxels long."
    return ""


def of_latent(values: Floats, stage: str) -> str:
    """Of what was sampled (N, C), before it is scaled."""
    spread = float(values.std())
    if not _SPREAD[0] < spread < _SPREAD[1]:
        return f"The numbers of the {stage} spread by {spread:.2g}, not by about 1."
    return ""


def of_shape(tokens: int, voxels: int, faces: int) -> str:
    """Of the decoded shape's counts."""
    if voxels > _THICK * tokens:
        return "The shape is solid or noise, and no surface."
    if faces < _LOOSE * voxels:
        return "The shape is scattered voxels, and no surface."
    return ""


def wild(attributes: Floats) -> float:
    """The share of `attributes` that is far from 0 to 1."""
    return float(((attributes < -_WILD) | (attributes > 1 + _WILD)).mean())


def of_texture(share: float) -> str:
    """Of the share of its attributes that are `wild`."""
    if share > _MOSTLY:
        return f"{share:.0%} of the texture's values are none that a texture can have."
    return ""


def of_crumbs(share: float) -> str:
    """Of the share of the surface's area that was dropped as crumbs."""
    if share > _CRUMBS:
        return f"{share:.0%} of the surface were loose crumbs, which were dropped."
    return ""

# SPDX-License-Identifier: GPL-3.0-or-later
"""A model that came out as rubbish is delivered with words about it; one that did not, without."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch", reason="TRELLIS.2's engine needs torch")

import torch

from blender_trellis.sidecar.engines.trellis2 import doubts
from blender_trellis.sidecar.engines.trellis2.dual_grid import connect, voxelise
from blender_trellis.sidecar.engines.trellis2.mesh import MeshOptions, Surface, finish
from trellis2 import shapes
from trellis2.made import Studio

torch.set_num_threads(1)
RESOLUTION = 256
RANDOM = np.random.default_rng(1)


def _noise(side: int, share: float) -> np.ndarray[Any, Any]:
    return np.argwhere(RANDOM.random((side, side, side)) < share).astype(np.int32)


@pytest.mark.parametrize(
    "surface",
    [
        shapes.sphere(112, 0.49),
        shapes.torus(200, 60),
        shapes.box((-0.49, -0.49, -0.49), (0.49, 0.49, 0.49), 60),
        shapes.box((-0.49, -0.01, -0.01), (0.49, 0.01, 0.01), 60),
        shapes.below(shapes.sphere(112, 0.49), 0.1),
    ],
    ids=["sphere", "torus", "cube", "rod", "bowl"],
)
def test_real_surfaces_rouse_no_doubt(surface: Surface) -> None:
    coords, _, flags = voxelise(surface.points, surface.faces, RESOLUTION)
    faces = connect(coords, flags)
    tokens = np.unique(coords // 16, axis=0)
    assert doubts.of_shape(len(tokens), len(coords), len(faces)) == ""
    for side in (32, 64):
        structure = np.unique(coords * side // RESOLUTION, axis=0)
        assert doubts.of_structure(structure, side) == ""


def test_noise_and_solids_do() -> None:
    # What is noise at 64 is nearly full at 32
    assert "fills 99%" in doubts.of_structure(np.unique(_noise(64, 0.45) // 2, axis=0), 32)
    assert "only 5 of 32" in doubts.of_structure(_noise(5, 1.0) + 3, 32)
    scattered = _noise(32, 0.2)
    faces = connect(scattered, RANDOM.random((len(scattered), 3)) < 0.5)
    assert "scattered" in doubts.of_shape(len(scattered) // 250, len(scattered), len(faces))
    assert "solid" in doubts.of_shape(10, 40_000, 80_000)


def test_numbers_are_looked_at() -> None:
    latent = RANDOM.normal(size=(5000, 32)).astype(np.float32)
    assert doubts.of_latent(latent, "shape") == ""
    for wrong in (latent * 5, latent * 0.1):
        assert "numbers of the shape spread by" in doubts.of_latent(wrong, "shape")
    colours = np.clip(RANDOM.normal(0.5, 0.5, (5000, 6)), -0.1, 1.1)
    assert doubts.of_texture(doubts.wild(colours)) == ""
    assert "values are none" in doubts.of_texture(doubts.wild(colours * 3))


def test_a_surface_of_crumbs_is_not_reduced_to_one_in_silence() -> None:
    crumb = 1 / 1024
    places = RANDOM.uniform(-0.4, 0.4, (3000, 3)).astype(np.float32)
    corners = np.array([[0, 0, 0], [crumb, 0, 0], [0, crumb, 0]], np.float32)
    points = (places[:, None] + corners).reshape(-1, 3)
    options = MeshOptions(decimation_target=1000, texture_size=64, remesh=False, resolution=512)
    said: list[str] = []

    def made(*surfaces: Surface) -> list[str]:
        said.clear()
        whole = shapes.together(*surfaces)
        finish(whole, None, options, lambda *_: None, doubt=said.append)
        return [words for words in said if words]

    crumbs = shapes.surface(points, np.arange(len(points)).reshape(-1, 3))
    (words,) = made(crumbs)
    assert "100% of the surface were loose crumbs" in words
    assert made(crumbs, shapes.sphere(20)) == []


def test_what_is_suspect_is_said_beside_the_model_also_when_it_comes_from_the_cache(
    tmp_path: Path,
) -> None:
    """Nothing of random weights is a surface."""
    studio = Studio(tmp_path)
    for _ in range(2):
        made = studio.make()
        scattered, wild, *_ = made.extras["doubts"]
        assert "scattered voxels" in scattered and "texture" in wild
        said = [report.message for report in made.reports]
        assert {scattered, wild, doubts.ADVICE} <= set(said)

# SPDX-License-Identifier: GPL-3.0-or-later
"""Sampling sparse attributes: against the golden vector, at the rims, where nothing is, in parts."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the golden vectors are read with torch")

from blender_trellis.sidecar.engines.trellis2 import volume  # noqa: E402
from blender_trellis.sidecar.engines.trellis2.volume import (  # noqa: E402
    Index,
    Volume,
    pack,
    unpack,
)
from trellis2.vectors import Vector  # noqa: E402


@pytest.mark.parametrize("at_once", [2**17, 30])
def test_samples_are_the_official_ones(at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(volume, "_AT_ONCE", at_once)
    vector = Vector.read("grid_sample")
    coords, attributes, query = (vector.inputs[key].numpy() for key in ("coords", "attrs", "query"))
    side = vector.json["grid"]
    sampled = Volume(coords[:, 1:], attributes, side)(query[0].astype(np.float64) / side - 0.5)
    assert sampled.dtype == np.float32
    vector.close(sampled[None], "trilinear")


@pytest.mark.parametrize("side", [16, 1536])
def test_voxels_are_read_at_their_middles_and_mixed_between(side: int) -> None:
    last = side - 1
    coords = np.array([[last, last, last], [0, 0, 0], [last, last, last - 1]], np.int32)
    values = np.array([[1, 10], [2, 20], [3, 30]], np.float32)
    field = Volume(coords, values, side)
    middles = (coords + 0.5) / side - 0.5
    np.testing.assert_allclose(field(middles), values, rtol=1e-5)
    between = 0.75 * middles[0] + 0.25 * middles[2]
    np.testing.assert_allclose(field(between[None]), [[1.5, 15]], rtol=1e-5)


def test_absent_voxels_do_not_darken_their_neighbours() -> None:
    field = Volume(np.array([[5, 5, 5]]), np.array([[0.25]]), 16)
    around = (5.5 + np.array([[0.9, 0, 0], [-0.9, 0.9, -0.9], [0.1, 0.2, 0.3]])) / 16 - 0.5
    np.testing.assert_allclose(field(around), 0.25, rtol=1e-6)


def test_far_from_all_voxels_there_is_nothing() -> None:
    field = Volume(np.array([[0, 0, 0], [15, 15, 15]]), np.ones((2, 3)), 16)
    far = np.array([[0, 0, 0], [-9, -9, -9], [1e9, 0, 0], [-0.5, 0.5, -0.5]], np.float64)
    assert not field(far).any()
    nothing = Volume(np.empty((0, 3), np.int32), np.empty((0, 6)), 16)
    assert not nothing(far).any()
    assert nothing(far).shape == (4, 6)
    assert field(np.empty((0, 3))).shape == (0, 3)


def test_voxels_are_found_whatever_their_order() -> None:
    random = np.random.default_rng(1)
    coords = np.unique(random.integers(0, 1536, (2000, 3)), axis=0)
    assert np.array_equal(unpack(np.sort(pack(random.permutation(coords)))), coords)
    shuffled = random.permutation(coords)
    assert Index(shuffled).find(coords[:500]).tolist() == [
        int(np.flatnonzero((shuffled == voxel).all(1))[0]) for voxel in coords[:500]
    ]
    rim = np.array([[0, 0, 0], [0, 0, 1535], [0, 1, 0]])
    assert Index(rim).find(rim - np.array([0, 0, 1])).tolist() == [-1, -1, -1]
    assert Index(rim).find(rim + np.array([0, 0, 1])).tolist() == [-1, -1, -1]

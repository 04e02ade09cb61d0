# SPDX-License-Identifier: GPL-3.0-or-later
"""The engine's blocks against the golden vectors of TRELLIS v1, whose networks `v1_networks` composes of them."""

from __future__ import annotations

from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="the local engine needs torch")

from trellis2.v1_networks import MeshDecoder, SlatFlow, StructureFlow, weights  # noqa: E402
from trellis2.vectors import Vector  # noqa: E402

torch.set_num_threads(1)


def _model(cls: type[Any], vector: Vector) -> Any:
    model = cls(**vector.config["args"])
    model.load_state_dict(weights(vector.json["params"]), strict=True)
    return model


def _time_and_condition(vector: Vector) -> tuple[float, torch.Tensor]:
    return vector.inputs["t"].item() / 1000, vector.inputs["cond"]


def test_the_structure_flow_of_v1_answers_like_the_official_one() -> None:
    vector = Vector.read("v1_ss_flow")
    flow = _model(StructureFlow, vector)
    vector.close(flow(vector.inputs["x"], *_time_and_condition(vector)), "y")


def test_the_latent_flow_of_v1_answers_like_the_official_one() -> None:
    vector = Vector.read("v1_slat_flow")
    flow = _model(SlatFlow, vector)
    coords = vector.inputs["coords"][:, 1:]
    vector.close(flow(vector.inputs["feats"], coords, *_time_and_condition(vector)), "feats")


def test_the_mesh_decoder_of_v1_answers_like_the_official_one() -> None:
    vector = Vector.read("v1_mesh_decoder")
    decoder = _model(MeshDecoder, vector)
    coords, head = decoder(vector.inputs["feats"], vector.inputs["coords"][:, 1:])
    assert coords.dtype == torch.int32
    assert torch.equal(coords, vector.outputs["coords"][:, 1:].int())
    vector.close(head[vector.outputs["rows"]], "head_rows")

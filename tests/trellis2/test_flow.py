# SPDX-License-Identifier: GPL-3.0-or-later
"""The diffusion transformers against the golden vectors, and at their full size."""

from __future__ import annotations

from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="the local engine needs torch")

from blender_trellis.sidecar.engines.stages import EngineError  # noqa: E402
from blender_trellis.sidecar.engines.trellis2.dit import (  # noqa: E402
    SlatFlow,
    StructureFlow,
    rotation,
)
from trellis2.vectors import Vector  # noqa: E402

torch.set_num_threads(1)

FULL: dict[str, Any] = {
    "resolution": 32,
    "in_channels": 32,
    "out_channels": 32,
    "model_channels": 1536,
    "cond_channels": 1024,
    "num_blocks": 30,
    "num_heads": 12,
    "mlp_ratio": 5.3334,
    "pe_mode": "rope",
    "share_mod": True,
    "initialization": "scaled",
    "qk_rms_norm": True,
    "qk_rms_norm_cross": True,
    "dtype": "bfloat16",
}


def _structure(vector: Vector) -> StructureFlow:
    flow = StructureFlow(**vector.config["args"])
    flow.load_state_dict(vector.weights, strict=True)
    return flow


def _slat(vector: Vector) -> SlatFlow:
    flow = SlatFlow(**vector.config["args"])
    flow.load_state_dict(vector.weights, strict=True)
    return flow


def _each(
    flow: StructureFlow, vector: Vector, condition: torch.Tensor | None = None
) -> torch.Tensor:
    """The flow's answers to all of the vector's samples."""
    x, times = vector.inputs["x"], (vector.inputs["t"] / 1000).tolist()
    condition = vector.inputs["cond"] if condition is None else condition
    return torch.cat([flow(x[i : i + 1], t, condition[i : i + 1]) for i, t in enumerate(times)])


def _slat_each(flow: SlatFlow, vector: Vector) -> torch.Tensor:
    inputs = vector.inputs
    owner, coords = inputs["coords"][:, 0], inputs["coords"][:, 1:]
    answers = []
    for i, t in enumerate((inputs["t"] / 1000).tolist()):
        own = owner == i
        concat = inputs["concat"][own] if "concat" in inputs else None
        condition = inputs["cond"][i : i + 1]
        answers.append(flow(inputs["feats"][own], coords[own], t, condition, concat))
    return torch.cat(answers)


def test_the_structure_flow_answers_like_the_official_one() -> None:
    vector = Vector.read("ss_flow")
    vector.close(_each(_structure(vector), vector), "y")


def test_a_condition_of_zeros_still_passes_through_the_network() -> None:
    vector = Vector.read("ss_flow")
    nothing = torch.zeros_like(vector.inputs["cond"])
    vector.close(_each(_structure(vector), vector, nothing), "y_zero_cond", rule="y")


def test_time_is_embedded_like_the_official_one() -> None:
    vector = Vector.read("ss_flow")
    embedder = _structure(vector).t_embedder
    times = (vector.inputs["t"] / 1000).tolist()
    vector.close(torch.cat([embedder(t) for t in times]).detach(), "t_emb", rule="y")


def test_position_turns_pairs_like_the_official_table() -> None:
    vector = Vector.read("ss_flow")
    args = vector.config["args"]
    side = torch.arange(args["resolution"])
    coords = torch.cartesian_prod(side, side, side)
    cosine, sine = rotation(coords, args["model_channels"] // args["num_heads"])
    vector.close(cosine, "rope_re", rule="y")
    vector.close(sine, "rope_im", rule="y")


def test_heads_of_128_have_21_frequencies_an_axis_and_a_pair_that_never_turns() -> None:
    cosine, sine = rotation(torch.tensor([[47, 0, 0], [0, 63, 0], [0, 0, 95]]), 128)
    turning = sine != 0
    assert turning.sum(1).tolist() == [21, 21, 21]
    assert turning.any(0).tolist() == [True] * 63 + [False]
    assert (cosine[:, 63] == 1).all()


def test_the_torso_in_bfloat16_stays_near_the_official_one() -> None:
    vector = Vector.read("ss_flow")
    flow = _structure(vector)
    flow.to_torso(torch.bfloat16)
    answer = _each(flow, vector)
    assert answer.dtype == torch.float32
    vector.close(answer, "y_bf16torso")
    assert not torch.equal(answer, _each(_structure(vector), vector))


def test_only_the_linear_layers_of_the_blocks_leave_float32() -> None:
    flow = _structure(Vector.read("ss_flow")).to(torch.float16)
    flow.to_torso(torch.bfloat16)
    low = {name for name, value in flow.state_dict().items() if value.dtype == torch.bfloat16}
    linears = ("self_attn.to_qkv", "self_attn.to_out", "cross_attn.to_q", "cross_attn.to_kv")
    linears = (*linears, "cross_attn.to_out", "mlp.mlp.0", "mlp.mlp.2")
    assert low == {
        f"blocks.{block}.{linear}.{kind}"
        for block in range(2)
        for linear in linears
        for kind in ("weight", "bias")
    }
    assert {value.dtype for name, value in flow.state_dict().items() if name not in low} == {
        torch.float32
    }


@pytest.mark.parametrize("name", ["slat_flow_shape", "slat_flow_tex"])
def test_the_latent_flows_answer_like_the_official_ones(name: str) -> None:
    vector = Vector.read(name)
    vector.close(_slat_each(_slat(vector), vector), "feats")


@pytest.mark.parametrize("rows", [1, 5, 8, 1000])
def test_rows_in_parts_give_the_same(rows: int) -> None:
    vector = Vector.read("slat_flow_shape")
    flow = _slat(vector)
    whole = _slat_each(flow, vector)
    flow.rows = rows
    torch.testing.assert_close(_slat_each(flow, vector), whole, atol=2e-6, rtol=0)


def test_the_input_is_left_as_it_was() -> None:
    vector = Vector.read("ss_flow")
    before = {name: value.clone() for name, value in vector.inputs.items()}
    _each(_structure(vector), vector)
    assert all(torch.equal(value, before[name]) for name, value in vector.inputs.items())


def test_check_is_called_before_every_block_and_may_end_the_run() -> None:
    class EndedError(Exception):
        pass

    vector = Vector.read("ss_flow")
    flow = _structure(vector)
    events: list[str] = []
    flow.check = lambda: events.append("check")
    for block in flow.blocks:
        block.register_forward_pre_hook(lambda *_: events.append("block"))
    x, condition = vector.inputs["x"][:1], vector.inputs["cond"][:1]
    flow(x, 1.0, condition)
    assert events == ["check", "block"] * 2

    def end() -> None:
        events.append("check")
        if events.count("check") == 2:
            raise EndedError

    events.clear()
    flow.check = end
    with pytest.raises(EndedError):
        flow(x, 1.0, condition)
    assert events == ["check", "block", "check"]


@pytest.mark.parametrize(
    ("kind", "different", "millions"),
    [
        (StructureFlow, {"resolution": 16, "in_channels": 8, "out_channels": 8}, 1292.2),
        (SlatFlow, {}, 1292.3),
        (SlatFlow, {"in_channels": 64}, 1292.3),
    ],
    ids=["structure", "shape", "texture"],
)
def test_networks_of_full_size_have_the_published_keys(
    kind: type[StructureFlow | SlatFlow], different: dict[str, int], millions: float
) -> None:
    with torch.device("meta"):
        flow = kind(**FULL | different)
    flow.to_torso(torch.bfloat16)
    state = flow.state_dict()
    linears = ["self_attn.to_qkv", "self_attn.to_out", "cross_attn.to_q", "cross_attn.to_kv"]
    linears += ["cross_attn.to_out", "mlp.mlp.0", "mlp.mlp.2", "norm2"]
    gammas = [f"{of}_attn.{qk}_rms_norm.gamma" for of in ("self", "cross") for qk in "qk"]
    of_block = [f"{name}.{part}" for name in linears for part in ("weight", "bias")]
    of_block += ["modulation", *gammas]
    around = ["t_embedder.mlp.0", "t_embedder.mlp.2", "adaLN_modulation.1"]
    around += ["input_layer", "out_layer"]
    expected = {f"{name}.{part}" for name in around for part in ("weight", "bias")}
    expected |= {f"blocks.{block}.{name}" for block in range(30) for name in of_block}
    assert set(state) == expected
    assert len(state) == 640
    assert round(sum(value.numel() for value in state.values()) / 1e6, 1) == millions
    assert list(state["blocks.29.modulation"].shape) == [9216]
    assert list(state["adaLN_modulation.1.weight"].shape) == [9216, 1536]
    assert list(state["blocks.0.self_attn.q_rms_norm.gamma"].shape) == [12, 128]
    assert list(state["blocks.0.mlp.mlp.0.weight"].shape) == [8192, 1536]


@pytest.mark.parametrize(
    "other", [{"pe_mode": "ape"}, {"share_mod": False}, {"rope_freq": [1.0, 100.0]}]
)
def test_a_network_of_another_kind_is_refused(other: dict[str, object]) -> None:
    args = Vector.read("ss_flow").config["args"] | other
    with pytest.raises(EngineError, match=next(iter(other))):
        StructureFlow(**args)

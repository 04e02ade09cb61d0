# SPDX-License-Identifier: GPL-3.0-or-later
"""DINOv3 against its golden vector, with weights named in each of the ways in which they are published."""

from __future__ import annotations

import re

import pytest

torch = pytest.importorskip("torch", reason="the local engine needs torch")

from blender_trellis.sidecar.engines.stages import EngineError  # noqa: E402
from blender_trellis.sidecar.engines.trellis2.dinov3 import (  # noqa: E402
    DinoV3,
    convert,
    rotation,
)
from trellis2.vectors import Vector  # noqa: E402

torch.set_num_threads(1)

State = dict[str, torch.Tensor]


def _model(vector: Vector, state: State) -> DinoV3:
    model = DinoV3(**vector.config)
    model.load_state_dict(convert(state), strict=True)
    return model


def _as_timm(state: State, biases: bool) -> State:
    """The same weights as timm names them: queries, keys and values in one matrix, biases in its models "qkvb" alone."""
    timm = {
        "cls_token": state["embeddings.cls_token"],
        "reg_token": state["embeddings.register_tokens"],
        "patch_embed.proj.weight": state["embeddings.patch_embeddings.weight"],
        "patch_embed.proj.bias": state["embeddings.patch_embeddings.bias"],
        "norm.weight": state["norm.weight"],
        "norm.bias": state["norm.bias"],
    }
    for n in range(2):
        ours, theirs = f"layer.{n}", f"blocks.{n}"
        if biases:
            timm[f"{theirs}.attn.q_bias"] = state[f"{ours}.attention.q_proj.bias"]
            timm[f"{theirs}.attn.v_bias"] = state[f"{ours}.attention.v_proj.bias"]
        timm[f"{theirs}.attn.qkv.weight"] = torch.cat(
            [state[f"{ours}.attention.{part}_proj.weight"] for part in "qkv"]
        )
        timm[f"{theirs}.gamma_1"] = state[f"{ours}.layer_scale1.lambda1"]
        timm[f"{theirs}.gamma_2"] = state[f"{ours}.layer_scale2.lambda1"]
        for kind in ("weight", "bias"):
            timm[f"{theirs}.attn.proj.{kind}"] = state[f"{ours}.attention.o_proj.{kind}"]
            timm[f"{theirs}.norm1.{kind}"] = state[f"{ours}.norm1.{kind}"]
            timm[f"{theirs}.norm2.{kind}"] = state[f"{ours}.norm2.{kind}"]
            timm[f"{theirs}.mlp.fc1.{kind}"] = state[f"{ours}.mlp.up_proj.{kind}"]
            timm[f"{theirs}.mlp.fc2.{kind}"] = state[f"{ours}.mlp.down_proj.{kind}"]
    return timm


def test_features_are_the_official_ones() -> None:
    vector = Vector.read("dinov3")
    model = _model(vector, vector.weights)
    pixels = vector.inputs["pixels"]
    vector.close(model.embeddings(pixels).detach(), "embed")
    vector.close(model(pixels), "features")


def test_position_turns_heads_like_the_official_table() -> None:
    vector = Vector.read("dinov3")
    cosine, sine = rotation(4, 3, 32, 100.0)
    vector.close(cosine, "rope_cos")
    vector.close(sine, "rope_sin")


def test_names_of_transformers_5_are_taken() -> None:
    vector = Vector.read("dinov3")
    renamed = {re.sub("^layer", "model.layer", key): value for key, value in vector.weights.items()}
    assert "model.layer.0.norm1.weight" in renamed
    vector.close(_model(vector, renamed)(vector.inputs["pixels"]), "features")


def test_timms_names_with_biases_give_the_same() -> None:
    vector = Vector.read("dinov3")
    timm = _as_timm(vector.weights, biases=True)
    vector.close(_model(vector, timm)(vector.inputs["pixels"]), "features")
    assert convert(timm).keys() == convert(vector.weights).keys()


def test_timms_names_without_biases_are_taken_for_biases_of_zero() -> None:
    vector = Vector.read("dinov3")
    biases = re.compile(r"\.[qv]_proj\.bias$")
    zeroed = {
        key: torch.zeros_like(value) if biases.search(key) else value
        for key, value in vector.weights.items()
    }
    pixels = vector.inputs["pixels"]
    expected = _model(vector, zeroed)(pixels)
    assert not torch.allclose(expected, vector.outputs["features"], atol=1e-3)
    actual = _model(vector, _as_timm(vector.weights, biases=False))(pixels)
    torch.testing.assert_close(actual, expected, atol=0, rtol=0)


def test_a_foreign_key_is_not_swallowed() -> None:
    vector = Vector.read("dinov3")
    for state in (vector.weights, _as_timm(vector.weights, biases=True)):
        strange = convert(state | {"blocks.0.mlp.fc3.weight": torch.zeros(1)})
        with pytest.raises(RuntimeError, match="fc3"):
            DinoV3(**vector.config).load_state_dict(strange, strict=True)


def test_without_arguments_it_is_the_network_that_trellis_2_uses() -> None:
    with torch.device("meta"):
        model = DinoV3()
    state = model.state_dict()
    assert round(sum(value.numel() for value in state.values()) / 1e6) == 303
    assert "layer.23.mlp.down_proj.bias" in state
    assert "layer.24.norm1.weight" not in state


def test_check_is_called_before_every_layer() -> None:
    vector = Vector.read("dinov3")
    model = _model(vector, vector.weights)
    calls: list[str] = []
    model.check = lambda: calls.append("check")
    for layer in model.layer:
        layer.register_forward_pre_hook(lambda *_: calls.append("layer"))
    model(vector.inputs["pixels"])
    assert calls == ["check", "layer"] * 2


def test_a_gated_mlp_is_refused() -> None:
    with pytest.raises(EngineError, match="ViT-L/16"):
        DinoV3(**Vector.read("dinov3").config | {"use_gated_mlp": True})

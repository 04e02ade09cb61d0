# SPDX-License-Identifier: GPL-3.0-or-later
"""Loading a checkpoint: strict, with words that name file and key; LoRAs merged on the way."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="TRELLIS.2's engine needs torch")

from safetensors.torch import load_file, save_file  # noqa: E402

from blender_trellis.sidecar.engines.stages import EngineError  # noqa: E402
from blender_trellis.sidecar.engines.trellis2.weights import Checkpoint, Lora  # noqa: E402
from trellis2 import checkpoint  # noqa: E402

FLOW, DECODER = "shape_slat_flow_model_512", "shape_slat_decoder"
CPU = torch.device("cpu")
LAYER = "blocks.0.self_attn.to_qkv"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return checkpoint.write(tmp_path_factory.mktemp("weights"))


def _changed(folder: Path, model: str, change: Any) -> Path:
    """A checkpoint of its own, with a network's tensors changed."""
    path = checkpoint.path_of(checkpoint.write(folder), model)
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path)
    return path


@pytest.mark.parametrize("model", list(checkpoint.STEMS))
def test_every_network_has_the_files_weights(whole: Path, model: str) -> None:
    network = Checkpoint(whole).load(model, CPU)
    expected = load_file(checkpoint.path_of(whole, model))
    assert network.state_dict().keys() == expected.keys()
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, expected[name].to(tensor.dtype)), name
        assert not tensor.requires_grad


def test_weights_of_another_repository_lie_in_its_folder_or_beside_the_others(
    tmp_path: Path,
) -> None:
    folder = checkpoint.write(tmp_path)
    path = checkpoint.path_of(folder, "sparse_structure_decoder")
    assert path.is_relative_to(folder / "microsoft--TRELLIS-image-large")
    Checkpoint(folder).load("sparse_structure_decoder", CPU)
    for end in (".json", ".safetensors"):
        path.with_suffix(end).rename(folder / "ckpts" / path.with_suffix(end).name)
    Checkpoint(folder).load("sparse_structure_decoder", CPU)


def test_low_precision_is_the_torsos_alone(whole: Path) -> None:
    network = Checkpoint(whole).load(FLOW, CPU, torch.bfloat16)
    kinds = {name: tensor.dtype for name, tensor in network.state_dict().items()}
    assert kinds[f"{LAYER}.weight"] is torch.bfloat16
    assert kinds["input_layer.weight"] is kinds["blocks.0.modulation"] is torch.float32


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="tells its maps on Linux alone")
def test_a_weight_in_the_right_precision_is_not_copied(tmp_path: Path) -> None:
    """It stays in the mapped file, and costs no memory of its own."""

    def float32(tensors: dict[str, Any]) -> None:
        tensors.update({name: tensor.float() for name, tensor in tensors.items()})

    path = _changed(tmp_path, FLOW, float32)
    network = Checkpoint(tmp_path).load(FLOW, CPU)
    maps = [line.split() for line in Path("/proc/self/maps").read_text("utf-8").splitlines()]
    spans = [line[0].split("-") for line in maps if line[-1] == str(path)]
    mapped = [range(int(low, 16), int(high, 16)) for low, high in spans]
    assert mapped
    for name, tensor in network.state_dict().items():
        assert any(tensor.data_ptr() in span for span in mapped), name


def _rename(tensors: dict[str, Any]) -> None:
    tensors["blocks.0.0.conv.conv.weight"] = tensors.pop("blocks.0.0.conv.weight")


def _drop(tensors: dict[str, Any]) -> None:
    del tensors["output_layer.bias"]


def _reshape(tensors: dict[str, Any]) -> None:
    tensors["from_latent.bias"] = tensors["from_latent.bias"][:-1].clone()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            _rename,
            ["'blocks.0.0.conv.weight' is missing", "'blocks.0.0.conv.conv.weight' is not known"],
        ),
        (_drop, ["'output_layer.bias' is missing"]),
        (_reshape, ["'from_latent.bias' has the shape (15,), not (16,)"]),
    ],
)
def test_a_key_that_does_not_fit_is_named_with_its_file(
    tmp_path: Path, change: Any, said: list[str]
) -> None:
    path = _changed(tmp_path, DECODER, change)
    with pytest.raises(EngineError) as caught:
        Checkpoint(tmp_path).load(DECODER, CPU)
    for words in (*said, str(path)):
        assert words in str(caught.value)


def test_weights_are_kept_as_they_are_stored_where_float32_is_computed(
    whole: Path, tmp_path: Path
) -> None:
    """A GPU without bfloat16 has little memory besides; the numbers are the same."""

    def halve(tensors: dict[str, Any]) -> None:
        tensors |= {name: tensor.half() for name, tensor in tensors.items()}

    _changed(tmp_path, FLOW, halve)
    kept, wide = (Checkpoint(folder).load(FLOW, CPU) for folder in (tmp_path, whole))
    torso = {name for name, each in kept.state_dict().items() if each.dtype == torch.float16}
    assert {"blocks.0.mlp.mlp.0.weight", "blocks.0.self_attn.to_qkv.bias"} <= torso
    assert all(name.startswith("blocks.") and "norm" not in name for name in torso)
    coords = torch.arange(15, dtype=torch.int32).view(5, 3)
    feats, seen = torch.randn(5, wide.input_layer.in_features), torch.randn(1, 7, 16)
    assert torch.equal(kept(feats, coords, 0.5, seen), wide(feats, coords, 0.5, seen))


def test_the_computed_table_of_angles_may_be_in_a_file(tmp_path: Path) -> None:
    def add(tensors: dict[str, Any]) -> None:
        tensors["rope_phases"] = torch.zeros(3)

    _changed(tmp_path, "sparse_structure_flow_model", add)
    Checkpoint(tmp_path).load("sparse_structure_flow_model", CPU)


def test_what_is_missing_or_broken_is_named(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match=r"pipeline\.json is not there"):
        Checkpoint(tmp_path)
    path = checkpoint.path_of(checkpoint.write(tmp_path), FLOW)
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(EngineError, match=path.name):
        Checkpoint(tmp_path).load(FLOW, CPU)
    path.unlink()
    with pytest.raises(EngineError, match=f"{path.name} is not there"):
        Checkpoint(tmp_path).identity([FLOW])
    path.with_suffix(".json").write_text(json.dumps({"name": "Other", "args": {}}), "utf-8")
    with pytest.raises(EngineError, match="describes a Other"):
        Checkpoint(tmp_path).load(FLOW, CPU)


def _lora(path: Path, names: tuple[str, str], **more: Any) -> tuple[Any, Any]:
    """A LoRA of rank 2 for LAYER (96, 32), with its two keys."""
    down, up = torch.randn(2, 32), torch.randn(96, 2)
    save_file({names[0]: down, names[1]: up, **more}, path)
    return down, up


@pytest.mark.parametrize(
    ("names", "more", "strength"),
    [
        (("lora_A.weight", "lora_B.weight"), {}, 1.0),
        (("lora_A.default.weight", "lora_B.default.weight"), {}, 1.0),
        (("lora_down.weight", "lora_up.weight"), {}, 1.0),
        (("lora_down.weight", "lora_up.weight"), {f"{LAYER}.alpha": torch.tensor(8.0)}, 4.0),
    ],
)
@pytest.mark.parametrize("before", ["", "base_model.model.", "diffusion_model."])
def test_a_lora_is_added_to_the_weights(
    whole: Path,
    tmp_path: Path,
    names: tuple[str, str],
    more: dict[str, Any],
    strength: float,
    before: str,
) -> None:
    path = tmp_path / "style.safetensors"
    down, up = _lora(path, (f"{before}{LAYER}.{names[0]}", f"{before}{LAYER}.{names[1]}"), **more)
    plain = Checkpoint(whole).load(FLOW, CPU).state_dict()
    lora = Lora.read(path, 0.5)
    lora.check(Checkpoint(whole).blueprint(FLOW))
    merged = Checkpoint(whole).load(FLOW, CPU, loras=[lora]).state_dict()
    for name, tensor in merged.items():
        expected = plain[name]
        if name == f"{LAYER}.weight":
            expected = expected + 0.5 * strength * (up @ down)
        torch.testing.assert_close(tensor, expected, atol=1e-6, rtol=1e-6)


def test_a_lora_is_merged_before_the_precision_is_lowered(whole: Path, tmp_path: Path) -> None:
    path = tmp_path / "style.safetensors"
    down, up = _lora(path, (f"{LAYER}.lora_A.weight", f"{LAYER}.lora_B.weight"))
    exact = Checkpoint(whole).load(FLOW, CPU).state_dict()[f"{LAYER}.weight"] + 0.01 * (up @ down)
    network = Checkpoint(whole).load(FLOW, CPU, torch.bfloat16, [Lora.read(path, 0.01)])
    assert torch.equal(network.state_dict()[f"{LAYER}.weight"], exact.bfloat16())


@pytest.mark.parametrize(
    ("tensors", "named"),
    [
        (
            {
                "blocks.9.mlp.mlp.0.lora_A.weight": (2, 32),
                "blocks.9.mlp.mlp.0.lora_B.weight": (64, 2),
            },
            "blocks.9.mlp.mlp.0",
        ),
        (
            {"blocks.0.norm2.lora_A.weight": (2, 32), "blocks.0.norm2.lora_B.weight": (32, 2)},
            "blocks.0.norm2",
        ),
        ({f"{LAYER}.lora_A.weight": (2, 31), f"{LAYER}.lora_B.weight": (96, 2)}, LAYER),
        ({f"{LAYER}.lora_A.weight": (2, 32), f"{LAYER}.lora_B.weight": (96, 3)}, LAYER),
        ({f"{LAYER}.lora_A.weight": (2, 32)}, LAYER),
        ({f"{LAYER}.lora_A.weight": (32,), f"{LAYER}.lora_B.weight": (96, 2)}, LAYER),
        ({f"{LAYER}.lora_A.weight": (0, 32), f"{LAYER}.lora_B.weight": (96, 0)}, LAYER),
        ({f"{LAYER}.weight": (96, 32)}, f"{LAYER}.weight"),
    ],
)
def test_a_lora_that_does_not_fit_is_refused_by_its_key(
    whole: Path, tmp_path: Path, tensors: dict[str, tuple[int, int]], named: str
) -> None:
    path = tmp_path / "style.safetensors"
    save_file({name: torch.zeros(shape) for name, shape in tensors.items()}, path)
    with pytest.raises(EngineError) as caught:
        Lora.read(path, 1.0, "geometry_lora_path").check(
            Checkpoint(whole).blueprint(FLOW), "geometry_lora_path"
        )
    assert repr(named) in str(caught.value) and str(path) in str(caught.value)
    assert caught.value.field == "geometry_lora_path"

# SPDX-License-Identifier: GPL-3.0-or-later
"""A tiny checkpoint in the official layout: the golden vectors' networks, and random ones where they have none.

Import this only after `pytest.importorskip("torch")`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from blender_trellis.sidecar.engines.trellis2.dinov3 import DinoV3
from blender_trellis.sidecar.engines.trellis2.vae import ShapeEncoder
from trellis2.vectors import Vector

STEMS = {
    "sparse_structure_flow_model": "ckpts/ss_flow_img_dit_1_3B_64_bf16",
    "sparse_structure_decoder": "microsoft/TRELLIS-image-large/ckpts/ss_dec_conv3d_16l8_fp16",
    "shape_slat_flow_model_512": "ckpts/slat_flow_img2shape_dit_1_3B_512_bf16",
    "shape_slat_flow_model_1024": "ckpts/slat_flow_img2shape_dit_1_3B_1024_bf16",
    "shape_slat_decoder": "ckpts/shape_dec_next_dc_f16c32_fp16",
    "shape_slat_encoder": "ckpts/shape_enc_next_dc_f16c32_fp16",
    "tex_slat_flow_model_512": "ckpts/slat_flow_imgshape2tex_dit_1_3B_512_bf16",
    "tex_slat_flow_model_1024": "ckpts/slat_flow_imgshape2tex_dit_1_3B_1024_bf16",
    "tex_slat_decoder": "ckpts/tex_dec_next_dc_f16c32_fp16",
}
DINO = "facebook/dinov3-vitl16-pretrain-lvd1689m"
_DINO_CONFIG = {
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_register_tokens": 4,
    "patch_size": 16,
}
_ENCODER = {
    "model_channels": [8, 8, 8, 8, 16],
    "latent_channels": 8,
    "num_blocks": [0, 0, 0, 0, 1],
}


def path_of(folder: Path, model: str) -> Path:
    """The weights of a network."""
    stem = STEMS[model].replace("microsoft/TRELLIS-image-large/", "microsoft--TRELLIS-image-large/")
    return folder / f"{stem}.safetensors"


def write(folder: Path) -> Path:
    """Make the checkpoint in `folder`, which is returned."""
    vector = Vector.read("pipeline_e2e")
    for model, config in vector.config.items():
        prefix = f"{model}."
        weights = {
            key.removeprefix(prefix): tensor
            for key, tensor in vector.weights.items()
            if key.startswith(prefix)
        }
        _save(path_of(folder, model), weights, config)
    encoder = {"name": "FlexiDualGridVaeEncoder", "args": _ENCODER}
    _save(path_of(folder, "shape_slat_encoder"), _random(ShapeEncoder(**_ENCODER)), encoder)  # type: ignore[arg-type]
    dino = folder / DINO.replace("/", "--") / "model.safetensors"
    _save(dino, _random(DinoV3(**_DINO_CONFIG)))  # type: ignore[arg-type]
    dino.with_name("config.json").write_text(json.dumps(_DINO_CONFIG), encoding="utf-8")
    args = {
        "models": STEMS,
        "image_cond_model": {"name": "DinoV3FeatureExtractor", "args": {"model_name": DINO}},
        "shape_slat_normalization": vector.json["shape_slat_normalization"],
        "tex_slat_normalization": vector.json["tex_slat_normalization"],
    }
    for name in ("pipeline.json", "texturing_pipeline.json"):
        (folder / name).write_text(json.dumps({"name": "Trellis2", "args": args}), encoding="utf-8")
    return folder


def spoil(folder: Path, model: str, key: str, value: float) -> None:
    """Give a network one weight full of `value`."""
    path = path_of(folder, model)
    weights = load_file(path)
    weights[key] = torch.full_like(weights[key], value)
    save_file(weights, path)


def _random(network: torch.nn.Module) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    return {
        name: torch.randn(tensor.shape, generator=generator) / max(tensor[0].numel(), 1) ** 0.5
        for name, tensor in network.state_dict().items()
    }


def _save(path: Path, weights: dict[str, torch.Tensor], config: Any = None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({key: tensor.contiguous() for key, tensor in weights.items()}, path)
    if config:
        path.with_suffix(".json").write_text(json.dumps(config), encoding="utf-8")

# SPDX-License-Identifier: GPL-3.0-or-later
"""The autoencoders against the golden vectors; their full sizes and names; parts, precision, interruption."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="the local engine needs torch")

from blender_trellis.sidecar.engines.trellis2.vae import (  # noqa: E402
    ShapeDecoder,
    ShapeEncoder,
    StructureDecoder,
    TextureDecoder,
    occupied,
    quantise,
)
from blender_trellis.sidecar.engines.trellis2.voxels import children  # noqa: E402
from trellis2.vectors import Vector  # noqa: E402

torch.set_num_threads(1)

ROWS = [None, 50]


def _model(cls: type[Any], vector: Vector, rows: int | None = None) -> Any:
    model = cls(**vector.config["args"])
    model.load_state_dict(vector.weights, strict=True)
    model.rows = rows
    return model


def _coords(tensor: torch.Tensor) -> torch.Tensor:
    """Without the column that counts samples."""
    assert not tensor[:, 0].any()
    return tensor[:, 1:]


def _equal(actual: torch.Tensor, expected: torch.Tensor) -> None:
    assert actual.dtype == torch.int32
    assert torch.equal(actual, _coords(expected))


def _slots(vector: Vector) -> list[torch.Tensor]:
    logits = [vector.inputs[f"sub{level}.logits"] for level in range(4)]
    return [(level.flatten() > 0).nonzero().squeeze(1).int() for level in logits]


def _retexture_input(vector: Vector) -> tuple[torch.Tensor, torch.Tensor]:
    dual, flags = vector.inputs["dual_vertices"], vector.inputs["intersected"]
    return torch.cat([dual, flags.float()], 1) - 0.5, _coords(vector.inputs["coords"])


def test_structure_is_decoded_like_the_official_one() -> None:
    vector = Vector.read("ss_decoder")
    logits = _model(StructureDecoder, vector)(vector.inputs["x"])
    vector.close(logits, "y")
    _equal(occupied(logits), vector.outputs["coords_full"])
    _equal(occupied(logits, pool=2), vector.outputs["coords_pooled"])


def test_a_voxel_is_occupied_above_a_logit_of_zero() -> None:
    logits = torch.full((1, 1, 4, 4, 4), -1.0)
    logits[0, 0, 3, 0, 1] = 0.1
    logits[0, 0, 0, 2, 3] = 5
    logits[0, 0, 1, 1, 1] = 0
    assert occupied(logits).tolist() == [[0, 2, 3], [3, 0, 1]]
    assert occupied(logits, pool=2).tolist() == [[0, 1, 1], [1, 0, 0]]
    assert occupied(torch.zeros(1, 1, 4, 4, 4)).shape == (0, 3)


@pytest.mark.parametrize("rows", ROWS)
def test_shape_is_decoded_like_the_official_one(rows: int | None) -> None:
    vector = Vector.read("shape_decoder")
    model = _model(ShapeDecoder, vector, rows)
    finest, head, subdivisions = model(vector.inputs["feats"], _coords(vector.inputs["coords"]))
    vector.close(head, "head")
    _equal(finest, vector.outputs["coords"])
    coords = _coords(vector.inputs["coords"])
    for level, slots in enumerate(subdivisions):
        _equal(coords, vector.outputs[f"sub{level}.coords"])
        kept = (vector.outputs[f"sub{level}.logits"].flatten() > 0).nonzero().squeeze(1)
        assert torch.equal(slots.long(), kept)
        coords = children(coords, slots)
    assert torch.equal(coords, finest)


def test_subdivision_logits_are_the_official_ones() -> None:
    vector = Vector.read("shape_decoder")
    model, logits = _model(ShapeDecoder, vector), list[torch.Tensor]()
    for level in range(4):
        layer = model.blocks[level][-1].to_subdiv
        layer.register_forward_hook(lambda _module, _args, output: logits.append(output))
    model(vector.inputs["feats"], _coords(vector.inputs["coords"]))
    for level, found in enumerate(logits):
        vector.close(found, f"sub{level}.logits")
    assert len(logits) == 4


@pytest.mark.parametrize("rows", ROWS)
@pytest.mark.parametrize("levels", [2, 4])
def test_upsampling_stops_at_the_official_voxels(levels: int, rows: int | None) -> None:
    vector = Vector.read("shape_decoder")
    model = _model(ShapeDecoder, vector, rows)
    found = model.upsample(vector.inputs["feats"], _coords(vector.inputs["coords"]), levels)
    _equal(found, vector.outputs[f"upsample{levels}_coords"])


@pytest.mark.parametrize("resolution", [1024, 1536])
def test_the_cascade_quantises_like_the_official_one(resolution: int) -> None:
    vector = Vector.read("shape_decoder")
    fine = _coords(vector.outputs["coords"])
    found = quantise(fine, 128, resolution // 4)  # the vector's numbers are toys: resolution // 64
    _equal(found, vector.outputs[f"quant_{resolution}"])


def test_the_cascade_reaches_the_last_voxel_of_each_size() -> None:
    ends = torch.tensor([[511, 511, 511], [0, 511, 0], [511, 510, 509]], dtype=torch.int32)
    for resolution in (1024, 1152, 1280, 1408, 1536):
        last = resolution // 16 - 1
        assert quantise(ends, 512, resolution).tolist() == [[0, last, 0], [last, last, last]]


@pytest.mark.parametrize("rows", ROWS)
def test_texture_is_decoded_like_the_official_one(rows: int | None) -> None:
    vector = Vector.read("tex_decoder")
    model = _model(TextureDecoder, vector, rows)
    coords, slots = _coords(vector.inputs["coords"]), _slots(vector)
    vector.close(model(vector.inputs["feats"], coords, slots), "attrs")
    for level in slots:
        coords = children(coords, level)
    _equal(coords, vector.outputs["coords"])


@pytest.mark.parametrize("rows", ROWS)
def test_a_shape_is_encoded_and_its_voxels_textured_in_their_order(rows: int | None) -> None:
    vector = Vector.read("shape_encoder_retex")
    latent, coords, subdivisions = _model(ShapeEncoder, vector, rows)(*_retexture_input(vector))
    vector.close(latent, "latent")
    _equal(coords, vector.outputs["latent_coords"])
    texture = _model(TextureDecoder, Vector.read("tex_decoder"), rows)
    vector.close(texture(latent, coords, subdivisions), "attrs")
    assert torch.equal(vector.inputs["coords"], vector.outputs["attrs_coords"])


def test_the_order_of_the_encoders_voxels_does_not_matter() -> None:
    vector = Vector.read("shape_encoder_retex")
    feats, coords = _retexture_input(vector)
    model = _model(ShapeEncoder, vector)
    texture = _model(TextureDecoder, Vector.read("tex_decoder"))
    shuffled = torch.randperm(len(coords), generator=torch.Generator().manual_seed(3))
    latent, coarse, subdivisions = model(feats[shuffled], coords[shuffled])
    vector.close(latent, "latent")
    vector.close(texture(latent, coarse, subdivisions)[shuffled.argsort()], "attrs")


def test_no_voxels_and_a_single_one_are_no_error() -> None:
    for count in (0, 1):
        coords = torch.full((count, 3), 7, dtype=torch.int32)
        shape = _model(ShapeDecoder, Vector.read("shape_decoder"))
        finest, head, subdivisions = shape(torch.ones(count, 8), coords)
        assert head.shape == (len(finest), 7)
        texture = _model(TextureDecoder, Vector.read("tex_decoder"))
        assert texture(torch.ones(count, 8), coords, subdivisions).shape == (len(finest), 6)
        encoder = _model(ShapeEncoder, Vector.read("shape_encoder_retex"))
        latent, coarse, subdivisions = encoder(torch.ones(count, 6), coords)
        assert latent.shape == (count, 8)
        assert coarse.tolist() == [[0, 0, 0]] * count
        assert texture(latent, coarse, subdivisions).shape == (count, 6)


SIZES = [1024, 512, 256, 128, 64]
BLOCKS = [4, 16, 8, 4, 0]


def _full(cls: type[Any]) -> Any:
    with torch.device("meta"):
        if cls is StructureDecoder:
            return cls(
                out_channels=1,
                latent_channels=8,
                num_res_blocks=2,
                num_res_blocks_middle=2,
                channels=[512, 128, 32],
                use_fp16=True,
            )
        if cls is ShapeEncoder:
            return cls(
                model_channels=SIZES[::-1],
                latent_channels=32,
                num_blocks=BLOCKS[::-1],
                block_type=["SparseConvNeXtBlock3d"] * 5,
                use_fp16=True,
            )
        output = {"resolution": 256} if cls is ShapeDecoder else {"out_channels": 6}
        return cls(
            model_channels=SIZES,
            latent_channels=32,
            num_blocks=BLOCKS,
            block_type=["SparseConvNeXtBlock3d"] * 5,
            use_fp16=True,
            **output,
        )


AFFINE = r"\.(weight|bias)"
CONVNEXT = rf"(conv|norm|mlp\.[02]){AFFINE}"
DENSE = rf"(norm1|norm2|conv1|conv2){AFFINE}"
NAMES = {
    StructureDecoder: (
        rf"(input_layer|out_layer\.[02]){AFFINE}|(middle_block\.[01]|blocks\.[013467])\.{DENSE}"
        rf"|blocks\.[25]\.conv{AFFINE}"
    ),
    ShapeDecoder: (
        rf"(from_latent|output_layer){AFFINE}|blocks\.\d\.\d+\.({CONVNEXT}|(norm1|conv1|conv2|to_subdiv){AFFINE})"
    ),
    TextureDecoder: (
        rf"(from_latent|output_layer){AFFINE}|blocks\.\d\.\d+\.({CONVNEXT}|(norm1|conv1|conv2){AFFINE})"
    ),
    ShapeEncoder: (
        rf"(input_layer|to_latent){AFFINE}|blocks\.\d\.\d+\.({CONVNEXT}|(norm1|conv1|conv2){AFFINE})"
    ),
}
"""What the official checkpoints call their tensors."""


@pytest.mark.parametrize(
    ("cls", "millions", "tensors"),
    [
        (StructureDecoder, 73.7, 4 + 2 + 8 * 8 + 2 * 2),
        (ShapeDecoder, 474.2, 4 + 32 * 8 + 4 * 8),
        (TextureDecoder, 474.2, 4 + 32 * 8 + 4 * 6),
        (ShapeEncoder, 354.4, 4 + 32 * 8 + 4 * 6),
    ],
)
def test_the_full_size_has_the_official_tensors(
    cls: type[Any], millions: float, tensors: int
) -> None:
    state = _full(cls).state_dict()
    assert round(sum(tensor.numel() for tensor in state.values()) / 1e6, 1) == millions
    assert len(state) == tensors
    assert [name for name in state if not re.fullmatch(NAMES[cls], name)] == []


def test_the_full_shape_decoder_has_the_official_shapes() -> None:
    shapes = {
        name: tuple(tensor.shape) for name, tensor in _full(ShapeDecoder).state_dict().items()
    }
    assert shapes["from_latent.weight"] == (1024, 32)
    assert shapes["output_layer.weight"] == (7, 64)
    assert shapes["blocks.1.15.conv.weight"] == (512, 3, 3, 3, 512)
    assert shapes["blocks.0.3.mlp.0.weight"] == (4096, 1024)
    assert shapes["blocks.0.4.conv1.weight"] == (4096, 3, 3, 3, 1024)
    assert shapes["blocks.3.4.conv2.weight"] == (64, 3, 3, 3, 64)
    assert shapes["blocks.2.8.to_subdiv.weight"] == (8, 256)
    assert not any(name.startswith("blocks.4.") for name in shapes)


@pytest.mark.parametrize("cls", [StructureDecoder, ShapeDecoder, TextureDecoder, ShapeEncoder])
def test_only_products_inside_the_blocks_are_of_low_precision(cls: type[Any]) -> None:
    model = _full(cls)
    model.half()
    model.to_torso(torch.bfloat16)
    for name, parameter in model.named_parameters():
        low = re.match(r"(blocks|middle_block)\.", name) and ".norm" not in name
        assert parameter.dtype == (torch.bfloat16 if low else torch.float32), name


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_low_precision_is_close(dtype: torch.dtype) -> None:
    def apart(actual: torch.Tensor, expected: torch.Tensor) -> float:
        assert actual.dtype == torch.float32
        return ((actual - expected).norm() / (expected - expected.mean()).norm()).item()

    limit = 0.03 if dtype == torch.bfloat16 else 0.004
    vector = Vector.read("ss_decoder")
    structure = _model(StructureDecoder, vector)
    structure.to_torso(dtype)
    assert 0 < apart(structure(vector.inputs["x"]), vector.outputs["y"]) < limit
    vector = Vector.read("shape_encoder_retex")
    encoder, texture = (
        _model(ShapeEncoder, vector),
        _model(TextureDecoder, Vector.read("tex_decoder")),
    )
    encoder.to_torso(dtype)
    texture.to_torso(dtype)
    latent, coords, subdivisions = encoder(*_retexture_input(vector))
    assert 0 < apart(latent, vector.outputs["latent"]) < limit
    assert 0 < apart(texture(latent, coords, subdivisions), vector.outputs["attrs"]) < limit
    shape = _model(ShapeDecoder, Vector.read("shape_decoder"))
    shape.to_torso(dtype)
    assert shape(latent, coords)[1].dtype == torch.float32


class EndedError(Exception):
    pass


def _ending(after: int, called: list[int]) -> Callable[[], None]:
    def check() -> None:
        called.append(1)
        if len(called) > after:
            raise EndedError

    return check


def test_every_block_and_every_part_can_end_the_work() -> None:
    structure, shape = Vector.read("ss_decoder"), Vector.read("shape_decoder")
    model, called = _model(StructureDecoder, structure), list[int]()
    model.check = _ending(99, called)
    model(structure.inputs["x"])
    assert len(called) == 1 + 3 + 2
    inputs = shape.inputs["feats"], _coords(shape.inputs["coords"])
    counts = []
    for rows in (None, 500):
        decoder, called = _model(ShapeDecoder, shape, rows), []
        decoder.check = _ending(9999, called)
        decoder(*inputs)
        counts.append(len(called))
    assert counts[1] > counts[0] >= 4 + 4
    decoder.check = _ending(3, called := [])
    with pytest.raises(EndedError):
        decoder(*inputs)
    assert len(called) == 4

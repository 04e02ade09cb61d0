# SPDX-License-Identifier: GPL-3.0-or-later
"""The networks in their order, from a seed: what the official pipeline makes with the same weights."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="TRELLIS.2's engine needs torch")

from blender_trellis.sidecar.engines.stages import Cancelled, EngineError  # noqa: E402
from blender_trellis.sidecar.engines.trellis2.memory import Effort, Machine  # noqa: E402
from blender_trellis.sidecar.engines.trellis2.pipeline import Drawing, Pipeline  # noqa: E402
from blender_trellis.sidecar.engines.trellis2.sampler import Sampling, forwards  # noqa: E402
from blender_trellis.sidecar.engines.trellis2.weights import Checkpoint  # noqa: E402
from trellis2 import checkpoint, shapes  # noqa: E402
from trellis2.made import computer  # noqa: E402
from trellis2.vectors import Vector  # noqa: E402

torch.set_num_threads(1)
CPU = computer()
VECTOR = Vector.read("pipeline_e2e")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return checkpoint.write(tmp_path_factory.mktemp("weights"))


def _drawing(stage: str, random: Any) -> Drawing:
    given = VECTOR.json["sampler_params"][stage]
    interval = tuple(given["guidance_interval"])
    return Drawing(Sampling(**{**given, "guidance_interval": interval}), "single", random)


def _run(folder: Path, pipeline_type: str, rows: int = 4096) -> dict[str, Any]:
    """What the official `run` does, on the vectors' conditions: their image encoder is left out."""
    effort = Effort(pipeline_type, VECTOR.json["max_num_tokens"], rows)
    pipeline = Pipeline(Checkpoint(folder), CPU, effort)
    random = torch.Generator().manual_seed(VECTOR.json["seed"])
    conditions = {size: [VECTOR.inputs[f"cond_{size}"]] for size in (512, 1024)}
    ss, shape, tex = (_drawing(stage, random) for stage in ("ss", "shape", "tex"))
    structure = pipeline.structure(conditions[512], ss, 64 if pipeline_type == "1024" else 32)
    size = 1024 if pipeline_type == "1024" else 512
    coords, resolution = structure, size
    latent = pipeline.shape(coords, conditions[size], shape, size)
    if "cascade" in pipeline_type:
        wanted = int(pipeline_type.removesuffix("_cascade"))
        coords, resolution = pipeline.cascade(pipeline.upsample(latent, coords), wanted)
        size = 1024
        latent = pipeline.shape(coords, conditions[size], shape, size)
    texture = pipeline.texture(latent, coords, conditions[size], tex, size)
    voxels, vertices, faces = pipeline.decode_shape(latent, coords, resolution)
    attributes = pipeline.decode_texture(texture, coords, voxels.subdivisions)
    return {
        "ss_coords": structure,
        "slat_coords": coords,
        "shape_slat": latent,
        "tex_slat": texture,
        "vertices": vertices,
        "faces": faces,
        "attr_coords": voxels.coords,
        "attrs": attributes,
        "resolution": resolution,
        "forwards": pipeline.forwards,
    }


def _numbered(coords: Any) -> np.ndarray[Any, Any]:
    """With the number of the object in the batch before each, as the official code has it."""
    rows = np.asarray(coords)
    return np.concatenate([np.zeros((len(rows), 1), rows.dtype), rows], 1)


@pytest.mark.parametrize("pipeline_type", ["512", "1024_cascade"])
def test_a_seed_gives_what_it_gives_officially(folder: Path, pipeline_type: str) -> None:
    made = _run(folder, pipeline_type)
    for name in ("ss_coords", "slat_coords"):
        VECTOR.close(_numbered(made[name]), f"{pipeline_type}.{name}", "coords/faces")
    for name in ("attr_coords", "faces"):
        VECTOR.close(made[name], f"{pipeline_type}.{name}", "coords/faces")
    for name in ("shape_slat", "tex_slat"):
        VECTOR.close(made[name], f"{pipeline_type}.{name}", "latents")
    for name in ("vertices", "attrs"):
        if pipeline_type == "512":
            VECTOR.close(made[name], f"512.{name}", name)
        else:  # stored as float16, whose last digit is worth more than the tolerance
            stored = VECTOR.outputs[f"{pipeline_type}.{name}"].float()
            rounded = torch.from_numpy(made[name]).half().float()
            atol = {"vertices": 2.5e-4, "attrs": 1e-3}[name]
            torch.testing.assert_close(rounded, stored, atol=atol, rtol=0)


@pytest.mark.parametrize("pipeline_type", ["512", "1024", "1024_cascade", "1536_cascade"])
def test_every_pipeline_ends_at_its_resolution_with_its_number_of_everything(
    folder: Path, pipeline_type: str
) -> None:
    made = _run(folder, pipeline_type)
    official = VECTOR.json["runs"][pipeline_type]
    assert made["resolution"] == official["resolution"]
    for name in ("ss_coords", "slat_coords", "vertices", "faces", "attrs"):
        assert len(made[name]) == official["n"][name][0], name
    shapes = forwards(_drawing("shape", None).sampling)
    size = 512 if pipeline_type == "512" else 1024
    expected = {
        "sparse_structure_flow_model": forwards(_drawing("ss", None).sampling),
        "sparse_structure_decoder": 1,
        "shape_slat_decoder": 2 if "cascade" in pipeline_type else 1,
        f"shape_slat_flow_model_{size}": shapes,
        f"tex_slat_flow_model_{size}": forwards(_drawing("tex", None).sampling),
        "tex_slat_decoder": 1,
    }
    if "cascade" in pipeline_type:
        expected["shape_slat_flow_model_512"] = shapes
    assert made["forwards"] == expected


def test_work_in_parts_changes_nothing_but_the_last_digits(folder: Path) -> None:
    whole, parts = _run(folder, "512"), _run(folder, "512", rows=100)
    assert torch.equal(whole["ss_coords"], parts["ss_coords"])
    torch.testing.assert_close(whole["tex_slat"], parts["tex_slat"], atol=1e-4, rtol=1e-4)
    assert np.array_equal(whole["faces"], parts["faces"])


def test_the_token_limit_lowers_a_cascade_in_steps_down_to_1024(folder: Path) -> None:
    axes = (torch.arange(0, 32, 4), torch.arange(0, 512, 4), torch.arange(0, 512, 4))
    voxels = torch.cartesian_prod(*axes).int()

    def found(limit: int) -> tuple[int, int]:
        pipeline = Pipeline(Checkpoint(folder), CPU, Effort("1536_cascade", limit, 4096))
        coords, resolution = pipeline.cascade(voxels, 1536)
        return len(coords), resolution

    most, resolution = found(10**7)
    assert resolution == 1536
    fewest, resolution = found(1)
    assert resolution == 1024 and fewest < most
    tokens, resolution = found((most + fewest) // 2)
    assert tokens < (most + fewest) // 2 and resolution in (1152, 1280, 1408)


def test_numbers_that_are_none_end_the_job_in_words(folder: Path, tmp_path: Path) -> None:
    broken = checkpoint.write(tmp_path)
    checkpoint.spoil(broken, "tex_slat_flow_model_512", "out_layer.bias", float("nan"))
    with pytest.raises(EngineError, match="texture stage ended in numbers that are none"):
        _run(broken, "512")


def test_a_structure_without_a_voxel_ends_the_job_in_words(tmp_path: Path) -> None:
    empty = checkpoint.write(tmp_path)
    checkpoint.spoil(empty, "sparse_structure_decoder", "out_layer.2.bias", -1e4)
    with pytest.raises(EngineError, match="recognised nothing in the picture"):
        _run(empty, "512")


def test_a_block_is_only_begun_when_the_device_has_caught_up(folder: Path) -> None:
    """Else a GPU would have a whole forward before it when the job is cancelled, and steps be told that are to come."""
    told: list[str] = []

    class Device(Machine):
        def wait(self) -> None:
            told.append("waited")

    pipeline = Pipeline(
        Checkpoint(folder),
        Device(torch.device("cpu")),
        Effort("512", 49_152, 4096),
        check=lambda: told.append("asked"),
        worked=lambda _: told.append("worked"),
    )
    drawing = _drawing("ss", torch.Generator().manual_seed(1))
    pipeline.structure([VECTOR.inputs["cond_512"]], drawing, 32)
    assert told.count("worked") == forwards(drawing.sampling) + 1
    for before, after in itertools.pairwise(told):
        assert after == "waited" or before in ("waited", "worked")


def test_a_mesh_can_be_cancelled_before_it_is_voxels(tmp_path: Path) -> None:
    """There is no encoder: only who looks at the mesh first can hear of it."""
    folder = checkpoint.write(tmp_path)
    checkpoint.path_of(folder, "shape_slat_encoder").unlink()

    def cancelled() -> None:
        raise Cancelled

    pipeline = Pipeline(Checkpoint(folder), CPU, Effort("512", 0, 4096), check=cancelled)
    ball = shapes.sphere(8)
    with pytest.raises(Cancelled):
        pipeline.encode_shape(ball.points, ball.faces, 64)


def test_one_network_is_in_memory_at_a_time(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded: list[Any] = []
    load = Checkpoint.load

    def counted(self: Checkpoint, *arguments: Any) -> Any:
        for network in loaded:
            assert all(each.is_meta for each in network.parameters())
        loaded.append(load(self, *arguments))
        return loaded[-1]

    monkeypatch.setattr(Checkpoint, "load", counted)
    _run(folder, "1024_cascade")
    assert len(loaded) == 8

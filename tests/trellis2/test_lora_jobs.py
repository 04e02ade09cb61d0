# SPDX-License-Identifier: GPL-3.0-or-later
"""LoRAs in a job: they change the stage that they are for, for this job alone, and are refused before anything is computed."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch", reason="TRELLIS.2's engine needs torch")

import torch
from safetensors.torch import save_file

from blender_trellis.sidecar.engines.stages import EngineError, Progress, Report
from trellis2.made import Studio, picture

torch.set_num_threads(1)
STAGES = {
    "sparse_structure": "sparse_structure_flow_model",
    "geometry": "shape_slat_flow_model_512",
    "texture": "tex_slat_flow_model_512",
}


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Studio:
    studio = Studio(tmp_path_factory.mktemp("home"))
    studio.make()
    return studio


def _lora(
    folder: Path, layer: str = "blocks.0.mlp.mlp.2", name: str = "style", seed: int = 1
) -> str:
    path = folder / f"{name}.safetensors"
    random = torch.Generator().manual_seed(seed)
    pair = {
        f"{layer}.lora_A.weight": torch.randn(2, 64, generator=random),
        f"{layer}.lora_B.weight": torch.randn(32, 2, generator=random),
    }
    save_file(pair, path)
    return str(path)


@pytest.mark.parametrize("role", STAGES)
def test_a_lora_changes_its_stage_and_what_comes_after(
    studio: Studio, tmp_path: Path, role: str
) -> None:
    changes = {f"{role}_lora_path": _lora(tmp_path), f"{role}_lora_scale": 0.1}
    with_it = studio.make(**changes)
    computed = [name for name in STAGES.values() if with_it.forwards.get(name)]
    assert computed == list(STAGES.values())[list(STAGES).index(role) :]
    assert with_it.binary != studio.make().binary
    assert studio.make(**changes).forwards == {}
    stronger = studio.make(**{**changes, f"{role}_lora_scale": 0.2})
    assert stronger.forwards[STAGES[role]]


def test_two_that_came_out_of_one_archive_are_not_confused(studio: Studio, tmp_path: Path) -> None:
    """An archive gives all its files one time, to whole seconds."""
    made = []
    for number, name in enumerate(("first", "second")):
        path = _lora(tmp_path, name=name, seed=number)
        os.utime(path, (10**9, 10**9))
        changes = {"texture_lora_path": path, "texture_lora_scale": 0.1}
        made.append(studio.make(**changes).binary)
    assert made[0] != made[1]


@pytest.mark.parametrize("role", STAGES)
def test_one_that_does_not_fit_is_refused_before_anything_is_computed(
    studio: Studio, tmp_path: Path, role: str
) -> None:
    reports: list[Report] = []
    request: dict[str, Any] = studio.request(seed=77)
    request[f"{role}_lora_path"] = _lora(tmp_path, "blocks.30.mlp.mlp.2")
    engine = studio.engine()
    progress = Progress(engine.plan(request, 1), reports.append, lambda: False)
    with pytest.raises(EngineError, match=r"'blocks\.30\.mlp\.mlp\.2'") as caught:
        engine.run(request, [picture()], progress)
    assert caught.value.field == f"{role}_lora_path"
    assert reports == []


@pytest.mark.parametrize("mode", ["stochastic", "average"])
def test_several_pictures_are_combined_as_asked(studio: Studio, mode: str) -> None:
    pictures = [picture("red"), picture("lime"), picture("blue")]
    made = studio.make(*pictures, multi_image=mode)
    # Of 12 steps 10 are guided: their second forward is the one without a picture
    each = 12 * (3 if mode == "average" else 1)
    assert made.forwards["sparse_structure_flow_model"] == each + 10
    assert made.extras["images"] == 3
    planned = sum(stage.steps for stage in studio.plan(3, multi_image=mode) if stage.name != "mesh")
    networks = {**made.forwards, "image_cond_model": 3}
    assert planned == sum(networks.values())

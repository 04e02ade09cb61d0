# SPDX-License-Identifier: GPL-3.0-or-later
"""Too little memory: a job goes on with less, says so, and the next job is as if nothing had been."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch", reason="TRELLIS.2's engine needs torch")

import torch
from safetensors import SafetensorError

from blender_trellis.sidecar.engines.stages import EngineError, Progress, Report
from blender_trellis.sidecar.engines.trellis2 import weights
from blender_trellis.sidecar.engines.trellis2.engine import Trellis2Engine
from blender_trellis.sidecar.engines.trellis2.memory import (
    Effort,
    Ladder,
    Machine,
    is_of_the_computer,
    ran_out,
)
from trellis2 import checkpoint
from trellis2.made import Studio, computer, extras, picture

torch.set_num_threads(1)


GPU = Machine(torch.device("cuda"))


@pytest.fixture
def studio(tmp_path: Path) -> Studio:
    return Studio(tmp_path)


class Shortage:
    """Memory runs out in a stage, `times` times, wherever the engine asks whether it was cancelled: in every block."""

    def __init__(self, stage: str, times: int) -> None:
        self._stage = stage
        self.left = times
        self.reports: list[Report] = []

    def __call__(self) -> bool:
        last = self.reports[-1] if self.reports else None
        there = last and last.stage == self._stage and "ran out" not in last.message
        if self.left and there:
            self.left -= 1
            if self._stage == "mesh":
                raise MemoryError
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return False


def _make(studio: Studio, shortage: Shortage, **changes: Any) -> bytes:
    request, engine = studio.request(**changes), studio.engine()
    progress = Progress(engine.plan(request, 1), shortage.reports.append, shortage)
    return engine.run(request, [picture()], progress)


STAGES = {
    "structure": "going on with 1024 rows at a time",
    "shape": "going on with 1024 rows at a time",
    "texture": "going on with 1024 rows at a time",
    "mesh": "going on with the pipeline 512",
}


def test_a_stage_that_overflows_is_computed_again_in_float32(studio: Studio) -> None:
    """The texture's tokens get to 120,000, which float16 does not know; what came before is not done again."""
    weights = studio.home / "trellis2" / "weights"
    for key in ("input_layer.bias", "blocks.0.cross_attn.to_out.bias"):
        checkpoint.spoil(weights, "tex_slat_flow_model_512", key, 6e4)
    machine = computer(flow=torch.float16)
    engine, request = Trellis2Engine(studio.home / "sidecar", machine), studio.request()
    progress = Progress(engine.plan(request, 1), lambda _: None, lambda: False)
    said = extras(engine.run(request, [picture()], progress))
    words = "The texture stage ended in no numbers: going on in float32, which is slower"
    assert said["lowered"] == [words] and words in progress.notes
    assert said["precision"] == "float32"
    assert said["forwards"]["sparse_structure_flow_model"] == 22
    assert said["forwards"]["tex_slat_flow_model_512"] == 24


@pytest.mark.parametrize("stage", STAGES)
def test_a_job_that_runs_out_of_memory_once_goes_on_with_less_and_says_so(
    studio: Studio, stage: str
) -> None:
    shortage = Shortage(stage, 1)
    data = _make(studio, shortage, resolution=1024, remesh=False)
    said = f"Memory ran out in the {stage} stage: {STAGES[stage]}"
    assert said in [report.message for report in shortage.reports]
    assert extras(data)["lowered"] == [said]
    fractions = [report.fraction for report in shortage.reports]
    assert fractions == sorted(fractions) and fractions[-1] == 1
    after = studio.make(resolution=1024, remesh=False)
    assert after.extras["lowered"] == [] and after.extras["pipeline"] == "1024_cascade"


def test_stages_that_are_done_are_not_done_again(studio: Studio) -> None:
    counted = extras(_make(studio, Shortage("texture", 1)))["forwards"]
    assert counted["sparse_structure_flow_model"] == 22
    assert counted["shape_slat_flow_model_512"] == 21
    assert 12 <= counted["tex_slat_flow_model_512"] < 24


def test_every_way_down_is_tried_before_the_job_is_given_up(studio: Studio) -> None:
    shortage = Shortage("shape", 10**6)
    with pytest.raises(EngineError, match="does not suffice for the shape stage") as caught:
        _make(studio, shortage, resolution=1536, max_num_tokens=49_152)
    assert caught.value.field is None
    said = [r.message.partition(": ")[2] for r in shortage.reports if "ran out" in r.message]
    assert list(dict.fromkeys(said)) == [
        "going on with 1024 rows at a time",
        "going on with 32768 tokens at most",
        "going on with 21845 tokens at most",
        "going on with 14563 tokens at most",
        "going on with 9708 tokens at most",
        "going on with the pipeline 1024_cascade",
        "going on with the pipeline 512",
    ]
    assert studio.make().forwards, "the next job works"


def test_a_gpus_decoders_go_to_the_cpu() -> None:
    ladder = Ladder(Effort("512", 49_152, 1024))
    assert "decoders on the CPU" in ladder.down("texture", GPU, of_the_computer=False)
    assert ladder.effort.decoder_on_cpu
    with pytest.raises(EngineError, match="TRELLIS_DEVICE=cpu"):
        ladder.down("texture", GPU, of_the_computer=False)


def test_the_computers_own_memory_is_not_spared_at_its_cost() -> None:
    ladder = Ladder(Effort("1024_cascade", 49_152, 1024))
    assert "pipeline 512" in ladder.down("shape", GPU, of_the_computer=True)
    assert not ladder.effort.decoder_on_cpu
    with pytest.raises(EngineError, match=r"The computer's memory .* page file"):
        ladder.down("shape", GPU, of_the_computer=True)
    with pytest.raises(EngineError, match=r"The computer's memory .* texture size"):
        ladder.down("mesh", GPU, of_the_computer=True)


def test_a_token_limit_is_lowered_below_the_tokens_that_there_are() -> None:
    ladder = Ladder(Effort("1536_cascade", 262_144, 1024, decoder_on_cpu=True))
    ladder.counted(30_000)
    assert "20000 tokens" in ladder.down("shape", GPU, of_the_computer=False)
    ladder = Ladder(Effort("1536_cascade", 262_144, 1024, decoder_on_cpu=True))
    ladder.counted(9_000)
    assert "1024_cascade" in ladder.down("shape", GPU, of_the_computer=False)


def test_on_windows_a_gpus_memory_ends_where_it_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    bounds: list[float] = []
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda _: 2**30)
    monkeypatch.setattr(
        torch.cuda, "set_per_process_memory_fraction", lambda share, _: bounds.append(share)
    )
    for free in (7, 5, 1):
        info = free * 2**30, 8 * 2**30
        with monkeypatch.context() as windows:
            windows.setattr(torch.cuda, "mem_get_info", lambda _, info=info: info)
            windows.setattr(os, "name", "nt")
            GPU.bound()
    assert bounds == [1.0, 0.75, 0.5]
    GPU.bound()
    assert len(bounds) == 3


def _of_torch() -> None:
    torch.empty(2**50)


def _of_numpy() -> None:
    np.empty(2**50)


@pytest.mark.parametrize("take", [_of_torch, _of_numpy])
def test_what_the_libraries_raise_is_recognised(take: Any) -> None:
    with pytest.raises((RuntimeError, MemoryError)) as caught:
        take()
    assert ran_out(caught.value) and is_of_the_computer(caught.value)


def test_other_errors_are_no_want_of_memory() -> None:
    assert not ran_out(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    assert not ran_out(EngineError("The GPU's memory does not suffice"))
    for said in (
        "MPS backend out of memory (MPS allocated: 8 GB)",
        "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
        "HIP error: hipErrorOutOfMemory",
        "Invalid buffer size: 12.34 GiB",
    ):
        assert ran_out(RuntimeError(said)) and not is_of_the_computer(RuntimeError(said))


def test_weights_for_whose_mapping_there_is_no_memory_are_not_broken(
    studio: Studio, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(_: Path) -> None:
        raise SafetensorError("Die Auslagerungsdatei ist zu klein. (os error 1455)")

    monkeypatch.setattr(weights, "load_file", load)
    with pytest.raises(EngineError, match=r"The computer's memory .* page file"):
        studio.make()


def test_a_device_can_be_chosen_and_one_that_is_not_there_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TRELLIS_DEVICE", "cpu")
    assert Machine.found().device.type == "cpu"
    for name in ("cuda:99", "toaster"):
        monkeypatch.setenv("TRELLIS_DEVICE", name)
        with pytest.raises(EngineError, match=f"TRELLIS_DEVICE is '{name}'"):
            Machine.found()


def test_a_gpu_that_torch_cannot_use_is_refused_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that is too new or too old for the installed torch is found, and fails at the first use."""
    monkeypatch.delenv("TRELLIS_DEVICE", raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    with pytest.raises(
        EngineError, match=r"This computer's GPU cannot be used \(.+TRELLIS_DEVICE=cpu"
    ):
        Machine.found()


def test_why_there_is_no_gpu_is_said_where_one_was_expected(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cpu = Machine(torch.device("cpu"), torch.bfloat16)
    assert (
        cpu.words(2 * 3600)
        == "Computing on the CPU, in bfloat16, which takes very long: about 2 h."
    )
    monkeypatch.setattr(torch.version, "cuda", "12.8")
    assert "about 40 min. PyTorch finds no GPU" in cpu.words(40 * 60)
    monkeypatch.setenv("TRELLIS_DEVICE", "cpu")
    assert "finds no GPU" not in cpu.words(60)

# SPDX-License-Identifier: GPL-3.0-or-later
"""Too little memory: a job goes on with less, says so, and the next job is as if nothing had been."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch", reason="TRELLIS.2's engine needs torch")

import torch

from blender_trellis.sidecar.engines.stages import EngineError, Progress, Report
from blender_trellis.sidecar.engines.trellis2.memory import (
    Effort,
    Ladder,
    Machine,
    ran_out,
)
from trellis2.made import Studio, extras, picture

torch.set_num_threads(1)


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
    gpu = Machine(torch.device("cuda"))
    assert "decoders on the CPU" in ladder.down("texture", gpu)
    assert ladder.effort.decoder_on_cpu
    with pytest.raises(EngineError, match="TRELLIS_DEVICE=cpu"):
        ladder.down("texture", gpu)


def _of_torch() -> None:
    torch.empty(2**50)


def _of_numpy() -> None:
    np.empty(2**50)


@pytest.mark.parametrize("take", [_of_torch, _of_numpy])
def test_what_the_libraries_raise_is_recognised(take: Any) -> None:
    with pytest.raises((RuntimeError, MemoryError)) as caught:
        take()
    assert ran_out(caught.value)


def test_other_errors_are_no_want_of_memory() -> None:
    assert not ran_out(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    assert not ran_out(EngineError("The GPU's memory does not suffice"))
    assert ran_out(RuntimeError("MPS backend out of memory (MPS allocated: 8 GB)"))


def test_a_device_can_be_chosen_and_one_that_is_not_there_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TRELLIS_DEVICE", "cpu")
    assert Machine.found().device.type == "cpu"
    for name in ("cuda:99", "toaster"):
        monkeypatch.setenv("TRELLIS_DEVICE", name)
        with pytest.raises(EngineError, match=f"TRELLIS_DEVICE is '{name}'"):
            Machine.found()

# SPDX-License-Identifier: GPL-3.0-or-later
"""Networks that stay loaded from job to job: none is loaded twice, none takes memory that is wanted, none is a wrong one."""

from __future__ import annotations

import gc
import json
import os
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch", reason="TRELLIS.2's engine needs torch")

import torch
from safetensors.torch import save_file

from blender_trellis.sidecar.engines.stages import Cancelled, EngineError, Progress, Report
from blender_trellis.sidecar.engines.trellis2.memory import Machine, available
from blender_trellis.sidecar.engines.trellis2.weights import Checkpoint
from scene import glbs
from trellis2 import checkpoint
from trellis2.made import ENDPOINT, RETEXTURE, Made, Studio, computer, extras, picture

torch.set_num_threads(1)

DINO, STRUCTURE, SHAPE = (
    "image_cond_model",
    "sparse_structure_flow_model",
    "shape_slat_flow_model_512",
)
DECODER = "shape_slat_decoder"
TEXTURE, COLOURS = "tex_slat_flow_model_512", "tex_slat_decoder"
NETWORKS = [DINO, STRUCTURE, "sparse_structure_decoder", SHAPE, DECODER, TEXTURE, COLOURS]  # fmt: skip
"""Of a job of 512, in the order in which it uses them."""


class Quick(Studio):
    """What is made in it takes no time."""

    def request(self, endpoint: str = ENDPOINT, **changes: Any) -> dict[str, Any]:
        steps = dict.fromkeys(
            (f"{each}_sampling_steps" for each in ("ss", "shape_slat", "tex_slat")), 2
        )
        return super().request(endpoint, **{"remesh": False} | steps | changes)


class Loads:
    """Counts what is loaded, and what of that is still in memory."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self._names: list[str] = []
        self._networks: list[tuple[str, torch.nn.Module]] = []
        load = Checkpoint.load

        def counted(found: Checkpoint, name: str, *arguments: Any) -> torch.nn.Module:
            network = load(found, name, *arguments)
            self._names.append(name)
            self._networks.append((name, network))
            return network

        patch.setattr(Checkpoint, "load", counted)

    def since(self) -> list[str]:
        """The names of what was loaded since this was last asked."""
        names, self._names = self._names, []
        return names

    def there(self) -> list[str]:
        """The names of what is in memory."""
        return [
            name
            for name, network in self._networks
            if not any(parameter.is_meta for parameter in network.parameters())
        ]


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> Loads:
    return Loads(monkeypatch)


@pytest.fixture
def large(tmp_path: Path) -> Studio:
    """One with memory for all networks."""
    return Quick(tmp_path / "large", computer(lambda: 64))


@pytest.fixture
def small(tmp_path: Path) -> Studio:
    """One with memory for none, whose results are those of networks fresh from their files."""
    return Quick(tmp_path / "small")


@pytest.mark.parametrize("resolution", [512, 1024])
def test_a_second_job_loads_nothing_and_makes_what_it_would_have_made_with_fresh_networks(
    large: Studio, small: Studio, loads: Loads, resolution: int
) -> None:
    large.make(resolution=resolution)
    first = loads.since()
    assert len(first) == len({*first}) == {512: 7, 1024: 8}[resolution]
    changes: dict[str, Any] = {"colour": "blue", "seed": 52, "resolution": resolution}
    second = large.make(**changes)
    assert loads.since() == []
    fresh = small.make(**changes)
    assert {*loads.since()} == {*first}
    assert second.forwards == fresh.forwards and len(second.forwards) == len(first)
    assert second.binary == fresh.binary


def test_a_mesh_is_textured_with_the_networks_that_textured_the_last_one(
    large: Studio, loads: Loads, tmp_path: Path
) -> None:
    large.make()
    loads.since()
    mesh = glbs.write(tmp_path / "box.glb", [glbs.box((1, 0.04, 0.05))]).read_bytes()
    large.make(endpoint=RETEXTURE, colour="blue", mesh=mesh)
    assert loads.since() == ["shape_slat_encoder"]


def test_where_memory_is_short_every_job_loads_each_network_for_its_stage(
    small: Studio, loads: Loads
) -> None:
    for colour in ("red", "blue"):
        small.make(colour=colour)
        assert loads.since() == NETWORKS
        assert loads.there() == []


def test_where_there_is_memory_for_some_the_first_ones_stay(tmp_path: Path, loads: Loads) -> None:
    """Of 30 GiB each takes 3, and 20 are not theirs."""
    free: list[float] = []

    def gib() -> float:
        free.append(30 - 3 * len(loads.there()))
        return free[-1]

    studio = Quick(tmp_path, computer(gib))
    studio.make()
    assert loads.since() == NETWORKS
    assert loads.there() == NETWORKS[:3]
    studio.make(colour="blue")
    assert loads.since() == NETWORKS[3:]
    assert min(free) == 18, "but for the one that was used, what stays leaves 20"


def test_what_stays_goes_as_soon_as_somebody_else_has_taken_the_memory(
    tmp_path: Path, loads: Loads
) -> None:
    free = 64
    studio = Quick(tmp_path, computer(lambda: free))
    studio.make()
    assert loads.there() == NETWORKS
    free = 19
    reports: list[Report] = []
    engine, request = studio.engine(), studio.request(colour="blue")

    def cancelled() -> bool:
        assert loads.there() == [], "and that before the job has begun"
        return True

    with pytest.raises(Cancelled):
        engine.run(
            request, [picture()], Progress(engine.plan(request, 1), reports.append, cancelled)
        )


def _lora(path: Path, seed: int, scale: float) -> dict[str, Any]:
    """One for the texture, written over the last one."""
    random = torch.Generator().manual_seed(seed)
    pair = {
        "blocks.0.mlp.mlp.2.lora_A.weight": torch.randn(2, 64, generator=random),
        "blocks.0.mlp.mlp.2.lora_B.weight": torch.randn(32, 2, generator=random),
    }
    save_file(pair, path)
    os.utime(path, (seed, seed))
    return {"texture_lora_path": str(path), "texture_lora_scale": scale}


def test_a_network_with_another_lora_is_another_one(
    large: Studio, small: Studio, loads: Loads, tmp_path: Path
) -> None:
    def loaded(**changes: Any) -> list[str]:
        loads.since()
        made = large.make(**changes).binary
        found = loads.since()
        assert made == small.make(**changes).binary
        seen.add(made)
        return found

    seen: set[bytes] = set()
    path = tmp_path / "style.safetensors"
    assert loaded() == NETWORKS
    assert loaded(**_lora(path, 1, 0.1)) == [TEXTURE]
    assert loaded(**_lora(path, 1, 0.2)) == [TEXTURE]
    changes = _lora(path, 2, 0.2)
    assert loaded(**changes) == [TEXTURE]
    assert len(seen) == 4
    assert loaded(**changes, seed=52) == []
    assert loaded(seed=53) == [TEXTURE]


def _other_weights(weights: Path) -> None:
    checkpoint.spoil(weights, DECODER, "output_layer.bias", 0.25)


def _other_settings(weights: Path) -> None:
    """The same weights, shared out to fewer heads."""
    path = weights / checkpoint.DINO.replace("/", "--") / "config.json"
    settings = json.loads(path.read_text("utf-8"))
    path.write_text(json.dumps(settings | {"num_attention_heads": 1}), "utf-8")


@pytest.mark.parametrize(
    ("change", "network"), [(_other_weights, DECODER), (_other_settings, DINO)]
)
def test_a_network_whose_files_were_changed_is_loaded_anew(
    large: Studio, small: Studio, loads: Loads, change: Callable[[Path], None], network: str
) -> None:
    before = large.make(colour="blue").binary
    for studio in (large, small):
        change(studio.home / "trellis2" / "weights")
    large.make()
    assert loads.since() == [*NETWORKS, network]
    # The cache of stages knows nothing of settings: another picture, which has not been seen yet
    after = large.make(colour="lime").binary
    assert after == small.make(colour="lime").binary != before


def test_what_was_computed_again_in_float32_is_not_kept_for_the_next_job_in_float16(
    tmp_path: Path, loads: Loads
) -> None:
    made = []
    for name, gib in (("large", 64), ("small", 0)):
        studio = Quick(tmp_path / name, computer(lambda gib=gib: gib, torch.float16))  # type: ignore[misc]
        weights = studio.home / "trellis2" / "weights"
        for key in ("input_layer.bias", "blocks.0.cross_attn.to_out.bias"):
            checkpoint.spoil(weights, TEXTURE, key, 6e4)  # which float16 does not know
        jobs = [studio.make(colour=colour) for colour in ("red", "blue")]
        assert all("float32" in job.extras["lowered"][0] for job in jobs)
        made.append([job.binary for job in jobs])
        loaded = loads.since()
        if gib:
            assert loaded == [*NETWORKS[:5], TEXTURE, TEXTURE, COLOURS, TEXTURE, TEXTURE]
    assert made[0] == made[1]


class Shortage:
    """Memory runs out in the texture stage, `times` times."""

    def __init__(self, times: int) -> None:
        self._times = times
        self._after = 0
        self.reports: list[Report] = []

    def __call__(self) -> bool:
        reports = self.reports[self._after :]
        if self._times and reports and reports[-1].message.startswith("Sampling the texture"):
            self._times -= 1
            self._after = len(self.reports)
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return False

    def make(self, studio: Studio, colour: str = "blue") -> bytes:
        request, engine = studio.request(), studio.engine()
        progress = Progress(engine.plan(request, 1), self.reports.append, self)
        return engine.run(request, [picture(colour)], progress)


def test_when_memory_runs_out_what_stays_goes_before_anything_is_lowered(
    large: Studio, small: Studio, loads: Loads
) -> None:
    large.make()
    loads.since()
    shortage = Shortage(1)
    made = Made(shortage.make(large), shortage.reports)
    words = "Memory ran out in the texture stage: going on with one network in it at a time"
    assert words in [report.message for report in made.reports]
    assert made.extras["lowered"] == []
    assert loads.since() == [TEXTURE, COLOURS], "what was done is not done again"
    assert loads.there() == [], "and this job keeps none any more"
    assert made.binary == small.make(colour="blue").binary
    large.make(colour="lime")
    assert loads.there() == NETWORKS, "but the next one does"


def test_when_it_runs_out_again_less_is_tried(large: Studio, loads: Loads) -> None:
    large.make()
    loads.since()
    said = extras(Shortage(2).make(large))["lowered"]
    assert said == ["Memory ran out in the texture stage: going on with 1024 rows at a time"]
    with pytest.raises(EngineError, match="does not suffice for the texture stage"):
        Shortage(10**6).make(large, "lime")


class Fault(Exception):
    """Anything that may happen."""


@pytest.mark.parametrize("error", [Cancelled, Fault])
def test_a_network_in_whose_work_a_job_ended_is_loaded_anew(
    large: Studio, small: Studio, loads: Loads, error: type[Exception]
) -> None:
    reports: list[Report] = []

    def cancelled() -> bool:
        if len(reports) > 1 and reports[-1].stage == "shape":
            raise error
        return False

    engine, request = large.engine(), large.request()
    progress = Progress(engine.plan(request, 1), reports.append, cancelled)
    with pytest.raises(error):
        engine.run(request, [picture()], progress)
    assert loads.since() == NETWORKS[:4]
    assert loads.there() == NETWORKS[:3]
    made = large.make(colour="blue")
    assert loads.since() == NETWORKS[3:]
    assert made.binary == small.make(colour="blue").binary


def test_a_network_that_stays_has_nothing_of_the_job_that_loaded_it(
    large: Studio, loads: Loads
) -> None:
    engine, request = large.engine(), large.request()
    progress = Progress(engine.plan(request, 1), lambda _: None, lambda: False)
    engine.run(request, [picture()], progress)
    assert loads.there() == NETWORKS
    job = weakref.ref(progress)
    del engine, progress
    gc.collect()
    assert job() is None


def test_what_is_plenty_for_networks_to_stay_is_plenty_for_all_rows() -> None:
    class Gpu(Machine):
        def free(self) -> int:
            return free

    gpu = Gpu(torch.device("cuda"))
    free = 20 * 2**30
    assert gpu.has_plenty() and gpu.rows() == 65536
    free -= 1
    assert not gpu.has_plenty() and gpu.rows() == 16384
    assert not Machine(torch.device("mps")).has_plenty(), "nobody can tell"


@pytest.mark.parametrize(
    ("bound", "used", "expected"),
    [
        (None, 0, 22 * 2**30),
        ("max", 5, 22 * 2**30),
        (16 * 2**30, 6 * 2**30, 10 * 2**30),
        (64 * 2**30, 2**30, 22 * 2**30),
        (2**30, 2**31, 0),
    ],
)
def test_what_the_computer_has_is_what_linux_says_within_the_containers_bound(
    tmp_path: Path, bound: int | str | None, used: int, expected: int
) -> None:
    assert available(tmp_path) == 0
    (tmp_path / "proc").mkdir()
    lines = "MemTotal: 25165824 kB\nMemFree: 1048576 kB\nMemAvailable:   23068672 kB\n"
    (tmp_path / "proc" / "meminfo").write_text(lines)
    if bound is not None:
        group = tmp_path / "sys" / "fs" / "cgroup"
        group.mkdir(parents=True)
        (group / "memory.max").write_text(f"{bound}\n")
        (group / "memory.current").write_text(f"{used}\n")
    assert available(tmp_path) == expected


@pytest.mark.skipif(not Path("/proc/meminfo").exists(), reason="Linux alone tells")
def test_linux_says_it_here() -> None:
    assert 0 < available() < 2**50

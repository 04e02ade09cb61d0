# SPDX-License-Identifier: GPL-3.0-or-later
"""The stage cache: exactly the forwards that a change makes necessary, and never a wrong result."""

from __future__ import annotations

import itertools
import os
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from PIL import Image

torch = pytest.importorskip("torch", reason="TRELLIS.2's engine needs torch")

from blender_trellis.sidecar.engines import matte  # noqa: E402
from blender_trellis.sidecar.engines.stages import EngineError  # noqa: E402
from blender_trellis.sidecar.engines.trellis2 import cache  # noqa: E402
from blender_trellis.sidecar.engines.trellis2.cache import Cache  # noqa: E402
from trellis2.made import Studio, picture  # noqa: E402

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Studio:
    """With one job of 512 already done."""
    studio = Studio(tmp_path_factory.mktemp("home"))
    studio.make()
    return studio


DINO = {"image_cond_model": 1}
STRUCTURE = {"sparse_structure_flow_model": 22, "sparse_structure_decoder": 1}
SHAPE = {"shape_slat_flow_model_512": 21, "shape_slat_decoder": 1}
TEXTURE = {"tex_slat_flow_model_512": 12, "tex_slat_decoder": 1}


def test_a_first_job_calls_every_network_as_often_as_was_said(tmp_path: Path) -> None:
    studio = Studio(tmp_path)
    assert studio.make().forwards == DINO | STRUCTURE | SHAPE | TEXTURE
    assert sum(stage.steps for stage in studio.plan() if stage.name != "mesh") == 1 + 23 + 22 + 13


@pytest.mark.parametrize(
    ("changes", "forwards"),
    [
        ({}, {}),
        ({"texture_size": 512}, {}),
        ({"decimation_target": 5000, "remesh": False}, {}),
        ({"untextured": True}, {}),
        ({"tex_slat_sampling_steps": 3}, {"tex_slat_flow_model_512": 3, "tex_slat_decoder": 1}),
        (
            {"shape_slat_guidance_strength": 1.0},
            {"shape_slat_flow_model_512": 12, "shape_slat_decoder": 1} | TEXTURE,
        ),
        (
            {"ss_sampling_steps": 6},
            {"sparse_structure_flow_model": 11, "sparse_structure_decoder": 1} | SHAPE | TEXTURE,
        ),
        ({"seed": 52}, STRUCTURE | SHAPE | TEXTURE),
        (
            {"resolution": 1024},
            {
                **DINO,  # the pictures at 1024; at 512 they were seen
                "shape_slat_flow_model_1024": 21,
                "shape_slat_decoder": 2,
                "tex_slat_flow_model_1024": 12,
                "tex_slat_decoder": 1,
            },
        ),
    ],
)
def test_only_what_a_change_touches_is_computed(
    studio: Studio, changes: dict[str, Any], forwards: dict[str, int]
) -> None:
    assert studio.make(**changes).forwards == forwards


def test_another_picture_begins_anew(studio: Studio) -> None:
    assert studio.make(colour="blue").forwards == DINO | STRUCTURE | SHAPE | TEXTURE
    assert studio.make(colour="blue").forwards == {}


def test_a_picture_is_cut_out_anew_when_there_is_a_better_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And once a job, though it is looked at in two sizes."""
    studio, opaque = Studio(tmp_path), Image.new("RGB", (64, 64), "white")
    opaque.paste(picture(), mask=picture().getchannel("A"))
    by_colour = studio.make(opaque, resolution=1024)
    said = [each.message for each in by_colour.reports]
    said = [words for words, _ in itertools.groupby(said) if words.startswith("Subject cut out")]
    assert len(said) == 1
    assert studio.make(opaque, resolution=1024).forwards == {}
    (tmp_path / "trellis2" / "weights" / matte.FILE).write_bytes(b"a network")
    monkeypatch.setitem(sys.modules, "onnxruntime", ModuleType("onnxruntime"))
    with pytest.raises(EngineError, match="matte's network cannot be used"):
        studio.make(opaque, resolution=1024)
    assert studio.make(resolution=512).forwards


def test_other_weights_make_what_was_made_by_the_old_ones_unusable(tmp_path: Path) -> None:
    studio = Studio(tmp_path)
    studio.make()
    studio.touch("tex_slat_flow_model_512")
    assert studio.make().forwards == TEXTURE


@pytest.mark.parametrize("lost", ["structure", "shape", "fine shape", "texture"])
def test_a_result_from_the_cache_is_the_same_whichever_stage_it_begins_at(
    tmp_path: Path, lost: str
) -> None:
    """The random numbers of later stages must not depend on whether earlier ones were computed."""
    studio = Studio(tmp_path)
    first = studio.make(resolution=1024, remesh=False)
    kept = sorted((tmp_path / "sidecar" / "cache").iterdir(), key=lambda path: path.stat().st_mtime)
    # kept in this order: pictures, structure, shape, its voxels, pictures, fine shape, model, texture, colours
    for path in kept[{"structure": 1, "shape": 2, "fine shape": 5, "texture": 7}[lost] :]:
        path.unlink()
    again = studio.make(resolution=1024, remesh=False)
    assert again.binary == first.binary
    assert 0 < sum(again.forwards.values()) < sum(first.forwards.values())


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-30])


def _empty(path: Path) -> None:
    path.write_bytes(b"")


def _other(path: Path) -> None:
    path.write_bytes(b"no archive at all" * 10)


@pytest.mark.parametrize("damage", [_cut, _empty, _other])
def test_a_damaged_file_is_as_none(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    kept = Cache(tmp_path)
    kept.save("a", {"numbers": np.arange(10)})
    damage(tmp_path / "a.npz")
    assert kept.load("a") is None
    kept.save("a", {"numbers": np.arange(3)})
    found = kept.load("a")
    assert found and found["numbers"].tolist() == [0, 1, 2]


def test_what_was_not_used_for_longest_goes_when_the_limit_is_reached(tmp_path: Path) -> None:
    kept = Cache(tmp_path, limit=25_000)
    for age, name in enumerate("abc"):
        kept.save(name, {"numbers": np.zeros(1000)})  # 8 kB each
        os.utime(tmp_path / f"{name}.npz", (age + 1, age + 1))
    assert kept.load("a")  # and thereby used
    kept.save("d", {"numbers": np.zeros(1000)})
    assert [name for name in "abcd" if kept.load(name)] == ["a", "c", "d"]


def test_a_disk_that_takes_nothing_is_no_failure(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file where the folder should be")
    kept = Cache(tmp_path / "cache")
    kept.save("a", {"numbers": np.arange(3)})
    assert kept.load("a") is None


def test_a_key_tells_its_parts_apart() -> None:
    parts: list[tuple[Any, ...]] = [("a", "b"), ("ab",), ("a", b"b"), (["a", "b"],), ("a", "b", "")]
    assert len({cache.key(*each) for each in parts}) == len(parts)

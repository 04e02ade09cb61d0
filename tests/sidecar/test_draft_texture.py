# SPDX-License-Identifier: GPL-3.0-or-later
"""The Draft engine's textures, its file and its manners: sizes, colours in place, progress, cancelling, errors."""

from __future__ import annotations

from pathlib import Path

import bpy
import numpy as np
import pytest
from PIL import Image

from blender_trellis.sidecar.engines.draft import DraftEngine
from blender_trellis.sidecar.engines.stages import Cancelled, EngineError, Progress, Report
from sidecar.draft_shapes import BLUE, RED, REQUEST, cutout, overlap, photo, read, run

FRONT, RIGHT, BACK, LEFT, TOP = np.array(
    [[0, -1, 0], [1, 0, 0], [0, 1, 0], [-1, 0, 0], [0, 0, 1]], float
)
DISC = cutout(("ellipse", (50, 50, 350, 350)))


def plain(colour: tuple[int, int, int], width: int = 200) -> Image.Image:
    """A coloured box, cut out."""
    picture = Image.new("RGBA", (400, 400))
    picture.paste((*colour, 255), (200 - width // 2, 50, 200 + width // 2, 350))
    return picture


def test_the_picture_s_upper_half_is_at_the_model_s_top() -> None:
    model = read(run(DISC))
    for x in (-0.2, 0, 0.2):
        assert model.colour_at([x, -0.4, 0.2], FRONT) == pytest.approx(RED, abs=12)
        assert model.colour_at([x, -0.4, -0.2], FRONT) == pytest.approx(BLUE, abs=12)
    assert model.colour_at([0, 0.4, 0.3], BACK)[0] > 120
    assert model.colour_at([0, 0.4, -0.3], BACK)[2] > 120


def test_the_picture_s_left_is_at_minus_x_and_the_back_is_its_mirror() -> None:
    picture = DISC.rotate(90)  # the red top turns to the left
    model = read(run(picture))
    assert model.colour_at([-0.3, -0.4, 0], FRONT) == pytest.approx(RED, abs=12)
    assert model.colour_at([0.3, -0.4, 0], FRONT) == pytest.approx(BLUE, abs=12)
    assert model.colour_at([-0.3, 0.4, 0], BACK)[0] > 120
    assert model.colour_at([0.3, 0.4, 0], BACK)[2] > 120


def test_no_background_shows_at_the_rim() -> None:
    """A dark disc before a light wall: nothing light anywhere in the texture."""
    dark = Image.new("RGBA", (400, 400), (20, 40, 20, 255))
    dark.putalpha(DISC.getchannel("A"))
    model = read(run(photo(dark, 2)))
    assert model.colour.max() < 90
    assert model.colour.reshape(-1, 3).mean(0) == pytest.approx([20, 40, 20], abs=12)


def test_every_side_of_a_hull_shows_its_own_view() -> None:
    colours = [(200, 40, 40), (40, 200, 40), (40, 40, 200), (200, 200, 40)]
    model = read(run(*map(plain, colours)))
    for direction, colour in zip((FRONT, RIGHT, BACK, LEFT), colours, strict=True):
        assert model.colour_at(direction / 2, direction) == pytest.approx(colour, abs=25)


def test_views_that_are_missing_are_mirrored() -> None:
    model = read(run(plain((200, 40, 40)), plain((40, 200, 40))))
    assert model.colour_at(LEFT / 2, LEFT) == pytest.approx((40, 200, 40), abs=25)
    back = model.colour_at(BACK / 2, BACK)
    assert back[0] > 150 and back[1] < 80


@pytest.mark.parametrize("size", [512, 1024, 2048])
def test_both_textures_have_the_size_asked_for(size: int) -> None:
    model = read(run(DISC, texture_size=size))
    assert model.colour.shape == model.normal_map.shape == (size, size, 3)
    assert overlap(model, 1024) == 0


def test_a_bright_bump_stands_out_in_the_normal_map() -> None:
    """A fine bright vertical line: on its left the normals lean to the left, red below the middle."""
    picture = Image.new("RGBA", (400, 400), (90, 90, 90, 255))
    picture.paste((255, 255, 255, 255), (198, 0, 202, 400))
    picture.putalpha(DISC.getchannel("A"))
    model = read(run(picture, decimation_target=5000, resolution=1024, texture_size=1024))
    corner = model.points[model.faces].mean(1)
    front = (corner[:, 1] < -0.3) & (np.abs(corner[:, 0]) < 0.02)
    u, v = (model.uvs[model.faces[front]].mean(1).mean(0) * 1024).astype(int)
    row = model.normal_map[v, u - 30 : u + 30].astype(float)
    line = model.colour[v, u - 30 : u + 30, 0].argmax()
    assert row[max(0, line - 6) : line, 0].min() < 120
    assert row[line : line + 8, 0].max() > 135
    assert (model.normal_map[..., 2] > 127).all()


def test_the_file_says_what_it_is() -> None:
    document = read(run(DISC, seed=11)).document
    assert document["asset"]["generator"] == "Trellis for Blender, Draft engine"
    extras = document["asset"]["extras"]
    assert extras["engine"] == "draft" and extras["seed"] == 11 and extras["resolution"] == 512
    assert document["nodes"] == [{"name": "model", "mesh": 0}]
    material = document["materials"][0]
    assert material["alphaMode"] == "OPAQUE" and material["doubleSided"] is False
    assert material["pbrMetallicRoughness"]["metallicFactor"] == 0


def test_the_same_input_gives_the_same_bytes() -> None:
    assert run(DISC, DISC) == run(DISC.copy(), DISC.copy())


@pytest.mark.parametrize("images", [1, 2, 3, 4])
def test_progress_rises_to_the_end_through_the_planned_stages(images: int) -> None:
    reports: list[Report] = []
    run(*[DISC] * images, reports=reports)
    fractions = [report.fraction for report in reports]
    assert fractions == sorted(fractions) and fractions[-1] == pytest.approx(1)
    stages = list(dict.fromkeys(report.stage for report in reports))
    assert stages == ["image", "structure", "shape", "texture", "mesh"]
    for stage in stages:
        steps = [report.step for report in reports if report.stage == stage]
        assert (
            steps == sorted(steps)
            and steps[-1] == reports[[r.stage for r in reports].index(stage)].steps
        )
    assert all(report.message for report in reports)


def test_cancelling_ends_the_work_at_the_next_step() -> None:
    engine, reports = DraftEngine(), []
    for after in (1, 4, 9, 14):
        reports.clear()
        progress = Progress(
            engine.plan(REQUEST, 1), reports.append, lambda after=after: len(reports) >= after
        )
        with pytest.raises(Cancelled):
            engine.run(REQUEST, [DISC], progress)
        assert len(reports) == after


@pytest.mark.parametrize(
    "picture",
    [
        Image.new("RGBA", (200, 200)),
        Image.new("RGB", (200, 200), (90, 120, 90)),
        Image.new("RGBA", (200, 200), (255, 255, 255, 255)),
        Image.linear_gradient("L").convert("RGB"),
        Image.effect_noise((512, 512), 80).convert("RGB"),
    ],
    ids=["transparent", "uniform", "opaque white", "gradient", "noise"],
)
def test_a_picture_without_subject_is_refused_with_advice(picture: Image.Image) -> None:
    with pytest.raises(EngineError, match="Use one") as caught:
        run(picture)
    assert caught.value.field == "image_urls"


def test_blender_s_importer_takes_the_file_and_finds_it_closed(tmp_path: Path) -> None:
    file = tmp_path / "model.glb"
    file.write_bytes(run(DISC))
    bpy.ops.wm.read_factory_settings(use_empty=True)
    bpy.ops.import_scene.gltf(filepath=str(file), merge_vertices=True)
    (found,) = [each for each in bpy.context.scene.objects if each.type == "MESH"]
    assert found.name == found.data.name == "model"
    sides = np.zeros(len(found.data.loops), np.int32)
    found.data.loops.foreach_get("edge_index", sides)
    assert (np.bincount(sides) == 2).all()
    merged, _ = read(run(DISC)).merged()
    assert len(found.data.vertices) == len(merged)
    assert len(found.data.uv_layers) == 1
    assert (
        sorted(tuple(image.size) for image in bpy.data.images if image.type == "IMAGE")
        == [(512, 512)] * 2
    )

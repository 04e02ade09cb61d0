# SPDX-License-Identifier: GPL-3.0-or-later
"""The Draft engine's mesh: closed, manifold, in its place, the shape that the pictures show."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFilter

from blender_trellis.pixels.cutout import separate
from harness import REPOSITORY
from sidecar.draft_shapes import (
    assert_solid,
    cutout,
    outline,
    overlap,
    photo,
    projected,
    read,
    run,
    union,
    volume,
)

STAR = [
    (200 + reach * np.sin(k * np.pi / 5), 200 - reach * np.cos(k * np.pi / 5))
    for k, reach in enumerate([180, 75] * 5)
]
SPECKS = [("point", (k * 17 % 390, k * 23 % 80)) for k in range(20)]
SHAPES = {
    "disc": (cutout(("ellipse", (30, 30, 370, 370))), 0),
    "ring": (cutout(("ellipse", (30, 30, 370, 370)), ("-ellipse", (140, 140, 260, 260))), 1),
    "touching squares": (
        cutout(("rectangle", (50, 50, 199, 199)), ("rectangle", (200, 200, 350, 350))),
        0,
    ),
    "thin line and blob": (
        cutout(("ellipse", (20, 200, 220, 380)), ("line", ((150, 250), (390, 20)))),
        0,
    ),
    "star": (cutout(("polygon", STAR)), 0),
    "specks": (cutout(("ellipse", (90, 90, 310, 310)), *SPECKS), 0),
    "tiny": (cutout(("ellipse", (2, 2, 13, 13)), size=(16, 16)), 0),
    "wide": (cutout(("rectangle", (20, 8, 1580, 22)), size=(1600, 30)), 0),
}


@pytest.mark.parametrize("name", SHAPES)
def test_one_view_gives_a_closed_manifold_with_the_holes_of_the_picture(name: str) -> None:
    picture, genus = SHAPES[name]
    model = read(run(picture))
    assert_solid(model, genus)
    assert overlap(model, 1024) == 0
    assert model.uvs.min() > 0 and model.uvs.max() < 1


@pytest.mark.parametrize("name", ["disc", "ring", "star", "thin line and blob", "wide"])
def test_the_mesh_covers_the_silhouette(name: str) -> None:
    picture, _ = SHAPES[name]
    model = read(run(picture, decimation_target=20000))
    wanted = outline(picture.getchannel("A"), 2000)
    assert union(projected(model, 0, 2, 1, 2000), wanted) > 0.97


def test_separate_parts_are_separate_closed_surfaces_and_specks_are_dropped() -> None:
    two = cutout(("ellipse", (20, 100, 180, 300)), ("ellipse", (220, 100, 380, 300)), *SPECKS)
    assert_solid(read(run(two)), 0, parts=2)


def test_orientation_of_an_asymmetrical_picture() -> None:
    """An L with its foot to the right: at +X and -Z there is more of it than at +X and +Z."""
    letter = cutout(("rectangle", (50, 50, 150, 350)), ("rectangle", (50, 270, 350, 350)))
    points = read(run(letter)).points
    upper_right = ((points[:, 0] > 0.1) & (points[:, 2] > 0)).sum()
    lower_right = ((points[:, 0] > 0.1) & (points[:, 2] < 0)).sum()
    assert upper_right == 0 and lower_right > 100


def test_a_disc_becomes_a_round_body() -> None:
    disc, _ = SHAPES["disc"]
    model = read(run(disc, decimation_target=20000))
    extent = np.ptp(model.points, axis=0)
    assert extent[0] == pytest.approx(extent[2], rel=0.01)
    # An ellipsoid with these axes.
    assert volume(model) == pytest.approx(np.pi / 6 * np.prod(extent), rel=0.03)


@pytest.mark.parametrize("target", [5000, 20000, 60000])
def test_the_merged_mesh_has_nearly_as_many_vertices_as_allowed(target: int) -> None:
    disc, _ = SHAPES["disc"]
    points, _ = read(run(disc, resolution=1024, decimation_target=target)).merged()
    assert 0.6 * target < len(points) <= target


def test_a_picture_without_background_becomes_a_plate() -> None:
    grain = np.random.default_rng(1).integers(0, 255, (40, 60, 3), np.uint8)
    whole = Image.fromarray(grain).resize((480, 320), Image.Resampling.NEAREST)
    model = read(run(whole))
    assert_solid(model, 0)
    assert np.ptp(model.points[:, 1]) < 0.2
    assert np.ptp(model.points[:, 2]) == pytest.approx(np.ptp(model.points[:, 0]) * 2 / 3, rel=0.02)


@pytest.mark.parametrize("name", ["disc", "ring", "star"])
@pytest.mark.parametrize("noise", [0, 6])
def test_an_opaque_photo_gives_the_same_silhouette(name: str, noise: float) -> None:
    picture, genus = SHAPES[name]
    model = read(run(photo(picture, noise)))
    assert_solid(model, genus)
    wanted = outline(picture.getchannel("A"), 400)
    assert union(projected(model, 0, 2, 1, 400), wanted) > 0.95


def box_view(width: int, height: int, scale: float = 1) -> Image.Image:
    size = round(400 * scale)
    half = (width * scale / 2, height * scale / 2)
    corners = (
        size / 2 - half[0],
        size / 2 - half[1],
        size / 2 + half[0] - 1,
        size / 2 + half[1] - 1,
    )
    return cutout(("rectangle", corners), size=(size, size))


def test_a_photo_with_wall_floor_and_shadow_gives_its_subject_alone() -> None:
    """The rocket of the examples. Its shadow falls to the right, over a floor of another colour than the wall."""
    photo = Image.open(REPOSITORY / "docs" / "images" / "rocket-photo.jpg").convert("RGB")
    subject = separate(photo)
    assert subject is not None
    rows, columns = subject.shape
    there = subject > 0.5
    assert 0.18 < there.mean() < 0.20
    left, right = np.flatnonzero(there.any(0))[[0, -1]] / columns
    top, bottom = np.flatnonzero(there.any(1))[[0, -1]] / rows
    assert abs(np.array([left, right, top, bottom]) - [0.30, 0.70, 0.12, 0.90]).max() < 0.02
    # between the fins, floor in the deepest shadow; and the fin in front of it
    assert not there[int(0.885 * rows), int(0.58 * columns)]
    assert there[int(0.87 * rows), int(0.495 * columns)]


def test_a_subject_of_its_shadow_s_colour_is_not_lost() -> None:
    """Light grey on white, in a shadow that is as grey in places: rather the shadow too than nothing."""
    picture = Image.new("RGB", (600, 600), (240, 240, 240))
    ImageDraw.Draw(picture).ellipse((180, 420, 480, 470), fill=(180, 180, 180))
    picture = picture.filter(ImageFilter.GaussianBlur(18))
    truth = Image.new("L", picture.size)
    for image, colour in ((picture, (200, 200, 200)), (truth, 255)):
        ImageDraw.Draw(image).ellipse((160, 120, 440, 450), fill=colour)
    noise = np.random.default_rng(1).normal(0, 3, (600, 600, 3))
    picture = Image.fromarray(np.clip(np.asarray(picture) + noise, 0, 255).astype(np.uint8))
    found = separate(picture)
    assert found is not None
    assert union(found > 0.5, np.asarray(truth) > 127) > 0.8


@pytest.mark.parametrize("views", [2, 3, 4])
def test_the_hull_of_a_box_is_the_box(views: int) -> None:
    """Views of different sizes are brought to one height."""
    pictures = [box_view(160, 300), box_view(80, 300, 1.5), box_view(160, 300), box_view(80, 300)]
    model = read(run(*pictures[:views]))
    assert_solid(model, 0)
    assert overlap(model, 1024) == 0
    assert np.ptp(model.points, axis=0) == pytest.approx([160 / 300, 80 / 300, 1], abs=0.01)
    assert volume(model) == pytest.approx(160 * 80 / 300**2, rel=0.04)


def test_the_hull_of_a_lying_cylinder() -> None:
    """Its axis along Y: a disc from the front, a rectangle from the side."""
    disc = cutout(("ellipse", (50, 50, 350, 350)))
    side = box_view(200, 300)
    model = read(run(disc, side, disc, side))
    assert_solid(model, 0)
    assert volume(model) == pytest.approx(np.pi / 4 * 200 / 300, rel=0.05)


def test_the_hull_of_an_angle_keeps_its_notch() -> None:
    """An L seen from the front, its foot to the right, which is the left in the picture of the back."""
    front = cutout(("rectangle", (50, 50, 149, 349)), ("rectangle", (50, 250, 349, 349)))
    back = front.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    side = box_view(150, 300)
    model = read(run(front, side, back, side))
    assert_solid(model, 0)
    assert volume(model) == pytest.approx((300 * 100 + 100 * 200) * 150 / 300**3, rel=0.05)
    notch = (model.points[:, 0] > -0.1) & (model.points[:, 2] > -0.1)
    assert not notch.any()


def test_the_hull_of_a_ball_is_round() -> None:
    disc = cutout(("ellipse", (50, 50, 350, 350)))
    model = read(run(disc, disc, disc, disc))
    assert_solid(model, 0)
    assert volume(model) == pytest.approx(np.pi / 6, rel=0.06)
    radius = np.linalg.norm(model.points, axis=1)
    assert radius.min() > 0.44 and radius.max() < 0.55


def test_the_right_view_shows_the_side_at_plus_x_with_the_back_on_its_right() -> None:
    """A foot that reaches to the left in the right view reaches towards the front, -Y."""
    side = cutout(("rectangle", (200, 50, 299, 349)), ("rectangle", (100, 270, 299, 349)))
    model = read(run(box_view(100, 300), side))
    low = model.points[model.points[:, 2] < -0.3]
    high = model.points[model.points[:, 2] > 0.1]
    assert low[:, 1].min() < high[:, 1].min() - 0.2
    assert low[:, 1].max() == pytest.approx(high[:, 1].max(), abs=0.02)


def test_a_contradicting_view_is_named_and_left_out() -> None:
    reports: list = []
    front, side = box_view(300, 300), box_view(100, 300)
    other = cutout(("rectangle", (50, 50, 349, 120)), ("rectangle", (180, 50, 220, 349)))
    model = read(run(front, side, other, reports=reports))
    assert any("back view" in report.message for report in reports)
    assert volume(model) == pytest.approx(1 / 3, rel=0.05)


def test_a_soft_grey_subject_is_not_taken_for_a_shadow() -> None:
    """Darker than the wall in the same hue and without a sharp edge, but there is nothing else."""
    soft = SHAPES["disc"][0].getchannel("A").filter(ImageFilter.GaussianBlur(12))
    picture = Image.new("RGB", soft.size, (210, 210, 210))
    picture.paste((120, 120, 120), mask=soft)
    assert_solid(read(run(picture)), 0)

# SPDX-License-Identifier: GPL-3.0-or-later
"""Images of the .blend reach the runner with the pixels that Blender shows, and stay as they are."""

import bpy
import numpy as np
import pytest
from PIL import Image

from blender_trellis.errors import ImageError
from blender_trellis.generation import images
from blender_trellis.ui import pictures

SIZE = 32


@pytest.fixture(autouse=True)
def empty_file():
    bpy.ops.wm.read_factory_settings(use_empty=True)


@pytest.fixture
def pixels():
    """Every row and column different, alpha too; top row first."""
    values = np.random.default_rng(5).integers(0, 256, (SIZE, SIZE, 4), dtype=np.uint8)
    values[..., 3] |= 1  # where nothing is visible, colour need not survive
    return values


def blender_image(values, *, linear=False):
    image = bpy.data.images.new("Bild 1.png", SIZE, SIZE, alpha=True, float_buffer=linear)
    image.pixels.foreach_set(values[::-1].astype(np.float32).ravel() / (1 if linear else 255))
    return image


def arrived(image, tmp_path):
    """What the runner reads."""
    path = pictures.write(pictures.from_image(image), tmp_path, 0)
    read = images.read(path, 4096)
    (tmp_path / "arrived.png").write_bytes(read.data)
    with Image.open(tmp_path / "arrived.png") as picture:
        return read.name, np.asarray(picture.convert("RGBA"))


def state(image):
    return (image.name, image.source, image.filepath, image.is_dirty, image.packed_file is None)


def test_a_generated_image_arrives_pixel_by_pixel(tmp_path, pixels):
    image = blender_image(pixels)
    before = state(image)
    name, found = arrived(image, tmp_path)
    assert (found == pixels).all() and name == "Bild 1.png"
    assert state(image) == before


def test_a_packed_image_arrives_though_its_file_is_gone(tmp_path, pixels):
    path = tmp_path / "packed.png"
    Image.fromarray(pixels).save(path)
    image = bpy.data.images.load(str(path))
    image.pack()
    path.unlink()
    assert (arrived(image, tmp_path)[1] == pixels).all()


def test_a_picture_file_is_sent_as_it_is(tmp_path, pixels):
    path = tmp_path / "Foto ä.png"
    Image.fromarray(pixels).save(path)
    assert pictures.from_image(bpy.data.images.load(str(path))) == path


def test_strokes_on_a_file_image_that_were_not_saved_arrive(tmp_path, pixels):
    path = tmp_path / "painted.png"
    Image.fromarray(pixels).save(path)
    image = bpy.data.images.load(str(path))
    painted = pixels.copy()
    painted[3, 5] = (255, 0, 10, 255)
    image.pixels.foreach_set(painted[::-1].astype(np.float32).ravel() / 255)
    image.update()
    assert image.is_dirty
    assert (arrived(image, tmp_path)[1] == painted).all()
    with Image.open(path) as file:
        assert (np.asarray(file) == pixels).all()


def test_a_float_image_is_shown_in_srgb_with_straight_alpha(tmp_path, pixels):
    """Scene linear and premultiplied in memory, as Blender keeps float images."""
    srgb, alpha = pixels[..., :3] / 255, pixels[..., 3:] / 255
    low, high = srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4
    linear = np.where(srgb <= 0.04045, low, high)
    image = blender_image(np.concatenate([linear * alpha, alpha], -1), linear=True)
    _, found = arrived(image, tmp_path)
    assert (found == pixels).all()


def test_a_channel_that_is_no_alpha_is_left_out(tmp_path, pixels):
    pixels[..., 3] = 0
    image = blender_image(pixels)
    image.alpha_mode = "CHANNEL_PACKED"
    _, found = arrived(image, tmp_path)
    assert (found[..., :3] == pixels[..., :3]).all() and (found[..., 3] == 255).all()


def test_a_grey_file_in_a_format_that_is_not_sent_goes_through_its_pixels(tmp_path):
    image = bpy.data.images.new("hell", SIZE, SIZE, float_buffer=True, is_data=True)
    image.pixels.foreach_set(np.tile(np.float32((0.25, 0.25, 0.25, 1)), SIZE * SIZE))
    image.filepath_raw, image.file_format = str(tmp_path / "hell.exr"), "OPEN_EXR"
    image.save()
    loaded = bpy.data.images.load(str(tmp_path / "hell.exr"))
    name, found = arrived(loaded, tmp_path)
    assert name == "hell.png"
    assert (found == (137, 137, 137, 255)).all()  # 0.25 in sRGB: 1.055 · 0.25^(1/2.4) − 0.055


def test_an_image_without_pixels_is_refused_in_words(tmp_path, pixels):
    path = tmp_path / "gone.png"
    Image.fromarray(pixels).save(path)
    image = bpy.data.images.load(str(path))
    path.unlink()
    with pytest.raises(ImageError, match=r"gone\.png has no pixels.*Save"):
        pictures.from_image(image)


@pytest.mark.parametrize("name", ["a/b:c", "../../etc", "猫.001", " "])
def test_no_name_of_an_image_leaves_its_folder(tmp_path, pixels, name):
    image = blender_image(pixels)
    image.name = name
    path = pictures.write(pictures.from_image(image), tmp_path, 0)
    assert path.parent == tmp_path / "0" and path.suffix == ".png" and path.is_file()

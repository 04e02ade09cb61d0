# SPDX-License-Identifier: GPL-3.0-or-later
"""Input pictures of every kind, and every kind of bad one."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms, ImageDraw

from blender_trellis.errors import ImageError
from blender_trellis.generation import images
from blender_trellis.pixels.cutout import separate

PHOTO = Path(__file__).parents[2] / "docs" / "images" / "rocket-photo.jpg"  # in front of a wall


def _read(path: Path, max_side: int = 2048) -> Image.Image:
    read = images.read(path, max_side)
    picture = Image.open(io.BytesIO(read.data))
    assert picture.format == "PNG"
    assert (read.width, read.height) == picture.size
    return picture


def _two_halves(mode: str = "RGB") -> Image.Image:
    """64×32, red on the left, green on the right."""
    picture = Image.new("RGB", (64, 32), (200, 0, 0))
    picture.paste((0, 200, 0), (32, 0, 64, 32))
    return picture.convert(mode)


def test_exif_rotation_is_applied_and_metadata_dropped(tmp_path: Path) -> None:
    path = tmp_path / "turned.jpg"
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: shown 90° clockwise
    exif[0x010F] = "a camera's name"
    _two_halves().save(path, exif=exif, quality=95)
    picture = _read(path)
    assert picture.size == (32, 64)
    red, green = picture.getpixel((16, 8)), picture.getpixel((16, 56))
    assert red[0] > 150 > red[1] and green[1] > 150 > green[0]
    assert not picture.getexif()
    assert (
        b"a camera's name"
        not in path.with_suffix(".png").name.encode() + images.read(path, 64).data
    )


@pytest.mark.parametrize("mode", ["P", "CMYK", "L", "1", "YCbCr"])
def test_modes_without_alpha_become_rgb(tmp_path: Path, mode: str) -> None:
    path = tmp_path / "mode.tif"
    source = _two_halves(mode) if mode != "1" else _two_halves("L").convert("1")
    source.save(tmp_path / "mode.png" if mode in ("P", "L", "1") else path)
    path = path if path.exists() else tmp_path / "mode.png"
    picture = _read(path)
    assert picture.mode == "RGB"
    expected = source.convert("RGB")
    for x in (8, 56):
        assert all(
            abs(a - b) <= 2
            for a, b in zip(picture.getpixel((x, 16)), expected.getpixel((x, 16)), strict=True)
        )


def test_palette_with_transparency_keeps_it(tmp_path: Path) -> None:
    path = tmp_path / "palette.png"
    picture = Image.new("P", (40, 40), 0)
    picture.putpalette([255, 0, 0, 0, 0, 255])
    picture.paste(1, (10, 10, 30, 30))
    picture.save(path, transparency=0)
    read = _read(path)
    assert read.mode == "RGBA"
    assert read.getpixel((2, 2))[3] == 0
    assert read.getpixel((20, 20)) == (0, 0, 255, 255)


def test_grey_with_alpha_keeps_it(tmp_path: Path) -> None:
    path = tmp_path / "la.png"
    picture = Image.new("LA", (32, 32), (120, 0))
    picture.paste((120, 255), (8, 8, 24, 24))
    picture.save(path)
    read = _read(path)
    assert read.mode == "RGBA"
    assert read.getpixel((16, 16)) == (120, 120, 120, 255)
    assert read.getpixel((1, 1))[3] == 0


def test_opaque_alpha_is_dropped(tmp_path: Path) -> None:
    path = tmp_path / "opaque.png"
    _two_halves("RGBA").save(path)
    assert _read(path).mode == "RGB"


def test_sixteen_bit_grey_is_scaled_not_clipped(tmp_path: Path) -> None:
    path = tmp_path / "deep.png"
    picture = Image.new("I;16", (32, 32), 0x4040)
    picture.paste(0xC0C0, (16, 0, 32, 32))
    picture.save(path)
    read = _read(path)
    assert abs(read.getpixel((4, 4))[0] - 0x40) <= 1
    assert abs(read.getpixel((28, 4))[0] - 0xC0) <= 1


def test_float_picture_is_scaled_by_its_range(tmp_path: Path) -> None:
    path = tmp_path / "float.tif"
    picture = Image.new("F", (32, 32), 0.0)
    picture.paste(2.0, (16, 0, 32, 32))
    picture.save(path)
    read = _read(path)
    assert read.getpixel((4, 4)) == (0, 0, 0)
    assert read.getpixel((28, 4)) == (255, 255, 255)


@pytest.mark.parametrize("suffix", ["gif", "webp", "png"])
def test_first_frame_of_an_animation(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"moving.{suffix}"
    frames = [Image.new("RGB", (32, 32), colour) for colour in ((255, 0, 0), (0, 0, 255))]
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=50)
    red = _read(path).getpixel((16, 16))
    assert red[0] > 240 and red[2] < 15


def test_colours_by_the_embedded_profile(tmp_path: Path) -> None:
    """A picture in another RGB space looks the same afterwards in sRGB."""
    path = tmp_path / "lab.tif"
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))
    data = bytearray(profile.tobytes())
    # exchange the red and green primaries' tags: what was stored as red is green now
    at = {bytes(data[i : i + 4]): i for i in range(132, 132 + 12 * 20, 12)}
    red, green = at[b"rXYZ"], at[b"gXYZ"]
    data[red : red + 4], data[green : green + 4] = b"gXYZ", b"rXYZ"
    Image.new("RGB", (32, 32), (220, 10, 10)).save(path, icc_profile=bytes(data))
    seen = _read(path).getpixel((16, 16))
    assert seen[1] > 150 > seen[0]


def test_scaled_down_to_what_the_endpoint_uses(tmp_path: Path) -> None:
    path = tmp_path / "large.jpg"
    _two_halves().resize((1200, 600)).save(path)
    assert _read(path, 300).size == (300, 150)
    assert _read(path, 2048).size == (1200, 600)


def test_scaling_does_not_darken_the_rim_of_the_subject(tmp_path: Path) -> None:
    path = tmp_path / "rim.png"
    picture = Image.new("RGBA", (400, 400), (0, 0, 0, 0))
    picture.paste((255, 255, 255, 255), (100, 100, 303, 303))
    picture.save(path)
    read = _read(path, 100)
    rim = [read.getpixel((x, 50)) for x in range(100)]
    assert all(pixel[0] > 250 for pixel in rim if pixel[3] > 8)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("missing.png", None, "There is no image"),
        ("A" * 5000 + "#.png", None, "AAAA. Check the path."),
        ("text.png", b"I am not a picture.\n" * 50, "is not a picture that can be read"),
        ("empty.png", b"", "is empty (0 bytes)"),
        ("nul.png", bytes(1000), "is not a picture"),
    ],
)
def test_files_that_are_no_pictures(
    tmp_path: Path, name: str, content: bytes | None, words: str
) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ImageError) as caught:
        images.read(path, 2048)
    assert words in str(caught.value)


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tif", "bmp", "gif"])
def test_truncated_pictures(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"cut.{suffix}"
    Image.effect_noise((200, 200), 90).convert("RGB").save(path)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(ImageError):
        images.read(path, 2048)


def test_too_small(tmp_path: Path) -> None:
    path = tmp_path / "dot.png"
    Image.new("RGB", (1, 1)).save(path)
    with pytest.raises(ImageError, match=r"dot.png has 1×1 pixels; at least 16×16 are needed"):
        images.read(path, 2048)


@pytest.mark.parametrize("side", [9000, 10_000, 30_000])
def test_too_many_pixels_are_refused_unread(tmp_path: Path, side: int) -> None:
    """Only the header is made: the pixels would need gigabytes."""
    import struct
    import zlib

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    path = tmp_path / "huge.png"
    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b""))
        + chunk(b"IEND", b"")
    )
    with pytest.raises(ImageError, match="too many pixels; at most 80 megapixels"):
        images.read(path, 2048)


def test_wholly_transparent(tmp_path: Path) -> None:
    path = tmp_path / "nothing.png"
    Image.new("RGBA", (64, 64), (255, 0, 0, 0)).save(path)
    with pytest.raises(ImageError, match="wholly transparent"):
        images.read(path, 2048)


def test_a_folder(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="is a folder"):
        images.read(tmp_path, 2048)


def _flowers(width: int, height: int) -> Image.Image:
    """Spots of all colours, nowhere plain."""
    spots = np.random.default_rng(1).integers(0, 255, (30, 40, 3), dtype=np.uint8)
    return Image.fromarray(spots).resize((width, height), Image.Resampling.BICUBIC)


def _opened(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data))


def test_an_opaque_picture_is_cut_out_where_that_is_wanted_and_only_there() -> None:
    """The subject of the photo is 40 % of its width and 78 % of its height."""
    whole, cut = images.read(PHOTO, 2048), images.read(PHOTO, 2048, cut_out=True)
    assert (whole.cut, whole.opaque, _opened(whole.data).mode) == (False, True, "RGB")
    assert (cut.cut, cut.opaque, _opened(cut.data).mode) == (True, False, "RGBA")
    assert cut.width / whole.width == pytest.approx(0.45, abs=0.02)
    assert cut.height / whole.height == pytest.approx(0.83, abs=0.02)


def test_a_cut_out_has_the_colours_of_the_picture_and_room_around_it(tmp_path: Path) -> None:
    path = tmp_path / "disc.png"
    picture = Image.new("RGB", (400, 300), (230, 230, 235))
    ImageDraw.Draw(picture).ellipse((100, 80, 219, 199), fill=(180, 40, 20))
    picture.save(path)
    cut = _opened(images.read(path, 2048, cut_out=True).data)
    assert cut.size == (130, 130)
    assert cut.getpixel((65, 65)) == (180, 40, 20, 255)
    assert all(cut.getpixel(corner)[3] == 0 for corner in [(0, 0), (129, 0), (0, 129), (129, 129)])
    left, top, right, bottom = cut.getchannel("A").point(lambda a: 255 * (a > 127)).getbbox()
    assert max(abs(left - 5), abs(top - 5), abs(right - 125), abs(bottom - 125)) <= 1


def test_a_small_subject_of_a_large_picture_keeps_its_pixels(tmp_path: Path) -> None:
    """It is cropped before it is scaled down."""
    path = tmp_path / "far away.png"
    picture = Image.new("RGB", (2000, 1000), (230, 230, 235))
    ImageDraw.Draw(picture).ellipse((900, 300, 1299, 699), fill=(180, 40, 20))
    picture.save(path)
    assert images.read(path, 512, cut_out=True).width == pytest.approx(428, abs=4)


@pytest.mark.parametrize("cut_out", [False, True])
def test_a_picture_that_is_transparent_already_is_sent_as_ever(
    tmp_path: Path, picture: Path, cut_out: bool
) -> None:
    read = images.read(picture, 2048, cut_out=cut_out)
    assert _opened(read.data).tobytes() == Image.open(picture).tobytes()
    assert (read.cut, read.opaque) == (False, False)


def test_where_no_background_can_be_told_apart_the_picture_stays_whole(tmp_path: Path) -> None:
    path = tmp_path / "market.png"
    _flowers(200, 200).save(path)
    read = images.read(path, 2048, cut_out=True)
    assert (read.cut, read.opaque) == (False, True)
    assert read.data == images.read(path, 2048).data


def test_a_picture_of_which_only_a_part_is_plain_stays_whole(tmp_path: Path) -> None:
    """Sky above a meadow: the meadow is no subject."""
    path = tmp_path / "outdoors.png"
    picture = _flowers(400, 300)
    picture.paste((150, 190, 240), (0, 0, 400, 150))
    picture.save(path)
    with Image.open(path) as whole:
        assert separate(whole) is not None
    assert images.read(path, 2048, cut_out=True).opaque


@pytest.mark.parametrize(("margin", "share"), [(0.0, 1.0), (0.25, 2 / 3)])
def test_a_model_sees_the_subject_in_the_middle_of_a_square(
    tmp_path: Path, margin: float, share: float
) -> None:
    path = tmp_path / "plank.png"
    picture = Image.new("RGBA", (400, 300))
    picture.paste((10, 200, 30, 255), (20, 30, 180, 70))
    picture.save(path)
    seen = _opened(images.seen(images.read(path, 2048), margin, 240))
    assert seen.size == (240, 240)
    assert seen.getpixel((120, 120)) == (10, 200, 30, 255)
    left, top, right, bottom = seen.getchannel("A").point(lambda a: 255 * (a > 127)).getbbox()
    assert right - left == pytest.approx(240 * share, abs=3)
    assert bottom - top == pytest.approx(60 * share, abs=3)
    assert (left + right) / 2 == pytest.approx(120, abs=2)


def test_an_opaque_picture_is_seen_whole(tmp_path: Path) -> None:
    path = tmp_path / "wide.png"
    _two_halves().save(path)
    seen = _opened(images.seen(images.read(path, 2048), 0.25, 128))
    solid = seen.getchannel("A").point(lambda a: 255 * (a > 127))
    assert solid.getbbox() == (0, 32, 128, 96)
    assert seen.getpixel((10, 64))[0] == 200 and seen.getpixel((120, 64))[1] == 200

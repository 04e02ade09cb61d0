# SPDX-License-Identifier: GPL-3.0-or-later
"""Input images: any picture that Pillow reads becomes an upright 8-bit RGB or RGBA PNG without metadata.

Metadata goes because a photo's may hold the place where it was taken. A picture is given as a file, as a data URI or as bare
base64; a URL, or the id of an upload, is a reference that goes to the service as it is.
"""

from __future__ import annotations

import base64
import contextlib
import io
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from PIL import Image, ImageCms, ImageOps, UnidentifiedImageError

from ..errors import ImageError

FORMATS = ("PNG", "JPEG", "WEBP", "TIFF", "BMP", "GIF", "TGA", "AVIF")
MAX_BYTES = 256 * 2**20
MAX_PIXELS = 80_000_000  # below the number from which Pillow itself suspects a decompression bomb
MIN_SIDE = 16
_URL = re.compile(r"\s*https?:", re.IGNORECASE)
_UUID = re.compile("[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)
_BASE64 = re.compile("[A-Za-z0-9+/]+={0,2}")
_SHORTEST_BASE64 = 260  # characters; no picture is smaller, and few paths are longer


@dataclass(frozen=True)
class InputImage:
    """A picture as it is sent: `data` is a PNG of `width` × `height` pixels.

    `cut`: it was cut out here. `opaque`: nothing of it is transparent, so whoever makes the model cuts it out.
    """

    name: str
    data: bytes
    width: int
    height: int
    cut: bool
    opaque: bool


def reference(given: str) -> str | None:
    """What kind of reference this is: "url", "uuid", or None if it is a file's path or the picture itself."""
    if _URL.match(given):
        return "url"
    return "uuid" if _UUID.fullmatch(given) and not Path(given).exists() else None


def name_of(given: str) -> str:
    """What to call the picture that was given as `given`."""
    kind = reference(given)
    if kind == "url":
        with contextlib.suppress(ValueError):  # else it is no address, as its host will say
            return unquote(urlsplit(given).path.rpartition("/")[2]) or "picture"
        return "picture"
    return given if kind else "picture" if _embedded(given) is not None else Path(given).name


def _embedded(given: str) -> bytes | None:
    """The file in a data URI or in bare base64; None if `given` is neither."""
    head, comma, text = given.partition(",")
    is_uri = head.startswith("data:") and bool(comma)
    # A path is shorter, and names a file
    if not is_uri and (len(given) < _SHORTEST_BASE64 or not _BASE64.fullmatch(given)):
        return None
    try:
        return base64.b64decode(text if is_uri else given, validate=True)
    except ValueError as error:
        raise ImageError(f"The picture's base64 text is broken: {error}.") from error


def read(given: Path | str, max_side: int, *, cut_out: bool = False) -> InputImage:
    """The picture in a file, a data URI or base64 text, converted, and scaled down to `max_side` pixels.

    `cut_out`: if nothing of it is transparent its background is taken away, and it is cropped to its subject. It stays as it is
    where no background can be told apart.

    Raises:
        ImageError: there is no such file, it is no picture, it is broken, or nothing can be seen on it.
    """
    data = _embedded(given) if isinstance(given, str) else None
    path = Path(given) if data is None else None
    name = path.name if path else "picture"
    if path:
        check_file(path)
    else:
        check_bytes(name, len(data or b""))
    with _opened(name, path or io.BytesIO(data or b"")) as image:
        # Lets the JPEG decoder skip most of a much larger picture
        if not cut_out:
            image.draft("RGB", (max_side, max_side))
        picture = _convert(image)
    if picture.mode == "RGBA" and picture.getchannel("A").getextrema()[1] == 0:
        raise ImageError(
            f"{name} is wholly transparent. Use a picture on which the subject can be seen."
        )
    subject = _subject(picture) if cut_out and picture.mode == "RGB" else None
    picture = subject or picture
    if max(picture.size) > max_side:
        picture.thumbnail((max_side, max_side), Image.Resampling.LANCZOS, reducing_gap=3.0)
    out = io.BytesIO()
    picture.save(out, "PNG", compress_level=3)
    size = (picture.width, picture.height)
    return InputImage(name, out.getvalue(), *size, bool(subject), picture.mode == "RGB")


def glance(path: Path) -> None:
    """Refuse a file whose first bytes already show that it cannot be used.

    Raises:
        ImageError: why not. Whether all of it is whole, only `read` finds out.
    """
    check_file(path)
    with _opened(path.name, path):
        pass


@contextlib.contextmanager
def _opened(name: str, source: Path | io.BytesIO) -> Iterator[Image.Image]:
    """A picture of a size that can be read, and in words what goes wrong with it meanwhile."""
    try:
        with Image.open(source, formats=FORMATS) as image:
            _check_size(name, image.width, image.height)
            yield image
    except UnidentifiedImageError as error:
        known = ", ".join(FORMATS)
        raise ImageError(
            f"{name} is not a picture that can be read. Use one of {known}."
        ) from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise _too_many_pixels(name) from error
    except (OSError, ValueError, SyntaxError, EOFError) as error:  # Pillow's words for broken files
        raise ImageError(
            f"{name} cannot be read, it may be cut off or damaged: {error}."
        ) from error


def _subject(picture: Image.Image) -> Image.Image | None:
    from ..pixels.cutout import cut_out  # numpy, which few pictures need

    return cut_out(picture)


def seen(picture: InputImage, margin: float, side: int) -> bytes:
    """A PNG of `side` × `side` pixels that shows what a model makes of `picture`: its subject on nothing, in the middle.

    Around it are `margin` times its longer side. An opaque picture is shown whole, as nobody knows yet what will be cut out.
    """
    shown = Image.open(io.BytesIO(picture.data)).convert("RGBA")
    alpha = shown.getchannel("A").point(
        [0] * 205 + [255] * 51
    )  # solid is more than 0.8, as in TRELLIS
    left, top, right, bottom = alpha.getbbox() or (0, 0, *shown.size)
    half = (0.5 + (0 if picture.opaque else margin)) * max(right - left, bottom - top)
    x, y = (left + right) / 2, (top + bottom) / 2
    box = (round(x - half), round(y - half), round(x + half), round(y + half))
    square = shown.crop(box).resize((side, side), Image.Resampling.LANCZOS, reducing_gap=3.0)
    out = io.BytesIO()
    square.save(out, "PNG", compress_level=1)
    return out.getvalue()


def check_file(path: Path) -> None:
    """Refuse a file that cannot be a picture, unread: an ImageError."""
    if path == Path():
        raise ImageError("The image has no name. Give the path of a picture.")
    try:
        size = path.stat().st_size
    except (OSError, ValueError) as error:  # or it is no path at all, as base64 that is broken
        raise ImageError(f"There is no image {str(path)[:300]}. Check the path.") from error
    if path.is_dir():
        raise ImageError(f"{path} is a folder. Give the image file itself.")
    check_bytes(path.name, size)


def check_bytes(name: str, size: int) -> None:
    """Refuse what is too large to be read, or nothing at all: an ImageError."""
    if size == 0:
        raise ImageError(f"{name} is empty (0 bytes). Save the picture again.")
    if size > MAX_BYTES:
        raise ImageError(
            f"{name} has {size / 2**20:.0f} MiB; at most {MAX_BYTES >> 20} MiB can be read."
        )


def _too_many_pixels(name: str) -> ImageError:
    return ImageError(
        f"{name} has too many pixels; at most {MAX_PIXELS // 10**6} megapixels can be read. Scale it down."
    )


def _check_size(name: str, width: int, height: int) -> None:
    if width * height > MAX_PIXELS:
        raise _too_many_pixels(name)
    if min(width, height) < MIN_SIDE:
        raise ImageError(
            f"{name} has {width}×{height} pixels; at least {MIN_SIDE}×{MIN_SIDE} are needed. Use a larger picture."
        )


def _convert(image: Image.Image) -> Image.Image:
    """The first frame, upright, in sRGB, 8 bits a channel, alpha kept if it hides anything: RGBA, else RGB."""
    profile = image.info.get("icc_profile")
    picture = ImageOps.exif_transpose(image)
    if picture.mode.startswith("I") or picture.mode == "F":
        picture = _to_8_bit(picture)
    alpha = None
    if picture.has_transparency_data:
        picture = picture.convert("RGBA") if picture.mode not in ("RGBA", "LA") else picture
        alpha = picture.getchannel("A")
        picture = picture.convert("RGB" if picture.mode == "RGBA" else "L")
    picture = _to_srgb(picture, profile)
    if alpha is not None and alpha.getextrema() != (255, 255):
        picture.putalpha(alpha)
    return picture


def _to_8_bit(picture: Image.Image) -> Image.Image:
    """16-bit grey to 8-bit; 32-bit and float ones by their own range, since no file says what white is."""
    if picture.mode.startswith("I;16"):
        picture = picture.convert("I")
        low, high = 0.0, 65535.0
    else:
        low, high = (float(edge) for edge in picture.getextrema())  # type: ignore[arg-type]
        low, high = (
            (0.0, 65535.0) if picture.mode == "I" and low >= 0 and high > 255 else (low, high)
        )
    scale = 255.0 / (high - low) if high > low else 1.0
    return picture.convert("F").point(lambda value: value * scale - low * scale).convert("L")


def _to_srgb(picture: Image.Image, profile: bytes | None) -> Image.Image:
    """Colours by the embedded profile (phones write Display P3), or as Pillow converts the mode."""
    if profile and picture.mode in ("RGB", "L", "CMYK"):
        try:
            source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            target = ImageCms.createProfile("sRGB")
            converted = ImageCms.profileToProfile(picture, source, target, outputMode="RGB")
            if converted is not None:
                return converted
        except ImageCms.PyCMSError:
            pass  # a broken profile, or one for another mode: the picture is still good
    return picture.convert("RGB")

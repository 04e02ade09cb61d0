# SPDX-License-Identifier: GPL-3.0-or-later
"""Input pictures: a picture file stays where it is, an image of the .blend becomes a temporary PNG with the same pixels, and
what was pasted, captured or rendered, which has no file yet, a lasting one.

`take` is the main thread's part and only copies; `write` may run in any thread, and encodes.
"""

from __future__ import annotations

import contextlib
import re
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ..errors import ImageError

if TYPE_CHECKING:
    import bpy

# What Blender calls the formats that a file can be sent in as it is; others go through their pixels.
_AS_THEY_ARE = {"PNG", "JPEG", "WEBP", "TIFF", "BMP", "TARGA", "TARGA_RAW"}
_NO_ALPHA = {
    "NONE",
    "CHANNEL_PACKED",
}  # the fourth channel is nothing, or something else than alpha


class Packed(NamedTuple):
    """A picture file that lies inside the .blend."""

    name: str
    data: bytes


class Pixels(NamedTuple):
    """An image's pixels, bottom row first: sRGB where it has 8 bits, scene linear and premultiplied where it is float."""

    name: str
    width: int
    height: int
    channels: int
    linear: bool
    opaque: bool
    data: array[float]


class Remote(NamedTuple):
    """A picture on the web, kept in `folder` once it was fetched, which needs to be `online`."""

    url: str
    folder: Path
    online: bool


Picture = Path | Packed | Pixels | Remote


def on_the_web(filepath: str) -> bool:
    """Whether the path of a picture is an address."""
    return filepath.startswith(("https://", "http://"))


def of(item: Any) -> Picture:
    """What is needed to send one of the scene's pictures.

    Raises:
        ImageError: it has no pixels.
    """
    return from_image(item.image) if item.image else from_file(item.filepath)


def from_file(filepath: str) -> Path | Remote:
    """The picture file at a path that may be relative to the .blend, or at an address."""
    import bpy

    if on_the_web(filepath):
        return Remote(filepath, _home() / "pictures", bpy.app.online_access)
    return Path(bpy.path.abspath(filepath))


def _home() -> Path:
    from . import preferences

    return preferences.config().home


def keep(picture: Packed | Pixels) -> Path:
    """Keep a picture that has no file yet, as a .blend may be opened again long after; the same picture is kept once.

    Raises:
        StorageError: the folder cannot be written.
    """
    import hashlib
    import tempfile

    from ..generation.library import storage_error

    folder = _home() / "pictures"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".keep-", dir=folder) as scratch:
            path = write(picture, Path(scratch), 0)
            place = folder / hashlib.sha256(path.read_bytes()).hexdigest()[:16]
            place.mkdir(exist_ok=True)
            return path.replace(place / path.name)
    except OSError as error:
        raise storage_error(error, folder) from error


def from_image(image: bpy.types.Image) -> Picture:
    """What is needed to send `image`, which stays as it is.

    Raises:
        ImageError: it has no pixels.
    """
    import bpy

    width, height = _size(image)  # loads it: before, its format is not known
    as_it_is = (
        image.source == "FILE"
        and not image.is_dirty
        and image.file_format in _AS_THEY_ARE
        and image.alpha_mode not in _NO_ALPHA
    )
    if as_it_is and image.packed_file:
        return Packed(image.name, bytes(image.packed_file.data))
    path = Path(bpy.path.abspath(image.filepath, library=image.library))
    if as_it_is and image.filepath and path.is_file():
        return path
    pixels: Any = image.pixels
    length = len(pixels)
    if not length:
        raise ImageError(
            f"The image {image.name} has no pixels: its file is missing, or it is a render result. "
            "Save it as a file and open that."
        )
    data = array("f", [0.0]) * length
    pixels.foreach_get(data)
    opaque = image.alpha_mode in _NO_ALPHA
    return Pixels(image.name, width, height, image.channels, image.is_float, opaque, data)


def rendered(image: bpy.types.Image, scene: bpy.types.Scene) -> Path:
    """A lasting file with the last render, as it is shown: the scene's view transform is in it, and alpha where it has one.

    Raises:
        ImageError: there is no render any more.
        StorageError: the file cannot be kept.
    """
    import tempfile

    with tempfile.TemporaryDirectory(prefix="trellis-render-") as folder:
        path = Path(folder) / "render.png"
        try:
            with _as_png(scene.render.image_settings):
                image.save_render(str(path), scene=scene)
        except RuntimeError as error:
            raise ImageError(
                f"There is no render to be used. Render an image first ({error})."
            ) from error
        return keep(Packed("Render", path.read_bytes()))


@contextlib.contextmanager
def _as_png(settings: Any) -> Iterator[None]:
    """The render's file format, which `save_render` goes by, for a moment."""
    wanted = {"file_format": "PNG", "color_mode": "RGBA", "color_depth": "8"}
    # Of Blender 5.0 and newer; the others depend on it
    if "media_type" in settings.bl_rna.properties:
        wanted = {"media_type": "IMAGE", **wanted}
    before = {name: getattr(settings, name) for name in wanted}
    try:
        for name, value in wanted.items():
            setattr(settings, name, value)
        yield
    finally:
        for name, value in before.items():
            setattr(settings, name, value)


def _size(image: Any) -> tuple[int, int]:
    return image.size[0], image.size[1]


def write(picture: Picture, folder: Path, number: int) -> Path:
    """The picture as a file, written to a folder of its own in `folder` where it is none yet.

    Raises:
        ImageError: it cannot be fetched.
    """
    if isinstance(picture, Path):
        return picture
    if isinstance(picture, Remote):
        from ..generation.fetch import fetch

        return fetch(picture.url, picture.folder, online=picture.online)
    place = folder / str(number)
    place.mkdir()
    # The job is called after the file
    stem = re.sub(r"\.(png|jpe?g|webp|tiff?|bmp|tga|exr|hdr)$", "", picture.name, flags=re.I)
    safe = re.sub(r"[^\w .()-]+", "_", stem)[:80] or "image"
    path = place / f"{safe}.png"
    if isinstance(picture, Packed):
        path.write_bytes(picture.data)
    else:
        _encode(picture, path)
    return path


def _encode(picture: Pixels, path: Path) -> None:
    import numpy as np
    from PIL import Image

    shape = (picture.height, picture.width, picture.channels)
    values = np.frombuffer(picture.data, np.float32).reshape(shape)[::-1]
    colour, alpha = values, None
    if picture.channels in (2, 4):
        colour, alpha = values[..., :-1], values[..., -1:]
    if picture.linear:
        if alpha is not None and not picture.opaque:
            colour = colour / np.maximum(alpha, 1e-6)
        colour = np.clip(colour, 0.0, 1.0)
        # IEC 61966-2-1
        colour = np.where(colour <= 0.0031308, colour * 12.92, 1.055 * colour ** (1 / 2.4) - 0.055)
    if colour.shape[-1] == 1:
        colour = np.repeat(colour, 3, axis=-1)
    if alpha is not None and not picture.opaque:
        colour = np.concatenate([colour, alpha], axis=-1)
    pixels = (np.clip(colour, 0.0, 1.0) * 255.0 + 0.5).astype(np.uint8)
    Image.fromarray(np.ascontiguousarray(pixels)).save(path, compress_level=1)

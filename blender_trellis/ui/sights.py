# SPDX-License-Identifier: GPL-3.0-or-later
"""How a model will see a picture: made in the clerk's thread by the code that prepares what is sent, and kept by content."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from ..errors import TrellisError
from .pictures import Picture, write

_PIXELS = 512
_KEPT = 256  # files; the oldest go
# Goes into the files' names, so that those of another version are made again
_VERSION = 1
CUT, TRANSPARENT, WHOLE = KINDS = ("cut", "transparent", "whole")


class Wish(NamedTuple):
    """What is done with a picture before it is sent, and what the model leaves around its subject."""

    side: int
    margin: float
    cut_out: bool


class Sight(NamedTuple):
    """A picture as it will be seen: the file to show, and how it came to be, one of `KINDS`; or why it cannot be used.

    `stamp` is the source file's time and size: while they are the same, so is all else.
    """

    path: str = ""
    kind: str = ""
    error: str = ""
    stamp: tuple[int, int] | None = None


def look(picture: Picture, wish: Wish, home: Path, known: Sight | None) -> Sight:
    """How `picture` will be seen; never raises because of the picture. `known` is how it was seen before."""
    import tempfile

    try:
        with tempfile.TemporaryDirectory(prefix="trellis-look-") as scratch:
            path = write(picture, Path(scratch), 0)
            stamp = _stamp(path) if path.is_file() else None
            if known and stamp and known.stamp == stamp:
                return known
            found, kind = _seen(path, wish, home / "seen")
            return Sight(str(found), kind, stamp=stamp)
    except TrellisError as error:
        return Sight(error=error.message)
    except OSError as error:
        return Sight(error=f"The picture cannot be prepared: {error}.")


def _stamp(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_mtime_ns, status.st_size


def _seen(path: Path, wish: Wish, folder: Path) -> tuple[Path, str]:
    import hashlib

    from ..generation import images
    from ..home import atomic_write

    images.check_file(path)
    digest = hashlib.sha256(repr((_VERSION, _PIXELS, *wish)).encode())
    with path.open("rb") as file:
        digest.update(hashlib.file_digest(file, "sha256").digest())
    name = digest.hexdigest()
    places = {kind: folder / f"{name}.{kind}.png" for kind in KINDS}
    for kind, place in places.items():
        if place.exists():
            return place, kind
    read = images.read(path, wish.side, cut_out=wish.cut_out)
    kind = CUT if read.cut else WHOLE if read.opaque else TRANSPARENT
    folder.mkdir(parents=True, exist_ok=True)
    with atomic_write(places[kind]) as part:
        part.write_bytes(images.seen(read, wish.margin, _PIXELS))
    _thin_out(folder)
    return places[kind], kind


def _thin_out(folder: Path) -> None:
    """Newest first, since those of this session are shown."""
    files = sorted(folder.glob("*.png"), key=lambda path: path.stat().st_mtime, reverse=True)
    for path in files[_KEPT:]:
        path.unlink(missing_ok=True)

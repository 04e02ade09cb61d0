# SPDX-License-Identifier: GPL-3.0-or-later
"""Pictures for the panel, made and loaded outside of draw functions: a draw asks for one and gets what is there; what is
missing, or may have changed, is seen to at the pump's next tick."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import bpy

from ..aside import aside
from ..endpoints.schema import schemas
from ..errors import ImageError, TrellisError
from . import pictures, preferences
from .sights import Sight, Wish, look

if TYPE_CHECKING:
    from concurrent.futures import Future

    from bpy.utils.previews import ImagePreviewCollection

AGAIN = 2.0  # seconds after which a file that is shown may have changed
_AGAIN_ON_THE_WEB = 60.0  # or an address that gave nothing may answer
# A picture takes Blender 300 KB, and nobody looks again at most of them. A page of results and the jobs above it show fewer.
KEPT = 64
_LATELY = 60.0  # seconds within which what was drawn is surely kept, however much that is

_Key = TypeVar("_Key")


class _Source(NamedTuple):
    """What is looked at: a file or an address, or an image of the .blend, which a stroke on it makes another one."""

    filepath: str
    image: int
    painted: bool
    wish: Wish


@dataclass
class _Look:
    """What is known of a source; `asked` when somebody last went to look, `drawn` when it was last wanted."""

    sight: Sight | None = None
    asked: float = 0.0
    drawn: float = 0.0
    coming: Future[Sight] | None = None


class Previews:
    """The pictures that the panel has asked for: files by path, and how a model will see the scene's images.

    `later` runs what takes time elsewhere.
    """

    def __init__(
        self,
        wake: Callable[[], None],
        later: Callable[[Callable[[], Sight]], Future[Sight]],
    ) -> None:
        self._wake = wake
        self._later = later
        self._looks: dict[_Source, _Look] = {}
        self._to_look: set[_Source] = set()
        self._loaded: ImagePreviewCollection | None = None
        self._drawn: dict[str, float] = {}  # when a loaded picture was, the latest last
        self._wanted: set[str] = set()

    def of_file(self, path: str) -> int:
        """The icon of the picture file at `path`; 0 while there is none."""
        if self._loaded is not None and path in self._loaded:
            self._drawn.pop(path, None)
            self._drawn[path] = time.monotonic()
            icon: int = self._loaded[path].icon_id
            return icon
        if path:
            self._wanted.add(path)
            self._wake()
        return 0

    def seen(self, settings: Any, item: Any) -> Sight | None:
        """How the chosen model will see one of the scene's images; None until that is known.

        A file that changes is looked at again; of an image that is painted on, the first unsaved stroke tells.
        """
        images = schemas()[settings.endpoint]["images"]
        wish = Wish(images["side"], images["margin"], settings.cut_out)
        image = item.image
        source = (
            _Source("", image.session_uid, image.is_dirty, wish)
            if image
            else _Source(item.filepath, 0, False, wish)
        )
        known = self._looks.pop(source, None) or _Look()
        known.drawn = time.monotonic()
        self._looks[source] = known
        pause = _AGAIN_ON_THE_WEB if pictures.on_the_web(source.filepath) else AGAIN
        due = not image and time.monotonic() - known.asked > pause
        if known.coming is None and (due or not known.asked):
            known.asked = time.monotonic()
            self._to_look.add(source)
            self._wake()
        return known.sight

    def _forget(self) -> None:
        """Let go of sources that nobody has wanted for long."""
        at_rest = {
            source: known.drawn
            for source, known in self._looks.items()
            if known.coming is None and source not in self._to_look
        }
        for old in _outlived(at_rest):
            del self._looks[old]

    @property
    def busy(self) -> bool:
        """Whether somebody is looking, so that there will be something to do."""
        return any(known.coming for known in self._looks.values())

    @property
    def wanted(self) -> bool:
        """Whether `load` has something to do."""
        come = (known.coming and known.coming.done() for known in self._looks.values())
        return bool(self._wanted or self._to_look) or any(come)

    def load(self) -> bool:
        """Do one of the things that were asked for; whether there is something new to be seen.

        A picture file is read by Blender in a thread of its own, when it is first seen.
        """
        new = [self._take(known) for known in self._looks.values() if known.coming]
        if self._to_look:
            new.append(self._look(self._to_look.pop()))
            self._forget()
        elif self._wanted:
            self._load(self._wanted.pop())
            new.append(True)
        return any(new)

    def _load(self, path: str) -> None:
        from bpy.utils import previews

        if self._loaded is None:
            self._loaded = previews.new()
        self._loaded.load(path, path, "IMAGE")
        self._drawn[path] = time.monotonic()
        for old in _outlived(self._drawn):
            del self._loaded[old], self._drawn[old]

    def _look(self, source: _Source) -> bool:
        """Have somebody look, or see at once that there is nothing to be seen.

        Only the pixels of an image that has no file are copied here.
        """
        known = self._looks[source]
        try:
            picture = self._picture(source)
            home = preferences.config().home
        except TrellisError as error:
            known.sight = Sight(error=error.message)
            return True
        work = partial(look, picture, source.wish, home, known.sight)
        # A server may be slow, and the clerk has more to do
        on_the_web = isinstance(picture, pictures.Remote)
        known.coming = aside(work, "trellis-look") if on_the_web else self._later(work)
        return False

    @staticmethod
    def _picture(source: _Source) -> pictures.Picture:
        if not source.image:
            return pictures.from_file(source.filepath)
        for image in bpy.data.images:
            if image.session_uid == source.image:
                return pictures.from_image(image)
        raise ImageError("The image is no longer in this file. Choose another one.")

    @staticmethod
    def _take(known: _Look) -> bool:
        """Whether they have seen something else than before."""
        if known.coming is None or not known.coming.done():
            return False
        before, coming = known.sight, known.coming
        known.coming = None
        error = coming.exception()
        known.sight = (
            coming.result()
            if error is None
            else Sight(error=f"Something unforeseen happened: {error!r}.")
        )
        return known.sight != before

    def close(self) -> None:
        """Free the pictures."""
        if self._loaded is not None:
            from bpy.utils import previews

            previews.remove(self._loaded)
            self._loaded = None
        self._drawn.clear()
        self._wanted.clear()
        self._looks.clear()
        self._to_look.clear()


def _outlived(drawn: Mapping[_Key, float]) -> list[_Key]:
    """What need not be kept of things that were last drawn at these times, the latest last."""
    before = time.monotonic() - _LATELY
    return [key for key in list(drawn)[:-KEPT] if drawn[key] < before]

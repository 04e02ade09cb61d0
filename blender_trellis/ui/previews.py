# SPDX-License-Identifier: GPL-3.0-or-later
"""Small pictures for the panel, loaded outside of draw functions: a draw asks for one, gets an icon number or 0, and what is
missing is loaded at the pump's next tick."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import bpy

if TYPE_CHECKING:
    from bpy.utils.previews import ImagePreviewCollection


class Previews:
    """The pictures that the panel has asked for, by path."""

    def __init__(self, wake: Callable[[], None]) -> None:
        self._wake = wake
        self._loaded: ImagePreviewCollection | None = None
        self._wanted: set[str] = set()

    def of_file(self, path: str) -> int:
        """The icon of the picture file at `path`; 0 while there is none."""
        if self._loaded is not None and path in self._loaded:
            icon: int = self._loaded[path].icon_id
            return icon
        if path:
            self._wanted.add(path)
            self._wake()
        return 0

    @staticmethod
    def of_image(image: bpy.types.Image) -> int:
        """The icon of an image datablock."""
        preview = image.preview or image.preview_ensure()
        return int(preview.icon_id) if preview else 0

    @property
    def wanted(self) -> bool:
        """Whether `load` has something to do."""
        return bool(self._wanted)

    def load(self) -> None:
        """Load one of the pictures that were asked for. Blender reads it in a thread of its own, when it is first seen."""
        from bpy.utils import previews

        path = self._wanted.pop()
        if self._loaded is None:
            self._loaded = previews.new()
        self._loaded.load(path, path, "IMAGE")

    def close(self) -> None:
        """Free the pictures."""
        if self._loaded is not None:
            from bpy.utils import previews

            previews.remove(self._loaded)
            self._loaded = None
        self._wanted.clear()

# SPDX-License-Identifier: GPL-3.0-or-later
"""A model as an asset: marked, with tags and a picture, and where its file lies in an asset library in the catalogue "Trellis".

All is done in the second Blender, but for `library_of`: only the user's Blender knows its libraries.
"""

from __future__ import annotations

import logging
import os
import uuid
from collections.abc import Sequence
from pathlib import Path

import bpy
import numpy as np
from bpy.types import Collection, Object

log = logging.getLogger(__name__)

CATALOGUE = "Trellis"
CATALOGUES = "blender_assets.cats.txt"
# What Blender itself writes at the head of a new file
_HEAD = "# This is an Asset Catalog Definition file for Blender.\n\nVERSION 1\n\n"


def library_of(blend: str) -> Path | None:
    """The folder of the asset library that the file `blend` lies in; None where it lies in none, or is not saved yet."""
    if not blend:
        return None
    parents = Path(blend).resolve().parents
    libraries = bpy.context.preferences.filepaths.asset_libraries
    folders = [Path(each.path).resolve() for each in libraries if each.path]
    return next((folder for folder in folders if folder in parents), None)


def mark(
    model: Collection, root: Object, tags: Sequence[str], picture: Path, library: Path | None
) -> None:
    """Mark `root` as an asset, or the whole collection where several meshes hang on it. `picture` is a square PNG."""
    item = root if root.type == "MESH" else model
    item.asset_mark()
    if item is model:
        # an instance of a collection shows what is unticked in the scene
        for inner in model.children:
            inner.hide_viewport = inner.hide_render = True
    for tag in tags:
        item.asset_data.tags.new(tag, skip_if_exists=True)
    if library is not None:
        try:
            item.asset_data.catalog_id = enter(library)
        except (OSError, ValueError) as error:  # a library that may only be read
            log.warning("no catalogue in %s: %s", library, error)
    _show(item, picture)


def enter(library: Path) -> str:
    """The id of the catalogue CATALOGUE of `library`, which is entered if there is none. Raises OSError, and
    ValueError for a file that is no text."""
    path = library / CATALOGUES
    text = path.read_text(encoding="utf-8") if path.exists() else _HEAD
    for line in text.splitlines():
        known, _, rest = line.partition(":")
        if rest.partition(":")[0] == CATALOGUE and not line.startswith("#"):
            return known
    made = str(uuid.uuid4())
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        part.write_text(f"{text.rstrip()}\n{made}:{CATALOGUE}:{CATALOGUE}\n", encoding="utf-8")
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
    return made


def _show(item: Object | Collection, picture: Path) -> None:
    image = bpy.data.images.load(str(picture))
    pixels = np.empty(len(image.pixels), np.float32)
    image.pixels.foreach_get(pixels)
    preview = item.preview_ensure()
    preview.image_size = tuple(image.size)
    preview.image_pixels_float.foreach_set(pixels)
    bpy.data.images.remove(image)

# SPDX-License-Identifier: GPL-3.0-or-later
"""The only part of an import that the user's Blender does itself, in hundredths of a second: append, place, select.

It all appears or nothing does. The undo step is the caller's matter.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import bpy
from bpy.types import ID, Collection, Object, Scene, ViewLayer
from mathutils import Vector

from .. import errors
from .lods import switch_off

_GAP = 1.2  # from one model's middle to the next one's, in widths of the first


def append(
    blend: Path,
    *,
    scene: Scene,
    location: Sequence[float] | None = None,
    view_layer: ViewLayer | None = None,
    select: bool = True,
) -> list[Object]:
    """Bring the model of `blend`, a file that ImportWorker wrote, into `scene`, in a collection of its own.

    Stands at `location` (scene units; the 3D cursor where None). In object mode it becomes the selection of `view_layer`
    (the current one, or the scene's first); in any other mode, or without `select`, mode, selection and active object stay the
    user's.
    Returns the objects, the one that carries the recipe first, without LODs, which are not shown.
    Raises ResultError, and then the file is as it was.
    """
    newest = _newest_id()
    try:
        collection = _load(blend)
        objects = sorted(collection.objects, key=lambda obj: obj.parent is not None)
        scene.collection.children.link(collection)
        for each in scene.view_layers:
            switch_off(each.layer_collection, collection)
        objects[0].location = Vector(scene.cursor.location if location is None else location)
        _select(objects, _layer(scene, view_layer), select)
    except Exception:
        bpy.data.batch_remove({item for item in _all_ids() if item.session_uid > newest})
        for layer in scene.view_layers:
            layer.update()  # 5.2 would list removed objects as None until something else makes it look
        raise
    # Blender keeps an entry for the file that the model came from, which is about to be deleted
    bpy.data.batch_remove([item for item in bpy.data.libraries if item.session_uid > newest])
    return objects


def beside(objects: list[Object]) -> Vector:
    """Where the next one of several models stands: to the right of this one, just appended, with a gap; scene units."""
    sides = [corner[0] for obj in objects if obj.type == "MESH" for corner in obj.bound_box]
    width = (max(sides) - min(sides)) * objects[0].scale.x
    return Vector(objects[0].location) + Vector((width * _GAP, 0, 0))


def _load(blend: Path) -> Collection:
    try:
        with bpy.data.libraries.load(str(blend), link=False) as (source, target):
            target.collections = list(source.collections)
    except OSError as error:
        raise errors.ResultError(f"The prepared model cannot be read: {error}") from error
    loaded = [each for each in target.collections if each]
    within = {inner for each in loaded for inner in each.children}
    model = next((each for each in loaded if each not in within), None)
    if model is None or not model.objects:
        raise errors.ResultError("The prepared file holds no model. Import the result again.")
    return model


def _layer(scene: Scene, view_layer: ViewLayer | None) -> ViewLayer:
    if view_layer is not None:
        return view_layer
    current = bpy.context.view_layer
    return current if current and current.id_data == scene else scene.view_layers[0]


def _select(objects: list[Object], layer: ViewLayer, wanted: bool) -> None:
    active = layer.objects.active
    wanted = wanted and (active is None or active.mode == "OBJECT")
    if wanted:
        for obj in list(layer.objects.selected):
            obj.select_set(False, view_layer=layer)
        layer.objects.active = objects[0]
    for obj in objects:
        obj.select_set(wanted, view_layer=layer)


def _newest_id() -> int:
    """Whatever is made from now on has a greater `session_uid`: they only ever count up."""
    probe = bpy.data.texts.new("trellis")
    newest: int = probe.session_uid
    bpy.data.texts.remove(probe)
    return newest


def _all_ids() -> Iterable[ID]:
    for kind in bpy.data.bl_rna.properties:
        if kind.type == "COLLECTION":
            yield from getattr(bpy.data, kind.identifier)

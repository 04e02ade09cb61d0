# SPDX-License-Identifier: GPL-3.0-or-later
"""What is wanted with a job's models: a dict that the journal keeps, made from the scene that asks. When they come, the scene and
the object that it means are found in what is open then."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Any

import bpy

if TYPE_CHECKING:
    from ..scene.retexture import Sent

# A scene's id in a wish → its session_uid, which is exact within a session, and survives an undo past the moment of asking
_asked: dict[str, int] = {}
# An object's id in a wish → session_uid of its scene and its own
_meant: dict[str, tuple[int, int]] = {}
# A job → the one in a row that it was asked for instead of
_original: dict[str, str] = {}
# A job of a batch → the batch, all of whose models stand in one row
_batches: dict[str, str] = {}


def stands_in(job_id: str, failed: str) -> None:
    """Job `job_id` was asked for instead of one that failed, and so has its place in a row."""
    _original[job_id] = _original.get(failed, failed)


def original(job_id: str) -> str:
    """The job in whose place in a row `job_id` is."""
    return _original.get(job_id, job_id)


def joins(job_id: str, wish: dict[str, Any]) -> None:
    """The model of a job stands in the row of the batch that its wish names, if it names one."""
    if "in_batch" in wish:
        _batches[job_id] = wish["in_batch"]


def stands_in_row(job_id: str, wish: dict[str, Any]) -> bool:
    """Whether the model of a job is one of the row that a wish is about."""
    of_batch = "in_batch" in wish and _batches.get(job_id) == wish["in_batch"]
    return of_batch or original(job_id) in wish.get("row", ())


def wish_of(scene: bpy.types.Scene) -> dict[str, Any]:
    """What is wanted with a result: to stand in `scene`, at the 3D cursor, `height` metres tall (None: as made).

    `lods` are shares of its faces, for a coarser copy each; `asset` are its tags, None where it is to be none.
    """
    settings = scene.trellis
    others = {other.session_uid for other in bpy.data.scenes if other != scene}
    if not settings.id or _asked.get(settings.id) in others:  # then this is a copy of that one
        settings.id = str(uuid.uuid4())
    _asked[settings.id] = scene.session_uid
    height = settings.height * scene.unit_settings.scale_length
    return {
        "scene": settings.id,
        "location": scene.cursor.location[:],
        "height": height or None,
        "lods": [
            round(getattr(settings, f"lod_{level}") / 100, 4)
            for level in range(1, settings.lods + 1)
        ],
        "asset": _words(settings.asset_tags) if settings.asset else None,
    }


def _words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]


def manner_of(wish: dict[str, Any], scene: bpy.types.Scene) -> dict[str, Any]:
    """How an import worker is to make the model that is wished for in `scene`."""
    from ..scene.assets import library_of

    return {
        "height": wish.get("height"),
        "metres_per_unit": scene.unit_settings.scale_length,
        "lods": wish.get("lods", ()),
        "asset": wish.get("asset"),
        "library": library_of(bpy.data.filepath),
    }


def wish_for(obj: bpy.types.Object, scene: bpy.types.Scene, sent: Sent) -> dict[str, Any]:
    """What is wanted with a result that is to become the mesh of `obj` in `scene`, which was `sent`."""
    wanted = str(uuid.uuid4())
    _meant[wanted] = (scene.session_uid, obj.session_uid)
    known = {"id": wanted, "name": obj.name, "sent": sent}
    return wish_of(scene) | {"object": known, "height": None, "lods": [], "asset": None}


def find_scene(wish: dict[str, Any]) -> bpy.types.Scene | None:
    """The scene that asked: itself, or its copy in this file, the one that is looked at first; None if it is not here."""
    wanted, uid = wish.get("scene"), _asked.get(wish.get("scene", ""))
    local = [scene for scene in bpy.data.scenes if not scene.library]
    for scene in local:
        if scene.session_uid == uid:
            return scene
    same = [scene for scene in local if wanted and scene.trellis.id == wanted]
    shown = [window.scene for window in bpy.context.window_manager.windows]
    return next((scene for scene in same if scene in shown), same[0] if same else None)


def find_object(wish: dict[str, Any], scene: bpy.types.Scene) -> bpy.types.Object | None:
    """The object of `scene` that is to get the result: itself, or in a file opened since then the one of its name."""
    wanted = wish.get("object")
    if not wanted:
        return None
    scene_uid, uid = _meant.get(wanted["id"], (None, None))
    if scene_uid == scene.session_uid:
        found = next((obj for obj in scene.objects if obj.session_uid == uid), None)
    else:
        found = scene.objects.get(wanted["name"])
    return found if found and found.type == "MESH" and is_local(found) else None


def is_local(obj: bpy.types.Object) -> bool:
    """Whether its mesh may be exchanged."""
    return not obj.library and not obj.override_library

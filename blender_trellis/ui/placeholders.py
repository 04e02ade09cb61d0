# SPDX-License-Identifier: GPL-3.0-or-later
"""Empties that stand where models will be, while their jobs are at work: as tall as the model is wished, called after it and
after how far it is. Whoever moves, turns or scales one gets the model so.

Each scene knows its own (`scene.trellis.placeholders`), so they survive undo and another file. What is no longer at work is
swept: when a job ends, and after an undo or a file that was opened brought an old one back.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Set
from typing import TYPE_CHECKING, Any

import bpy
from bpy.app.handlers import persistent
from mathutils import Matrix

from . import screen
from .wishes import find_scene, original

if TYPE_CHECKING:
    from .jobs import JobView

_NAME = 40  # characters of a title that fit an object's name together with the rest
_STEP = 5  # per cent from one name to the next: each makes the viewport draw again

_outdated = False
_wake: Callable[[], None]  # what has `refresh` called before long


def outdated() -> bool:
    """Whether the file may hold some of jobs that are not at work."""
    return _outdated


def put(job_id: str, title: str, wish: dict[str, Any]) -> None:
    """Have one stand where the wish says, unless it is the mesh of an object that is wished for, or a place further on in a row.

    Selection and active object stay the user's.
    """
    scene = find_scene(wish)
    if scene is None or wish.get("object") or wish.get("row", [job_id])[0] != original(job_id):
        return
    obj = bpy.data.objects.new(title[:_NAME], None)
    obj.empty_display_type = "SINGLE_ARROW"
    # a model that is not scaled is about 1 m tall
    obj.empty_display_size = (wish.get("height") or 1.0) / scene.unit_settings.scale_length
    obj.show_name = True
    obj.location = wish["location"]
    scene.collection.objects.link(obj)
    item = scene.trellis.placeholders.add()
    item.job_id, item.object, item.shown = job_id, obj, obj.name


def take(scene: bpy.types.Scene, job_ids: Set[str]) -> Matrix | None:
    """Take the placeholders of the jobs away; returns where one stood, None where they had none any more."""
    found, stood = scene.trellis.placeholders, None
    for index in reversed(range(len(found))):
        if found[index].job_id not in job_ids:
            continue
        obj = found[index].object
        if obj:
            if obj.users_collection:
                # of a scene that is not looked at `matrix_world` is out of date
                stood = (obj.matrix_world if obj.parent else obj.matrix_basis).copy()
            bpy.data.objects.remove(obj)
        found.remove(index)
    return stood


def refresh(views: Mapping[str, JobView]) -> None:
    """Say at each how far its job is, and sweep those whose jobs are not at work, once that disturbs no gesture."""
    global _outdated  # noqa: PLW0603  handlers have no other way to say it
    _outdated = False
    for scene in bpy.data.scenes:
        if scene.library:
            continue
        over = set()
        for item in scene.trellis.placeholders:
            view = views.get(item.job_id)
            if view and view.at_work and item.object and item.object.users_collection:
                _name(item, view)
            else:
                over.add(item.job_id)
        if over and screen.undisturbed(screen.PATIENCE):
            take(scene, over)
        elif over:
            _outdated = True


def _name(item: Any, view: JobView) -> None:
    name = view.title[:_NAME]
    if view.fraction is not None:
        name += f" · {int(view.fraction * 100) // _STEP * _STEP}%"
    if item.shown != name:
        item.shown = item.object.name = name


@persistent  # type: ignore[untyped-decorator]
def _changed(*_: Any) -> None:
    """Another file, or another state of this one."""
    global _outdated  # noqa: PLW0603
    _outdated = True
    _wake()


def _handlers() -> tuple[list[Any], ...]:
    every = bpy.app.handlers
    return every.load_post, every.undo_post, every.redo_post


def register(wake: Callable[[], None]) -> None:
    global _outdated, _wake  # noqa: PLW0603
    _outdated = True  # the file may have been open before
    _wake = wake
    for handlers in _handlers():
        handlers.append(_changed)


def unregister() -> None:
    for handlers in _handlers():
        handlers.remove(_changed)

# SPDX-License-Identifier: GPL-3.0-or-later
"""Places in the scene: what lies under the mouse in a 3D viewport."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import bpy
from mathutils import Vector
from mathutils.geometry import intersect_line_plane

_FARTHEST = 1000.0
"""The ground counts up to this many times the view's distance: near the horizon it is hit kilometres away."""


def at_mouse(
    window: bpy.types.Window, mouse: Sequence[int]
) -> tuple[bpy.types.Area, bpy.types.Region] | None:
    """The 3D viewport's area and region at a place in the window, in its pixels; None if there is none.

    The sidebar may lie over the view, so it is looked for first.
    """
    found = [
        (area, region)
        for area in window.screen.areas
        if area.type == "VIEW_3D"
        for region in area.regions
        if region.x <= mouse[0] < region.x + region.width
        and region.y <= mouse[1] < region.y + region.height
    ]
    return min(found, key=lambda each: each[1].type == "WINDOW", default=None)


def under(
    scene: bpy.types.Scene,
    depsgraph: bpy.types.Depsgraph,
    region: bpy.types.Region,
    mouse: Sequence[int],
) -> Vector:
    """Where the line of sight of a viewport's region through a place in the window, in its pixels, first meets the scene.

    Where it meets neither an object nor the ground: the point on it that is as far away as the 3D cursor.
    """
    from bpy_extras import view3d_utils  # not when the extension is enabled

    view: Any = region.data  # in Quad View each region has its own
    pixel = (mouse[0] - region.x, mouse[1] - region.y)
    origin = view3d_utils.region_2d_to_origin_3d(region, view, pixel)
    direction = view3d_utils.region_2d_to_vector_3d(region, view, pixel)
    place = met(scene, depsgraph, origin, direction, _FARTHEST * view.view_distance)
    if place is not None:
        return place
    return view3d_utils.region_2d_to_location_3d(region, view, pixel, scene.cursor.location)


def met(
    scene: bpy.types.Scene,
    depsgraph: bpy.types.Depsgraph,
    origin: Vector,
    direction: Vector,
    farthest: float,
) -> Vector | None:
    """Where a ray first meets an object, else the ground plane, at most `farthest` away; None if neither."""
    hit, place, *_ = scene.ray_cast(depsgraph, origin, direction, distance=farthest)
    if hit:
        return place.copy()
    ground = intersect_line_plane(origin, origin + direction, Vector(), Vector((0, 0, 1)))
    if ground is None or not 0 <= (ground - origin).dot(direction) <= farthest:
        return None
    return ground

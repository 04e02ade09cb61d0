# SPDX-License-Identifier: GPL-3.0-or-later
"""Plain pictures of what a 3D viewport shows: its objects and shading on nothing, without overlays and gizmos, and as large as
a model looks at them however small they are in the view.

Drawn off screen rather than by `render.opengl`, which takes the render's settings, and the place of the Render Result.
"""

from __future__ import annotations

from array import array
from dataclasses import dataclass
from typing import Any

import bpy
import numpy as np
from mathutils import Matrix

from ..errors import ImageError
from .pictures import Pixels

_FIRST, _SIDE = 512, 1024  # pixels a side: to find the objects, and of the picture of them
_ROOM = 0.03  # around them, as a share of their longer side


@dataclass(frozen=True)
class _Eye:
    """From where the scene is looked at: matrices of the view and of its projection, and the picture's width by height."""

    view: Matrix
    projection: Matrix
    aspect: float


def of_view(context: bpy.types.Context, area: bpy.types.Area) -> Pixels:
    """What the viewport shows.

    Raises:
        ImageError: there is nothing in view.
    """
    region = _window(area)
    view: Any = region.data
    eye = _Eye(view.view_matrix, view.window_matrix, region.width / region.height)
    return _capture(context, area, "Viewport", eye)


def of_camera(context: bpy.types.Context, area: bpy.types.Area) -> Pixels:
    """What the scene's camera shows, in the viewport's shading.

    Raises:
        ImageError: there is nothing in view.
    """
    render, camera = context.scene.render, context.scene.camera
    depsgraph = context.evaluated_depsgraph_get()
    width = render.resolution_x * render.pixel_aspect_x
    height = render.resolution_y * render.pixel_aspect_y
    projection = camera.calc_matrix_camera(
        depsgraph,
        x=render.resolution_x,
        y=render.resolution_y,
        scale_x=render.pixel_aspect_x,
        scale_y=render.pixel_aspect_y,
    )
    # Like a render, without the camera's own scale
    view = camera.evaluated_get(depsgraph).matrix_world.normalized().inverted()
    return _capture(context, area, camera.name, _Eye(view, projection, width / height))


def _window(area: bpy.types.Area) -> bpy.types.Region:
    """The viewport's own region; in Quad View, of its four, the one that is turned freely, which is the last."""
    return [region for region in area.regions if region.type == "WINDOW"][-1]


def _capture(context: bpy.types.Context, area: bpy.types.Area, name: str, eye: _Eye) -> Pixels:
    found = _draw(context, area, eye, _FIRST)[..., 3] > 0.5
    if not found.any():
        raise ImageError("Nothing is in view. Turn the view or the camera to the object.")
    pixels = _draw(context, area, _closer(eye, found), _SIDE)
    height, width = pixels.shape[:2]
    alpha = pixels[..., 3:]
    pixels[..., :3] /= np.maximum(alpha, 1e-6)  # it is premultiplied
    data = array("f", np.clip(pixels, 0, 1).tobytes())
    return Pixels(name, width, height, channels=4, linear=False, opaque=False, data=data)


def _closer(eye: _Eye, found: Any) -> _Eye:
    """The eye that sees only the part of the picture in which something was `found` (H, W), bottom row first."""
    rows, columns = np.flatnonzero(found.any(1)), np.flatnonzero(found.any(0))
    low = np.array([columns[0], rows[0]], float)
    high = np.array([columns[-1] + 1, rows[-1] + 1], float)
    room = 1 + _ROOM * max(high - low)  # one pixel, since a rim may lie within it
    low, high = low - room, high + room
    aspect = (high - low)[0] / (high - low)[1]
    size = np.array([found.shape[1], found.shape[0]], float)
    low, high = 2 * low / size - 1, 2 * high / size - 1  # from -1 to 1, as a projection ends
    scale, shift = 2 / (high - low), -(high + low) / (high - low)
    crop = Matrix(
        ((scale[0], 0, 0, shift[0]), (0, scale[1], 0, shift[1]), (0, 0, 1, 0), (0, 0, 0, 1))
    )
    return _Eye(eye.view, crop @ eye.projection, aspect)


def _draw(context: bpy.types.Context, area: bpy.types.Area, eye: _Eye, longest: int) -> Any:
    """What the eye sees, (H, W, 4) with premultiplied alpha, bottom row first."""
    import gpu

    scale = longest / max(eye.aspect, 1.0)
    width, height = max(round(eye.aspect * scale), 1), max(round(scale), 1)
    space: Any = area.spaces.active
    canvas: Any = gpu.types.GPUOffScreen(width, height)
    overlays = space.overlay.show_overlays
    space.overlay.show_overlays = False
    try:
        canvas.draw_view3d(
            context.scene,
            context.view_layer,
            space,
            _window(area),
            eye.view,
            eye.projection,
            do_color_management=True,
            draw_background=False,
        )
        with canvas.bind():
            read: Any = gpu.state.active_framebuffer_get().read_color(
                0, 0, width, height, 4, 0, "FLOAT"
            )
    finally:
        space.overlay.show_overlays = overlays
        canvas.free()
    read.dimensions = width * height * 4
    return np.array(read, np.float32).reshape(height, width, 4)

# SPDX-License-Identifier: GPL-3.0-or-later
"""Plain pictures of what a 3D viewport shows: its objects and shading on nothing, without overlays and gizmos.

Drawn off screen rather than by `render.opengl`, which takes the render's settings, and the place of the Render Result.
"""

from __future__ import annotations

from array import array
from typing import Any

import bpy
import numpy as np

from ..errors import ImageError
from .pictures import Pixels

_LONGEST = 2048  # pixels a side; more is sent to no endpoint but Draft


def of_view(context: bpy.types.Context, area: bpy.types.Area) -> Pixels:
    """What the viewport shows.

    Raises:
        ImageError: there is nothing in view.
    """
    view = area.spaces.active.region_3d
    region = _window(area)
    size = _fitted(region.width, region.height)
    return _draw(
        context, area, "Viewport", size, view=view.view_matrix, projection=view.window_matrix
    )


def of_camera(context: bpy.types.Context, area: bpy.types.Area) -> Pixels:
    """What the scene's camera shows, in the viewport's shading.

    Raises:
        ImageError: there is nothing in view.
    """
    scene = context.scene
    render, camera = scene.render, scene.camera
    width = render.resolution_x * render.pixel_aspect_x
    size = _fitted(width, render.resolution_y * render.pixel_aspect_y)
    projection = camera.calc_matrix_camera(
        context.evaluated_depsgraph_get(), x=size[0], y=size[1], scale_x=1, scale_y=1
    )
    view = camera.matrix_world.normalized().inverted()
    return _draw(context, area, camera.name, size, view=view, projection=projection)


def _window(area: bpy.types.Area) -> bpy.types.Region:
    return next(region for region in area.regions if region.type == "WINDOW")


def _fitted(width: float, height: float) -> tuple[int, int]:
    scale = _LONGEST / max(width, height)
    return max(round(width * scale), 1), max(round(height * scale), 1)


def _draw(
    context: bpy.types.Context,
    area: bpy.types.Area,
    name: str,
    size: tuple[int, int],
    *,
    view: Any,
    projection: Any,
) -> Pixels:
    import gpu

    space: Any = area.spaces.active
    canvas: Any = gpu.types.GPUOffScreen(*size)
    overlays = space.overlay.show_overlays
    space.overlay.show_overlays = False
    try:
        canvas.draw_view3d(
            context.scene,
            context.view_layer,
            space,
            _window(area),
            view,
            projection,
            do_color_management=True,
            draw_background=False,
        )
        with canvas.bind():
            read: Any = gpu.state.active_framebuffer_get().read_color(0, 0, *size, 4, 0, "FLOAT")
    finally:
        space.overlay.show_overlays = overlays
        canvas.free()
    read.dimensions = size[0] * size[1] * 4
    return _straight(name, size, np.array(read, np.float32).reshape(-1, 4))


def _straight(name: str, size: tuple[int, int], pixels: Any) -> Pixels:
    """The picture of premultiplied pixels (N, 4)."""
    alpha = pixels[:, 3:]
    if alpha.max() < 0.5:
        raise ImageError("Nothing is in view. Turn the view or the camera to the object.")
    pixels[:, :3] /= np.maximum(alpha, 1e-6)
    data = array("f", np.clip(pixels, 0, 1).tobytes())
    return Pixels(name, *size, channels=4, linear=False, opaque=False, data=data)

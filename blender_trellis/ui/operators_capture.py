# SPDX-License-Identifier: GPL-3.0-or-later
"""Operators that get a picture without a file: from the clipboard, from the viewport, through the camera."""

from __future__ import annotations

from typing import Any

import bpy
from bpy.props import BoolProperty, StringProperty

from ..errors import ImageError, TrellisError
from . import operators, pictures, properties
from .text import tr


class _Source:
    """What adds pictures to the list, or puts them in place of those that are there."""

    replace: BoolProperty(
        name="Replace",
        description="Put it in place of the images that are there, instead of adding it as a further view",
        options={"SKIP_SAVE"},
    )

    def _get(self, context: bpy.types.Context) -> list[str]:
        """The pictures' paths, or addresses.

        Raises:
            TrellisError: there is none.
        """
        raise NotImplementedError

    def execute(self, context: bpy.types.Context) -> set[str]:
        try:
            found = self._get(context)
        except TrellisError as error:
            return operators.refuse(self, error)
        properties.use_files(context.scene.trellis, found, replace=self.replace)
        if context.area:
            context.area.tag_redraw()
        return {"FINISHED"}


class TRELLIS_OT_paste_image(_Source, bpy.types.Operator):
    bl_idname = "trellis.paste_image"
    bl_label = "Paste Image"
    bl_description = (
        "Use the picture on the clipboard: an image, the path of a file, or an address on the web"
    )
    bl_options = {"REGISTER", "UNDO"}

    text: StringProperty(
        name="Text",
        description="A path or an address to use in place of what is on the clipboard",
        options={"SKIP_SAVE", "HIDDEN"},
    )

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        return context.scene is not None

    def _get(self, context: bpy.types.Context) -> list[str]:
        from . import clipboard

        text = self.text or context.window_manager.clipboard
        found = clipboard.named(text)
        if found or not clipboard.is_text(text):
            return found or clipboard.copied()
        raise ImageError(
            "The clipboard holds a text that is no path of a file and no address of a picture."
        )


class _Capture(_Source):
    """What takes a picture in a 3D viewport."""

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        if bpy.app.background:
            cls.poll_message_set(tr("Blender has no window to take a picture of"))
        elif context.area is None or context.area.type != "VIEW_3D":
            cls.poll_message_set(tr("Use this in a 3D viewport"))
        else:
            return True
        return False

    def _take(self, context: bpy.types.Context) -> Any:
        raise NotImplementedError

    def _get(self, context: bpy.types.Context) -> list[str]:
        return [str(pictures.keep(self._take(context)))]


class TRELLIS_OT_capture_view(_Capture, bpy.types.Operator):
    bl_idname = "trellis.capture_view"
    bl_label = "Capture Viewport"
    bl_description = (
        "Use a picture of what this viewport shows, without overlays, on a transparent background"
    )
    bl_options = {"REGISTER", "UNDO"}

    def _take(self, context: bpy.types.Context) -> Any:
        from . import captures

        return captures.of_view(context, context.area)


class TRELLIS_OT_capture_camera(_Capture, bpy.types.Operator):
    bl_idname = "trellis.capture_camera"
    bl_label = "Capture Camera"
    bl_description = (
        "Use a picture of what the scene's camera shows, in this viewport's shading, without overlays, on a transparent "
        "background"
    )
    bl_options = {"REGISTER", "UNDO"}

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        if not super().poll(context):
            return False
        if context.scene.camera is None:
            cls.poll_message_set(tr("Add a camera to the scene first"))
        return context.scene.camera is not None

    def _take(self, context: bpy.types.Context) -> Any:
        from . import captures

        return captures.of_camera(context, context.area)


CLASSES = (TRELLIS_OT_paste_image, TRELLIS_OT_capture_view, TRELLIS_OT_capture_camera)

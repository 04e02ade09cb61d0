# SPDX-License-Identifier: GPL-3.0-or-later
"""Operators on the list of input images."""

from pathlib import Path

import bpy
from bpy.props import BoolProperty, CollectionProperty, EnumProperty, IntProperty, StringProperty

from ..errors import TrellisError
from . import operators, pictures, properties
from .callbacks import image_items, is_render
from .text import tr


class TRELLIS_OT_add_images(bpy.types.Operator):
    bl_idname = "trellis.add_images"
    bl_label = "Open Images for 3D Model"
    bl_description = "Choose one or several picture files of the thing to be made"
    bl_options = {"REGISTER", "UNDO"}

    filepath: StringProperty(subtype="FILE_PATH", options={"SKIP_SAVE", "HIDDEN"})
    directory: StringProperty(subtype="DIR_PATH", options={"SKIP_SAVE", "HIDDEN"})
    files: CollectionProperty(
        type=bpy.types.OperatorFileListElement, options={"SKIP_SAVE", "HIDDEN"}
    )
    filter_folder: BoolProperty(default=True, options={"HIDDEN"})
    filter_image: BoolProperty(default=True, options={"HIDDEN"})
    replace: BoolProperty(
        name="Replace",
        description="Put these in place of the images that are there, instead of adding them as further views",
        options={"SKIP_SAVE"},
    )

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        return context.scene is not None

    def invoke(self, context: bpy.types.Context, _event: bpy.types.Event) -> set[str]:
        context.window_manager.fileselect_add(self)
        return {"RUNNING_MODAL"}

    def execute(self, context: bpy.types.Context) -> set[str]:
        names = [file.name for file in self.files if file.name]
        # The operating system's spelling of the whole path, also where several files were chosen
        paths = [str(Path(self.directory) / name) for name in names] or [self.filepath]
        paths = [path for path in paths if path and not Path(bpy.path.abspath(path)).is_dir()]
        if not paths:
            self.report({"ERROR"}, tr("No picture was chosen. Select at least one file."))
            return {"CANCELLED"}
        properties.use_files(context.scene.trellis, paths, replace=self.replace)
        return {"FINISHED"}


class TRELLIS_OT_add_image_datablock(bpy.types.Operator):
    bl_idname = "trellis.add_image_datablock"
    bl_label = "Use Blender Image for 3D Model"
    bl_description = (
        "Use an image of this file: one that was loaded, painted or baked, or the last render"
    )
    bl_options = {"REGISTER", "UNDO"}
    bl_property = "image"

    image: EnumProperty(
        name="Image", description="An image of this file", items=image_items, options={"SKIP_SAVE"}
    )

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        if image_items(None, context):
            return True
        cls.poll_message_set(tr("Load, paint or render an image in this file first"))
        return False

    def invoke(self, context: bpy.types.Context, _event: bpy.types.Event) -> set[str]:
        context.window_manager.invoke_search_popup(self)
        return {"RUNNING_MODAL"}

    def execute(self, context: bpy.types.Context) -> set[str]:
        image, settings = bpy.data.images[self.image], context.scene.trellis
        try:
            rendered = str(pictures.rendered(image, context.scene)) if is_render(image) else ""
        except TrellisError as error:
            return operators.refuse(self, error)
        item = settings.images.add()
        if rendered:
            item.filepath = rendered
        else:
            item.image = image
        settings.active = len(settings.images) - 1
        if context.area:
            context.area.tag_redraw()
        return {"FINISHED"}


class _OnActiveImage:
    """What acts on the image that is shown large."""

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        settings = context.scene.trellis
        if settings.active < len(settings.images):
            return True
        cls.poll_message_set(tr("Add an image first"))
        return False


class TRELLIS_OT_remove_image(_OnActiveImage, bpy.types.Operator):
    bl_idname = "trellis.remove_image"
    bl_label = "Remove Image from 3D Model"
    bl_description = "Take this image off the list; its file stays"
    bl_options = {"REGISTER", "UNDO"}

    def execute(self, context: bpy.types.Context) -> set[str]:
        settings = context.scene.trellis
        settings.images.remove(settings.active)
        if not settings.images:
            settings.drop_set = False
        settings.active = max(0, min(settings.active, len(settings.images) - 1))
        return {"FINISHED"}


class TRELLIS_OT_show_image(_OnActiveImage, bpy.types.Operator):
    bl_idname = "trellis.show_image"
    bl_label = "Show Image of 3D Model"
    bl_description = "Show this view in the large place"
    bl_options = {"REGISTER", "UNDO"}

    index: IntProperty(
        name="View", description="Which one of the list, from 0", min=0, options={"SKIP_SAVE"}
    )

    def execute(self, context: bpy.types.Context) -> set[str]:
        settings = context.scene.trellis
        if self.index >= len(settings.images):
            self.report({"ERROR"}, tr("There is no such view. Choose one of the list."))
            return {"CANCELLED"}
        settings.active = self.index
        return {"FINISHED"}


class TRELLIS_OT_move_image(_OnActiveImage, bpy.types.Operator):
    bl_idname = "trellis.move_image"
    bl_label = "Move Image to Another View"
    bl_description = "Change which view this image shows: front, right, back, left, from the top"
    bl_options = {"REGISTER", "UNDO"}

    direction: EnumProperty(
        name="Direction",
        description="Where to",
        items=[("UP", "Up", "One view earlier"), ("DOWN", "Down", "One view later")],
        options={"SKIP_SAVE"},
    )

    def execute(self, context: bpy.types.Context) -> set[str]:
        settings = context.scene.trellis
        target = settings.active + (-1 if self.direction == "UP" else 1)
        if not 0 <= target < len(settings.images):
            return {"CANCELLED"}
        settings.images.move(settings.active, target)
        settings.active = target
        return {"FINISHED"}


CLASSES = (
    TRELLIS_OT_add_images,
    TRELLIS_OT_add_image_datablock,
    TRELLIS_OT_show_image,
    TRELLIS_OT_remove_image,
    TRELLIS_OT_move_image,
)

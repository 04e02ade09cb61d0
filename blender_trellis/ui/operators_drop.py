# SPDX-License-Identifier: GPL-3.0-or-later
"""Pictures dropped on the viewport or on the panel: what Blender asks, and the operator that takes them."""

from pathlib import Path

import bpy
from bpy.props import CollectionProperty, FloatVectorProperty, StringProperty

from ..generation import rows
from . import places, properties
from .text import tr


class TRELLIS_OT_drop_images(bpy.types.Operator):
    bl_idname = "trellis.drop_images"
    bl_label = "Make 3D Model of Image"
    bl_description = (
        "Use these pictures for the next model; several are views of one object. Dropped on the viewport, the model will stand "
        "there, on the surface under the mouse"
    )
    bl_options = {"REGISTER", "UNDO"}

    directory: StringProperty(subtype="DIR_PATH", options={"SKIP_SAVE", "HIDDEN"})
    files: CollectionProperty(
        type=bpy.types.OperatorFileListElement, options={"SKIP_SAVE", "HIDDEN"}
    )

    at: FloatVectorProperty(
        name="Drop Point",
        description="Where the model is to stand; without one, at the 3D cursor",
        subtype="TRANSLATION",
        options={"SKIP_SAVE", "HIDDEN"},
    )

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        return context.scene is not None

    def invoke(self, context: bpy.types.Context, event: bpy.types.Event) -> set[str]:
        mouse = (event.mouse_x, event.mouse_y)
        found = places.at_mouse(context.window, mouse)
        if found and found[1].type == "WINDOW":
            depsgraph = context.evaluated_depsgraph_get()
            self.at = places.under(context.scene, depsgraph, found[1], mouse)
        done = self.execute(context)
        if found:
            found[0].tag_redraw()
        return done

    def execute(self, context: bpy.types.Context) -> set[str]:
        paths = [str(Path(self.directory) / file.name) for file in self.files if file.name]
        if not paths:
            self.report({"ERROR"}, tr("No picture was dropped. Drop a picture file."))
            return {"CANCELLED"}
        settings = context.scene.trellis
        properties.use_files(settings, paths)
        if self.properties.is_property_set("at"):
            settings.drop, settings.drop_set = self.at, True
        return {"FINISHED"}


class TRELLIS_OT_clear_drop(bpy.types.Operator):
    bl_idname = "trellis.clear_drop"
    bl_label = "Forget Chosen Place"
    bl_description = (
        "Put the next model at the 3D cursor, not where an image was dropped or a place was chosen"
    )
    bl_options = {"REGISTER", "UNDO"}

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        if context.scene.trellis.drop_set or context.scene.trellis.place_set:
            return True
        cls.poll_message_set(tr("Drop an image on the viewport, or choose a place, first"))
        return False

    def execute(self, context: bpy.types.Context) -> set[str]:
        context.scene.trellis.drop_set = context.scene.trellis.place_set = False
        return {"FINISHED"}


class TRELLIS_FH_images(bpy.types.FileHandler):
    bl_idname = "TRELLIS_FH_images"
    bl_label = "Make 3D Model of Image"
    bl_import_operator = "trellis.drop_images"
    bl_file_extensions = ";".join(rows.SUFFIXES)

    @classmethod
    def poll_drop(cls, context: bpy.types.Context) -> bool:
        return context.area is not None and context.area.type == "VIEW_3D"


CLASSES = (TRELLIS_OT_drop_images, TRELLIS_OT_clear_drop, TRELLIS_FH_images)

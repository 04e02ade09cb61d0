# SPDX-License-Identifier: GPL-3.0-or-later
"""Operators on what stands in the scene: where a model is to stand."""

import bpy
from bpy.props import FloatVectorProperty, StringProperty

from ..errors import TrellisError
from . import background, operators, places, pump, screen
from .text import tr
from .wishes import wish_of

# The view may be turned while a place is chosen
_NAVIGATION = {
    "MIDDLEMOUSE",
    "WHEELUPMOUSE",
    "WHEELDOWNMOUSE",
    "TRACKPADPAN",
    "TRACKPADZOOM",
    "MOUSEROTATE",
    "MOUSESMARTZOOM",
    "NDOF_MOTION",
}


class TRELLIS_OT_place(bpy.types.Operator):
    bl_idname = "trellis.place"
    bl_label = "Choose Place for Model"
    bl_description = (
        "Click in the viewport where the next models are to stand: on the surface under the mouse, else on the ground. They "
        "stand upright"
    )
    bl_options = {"REGISTER", "UNDO"}

    at: FloatVectorProperty(
        name="Place",
        description="Where the model is to stand",
        subtype="TRANSLATION",
        options={"SKIP_SAVE"},
    )
    job_id: StringProperty(
        name="Job",
        description="The result to put there at once; empty: the next models are to stand there",
        options={"SKIP_SAVE"},
    )

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        return context.scene is not None

    def invoke(self, context: bpy.types.Context, _event: bpy.types.Event) -> set[str]:
        if not any(area.type == "VIEW_3D" for area in context.window.screen.areas):
            self.report({"ERROR"}, tr("No 3D viewport is open in this window. Open one."))
            return {"CANCELLED"}
        context.window.cursor_modal_set("CROSSHAIR")
        context.workspace.status_text_set(tr("Click where the model is to stand; Esc to cancel"))
        context.window_manager.modal_handler_add(self)
        return {"RUNNING_MODAL"}

    def modal(self, context: bpy.types.Context, event: bpy.types.Event) -> set[str]:
        if event.type in {"ESC", "RIGHTMOUSE"}:
            self.cancel(context)
            return {"CANCELLED"}
        # Alt and a click orbit where a middle mouse button is emulated, and in other programs' keymaps
        if event.type in _NAVIGATION or (event.type == "LEFTMOUSE" and event.alt):
            return {"PASS_THROUGH"}
        if event.type == "LEFTMOUSE" and event.value == "PRESS":
            mouse = (event.mouse_x, event.mouse_y)
            found = places.at_mouse(context.window, mouse)
            if found and found[1].type == "WINDOW":
                depsgraph = context.evaluated_depsgraph_get()
                self.at = places.under(context.scene, depsgraph, found[1], mouse)
                self.cancel(context)
                found[0].tag_redraw()
                return self.execute(context)
        return {"RUNNING_MODAL"}

    def cancel(self, context: bpy.types.Context) -> None:
        """Give mouse and status bar back."""
        context.window.cursor_modal_restore()
        context.workspace.status_text_set(None)

    def execute(self, context: bpy.types.Context) -> set[str]:
        settings = context.scene.trellis
        if not self.job_id:
            # Chosen after a drop it comes before it
            settings.place, settings.place_set, settings.drop_set = self.at, True, False
            return {"FINISHED"}
        wish = wish_of(context.scene) | {"location": self.at[:]}
        try:
            if screen.waits():
                background.bring(self.job_id, wish, context.scene)
            else:
                pump.get().work.bring(self.job_id, wish)
        except TrellisError as error:
            return operators.refuse(self, error)
        return {"FINISHED"}


CLASSES = (TRELLIS_OT_place,)

# SPDX-License-Identifier: GPL-3.0-or-later
"""Operators that generate, and those on parameters; those on images are in `operators_images.py`, on jobs and results in
`operators_jobs.py`, for what can go wrong at a service in `operators_services.py`.

In a window nothing here waits. In background mode, where no timer runs, generating and importing block.
"""

from typing import Any

import bpy
from bpy.props import StringProperty

from ..endpoints import prices
from ..endpoints.schema import schemas
from ..errors import TrellisError
from . import background, money, orders, preferences, properties, pump, screen
from .text import said, tr


def refuse(operator: bpy.types.Operator, error: TrellisError) -> set[str]:
    """Say why it cannot be done; to a script it is a RuntimeError."""
    operator.report({"ERROR"}, said(str(error)))
    return {"CANCELLED"}


def ask_first(
    operator: Any,
    context: bpy.types.Context,
    event: bpy.types.Event,
    cost: prices.Estimate | None,
) -> set[str]:
    """Have the operator executed, after a question where it costs more than the user wants to spend without one."""
    if cost is None or cost.amount <= preferences.ask_above():
        return set(operator.execute(context))
    asked = context.window_manager.invoke_confirm(
        operator,
        event,
        title=tr("{what}?").format(what=tr(operator.bl_label)),
        message=tr("{sentence}.").format(sentence=money.about(cost)),
        confirm_text=tr("Spend {sum}").format(sum=money.in_words(cost.amount)),
    )
    return set(asked)


class _Order:
    """What has a model made: in a window it returns at once, in background mode it waits and imports."""

    filepath: StringProperty(
        name="Picture",
        description="A picture file to use in place of the scene's images",
        subtype="FILE_PATH",
        options={"SKIP_SAVE"},
    )

    def _asked(self, scene: bpy.types.Scene) -> str:
        """The endpoint that is to make it."""
        raise NotImplementedError

    def invoke(self, context: bpy.types.Context, event: bpy.types.Event) -> set[str]:
        """Ask before much is spent; scripts call `execute`, and are not asked."""
        cost = money.estimate(context.scene.trellis, self._asked(context.scene))
        return ask_first(self, context, event, cost)

    def execute(self, context: bpy.types.Context) -> set[str]:
        try:
            wanted = orders.orders_of(context.scene, self._asked(context.scene), self.filepath)
            carry_out(context.scene, wanted)
        except TrellisError as error:
            return refuse(self, error)
        if not (self.filepath or wanted[0].mesh):
            context.scene.trellis.drop_set = False  # a drop is for one model, or its variations
        return {"FINISHED"}


class TRELLIS_OT_generate(_Order, bpy.types.Operator):
    bl_idname = "trellis.generate"
    bl_label = "Generate 3D Model"
    bl_description = (
        "Make a 3D model of the images. Blender stays usable meanwhile; the model appears at the place "
        "that the 3D cursor has now"
    )
    # Without REGISTER: what can be adjusted or repeated is done once more without a question, and charged once more
    bl_options = {"UNDO"}

    endpoint: StringProperty(
        name="Endpoint",
        description="The endpoint to use in place of the scene's, as local/draft",
        options={"SKIP_SAVE"},
    )

    @classmethod
    def description(cls, context: bpy.types.Context, given: Any) -> str:
        endpoint = given.endpoint or context.scene.trellis.endpoint
        changes_a_mesh = schemas().get(endpoint, {}).get("mesh")
        return tr((TRELLIS_OT_retexture if changes_a_mesh else cls).bl_description)

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        why = orders.unreachable(context.scene.trellis.endpoint)
        if why:
            cls.poll_message_set(said(why))
        return not why

    def _asked(self, scene: bpy.types.Scene) -> str:
        return self.endpoint or scene.trellis.endpoint


class TRELLIS_OT_retexture(_Order, bpy.types.Operator):
    bl_idname = "trellis.retexture"
    bl_label = "Retexture Selected Object"
    bl_description = (
        "Give the active object a new texture after the image. Its mesh is exchanged for the result; name, place, parent and "
        "custom properties stay. The result has the modifiers in it, so they are switched off, not removed; vertex groups and "
        "shape keys go with the old mesh"
    )
    bl_options = {"UNDO"}  # as of Generate

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        endpoint = orders.retexture(context.scene)
        why = orders.no_mesh(endpoint) or orders.unreachable(endpoint)
        if why:
            cls.poll_message_set(said(why))
        return not why

    def _asked(self, scene: bpy.types.Scene) -> str:
        return orders.retexture(scene)


def carry_out(scene: bpy.types.Scene, wanted: list[orders.Order]) -> None:
    """Have models made: in a window it returns at once, in background mode it waits and imports.

    Raises:
        TrellisError: one cannot be made.
    """
    for order in wanted:
        if screen.waits():
            background.generate(order, scene)
        else:
            pump.get().work.submit(order)


class TRELLIS_OT_undo_step(bpy.types.Operator):
    bl_idname = "trellis.undo_step"
    bl_label = "Place Generated Model"
    bl_description = "The step in the undo history for a model that was just brought into the scene"
    bl_options = {"INTERNAL", "UNDO"}

    def execute(self, _context: bpy.types.Context) -> set[str]:
        return {"FINISHED"}


class TRELLIS_OT_reset_parameters(bpy.types.Operator):
    bl_idname = "trellis.reset_parameters"
    bl_label = "Reset Generation Parameters"
    bl_description = "Give changed parameters their defaults back"
    bl_options = {"REGISTER", "UNDO"}

    stage: StringProperty(
        name="Stage", description="Only this stage's parameters", options={"SKIP_SAVE"}
    )
    parameter: StringProperty(
        name="Parameter", description="Only this parameter", options={"SKIP_SAVE"}
    )

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        settings = context.scene.trellis
        if properties.chosen(settings, settings.endpoint):
            return True
        cls.poll_message_set(tr("All parameters have their defaults"))
        return False

    def execute(self, context: bpy.types.Context) -> set[str]:
        settings = context.scene.trellis
        group = properties.group_of(settings, settings.endpoint)
        for _, prop in properties.parameters_of(settings.endpoint):
            elsewhere = self.stage and prop["name"] in properties.UP_FRONT
            if elsewhere or self.stage not in ("", prop["stage"]):
                continue
            if self.parameter in ("", prop["name"]):
                group.property_unset(prop["name"])
        settings.notice = ""
        return {"FINISHED"}


class TRELLIS_OT_new_seed(bpy.types.Operator):
    bl_idname = "trellis.new_seed"
    bl_label = "New Generation Seed"
    bl_description = "Draw another seed, and keep it until the lock is opened"
    bl_options = {"REGISTER", "UNDO"}

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        return context.scene is not None

    def execute(self, context: bpy.types.Context) -> set[str]:
        properties.draw_seed(context.scene.trellis)
        context.scene.trellis.seed_locked = True
        return {"FINISHED"}


CLASSES = (
    TRELLIS_OT_generate,
    TRELLIS_OT_retexture,
    TRELLIS_OT_undo_step,
    TRELLIS_OT_reset_parameters,
    TRELLIS_OT_new_seed,
)

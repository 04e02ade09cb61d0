# SPDX-License-Identifier: GPL-3.0-or-later
"""Operators on one job or result, which the button names: cancel, import, remove, dismiss, copy."""

from typing import Any

import bpy
from bpy.props import StringProperty

from ..errors import TrellisError
from . import operators, pump


class JobOperator:
    """What acts on one job, which its button names."""

    job_id: StringProperty(
        name="Job", description="The job's id; empty: the newest", options={"SKIP_SAVE"}
    )
    # Which jobs it can act on, and what to say when there is none
    _none = ""

    @staticmethod
    def _fits(_view: Any) -> bool:
        return True

    @classmethod
    def _candidates(cls) -> list[Any]:
        return [view for view in pump.get().board.views.values() if cls._fits(view)]

    @classmethod
    def poll(cls, _context: bpy.types.Context) -> bool:
        # In background mode no timer fills the board, and a script names the job
        if operators.waits() or cls._candidates():
            return True
        cls.poll_message_set(cls._none)
        return False

    def _id(self) -> str:
        """The job that is meant.

        Raises:
            TrellisError: there is none.
        """
        found = self.job_id or next((view.id for view in self._candidates()), "")
        if not found:
            raise TrellisError(f"{self._none}.")
        return str(found)

    def execute(self, context: bpy.types.Context) -> set[str]:
        try:
            self._act(context, self._id())
        except TrellisError as error:
            return operators.refuse(self, error)
        return {"FINISHED"}

    def _act(self, context: bpy.types.Context, job_id: str) -> None:
        raise NotImplementedError


class TRELLIS_OT_cancel(JobOperator, bpy.types.Operator):
    bl_idname = "trellis.cancel"
    bl_label = "Cancel Generation"
    bl_description = "Stop making this model. What a service has done by then may be charged"
    bl_options = {"REGISTER"}
    _none = "No model is being made"

    @classmethod
    def description(cls, _context: bpy.types.Context, given: Any) -> str:
        view = pump.get().board.views.get(given.job_id)
        if view is None or view.cancellable:
            return ""  # then Blender shows `bl_description`
        return (
            f"Stop waiting for this model. {view.service} cannot cancel: it goes on there and is charged, and can be "
            "collected with Resume"
        )

    @staticmethod
    def _fits(view: Any) -> bool:
        return view.at_work and not view.importing

    def _act(self, _context: bpy.types.Context, job_id: str) -> None:
        pump.get().cancel(job_id)


class TRELLIS_OT_import_result(JobOperator, bpy.types.Operator):
    bl_idname = "trellis.import_result"
    bl_label = "Import Generated Model"
    bl_description = "Put this model into the scene, at the 3D cursor"
    bl_options = {"REGISTER"}
    _none = "Generate a model first"

    @staticmethod
    def _fits(view: Any) -> bool:
        return bool(view.files) and not view.importing

    def _act(self, context: bpy.types.Context, job_id: str) -> None:
        from .arrivals import wish_of

        wish = wish_of(context.scene)
        if operators.waits():
            operators.import_now(pump.get().job(job_id), context.scene, wish)
        else:
            pump.get().bring(job_id, wish)


class TRELLIS_OT_forget(JobOperator, bpy.types.Operator):
    bl_idname = "trellis.forget"
    bl_label = "Remove Model from Results"
    bl_description = "Take this model off the list. Its file stays in the results folder"
    bl_options = {"REGISTER"}
    _none = "Generate a model first"

    @staticmethod
    def _fits(view: Any) -> bool:
        return bool(view.files) and not view.importing

    def invoke(self, context: bpy.types.Context, event: bpy.types.Event) -> set[str]:
        return set(context.window_manager.invoke_confirm(self, event))

    def _act(self, _context: bpy.types.Context, job_id: str) -> None:
        pump.get().forget(job_id)


class TRELLIS_OT_dismiss(JobOperator, bpy.types.Operator):
    bl_idname = "trellis.dismiss"
    bl_label = "Dismiss Failed Generation"
    bl_description = "Show this failed job no longer"
    bl_options = {"REGISTER"}
    _none = "No job has failed"

    @staticmethod
    def _fits(view: Any) -> bool:
        return bool(view.error) and not view.at_work

    def _act(self, _context: bpy.types.Context, job_id: str) -> None:
        pump.get().dismiss(job_id)


class TRELLIS_OT_copy_error(JobOperator, bpy.types.Operator):
    bl_idname = "trellis.copy_error"
    bl_label = "Copy Generation Error"
    bl_description = "Copy the whole message, with the ids that a service's support asks for"
    bl_options = {"REGISTER"}
    _none = "No job has failed"

    @staticmethod
    def _fits(view: Any) -> bool:
        return bool(view.error)

    def _act(self, context: bpy.types.Context, job_id: str) -> None:
        view = pump.get().board.views.get(job_id)
        if view is None:
            raise TrellisError("This job is not shown any more.")
        lines = [view.error, f"Endpoint: {view.endpoint}", f"Job: {view.id}"]
        lines += [f"Request: {view.request_id}"] if view.request_id else []
        context.window_manager.clipboard = "\n".join(lines)
        self.report({"INFO"}, "Copied")


CLASSES = (
    TRELLIS_OT_cancel,
    TRELLIS_OT_import_result,
    TRELLIS_OT_forget,
    TRELLIS_OT_dismiss,
    TRELLIS_OT_copy_error,
)

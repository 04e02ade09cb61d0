# SPDX-License-Identifier: GPL-3.0-or-later
"""Operators for what can go wrong between here and a service: jobs that stopped on the way, and keys."""

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import bpy
from bpy.props import EnumProperty, StringProperty

from ..errors import InputError, TrellisError
from . import background, money, operators, preferences, pump, screen
from .operators_jobs import JobOperator
from .text import said

if TYPE_CHECKING:
    from ..generation.runner import Runner


class _GoOn(JobOperator):
    """What has a job that stopped go on."""

    def _how(self, job_id: str) -> "Callable[[Runner], Any]":
        """What to ask of the runner; it is asked in another thread, so nothing of Blender's may be in it."""
        raise NotImplementedError

    def _act(self, context: bpy.types.Context, job_id: str) -> None:
        how = self._how(job_id)
        if screen.waits():
            background.go_on(job_id, how, context.scene)
        else:
            pump.get().work.go_on(job_id, how)


class TRELLIS_OT_resume_job(_GoOn, bpy.types.Operator):
    bl_idname = "trellis.resume_job"
    bl_label = "Resume Generation"
    bl_description = (
        "Go on with a job where it stopped; one that nothing is known of is looked for at its service. "
        "Nothing is sent twice"
    )
    bl_options = {"REGISTER"}
    _none = "No job has stopped on its way"

    @staticmethod
    def _fits(view: Any) -> bool:
        return view.resumable or view.uncertain

    def _how(self, job_id: str) -> "Callable[[Runner], Any]":
        from .work import resume

        return partial(resume, job_id=job_id)

    def _act(self, context: bpy.types.Context, job_id: str) -> None:
        if screen.waits():
            super()._act(context, job_id)
        else:
            pump.get().work.resume(job_id)


class _Uncertain(_GoOn):
    """What the user decides about a job of which nothing is known."""

    _none = "No job is uncertain"

    @staticmethod
    def _fits(view: Any) -> bool:
        return view.uncertain


class TRELLIS_OT_send_again(_Uncertain, bpy.types.Operator):
    bl_idname = "trellis.send_again"
    bl_label = "Send Generation Again"
    bl_description = "Send the request of an uncertain job anew. If the service has it already, both are made and charged"
    bl_options = set()  # as of Retry

    def invoke(self, context: bpy.types.Context, event: bpy.types.Event) -> set[str]:
        asked = context.window_manager.invoke_confirm(
            self,
            event,
            title="Send Again?",
            message="The service may have this job already: then it is charged twice.",
            confirm_text="Send Again",
        )
        return set(asked)

    def _how(self, job_id: str) -> "Callable[[Runner], Any]":
        return lambda runner: runner.send_again(job_id)


class TRELLIS_OT_adopt_job(_Uncertain, bpy.types.Operator):
    bl_idname = "trellis.adopt_job"
    bl_label = "Adopt Generation"
    bl_description = (
        "Go on with an uncertain job by the id that the service's own pages show for its request"
    )
    bl_options = {"REGISTER"}

    request_id: StringProperty(
        name="Request",
        description="The service's id of the request, from the list of requests on its pages",
        options={"SKIP_SAVE"},
    )

    def invoke(self, context: bpy.types.Context, _event: bpy.types.Event) -> set[str]:
        asked = context.window_manager.invoke_props_dialog(
            self, width=400, title="Adopt a Request", confirm_text="Adopt"
        )
        return set(asked)

    def draw(self, _context: bpy.types.Context) -> None:
        self.layout.prop(self, "request_id")

    def _how(self, job_id: str) -> "Callable[[Runner], Any]":
        request_id = self.request_id.strip()
        if not request_id:
            raise InputError("Enter the request's id, as the service's pages show it.")
        return lambda runner: runner.adopt(job_id, request_id)


class TRELLIS_OT_check_key(bpy.types.Operator):
    bl_idname = "trellis.check_key"
    bl_label = "Check Key of Generation Service"
    bl_description = "Ask the service whether it knows the key, and for the balance. Costs nothing"
    bl_options = {"REGISTER"}

    service: EnumProperty(
        name="Service",
        description="Whose key",
        items=[(name, title, "") for name, title in preferences.SERVICES.items()],
        options={"SKIP_SAVE"},
    )

    def execute(self, _context: bpy.types.Context) -> set[str]:
        try:
            if screen.waits():
                from ..services import check_key

                account = check_key(self.service, preferences.config())
                self.report({"INFO"}, said(money.accepted(account)))
            else:
                pump.get().keys.check(self.service)
        except TrellisError as error:
            return operators.refuse(self, error)
        return {"FINISHED"}


CLASSES = (
    TRELLIS_OT_resume_job,
    TRELLIS_OT_send_again,
    TRELLIS_OT_adopt_job,
    TRELLIS_OT_check_key,
)

# SPDX-License-Identifier: GPL-3.0-or-later
"""Operators on one job or result, which the button names, and on the pages of the history."""

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import bpy
from bpy.props import BoolProperty, EnumProperty, FloatProperty, StringProperty

from ..endpoints import prices
from ..errors import OutputError, TrellisError
from ..generation.library import file_name
from . import background, jobs, money, operators, pump, screen
from .text import said, tr
from .wishes import wish_of

if TYPE_CHECKING:
    from concurrent.futures import Future


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
        if screen.waits() or cls._candidates():
            return True
        cls.poll_message_set(tr(cls._none))
        return False

    def _id(self) -> str:
        """The job that is meant, and stays so while the user is asked, whatever arrives meanwhile.

        Raises:
            TrellisError: there is none.
        """
        if not self.job_id:
            self.job_id = next((view.id for view in self._candidates()), "")
        if not self.job_id:
            raise TrellisError(f"{self._none}.")
        return str(self.job_id)

    def _view(self) -> Any:
        """The job that is meant as the panel shows it; None if it shows none."""
        with contextlib.suppress(TrellisError):
            self._id()
        return pump.get().board.views.get(self.job_id)

    def _ask(
        self, context: bpy.types.Context, event: bpy.types.Event, question: str, **words: str
    ) -> set[str]:
        """Have it executed after a question, which names the model."""
        self._view()
        title = tr(question).format(model=pump.get().board.title(self.job_id))
        return set(context.window_manager.invoke_confirm(self, event, title=title, **words))

    def execute(self, context: bpy.types.Context) -> set[str]:
        try:
            done = self._act(context, self._id())
            if done is not None and screen.waits():
                done.result()
        except TrellisError as error:
            return operators.refuse(self, error)
        return {"FINISHED"}

    def _act(self, context: bpy.types.Context, job_id: str) -> "Future[None] | None":
        """Do it, or begin it."""
        raise NotImplementedError


class ResultOperator(JobOperator):
    """What acts on one result."""

    _none = "Generate a model first"

    @staticmethod
    def _fits(view: Any) -> bool:
        return bool(view.files) and not view.importing

    def _result(self) -> Any:
        """The result that is meant, with its title and files.

        Raises:
            TrellisError: there is none.
        """
        job_id = self._id()
        return pump.get().board.views.get(job_id) or pump.get().session.job(job_id)

    def _files(self) -> list[Path]:
        """Its models. Raises as `_result`."""
        return [Path(path) for path in self._result().files]


class TRELLIS_OT_cancel(JobOperator, bpy.types.Operator):
    bl_idname = "trellis.cancel"
    bl_label = "Cancel Generation"
    bl_description = "Stop making this model. What a service has done by then may be charged"
    bl_options = set()  # as of Retry
    _none = "No model is being made"

    @classmethod
    def description(cls, _context: bpy.types.Context, given: Any) -> str:
        view = pump.get().board.views.get(given.job_id)
        if view is None or view.cancellable:
            return ""  # then Blender shows `bl_description`
        words = tr(
            "Stop waiting for this model. {service} cannot cancel: it goes on there and is charged, and can be "
            "collected with Resume"
        )
        return words.format(service=view.service)

    @staticmethod
    def _fits(view: Any) -> bool:
        return view.at_work and not view.importing

    def _act(self, _context: bpy.types.Context, job_id: str) -> None:
        pump.get().work.cancel(job_id)


class _Import(ResultOperator):
    """What brings a result into the scene."""

    def _wish(self, context: bpy.types.Context) -> dict[str, Any]:
        return wish_of(context.scene)

    def _act(self, context: bpy.types.Context, job_id: str) -> None:
        wish = self._wish(context)
        if screen.waits():
            background.bring(job_id, wish, context.scene)
        else:
            pump.get().work.bring(job_id, wish)


class TRELLIS_OT_import_result(_Import, bpy.types.Operator):
    bl_idname = "trellis.import_result"
    bl_label = "Import Generated Model"
    bl_description = "Put this model into the scene, at the 3D cursor"
    bl_options = {"REGISTER"}


class TRELLIS_OT_import_sized(_Import, bpy.types.Operator):
    bl_idname = "trellis.import_sized"
    bl_label = "Import Generated Model at Another Size"
    bl_description = "Put this model into the scene, at the 3D cursor and as tall as you say"
    bl_options = {"REGISTER"}

    height: FloatProperty(
        name="Height",
        description="How tall the model stands",
        default=1.0,
        min=0.001,
        soft_max=100,
        subtype="DISTANCE",
    )

    def invoke(self, context: bpy.types.Context, _event: bpy.types.Event) -> set[str]:
        asked = context.window_manager.invoke_props_dialog(
            self, title="Import at Another Size", confirm_text="Import"
        )
        return set(asked)

    def draw(self, _context: bpy.types.Context) -> None:
        self.layout.prop(self, "height")

    def _wish(self, context: bpy.types.Context) -> dict[str, Any]:
        metres = self.height * context.scene.unit_settings.scale_length
        return super()._wish(context) | {"height": metres}


class TRELLIS_OT_export_result(ResultOperator, bpy.types.Operator):
    bl_idname = "trellis.export_result"
    bl_label = "Export Generated Model"
    bl_description = "Copy this model's file, as it was generated, to a place of your choice"
    bl_options = set()  # as of Retry: nor would it ask about a file that is there

    filepath: StringProperty(
        name="File", description="The GLB to write", subtype="FILE_PATH", options={"SKIP_SAVE"}
    )
    filter_glob: StringProperty(default="*.glb", options={"HIDDEN"})
    check_existing: BoolProperty(
        name="Check Existing",
        description="Ask before an existing file is overwritten",
        default=True,
        options={"HIDDEN"},
    )

    def check(self, _context: bpy.types.Context) -> bool:
        """Have the file browser look for the file that will be written: for "chair", chair.glb."""
        typed = self.filepath
        if bpy.path.basename(typed):
            self.filepath = bpy.path.ensure_ext(typed, ".glb")
        return bool(self.filepath != typed)

    def invoke(self, context: bpy.types.Context, _event: bpy.types.Event) -> set[str]:
        try:
            self.filepath = self.filepath or f"{file_name(self._result().title)}.glb"
        except TrellisError as error:
            return operators.refuse(self, error)
        context.window_manager.fileselect_add(self)
        return {"RUNNING_MODAL"}

    def _act(self, _context: bpy.types.Context, job_id: str) -> "Future[None]":
        if not self.filepath:
            raise TrellisError("Say where the model is to be written.")
        output = Path(bpy.path.ensure_ext(bpy.path.abspath(self.filepath), ".glb"))
        # The file browser asks about the first file alone
        for number in range(2, len(self._files()) + 1):
            path = output.with_stem(f"{output.stem}-{number}")
            if path.exists():
                raise OutputError(f"Cannot write {path}: it exists already. Choose another name.")
        return pump.get().history.export(job_id, output)


class TRELLIS_OT_reveal_result(ResultOperator, bpy.types.Operator):
    bl_idname = "trellis.reveal_result"
    bl_label = "Show Generated Model's Folder"
    bl_description = "Open the folder that this model's file lies in"
    bl_options = {"REGISTER"}

    def _act(self, _context: bpy.types.Context, job_id: str) -> None:
        folder = self._files()[0].parent
        if not folder.is_dir():
            raise TrellisError(f"The folder {folder} is gone.")
        bpy.ops.wm.path_open(filepath=str(folder))


class TRELLIS_OT_forget(ResultOperator, bpy.types.Operator):
    bl_idname = "trellis.forget"
    bl_label = "Remove Model from Results"
    bl_description = "Take this model off the list. Its file stays in the results folder"
    bl_options = set()  # as of Retry

    def invoke(self, context: bpy.types.Context, event: bpy.types.Event) -> set[str]:
        return self._ask(
            *(context, event, "Remove {model} from the list?"),
            message="Its file stays in the results folder.",
            confirm_text="Remove",
        )

    def _act(self, _context: bpy.types.Context, job_id: str) -> "Future[None]":
        return pump.get().history.forget(job_id)


class TRELLIS_OT_delete_result(ResultOperator, bpy.types.Operator):
    bl_idname = "trellis.delete_result"
    bl_label = "Delete Generated Model"
    bl_description = "Delete this model's files for good, and the pictures that it was made of. What stands in a scene stays"
    bl_options = set()  # as of Retry

    def invoke(self, context: bpy.types.Context, event: bpy.types.Event) -> set[str]:
        return self._ask(
            *(context, event, "Delete {model}?"),
            message="Its files are deleted for good. What stands in a scene stays.",
            confirm_text="Delete",
            icon="WARNING",
        )

    def _act(self, _context: bpy.types.Context, job_id: str) -> "Future[None]":
        return pump.get().history.delete(job_id)


class TRELLIS_OT_turn_page(bpy.types.Operator):
    bl_idname = "trellis.turn_page"
    bl_label = "Turn Page of Generated Models"
    bl_description = "Show newer or older results"
    bl_options = {"INTERNAL"}

    way: EnumProperty(
        name="Way",
        description="Which way to turn",
        items=[("NEWER", "Newer", "Newer results"), ("OLDER", "Older", "Older results")],
        options={"SKIP_SAVE"},
    )

    def execute(self, _context: bpy.types.Context) -> set[str]:
        step = jobs.PAGE if self.way == "OLDER" else -jobs.PAGE
        try:
            pump.get().history.look_up(offset=pump.get().board.offset + step)
        except TrellisError as error:
            return operators.refuse(self, error)
        return {"FINISHED"}


class TRELLIS_OT_retry_job(JobOperator, bpy.types.Operator):
    bl_idname = "trellis.retry_job"
    bl_label = "Retry Generation"
    bl_description = (
        "Ask for the same model again, in place of the one that failed. At a service it is a new job, which is charged for "
        "itself"
    )
    # Without REGISTER: Repeat Last would not ask, and would take the next job where none is named
    bl_options = set()
    _none = "No job has failed"

    @staticmethod
    def _fits(view: Any) -> bool:
        return bool(view.failed)

    def invoke(self, context: bpy.types.Context, event: bpy.types.Event) -> set[str]:
        """Ask where the first one may have been charged: then this one is charged as well."""
        view = self._view()
        if view is None or not view.request_id or view.endpoint not in prices.PRICES:
            return self.execute(context)
        message = tr(
            "{service} had this job, and may have charged it. The new one is charged as well"
        )
        cost = prices.estimate(view.endpoint, view.job.parameters) if view.job else None
        words = [message.format(service=view.service), money.about(cost) if cost else ""]
        asked = context.window_manager.invoke_confirm(
            self,
            event,
            title="Retry?",
            message=" ".join(tr("{sentence}.").format(sentence=each) for each in words if each),
            confirm_text="Retry",
        )
        return set(asked)

    def _act(self, context: bpy.types.Context, job_id: str) -> None:
        if screen.waits():
            background.repeat(job_id, wish_of(context.scene), context.scene)
        else:
            pump.get().work.retry(job_id)


class TRELLIS_OT_toggle_log(JobOperator, bpy.types.Operator):
    bl_idname = "trellis.toggle_log"
    bl_label = "Show Generation Log"
    bl_description = "Show or hide what this job has told so far"
    bl_options = {"INTERNAL"}
    _none = "No model is being made"

    def _act(self, context: bpy.types.Context, job_id: str) -> None:
        view = pump.get().board.views.get(job_id)
        if view:
            view.expanded = not view.expanded
            screen.redraw()


class TRELLIS_OT_dismiss(JobOperator, bpy.types.Operator):
    bl_idname = "trellis.dismiss"
    bl_label = "Dismiss Failed Generation"
    bl_description = "Show this failed job no longer"
    bl_options = set()  # as of Retry
    _none = "No job has failed"

    @staticmethod
    def _fits(view: Any) -> bool:
        return bool(view.error) and not view.at_work

    def invoke(self, context: bpy.types.Context, event: bpy.types.Event) -> set[str]:
        """Ask where what can still be done about it goes with it."""
        view = self._view()
        if view is None or not view.uncertain:
            return self.execute(context)
        return self._ask(
            *(context, event, "Dismiss {model}?"),
            message="The service may have this job; it cannot be collected afterwards.",
            confirm_text="Dismiss",
        )

    def _act(self, _context: bpy.types.Context, job_id: str) -> None:
        pump.get().work.dismiss(job_id)


class TRELLIS_OT_copy_error(JobOperator, bpy.types.Operator):
    bl_idname = "trellis.copy_error"
    bl_label = "Copy Generation Details"
    bl_description = (
        "Copy the whole message, with the ids that a service's support asks for, and the log"
    )
    bl_options = {"REGISTER"}
    _none = "No job has failed"

    @staticmethod
    def _fits(view: Any) -> bool:
        return bool(view.error or view.log)

    def _act(self, context: bpy.types.Context, job_id: str) -> None:
        view = pump.get().board.views.get(job_id)
        if view is None:
            raise TrellisError("This job is not shown any more.")
        # In English too: those who are asked for help may not read the interface's language
        errors = dict.fromkeys((said(view.error), view.error))
        lines = [*errors, f"Endpoint: {view.endpoint}", f"Job: {view.id}"]
        lines += [f"Request: {view.request_id}"] if view.request_id else []
        context.window_manager.clipboard = "\n".join([*lines, *view.log]).strip()
        self.report({"INFO"}, tr("Copied"))


CLASSES = (
    TRELLIS_OT_cancel,
    TRELLIS_OT_import_result,
    TRELLIS_OT_import_sized,
    TRELLIS_OT_export_result,
    TRELLIS_OT_reveal_result,
    TRELLIS_OT_forget,
    TRELLIS_OT_delete_result,
    TRELLIS_OT_turn_page,
    TRELLIS_OT_retry_job,
    TRELLIS_OT_toggle_log,
    TRELLIS_OT_dismiss,
    TRELLIS_OT_copy_error,
)

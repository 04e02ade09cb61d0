# SPDX-License-Identifier: GPL-3.0-or-later
"""Operators on how a model was made: make it again, or with other settings."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import bpy

from ..endpoints import prices
from ..endpoints.schema import schemas, unknown_endpoint
from ..errors import InputError, TrellisError
from . import background, operators, orders, properties, pump, recipes, screen
from .operators_jobs import JobOperator
from .text import tr
from .wishes import wish_of

if TYPE_CHECKING:
    from ..generation.job import Job


class _Again(JobOperator):
    """What acts on the named job, else on the one that made the active object."""

    _none = "Select a generated object"

    @staticmethod
    def _fits(view: Any) -> bool:
        return bool(view.files or view.error) and not view.at_work

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        return recipes.of_active(context) is not None or super().poll(context)

    def _asked(self, context: bpy.types.Context) -> tuple[str, dict[str, Any], str]:
        """The endpoint that is meant, its parameters and what to call the model.

        Raises:
            TrellisError: there is none, or it is not known any more.
        """
        recipe = None if self.job_id else recipes.of_active(context)
        if recipe:
            asked = recipe.endpoint, recipe.parameters, recipes.title_of(recipe)
        else:
            job = pump.get().session.job(self._id())
            asked = job.endpoint, job.parameters, job.title
        if asked[0] not in schemas():
            raise unknown_endpoint(asked[0])
        return asked

    def _meant(self, context: bpy.types.Context) -> str:
        """The job's id."""
        recipe = None if self.job_id else recipes.of_active(context)
        return (recipe.job_id or "") if recipe else self._id()


class TRELLIS_OT_run_again(_Again, bpy.types.Operator):
    bl_idname = "trellis.run_again"
    bl_label = "Run Generation Again"
    bl_description = (
        "Have the same model made once more, of the same pictures with the same parameters and seed; at a service it is charged "
        "again. It comes to the 3D cursor"
    )
    bl_options = {"UNDO"}  # as of Generate

    def invoke(self, context: bpy.types.Context, event: bpy.types.Event) -> set[str]:
        try:
            endpoint, parameters, _ = self._asked(context)
        except TrellisError as error:
            return operators.refuse(self, error)
        cost = prices.estimate(endpoint, parameters)
        return operators.ask_first(self, context, event, cost)

    def execute(self, context: bpy.types.Context) -> set[str]:
        try:
            endpoint, _, title = self._asked(context)
            why = orders.unreachable(endpoint)
            if why:
                raise InputError(f"{why}.")
            # What gives an object a new texture is wished for that object again
            wish = None if schemas()[endpoint]["mesh"] else wish_of(context.scene)
            job_id = self._meant(context)
            if screen.waits():
                background.repeat(job_id, wish, context.scene)
            else:
                pump.get().work.repeat(job_id, title, endpoint, wish)
        except TrellisError as error:
            return operators.refuse(self, error)
        return {"FINISHED"}


class TRELLIS_OT_use_settings(_Again, bpy.types.Operator):
    bl_idname = "trellis.use_settings"
    bl_label = "Use These Generation Settings"
    bl_description = "Put endpoint, parameters, seed and pictures of this model into the panel, to change some and generate"
    bl_options = {"REGISTER", "UNDO"}

    def execute(self, context: bpy.types.Context) -> set[str]:
        settings = context.scene.trellis
        try:
            endpoint, parameters, _ = self._asked(context)
            job = pump.get().session.find(self._meant(context))
        except TrellisError as error:
            return operators.refuse(self, error)
        recipe = None if self.job_id else recipes.of_active(context)
        seed = recipe.seed if recipe else job and job.seed
        properties.adopt(settings, endpoint, parameters, seed)
        if seed is not None and settings.seed != seed:
            words = tr("The seed {seed} is larger than Blender's numbers are, and was left out")
            self.report({"WARNING"}, words.format(seed=seed))
        if not (job and _use_pictures(settings, job)):
            self.report(
                {"WARNING"}, tr("The pictures are not on this computer any more. Choose them again")
            )
        return {"FINISHED"}


def _use_pictures(settings: Any, job: "Job") -> bool:
    """Show the job's pictures, under the names that they had; whether all are still there."""
    folder = pump.get().session.inputs
    paths = [folder / name for name in job.images] if folder else []
    if not paths or not all(map(Path.is_file, paths)):
        return False
    properties.use_files(settings, [str(path) for path in paths])
    for item, name in zip(settings.images, job.names, strict=True):
        item.name = name
    return True


CLASSES = (TRELLIS_OT_run_again, TRELLIS_OT_use_settings)

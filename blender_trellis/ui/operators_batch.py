# SPDX-License-Identifier: GPL-3.0-or-later
"""Operators on a folder of pictures: one model of each, after a look at how many there are and what all of them cost."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import bpy
from bpy.props import BoolProperty, StringProperty

from ..endpoints.schema import schemas
from ..errors import ImageError, TrellisError
from ..generation import rows
from . import background, jobs, money, operators, orders, properties, pump, screen
from .text import said, tr, wrapped

_WIDTH = 360  # of the dialog
_LISTED = 8  # files that are skipped, by name


class TRELLIS_OT_choose_folder(bpy.types.Operator):
    bl_idname = "trellis.choose_folder"
    bl_label = "Generate from Folder…"
    bl_description = "Make one model of each picture in a folder, in a row at the 3D cursor. Asks before anything is sent"
    bl_options = set()  # without REGISTER, as of Generate

    directory: StringProperty(subtype="DIR_PATH", options={"SKIP_SAVE", "HIDDEN"})
    filter_folder: BoolProperty(default=True, options={"HIDDEN", "SKIP_SAVE"})

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        return TRELLIS_OT_generate_folder.poll(context)

    def invoke(self, context: bpy.types.Context, _event: bpy.types.Event) -> set[str]:
        context.window_manager.fileselect_add(self)
        return {"RUNNING_MODAL"}

    def execute(self, _context: bpy.types.Context) -> set[str]:
        try:
            bpy.ops.trellis.generate_folder("INVOKE_DEFAULT", directory=self.directory)
        except RuntimeError as error:  # what it reported: "Error: …"
            self.report({"ERROR"}, str(error).partition(": ")[2].strip())
            return {"CANCELLED"}
        # The dialog goes on by itself: who answers a file browser with its RUNNING_MODAL is never freed
        return {"FINISHED"}


class TRELLIS_OT_generate_folder(bpy.types.Operator):
    bl_idname = "trellis.generate_folder"
    bl_label = "Generate from Folder"
    bl_description = "Make one model of each picture in a folder, in a row at the 3D cursor"
    bl_options = {"UNDO"}  # as of Generate

    # What the dialog found; a script has none
    _good: Sequence[Path] = ()
    _bad: Sequence[str] = ()
    _made = 0  # rows that an earlier run made

    directory: StringProperty(
        name="Folder",
        description="Where the pictures are; folders in it are left out",
        subtype="DIR_PATH",
        options={"SKIP_SAVE", "HIDDEN"},
    )
    anew: BoolProperty(
        name="Make All Anew",
        description="Make, and pay for, those models too that were made before with the same parameters; else these are imported",
        options={"SKIP_SAVE"},
    )

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        endpoint = context.scene.trellis.endpoint
        why = orders.unreachable(endpoint)
        if schemas()[endpoint]["mesh"]:
            why = "Choose an endpoint that makes models of images alone"
        if why:
            cls.poll_message_set(said(why))
        return not why

    def invoke(self, context: bpy.types.Context, _event: bpy.types.Event) -> set[str]:
        try:
            self._good, self._bad = _pictures(self.directory)
            self._made = len(self._order(context.scene).made)
        except TrellisError as error:
            return operators.refuse(self, error)
        return set(context.window_manager.invoke_props_dialog(self, width=_WIDTH))

    def draw(self, context: bpy.types.Context) -> None:
        column: Any = self.layout.column(align=True)
        settings = context.scene.trellis
        images, made = len(self._good), 0 if self.anew else self._made
        count = images * properties.variations(settings, settings.endpoint)
        column.label(
            text=tr("{count} models of {images} images").format(count=count, images=images),
            icon="IMAGE_DATA",
            translate=False,
        )
        if made:
            words = tr("1 is there already") if made == 1 else tr("{count} are there already")
            column.label(text=words.format(count=made), icon="BLANK1", translate=False)
        cost = money.estimate(settings, settings.endpoint)
        share = 1 - made / (images * orders.rows_each(settings))
        if cost and share > 0:
            for line in wrapped(context, money.about(cost.times(images * share)), dialog=_WIDTH):
                column.label(text=line, icon="BLANK1", translate=False)
        if self._made:
            column.separator()
            column.prop(self, "anew")
        if not self._bad:
            return
        column.separator()
        column.label(text="Skipped, as they cannot be read:", icon="ERROR")
        for name in self._bad[:_LISTED]:
            column.label(text=name, icon="BLANK1", translate=False)
        if len(self._bad) > _LISTED:
            more = tr("and {count} more").format(count=len(self._bad) - _LISTED)
            column.label(text=more, icon="BLANK1", translate=False)

    def execute(self, context: bpy.types.Context) -> set[str]:
        try:
            if not self._good:
                self._good, self._bad = _pictures(self.directory)
            order = self._order(context.scene)
            if screen.waits():
                background.batch(order, context.scene)
            else:
                pump.get().batches.start(order)
        except TrellisError as error:
            return operators.refuse(self, error)
        if self._bad:
            words = tr("Skipped, as they cannot be read: {names}")
            self.report({"WARNING"}, words.format(names=", ".join(self._bad)))
        return {"FINISHED"}

    def _order(self, scene: bpy.types.Scene) -> orders.BatchOrder:
        """Raises as `orders.batch_of`."""
        folder = Path(bpy.path.abspath(self.directory))
        return orders.batch_of(scene, folder, self._good, anew=self.anew)


class _OfOne:
    """What acts on one batch, which its button names."""

    batch_id: StringProperty(
        name="Batch",
        description="The batch as the panel knows it; empty: the newest",
        options={"SKIP_SAVE", "HIDDEN"},
    )
    _over: bool | None = None  # of those it can act on; None: of all
    _none = "No folder is being worked on"

    @classmethod
    def _candidates(cls) -> list[jobs.BatchView]:
        found = pump.get().board.batches.values()
        return [view for view in found if cls._over in (None, view.over)]

    @classmethod
    def poll(cls, _context: bpy.types.Context) -> bool:
        if not cls._candidates():
            cls.poll_message_set(tr(cls._none))
        return bool(cls._candidates())

    def execute(self, _context: bpy.types.Context) -> set[str]:
        for view in self._candidates():
            if self.batch_id in ("", view.id):
                try:
                    self._act(view)
                except TrellisError as error:
                    return operators.refuse(self, error)
                return {"FINISHED"}
        return {"CANCELLED"}

    def _act(self, view: jobs.BatchView) -> None:
        raise NotImplementedError


class TRELLIS_OT_stop_batch(_OfOne, bpy.types.Operator):
    bl_idname = "trellis.stop_batch"
    bl_label = "Stop Generating from Folder"
    bl_description = "Send no more pictures of this folder. What is being made still comes; the next time the rest is made"
    bl_options = set()  # as of Generate
    _over = False

    def _act(self, view: jobs.BatchView) -> None:
        pump.get().batches.stop(view.id)


class TRELLIS_OT_dismiss_batch(_OfOne, bpy.types.Operator):
    bl_idname = "trellis.dismiss_batch"
    bl_label = "Remove Folder from Jobs"
    bl_description = "Show this folder no longer. Its models and results stay"
    bl_options = set()
    _over = True
    _none = "No folder is done"

    def _act(self, view: jobs.BatchView) -> None:
        board = pump.get().board
        del board.batches[view.id]
        screen.redraw()


class TRELLIS_OT_reveal_batch(_OfOne, bpy.types.Operator):
    bl_idname = "trellis.reveal_batch"
    bl_label = "Show Results of Folder"
    bl_description = (
        "Open the folder with the models, the contact sheet and a line of results for each picture"
    )
    bl_options = {"REGISTER"}
    _none = "Generate from a folder first"

    def _act(self, view: jobs.BatchView) -> None:
        if not Path(view.folder).is_dir():
            raise TrellisError(f"The folder {view.folder} is gone.")
        bpy.ops.wm.path_open(filepath=view.folder)


def _pictures(directory: str) -> tuple[list[Path], list[str]]:
    """The pictures in a folder, by name, and the names of those that cannot be read.

    Raises:
        ImageError: there is none that can.
    """
    folder = Path(bpy.path.abspath(directory))
    good, bad = rows.sort_out(rows.pictures_in(folder))
    if not good:
        raise ImageError(
            f"There is no picture in {folder} that can be read. Choose another folder."
        )
    return good, bad


CLASSES = (
    TRELLIS_OT_choose_folder,
    TRELLIS_OT_generate_folder,
    TRELLIS_OT_stop_batch,
    TRELLIS_OT_dismiss_batch,
    TRELLIS_OT_reveal_batch,
)

# SPDX-License-Identifier: GPL-3.0-or-later
"""A folder of pictures as a batch: one model of each, after a look at how many there are and what all of them cost."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import bpy
from bpy.props import BoolProperty, StringProperty

from ..endpoints.schema import schemas
from ..errors import ImageError, TrellisError
from ..generation import rows
from . import money, operators, orders, properties
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

    directory: StringProperty(
        name="Folder",
        description="Where the pictures are; folders in it are left out",
        subtype="DIR_PATH",
        options={"SKIP_SAVE", "HIDDEN"},
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
        except TrellisError as error:
            return operators.refuse(self, error)
        return set(context.window_manager.invoke_props_dialog(self, width=_WIDTH))

    def draw(self, context: bpy.types.Context) -> None:
        column: Any = self.layout.column(align=True)
        settings = context.scene.trellis
        images = len(self._good)
        count = images * properties.variations(settings, settings.endpoint)
        column.label(
            text=tr("{count} models of {images} images").format(count=count, images=images),
            icon="IMAGE_DATA",
            translate=False,
        )
        cost = money.estimate(settings, settings.endpoint)
        if cost:
            for line in wrapped(context, money.about(cost.times(images)), dialog=_WIDTH):
                column.label(text=line, icon="BLANK1", translate=False)
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
            operators.carry_out(context.scene, orders.batch_of(context.scene, self._good))
        except TrellisError as error:
            return operators.refuse(self, error)
        if self._bad:
            words = tr("Skipped, as they cannot be read: {names}")
            self.report({"WARNING"}, words.format(names=", ".join(self._bad)))
        return {"FINISHED"}


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


CLASSES = (TRELLIS_OT_choose_folder, TRELLIS_OT_generate_folder)

# SPDX-License-Identifier: GPL-3.0-or-later
"""What goes in, at the top of the panel "Image to 3D": the picture as the model will see it in the largest place, what can be
done with it in a column of icons beside it, and its further views.

Drawn from properties and from pictures that are loaded already.
"""

from typing import Any

import bpy

from ..endpoints.schema import schemas
from . import properties, pump
from .pictures import on_the_web
from .sights import WHOLE, Sight
from .text import said, tr, wrapped

_A_ROW = 4  # small pictures side by side, at the narrowest


class TRELLIS_UL_images(bpy.types.UIList):
    """The views, one a line."""

    def draw_item(
        self,
        _context: Any,
        layout: bpy.types.UILayout,
        data: Any,
        item: Any,
        _icon: int,
        _active_data: Any,
        _active_property: str,
        index: int = 0,
    ) -> None:
        row = layout.row()
        icon = _icon_of(item, _seen(data, item))
        row.label(text=properties.label_of(item), icon_value=icon, translate=False)
        role = row.row()
        role.alignment = "RIGHT"
        role.active = False
        role.label(text=_role(data, index), translate=False)


class TRELLIS_MT_images(bpy.types.Menu):
    """Further ways to get a picture in, beside the icons."""

    bl_idname = "TRELLIS_MT_images"
    bl_label = "More Images"

    def draw(self, _context: Any) -> None:
        layout: Any = self.layout
        layout.operator("trellis.add_image_datablock", text="Use Blender Image…", icon="IMAGE_DATA")
        layout.operator("trellis.choose_folder", icon="FILE_FOLDER")


class TRELLIS_MT_add_view(bpy.types.Menu):
    """The ways to get a further view in."""

    bl_idname = "TRELLIS_MT_add_view"
    bl_label = "Add View"

    def draw(self, _context: Any) -> None:
        _draw_single(self.layout)


def _role(settings: Any, index: int) -> str:
    """Which view a picture shows, by its place in the list."""
    named = schemas()[settings.endpoint]["images"]["views"]
    if index < len(named):
        return tr(named[index].capitalize())
    return tr("View {number}").format(number=index + 1)


def _seen(settings: Any, item: Any) -> Sight | None:
    return pump.get().previews.seen(settings, item)


def _icon_of(item: Any, sight: Sight | None) -> int:
    """As the model will see it; the file as it is until that is known, which takes a moment."""
    path = sight.path if sight else "" if on_the_web(item.filepath) else item.filepath
    return pump.get().previews.of_file(bpy.path.abspath(path))


def draw(layout: Any, context: Any, settings: Any) -> None:
    """The pictures, what can be done with them, and where the model will stand if not at the 3D cursor."""
    if settings.images:
        _draw_pictures(layout, context, settings)
    else:
        _draw_ways_in(layout)
    if settings.drop_set or settings.place_set:
        line = layout.row()
        line.label(text="Stands at a chosen place", icon="PIVOT_CURSOR")
        line.operator("trellis.clear_drop", text="", icon="X", emboss=False)


def _draw_pictures(layout: Any, context: Any, settings: Any) -> None:
    count = len(settings.images)
    item = settings.images[min(settings.active, count - 1)]
    sight = _seen(settings, item)
    row = layout.row()
    picture = row.box().column()
    width = context.region.width / context.preferences.system.ui_scale
    # The icons beside it, the tabs and the margins leave this much, in units of 20 pixels
    scale = max(3.0, min((width - 92) / 20, 12.0))
    picture.template_icon(_icon_of(item, sight), scale=scale)
    _draw_icons(row.column(align=True), settings)
    _draw_views(layout, settings)
    _draw_words(layout, context, settings, sight)
    if count > 1:
        _draw_list(layout, settings)


def _draw_ways_in(layout: Any) -> None:
    column = layout.column(align=True)
    _draw_single(column)
    column.operator("trellis.choose_folder", icon="FILE_FOLDER")
    column.label(text="Or drop an image here", icon="IMPORT")


def _draw_single(layout: Any) -> None:
    layout.operator("trellis.add_images", text="Open Image…", icon="FILEBROWSER")
    layout.operator("trellis.paste_image", icon="PASTEDOWN")
    layout.operator("trellis.capture_view", icon="RESTRICT_VIEW_OFF")
    layout.operator("trellis.capture_camera", icon="OUTLINER_OB_CAMERA")
    layout.operator("trellis.add_image_datablock", text="Use Blender Image…", icon="IMAGE_DATA")


def _draw_icons(column: Any, settings: Any) -> None:
    column.operator("trellis.add_images", text="", icon="FILEBROWSER").replace = True
    column.operator("trellis.paste_image", text="", icon="PASTEDOWN").replace = True
    column.operator("trellis.capture_view", text="", icon="RESTRICT_VIEW_OFF").replace = True
    column.operator("trellis.capture_camera", text="", icon="OUTLINER_OB_CAMERA").replace = True
    column.menu("TRELLIS_MT_images", text="", icon="DOWNARROW_HLT")
    column.separator()
    column.prop(settings, "cut_out", text="", icon="IMAGE_RGB_ALPHA")
    column.operator("trellis.remove_image", text="", icon="X")


def _draw_views(layout: Any, settings: Any) -> None:
    """A small picture for each view, whose name shows it large, and a way to add one; or the one picture's name."""
    count = len(settings.images)
    more = count < schemas()[settings.endpoint]["images"]["maximum"]
    if count == 1:
        row = layout.row()
        row.label(text=properties.label_of(settings.images[0]), translate=False)
        if more:
            row.menu("TRELLIS_MT_add_view", text="Add View", icon="ADD")
        return
    grid = layout.grid_flow(
        row_major=True, columns=_A_ROW, even_columns=True, even_rows=True, align=True
    )
    named = len(schemas()[settings.endpoint]["images"]["views"])
    for index, item in enumerate(settings.images):
        cell = grid.column(align=True)
        cell.template_icon(_icon_of(item, _seen(settings, item)), scale=2.4)
        shown = cell.operator(
            "trellis.show_image",
            text=_role(settings, index) if index < named else str(index + 1),
            translate=False,
            depress=index == settings.active,
        )
        shown.index = index
    if more:
        layout.menu("TRELLIS_MT_add_view", text="Add View", icon="ADD")


def _draw_words(layout: Any, context: Any, settings: Any, sight: Sight | None) -> None:
    """Why the picture that is shown cannot be used, or who takes its background away."""
    if sight is None:
        return
    column = layout.column(align=True)
    if sight.error:
        column.alert = True
        for number, line in enumerate(wrapped(context, said(sight.error), icon=True)):
            column.label(text=line, icon="BLANK1" if number else "ERROR", translate=False)
    elif sight.kind == WHOLE:
        column.active = False
        words = (
            tr("No plain background found: it is left to {service}")
            if settings.cut_out
            else tr("The background is left to {service}")
        )
        schema = schemas()[settings.endpoint]
        service = schema["title"].rpartition(" · ")[2]
        service = tr("this computer") if schema["service"] == "local" else service
        for line in wrapped(context, words.format(service=service)):
            column.label(text=line, translate=False)


def _draw_list(layout: Any, settings: Any) -> None:
    """The views by name, to be put into another order."""
    header, body = layout.panel("TRELLIS_views", default_closed=True)
    header.label(text="Order of Views")
    if not body:
        return
    row = body.row()
    row.template_list(
        "TRELLIS_UL_images", "", settings, "images", settings, "active", rows=4, maxrows=4
    )
    order = row.column(align=True)
    order.operator("trellis.remove_image", text="", icon="REMOVE")
    order.separator()
    order.operator("trellis.move_image", text="", icon="TRIA_UP").direction = "UP"
    order.operator("trellis.move_image", text="", icon="TRIA_DOWN").direction = "DOWN"


CLASSES = (TRELLIS_UL_images, TRELLIS_MT_images, TRELLIS_MT_add_view)

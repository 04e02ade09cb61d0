# SPDX-License-Identifier: GPL-3.0-or-later
"""What goes in, at the top of the panel "Image to 3D": the picture in the largest place, and its further views.

Drawn from properties and from pictures that are loaded already.
"""

from typing import Any

import bpy

from ..endpoints.schema import schemas
from . import properties, pump


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
        row.label(text=properties.label_of(item), icon_value=_icon_of(item), translate=False)
        role = row.row()
        role.alignment = "RIGHT"
        role.active = False
        role.label(text=_role(data, index))


def _role(settings: Any, index: int) -> str:
    named = schemas()[settings.endpoint]["images"]["views"]
    return named[index].capitalize() if index < len(named) else f"View {index + 1}"


def _icon_of(item: Any) -> int:
    """The small picture of an image in the list; 0 while there is none."""
    previews = pump.get().previews
    if item.image:
        return previews.of_image(item.image)
    return previews.of_file(bpy.path.abspath(item.filepath))


def draw(layout: Any, context: Any, settings: Any) -> None:
    """The pictures, and what can be done with them."""
    if not settings.images:
        column = layout.column(align=True)
        column.operator("trellis.add_images", text="Open Image…", icon="FILEBROWSER")
        column.operator("trellis.add_image_datablock", text="Use Blender Image…", icon="IMAGE_DATA")
        return
    item = settings.images[min(settings.active, len(settings.images) - 1)]
    row = layout.row()
    picture = row.box().column()
    icon = _icon_of(item)
    width = context.region.width / context.preferences.system.ui_scale
    # The icons beside it, the tabs and the margins leave this much, in units of 20 pixels
    scale = max(3.0, min((width - 92) / 20, 12.0))
    picture.template_icon(icon, scale=scale)
    icons = row.column(align=True)
    icons.operator("trellis.add_images", text="", icon="FILEBROWSER").replace = True
    most = schemas()[settings.endpoint]["images"]["maximum"]
    if most > 1:
        further = icons.column(align=True)
        further.enabled = len(settings.images) < most
        further.operator("trellis.add_images", text="", icon="ADD")
    icons.operator("trellis.add_image_datablock", text="", icon="IMAGE_DATA")
    icons.separator()
    icons.operator("trellis.remove_image", text="", icon="X")
    if settings.drop_set:
        line = layout.row()
        line.label(text="Stands at a chosen place", icon="PIVOT_CURSOR")
        line.operator("trellis.clear_drop", text="", icon="X", emboss=False)
    if len(settings.images) == 1:
        layout.label(text=properties.label_of(item), translate=False)
        return
    row = layout.row()
    rows = min(len(settings.images), 4)
    row.template_list(
        "TRELLIS_UL_images", "", settings, "images", settings, "active", rows=rows, maxrows=4
    )
    order = row.column(align=True)
    order.operator("trellis.move_image", text="", icon="TRIA_UP").direction = "UP"
    order.operator("trellis.move_image", text="", icon="TRIA_DOWN").direction = "DOWN"


CLASSES = (TRELLIS_UL_images,)

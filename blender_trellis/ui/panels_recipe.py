# SPDX-License-Identifier: GPL-3.0-or-later
"""The panel "Recipe": how the active object was made; there only while that is a generated one."""

from typing import Any

import bpy

from . import recipes
from .panels import TrellisPanel


class TRELLIS_PT_recipe(TrellisPanel, bpy.types.Panel):
    """Endpoint, what differs from its defaults, seed, cost and date; and from there to another model."""

    bl_label = "Recipe"
    bl_order = 3
    bl_options = {"DEFAULT_CLOSED"}

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        return recipes.of_active(context) is not None

    def draw(self, context: bpy.types.Context) -> None:
        layout: Any = self.layout
        recipe = recipes.of_active(context)
        assert recipe
        rows = layout.column(align=True)
        for name, value in recipes.lines(recipe):
            row = rows.split(factor=0.4)
            quiet = row.row()
            quiet.active = False
            quiet.alignment = "RIGHT"
            quiet.label(text=name, translate=False)
            row.label(text=value, translate=False)
        column = layout.column(align=True)
        column.operator("trellis.run_again", text="Run Again", icon="FILE_REFRESH")
        column.operator("trellis.use_settings", text="Use These Settings", icon="GREASEPENCIL")


CLASSES = (TRELLIS_PT_recipe,)

# SPDX-License-Identifier: GPL-3.0-or-later
"""The commands in the menu Add of the 3D viewport: Blender's search (F3) finds what stands in a menu, and no more unless
Developer Extras are shown."""

from typing import Any

import bpy

_OPERATORS = (
    ("add_images", "paste_image", "capture_view", "capture_camera", "add_image_datablock"),
    ("generate", "choose_folder", "retexture", "place"),
    ("import_result", "import_sized", "export_result", "reveal_result"),
    ("cancel", "retry_job", "resume_job", "run_again", "use_settings"),
    ("new_seed", "reset_parameters"),
)


class TRELLIS_MT_add(bpy.types.Menu):
    """What can be done without pointing at a job or a picture of a list."""

    bl_idname = "TRELLIS_MT_add"
    bl_label = "Image to 3D"

    def draw(self, _context: Any) -> None:
        for number, group in enumerate(_OPERATORS):
            if number:
                self.layout.separator()
            for name in group:
                self.layout.operator(f"trellis.{name}")


def _draw(menu: Any, _context: Any) -> None:
    menu.layout.separator()
    menu.layout.menu(TRELLIS_MT_add.bl_idname, icon="IMAGE_DATA")


CLASSES = (TRELLIS_MT_add,)


def register() -> None:
    bpy.types.VIEW3D_MT_add.append(_draw)


def unregister() -> None:
    bpy.types.VIEW3D_MT_add.remove(_draw)

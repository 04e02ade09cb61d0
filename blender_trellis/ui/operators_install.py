# SPDX-License-Identifier: GPL-3.0-or-later
"""Operators on the local engine TRELLIS.2: install, cancel, uninstall, unload.

In a window they return at once, and the preferences show how far it is. In background mode they wait.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import bpy
from bpy.props import BoolProperty, EnumProperty, StringProperty

from ..errors import InputError, TrellisError
from . import installs, operators, preferences, properties, screen
from .text import said, tr

if TYPE_CHECKING:
    from ..install.installer import Wish

_PARTS = [
    ("BOTH", "Both", "The Python environment and the weights"),
    ("ENVIRONMENT", "Environment", "The Python environment with PyTorch"),
    ("WEIGHTS", "Weights", "The model's files"),
]


def _only(part: str) -> str:
    return "" if part == "BOTH" else part.lower()


class _NotMeanwhile:
    """What is not done while the local engine is being installed or uninstalled."""

    @classmethod
    def poll(cls, _context: bpy.types.Context) -> bool:
        if installs.get().at_work:
            cls.poll_message_set(tr("It is being installed or uninstalled"))
            return False
        return True


class TRELLIS_OT_install_local(_NotMeanwhile, bpy.types.Operator):
    bl_idname = "trellis.install_local"
    bl_label = "Install TRELLIS.2 on This Computer"
    bl_description = (
        "Download what the TRELLIS.2 engine needs: a Python environment of its own, beside Blender's, and the model. "
        "Nothing is downloaded before you have seen how much it is"
    )
    bl_options = {"REGISTER"}

    resolution: EnumProperty(
        name="Resolution",
        description="Which weights to have",
        items=[
            ("512", "512", "Models at resolution 512"),
            ("all", "All", "Models at 512, 1024 and 1536"),
        ],
        options={"SKIP_SAVE"},
    )
    retexture: BoolProperty(
        name="Retexture",
        description="The weights for retexturing meshes too",
        options={"SKIP_SAVE"},
    )
    without_gate: BoolProperty(
        name="DINOv3 without Registration",
        description="Have the image encoder from a copy that asks for no registration. "
        "Its licence, Meta's, binds you all the same",
        options={"SKIP_SAVE"},
    )
    source: StringProperty(
        name="Folder",
        description="A folder that has the weights already, in place of the download",
        subtype="DIR_PATH",
        options={"SKIP_SAVE"},
    )
    mirror: StringProperty(
        name="Mirror",
        description="Base URL of a mirror of huggingface.co",
        options={"SKIP_SAVE"},
    )
    python: StringProperty(
        name="Python",
        description="Make the environment with this Python, 3.11 to 3.13. Empty: Blender's own",
        subtype="FILE_PATH",
        options={"SKIP_SAVE"},
    )
    device: EnumProperty(
        name="Device",
        description="The build of PyTorch",
        items=[
            ("AUTO", "Automatic", "The one that suits the hardware"),
            ("CUDA", "NVIDIA", "CUDA, for NVIDIA cards"),
            ("ROCM", "AMD", "ROCm, for AMD cards on Linux"),
            ("MPS", "Apple", "Metal, for Macs with Apple silicon"),
            ("CPU", "CPU", "No graphics card; very slow"),
        ],
        options={"SKIP_SAVE"},
    )
    part: EnumProperty(
        name="Part", description="What to install", items=_PARTS, options={"SKIP_SAVE"}
    )

    def invoke(self, context: bpy.types.Context, _event: bpy.types.Event) -> set[str]:
        """Show what will be downloaded, and under which licences; scripts call `execute`."""
        from .panels_install import WIDTH

        if not self.properties.is_property_set("resolution"):
            chosen = properties.group_of(context.scene.trellis, "local/trellis-2").resolution
            self.resolution = "512" if chosen == "512" else "all"
        installs.get().look_at_once()
        asked = context.window_manager.invoke_props_dialog(
            self, width=WIDTH, title=self.bl_label, confirm_text="Download and Install"
        )
        return set(asked)

    def draw(self, context: bpy.types.Context) -> None:
        from .panels_install import draw_question

        draw_question(self.layout, context, self)

    def _wish(self) -> "Wish":
        """What is wanted.

        Raises:
            InputError: the folder or the mirror is none.
        """
        from ..config import check_base_url
        from ..install.installer import Wish

        source = Path(bpy.path.abspath(self.source)) if self.source else None
        if source and not source.is_dir():
            raise InputError(f"There is no folder {source}. Choose the one that has the weights.")
        return Wish(
            python=Path(bpy.path.abspath(self.python)) if self.python else None,
            device=None if self.device == "AUTO" else self.device.lower(),
            resolution=self.resolution,
            retexture=self.retexture,
            without_gate=self.without_gate,
            mirror=check_base_url(self.mirror, "Mirror") if self.mirror else "",
            source=source,
            only=_only(self.part),
            offline=not bpy.app.online_access,
        )

    def execute(self, _context: bpy.types.Context) -> set[str]:
        try:
            wish = self._wish()
            if screen.waits():
                from .. import api

                made = api.install_local(wish)
                self.report({"INFO"}, tr("TRELLIS.2 is installed"))
                for words in made.lost:
                    self.report({"WARNING"}, said(words))
            else:
                installs.get().install(wish)
        except TrellisError as error:
            return operators.refuse(self, error)
        return {"FINISHED"}


class TRELLIS_OT_cancel_install(bpy.types.Operator):
    bl_idname = "trellis.cancel_install"
    bl_label = "Cancel Installation of TRELLIS.2"
    bl_description = "Stop here. What has been downloaded stays for the next time"
    bl_options = {"REGISTER"}

    @classmethod
    def poll(cls, _context: bpy.types.Context) -> bool:
        if installs.get().at_work:
            return True
        cls.poll_message_set(tr("Nothing is being installed"))
        return False

    def execute(self, _context: bpy.types.Context) -> set[str]:
        installs.get().cancel()
        return {"FINISHED"}


class TRELLIS_OT_uninstall_local(_NotMeanwhile, bpy.types.Operator):
    bl_idname = "trellis.uninstall_local"
    bl_label = "Uninstall TRELLIS.2 from This Computer"
    bl_description = (
        "Delete the engine's Python environment and the model's files. Made models stay"
    )
    bl_options = set()  # without REGISTER: repeated, it would not ask

    part: EnumProperty(
        name="Part", description="What to delete", items=_PARTS, options={"SKIP_SAVE"}
    )

    def invoke(self, context: bpy.types.Context, event: bpy.types.Event) -> set[str]:
        asked = context.window_manager.invoke_confirm(
            self,
            event,
            title="Uninstall TRELLIS.2?",
            message="Its environment and its weights are deleted. To have them again is to download them again.",
            confirm_text="Uninstall",
        )
        return set(asked)

    def execute(self, _context: bpy.types.Context) -> set[str]:
        try:
            if screen.waits():
                from .. import api

                there = api.uninstall_local(_only(self.part))
                words = "TRELLIS.2 is uninstalled" if there else "Nothing was installed"
                self.report({"INFO"}, tr(words))
            else:
                installs.get().uninstall(_only(self.part))
        except TrellisError as error:
            return operators.refuse(self, error)
        return {"FINISHED"}


class TRELLIS_OT_unload_local(bpy.types.Operator):
    bl_idname = "trellis.unload_local"
    bl_label = "Unload TRELLIS.2 from Memory"
    bl_description = "Give back the memory that the idle engine holds on the graphics card. The next model loads it again"
    bl_options = {"REGISTER"}

    def execute(self, _context: bpy.types.Context) -> set[str]:
        try:
            if screen.waits():
                from ..services import sidecar

                unloaded = sidecar.unload(preferences.config().shared)
                self.report({"INFO"}, tr("Unloaded" if unloaded else "No model is loaded"))
            else:
                installs.get().unload()
        except TrellisError as error:
            return operators.refuse(self, error)
        return {"FINISHED"}


CLASSES: tuple[Any, ...] = (
    TRELLIS_OT_install_local,
    TRELLIS_OT_cancel_install,
    TRELLIS_OT_uninstall_local,
    TRELLIS_OT_unload_local,
)

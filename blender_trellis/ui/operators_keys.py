# SPDX-License-Identifier: GPL-3.0-or-later
"""Operators that move keys between Blender's preferences and the operating system's keychain."""

import bpy
from bpy.props import EnumProperty

from ..errors import InputError, TrellisError
from . import operators, preferences, pump
from .text import tr


class _Key:
    """What is done with the key of one service. In a window it returns at once, and the preferences tell what came of it."""

    service: EnumProperty(
        name="Service",
        description="Whose key",
        items=[(name, title, "") for name, title in preferences.SERVICES.items()],
        options={"SKIP_SAVE"},
    )

    def _act(self) -> None:
        raise NotImplementedError

    def execute(self, _context: bpy.types.Context) -> set[str]:
        try:
            self._act()
        except TrellisError as error:
            return operators.refuse(self, error)
        return {"FINISHED"}


class TRELLIS_OT_keep_key(_Key, bpy.types.Operator):
    bl_idname = "trellis.keep_key"
    bl_label = "Keep Key of Generation Service in Keychain"
    bl_description = (
        "Move the key from Blender's preferences into the keychain of this computer, and save the preferences without it. "
        "It stays where it is if the keychain does not take it"
    )
    bl_options = {"REGISTER"}

    @classmethod
    def poll(cls, _context: bpy.types.Context) -> bool:
        if not any(map(preferences.typed, preferences.SERVICES)):
            cls.poll_message_set(tr("No key is in the preferences"))
            return False
        return True

    def _act(self) -> None:
        if not preferences.typed(self.service).strip():
            raise InputError("There is no key in the preferences to be kept. Enter it there first.")
        pump.get().keys.keep(self.service)


class TRELLIS_OT_remove_key(_Key, bpy.types.Operator):
    bl_idname = "trellis.remove_key"
    bl_label = "Remove Key of Generation Service from Keychain"
    bl_description = (
        "Delete the key from the keychain of this computer. Services show a key only once: without a copy of it, make "
        "another one there"
    )
    bl_options = set()  # without REGISTER: repeated, it would not ask

    @classmethod
    def poll(cls, _context: bpy.types.Context) -> bool:
        if pump.get().keys.absent:
            cls.poll_message_set(tr("No keychain was found on this computer"))
            return False
        return True

    def invoke(self, context: bpy.types.Context, event: bpy.types.Event) -> set[str]:
        asked = context.window_manager.invoke_confirm(
            self,
            event,
            title="Remove from Keychain?",
            message="The key is deleted from the keychain, and cannot be read again.",
            confirm_text="Remove",
        )
        return set(asked)

    def _act(self) -> None:
        pump.get().keys.remove(self.service)


CLASSES = (TRELLIS_OT_keep_key, TRELLIS_OT_remove_key)

# SPDX-License-Identifier: GPL-3.0-or-later
"""Disabled, enabled, used and disabled again: nothing of the extension is left in this Blender."""

import gc
import os
import subprocess
import threading
from typing import Any

import bpy
from bpy.utils import previews

from window import driver as d
from window import trellis as t

timer: Any


def traces() -> dict[str, list[str]]:
    """What is here by the extension's name, or of its kind."""
    handlers = [getattr(bpy.app.handlers, name) for name in dir(bpy.app.handlers)]
    called = [each for kind in handlers if isinstance(kind, list) for each in kind]
    owners = [getattr(bpy.types, name) for name in dir(bpy.types)]
    keymaps = bpy.context.window_manager.keyconfigs.addon.keymaps
    children = ["ps", "--ppid", str(os.getpid()), "-o", "args="]
    return {
        "classes": [name for name in dir(bpy.types) if "trellis" in name.lower()],
        "operators": dir(bpy.ops.trellis),
        "properties": [
            f"{owner.__name__}.{name}"
            for owner in owners
            for name in dir(owner)
            if name.startswith("trellis")
        ],
        "drawn into": [
            owner.__name__
            for owner in owners
            for each in getattr(getattr(owner, "draw", None), "_draw_funcs", ())
            if "trellis" in each.__module__
        ],
        "handlers": [repr(each) for each in called if "trellis" in getattr(each, "__module__", "")],
        "keys": [
            item.idname
            for keymap in keymaps
            for item in keymap.keymap_items
            if item.idname.startswith("trellis")
        ],
        "threads": [each.name for each in threading.enumerate() if "trellis" in each.name],
        "previews": [
            repr(each)
            for each in gc.get_objects()
            if isinstance(each, previews.ImagePreviewCollection)
        ],
        "processes": [line for line in _output(children) if "--background" in line],
    }


def _output(command: list[str]) -> list[str]:
    said = subprocess.run(command, capture_output=True, text=True, check=False)
    return said.stdout.splitlines()


def disabling_while_a_job_runs_leaves_nothing() -> d.Step:
    yield from t.open_tab()
    yield from t.put_images(t.ROBOT)
    yield from t.press_generate()
    yield from t.arrived(1)
    yield from _another()
    yield from _disable()


def enabled_again_it_goes_on_with_the_job_and_leaves_nothing_either() -> d.Step:
    assert bpy.ops.preferences.addon_enable(module=t.ROOT) == {"FINISHED"}
    there = traces()
    assert there["classes"] and there["drawn into"] and there["properties"]
    yield from t.open_tab()
    yield from d.until(lambda: len(t.models()) == 2, "the model of the job that was at work")
    yield from _another()
    yield from _disable()
    d.shot("1-disabled")


def _another() -> d.Step:
    with d.override():
        bpy.ops.trellis.generate()
    view = t.newest()
    yield from d.until(lambda: view.fraction, "progress")


def _disable() -> d.Step:
    tick = t.module("ui.pump").tick
    assert bpy.app.timers.is_registered(tick)
    assert bpy.ops.preferences.addon_disable(module=t.ROOT) == {"FINISHED"}
    yield 1.0
    assert not bpy.app.timers.is_registered(tick)
    left = {kind: found for kind, found in traces().items() if found}
    assert not left, left
    bpy.app.translations.register(t.ROOT, {})  # refused while there are translations of that name
    bpy.app.translations.unregister(t.ROOT)


LIVES = [
    [
        disabling_while_a_job_runs_leaves_nothing,
        enabled_again_it_goes_on_with_the_job_and_leaves_nothing_either,
    ]
]

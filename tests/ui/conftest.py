# SPDX-License-Identifier: GPL-3.0-or-later
"""The extension registered in an empty file, with a home of its own; and time that passes as in a window."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import bpy
import pytest

import blender_trellis
from blender_trellis.config import Config
from blender_trellis.ui import installs, preferences, pump, screen

Until = Callable[[Callable[[], bool]], None]


@pytest.fixture
def extension(
    config: Config, temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[pump.Pump]:
    """The pump of the registered extension, whose operators do not wait, as in a window."""
    monkeypatch.setattr(screen, "waits", lambda: False)
    bpy.ops.wm.read_factory_settings(use_empty=True)
    blender_trellis.register()
    yield pump.get()
    blender_trellis.unregister()
    bpy.ops.wm.read_factory_settings(use_empty=True)


@pytest.fixture
def until(extension: pump.Pump) -> Until:
    """Calls the timers' functions as Blender would in a window, until something is so."""

    def wait(done: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 120
        while not done():
            assert time.monotonic() < deadline, [vars(v) for v in extension.board.views.values()]
            installs.tick()
            pump.tick()
            time.sleep(0.02)

    return wait


@pytest.fixture
def addon(extension: pump.Pump) -> Iterator[Any]:
    """The add-on's preferences, as Blender keeps them of an add-on that is switched on."""
    entry = bpy.context.preferences.addons.new()
    entry.module = preferences.ROOT
    yield entry.preferences
    bpy.context.preferences.addons.remove(entry)


@pytest.fixture
def asked(extension: pump.Pump, picture: Path) -> str:
    """The id of a job that the present scene has asked for by a click, just now."""
    settings = bpy.context.scene.trellis
    settings.local_draft.resolution = "512"
    settings.local_draft.texture_size = "512"
    bpy.ops.trellis.add_images(filepath=str(picture))
    assert bpy.ops.trellis.generate() == {"FINISHED"}
    return next(iter(extension.board.views))

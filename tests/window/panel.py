# SPDX-License-Identifier: GPL-3.0-or-later
"""The sidebar as a person meets it, in a real Blender window with the extension installed and enabled: from an image to a
model by mouse clicks, undo and redo, and a picture of the screen at each point.

Run by a Blender with `guikit` on its path: `blender --python tests/window/panel.py -- docs/images/robot.png`. What it asserts
holds at any size; the pictures are for eyes.
"""

import sys
import time
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import bpy
import guikit as g

ROOT = "bl_ext.user_default.blender_trellis"
SECONDS = 120  # the first local job starts two processes on a slow machine


def models() -> list[bpy.types.Object]:
    return [obj for obj in bpy.context.scene.objects if "trellis" in obj]


def board() -> Any:
    return import_module(f"{ROOT}.ui.pump").get().board


def until(done: Any, what: str) -> Iterator[float]:
    deadline = time.monotonic() + SECONDS
    while not done():
        assert time.monotonic() < deadline, f"{what} did not happen in {SECONDS} s"
        yield 0.1


def third_party() -> list[str]:
    return [name for name in ("pydantic", "httpx", "PIL", "fastapi") if name in sys.modules]


def open_tab() -> Iterator[float]:
    with g.override():
        bpy.ops.wm.context_toggle(data_path="space_data.show_region_toolbar")
    yield from g.open_sidebar("Trellis", wait=1.0)
    assert g.region("UI").active_panel_category == "Trellis"


def add_image(image: Path) -> Iterator[float]:
    with g.override(rkind="UI"):
        bpy.ops.trellis.add_images("EXEC_DEFAULT", filepath=str(image))
    g.area().tag_redraw()
    yield 2.0
    g.shot_sidebar("2_image")


def generate_by_click(shot: str) -> Iterator[float]:
    before, there = time.monotonic(), len(models())
    yield from g.click_text("Generate", wait=0.2)
    assert board().views, "the click started a job"
    view = next(iter(board().views.values()))
    shots, seen = 0, ""
    deadline = time.monotonic() + SECONDS
    while len(models()) == there:
        assert time.monotonic() < deadline and not view.error, view.error or "no model came"
        if view.progress != seen:
            seen = view.progress
            g.log(f"{time.monotonic() - before:5.1f} s", seen)
        if shots < 6 and view.fraction is not None:
            shots += 1
            g.shot_sidebar(f"{shot}_{shots}")
        yield 0.2
    g.log("from the click to the model", round(time.monotonic() - before, 1), "s")
    yield from until(lambda: not view.importing and view.files, "the result is listed")


def hover_viewport() -> Iterator[float]:
    left, _, right, bottom = g.region_box(g.region("WINDOW"))
    yield from g.move((left + right) / 2, bottom - 40)


def undo_and_redo() -> Iterator[float]:
    (model,) = models()
    name, faces = model.name, len(model.data.polygons)
    yield from hover_viewport()
    yield from g.key("ctrl+z", wait=2.0)
    assert not models(), "one undo takes the model away"
    yield from g.key("ctrl+shift+z", wait=2.0)
    assert [(obj.name, len(obj.data.polygons)) for obj in models()] == [(name, faces)]


def a_gesture_holds_an_import_back() -> Iterator[float]:
    there = len(models())
    yield from hover_viewport()
    with g.override(rkind="UI"):
        bpy.ops.trellis.import_result()
    yield from g.key("g", wait=0.5)
    assert bpy.context.window_manager.windows[0].modal_operators, "something is being moved"
    yield 8.0  # by far enough for an import that did not wait
    assert len(models()) == there
    yield from g.key("Escape")
    yield from until(lambda: len(models()) == there + 1, "the import after the gesture")
    yield from g.key("ctrl+z", wait=2.0)
    assert len(models()) == there


def error_in_words(folder: Path) -> Iterator[float]:
    broken = folder / "holiday photo.png"
    broken.write_text("this is no picture")
    with g.override(rkind="UI"):
        bpy.ops.trellis.generate("EXEC_DEFAULT", filepath=str(broken))
    view = next(iter(board().views.values()))
    yield from until(lambda: view.error, "the error")
    yield 1.5
    g.shot_sidebar("6_error")
    with g.override(rkind="UI"):
        assert bpy.ops.trellis.copy_error(job_id=view.id) == {"FINISHED"}
    assert view.error in bpy.context.window_manager.clipboard
    with g.override(rkind="UI"):
        bpy.ops.trellis.dismiss(job_id=view.id)
    yield 0.5


def several_views(image: Path) -> Iterator[float]:
    views = [image.with_name(f"truck-{view}.png") for view in ("front", "right", "back", "left")]
    with g.override(rkind="UI"):
        bpy.ops.trellis.add_images(filepath=str(views[0]), replace=True)
        for view in views[1:]:
            bpy.ops.trellis.add_images(filepath=str(view))
    bpy.context.scene.trellis.local_draft.texture_size = "4096"
    bpy.context.scene.trellis.seed = 1234567
    g.area().tag_redraw()
    yield 2.0
    for stage in ("Texture", "Mesh"):
        yield from g.click_text(stage, wait=1.5)
    g.shot_sidebar("7_views")
    yield from generate_by_click("8_progress")
    g.shot_sidebar("9_results")


def main() -> Iterator[float]:
    image = Path(g.ARGS[0])
    assert ROOT in bpy.context.preferences.addons, "install and enable the extension first"
    loaded = third_party()
    yield from open_tab()
    yield 1.0
    g.shot("1_tab")
    assert third_party() == loaded == [], "nothing is loaded before first use"
    yield from add_image(image)
    yield from generate_by_click("3_progress")
    yield 1.5
    g.shot("4_model")
    yield from undo_and_redo()
    g.shot("5_redone")
    yield from a_gesture_holds_an_import_back()
    yield from error_in_words(Path(g.OUT))
    yield from several_views(image)


g.run(main)

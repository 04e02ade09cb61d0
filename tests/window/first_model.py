# SPDX-License-Identifier: GPL-3.0-or-later
"""From the enabled zip to the first models: pictures in, Generate, progress, undo and redo, cancelled, failed, imported again."""

import sys
from pathlib import Path

import bpy

from window import driver as d
from window import trellis as t

THIRD_PARTY = ("pydantic", "httpx", "PIL", "fastapi")
ticks: t.Ticks


def the_zip_is_enabled_and_loads_nothing_before_it_is_used() -> d.Step:
    assert t.ROOT in bpy.context.preferences.addons
    yield from t.open_tab()
    d.shot("1-tab")
    assert not [name for name in THIRD_PARTY if name in sys.modules]


def an_image_of_this_file_is_added() -> d.Step:
    image = bpy.data.images.load(str(t.VIEWS[0]))
    yield from d.click_text("Use Blender Image")
    yield from d.write("truck")
    d.shot("2-datablock")
    yield from d.press("Return")
    yield from d.until(lambda: len(t.settings().images) == 1, "the image in the list")
    assert t.settings().images[0].image == image
    yield 2.0
    d.shot_sidebar("3-datablock")
    with d.override():
        bpy.ops.trellis.remove_image()
    d.area().tag_redraw()


def a_picture_file_is_chosen_in_the_file_browser() -> d.Step:
    bpy.context.preferences.view.filebrowser_display_type = "SCREEN"
    yield from d.click_text("Open Image")
    yield from d.until(
        lambda: any(area.type == "FILE_BROWSER" for area in d.window().screen.areas), "the browser"
    )
    yield 2.0
    path = d.box(d.region("UI", of="FILE_BROWSER"))
    # Blender takes a whole path in the field of the folder as folder and file
    yield from d.fill((path.left + path.right) / 2, path.centre[1], str(t.ROBOT))
    d.shot("4-browser")
    bottom = d.box(d.region("EXECUTE", of="FILE_BROWSER"))
    accept = bottom.right - 60 * bpy.context.preferences.system.ui_scale, bottom.centre[1]
    while not t.settings().images:  # the first click may only leave the field
        yield from d.click(*accept, after=2.0)
    assert Path(t.settings().images[0].filepath).samefile(t.ROBOT)
    yield 1.5
    d.shot_sidebar("5-picture")


def generate_shows_progress_and_then_the_model() -> d.Step:
    global ticks  # noqa: PLW0603  the steps are functions, and the last one tells
    ticks = t.Ticks()
    yield from t.press_generate()
    view, seen = t.newest(), []
    while not t.models():
        assert not view.error, view.error
        if view.fraction and view.progress not in seen:
            seen.append(view.progress)
            if len(seen) in (1, 4):
                d.shot_sidebar(f"6-progress-{len(seen)}")
        yield 0.1
    assert len(seen) > 2, seen
    yield from t.arrived(1)
    yield 2.0
    d.shot("7-model")
    (model,) = t.models()
    assert len(model.data.polygons) > 1000 and model.data.materials[0].use_nodes


def one_undo_takes_the_model_away_and_redo_brings_it_back() -> d.Step:
    (model,) = t.models()
    before = model.name, len(model.data.polygons)
    yield from t.undo(0)
    yield from t.redo(1)
    (model,) = t.models()
    assert (model.name, len(model.data.polygons)) == before


def a_result_is_imported_again_when_a_gesture_is_over() -> d.Step:
    yield from d.hover_viewport()
    yield from d.press("g")
    assert d.window().modal_operators, "something is being moved"
    with d.override():
        bpy.ops.trellis.import_result()
    yield 6.0  # by far enough for an import that does not wait
    assert len(t.models()) == 1
    yield from d.press("Escape")
    yield from d.until(lambda: len(t.models()) == 2, "the import after the gesture")
    yield from t.undo(1)


def a_running_job_is_cancelled_by_its_cross() -> d.Step:
    yield from t.put_images(*t.VIEWS)
    t.settings().local_draft.texture_size = "4096"
    yield from t.press_generate()
    view = t.newest()
    yield from d.until(lambda: view.fraction, "progress")
    d.shot_sidebar("8-views")
    yield from d.click_operator("trellis.cancel", below="Jobs")
    yield from d.until(lambda: view.id not in t.board().views, "the end of the cancelled job")
    yield 1.0
    assert len(t.models()) == 1 and not t.board().jobs()


def a_job_that_fails_says_why() -> d.Step:
    broken = Path(d.OUT, "holiday photo.png")
    broken.write_text("this is no picture")
    with d.override():
        bpy.ops.trellis.generate("EXEC_DEFAULT", filepath=str(broken))
    view = t.newest()
    yield from d.until(lambda: view.error, "the error")
    yield 1.5
    d.shot_sidebar("9-failed")
    with d.override():
        assert bpy.ops.trellis.copy_error(job_id=view.id) == {"FINISHED"}
    assert view.error in bpy.context.window_manager.clipboard
    assert "holiday photo" in view.error
    broken.unlink()
    ticks.tell()


LIVES = [
    [
        the_zip_is_enabled_and_loads_nothing_before_it_is_used,
        an_image_of_this_file_is_added,
        a_picture_file_is_chosen_in_the_file_browser,
        generate_shows_progress_and_then_the_model,
        one_undo_takes_the_model_away_and_redo_brings_it_back,
        a_result_is_imported_again_when_a_gesture_is_over,
        a_running_job_is_cancelled_by_its_cross,
        a_job_that_fails_says_why,
    ]
]

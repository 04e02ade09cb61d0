# SPDX-License-Identifier: GPL-3.0-or-later
"""Blender dies while a job runs; the next one finds it, and the model comes to the file that wanted it."""

from pathlib import Path

import bpy

from window import driver as d
from window import trellis as t

FILE = str(Path(d.OUT, "restart.blend"))


def a_job_is_at_work_when_blender_dies() -> d.Step:
    yield from t.open_tab()
    yield from t.put_images(*t.VIEWS)
    t.settings().local_draft.texture_size = "4096"
    # So that the file knows which scene the model is for
    yield from t.press_generate()
    bpy.ops.wm.save_as_mainfile(filepath=FILE)
    view = t.newest()
    yield from d.until(lambda: view.fraction, "progress")
    d.shot_sidebar("1-before")
    assert not view.files


def the_next_blender_finds_it_and_brings_its_model() -> d.Step:
    bpy.ops.wm.open_mainfile(filepath=FILE, load_ui=False)
    yield 2.0
    yield from t.open_tab()
    yield from d.until(lambda: t.board().views, "the job in the panel")
    d.shot_sidebar("2-after")
    yield from t.arrived(1)
    assert len(t.board().views) == 1
    yield 1.5
    d.shot("3-model")
    Path(FILE).unlink()


def a_result_is_listed_after_another_restart_and_imported_from_there() -> d.Step:
    yield from t.open_tab()
    yield from d.until(lambda: t.board().results(), "the result in the list")
    yield 2.0
    d.shot_sidebar("4-results")
    assert not t.models()
    yield from _choose("Import at 3D Cursor", "5-menu")
    yield from t.arrived(1)


def a_result_is_deleted_when_that_is_confirmed() -> d.Step:
    (result,) = t.board().results()
    files = [Path(path) for path in result.files]
    assert files and all(path.exists() for path in files)
    yield from _choose("Delete", "6-menu")
    d.shot("7-question")
    assert all(path.exists() for path in files)
    yield from d.press("Return")
    yield from d.until(lambda: not t.board().results(), "the end of the result")
    yield from d.until(lambda: not any(path.exists() for path in files), "the end of its files")
    assert len(t.models()) == 1, "what stands in a scene stays"


def _choose(entry: str, picture: str) -> d.Step:
    """From the menu of the one result: its arrow is at the right of its name."""
    sidebar, scale = d.box(d.region()), bpy.context.preferences.system.ui_scale
    name = yield from d.find("truck-front")
    yield from d.click(sidebar.right - 50 * scale, name.centre[1])
    d.shot(picture)
    yield from d.click_text(entry, d.box(d.window()))


LIVES = [
    [a_job_is_at_work_when_blender_dies],
    [the_next_blender_finds_it_and_brings_its_model],
    [
        a_result_is_listed_after_another_restart_and_imported_from_there,
        a_result_is_deleted_when_that_is_confirmed,
    ],
]

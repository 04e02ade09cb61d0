# SPDX-License-Identifier: GPL-3.0-or-later
"""A folder of pictures is chosen, asked about with its sum, shown with one bar, and not paid twice when it is chosen again."""

import shutil
from pathlib import Path
from typing import Any

import bpy

from window import driver as d
from window import trellis as t

BUTTON, FOLDER = "Generate from Folder", Path(d.OUT, "toys")
fal: Any


def a_folder_is_asked_about_and_shown_with_one_bar() -> d.Step:
    global fal  # noqa: PLW0603  the steps are functions, and share the stand-in
    FOLDER.mkdir()
    for picture in t.VIEWS[:3]:
        shutil.copy(picture, FOLDER)
    (FOLDER / "broken.jpg").write_text("no picture")
    fal = yield from t.ready_for_fal("fal-ai/trellis-2")
    fal.script.held = True
    t.settings().images.clear()
    d.area().tag_redraw()
    yield 1.5
    yield from _ask("1-question")
    (batch,) = t.board().batches.values()
    yield from d.until(lambda: len(fal.submits) == 3, "the jobs at fal")
    fal.finish(next(iter(fal.jobs)))
    yield from d.until(lambda: batch.progress and batch.progress.done == 1, "the first model")
    yield 2.0
    d.shot_sidebar("2-one-of-three")
    for request_id in [*fal.jobs][1:]:
        fal.finish(request_id)
    yield from d.until(lambda: batch.over and len(t.models()) == 3, "the models")
    assert batch.complete and not batch.error
    assert sorted(obj.name for obj in t.models()) == ["truck-back", "truck-front", "truck-right"]
    t.in_a_row(t.models())
    yield 1.5
    d.shot("3-models")
    assert Path(batch.folder, "contact-sheet.png").exists()


def the_same_folder_again_brings_what_is_missing_and_sends_nothing() -> d.Step:
    bpy.data.objects.remove(t.models()[0])
    yield from _ask("4-question-again")
    (batch,) = t.board().batches.values()
    yield from d.until(lambda: batch.over and len(t.models()) == 3, "the missing model")
    assert len(fal.submits) == 3
    yield 1.5
    d.shot_sidebar("5-again")
    shutil.rmtree(FOLDER)


def _ask(picture: str) -> d.Step:
    """Choose the folder, and confirm what is asked."""
    before = [*t.board().batches]
    yield from t.choose_file(BUTTON, f"{FOLDER}/")
    yield from d.find("3 models", d.box(d.window()))
    d.shot(picture)
    yield from d.press("Return")
    yield from d.until(lambda: [*t.board().batches] != before, "the batch after the question")


LIVES = [
    [
        a_folder_is_asked_about_and_shown_with_one_bar,
        the_same_folder_again_brings_what_is_missing_and_sends_nothing,
    ]
]

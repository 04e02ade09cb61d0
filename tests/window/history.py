# SPDX-License-Identifier: GPL-3.0-or-later
"""After a model was made, or was not: a failed job edited and retried; results searched, exported and deleted."""

import uuid
from pathlib import Path
from typing import Any

from window import driver as d
from window import trellis as t

MANY = 20  # results, on two pages
OLDEST = "red chair"
fal: Any


def a_failed_job_is_edited() -> d.Step:
    from services.standin import Reply

    global fal  # noqa: PLW0603  later steps see what it was sent
    fal = yield from t.ready_for_fal("fal-ai/trellis-2")
    t.settings().fal_ai_trellis_2.resolution = "512"
    wrong = {"loc": ["body", "image_url"], "msg": "Too dark", "type": "value_error"}
    fal.script.outcome = Reply(422, {"detail": [wrong]})
    yield from t.press_generate()
    view = t.newest()
    yield from d.until(lambda: view.failed, "the error")
    fal.script.outcome = None
    t.settings().images.clear()
    yield from t.choose("local/draft")
    yield from d.click_text("Edit")
    yield from d.until(lambda: t.settings().images, "the pictures of the job")
    assert [item.name for item in t.settings().images] == ["robot.png"]
    assert t.settings().endpoint == "fal-ai/trellis-2"
    assert t.settings().fal_ai_trellis_2.resolution == "512"
    yield 2.0
    d.shot_sidebar("1-edit")


def it_is_retried_after_a_question() -> d.Step:
    sent = len(fal.submits)
    yield from t.scroll_down()
    yield from d.click_text("Retry", after=2.0)
    d.shot("2-retry")
    assert len(fal.submits) == sent, "it may have been charged"
    yield from d.press("Return")
    yield from d.until(lambda: len(fal.submits) == sent + 1, "another request")
    yield from t.arrived(1)
    assert not t.board().jobs() and fal.submits[-1].body == fal.submits[-2].body


def results_are_searched() -> d.Step:
    _fill()
    t.module("ui.pump").get().history.look_up()
    yield from d.until(lambda: t.board().page.total == MANY + 2, "the results")
    t.settings().images.clear()
    d.area().tag_redraw()
    yield 3.0
    d.shot_sidebar("3-results")
    heading = yield from d.find("Results")
    scale = d.scale()
    yield from d.click(d.box(d.region()).left + 100 * scale, heading.bottom - 22 * scale)
    yield from d.write("chair")
    yield from d.until(lambda: t.board().page.found == 1, "what is looked for")
    yield from d.press("Return", after=2.0)
    assert [view.title for view in t.board().results()] == [OLDEST]
    d.shot_sidebar("4-found")


def one_is_exported() -> d.Step:
    (view,) = t.board().results()
    (glb,) = map(Path, view.files)
    target = Path(d.OUT, f"{OLDEST}.glb")
    yield from _open_menu()
    d.shot("5-menu")
    yield from t.choose_file("Export", f"{d.OUT}/", t.with_menus())
    yield from d.until(target.exists, "the exported file")
    yield from d.until(lambda: target.read_bytes() == glb.read_bytes(), "its model")
    target.unlink()


def one_is_deleted_after_a_question() -> d.Step:
    (view,) = t.board().results()
    (glb,) = map(Path, view.files)
    for answer in ("Escape", "Return"):
        assert glb.exists() and t.board().results() == [view]
        yield from _open_menu()
        yield from d.click_text("Delete", t.with_menus(), nth=-1, after=1.5)
        d.shot(f"7-delete-{answer.lower()}")
        yield from d.press(answer, after=1.5)
    yield from d.until(lambda: t.board().page.total == MANY + 1, "one result less")
    assert not glb.exists() and not t.board().results()
    yield 1.0
    d.shot_sidebar("8-none")


def _open_menu() -> d.Step:
    """The menu beside the name of the one result that is shown."""
    name = yield from d.find(OLDEST)
    for _ in range(3):  # a first click may only leave the field for the search
        yield from d.click(d.box(d.region()).right - 50 * d.scale(), name.centre[1])
        if d.places("Show in Folder", t.with_menus()):
            return
    raise AssertionError("the menu does not open")


def _fill() -> None:
    """Put results into the history, as jobs of earlier days would have."""
    from scene import glbs

    journals, library_of = t.module("generation.journal"), t.module("generation.library")
    kind = t.module("generation.job")
    home = t.module("ui.preferences").config().home
    journal, library = journals.Journal(home), library_of.Library(home)
    material = glbs.Material({"baseColor": glbs.picture(1)})
    states = (kind.State.SUBMITTING, kind.State.RUNNING, kind.State.DOWNLOADING)
    for number in range(MANY + 1):
        name = f"crate {number}" if number else OLDEST
        image = library.keep_input(t.VIEWS[number % 4].read_bytes())
        job = kind.Job(str(uuid.uuid4()), "local/draft", {"seed": number}, [image], [f"{name}.png"])
        journal.add(job)
        for state in states:
            journal.move(job.id, state)
        part = library.part(job.id, 0)
        glbs.write(part, [glbs.box((1, 2, 1 + number / 10))], material)
        files = [str(library.keep(part, name))]
        journal.move(job.id, kind.State.READY, files=files, seeds=[number], fulfilled=True)
    journal.close()


LIVES = [
    [
        a_failed_job_is_edited,
        it_is_retried_after_a_question,
        results_are_searched,
        one_is_exported,
        one_is_deleted_after_a_question,
    ]
]

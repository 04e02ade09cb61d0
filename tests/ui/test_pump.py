# SPDX-License-Identifier: GPL-3.0-or-later
"""From a click to a model in the scene without waiting, and what happens when the world changes meanwhile.

The timer's function is called directly: it is the one that Blender calls in a window. The sidecar and the second Blender are
real.
"""

import time
from pathlib import Path

import bpy
import pytest

import blender_trellis
from blender_trellis.config import Config
from blender_trellis.generation.job import Event, Job, State
from blender_trellis.generation.request import Request
from blender_trellis.generation.runner import Runner
from blender_trellis.scene import worker
from blender_trellis.scene.recipe import read
from blender_trellis.ui import properties, pump, wishes
from blender_trellis.ui.jobs import Board, JobView, Page
from services.fal_standin import ADMIN_KEY

FAST = {"resolution": 512, "texture_size": 512}


def models(scene):
    return [obj for obj in scene.objects if read(obj)]


def test_a_click_returns_at_once_and_the_model_comes_to_the_cursor_of_that_moment(
    extension, until, asked, temporary
):
    view = extension.board.views[asked]
    scene = bpy.context.scene
    assert view.at_work and not models(scene)
    assert bpy.app.timers.is_registered(pump.tick)
    scene.cursor.location = (5, 5, 5)  # after the click: this is for the next one
    seen = set()
    until(lambda: seen.add(view.progress) or bool(models(scene)))
    (model,) = models(scene)
    assert model.location[:] == (0, 0, 0)
    assert read(model).job_id == asked and read(model).seed == scene.trellis.seed
    assert len(seen) > 2, seen
    until(lambda: not extension.busy)
    assert [each.id for each in extension.board.results()] == [asked]
    assert not extension.board.jobs() and pump.tick() is None
    assert not list(temporary.iterdir())
    assert extension.session.runner.journal.get(asked).fulfilled


def test_height_is_metres_whatever_the_scene_counts_in(extension, until, picture):
    scene = bpy.context.scene
    scene.unit_settings.scale_length = 0.01
    scene.trellis.height = 180  # centimetres
    scene.trellis.local_draft.resolution = "512"
    bpy.ops.trellis.generate(filepath=str(picture))
    until(lambda: bool(models(scene)))
    bpy.context.view_layer.update()
    assert models(scene)[0].dimensions.z == pytest.approx(180, rel=0.01)


def test_an_image_of_the_file_is_used_and_its_copy_removed(extension, until, temporary):
    image = bpy.data.images.new("Würfel", 64, 64, alpha=True)
    image.pixels = [0.0] * (64 * 64 * 4)
    for row in range(16, 48):
        start = (row * 64 + 16) * 4
        image.pixels[start : start + 32 * 4] = [1.0, 0.5, 0.0, 1.0] * 32
    bpy.ops.trellis.add_image_datablock(image="Würfel")
    bpy.ops.trellis.generate()
    until(lambda: bool(models(bpy.context.scene)))
    assert models(bpy.context.scene)[0].name == "Würfel"
    until(lambda: not extension.busy)
    assert not list(temporary.iterdir())


def test_it_comes_to_the_scene_that_asked_not_to_the_one_that_is_shown(extension, until, asked):
    scene = bpy.context.scene
    scene.name = "Renamed"
    other = bpy.data.scenes.new("Other")
    bpy.context.window_manager.windows[0].scene = other
    until(lambda: bool(models(scene)))
    assert not models(other)


def test_an_undo_past_the_click_does_not_lose_the_scene(extension, until, asked):
    bpy.context.scene.trellis.id = ""  # what the undo does to the scene
    until(lambda: bool(models(bpy.context.scene)))


def test_it_comes_to_the_same_scene_of_a_file_that_was_saved_and_opened_again(
    extension, until, asked, tmp_path
):
    path = str(tmp_path / "scene.blend")
    bpy.ops.wm.save_as_mainfile(filepath=path)
    bpy.ops.wm.read_homefile(use_empty=True)
    bpy.ops.wm.open_mainfile(filepath=path)
    until(lambda: bool(models(bpy.context.scene)))


def test_of_two_copies_in_an_opened_file_the_one_that_is_shown_gets_it(
    extension, until, asked, tmp_path
):
    bpy.ops.scene.new(type="FULL_COPY")
    bpy.context.scene.name = "Copy"
    path = str(tmp_path / "scene.blend")
    bpy.ops.wm.save_as_mainfile(filepath=path)
    bpy.ops.wm.open_mainfile(filepath=path)
    assert bpy.context.scene.name == "Copy"
    until(lambda: bool(models(bpy.data.scenes["Copy"])))
    assert sum(len(models(scene)) for scene in bpy.data.scenes) == 1


def test_with_another_file_open_the_result_waits_until_it_is_imported(extension, until, asked):
    bpy.ops.wm.read_homefile(use_empty=True)
    until(lambda: not extension.busy)
    assert not models(bpy.context.scene)
    (view,) = extension.board.results()
    assert view.id == asked and not view.at_work and not view.error
    bpy.context.scene.cursor.location = (1, 2, 3)
    assert bpy.ops.trellis.import_result() == {"FINISHED"}
    assert view.importing
    until(lambda: bool(models(bpy.context.scene)))
    assert models(bpy.context.scene)[0].location[:] == (1, 2, 3)


def ask_and_end(config: Config, picture, *, ready: bool) -> str:
    """A job of a Blender that is gone by now, for a scene that is gone too."""
    runner = Runner(config)
    wish = {"scene": "another", "location": [0, 0, 0], "height": None}
    job_id = runner.submit(Request("local/draft", [picture], FAST, wish))
    if ready:
        runner.wait(job_id)
    else:
        assert runner.events.get(timeout=60).state is State.PREPARED
    runner.close()
    return job_id


@pytest.mark.parametrize("ready", [True, False])
def test_what_an_earlier_blender_left_is_found_at_the_first_tick(
    extension, until, picture, config, ready
):
    blender_trellis.unregister()
    job_id = ask_and_end(config, picture, ready=ready)
    blender_trellis.register()
    again = pump.get()
    until(lambda: job_id in again.board.views or pump.tick() is None)
    assert again.board.views[job_id].at_work is not ready
    until(lambda: not again.busy)
    assert [view.id for view in again.board.results()] == [job_id]


def test_without_a_journal_nothing_is_started(extension):
    assert pump.tick() is None
    assert extension.session.runner is None


def test_the_timer_runs_until_what_a_thread_has_found_was_taken(extension):
    assert pump.tick() is None
    taken = []
    extension.clerk.tell(lambda: taken.append("a picture"))
    assert extension.busy
    assert pump.tick() is None and taken


def test_a_picture_that_cannot_be_used_is_told_in_words_and_can_be_dismissed(
    extension, until, tmp_path, temporary
):
    path = tmp_path / "notes.png"
    path.write_text("no picture")
    bpy.ops.trellis.generate(filepath=str(path))
    (view,) = extension.board.jobs()
    until(lambda: not view.at_work)
    assert "notes.png is not a picture" in view.error and view.state is State.FAILED
    until(lambda: not extension.busy)
    assert not list(temporary.iterdir())
    assert bpy.ops.trellis.dismiss(job_id=view.id) == {"FINISHED"}
    assert not extension.board.views


def test_cancelling_takes_the_job_off_the_list(extension, until, asked, temporary):
    assert bpy.ops.trellis.cancel(job_id=asked) == {"FINISHED"}
    until(lambda: asked not in extension.board.views)
    until(lambda: not extension.busy)
    assert not models(bpy.context.scene) and not list(temporary.iterdir())


def test_a_result_whose_file_is_gone_is_told(extension, until, asked):
    until(lambda: bool(extension.board.results()) and not extension.busy)
    (view,) = extension.board.results()
    bpy.data.batch_remove(bpy.data.objects)
    Path(view.files[0]).unlink()
    bpy.ops.trellis.import_result(job_id=asked)
    until(lambda: bool(view.error))
    assert "is gone" in view.error and view in extension.board.jobs()
    until(lambda: not extension.busy)
    bpy.ops.trellis.forget(job_id=asked)
    until(lambda: not extension.busy)
    assert not extension.board.views and not extension.session.runner.journal.jobs()


def test_a_model_that_is_imported_without_an_end_is_told_and_not_tried_again_by_itself(
    extension, until, asked, monkeypatch
):
    monkeypatch.setattr(worker, "MINUTES", 0)
    view = extension.board.views[asked]
    until(lambda: bool(view.error) and not extension.busy)
    assert f"kept as {view.files[0]}" in view.error and Path(view.files[0]).exists()
    assert not models(bpy.context.scene)
    assert extension.session.runner.journal.get(asked).fulfilled


def test_a_wrong_address_in_the_environment_is_told(extension, picture, monkeypatch):
    monkeypatch.setenv("TRELLIS_SIDECAR_URL", "nonsense")
    with pytest.raises(RuntimeError, match="TRELLIS_SIDECAR_URL is not a base URL"):
        bpy.ops.trellis.generate(filepath=str(picture))


def test_a_wrong_address_holds_up_nothing_that_is_on_its_way(extension, until, asked, monkeypatch):
    until(lambda: extension.session.runner is not None)
    monkeypatch.setenv("TRELLIS_FAL_QUEUE_URL", "nonsense")
    pump.reconfigure()  # as when it was typed into the preferences
    system = bpy.context.preferences.system
    system.use_online_access = not system.use_online_access
    until(lambda: bool(models(bpy.context.scene)))
    until(lambda: not extension.busy)
    assert [view.id for view in extension.board.results()] == [asked]


def test_what_could_not_be_retried_can_be_later(extension, until, tmp_path, monkeypatch):
    path = tmp_path / "notes.png"
    path.write_text("no picture")
    bpy.ops.trellis.generate(filepath=str(path))
    (view,) = extension.board.jobs()
    until(lambda: view.failed and not extension.busy)
    monkeypatch.setenv("TRELLIS_FAL_QUEUE_URL", "nonsense")
    pump.reconfigure()
    with pytest.raises(RuntimeError, match="TRELLIS_FAL_QUEUE_URL is not a base URL"):
        bpy.ops.trellis.retry_job(job_id=view.id)
    monkeypatch.delenv("TRELLIS_FAL_QUEUE_URL")
    assert bpy.ops.trellis.retry_job(job_id=view.id) == {"FINISHED"}
    assert view.id not in extension.board.views and len(extension.board.views) == 1


def test_the_seed_that_is_shown_is_the_one_that_was_used(extension, until, asked):
    first = bpy.context.scene.trellis.seed
    until(lambda: not extension.busy)
    assert extension.session.runner.journal.get(asked).seed == first
    properties.draw_seed(bpy.context.scene.trellis)
    assert bpy.context.scene.trellis.seed != first


def event(**more):
    return Event("a", State.RUNNING, stage="texture", step=1, steps=4, **more)


def test_only_what_can_be_seen_asks_for_a_redraw():
    board = Board()
    board.add(JobView("a", "robot", "local/draft"))
    for taken, visible in (
        (event(fraction=0.501), True),
        (event(fraction=0.502), False),
        (event(fraction=0.502), False),
        (event(fraction=0.51), True),
        (event(fraction=0.51, message="baked"), True),
        (Event("not shown", State.RUNNING), False),
    ):
        board.dirty = False
        board.take(taken)
        assert board.dirty is visible
    assert board.views["a"].progress == "Texture 1/4 · 51%"


@pytest.mark.parametrize(
    ("eta", "words"),
    [
        (1, "5 s left"),
        (52, "50 s left"),
        (58, "1 min left"),
        (3 * 60 + 20, "3 min left"),
        (3600 + 59 * 60, "1 h 59 min left"),
    ],
)
def test_the_bar_says_how_long_it_will_take(eta, words):
    board = Board()
    board.add(JobView("a", "", "local/draft"))
    board.take(event(fraction=0.5, eta=eta))
    assert board.views["a"].progress == f"Texture 1/4 · 50% · {words}"


@pytest.mark.parametrize(
    ("fraction", "words"), [(0.996, "99% · 5 s left"), (1.0, "100%"), (0.0, "0% · 5 s left")]
)
def test_the_bar_is_full_only_when_nothing_is_left(fraction, words):
    board = Board()
    board.add(JobView("a", "", "local/draft"))
    board.take(event(fraction=fraction, eta=1))
    assert board.views["a"].progress == f"Texture 1/4 · {words}"


def test_jobs_and_results_are_told_apart():
    board = Board()
    for view in (
        JobView("works", "", "local/draft", State.RUNNING),
        JobView("failed", "", "local/draft", State.FAILED, error="Because."),
        JobView("arrives", "", "local/draft", State.READY, files=["a.glb"], importing=True),
        JobView("unclear", "", "local/draft", State.UNCERTAIN, error="Lost.", stopped=True),
    ):
        board.add(view)
    assert {view.id for view in board.jobs()} == {"works", "failed", "arrives", "unclear"}
    assert not board.results()  # none is in the journal yet
    made = [
        Job(each, "local/draft", {"seed": 1}, [], [], State.READY, files=["a.glb"])
        for each in ("ready", "arrives")
    ]
    board.turn(Page(jobs=tuple(made), found=2, total=2), Path())
    assert {view.id for view in board.jobs()} == {"works", "failed", "arrives", "unclear"}
    assert {view.id for view in board.results()} == {"ready", "arrives"}
    assert {view.id for view in board.jobs() if view.at_work} == {"works", "arrives"}


def test_a_key_that_is_entered_while_a_job_is_at_work_is_used_at_once(
    extension, fal, until, picture, monkeypatch
):
    fal.script.held = True
    bpy.context.scene.trellis.endpoint = "fal-ai/trellis-2"
    bpy.ops.trellis.generate(filepath=str(picture))
    until(lambda: [view.state for view in extension.board.jobs()] == ["running"])
    runner = extension.session.runner
    monkeypatch.setenv("FAL_KEY", ADMIN_KEY)
    assert not extension.session.start()
    until(lambda: any(ADMIN_KEY in call.headers.get("authorization", "") for call in fal.calls))
    assert extension.session.runner is runner
    fal.finish(next(iter(fal.jobs)))
    until(lambda: not extension.busy)


def test_the_copy_of_a_scene_does_not_get_the_models_of_the_original(extension, until, asked):
    original = bpy.context.scene
    copy = original.copy()
    wish = wishes.wish_of(copy)
    assert wish["scene"] != original.trellis.id
    until(lambda: not extension.busy)
    assert [obj for obj in original.objects if read(obj)]
    assert wishes.find_scene(wish) == copy


def test_a_model_that_was_made_while_it_was_switched_off_comes_when_it_is_on_again(
    extension, until, asked
):
    until(lambda: extension.session.runner is not None)
    scene = bpy.context.scene
    job = extension.session.runner.wait(asked)
    assert not models(scene), "no tick has taken the event"
    blender_trellis.unregister()
    blender_trellis.register()
    again = pump.get()
    deadline = time.monotonic() + 120
    while not models(scene):
        assert time.monotonic() < deadline
        pump.tick()
        time.sleep(0.02)
    assert read(models(scene)[0]).job_id == job.id
    while again.busy:
        pump.tick()
    assert again.session.runner.journal.get(job.id).fulfilled

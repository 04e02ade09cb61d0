# SPDX-License-Identifier: GPL-3.0-or-later
"""A folder of pictures, generated from the panel: the batch of the command line, whose models come into the scene."""

import json
import shutil
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import bpy
import pytest
from PIL import Image

import blender_trellis
from blender_trellis.scene.recipe import read
from blender_trellis.ui import batches, orders, properties, pump
from blender_trellis.ui.arrivals import Arrivals
from blender_trellis.ui.operators_batch import TRELLIS_OT_generate_folder
from blender_trellis.ui.panels_jobs import TRELLIS_PT_jobs

from . import layouts

FAL = "fal-ai/trellis-2"


@pytest.fixture
def settings(extension):
    return bpy.context.scene.trellis


@pytest.fixture
def folder(tmp_path, picture):
    """Two pictures, one that is none, and what is no picture at all."""
    place = tmp_path / "folder"
    place.mkdir()
    for name in ("b.png", "a.png"):
        shutil.copy(picture, place / name)
    (place / "broken.jpg").write_text("this is no picture")
    (place / "notes.txt").write_text("mind the gap")
    (place / "more.png").mkdir()
    return place


@pytest.fixture
def send(extension, fal, until, folder, monkeypatch):
    """Generates from the folder at fal, and waits until nothing is at work: how the panel shows it.

    With `away` the scene that asked is gone by the time the models come, so that no second Blender is needed for them.
    """
    bpy.context.scene.trellis.endpoint = FAL
    fal.script.queued = fal.script.running = 0

    def ask(away=False, **given):
        if away:
            monkeypatch.setattr(Arrivals, "expect", lambda _: None)
            bpy.ops.scene.new(type="FULL_COPY")
        bpy.ops.trellis.generate_folder(directory=str(folder), **given)
        if away:
            bpy.data.scenes.remove(bpy.context.scene)
        (view,) = extension.board.batches.values()
        until(lambda: view.over and not extension.busy)
        return view

    return ask


def models():
    found = [obj for obj in bpy.context.scene.objects if read(obj)]
    return sorted(found, key=lambda obj: obj.location.x)


def lines(view):
    told = Path(view.folder, "results.jsonl").read_text("utf-8").splitlines()
    return {line["output"]: line for line in map(json.loads, told)}


def seeds(fal):
    return [json.loads(submit.body)["seed"] for submit in fal.submits]


# -- What comes of it -----------------------------------------------------------------------------


def test_each_picture_has_a_model_in_the_scene_a_file_and_a_line_of_results(
    extension, fal, send, home
):
    view = send()
    assert not view.error and view.complete
    assert sorted(obj.name for obj in models()) == ["a", "b"]
    first, second = (obj.location.x for obj in models())
    assert second - first == pytest.approx(1.2)  # the stand-in's model is 1 wide
    found = lines(view)
    assert found.keys() == {"a.glb", "b.glb"}
    assert {line["state"] for line in found.values()} == {"ready"}
    assert {line["job_id"] for line in found.values()} == {read(obj).job_id for obj in models()}
    results = Path(view.folder)
    assert results.parent == home / "results" / "batches"
    assert all((results / name).read_bytes() == fal.glb for name in found)
    with Image.open(results / "contact-sheet.png") as sheet:
        assert sheet.width == 2 * 200 + 8
    assert len(fal.submits) == 2 and len(set(seeds(fal))) == 2
    assert batches.in_words(view) == "2 of 2 models · $0.60"
    assert {job.fulfilled for job in extension.session.runner.journal.jobs()} == {True}


def test_the_same_again_pays_for_what_is_new_alone_and_brings_what_the_scene_lacks(
    extension, fal, settings, send, folder, until
):
    send()
    bpy.data.objects.remove(models()[1])
    properties.draw_seed(settings)  # which is not locked, and so nobody's wish
    bpy.ops.trellis.generate_folder(directory=str(folder))
    until(lambda: all(view.over for view in extension.board.batches.values()))
    assert len(models()) == 1, "the other one is on its way"
    assert send().complete
    assert sorted(obj.name for obj in models()) == ["a", "b"] and len(fal.submits) == 2
    shutil.copy(folder / "a.png", folder / "c.png")
    view = send()
    assert view.complete and len(lines(view)) == 3
    assert sorted(obj.name for obj in models()) == ["a", "b", "c"] and len(fal.submits) == 3
    left = [folder / "a.png", folder / "b.png"]
    assert len(orders.batch_of(bpy.context.scene, folder, left).made) == 2


def test_other_parameters_are_another_batch_and_so_is_all_anew(extension, fal, settings, send):
    first = send(away=True).folder
    settings.fal_ai_trellis_2.resolution = "1536"
    other = send(away=True).folder
    settings.fal_ai_trellis_2.resolution = "1024"
    anew = send(away=True, anew=True).folder
    assert len({first, other, anew}) == 3 and len(fal.submits) == 6
    assert send(away=True).folder == anew
    assert len(fal.submits) == 6


def test_a_picture_that_was_replaced_is_not_taken_for_the_one_before(extension, fal, send, folder):
    send(away=True)
    Image.new("RGB", (64, 64), "red").save(folder / "a.png")
    view = send(away=True)
    assert "a.glb was asked for with other images" in view.error
    assert view.error.count("Give those pictures other names, or make all anew.") == 1
    assert len(fal.submits) == 2
    assert send(away=True, anew=True).complete
    assert len(fal.submits) == 4


def test_variations_have_rows_of_their_own_and_a_locked_seed_counts_up(
    extension, fal, settings, send
):
    settings.seed, settings.seed_locked = 40, True
    send(away=True)
    settings.variations = 2
    view = send(away=True)
    assert lines(view).keys() == {"a.glb", "a-2.glb", "b.glb", "b-2.glb"}
    assert seeds(fal) == [40, 40, 41, 41]
    settings.variations, brought = 1, []
    extension.work.bring_missing = lambda job_ids, _wish: brought.extend(job_ids)
    view = send(away=True)
    asked = [lines(view)[name]["job_id"] for name in ("a.glb", "b.glb")]
    assert sorted(brought) == sorted(asked) and len(fal.submits) == 4


def test_what_fails_is_told_and_tried_again_the_next_time(extension, fal, settings, send):
    fal.script.status_error = ("The model runner crashed.", "runner_error")
    view = send(away=True)
    assert not view.complete and not view.error
    assert {line["state"] for line in lines(view).values()} == {"failed"}
    assert batches.in_words(view).startswith("0 of 2 models")
    assert all("crashed" in job.error for job in extension.board.jobs())
    fal.script.status_error = None
    view = send(away=True)
    assert view.complete and len(fal.submits) == 4
    assert not extension.board.jobs(), "a Retry would be paid once more"


def test_an_uncertain_picture_that_was_dismissed_is_sent_again(extension, fal, send):
    view = send(away=True)
    results = Path(view.folder, "results.jsonl")
    left, kept = results.read_text("utf-8").splitlines()
    results.write_text(f"{left.replace('ready', 'uncertain')}\n{kept}\n", "utf-8")
    extension.session.runner.journal.forget(json.loads(left)["job_id"])
    assert send(away=True).complete
    assert len(fal.submits) == 3


def test_a_model_that_was_deleted_is_told_and_not_quietly_paid_again(extension, fal, send):
    found = lines(send(away=True))
    bpy.ops.trellis.delete_result(job_id=found["a.glb"]["job_id"])
    view = send(away=True)
    assert view.error.startswith("Results lack 1 model that was made before.")
    assert len(fal.submits) == 2 and not Path(view.folder, "a.glb").exists()


# -- While it is at work --------------------------------------------------------------------------


def test_no_more_are_sent_at_once_than_the_preferences_say_nor_after_a_stop(
    extension, fal, settings, addon, until, folder, send
):
    for number in range(5):
        shutil.copy(folder / "a.png", folder / f"c{number}.png")
    addon.jobs_at_once = 2
    fal.script.held = True
    bpy.ops.scene.new(type="FULL_COPY")
    bpy.ops.trellis.generate_folder(directory=str(folder))
    bpy.data.scenes.remove(bpy.context.scene)
    (view,) = extension.board.batches.values()
    until(lambda: len(fal.submits) == 2)
    assert [job.title for job in extension.board.jobs()] == ["b", "a"]  # newest first
    until(lambda: view.progress and view.progress.at_work == 2)
    drawn = layouts.draw(TRELLIS_PT_jobs)
    assert "0 of 7" in [each.text for each in drawn.drawn if each.kind == "progress"]
    assert "trellis.stop_batch" in [each.name for each in drawn.drawn]

    assert bpy.ops.trellis.stop_batch() == {"FINISHED"}
    until(lambda: view.progress and "Stopping" in batches.in_words(view))
    fal.script.held = False
    for request_id in [*fal.jobs]:
        fal.finish(request_id)
    until(lambda: view.over and not extension.busy)
    assert len(fal.submits) == 2
    assert bpy.ops.trellis.dismiss_batch() == {"FINISHED"}
    assert not extension.board.batches and not TRELLIS_PT_jobs.poll(bpy.context)

    assert send(away=True).complete
    assert len(fal.submits) == 7


@pytest.mark.parametrize("opened", [True, False], ids=["the same file", "another one"])
def test_blender_that_ends_meanwhile_loses_and_doubles_nothing(
    extension, fal, settings, addon, until, folder, tmp_path, opened
):
    settings.endpoint = FAL
    shutil.copy(folder / "a.png", folder / "c.png")
    addon.jobs_at_once = 2
    fal.script.held = True
    bpy.ops.trellis.generate_folder(directory=str(folder))
    until(lambda: len(fal.submits) == 2 and len(fal.jobs) == 2)
    path = str(tmp_path / "scene.blend")
    bpy.ops.wm.save_as_mainfile(filepath=path)
    blender_trellis.unregister()

    fal.script.held = False
    for request_id in [*fal.jobs]:
        fal.finish(request_id)
    blender_trellis.register()
    if opened:
        bpy.ops.wm.open_mainfile(filepath=path)
    else:
        bpy.ops.wm.read_homefile(use_empty=True)
        bpy.context.scene.trellis.endpoint = FAL
    here = pump.get()
    bpy.ops.trellis.generate_folder(directory=str(folder))
    (view,) = here.board.batches.values()

    def done():
        pump.tick()
        return view.over and not here.busy

    until(done)
    assert view.complete and not view.error
    assert len(fal.submits) == 3 and len(lines(view)) == 3
    assert sorted(obj.name for obj in models()) == ["a", "b", "c"]
    places = [obj.location.x for obj in models()]
    assert [after - before for before, after in pairwise(places)] == pytest.approx([1.2, 1.2])


def test_the_same_folder_twice_at_once_is_refused(extension, fal, settings, until, folder):
    settings.endpoint = FAL
    fal.script.held = True
    bpy.ops.trellis.generate_folder(directory=str(folder))
    until(lambda: len(fal.submits) == 2)
    with pytest.raises(RuntimeError, match=r"is making the batch in .* Wait for it"):
        bpy.ops.trellis.generate_folder(directory=str(folder))
    assert len(extension.board.batches) == 1


# -- Before it begins -----------------------------------------------------------------------------


def shown(good, bad=(), made=0, anew=False):
    layout = layouts.Layout()
    asked = SimpleNamespace(layout=layout, _good=good, _bad=bad, _made=made, anew=anew)
    TRELLIS_OT_generate_folder.draw(asked, layouts.context())
    return layout


def test_the_count_the_sum_and_what_is_skipped_are_shown(settings, folder):
    settings.endpoint = FAL
    good = [folder / "a.png", folder / "b.png"]
    told = " ".join(shown(good, ["broken.jpg"]).texts())
    assert "2 models of 2 images" in told and "$0.60" in told and "broken.jpg" in told


def test_what_is_there_already_is_told_and_not_in_the_sum(settings, folder):
    settings.endpoint = FAL
    good = [folder / "a.png", folder / "b.png"]
    layout = shown(good, made=1)
    told = " ".join(layout.texts())
    assert "2 models of 2 images" in told and "1 is there already" in told and "$0.30" in told
    assert "anew" in [each.name for each in layout.drawn]
    assert "$" not in " ".join(shown(good, made=2).texts())
    assert "$0.60" in " ".join(shown(good, made=2, anew=True).texts())


def test_the_dialog_counts_what_an_earlier_run_made(extension, send, folder):
    send(away=True)
    asked = SimpleNamespace(directory=str(folder), anew=False, report=print)
    asked._order = lambda scene: TRELLIS_OT_generate_folder._order(asked, scene)
    window = SimpleNamespace(invoke_props_dialog=lambda *_, **__: {"RUNNING_MODAL"})
    context = SimpleNamespace(scene=bpy.context.scene, window_manager=window)
    assert TRELLIS_OT_generate_folder.invoke(asked, context, None) == {"RUNNING_MODAL"}
    assert asked._made == 2 and asked._bad == ["broken.jpg"]


def test_what_the_dialog_has_found_is_not_read_again(extension, fal, until, settings, folder):
    settings.endpoint = FAL
    told = []
    asked = SimpleNamespace(
        directory=str(folder),
        anew=False,
        report=lambda kind, words: told.append(words),
        _good=[folder / "a.png"],
        _bad=["broken.jpg"],
    )
    asked._order = lambda scene: TRELLIS_OT_generate_folder._order(asked, scene)
    assert TRELLIS_OT_generate_folder.execute(asked, bpy.context) == {"FINISHED"}
    assert told == ["Skipped, as they cannot be read: broken.jpg"]
    until(lambda: bool(models()) and not extension.busy)
    assert len(fal.submits) == 1


def test_the_models_of_a_folder_stand_in_one_row_at_the_cursor(settings, folder):
    settings.drop, settings.drop_set = (9, 9, 9), True
    order = orders.batch_of(bpy.context.scene, folder, [folder / "a.png", folder / "b.png"])
    assert len(set(order.ids)) == 2
    assert order.wish["location"] == (0, 0, 0)
    rows, problems = order.rows()
    assert [row.request.wish for row in rows] == [order.wish] * 2 and not problems
    assert order.wish["in_batch"] == order.folder.name


def test_a_chosen_folder_without_pictures_says_so_and_no_more(extension, tmp_path):
    with pytest.raises(RuntimeError) as told:
        bpy.ops.trellis.choose_folder(directory=str(tmp_path))
    words = f"There is no picture in {tmp_path} that can be read. Choose another folder."
    assert str(told.value) == f"Error: {words}\n"


def test_choosing_a_folder_is_done_whatever_the_dialog_answers(extension, folder, monkeypatch):
    """A file browser would never free an operator that answers with the dialog's RUNNING_MODAL. Without a window Blender
    executes what it is to invoke."""
    asked = []
    monkeypatch.setattr(
        *(TRELLIS_OT_generate_folder, "execute"),
        lambda self, _context: asked.append(self.directory) or {"CANCELLED"},
    )
    assert bpy.ops.trellis.choose_folder(directory=str(folder)) == {"FINISHED"}
    assert asked == [str(folder)]


def test_a_folder_without_pictures_is_refused(extension, tmp_path):
    with pytest.raises(RuntimeError, match=r"There is no picture in .* that can be read"):
        bpy.ops.trellis.generate_folder(directory=str(tmp_path))
    assert not extension.board.batches


# -- In background mode ---------------------------------------------------------------------------


@pytest.fixture
def at_once(config, temporary, fal):
    bpy.ops.wm.read_factory_settings(use_empty=True)
    blender_trellis.register()
    bpy.context.scene.trellis.endpoint = FAL
    yield
    blender_trellis.unregister()
    bpy.ops.wm.read_factory_settings(use_empty=True)


def test_a_script_waits_for_all_models_and_pays_once(at_once, fal, folder, capfd):
    assert bpy.ops.trellis.generate_folder(directory=str(folder)) == {"FINISHED"}
    assert sorted(obj.name for obj in models()) == ["a", "b"]
    assert bpy.ops.trellis.generate_folder(directory=str(folder)) == {"FINISHED"}
    assert len(models()) == 2 and len(fal.submits) == 2


def test_a_script_is_told_what_failed_after_the_others_came(at_once, fal, folder):
    fal.script.status_error = ("The model runner crashed.", "runner_error")
    with pytest.raises(RuntimeError, match="The model runner crashed"):
        bpy.ops.trellis.generate_folder(directory=str(folder))
    assert len(fal.submits) == 2 and not models()

# SPDX-License-Identifier: GPL-3.0-or-later
"""The panels Jobs and Results: many jobs at once, what a failed one offers, pages of the history and what can be done with a
result."""

import os
import uuid
from pathlib import Path
from types import SimpleNamespace

import bpy
import pytest
from PIL import Image

import blender_trellis
from blender_trellis.config import Config
from blender_trellis.generation.job import Event, Job, State
from blender_trellis.generation.journal import Journal
from blender_trellis.generation.library import Library, thumbnail
from blender_trellis.scene.recipe import read
from blender_trellis.ui import (
    jobs,
    notices,
    operators_jobs,
    panels_jobs,
    pump,
    screen,
    translations,
)
from blender_trellis.ui.jobs import Board, JobView
from scene import glbs
from services.standin import Reply
from ui.layouts import draw, invoke

FAL = "fal-ai/trellis-2"
TO_READY = (State.SUBMITTING, State.RUNNING, State.DOWNLOADING)


def models():
    return [obj for obj in bpy.context.scene.objects if read(obj)]


@pytest.fixture
def history(config: Config, picture):
    """Fills the journal with results, the last one the newest; returns their jobs."""
    material = glbs.Material({"baseColor": glbs.picture(1)})

    def fill(count, name="model {}.png"):
        journal, library = Journal(config.home), Library(config.home)
        filled = []
        for number in range(count):
            job_id = str(uuid.uuid4())
            image = library.keep_input(picture.read_bytes() + bytes([number % 250]))
            job = Job(job_id, "local/draft", {"seed": number}, [image], [name.format(number)])
            journal.add(job)
            for state in TO_READY:
                journal.move(job_id, state)
            part = library.part(job_id, 0)
            glbs.write(part, [glbs.box((1, 2, 1 + number / 100))], material)
            files = [str(library.keep(part, f"model {number}"))]
            filled.append(
                journal.move(job_id, State.READY, files=files, seeds=[number], fulfilled=True)
            )
        journal.close()
        return filled

    return fill


@pytest.fixture
def opened(extension, until, history):
    """The pump of a Blender that found so many results, shown on the first page; and their jobs."""

    def open_with(count, name="model {}.png"):
        filled = history(count, name)
        extension.history.look_up()
        until(lambda: extension.board.page.total == count and not extension.busy)
        return filled

    return open_with


def ids(shown):
    return [each.given.job_id for each in shown.drawn if each.name == "trellis.import_result"]


def test_results_are_drawn_in_pages_that_can_be_turned(extension, until, opened):
    filled = [job.id for job in opened(30)][::-1]
    results = draw(panels_jobs.TRELLIS_PT_results)
    assert ids(results) == filled[:12]
    assert "1 to 12 of 30" in results.texts()
    for way, first in (("OLDER", 12), ("OLDER", 24), ("OLDER", 24), ("NEWER", 12)):
        bpy.ops.trellis.turn_page(way=way)
        until(lambda: not extension.clerk.busy)
        assert ids(draw(panels_jobs.TRELLIS_PT_results)) == filled[first : first + 12]
    assert len(extension.board.views) == 12, "what is on no page is let go"


def test_a_search_shows_what_it_finds_and_nothing_at_work_is_lost(extension, until, opened):
    opened(13, "robot {}.png")
    extension.board.add(JobView("at work", "arm", "local/draft", State.RUNNING))
    manager = bpy.context.window_manager
    manager.trellis_search = "ROBOT 12"
    until(lambda: extension.board.page.found == 1)
    (shown,) = draw(panels_jobs.TRELLIS_PT_results).texts("operator")
    assert shown == "robot 12" and "at work" in extension.board.views
    manager.trellis_search = "nothing"
    until(lambda: extension.board.page.found == 0)
    drawn = draw(panels_jobs.TRELLIS_PT_results)
    assert panels_jobs.TRELLIS_PT_results.poll(bpy.context) and not ids(drawn)
    assert drawn.names("prop") == ["trellis_search"]
    manager.trellis_search = ""
    until(lambda: extension.board.page.found == 13)


def test_another_file_has_its_own_search(extension, until, opened):
    opened(3)
    bpy.context.window_manager.trellis_search = "model 1"
    until(lambda: extension.board.page.found == 1 and not extension.busy)
    bpy.ops.wm.read_homefile(use_empty=True, use_factory_startup=True)
    assert not bpy.context.window_manager.trellis_search
    until(lambda: extension.board.page.found == 3 and not extension.busy)


def test_drawing_a_thousand_results_and_twenty_jobs_costs_as_much_as_a_page(
    extension, until, opened
):
    opened(30)
    for number in range(20):
        view = JobView(str(number), "robot", "local/draft", State.RUNNING, fraction=0.5)
        view.message = "Cutting out the subject"
        extension.board.add(view)
    few = len(draw(panels_jobs.TRELLIS_PT_results).drawn)
    jobs_drawn = len(draw(panels_jobs.TRELLIS_PT_jobs).drawn)
    page = extension.board.page
    extension.board.page = jobs.Page("", 12, page.jobs, 1000, 1000)
    for number in range(20, 500):
        extension.board.add(
            JobView(str(number), "robot", "local/draft", State.PREPARED, ahead=number)
        )
    assert len(draw(panels_jobs.TRELLIS_PT_results).drawn) <= few
    many = draw(panels_jobs.TRELLIS_PT_jobs)
    assert len(many.drawn) == jobs_drawn + 1 and "480 more wait" in many.texts()
    assert few < 60 and jobs_drawn <= 20 * 5


def test_of_very_many_jobs_those_that_wait_in_the_line_are_left_out_first():
    board = Board()
    for number in range(30):  # the newest are shown first, and come last
        state = State.RUNNING if number < 3 else State.PREPARED
        board.add(JobView(str(number), "", FAL, state, ahead=0 if number < 3 else number))
    shown = [view.id for view in board.shown()]
    assert shown == [str(number) for number in range(20)][::-1]


def test_the_bar_says_how_many_come_first():
    board = Board()
    board.add(JobView("a", "", FAL))
    board.take(Event("a", State.PREPARED, ahead=3, message="Waiting for 3 others"))
    assert board.views["a"].progress == "Waiting for 3 others"
    board.take(Event("a", State.PREPARED, ahead=1, message="Waiting for 1 other"))
    assert board.views["a"].progress == "Waiting for 1 other"
    board.take(Event("a", State.SUBMITTING))
    assert board.views["a"].progress == "Sending"


def test_the_log_keeps_what_was_told_and_counts_in_one_line():
    view = JobView("a", "", FAL)
    for words in ("Sent", *(f"Downloading, {percent} %" for percent in range(101)), "Ready"):
        view.tell(words)
    assert [line.partition(" ")[2] for line in view.log] == ["Sent", "Downloading, 100 %", "Ready"]
    for number in range(200):
        view.tell("abcdefghij"[number % 10] * (number + 1))
    assert len(view.log) == jobs.LOGGED


def test_the_log_opens_by_a_click_and_shows_the_last_lines(extension):
    view = extension.board.add(JobView("a", "robot", FAL, State.RUNNING))
    for number in range(20):
        view.tell("x" * (number + 1))
    view.message = "x" * 20
    assert draw(panels_jobs.TRELLIS_PT_jobs).texts()[-1] == view.message
    bpy.ops.trellis.toggle_log(job_id="a")
    opened = draw(panels_jobs.TRELLIS_PT_jobs)
    assert [*view.log][-12:] == opened.texts()[-12:] and len(opened.texts()) == 2 + 12
    bpy.ops.trellis.toggle_log(job_id="a")
    assert len(draw(panels_jobs.TRELLIS_PT_jobs).texts()) == 2


def test_who_makes_it_is_said_until_it_tells_something(extension):
    view = extension.board.add(JobView("a", "robot", FAL, State.RUNNING))
    assert draw(panels_jobs.TRELLIS_PT_jobs).texts() == ["robot", "fal"]
    view.tell("Sampling shape")
    view.message = "Sampling shape"
    assert draw(panels_jobs.TRELLIS_PT_jobs).texts() == ["robot", "Sampling shape"]
    view.state, view.error = State.FAILED, "No."
    assert draw(panels_jobs.TRELLIS_PT_jobs).texts() == ["robot", "fal", "No."]


def test_a_long_line_of_the_log_goes_on_below_and_the_log_stays_short(extension):
    view = extension.board.add(JobView("a", "robot", FAL, State.RUNNING, expanded=True))
    view.tell("Downloading " + "a large file, " * 5 + "and that is all")
    _, _, *shown = draw(panels_jobs.TRELLIS_PT_jobs).texts()
    assert 1 < len(shown) < 12 and " ".join(shown) == view.log[0]
    for number in range(5):
        view.tell("Another " * 30 + "x" * (number + 1))
    _, _, *shown = draw(panels_jobs.TRELLIS_PT_jobs).texts()
    assert len(shown) == 12 and shown[-1].endswith("xxxxx")


def test_details_are_copied_as_they_are_shown_and_in_english(extension, monkeypatch):
    english = "There is no image a.png. Check the path."
    view = JobView("a", "robot", FAL, State.FAILED, error=english, request_id="r-1")
    extension.board.add(view).tell("Sampling shape")
    copied = SimpleNamespace(clipboard="")
    copy = operators_jobs.TRELLIS_OT_copy_error._act
    here = SimpleNamespace(report=lambda *_: None), SimpleNamespace(window_manager=copied), "a"
    copy(*here)
    *details, log = copied.clipboard.splitlines()
    assert details == [english, f"Endpoint: {FAL}", "Job: a", "Request: r-1"]
    assert log == view.log[0]
    monkeypatch.setattr(operators_jobs, "said", lambda text: translations.said("ja_JP", text))
    copy(*here)
    japanese, second, *_ = copied.clipboard.splitlines()
    assert second == english and japanese.startswith("画像 a.png")


def failed(fal, until, picture):
    """A job that fal has refused, as the panel shows it."""
    fal.script.outcome = Reply(422, {"detail": [{"loc": ["body", "seed"], "msg": "No."}]})
    bpy.context.scene.trellis.endpoint = FAL
    bpy.ops.trellis.generate(filepath=str(picture))
    view = next(iter(pump.get().board.views.values()))
    until(lambda: view.failed and view.job is not None and view.job.state is State.FAILED)
    fal.script.outcome = None
    return view


def test_a_failed_job_says_why_and_is_retried_in_its_place(extension, fal, until, picture):
    view = failed(fal, until, picture)
    shown = draw(panels_jobs.TRELLIS_PT_jobs)
    assert view.error in " ".join(shown.texts())
    assert {"trellis.retry_job", "trellis.use_settings", "trellis.copy_error"} <= {*shown.names()}
    assert notices.shown() == f"{picture.stem} failed"
    first = fal.submits[0]
    bpy.ops.trellis.retry_job(job_id=view.id)
    (again,) = extension.board.jobs()
    assert again.id != view.id and again.title == view.title and again.at_work
    until(lambda: bool(models()) and not extension.busy)
    assert len(fal.submits) == 2 and fal.submits[1].body == first.body
    assert read(models()[0]).job_id == again.id and not extension.board.jobs()
    assert notices.shown() == f"{picture.stem} is ready"


def test_what_never_became_a_job_is_retried_too(extension, until, tmp_path, picture):
    path = tmp_path / "robot.png"
    path.write_text("no picture")
    bpy.context.scene.trellis.local_draft.resolution = "512"
    bpy.ops.trellis.generate(filepath=str(path))
    (view,) = extension.board.jobs()
    until(lambda: view.failed)
    until(lambda: not extension.busy)
    drawn = draw(panels_jobs.TRELLIS_PT_jobs).names()
    assert "trellis.retry_job" in drawn and "trellis.use_settings" not in drawn
    path.write_bytes(picture.read_bytes())
    bpy.ops.trellis.retry_job(job_id=view.id)
    until(lambda: bool(models()) and not extension.busy)
    assert len(extension.session.runner.journal.jobs()) == 1


def test_an_uncertain_job_has_no_retry(extension):
    lost = JobView("a", "", FAL, State.UNCERTAIN, error="Lost.", stopped=True)
    left = JobView("b", "", FAL, State.RUNNING, error="Left.", stopped=True)
    for view in (lost, left):
        extension.board.add(view)
    assert "trellis.retry_job" not in draw(panels_jobs.TRELLIS_PT_jobs).names()
    assert not bpy.ops.trellis.retry_job.poll()


def test_edit_brings_pictures_and_parameters_back(extension, fal, until, picture):
    settings = bpy.context.scene.trellis
    settings.fal_ai_trellis_2.resolution = "512"
    view = failed(fal, until, picture)
    settings.fal_ai_trellis_2.property_unset("resolution")
    settings.endpoint = "local/draft"
    picture.unlink()
    bpy.ops.trellis.use_settings(job_id=view.id)
    assert settings.endpoint == FAL and settings.fal_ai_trellis_2.resolution == "512"
    (image,) = settings.images
    assert image.name == picture.name and Path(image.filepath).is_file()


def test_a_model_gets_its_picture_when_it_is_first_seen_and_only_once(extension, until, opened):
    filled = opened(2)
    assert not extension.busy, "what nobody sees is not pictured"
    draw(panels_jobs.TRELLIS_PT_results)
    until(lambda: not extension.busy)
    for job in filled:
        path = thumbnail(Path(job.files[0]))
        assert extension.board.views[job.id].thumbnail == str(path)
        with Image.open(path) as image:
            assert image.size == (256, 256) and image.mode == "RGBA"
            alpha = image.getchannel("A")
            assert alpha.getextrema() == (0, 255), "the model, before nothing"
    stamp = path.stat().st_mtime_ns
    blender_trellis.unregister()
    blender_trellis.register()
    again = pump.get()
    until(lambda: len(again.board.results()) == 2 and not again.busy)
    draw(panels_jobs.TRELLIS_PT_results)
    assert not again.history.thumbnails.busy and path.stat().st_mtime_ns == stamp


def test_what_cannot_be_pictured_is_tried_once_and_shows_what_it_was_made_of(
    extension, until, opened
):
    (job,) = opened(1)
    Path(job.files[0]).write_bytes(b"no model")
    for _ in range(2):
        draw(panels_jobs.TRELLIS_PT_results)
        until(lambda: not extension.busy)
    view = extension.board.views[job.id]
    assert not view.thumbnail and not thumbnail(Path(job.files[0])).exists()


def test_switching_off_ends_a_picture_that_is_being_made(extension, until, opened, temporary):
    opened(3)
    draw(panels_jobs.TRELLIS_PT_results)
    until(lambda: extension.history.thumbnails._worker is not None)
    blender_trellis.unregister()
    assert not list(temporary.iterdir())
    blender_trellis.register()


def test_a_result_is_deleted_with_its_files_and_nothing_else(extension, until, opened, home):
    kept, gone = opened(2)
    draw(panels_jobs.TRELLIS_PT_results)
    until(lambda: not extension.busy)  # with thumbnails
    before = {path for folder in ("inputs", "results") for path in (home / folder).iterdir()}
    assert len(before) == 6
    bpy.ops.trellis.delete_result(job_id=gone.id)
    until(lambda: extension.board.page.total == 1 and not extension.busy)
    after = {path for folder in ("inputs", "results") for path in (home / folder).iterdir()}
    model = Path(gone.files[0])
    assert before - after == {model, thumbnail(model), home / "inputs" / gone.images[0]}
    assert [view.id for view in extension.board.results()] == [kept.id]
    assert [job.id for job in extension.session.runner.journal.jobs()] == [kept.id]


def test_a_result_is_removed_from_the_list_but_stays_on_the_disk(extension, until, opened):
    (job,) = opened(1)
    bpy.ops.trellis.forget(job_id=job.id)
    until(lambda: extension.board.page.total == 0 and not extension.busy)
    assert Path(job.files[0]).is_file()
    assert not panels_jobs.TRELLIS_PT_results.poll(bpy.context)


def test_a_result_is_exported_as_it_was_made(extension, until, opened, tmp_path):
    (job,) = opened(1)
    bpy.ops.trellis.export_result(job_id=job.id, filepath=str(tmp_path / "größe"))
    until(lambda: not extension.busy)
    assert (tmp_path / "größe.glb").read_bytes() == Path(job.files[0]).read_bytes()
    bpy.ops.trellis.export_result(job_id=job.id, filepath=str(tmp_path / "none" / "a.glb"))
    until(lambda: not extension.busy)
    assert "Cannot write" in extension.board.fault


def test_a_dot_in_the_name_of_an_export_is_kept_and_asked_about(extension, until, opened, tmp_path):
    (job,) = opened(1)
    typed = SimpleNamespace(filepath=str(tmp_path / "robot v1.2"))
    export = operators_jobs.TRELLIS_OT_export_result
    assert export.check(typed, None) and typed.filepath == str(tmp_path / "robot v1.2.glb")
    assert not export.check(typed, None)
    nameless = SimpleNamespace(filepath=f"{tmp_path}{os.sep}")
    assert not export.check(nameless, None)
    bpy.ops.trellis.export_result(job_id=job.id, filepath=str(tmp_path / "robot v1.2"))
    until(lambda: not extension.busy)
    assert [path.name for path in tmp_path.glob("robot*")] == ["robot v1.2.glb"]


@pytest.mark.parametrize(
    ("called", "proposed"), [("red: robot.png", "red_ robot.glb"), ("Aux.png", "_Aux.glb")]
)
def test_a_result_is_exported_under_its_own_name(extension, opened, called, proposed):
    (job,) = opened(1, called)
    asked = SimpleNamespace(filepath="", _result=lambda: extension.board.views[job.id])
    browser = SimpleNamespace(fileselect_add=lambda operator: None)
    context = SimpleNamespace(window_manager=browser)
    invoked = operators_jobs.TRELLIS_OT_export_result.invoke(asked, context, None)
    assert invoked == {"RUNNING_MODAL"} and asked.filepath == proposed


def test_of_several_results_none_overwrites_another_file(extension, until, opened, tmp_path):
    (job,) = opened(1)
    extension.board.views[job.id].files *= 3
    other = tmp_path / "a-3.glb"
    other.write_bytes(b"another model")
    with pytest.raises(RuntimeError, match=r"a-3\.glb: it exists already. Choose another name"):
        bpy.ops.trellis.export_result(job_id=job.id, filepath=str(tmp_path / "a.glb"))
    until(lambda: not extension.busy)
    assert other.read_bytes() == b"another model" and not (tmp_path / "a.glb").exists()


@pytest.mark.parametrize("name", ["delete_result", "forget"])
def test_the_question_names_the_model_that_goes(extension, opened, name):
    kept, newest = opened(2)
    operator = getattr(operators_jobs, f"TRELLIS_OT_{name}")
    assert kept.title in invoke(operator, job_id=kept.id)["title"]
    assert newest.title in invoke(operator)["title"]


def test_a_result_is_imported_at_another_size(extension, until, opened):
    (job,) = opened(1)
    bpy.context.scene.unit_settings.scale_length = 0.01
    bpy.ops.trellis.import_sized(job_id=job.id, height=250)
    until(lambda: bool(models()) and not extension.busy)
    bpy.context.view_layer.update()
    assert models()[0].dimensions.z == pytest.approx(250, rel=0.001)


def test_the_menu_names_the_result_in_every_entry(extension, opened):
    (job,) = opened(1)
    cell = draw(panels_jobs.TRELLIS_PT_results)
    assert cell.names("menu") == ["TRELLIS_MT_result"]
    entries = draw(panels_jobs.TRELLIS_MT_result, trellis_job=job.id)
    given = [each for each in entries.drawn if each.kind == "operator"]
    assert {each.given.job_id for each in given} == {job.id} and len(given) == 9
    for each in given:
        kind, name = each.name.split(".")
        assert "job_id" in getattr(getattr(bpy.ops, kind), name).get_rna_type().properties


def test_in_background_mode_deleting_and_exporting_wait(
    extension, history, monkeypatch, tmp_path, home
):
    (job,) = history(1)
    monkeypatch.setattr(screen, "waits", lambda: True)
    bpy.ops.trellis.export_result(job_id=job.id, filepath=str(tmp_path / "a.glb"))
    assert (tmp_path / "a.glb").is_file()
    bpy.ops.trellis.delete_result(job_id=job.id)
    assert not list((home / "results").iterdir())
    with pytest.raises(RuntimeError, match="There is no job"):
        bpy.ops.trellis.delete_result(job_id=job.id)


def test_total_spent_stands_below_the_results(extension, fal, until, picture):
    bpy.context.scene.trellis.endpoint = FAL
    bpy.ops.trellis.generate(filepath=str(picture))
    until(lambda: bool(models()) and not extension.busy)
    (words,) = (text for text in draw(panels_jobs.TRELLIS_PT_results).texts() if "in all" in text)
    assert words.startswith("$0.")
    assert notices.shown() and bpy.app.timers.is_registered(notices._clear)
    notices._clear()
    assert not notices.shown()

# SPDX-License-Identifier: GPL-3.0-or-later
"""Jobs that stop on their way to or from a service: what the panel shows of them, and what can be done about them."""

import os

import bpy
import pytest

import blender_trellis
from blender_trellis.generation.job import State
from blender_trellis.scene.recipe import read
from blender_trellis.services.fal import FalService
from blender_trellis.services.runware import RunwareService
from blender_trellis.services.sidecar import SidecarService
from blender_trellis.ui import operators_jobs, panels, panels_jobs, pump, screen
from blender_trellis.ui.jobs import JobView
from gate import Gate
from services.standin import Reply
from ui.layouts import draw, invoke

FAL, RUNWARE = "fal-ai/trellis-2", "runware/trellis-2"


@pytest.fixture
def gate(fal, monkeypatch):
    """A line to fal's queue that can break."""
    with Gate(fal.url("queue")) as gate:
        monkeypatch.setenv("TRELLIS_FAL_QUEUE_URL", gate.url)
        yield gate


@pytest.fixture
def start(extension, picture):
    """Asks for a model by a click; returns the job as the panel shows it."""

    def click(endpoint):
        bpy.context.scene.trellis.endpoint = endpoint
        if not bpy.context.scene.trellis.images:
            bpy.ops.trellis.add_images(filepath=str(picture))
        assert bpy.ops.trellis.generate() == {"FINISHED"}
        return next(iter(extension.board.views.values()))

    return click


@pytest.fixture
def uncertain(fal, gate, start, until):
    """A job that fal has in its queue, though its answer to the submit was lost."""
    gate.on("POST /fal-ai", "after", lambda: "drop", times=1)
    view = start(FAL)
    until(lambda: not view.at_work)
    assert view.state is State.UNCERTAIN and len(fal.submits) == 1
    return view


def models():
    return [obj for obj in bpy.context.scene.objects if read(obj)]


def arrived(extension, view):
    return lambda: bool(models()) and not extension.busy and view not in extension.board.jobs()


def another_blender():
    """This one is closed and another one started; its pump."""
    blender_trellis.unregister()
    blender_trellis.register()
    return pump.get()


def test_an_uncertain_job_says_so_and_offers_what_can_be_done(uncertain):
    shown = draw(panels_jobs.TRELLIS_PT_jobs)
    assert uncertain.error and uncertain.error in " ".join(shown.texts())
    assert shown.names() == [
        *("trellis.copy_error", "trellis.dismiss", "trellis.toggle_log"),
        *("trellis.resume_job", "trellis.send_again", "trellis.adopt_job"),
    ]
    assert {each.given.job_id for each in shown.drawn if each.kind == "operator"} == {uncertain.id}
    assert not shown.texts("progress")
    assert bpy.ops.trellis.send_again.poll() and bpy.ops.trellis.adopt_job.poll()


def test_looking_again_finds_the_job_without_sending_it(extension, fal, uncertain, until):
    (request_id,) = fal.jobs
    bpy.ops.trellis.resume_job(job_id=uncertain.id)
    assert uncertain.at_work and not uncertain.error
    shown = draw(panels_jobs.TRELLIS_PT_jobs)
    assert shown.texts("progress") == ["Asking"] and "trellis.send_again" not in shown.names()
    until(lambda: not uncertain.at_work)  # fal does not list what has not begun
    assert uncertain.uncertain and uncertain.error
    fal.finish(request_id)
    bpy.ops.trellis.resume_job(job_id=uncertain.id)
    until(arrived(extension, uncertain))
    assert read(models()[0]).request_id == request_id
    assert len(fal.submits) == 1


def test_sending_again_makes_a_second_request(extension, fal, uncertain, until):
    bpy.ops.trellis.send_again(job_id=uncertain.id)
    assert uncertain.at_work and not uncertain.error
    until(arrived(extension, uncertain))
    assert len(fal.submits) == 2
    assert read(models()[0]).request_id == [*fal.jobs][1]


def test_adopting_goes_on_with_the_request_that_is_named(extension, fal, uncertain, until):
    (request_id,) = fal.jobs
    with pytest.raises(RuntimeError, match="Enter the request's id"):
        bpy.ops.trellis.adopt_job(job_id=uncertain.id, request_id=" ")
    assert uncertain.uncertain
    bpy.ops.trellis.adopt_job(job_id=uncertain.id, request_id=f" {request_id}\n")
    until(arrived(extension, uncertain))
    assert read(models()[0]).request_id == request_id and len(fal.submits) == 1


def test_an_uncertain_job_that_is_dismissed_does_not_come_back(extension, uncertain, until):
    bpy.ops.trellis.dismiss(job_id=uncertain.id)
    until(lambda: not extension.busy)
    assert not extension.board.views and not extension.session.runner.journal.jobs()
    assert not bpy.ops.trellis.send_again.poll()


def test_before_an_uncertain_job_is_dismissed_it_is_asked_about(extension, uncertain):
    asked = invoke(operators_jobs.TRELLIS_OT_dismiss, job_id=uncertain.id)
    assert uncertain.title in asked["title"] and "cannot be collected" in asked["message"]
    assert uncertain.id in extension.board.views


def test_a_failed_job_is_dismissed_without_a_question(extension, fal, start, until):
    failing(fal, "ss_sampling_steps")
    view = start(FAL)
    until(lambda: not view.at_work)
    assert invoke(operators_jobs.TRELLIS_OT_dismiss, job_id=view.id) == {}
    assert not extension.board.views


def test_a_new_blender_asks_for_an_uncertain_job_and_then_shows_it(fal, uncertain, until):
    again = another_blender()
    until(lambda: uncertain.id in again.board.views)
    view = again.board.views[uncertain.id]
    until(lambda: not view.at_work)
    assert view.uncertain and view.error and len(fal.submits) == 1


@pytest.mark.parametrize("way", ["resume", "send again", "adopt"])
def test_in_background_mode_the_operators_wait_and_import(fal, uncertain, monkeypatch, way):
    (request_id,) = fal.jobs
    another_blender()
    monkeypatch.setattr(screen, "waits", lambda: True)
    if way == "resume":
        fal.finish(request_id)
        bpy.ops.trellis.resume_job(job_id=uncertain.id)
    elif way == "adopt":
        bpy.ops.trellis.adopt_job(job_id=uncertain.id, request_id=request_id)
    else:
        bpy.ops.trellis.send_again(job_id=uncertain.id)
    (model,) = models()
    assert read(model).job_id == uncertain.id
    assert len(fal.submits) == (2 if way == "send again" else 1)


def test_where_nothing_can_be_cancelled_one_stops_waiting_and_can_resume(
    extension, runware, start, until
):
    runware.script.held = True
    view = start(RUNWARE)
    until(lambda: view.state is State.RUNNING)
    shown = draw(panels_jobs.TRELLIS_PT_jobs)
    (stop,) = (each for each in shown.drawn if each.name == "trellis.cancel")
    assert stop.text == "Stop Waiting"
    described = operators_jobs.TRELLIS_OT_cancel.description(bpy.context, stop.given)
    assert described.startswith("Stop waiting") and "Runware" in described
    bpy.ops.trellis.cancel(job_id=view.id)
    until(lambda: not view.at_work)
    shown = draw(panels_jobs.TRELLIS_PT_jobs)
    assert view.resumable and "Resume" in shown.texts("operator") and "charged" in view.error
    assert "trellis.send_again" not in shown.names()
    runware.finish(view.request_id)
    bpy.ops.trellis.resume_job(job_id=view.id)
    assert draw(panels_jobs.TRELLIS_PT_jobs).texts("progress") and not view.error
    until(arrived(extension, view))
    assert len(runware.submits) == 1 and not bpy.ops.trellis.resume_job.poll()


def test_a_job_that_can_be_cancelled_has_a_cross(extension, fal, gate, start, until):
    fal.script.held = True
    view = start(FAL)
    until(lambda: view.state is State.RUNNING)
    (stop,) = (
        each for each in draw(panels_jobs.TRELLIS_PT_jobs).drawn if each.name == "trellis.cancel"
    )
    assert stop.text == "" and not operators_jobs.TRELLIS_OT_cancel.description(None, stop.given)
    bpy.ops.trellis.cancel(job_id=view.id)
    until(lambda: not extension.busy)
    assert view.id not in extension.board.views
    assert any(line.startswith("PUT ") and line.endswith("/cancel") for line in gate.seen)


@pytest.mark.parametrize(
    ("endpoint", "service"),
    [("local/draft", SidecarService), (FAL, FalService), (RUNWARE, RunwareService)],
)
def test_the_panel_knows_which_services_can_cancel(endpoint, service):
    assert JobView("a", "", endpoint).cancellable is service.cancellable


def test_a_job_that_stopped_for_want_of_a_key_goes_on_once_there_is_one(
    runware, start, until, monkeypatch
):
    runware.script.held = True
    left = start(RUNWARE)
    until(lambda: left.state is State.RUNNING)
    key = os.environ["RUNWARE_API_KEY"]
    monkeypatch.delenv("RUNWARE_API_KEY")
    again = another_blender()
    until(lambda: left.id in again.board.views)
    view = again.board.views[left.id]
    until(lambda: not view.at_work)
    assert view.resumable and "no key for Runware" in view.error
    monkeypatch.setenv("RUNWARE_API_KEY", key)
    again.reconfigure()  # what a change of the preferences calls
    runware.finish(left.request_id or next(iter(runware.tasks)))
    bpy.ops.trellis.resume_job(job_id=view.id)
    assert view.at_work and not view.error
    until(arrived(again, view))
    assert len(runware.submits) == 1


def test_one_that_waits_for_its_turn_goes_on_later_and_is_never_sent_once_dismissed(
    fal, start, until, monkeypatch
):
    monkeypatch.setenv("TRELLIS_JOBS_AT_ONCE", "1")
    fal.script.held = True
    first = start(FAL)
    until(lambda: first.state is State.RUNNING)
    assert bpy.ops.trellis.generate() == {"FINISHED"}
    (waiting,) = (view for view in pump.get().board.views.values() if view is not first)
    until(lambda: waiting.ahead == 1)
    monkeypatch.delenv("FAL_KEY")
    again = another_blender()
    until(lambda: waiting.id in again.board.views and again.board.views[waiting.id].stopped)
    view = again.board.views[waiting.id]
    assert view.resumable and not view.failed and "no key for fal" in view.error
    bpy.ops.trellis.dismiss(job_id=view.id)
    until(lambda: again.session.runner.journal.get(view.id).state is State.CANCELLED)
    assert view.id not in again.board.views and len(fal.submits) == 1


def failing(fal, name):
    wrong = {"loc": ["body", name], "msg": "Input should be less", "type": "less_than_equal"}
    fal.script.outcome = Reply(422, {"detail": [wrong]})


def alerts(shown):
    """What stands out: properties by name, sections by the id of their header."""
    red = [each for each in shown.drawn if each.alert]
    rows = [each.name for each in red if each.kind == "prop"]
    return rows + [each.panel for each in red if each.kind == "label" and each.panel]


def test_a_parameter_that_a_job_failed_for_stands_out_until_it_is_dismissed(
    extension, fal, start, until
):
    failing(fal, "ss_sampling_steps")
    view = start(FAL)
    until(lambda: not view.at_work)
    assert view.parameter == "ss_sampling_steps"
    assert alerts(draw(panels.TRELLIS_PT_generate)) == ["ss_sampling_steps", "TRELLIS_structure"]
    bpy.context.scene.trellis.endpoint = "fal-ai/trellis-2-lora"  # it has one of the same name
    assert not alerts(draw(panels.TRELLIS_PT_generate))
    bpy.context.scene.trellis.endpoint = FAL
    bpy.ops.trellis.dismiss(job_id=view.id)
    assert not alerts(draw(panels.TRELLIS_PT_generate))


@pytest.mark.parametrize(
    ("parameter", "expected"),
    [
        ("uv_unwrap_smooth_strength", ["TRELLIS_mesh", "TRELLIS_mesh_advanced"]),
        ("resolution", []),
        ("seed", []),
    ],
)
def test_so_does_one_wherever_it_stands(extension, fal, start, until, parameter, expected):
    failing(fal, parameter)
    view = start(FAL)
    until(lambda: not view.at_work)
    found = alerts(draw(panels.TRELLIS_PT_generate))
    assert sorted(found) == sorted([parameter, *expected])


def test_a_nested_parameter_is_found_by_its_documented_name(extension, runware, start, until):
    wrong = {"code": "invalidDecimationTarget", "message": "Too few."}
    wrong["parameter"] = "settings.decimationTarget"
    runware.instead["3dInference"] = [Reply(400, {"errors": [wrong]})]
    view = start(RUNWARE)
    until(lambda: not view.at_work)
    found = alerts(draw(panels.TRELLIS_PT_generate))
    assert found == ["decimation_target_polygons", "TRELLIS_mesh"]


def test_of_several_models_those_that_were_made_arrive_and_the_failure_is_told(
    extension, runware, start, until
):
    bpy.context.scene.trellis.variations = 2
    runware.script.failed = {0: {"code": "providerError", "message": "Out of memory"}}
    view = start(RUNWARE)
    until(lambda: bool(models()) and not extension.busy)
    assert len(models()) == 1 and view.state is State.READY
    assert view in extension.board.jobs() and view in extension.board.results()
    shown = draw(panels_jobs.TRELLIS_PT_jobs)
    assert "1 of 2 models failed" in " ".join(shown.texts()) and "Out of memory" in view.error
    assert not {"trellis.resume_job", "trellis.cancel"} & {*shown.names()}
    bpy.ops.trellis.dismiss(job_id=view.id)
    assert view not in extension.board.jobs() and view in extension.board.results()

# SPDX-License-Identifier: GPL-3.0-or-later
"""fal and Runware, which are the tests' stand-ins: a price, a question before much is spent, a failure that points at its
parameter, waiting stopped and resumed, what was spent, and keys that are checked."""

from typing import Any

import bpy

from window import driver as d
from window import trellis as t

fal: Any
runware: Any


def a_model_of_fal_shows_its_price_its_log_and_arrives() -> d.Step:
    global fal, runware
    fal, runware = t.stand_ins(t.small_glb())
    yield from t.open_tab()
    yield from t.put_images(t.ROBOT)
    fal.script.queued, fal.script.running = 3, 3
    fal.script.logs = ["Sampling sparse structure", "Sampling shape", "Sampling texture"]
    yield from t.choose("fal-ai/trellis-2")
    d.shot_sidebar("1-price")
    yield from t.press_generate()
    view = t.newest()
    yield from d.until(lambda: view.message.startswith("Sampling"), "a line of the log")
    d.shot_sidebar("2-progress")
    yield from t.arrived(1)
    yield 1.5
    d.shot("3-model")
    assert len(fal.submits) == 1


def a_failure_points_at_its_parameter() -> d.Step:
    from services.standin import Reply

    wrong = {"loc": ["body", "ss_sampling_steps"], "msg": "Input should be less than 40"}
    fal.script.outcome = Reply(422, {"detail": [wrong | {"type": "less_than_equal"}]})
    yield from t.press_generate()
    view = t.newest()
    yield from d.until(lambda: view.error, "the error")
    yield from d.click_text("Structure", after=1.5)
    d.shot_sidebar("4-failed")
    assert "ss_sampling_steps" in t.board().blamed("fal-ai/trellis-2")
    fal.script.outcome = None
    with d.override():
        bpy.ops.trellis.dismiss(job_id=view.id)
    yield from d.click_text("Structure")


def much_is_asked_about_before_it_is_spent() -> d.Step:
    preferences = bpy.context.preferences.addons[t.ROOT].preferences
    preferences.ask_above, sent = 0.1, len(fal.submits)
    yield from d.click_text("Generate", after=2.0)
    d.shot("5-question")
    assert len(fal.submits) == sent and len(t.models()) == 1
    yield from d.press("Return")
    yield from d.until(lambda: len(fal.submits) == sent + 1, "the request")
    yield from t.arrived(2)
    preferences.ask_above = 1.0


def waiting_for_runware_is_stopped_and_resumed() -> d.Step:
    runware.script.held = True
    yield from t.choose("runware/trellis-2")
    d.shot_sidebar("6-runware")
    yield from t.press_generate()
    view = t.newest()
    yield from d.until(lambda: view.request_id, "the task at Runware")
    yield from d.click_text("Stop Waiting")
    yield from d.until(lambda: view.resumable, "Resume")
    yield from t.scroll_down()
    d.shot_sidebar("7-left")
    runware.finish(view.request_id)
    yield from d.click_text("Resume", nth=-1)  # the message above it has the word, too
    yield from d.until(lambda: not view.error, "the job going on")
    yield from t.arrived(3)
    assert len(runware.submits) == 1
    yield from d.act("xdotool", "click", "--repeat", 15, 4, after=1.0)  # back up


def what_was_spent_is_said() -> d.Step:
    yield from d.click_text("Costs", after=1.5)
    d.shot_sidebar("8-costs")
    services = {spent.service for spent in t.board().spent}
    assert services == {"fal", "runware"}, t.board().spent


def keys_are_checked_in_the_preferences() -> d.Step:
    yield from t.open_preferences()
    for service in ("fal", "runware"):
        bpy.ops.trellis.check_key(service=service)
    keys = t.board().keys
    yield from d.until(lambda: "Asking…" not in keys.values(), "the answers")
    assert keys["runware"] == "Accepted. Balance 12.34 USD", keys
    yield 1.0
    d.shot("9-preferences")


LIVES = [
    [
        a_model_of_fal_shows_its_price_its_log_and_arrives,
        a_failure_points_at_its_parameter,
        much_is_asked_about_before_it_is_spent,
        waiting_for_runware_is_stopped_and_resumed,
        what_was_spent_is_said,
        keys_are_checked_in_the_preferences,
    ]
]

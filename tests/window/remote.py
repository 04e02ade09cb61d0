# SPDX-License-Identifier: GPL-3.0-or-later
"""The services in the sidebar, in a real Blender window with the extension installed and enabled: a price, a question before
much is spent, models by mouse clicks, a failure that points at its parameter, and what was spent; keys that are checked.

Run by a Blender with `guikit` on its path: `blender --python tests/window/remote.py -- tests docs/images/robot.png MODEL.glb`.
The services are the tests' stand-ins, in threads of this Blender. What it asserts holds at any size; the pictures are for eyes.
"""

import os
import sys
import time
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import bpy
import guikit as g

ROOT = "bl_ext.user_default.blender_trellis"
FAL, RUNWARE = "fal-ai/trellis-2", "runware/trellis-2"
SECONDS = 120


def models() -> list[bpy.types.Object]:
    return [obj for obj in bpy.context.scene.objects if "trellis" in obj]


def board() -> Any:
    return import_module(f"{ROOT}.ui.pump").get().board


def until(done: Any, what: str) -> Iterator[float]:
    deadline = time.monotonic() + SECONDS
    while not done():
        assert time.monotonic() < deadline, f"{what} did not happen in {SECONDS} s"
        yield 0.1


def stand_ins(glb: bytes) -> tuple[Any, Any]:
    """Both services on this computer, with the environment that leads to them."""
    from services import fal_standin, runware_standin

    fal, runware = fal_standin.FalStandIn(), runware_standin.RunwareStandIn()
    for service in (fal, runware):
        service.__enter__()
        service.glb = glb
    os.environ |= {
        "FAL_KEY": fal_standin.KEY,
        "TRELLIS_FAL_QUEUE_URL": fal.url("queue"),
        "TRELLIS_FAL_REST_URL": fal.url("rest"),
        "TRELLIS_FAL_API_URL": fal.url("api") + "/v1",
        "RUNWARE_API_KEY": runware_standin.KEY,
        "TRELLIS_RUNWARE_URL": runware.base,
    }
    return fal, runware


def choose(endpoint: str, shot: str) -> Iterator[float]:
    bpy.context.scene.trellis.endpoint = endpoint
    g.area().tag_redraw()
    yield 2.0
    g.shot_sidebar(shot)


def undo_and_redo(there: int) -> Iterator[float]:
    left, _, right, bottom = g.region_box(g.region("WINDOW"))
    yield from g.move((left + right) / 2, bottom - 40)
    yield from g.key("ctrl+z", wait=2.0)
    assert len(models()) == there - 1, "one undo takes the model away"
    yield from g.key("ctrl+shift+z", wait=2.0)
    assert len(models()) == there


def a_model_of_fal(fal: Any) -> Iterator[float]:
    fal.script.queued, fal.script.running = 3, 3
    fal.script.logs = ["Sampling sparse structure", "Sampling shape", "Sampling texture"]
    yield from choose(FAL, "1_price")
    yield from g.click_text("Generate", wait=2.0)
    view = next(iter(board().views.values()))
    yield from until(lambda: view.message.startswith("Sampling"), "a log")
    yield 0.5
    g.shot_sidebar("2_progress")
    yield from until(lambda: len(models()) == 1, "the model")
    yield 2.0
    g.shot("3_model")
    yield from undo_and_redo(1)
    assert len(fal.submits) == 1


def a_failure_points_at_its_parameter(fal: Any) -> Iterator[float]:
    from services.standin import Reply

    wrong = {"loc": ["body", "ss_sampling_steps"], "msg": "Input should be less than 40"}
    fal.script.outcome = Reply(422, {"detail": [wrong | {"type": "less_than_equal"}]})
    yield from g.click_text("Generate", wait=1.0)
    view = next(iter(board().views.values()))
    yield from until(lambda: view.error, "the error")
    yield from g.click_text("Structure", wait=1.5)
    g.shot_sidebar("4_error")
    fal.script.outcome = None
    with g.override(rkind="UI"):
        bpy.ops.trellis.dismiss(job_id=view.id)
    yield from g.click_text("Structure", wait=1.0)


def much_is_asked_about(fal: Any) -> Iterator[float]:
    preferences = bpy.context.preferences.addons[ROOT].preferences
    preferences.ask_above = 0.1
    sent = len(fal.submits)
    yield from g.click_text("Generate", wait=2.0)
    g.shot("5_question")
    assert len(fal.submits) == sent and not models()[1:]
    yield from g.key("Return", wait=1.0)
    yield from until(lambda: len(models()) == 2, "the model")
    preferences.ask_above = 1.0


def runware_is_left_and_resumed(runware: Any) -> Iterator[float]:
    runware.script.held = True
    yield from choose(RUNWARE, "6_runware")
    yield from g.click_text("Generate", wait=3.0)
    view = next(iter(board().views.values()))
    yield from g.click_text("Stop Waiting", wait=2.0)
    assert view.resumable, vars(view)
    g.shot_sidebar("7_left")
    runware.finish(view.request_id)
    yield from g.click_text("Resume", nth=1, wait=1.0)  # the message has the word, too
    yield from until(lambda: len(models()) == 3, "the model")
    assert len(runware.submits) == 1
    yield from g.click_text("Costs This Month", wait=1.5)
    g.shot_sidebar("8_costs")


def keys_are_checked() -> Iterator[float]:
    with g.override():
        bpy.ops.screen.userpref_show()
    yield 1.0
    for service in ("fal", "runware"):
        bpy.ops.trellis.check_key(service=service)
    yield from until(lambda: "Asking…" not in board().keys.values(), "the answers")
    assert board().keys["runware"] == "Accepted. Balance 12.34 USD", board().keys
    g.log("keys", board().keys)
    window = bpy.context.window_manager.windows[-1]
    with bpy.context.temp_override(window=window, area=window.screen.areas[0]):
        bpy.context.preferences.active_section = "ADDONS"
        bpy.ops.preferences.addon_show(module=ROOT)
    yield 2.0
    g.shot("9_preferences")


def main() -> Iterator[float]:
    tests, image, glb = g.ARGS[:3]
    sys.path.append(tests)
    assert ROOT in bpy.context.preferences.addons, "install and enable the extension first"
    fal, runware = stand_ins(Path(glb).read_bytes())
    import_module(f"{ROOT}.ui.pump").reconfigure()  # the environment is another one now
    yield from g.open_sidebar("Trellis", wait=1.0)
    with g.override(rkind="UI"):
        bpy.ops.trellis.add_images("EXEC_DEFAULT", filepath=image)
    yield from a_model_of_fal(fal)
    yield from a_failure_points_at_its_parameter(fal)
    yield from much_is_asked_about(fal)
    yield from runware_is_left_and_resumed(runware)
    yield from keys_are_checked()


g.run(main)

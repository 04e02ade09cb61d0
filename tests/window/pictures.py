# SPDX-License-Identifier: GPL-3.0-or-later
"""The pictures of docs/images that show Blender: `build.py window --pictures`. Panels are cut below their last line, and their
width is always the same.

panel.png        several views, Draft, parameters, a job at work
panel-fal.png    fal: its price, a stage's parameters, a job at work
results.png      models that were made
window.png       the whole window: a model, and the picture that it was made of
preferences.png  the extension's preferences
"""

import subprocess

import bpy

from window import driver as d
from window import trellis as t

WIDTH = 280


def of_the_panel() -> d.Step:
    bpy.data.objects.remove(bpy.data.objects["Cube"])
    # So that what is below the panels is of one colour
    d.area().spaces.active.overlay.show_overlays = False
    yield from t.open_tab(WIDTH)
    yield from t.put_images(*t.VIEWS)
    t.settings().local_draft.texture_size = "4096"
    t.settings().seed, t.settings().seed_locked = 1234567, True
    stages = ("Texture", "Mesh")
    for stage in stages:
        yield from d.click_text(stage)
    yield from t.press_generate()
    yield from d.until(lambda: (t.newest().fraction or 0) > 0.12, "progress")
    _cut("panel")
    yield from t.arrived(1)
    for stage in stages:
        yield from d.click_text(stage)


def of_the_results() -> d.Step:
    yield from t.put_images(t.ROBOT)
    yield from t.press_generate()
    yield from t.arrived(2)
    yield 3.0
    _cut("results")


def of_the_window() -> d.Step:
    newest = bpy.context.view_layer.objects.active
    for other in t.models():  # they stand in one place
        if other != newest:
            bpy.data.objects.remove(other)
    space = d.area().spaces.active
    space.overlay.show_overlays, space.shading.color_type = True, "TEXTURE"
    with d.override("WINDOW"):
        bpy.ops.view3d.view_selected()
    yield from d.hover_viewport()  # away from buttons and their tooltips
    yield 3.0
    d.shot("window")


def of_fal() -> d.Step:
    d.area().spaces.active.overlay.show_overlays = False
    fal, _ = t.stand_ins(t.small_glb())
    fal.script.queued, fal.script.running = 1, 6
    fal.script.logs = ["Sampling sparse structure", "Sampling shape", "Sampling texture"]
    yield from t.choose("fal-ai/trellis-2")
    yield from d.click_text("Structure")
    yield from t.press_generate()
    yield from d.until(lambda: t.newest().message.startswith("Sampling"), "a line of the log")
    yield 1.0
    _cut("panel-fal")
    yield from t.arrived(2)


def of_the_preferences() -> d.Step:
    """Without what is about this computer: where the extension lies, and what the local engine lacks."""
    window = yield from t.open_preferences()
    whole = d.place_of(window)
    yield from d.click_text("TRELLIS.2 on This Computer", whole)
    first = yield from d.find("Preferences", whole)
    last = yield from d.find("Servers of Your Own", whole)
    (area,) = window.screen.areas
    (inner,) = (region for region in area.regions if region.type == "WINDOW")
    d.shot(
        "preferences",
        d.Box(whole.left + inner.x, last.bottom - 14, whole.right, first.top + 10),
    )


def _cut(name: str) -> None:
    """The sidebar, without what is empty below its panels."""
    path = d.shot_sidebar(name)
    sidebar = d.region()
    inner = f"{sidebar.width - 90}x{sidebar.height - 20}+20+0"  # neither edges nor tabs
    measure = ["-crop", inner, "+repage", "-fuzz", "2%", "-format", "%@", "info:"]
    seen = subprocess.run(["convert", path, *measure], check=True, capture_output=True, text=True)
    size, _left, top = seen.stdout.split("+")
    high = int(size.split("x")[1]) + int(top) + 12
    subprocess.run(["convert", path, "-crop", f"x{high}+0+0", "+repage", path], check=True)


LIVES = [[of_the_panel, of_the_results, of_the_window, of_fal], [of_the_preferences]]

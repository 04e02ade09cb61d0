# SPDX-License-Identifier: GPL-3.0-or-later
"""Pictures that are dropped on the viewport, where the model then stands, and on the panel; pasted; and taken here."""

import shutil
import subprocess
from pathlib import Path

import bpy

from window import driver as d
from window import trellis as t

OURS = "Make 3D Model of Image"
CAPTURES = {"Capture Viewport": "the viewport", "Capture Camera": "what the camera sees"}


def a_picture_dropped_on_the_viewport_becomes_a_model_there() -> d.Step:
    yield from t.open_tab()
    view = d.box(d.region("WINDOW"))
    x, y = view.left + (view.right - view.left) * 0.25, view.bottom + (view.top - view.bottom) * 0.3
    yield from _drop(x, y, t.ROBOT, "1-menu")
    assert t.settings().drop_set
    place = t.settings().drop[:]
    assert abs(place[2]) < 1e-3 and place[0] ** 2 + place[1] ** 2 > 1, place
    yield 1.5
    d.shot("2-dropped")
    yield from t.press_generate()
    assert not t.settings().drop_set, "a drop is for one model"
    yield from d.until(lambda: t.newest().fraction or t.models(), "progress")
    d.shot("3-on-its-way")
    yield from t.arrived(1)
    (model,) = t.models()
    low = [min((model.matrix_world @ v.co)[axis] for v in model.data.vertices) for axis in range(3)]
    high = [
        max((model.matrix_world @ v.co)[axis] for v in model.data.vertices) for axis in range(3)
    ]
    middle = [(a + b) / 2 for a, b in zip(low, high, strict=True)]
    assert abs(middle[0] - place[0]) < 0.3 and abs(middle[1] - place[1]) < 0.3, (middle, place)
    assert abs(low[2] - place[2]) < 0.05, "it stands on the ground"
    yield 1.0
    d.shot("4-arrived")


def a_picture_dropped_on_the_panel_is_the_next_one() -> d.Step:
    yield from t.put_images(t.ROBOT)
    sidebar = d.box(d.region())
    yield from _drop(*sidebar.centre, t.VIEWS[1], "5-menu-panel")
    assert [Path(each.filepath).name for each in t.settings().images] == [t.VIEWS[1].name]
    assert not t.settings().drop_set
    yield from t.pictured()
    d.shot_sidebar("6-dropped")


def a_copied_picture_is_pasted() -> d.Step:
    yield from _pasted("path", ["xclip", "-selection", "clipboard"], str(t.VIEWS[0]).encode())
    assert Path(t.settings().images[0].filepath) == t.VIEWS[0]
    image = ["xclip", "-selection", "clipboard", "-target", "image/png"]
    yield from _pasted("image", image, t.ROBOT.read_bytes())
    assert Path(t.settings().images[0].filepath).read_bytes()[:4] == b"\x89PNG"
    yield from t.pictured()
    d.shot_sidebar("7-pasted")


def _pasted(what: str, program: list[str], content: bytes) -> d.Step:
    """Copy it in another program, and press Paste Image."""
    if not shutil.which(program[0]):
        raise d.LeftOut("xclip is not installed")
    with d.override():
        t.settings().images.clear()
    d.area().tag_redraw()
    with Path(d.OUT, f"{what}.copied").open("w+b") as copied:
        copied.write(content)
        copied.seek(0)
        owner = subprocess.Popen([*program, "-quiet"], stdin=copied, stderr=subprocess.DEVNULL)
    yield 1.0
    try:
        yield from d.click_text("Paste Image")
        yield from d.until(lambda: t.settings().images, f"the pasted {what}")
    finally:
        owner.terminate()
        owner.wait()
        Path(d.OUT, f"{what}.copied").unlink()


def viewport_and_camera_are_captured() -> d.Step:
    for number, (button, shows) in enumerate(CAPTURES.items(), 8):
        t.settings().images.clear()
        d.area().tag_redraw()
        yield from d.click_text(button)
        yield from d.until(lambda: t.settings().images, f"a picture of {shows}")
        path = t.settings().images[0].filepath
        image = bpy.data.images.load(path)
        alphas = [*image.pixels][3::4]  # older Blenders know no steps in slices of theirs
        assert 0.001 < sum(alpha > 0.5 for alpha in alphas) / len(alphas) < 0.95, "cut out"
        bpy.data.images.remove(image)
        yield from t.pictured()
        d.shot_sidebar(f"{number}-{button.replace(' ', '-').lower()}")


def _drop(x: float, y: float, path: Path, picture: str) -> d.Step:
    """Drop it, and choose what is to become of it where Blender asks."""
    yield from d.drop(x, y, path)
    d.shot(picture)
    if not any(Path(each.filepath).samefile(path) for each in t.settings().images if each.filepath):
        yield from d.click_text(OURS, d.box(d.window()))
    yield from d.until(
        lambda: [Path(each.filepath) for each in t.settings().images if each.filepath] == [path],
        "the dropped picture in the panel",
    )


LIVES = [
    [
        a_picture_dropped_on_the_viewport_becomes_a_model_there,
        a_picture_dropped_on_the_panel_is_the_next_one,
        a_copied_picture_is_pasted,
        viewport_and_camera_are_captured,
    ]
]

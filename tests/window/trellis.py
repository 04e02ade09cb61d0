# SPDX-License-Identifier: GPL-3.0-or-later
"""What the tests of the window know of the extension: its models, its jobs, its pump's ticks, and stand-ins of the services."""

from __future__ import annotations

import os
import statistics
import sys
import time
from collections.abc import Callable, Generator
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import bpy

from window import driver as d

ROOT = "bl_ext.user_default.blender_trellis"
LATE = 8  # milliseconds that a tick may take
PICTURES = Path(__file__).parents[2] / "docs" / "images"
ROBOT = PICTURES / "robot.png"
VIEWS = [PICTURES / f"truck-{view}.png" for view in ("front", "right", "back", "left")]


def module(name: str) -> ModuleType:
    """A module of the installed extension."""
    return import_module(f"{ROOT}.{name}".rstrip("."))


def settings() -> Any:
    return bpy.context.scene.trellis


def models() -> list[bpy.types.Object]:
    return [obj for obj in bpy.context.scene.objects if "trellis" in obj]


def in_a_row(models: list[bpy.types.Object]) -> None:
    """See that they stand beside each other, none within another."""
    places = sorted(tuple(round(each, 3) for each in obj.location) for obj in models)
    assert len({place[1:] for place in places}) == 1, places
    for number, place in enumerate(places[1:]):
        assert place[0] - places[number][0] >= models[0].dimensions.x, places


def board() -> Any:
    return module("ui.pump").get().board


def newest() -> Any:
    """The job that was asked for last, as the panel shows it."""
    return next(iter(board().views.values()))


def open_tab(width: int | None = None) -> d.Step:
    """The sidebar with the tab, the toolbar out of the way; `width` in units of the interface scale."""
    space = d.area().spaces.active
    with d.override("WINDOW"):
        space.show_region_toolbar, space.show_region_ui = False, True
    yield 1.0  # the tabs exist only after a draw
    d.region().active_panel_category = "Trellis"
    d.area().tag_redraw()
    yield 1.0
    assert d.region().active_panel_category == "Trellis"
    if width:
        yield from make_wide(width)


def make_wide(width: int) -> d.Step:
    """Drag the sidebar's edge until it is `width` units wide, give or take two."""
    scale = d.scale()
    # Some Blenders take the edge itself, others what is drawn as one
    for inside in (0, round(7 * scale)) * 3:
        off = round(d.region().width - width * scale)
        if abs(off) <= 2 * scale:
            return
        sidebar = d.box(d.region())
        right, down = d.on_screen(sidebar.left + inside, sidebar.top - 60 * scale)
        # First away, so that Blender sees a drag; it draws slowly, and would take two moves at once for one
        hands = ["mousemove", right, down, "sleep", d.HOVER, "mousedown", 1, "sleep", d.HOVER]
        for place in (right - 20, right + off):
            hands += ["mousemove", place, down, "sleep", d.HOVER]
        yield from d.act("xdotool", *hands, "mouseup", 1, after=1.0)
        drawn = 0
        while drawn != d.region().width:  # it may be drawn some time after the drag is over
            drawn = d.region().width
            yield 1.0
    raise AssertionError(f"the sidebar is {d.region().width / scale:.0f} units wide, not {width}")


def put_images(*paths: Path) -> d.Step:
    """These pictures and no others, by the operator itself."""
    with d.override():
        for number, path in enumerate(paths):
            bpy.ops.trellis.add_images("EXEC_DEFAULT", filepath=str(path), replace=not number)
    d.area().tag_redraw()
    yield 1.5


def pictured() -> d.Step:
    """Wait until the panel shows the active image as a model will see it."""
    previews, item = module("ui.pump").get().previews, settings().images[settings().active]

    def shown() -> bool:
        sight = previews.seen(settings(), item)
        return bool(sight and previews.of_file(sight.path))

    yield from d.until(shown, "how a model will see the image")
    d.area().tag_redraw()
    yield 1.5


def with_menus() -> d.Box:
    """The sidebar, and what menus that it opens lie over."""
    sidebar = d.box(d.region())
    return d.Box(sidebar.left - 60, 0, d.window().width, sidebar.top)


def choose_file(button: str, path: str, part: d.Box | None = None) -> d.Step:
    """Press a button that opens the file browser, and choose a folder there, or a file by its whole path."""
    bpy.context.preferences.view.filebrowser_display_type = "SCREEN"
    for _ in range(3):  # a panel that is laid out anew between press and release swallows a click
        yield from d.click_text(button, part, after=6.0)
        if browsing():
            break
    yield from d.until(browsing, "the file browser")
    yield 1.0
    field = d.box(d.region("UI", of="FILE_BROWSER"))
    yield from d.fill(*field.centre, path)
    bottom = d.box(d.region("EXECUTE", of="FILE_BROWSER"))
    accept = bottom.right - 60 * d.scale(), bottom.centre[1]
    while browsing():  # the first click may only leave the field
        yield from d.click(*accept, after=2.0)


def browsing() -> bool:
    return any(area.type == "FILE_BROWSER" for area in d.window().screen.areas)


def choose(endpoint: str) -> d.Step:
    settings().endpoint = endpoint
    d.area().tag_redraw()
    yield 1.5


def press_generate(after: float = 0.3) -> d.Step:
    there = len(board().views)
    yield from d.click_text("Generate", after=after)
    yield from d.until(lambda: len(board().views) > there, "a job after the click")


def open_preferences() -> Generator[float, None, bpy.types.Window]:
    """The extension's preferences, in a window of their own, which is returned."""
    bpy.ops.screen.userpref_show()
    yield 1.5
    window = bpy.context.window_manager.windows[-1]
    with bpy.context.temp_override(window=window, area=window.screen.areas[0]):
        bpy.context.preferences.active_section = "ADDONS"
        bpy.ops.preferences.addon_show(module=ROOT)
    yield 3.0
    return window


def scroll_down() -> d.Step:
    """Bring the lower end of the sidebar into sight."""
    sidebar = d.box(d.region())
    x, y = d.on_screen(sidebar.left + 20, sidebar.top - 200)
    yield from d.act("xdotool", "mousemove", x, y, "click", "--repeat", 15, 5, after=1.0)


def arrived(count: int) -> d.Step:
    """Wait for `count` models in the scene, and for nothing being at work any more."""
    view = newest()
    yield from d.until(lambda: len(models()) >= count or view.error, "the model")
    assert not view.error, view.error
    yield from d.until(lambda: view.files and not view.at_work, "the result in the list")
    assert len(models()) == count


def undo(count: int) -> d.Step:
    """Undo with the keyboard, after which `count` models are there."""
    yield from d.hover_viewport()
    yield from d.press("ctrl+z")
    yield from d.until(lambda: len(models()) == count, f"{count} models after the undo")


def redo(count: int) -> d.Step:
    yield from d.hover_viewport()
    yield from d.press("ctrl+shift+z")
    yield from d.until(lambda: len(models()) == count, f"{count} models after the redo")


class Ticks:
    """How long each tick of the pump holds the main thread, in milliseconds; what appends a model apart.

    Of a late one it is told how much the processor worked, which is little where the system had others to serve, and what was
    imported.
    """

    def __init__(self) -> None:
        self.plain: list[float] = []
        self.late: list[str] = []
        self.appending: list[float] = []
        self.undo: list[float] = []  # the part of each append that the undo step takes
        self._appended = 0.0, 0.0  # of the tick at hand, as `_clocks`
        arrivals = module("ui.arrivals")
        pump = module("ui.pump").Pump
        arrivals.push_undo = self._timed(arrivals.push_undo, self.undo)
        arrivals.place = self._timed(arrivals.place, self.appending)
        step = pump.step

        def timed(this: Any) -> None:
            known, self._appended = {*sys.modules}, (0.0, 0.0)
            begun = _clocks()
            step(this)
            took, worked = (
                now - then - part
                for now, then, part in zip(_clocks(), begun, self._appended, strict=True)
            )
            if took > LATE:
                imported = ", ".join(sorted({*sys.modules} - known)[:5]) or "nothing"
                self.late.append(f"{took:.0f} ms, {worked:.0f} of work, {imported} imported")
            self.plain.append(took)

        pump.step = timed

    def _timed(self, work: Callable[..., Any], times: list[float]) -> Callable[..., Any]:
        def timed(*arguments: Any, **named: Any) -> Any:
            begun = _clocks()
            try:
                return work(*arguments, **named)
            finally:
                now = _clocks()
                self._appended = now[0] - begun[0], now[1] - begun[1]
                times.append(self._appended[0])

        return timed

    def tell(self) -> None:
        if not self.plain:
            return
        d.figure(
            "ticks of the pump, without the append",
            f"{len(self.plain)}: median {statistics.median(self.plain):.2f} ms, "
            f"worst {max(self.plain):.1f} ms, {len(self.late)} above {LATE} ms",
        )
        for late in self.late:
            d.figure("a late tick", late)
        if self.appending:
            d.figure("appends", f"{len(self.appending)}: worst {max(self.appending):.0f} ms")


def _clocks() -> tuple[float, float]:
    """Milliseconds by the clock, and those that this thread worked."""
    return time.perf_counter() * 1000, time.thread_time() * 1000


def stand_ins(glb: bytes) -> tuple[Any, Any]:
    """fal and Runware on this computer, in threads of this Blender, with the environment that leads to them."""
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
    module("ui.pump").reconfigure()  # the environment is another one now
    return fal, runware


def ready_for_fal(endpoint: str) -> Generator[float, None, Any]:
    """A picture in the open tab and an endpoint of fal, of which a stand-in is returned; its models are small."""
    fal, _ = stand_ins(small_glb())
    yield from open_tab()
    yield from put_images(ROBOT)
    yield from choose(endpoint)
    return fal


def small_glb() -> bytes:
    """A textured box."""
    from scene import glbs

    material = glbs.Material({"baseColor": glbs.picture(1)})
    return glbs.write(Path(d.OUT, "box.glb"), [glbs.box((1, 2, 1))], material).read_bytes()

# SPDX-License-Identifier: GPL-3.0-or-later
"""How long the interface stands still, in the window: Blender's own importer against the append of the same model, the
pump's ticks, and the draw of the panels. `build.py window --bench` prints the figures, none of which is a failure.

Each figure is given twice: as it passed on the clock, and what the main thread worked of it, which is less where others have the
processor. A redraw of the viewport is in neither, on neither side.
"""

import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import bpy

from bench import crowd
from window import driver as d
from window import trellis as t

TIMES = 3
VERTICES, TEXTURE = 500_000, 2048
REDRAWS = 100


@dataclass(frozen=True)
class Span:
    """Milliseconds of one thread."""

    passed: float
    worked: float

    def __add__(self, other: "Span") -> "Span":
        return Span(self.passed + other.passed, self.worked + other.worked)

    def __sub__(self, other: "Span") -> "Span":
        return Span(self.passed - other.passed, self.worked - other.worked)


@contextmanager
def measured(spans: list[Span]) -> Iterator[None]:
    passed, worked = time.perf_counter(), time.thread_time()
    try:
        yield
    finally:
        worked, passed = time.thread_time() - worked, time.perf_counter() - passed
        spans.append(Span(passed * 1000, worked * 1000))


def watched(module: ModuleType, name: str) -> list[Span]:
    """What every call of a function takes from now on."""
    work, spans = getattr(module, name), list[Span]()

    def call(*arguments: Any, **named: Any) -> Any:
        with measured(spans):
            return work(*arguments, **named)

    setattr(module, name, call)
    return spans


def median(spans: list[Span]) -> Span:
    passed, worked = ([getattr(each, name) for each in spans] for name in ("passed", "worked"))
    return Span(statistics.median(passed), statistics.median(worked))


def tell(name: str, spans: list[Span]) -> None:
    middle, worst = median(spans), max(spans, key=lambda each: each.passed)
    figures = (middle.passed, middle.worked, worst.passed, worst.worked)
    d.figure(f"{name:<48}", "".join(f"{figure:10.1f}" for figure in figures))


def head(what: str) -> None:
    d.figure(what, "")
    d.figure(f"{'milliseconds':<48}", f"{'median':>10}{'worked':>10}{'worst':>10}{'worked':>10}")


# -- The append ----------------------------------------------------------------------------------


def a_large_model_arrives_without_a_freeze() -> d.Step:
    glb = Path(d.OUT, "large.glb")
    glb.write_bytes(_large())
    fal, _ = t.stand_ins(glb.read_bytes())
    fal.script.queued, fal.script.running = 1, 1
    ticks = t.Ticks()
    arrivals, append = t.module("ui.arrivals"), t.module("scene.append")
    ours, undo = watched(arrivals, "place"), watched(arrivals, "push_undo")
    ready = watched(t.module("scene.memory"), "make_ready")
    read, whole = watched(append, "_load"), watched(append, "append")
    stock, stock_undo = list[Span](), list[Span]()
    yield from t.open_tab()
    yield from t.put_images(t.ROBOT)
    yield from t.choose("fal-ai/trellis-2")
    yield from t.press_generate()
    for number in range(TIMES):
        if number:
            with d.override():
                bpy.ops.trellis.import_result()
        yield from t.arrived(1)
        assert len(t.models()[0].data.vertices) > VERTICES * 0.9
        yield from t.undo(0)
        with d.override("WINDOW"):
            with measured(stock):
                bpy.ops.import_scene.gltf(filepath=str(glb))
            with measured(stock_undo):
                bpy.ops.ed.undo_push(message="Import")
        yield 1.0
        yield from d.hover_viewport()
        yield from d.press("ctrl+z", after=2.0)
    d.shot("1-end")
    glb.unlink()
    head(f"{VERTICES:,} vertices, 3 textures of {TEXTURE}, taking turns {TIMES} times")
    both = [one + step for one, step in zip(stock, stock_undo, strict=True)]
    for name, spans in {
        "stock importer, with undo step": both,
        "  of it the undo step": stock_undo,
        "append, with undo step": ours,
        "  reading the .blend": read,
        "  linking, placing, selecting": _less(whole, read),
        "  what else placing takes": _less(ours, whole, undo),
        "  the undo step": undo,
        "memory made ready before, by another thread": ready,
    }.items():
        tell(name, spans)
    theirs, own = median(both), median(ours)
    d.figure(
        "ratio",
        f"1/{theirs.passed / own.passed:.0f} by the clock, 1/{theirs.worked / own.worked:.0f} by what was worked",
    )
    ticks.tell()


def _less(spans: list[Span], *parts: list[Span]) -> list[Span]:
    left = spans
    for part in parts:
        left = [one - other for one, other in zip(left, part, strict=True)]
    return left


def _large() -> bytes:
    """A rough sphere with textures of noise, which no encoder makes small."""
    from scene import glbs

    rings = int((VERTICES / 2) ** 0.5)
    shape = glbs.sphere(rings, 2 * rings)
    roles = ("baseColor", "metallicRoughness", "normal")
    pictures = {role: glbs.picture(number, TEXTURE) for number, role in enumerate(roles)}
    path = Path(d.OUT, "sphere.glb")
    glbs.write(path, [shape], glbs.Material(pictures))
    made = path.read_bytes()
    path.unlink()
    return made


# -- The panels ----------------------------------------------------------------------------------


def the_panels_are_drawn_at_once() -> d.Step:
    crowd.fill(t.module("ui.preferences").config().home, t.ROOT)
    pump = t.module("ui.pump").get()
    pump.history.look_up()
    yield from d.until(lambda: pump.board.page.total >= crowd.RESULTS, "the results")
    crowd.occupy(pump.board)
    yield from t.open_tab()
    yield 5.0
    d.shot("2-panels")
    draws, calls = list[Span](), list[Span]()

    def end() -> None:
        """After a redraw of the sidebar."""
        if calls:
            draws.append(sum(calls, Span(0, 0)))
            calls.clear()

    def watch(panel: Any) -> None:
        work = panel.draw

        def draw(this: Any, context: Any) -> None:  # Blender looks how many arguments it takes
            with measured(calls):
                work(this, context)

        panel.draw = draw

    for name in [each for each in dir(bpy.types) if each.startswith("TRELLIS_PT_")]:
        watch(getattr(bpy.types, name))
    handler = bpy.types.SpaceView3D.draw_handler_add(end, (), "UI", "POST_PIXEL")
    head(f"{crowd.DRAWN_JOBS} jobs and {crowd.RESULTS:,} results, all panels of the tab")
    for what in ("logs closed", "all logs open"):
        while len(draws) < REDRAWS:
            d.region().tag_redraw()
            yield 0.02
        tell(f"{what}, {len(draws)} redraws", draws)
        crowd.open_logs(pump.board)
        draws.clear()
    bpy.types.SpaceView3D.draw_handler_remove(handler, "UI")


LIVES = [[a_large_model_arrives_without_a_freeze], [the_panels_are_drawn_at_once]]

# SPDX-License-Identifier: GPL-3.0-or-later
"""How long the interface stands still, in the window: Blender's own importer against the append of the same model, and the
pump's ticks. `build.py window --bench` prints the figures, none of which is a failure."""

import statistics
import time
from pathlib import Path

import bpy

from window import driver as d
from window import trellis as t

TIMES = 3
VERTICES, TEXTURE = 500_000, 2048


def a_large_model_arrives_without_a_freeze() -> d.Step:
    glb = Path(d.OUT, "large.glb")
    glb.write_bytes(_large())
    fal, _ = t.stand_ins(glb.read_bytes())
    fal.script.queued, fal.script.running = 1, 1
    ticks = t.Ticks()
    yield from t.open_tab()
    yield from t.put_images(t.ROBOT)
    yield from t.choose("fal-ai/trellis-2")
    yield from t.press_generate()
    yield from t.arrived(1)
    (model,) = t.models()
    assert len(model.data.vertices) > VERTICES * 0.9
    for _ in range(TIMES - 1):
        yield from t.undo(0)
        with d.override():
            bpy.ops.trellis.import_result()
        yield from t.arrived(1)
    yield from t.undo(0)
    stock, undo = [], []
    for _ in range(TIMES):
        with d.override("WINDOW"):
            start = time.perf_counter()
            bpy.ops.import_scene.gltf(filepath=str(glb))
            stock.append((time.perf_counter() - start) * 1000)
            start = time.perf_counter()
            bpy.ops.ed.undo_push(message="Import")
            undo.append((time.perf_counter() - start) * 1000)
        yield 1.0
        yield from d.hover_viewport()
        yield from d.press("ctrl+z", after=2.0)
    d.shot("1-end")
    ticks.tell()
    alone = [all_of_it - step for all_of_it, step in zip(ticks.appending, ticks.undo, strict=True)]
    _compare("", stock, alone)
    both = [time_taken + step for time_taken, step in zip(stock, undo, strict=True)]
    _compare(", with undo", both, ticks.appending)
    glb.unlink()


def _compare(how: str, stock: list[float], ours: list[float]) -> None:
    freeze, stood = statistics.median(stock), statistics.median(ours)
    d.figure(
        f"{VERTICES:,} vertices, textures of {TEXTURE}, median of {TIMES}{how}",
        f"stock importer {freeze:.0f} ms, append {stood:.0f} ms: 1/{freeze / stood:.0f}",
    )


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


LIVES = [[a_large_model_arrives_without_a_freeze]]

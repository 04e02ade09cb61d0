# SPDX-License-Identifier: GPL-3.0-or-later
"""How long an import holds the interface: Blender's own importer against the append of a prepared .blend.

`python tests/bench/bench_import.py`, in any Python with bpy. Every figure is the median of fresh processes, which take
turns so that a busy machine disturbs all alike.
"""

from __future__ import annotations

import json
import logging
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from report import Ratio, Report, Table, finish, seconds

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "scene")]

RUNS = 7  # a machine with two cores disturbs single runs by a third
LIMIT = 1 / 15
METHODS = ("stock", "stock+undo", "append", "append+undo")


@dataclass(frozen=True)
class Case:
    """A sphere grid of about `vertices` vertices with three textures of `texture` pixels a side."""

    name: str
    vertices: int
    texture: int


CASES = (
    Case("500,000 vertices, textures of 2048", 500_000, 2048),
    Case("1,000,000 vertices, textures of 4096", 1_000_000, 4096),
)


@dataclass(frozen=True)
class Row:
    """Seconds, each the median of RUNS processes; `prepare` is spent in the second Blender."""

    case: str
    stock: float
    stock_undo: float
    append: float
    append_undo: float
    prepare: float

    @property
    def times(self) -> tuple[float, ...]:
        return self.stock, self.stock_undo, self.append, self.append_undo, self.prepare

    @property
    def ratio(self) -> float:
        """Of what a user waits for, who gets an undo step with either."""
        return self.append_undo / self.stock_undo


def make(case: Case, folder: Path) -> Path:
    """A rough sphere with noise textures, which no encoder makes small."""
    import glbs
    import numpy as np

    rings = int((case.vertices / 2) ** 0.5)
    shape = glbs.sphere(rings, 2 * rings)
    x, y, z = shape.positions.T * 20
    bumps = 1 + 0.005 * np.sin(x) * np.sin(y) * np.sin(z)
    shape.positions = (shape.positions * bumps[:, None]).astype(np.float32)
    roles = ("baseColor", "metallicRoughness", "normal")
    pictures = {role: glbs.picture(i, case.texture) for i, role in enumerate(roles)}
    return glbs.write(folder / f"{case.name}.glb", [shape], glbs.Material(pictures))


def freeze(method: str, path: Path) -> float:
    """Seconds that `method` holds the main thread of this process."""
    import bpy

    from blender_trellis.scene.append import append

    bpy.ops.wm.read_factory_settings(use_empty=True)
    bpy.ops.ed.undo_push(message="Before")
    start = time.perf_counter()
    if method.startswith("stock"):
        bpy.ops.import_scene.gltf(filepath=str(path))
    else:
        append(path, scene=bpy.context.scene)
    if method.endswith("undo"):
        bpy.ops.ed.undo_push(message="Import")
    return time.perf_counter() - start


def _fresh(method: str, path: Path) -> float:
    command = [sys.executable, __file__, method, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(json.loads(done.stdout.strip().splitlines()[-1]))


def measure(case: Case, folder: Path) -> Row:
    from blender_trellis.scene.importer import write_blend
    from blender_trellis.scene.recipe import Recipe

    glb = make(case, folder)
    blend = folder / f"{case.name}.blend"
    start = time.perf_counter()
    write_blend(glb, Recipe("local/draft"), blend, name=case.name)
    prepare = time.perf_counter() - start
    times: dict[str, list[float]] = {method: [] for method in METHODS}
    for _ in range(RUNS):
        for method in METHODS:
            times[method].append(_fresh(method, glb if "stock" in method else blend))
    return Row(case.name, *(statistics.median(times[method]) for method in METHODS), prepare)


def run() -> list[Row]:
    with tempfile.TemporaryDirectory(prefix="trellis-bench-") as folder:
        return [measure(case, Path(folder)) for case in CASES]


def main() -> int:
    if len(sys.argv) == 3:
        sys.stdout.write("\n" + json.dumps(freeze(sys.argv[1], Path(sys.argv[2]))) + "\n")
        return 0
    rows = run()
    heads = ("model", "stock importer", "with undo", "append", "with undo", "prepared before in")
    table = Table(
        f"Import: how long the interface stands still, median of {RUNS}",
        heads,
        [[row.case, *map(seconds, row.times)] for row in rows],
        [
            "A model is prepared by a second Blender, which holds nobody up; then it is appended.",
            f"Limit, undo on both sides: a {1 / LIMIT:.0f}th of the stock importer's time.",
        ],
    )
    ratios = [
        Ratio(f"Import of {row.case}", row.append_undo, "Blender's own importer", row.stock_undo)
        for row in rows
    ]
    broken = [f"the import of {row.case}" for row in rows if row.ratio > LIMIT]
    return finish(Report([table], ratios, broken))


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING)
    sys.exit(main())

# SPDX-License-Identifier: GPL-3.0-or-later
"""How long the pump holds the main thread at each tick, with eight jobs on their way.

`python tests/bench/bench_pump.py`, in any Python with bpy. The jobs are real: a sidecar, the Draft engine, a second Blender
for each import. The timer's function is called directly, as often as Blender would. Listed apart: ticks that append a model,
which is the import's own time (see bench_import.py), and ticks in the middle of which the system gave the processor to
another process, where it tells; a tick that waits by itself, for a lock or a disk, is not among those. Exits with 1 when a
limit is passed.
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))
JOBS = 8
MEDIAN, WORST = 0.2, 4.0  # ms


def interruptions() -> int:
    """How often the system took the processor from this thread; 0 where it does not tell."""
    if resource is None:
        return 0
    return int(resource.getrusage(resource.RUSAGE_THREAD).ru_nivcsw)


def measure() -> dict[str, list[float]]:
    """Milliseconds of every tick by kind, from the first request to the last model."""
    import bpy

    import blender_trellis
    from blender_trellis.ui import arrivals, operators, pump

    appended: list[float] = []
    place = arrivals.place

    def timed(*arguments: object) -> None:
        start = time.perf_counter()
        place(*arguments)  # type: ignore[arg-type]
        appended.append((time.perf_counter() - start) * 1000)

    arrivals.place = timed
    operators.waits = lambda: False
    bpy.ops.wm.read_factory_settings(use_empty=True)
    blender_trellis.register()
    ticks: dict[str, list[float]] = {"undisturbed": [], "interrupted": [], "with an append": []}
    for number in range(JOBS):
        bpy.context.scene.trellis.seed = number
        bpy.ops.trellis.generate(filepath=str(ROOT / "docs" / "images" / "robot.png"))
    while pump.get().at_work:
        before, interrupted = len(appended), interruptions()
        start = time.perf_counter()
        pump.tick()
        took = (time.perf_counter() - start) * 1000
        kind = "undisturbed" if interruptions() == interrupted else "interrupted"
        ticks[kind if len(appended) == before else "with an append"].append(took)
        time.sleep(pump.INTERVAL)
    failed = [view.error for view in pump.get().board.views.values() if view.error]
    assert not failed and len(appended) == JOBS, failed
    blender_trellis.unregister()
    return ticks


def line(name: str, times: list[float]) -> str:
    ordered = sorted(times)
    p99 = ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))]
    middle = statistics.median(ordered)
    return f"{name:<24}{len(ordered):>7}{middle:>11.3f}{p99:>11.3f}{ordered[-1]:>11.3f}"


def main() -> int:
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        os.environ["TRELLIS_HOME"] = folder
        ticks = measure()
        from blender_trellis.services import sidecar

        sidecar.stop(Path(folder))
    print(f"{JOBS} jobs, local/draft, ms of the main thread")
    print(f"{'ticks':<24}{'count':>7}{'median':>11}{'p99':>11}{'worst':>11}")
    for kind, times in ticks.items():
        if times:
            print(line(kind, times))
    plain = ticks["undisturbed"]
    good = statistics.median(plain) <= MEDIAN and max(plain) <= WORST
    print(
        f"limits of undisturbed ones: median {MEDIAN} ms, worst {WORST} ms: {'kept' if good else 'PASSED'}"
    )
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())

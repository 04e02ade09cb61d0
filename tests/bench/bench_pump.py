# SPDX-License-Identifier: GPL-3.0-or-later
"""How long the pump holds the main thread at each tick, with eight jobs on their way, and how long the panels take to draw.

`python tests/bench/bench_pump.py`, in any Python with bpy. The jobs are real: a sidecar, the Draft engine, a second Blender
for each import. The timer's function is called directly, as often as Blender would. Listed apart: ticks that append a model,
which is the import's own time (see bench_import.py), and ticks in the middle of which the system gave the processor to
another process, where it tells; a tick that waits by itself, for a lock or a disk, is not among those. Exits with 1 when a
limit is passed.

The draw is that of both panels with 20 jobs at work, their logs closed or open, and a page of 1,000 results in a real journal.
Without a window there is no real layout: the tests' stand-in takes the calls, which are as many, and dearer in Python than in C.
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

from crowd import DRAWN_JOBS, RESULTS, fill, occupy, open_logs
from report import Report, Table, finish, seconds

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

JOBS = 8
MEDIAN, WORST = 0.2, 4.0  # ms
DRAWS = 300
DRAW_MEDIAN = 2.0  # ms


def interruptions() -> int:
    """How often the system took the processor from this thread; 0 where it does not tell."""
    if resource is None:
        return 0
    return int(resource.getrusage(resource.RUSAGE_THREAD).ru_nivcsw)


def measure() -> dict[str, list[float]]:
    """Milliseconds of every tick by kind, from the first request to the last model."""
    import bpy

    import blender_trellis
    from blender_trellis.ui import arrivals, pump, screen

    appended: list[float] = []
    place = arrivals.place

    def timed(*arguments: object) -> None:
        start = time.perf_counter()
        place(*arguments)  # type: ignore[arg-type]
        appended.append((time.perf_counter() - start) * 1000)

    arrivals.place = timed
    screen.waits = lambda: False
    bpy.ops.wm.read_factory_settings(use_empty=True)
    blender_trellis.register()
    ticks: dict[str, list[float]] = {"undisturbed": [], "interrupted": [], "with an append": []}
    for number in range(JOBS):
        bpy.context.scene.trellis.seed = number
        bpy.ops.trellis.generate(filepath=str(ROOT / "docs" / "images" / "robot.png"))
    while pump.get().board.at_work:
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


def measure_draw() -> dict[str, list[float]]:
    """Milliseconds of each draw of both panels, and of the tick that takes another page over."""
    import bpy

    import blender_trellis
    from blender_trellis.ui import jobs, panels_jobs, pump
    from ui.layouts import draw

    blender_trellis.register()
    board = pump.get().board
    pump.get().history.look_up()
    while pump.get().clerk.busy or board.page.total != RESULTS:
        pump.tick()
    occupy(board)
    times: dict[str, list[float]] = {"logs closed": [], "all logs open": [], "pages turned": []}
    for number in range(2 * DRAWS):
        if number == DRAWS:
            open_logs(board)
        kind = "logs closed" if number < DRAWS else "all logs open"
        start = time.perf_counter()
        for panel in (panels_jobs.TRELLIS_PT_jobs, panels_jobs.TRELLIS_PT_results):
            assert panel.poll(bpy.context)
            draw(panel)
        times[kind].append((time.perf_counter() - start) * 1000)
        if number % 10 == 0:
            pump.get().history.look_up(offset=number * jobs.PAGE % RESULTS)
            while pump.get().clerk.busy:
                start = time.perf_counter()
                pump.get().step()
                times["pages turned"].append((time.perf_counter() - start) * 1000)
    board.views.clear()
    blender_trellis.unregister()
    return times


HEADS = ("", "count", "median", "99 %", "worst")


def row(name: str, times: list[float]) -> list[str]:
    ordered = sorted(time / 1000 for time in times)
    p99 = ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))]
    measured = (statistics.median(ordered), p99, ordered[-1])
    return [name, str(len(ordered)), *map(seconds, measured)]


def main() -> int:
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        os.environ["TRELLIS_HOME"] = folder
        ticks = measure()
        from blender_trellis.services import sidecar

        sidecar.stop(Path(folder))
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        os.environ["TRELLIS_HOME"] = folder
        fill(Path(folder))
        drawn = measure_draw()
    working = Table(
        f"Ticks while {JOBS} jobs are at work: how long each holds the main thread",
        HEADS,
        [row(kind, times) for kind, times in ticks.items() if times],
        [f"Limits of undisturbed ones: median {MEDIAN} ms, worst {WORST} ms."],
    )
    drawing = Table(
        f"Draws of both panels with {DRAWN_JOBS} jobs at work and {RESULTS} results",
        HEADS,
        [row(kind, times) for kind, times in drawn.items()],
        [f"Limit of a draw with closed logs: median {DRAW_MEDIAN} ms."],
    )
    plain, draws = ticks["undisturbed"], drawn["logs closed"]
    limits = {
        "the median of a tick": statistics.median(plain) <= MEDIAN,
        "the worst tick": max(plain) <= WORST,
        "the median of a draw": statistics.median(draws) <= DRAW_MEDIAN,
    }
    broken = [name for name, kept in limits.items() if not kept]
    return finish(Report([working, drawing], broken=broken))


if __name__ == "__main__":
    sys.exit(main())

# SPDX-License-Identifier: GPL-3.0-or-later
"""Draft jobs in a row through one sidecar: does anything grow? `build.py haul` runs this.

Twice, each time in a process of its own: through generation's runner alone, and through Blender, where each model comes in by the
pump, the panels are drawn, pictures are made for the history, and models are removed again as a user would. Every picture is
another one. Five jobs are asked for at once; when they are done it is noted what everybody holds. Memory must be flat within 5 %:
the median of the last fifth of the notes against that of the second (the first one warms up). Of open files and
temporary files there may be none more, of threads and connections not more than jobs were at work.

Exits with 1 where something grew, with 2 where the system does not tell.
"""

from __future__ import annotations

import argparse
import colorsys
import json
import math
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parents[2]))

from PIL import Image, ImageDraw

from blender_trellis.services import sidecar
from haul.usage import PROC, Usage, children, files, given_back, peak

TOLERANCE = 1.05
AT_ONCE = 5  # jobs that are asked for before the first is done
SHOWN = 10  # columns of the table
STANDING = 3  # models that are left in the scene
# Every so many jobs a user looks at the results, so that the models on the page get pictures
HISTORY = 25
FAST = {"resolution": 512, "texture_size": 512}
COUNTED = ("handles", "connections", "threads")
Sample = dict[str, float]


def picture(folder: Path, number: int) -> Path:
    """A subject that no other job has: blobs of its own size and colours."""
    chance = random.Random(number)
    image = Image.new("RGBA", (384, 384))
    draw = ImageDraw.Draw(image)
    for _ in range(4):
        x, y, r = chance.randrange(130, 250), chance.randrange(130, 250), chance.randrange(40, 110)
        red, green, blue = colorsys.hsv_to_rgb(chance.random(), 0.7, 0.9)
        fill = (int(255 * red), int(255 * green), int(255 * blue), 255)
        draw.ellipse((x - r, y - r, x + r, y + r), fill=fill)
    path = folder / f"subject {number}.png"
    image.save(path)
    return path


# -- What is held --------------------------------------------------------------------------------


class Watch:
    """Notes after each job what this process, the sidecar and its worker hold, and what lies in the folders."""

    def __init__(self, home: Path, temporary: Path, name: str) -> None:
        self._home, self._temporary, self._name = home, temporary, name
        self.samples: list[Sample] = []

    def note(self, **more: float) -> None:
        """After a job, when nothing is on the way."""
        pid = json.loads((self._home / "sidecar" / "address.json").read_text("utf-8"))["pid"]
        worker = children(pid)
        assert len(worker) == 1, f"the sidecar has {len(worker)} workers"
        sample: Sample = {}
        for name, each in ((self._name, os.getpid()), ("sidecar", pid), ("worker", worker[0])):
            held = Usage.of(each)
            sample[f"{name} MiB"] = held.memory
            sample |= {f"{name} {what}": getattr(held, what) for what in COUNTED}
        sample |= more
        sample["temporary files"] = files(self._temporary)[0]
        sample["sidecar's temporary files"] = files(self._home / "sidecar" / "jobs")[0]
        journal = self._home.glob("journal.sqlite3*")
        sample["journal KiB"] = sum(path.stat().st_size for path in journal) / 1024
        sample["results KiB"] = files(self._home / "results")[1] / 1024
        sample["inputs KiB"] = files(self._home / "inputs")[1] / 1024
        self.samples.append(sample)


def medians(samples: list[Sample], name: str) -> tuple[float, float]:
    """Of the second fifth of the notes, and of the last."""
    fifth = len(samples) // 5
    early, late = samples[fifth : 2 * fifth], samples[-fifth:]
    return statistics.median(each[name] for each in early), statistics.median(
        each[name] for each in late
    )


def judge(samples: list[Sample]) -> list[str]:
    """What grew, in words."""
    grew = []
    for name in samples[0]:
        before, after = medians(samples, name)
        if after > allowed(name, before):
            grew.append(f"{name}: {before:.1f}, in the end {after:.1f}")
    return grew


def allowed(name: str, before: float) -> float:
    """How much there may be in the end of what there was before."""
    if "MiB" in name:
        return TOLERANCE * before
    # Idle connections are closed after a while, and pools of threads fill up as jobs happen to coincide
    if "connections" in name or "threads" in name:
        return before + AT_ONCE
    return math.inf if "KiB" in name else before  # what is kept of each job


def table(samples: list[Sample]) -> Iterator[str]:
    """The samples over time, and how the last fifth stands to the second."""
    count = len(samples)
    rows = [round((count - 1) * part / (SHOWN - 1)) for part in range(SHOWN)]
    heads = "".join(f"{(row + 1) * AT_ONCE:>9}" for row in rows)
    yield f"{'after job':<28}{heads}{'change':>9}"
    for name in samples[0]:
        cells = "".join(f"{samples[row][name]:>9.{1 if 'MiB' in name else 0}f}" for row in rows)
        before, after = medians(samples, name)
        change = f"{after / before - 1:+.1%}" if before else f"{after - before:+.0f}"
        yield f"{name:<28}{cells}{change:>9}"


# -- The two ways --------------------------------------------------------------------------------


def through_the_runner(jobs: int, home: Path, pictures: Path, watch: Watch) -> None:
    """No Blender: requests to the runner, one after the other."""
    from blender_trellis.config import Config
    from blender_trellis.generation.request import Request
    from blender_trellis.generation.runner import Runner

    runner = Runner(Config.load())
    for first in range(0, jobs, AT_ONCE):
        paths = [picture(pictures, first + each) for each in range(AT_ONCE)]
        requests = (Request("local/draft", [path], FAST) for path in paths)
        for job_id in [runner.submit(request) for request in requests]:
            runner.wait(job_id)
        for path in paths:
            path.unlink()
        watch.note()
        tell(first, jobs, watch.samples[-1])
    runner.close()


def through_blender(jobs: int, home: Path, pictures: Path, watch: Watch) -> None:
    """The extension in Blender, whose timer and panels are called as a window would."""
    import bpy

    import blender_trellis
    from blender_trellis.ui import pump, screen

    screen.waits = lambda: False
    bpy.ops.wm.read_factory_settings(use_empty=True)
    blender_trellis.register()
    settings = bpy.context.scene.trellis
    settings.local_draft.resolution = settings.local_draft.texture_size = "512"
    for first in range(0, jobs, AT_ONCE):
        paths = [picture(pictures, first + each) for each in range(AT_ONCE)]
        for path in paths:
            bpy.ops.trellis.add_images("EXEC_DEFAULT", True, filepath=str(path), replace=True)
            draw_panels(history=False)
            bpy.ops.trellis.generate("EXEC_DEFAULT", True)
        imports = until_they_stand(pump, history=first % HISTORY == 0)
        failed = [view.error for view in pump.get().board.views.values() if view.error]
        assert not failed, failed
        for path in paths:
            path.unlink()
        tidy_up()
        watch.note(**{"import worker, peak MiB": imports})
        tell(first, jobs, watch.samples[-1])
    print(f"Freed memory that Blender's allocator had kept: {given_back():.1f} MiB", flush=True)
    blender_trellis.unregister()


def until_they_stand(pump: Any, *, history: bool) -> float:
    """Call the timer's function until nothing is on the way; the most that a second Blender was resident with, in MiB."""
    most, ticks = 0.0, 0
    started = time.monotonic()
    while True:
        going_on = pump.tick() is not None
        ticks += 1
        if ticks % 5 == 0 or not going_on:
            draw_panels(history=history)
            own = [pid for pid in children(os.getpid()) if b"worker_main" in command(pid)]
            most = max([most, *map(peak, own)])
            going_on = going_on or pump.tick() is not None  # a draw may have asked for something
        if not going_on:
            return most
        assert time.monotonic() - started < 600, "five jobs take more than ten minutes"
        time.sleep(pump.INTERVAL)


def command(pid: int) -> bytes:
    try:
        return (PROC / str(pid) / "cmdline").read_bytes()
    except OSError:
        return b""


def draw_panels(*, history: bool) -> None:
    """What a window shows: the pictures, the jobs, the results if they are open. Blender reads the pictures that it draws."""
    import bpy

    from blender_trellis.ui import panels, panels_jobs, pump
    from ui.layouts import draw

    draw(panels.TRELLIS_PT_generate)
    for panel in (panels_jobs.TRELLIS_PT_jobs, panels_jobs.TRELLIS_PT_results)[: 1 + history]:
        if panel.poll(bpy.context):
            draw(panel)
    for icon in (pump.get().previews._loaded or {}).values():
        tuple(icon.image_size)


def tidy_up() -> None:
    """Delete the older models, and what nothing uses any more, as a user does now and then; each an undo step."""
    import bpy

    from blender_trellis.scene.recipe import read

    models = [obj for obj in bpy.context.scene.objects if read(obj)]
    assert len(models) <= STANDING + AT_ONCE, f"{len(models)} models stand in the scene"
    for model in models[:-STANDING]:
        (collection,) = model.users_collection
        bpy.ops.object.select_all(action="DESELECT")
        for obj in collection.objects:
            obj.select_set(True)
        bpy.ops.object.delete("EXEC_DEFAULT", True)
        bpy.data.collections.remove(collection)
    bpy.ops.outliner.orphans_purge("EXEC_DEFAULT", True, do_recursive=True)


def tell(first: int, jobs: int, sample: Sample) -> None:
    """How far it is, and who holds how much."""
    held = ", ".join(f"{name} {value:.1f}" for name, value in sample.items() if "MiB" in name)
    print(f"{time.strftime('%H:%M:%S')} {first + AT_ONCE} of {jobs} jobs: {held}", flush=True)


# -- The whole -----------------------------------------------------------------------------------

WAYS: dict[str, Callable[[int, Path, Path, Watch], None]] = {
    "runner": through_the_runner,
    "blender": through_blender,
}


def one(way: str, jobs: int) -> list[Sample]:
    """In this process: all jobs, in a home folder and a folder for temporary files of their own."""
    with tempfile.TemporaryDirectory(prefix="trellis-haul-", ignore_cleanup_errors=True) as folder:
        home, temporary, pictures = (Path(folder) / name for name in ("home", "tmp", "pictures"))
        for each in (home, temporary, pictures):
            each.mkdir()
        os.environ |= {"TRELLIS_HOME": str(home), "TMPDIR": str(temporary)}
        tempfile.tempdir = str(temporary)
        watch = Watch(home, temporary, way)
        sidecar.ensure(home)
        try:
            WAYS[way](jobs, home, pictures, watch)
        finally:
            sidecar.stop(home)
            tempfile.tempdir = None
    return watch.samples


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("--jobs", type=int, default=500, help="how many, each way (default: 500)")
    parser.add_argument("--through", choices=[*WAYS], help="only this way, in this process")
    options = parser.parse_args()
    if not (PROC / "self" / "smaps_rollup").exists():
        print("What processes hold is read from /proc, which this system does not have.")
        return 2
    if options.jobs < 5 * AT_ONCE or options.jobs % AT_ONCE:
        parser.error(f"give a multiple of {AT_ONCE}, from {5 * AT_ONCE} on")
    if options.through is None:
        command = [sys.executable, __file__, "--jobs", str(options.jobs), "--through"]
        return max(subprocess.call([*command, way]) for way in WAYS)
    started = time.monotonic()
    samples = one(options.through, options.jobs)
    minutes = (time.monotonic() - started) / 60
    print(f"\n{options.jobs} Draft jobs through {options.through}, {minutes:.0f} minutes")
    print("\n".join(table(samples)))
    grew = judge(samples)
    print("\n".join(["Grew:", *grew] if grew else ["Flat."]))
    return 1 if grew else 0


if __name__ == "__main__":
    sys.exit(main())

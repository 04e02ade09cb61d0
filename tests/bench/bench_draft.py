# SPDX-License-Identifier: GPL-3.0-or-later
"""Draft: image to GLB, warm, with its peak memory; and what the sidecar adds to it a job."""

from __future__ import annotations

import io
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from PIL import Image
from report import Report, Table, finish, seconds

from blender_trellis.config import Config
from blender_trellis.generation.request import Request
from blender_trellis.generation.runner import Runner
from blender_trellis.services import sidecar

IMAGE = Path(__file__).parents[2] / "docs" / "images" / "robot.png"
RUNS = 5
JOBS = 15


def engine(resolution: int, texture_size: int, target: int) -> dict[str, float]:
    """In this process: median seconds, and the peak of resident memory above that before the first run, in MiB."""
    import resource

    from blender_trellis.generation import images
    from blender_trellis.sidecar.engines.draft import DraftEngine
    from blender_trellis.sidecar.engines.stages import Progress

    request = {
        "resolution": resolution,
        "texture_size": texture_size,
        "decimation_target": target,
        "seed": 1,
    }
    data = images.read(IMAGE, 4096).data
    draft = DraftEngine()

    def once() -> int:
        picture = Image.open(io.BytesIO(data))
        return len(
            draft.run(
                request,
                [picture],
                Progress(draft.plan(request, 1), lambda report: None, lambda: False),
            )
        )

    def peak() -> float:
        used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return used / (2**20 if sys.platform == "darwin" else 2**10)

    before = peak()
    size = once()
    seconds = []
    for _ in range(RUNS):
        start = time.perf_counter()
        once()
        seconds.append(time.perf_counter() - start)
    return {
        "seconds": statistics.median(seconds),
        "peak": peak(),
        "added": peak() - before,
        "bytes": size,
    }


def overhead() -> tuple[float, float, float]:
    """Median seconds from submit to kept result, of these in the engine, and the difference, over real jobs."""
    rows = []
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        home = Path(folder)
        url, token = sidecar.ensure(home)
        runner = Runner(Config(home=home, sidecar_url=url, sidecar_token=token))
        try:
            for number in range(JOBS + 2):
                start = time.perf_counter()
                runner.wait(runner.submit(Request("local/draft", [IMAGE], {"seed": number})))
                rows.append(time.perf_counter() - start)
            log = (home / "sidecar" / "log.txt").read_text("utf-8")
        finally:
            runner.close()
            sidecar.stop(home)
    inside = [
        float(line.rsplit(" in ", 1)[1].split()[0])
        for line in log.splitlines()
        if ": done in " in line
    ]
    pairs = list(zip(rows, inside, strict=True))[2:]  # the first ones pay for imports
    return (
        statistics.median(total for total, _ in pairs),
        statistics.median(engine for _, engine in pairs),
        statistics.median(total - engine for total, engine in pairs),
    )


def main() -> int:
    rows = []
    for case in ((512, 512, 8_000), (1024, 1024, 20_000), (1536, 2048, 200_000)):
        done = subprocess.run(
            [sys.executable, __file__, *map(str, case)], capture_output=True, text=True, check=True
        )
        told = json.loads(done.stdout)
        memory = (f"{told['peak']:.0f} MiB", f"{told['added']:.0f} MiB")
        size = f"{told['bytes'] / 1e6:.1f} MB"
        rows.append([*map(str, case), seconds(told["seconds"]), *memory, size])
    heads = ("resolution", "texture", "faces aimed at", "time", "most memory", "of it added", "GLB")
    alone = Table(
        f"Draft: picture to GLB in one process, warm, median of {RUNS}",
        heads,
        rows,
        ["Aim at 1024: 1.5 s on two cores."],
    )
    total, inside, added = (seconds(value) for value in overhead())
    whole = Table(
        f"Draft in the local process at 1024, median of {JOBS} jobs",
        ("", "time"),
        [
            ["from the request to the kept model", total],
            ["of that in the engine", inside],
            ["all else", added],
        ],
        ["All else is reading the picture, HTTP, disk, checks and the journal."],
    )
    return finish(Report([alone, whole]))


if __name__ == "__main__":
    if len(sys.argv) == 4:
        sys.stdout.write(json.dumps(engine(*map(int, sys.argv[1:]))))
    else:
        sys.exit(main())

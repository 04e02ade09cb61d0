# SPDX-License-Identifier: GPL-3.0-or-later
"""A batch of 300 that is killed -9 at ten random moments, some while it starts and near its end, and resumed each time, and a
batch of 2,000 that is left alone.

`build.py batch` starts this; --rows is for smaller ones, --seed for the moments of an earlier run. The jobs are those of the
stand-in of fal, which counts them. Of the second batch it is told how long each fifth of the rows took, and how much memory the
process had at its end (Linux). Exits with 1 where a row was lost or made twice, or where memory grew with the rows.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path
from random import SystemRandom

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]
ROWS, KILLS, EARLY, LATE = 300, 6, 2, 2
MANY, AT_ONCE = 2000, "32"
FAL = ("--endpoint", "fal-ai/trellis-2")
GROWTH = 16.0  # MiB from the second fifth to the fourth


def main() -> int:
    from cli import batches
    from scene import glbs
    from services import fal_standin

    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("--rows", type=int, default=ROWS)
    parser.add_argument("--seed", type=int, default=SystemRandom().randrange(2**31))
    arguments = parser.parse_args()
    rows, seed = arguments.rows, arguments.seed
    print(f"--seed {seed}", flush=True)
    with tempfile.TemporaryDirectory() as scratch, fal_standin.FalStandIn() as fal:
        place = Path(scratch)
        fal.glb = glbs.write(place / "box.glb", [glbs.box((1, 2, 1))]).read_bytes()
        fal.script.queued = fal.script.running = 0
        os.environ |= {
            "TRELLIS_FAL_QUEUE_URL": fal.url("queue"),
            "TRELLIS_FAL_REST_URL": fal.url("rest"),
            "TRELLIS_FAL_API_URL": f"{fal.url('api')}/v1",
            "FAL_KEY": fal_standin.KEY,
            "TRELLIS_HOME": str(place / "home"),
            "TRELLIS_JOBS_AT_ONCE": AT_ONCE,
        }
        batches.make_pictures(place / "few", rows)
        command = (
            "generate",
            place / "few",
            *FAL,
            "--output",
            place / "few-out",
            "--yes",
            "--json",
        )
        began = time.monotonic()
        doubtful = batches.kill_and_resume(
            fal, command, place / "few-out", KILLS, seed=seed, early=EARLY, late=LATE
        )
        batches.assert_each_once(fal, place / "few-out", rows)
        print(
            f"{rows} rows, {KILLS + EARLY + LATE} kills, {time.monotonic() - began:.0f} s: {len(fal.submits)} submits, "
            f"{len(batches.results(place / 'few-out'))} results, of which {len(doubtful)} had to be asked about"
        )
        return 0 if _grows_not(place, rows * MANY // ROWS) else 1


def _grows_not(place: Path, many: int) -> bool:
    """Whether the rows of a batch stay as cheap as they were."""
    from cli import batches

    batches.make_pictures(place / "many", many)
    out = place / "many-out"
    command = ("generate", place / "many", *FAL, "--output", out, "--yes", "--json")
    taken: list[float] = []
    memory: list[float] = []
    last = time.monotonic()
    with batches.start(*command) as process:
        for fifth in range(1, 6):
            while batches.count_results(out) < fifth * many // 5:
                assert process.poll() is None or fifth == 5
                time.sleep(0.1)
            now = time.monotonic()
            taken.append(now - last)
            memory.append(_memory(process.pid))
            last = now
        assert process.wait() == 0
    print(f"{many} rows, seconds of each fifth: {' '.join(f'{each:.1f}' for each in taken)}")
    print(
        f"{'':>{len(str(many))}}       MiB at its end: {' '.join(f'{each:.0f}' for each in memory)}"
    )
    return memory[-2] - memory[1] < GROWTH  # at the very end the process may be gone


def _memory(pid: int) -> float:
    """MiB that a process has now; 0 where the system does not tell."""
    try:
        words = Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()
    except OSError:
        return 0.0
    return int(words[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


if __name__ == "__main__":
    sys.exit(main())

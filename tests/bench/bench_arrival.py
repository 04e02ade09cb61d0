# SPDX-License-Identifier: GPL-3.0-or-later
"""From the moment at which a service is done to the model that stands in the scene: this extension, and a script that waits with
the service's own Python client, fetches the file and imports it.

The services are the tests' stand-ins, in this process; who waits is a fresh Blender for each run. The clients ask as often as
they do by themselves. The job ends some seconds after it was sent, in each run after others, and after the same for everybody:
how long a model waits for the next question is chance, which is why the spread is told.
"""

from __future__ import annotations

import base64
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from report import Ratio, Report, Table, finish, seconds

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

PICTURE = ROOT / "docs" / "images" / "robot.png"
RUNS = 5
# Seconds that the first run's job takes, and how much longer each further one's
HELD, STEP = 12.0, 4.6
PATIENCE = 300.0


# -- Who waits: in a Blender of its own ----------------------------------------------------------


def extension(endpoint: str) -> dict[str, Any]:
    """The extension, its timer called as in a window."""
    import bpy

    import blender_trellis
    from blender_trellis.scene.recipe import read
    from blender_trellis.ui import pump, screen

    screen.waits = lambda: False
    blender_trellis.register()
    bpy.context.scene.trellis.endpoint = endpoint
    bpy.ops.trellis.generate(filepath=str(PICTURE))
    held = []
    while not any(read(obj) for obj in bpy.context.scene.objects):
        start = time.monotonic()
        pump.tick()
        held.append((start, time.monotonic() - start))
        failed = [view.error for view in pump.get().board.views.values() if view.error]
        assert not failed, failed
        time.sleep(pump.INTERVAL)
    visible = sum(held[-1])
    blender_trellis.unregister()
    return {"visible": visible, "held": held}


def official_fal() -> dict[str, Any]:
    """fal's own client, then Blender's own importer."""
    import fal_client.client
    from fal_client import SyncClient

    from services.fal_standin import KEY

    base = os.environ["TRELLIS_FAL_QUEUE_URL"]
    fal_client.client.QUEUE_URL_FORMAT = f"{base}/"  # it has no setting for plain HTTP
    start = time.monotonic()
    answer = SyncClient(key=KEY).subscribe("fal-ai/trellis-2", {"image_url": data_uri()})
    return fetch_and_import(start, answer["model_glb"]["url"])


def official_runware() -> dict[str, Any]:
    """Runware's own SDK, then Blender's own importer."""
    import asyncio

    from runware import Runware

    from services.runware_standin import KEY, MODEL

    async def ask() -> Any:
        url = os.environ["TRELLIS_RUNWARE_URL"]
        async with Runware(api_key=KEY, transport="rest", http_base_url=url) as client:
            task = {"taskType": "3dInference", "model": MODEL, "inputs": {"image": data_uri()}}
            return await client.run(task)

    start = time.monotonic()
    (answer,) = asyncio.run(ask())
    return fetch_and_import(start, answer["outputs"]["files"][0]["url"])


def fetch_and_import(start: float, url: str) -> dict[str, Any]:
    """What both scripts end with; a user gets an undo step here too. `start` is when the main thread began to wait."""
    import bpy
    import httpx

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.glb"
        path.write_bytes(httpx.get(url, trust_env=False).content)
        fetched = time.monotonic()
        bpy.ops.import_scene.gltf(filepath=str(path))
        bpy.ops.ed.undo_push(message="Import")
    visible = time.monotonic()
    return {"visible": visible, "held": [(start, visible - start)], "import": visible - fetched}


def data_uri() -> str:
    return f"data:image/png;base64,{base64.b64encode(PICTURE.read_bytes()).decode()}"


WAYS: dict[str, Callable[[], dict[str, Any]]] = {
    "fal, extension": lambda: extension("fal-ai/trellis-2"),
    "fal, its client": official_fal,
    "Runware, extension": lambda: extension("runware/trellis-2"),
    "Runware, its SDK": official_runware,
}


# -- The services, and the clock -----------------------------------------------------------------


@dataclass
class Run:
    """Seconds from done to visible; how long the main thread stood still in them, in all and at most; the import's part of it."""

    whole: float
    held: float
    longest: float
    importing: float


def once(way: str, standin: Any, jobs: dict[str, Any], env: dict[str, str], held: float) -> Run:
    """One job of `way`, which is done `held` seconds after it was sent."""
    before = set(jobs)
    command = [sys.executable, __file__, way]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=env) as process:
        try:
            deadline = time.monotonic() + PATIENCE
            while not (new := set(jobs) - before):
                assert process.poll() is None and time.monotonic() < deadline, (
                    f"{way} sends nothing"
                )
                time.sleep(0.01)
            time.sleep(held)
            done = time.monotonic()
            standin.finish(new.pop())
            out = process.communicate(timeout=PATIENCE)[0]
        finally:
            process.kill()
    assert process.returncode == 0, f"{way} ended with {process.returncode}"
    told = json.loads(out.rpartition("@")[2])
    spans = [min(length, start + length - done) for start, length in told["held"]]
    spans = [span for span in spans if span > 0]
    return Run(told["visible"] - done, sum(spans), max(spans), told.get("import", 0.0))


def measure(folder: Path) -> dict[str, list[Run]]:
    """All ways in turns, so that a busy machine disturbs all alike."""
    import bench_import

    from services import fal_standin, runware_standin

    glb = bench_import.make(bench_import.CASES[0], folder).read_bytes()
    fal, runware = fal_standin.FalStandIn(), runware_standin.RunwareStandIn()
    fal.glb = runware.glb = glb
    fal.script.held = runware.script.held = True
    given = {
        "TRELLIS_FAL_QUEUE_URL": fal.url("queue"),
        "TRELLIS_FAL_REST_URL": fal.url("rest"),
        "TRELLIS_FAL_API_URL": f"{fal.url('api')}/v1",
        "FAL_KEY": fal_standin.KEY,
        "TRELLIS_RUNWARE_URL": runware.base,
        "RUNWARE_API_KEY": runware_standin.KEY,
    }
    runs: dict[str, list[Run]] = {way: [] for way in WAYS}
    with fal, runware:
        for number in range(RUNS):
            for way, found in runs.items():
                standin, jobs = (fal, fal.jobs) if "fal" in way else (runware, runware.tasks)
                home = folder / f"{way} {number}"
                env = os.environ | given | {"TRELLIS_HOME": str(home)}
                found.append(once(way, standin, jobs, env, HELD + STEP * number))
    return runs


def middle(runs: list[Run], name: str) -> float:
    return statistics.median(getattr(run, name) for run in runs)


def main() -> int:
    if len(sys.argv) == 2:
        told = WAYS[sys.argv[1]]()
        sys.stdout.write("\n@" + json.dumps(told) + "\n")
        return 0
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        runs = measure(Path(folder))
    columns = ("held", "longest", "importing")
    rows = []
    for way, found in runs.items():
        whole = sorted(run.whole for run in found)
        spread = f"{seconds(whole[0])} to {seconds(whole[-1])}"
        cells = [seconds(middle(found, name)) for name in columns]
        cells[2] = cells[2] if middle(found, "importing") else "–"
        rows.append([way, seconds(middle(found, "whole")), spread, *cells])
    heads = [
        "",
        "done to visible",
        "from, to",
        "Blender stands still",
        "longest",
        "of that the import",
    ]
    table = Table(
        f"From done to visible: a model of 500,000 vertices with textures of 2048, median of {RUNS}",
        heads,
        rows,
        [
            "Done is when the service ends the job; visible is when the object is in the scene, with an undo step.",
            "What the extension takes longer: it asks less often, and a second Blender, which leaves the processor to others, "
            "checks the model and writes it into a file. Blender can be worked in meanwhile.",
            "The scripts wait on Blender's main thread, as a script does that is run there, from the request on: here counts "
            "only what comes after done. One that waits in a thread of its own would stand still for the import alone.",
            "fal's client asks ten times a second, the extension every one to three seconds. At Runware both ask after pauses "
            "that grow to ten seconds; which of them asks first after done is chance, and more than all else between them.",
        ],
    )
    ratios = []
    for service, client in (("fal", "its client"), ("Runware", "its SDK")):
        ours, theirs = runs[f"{service}, extension"], runs[f"{service}, {client}"]
        held, whole = middle(ours, "held"), middle(ours, "whole")
        script = f"a script with {client}"
        thread = f"the import alone of {script}"
        still = f"{service}: Blender stands still after done"
        ratios += [
            Ratio(still, held, script, middle(theirs, "held")),
            Ratio(still, held, thread, middle(theirs, "importing")),
            Ratio(f"{service}: from done to visible", whole, script, middle(theirs, "whole")),
        ]
    return finish(Report([table], ratios))


if __name__ == "__main__":
    sys.exit(main())

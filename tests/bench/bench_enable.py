# SPDX-License-Identifier: GPL-3.0-or-later
"""What enabling the extension costs, beside an empty add-on that registers one panel and some that come with Blender, and what
it loads.

`python tests/bench/bench_enable.py`, in any Python with bpy. Fresh processes, taking turns; byte code is compiled before.
Exits with 1 when a limit is passed.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from report import Ratio, Report, Table, finish, seconds

ROOT = Path(__file__).resolve().parents[2]
# Those of Blender's own that are in every version, and register without a profile
BUNDLED = {
    "io_scene_gltf2": "Blender's glTF importer",
    "io_scene_fbx": "Blender's FBX importer",
    "node_wrangler": "Node Wrangler",
    "pose_library": "Pose Library",
}
RUNS = 9
LIMIT = 30.0  # ms more than the empty add-on
EMPTY = """
import bpy
class EMPTY_PT_panel(bpy.types.Panel):
    bl_label, bl_space_type, bl_region_type, bl_category = "Empty", "VIEW_3D", "UI", "Empty"
    def draw(self, context): pass
def register(): bpy.utils.register_class(EMPTY_PT_panel)
def unregister(): bpy.utils.unregister_class(EMPTY_PT_panel)
"""
ENABLE = """
import importlib, json, sys, time
import bpy, addon_utils
addon_utils.disable(sys.argv[1])  # some are on from the beginning
for name in [name for name in sys.modules if name.partition(".")[0] == sys.argv[1]]:
    del sys.modules[name]
before = set(sys.modules)
start = time.perf_counter()
module = importlib.import_module(sys.argv[1])
module.register()
took = (time.perf_counter() - start) * 1000
new = {name.partition(".")[0] for name in set(sys.modules) - before}
foreign = sorted(name for name in new - set(sys.stdlib_module_names) if name != sys.argv[1])
module.unregister()
print("@" + json.dumps([took, foreign]))
"""


def enable(module: str, folder: Path) -> tuple[float, list[str]]:
    """Milliseconds, and the third-party modules loaded."""
    paths = os.pathsep.join([str(ROOT), str(folder)])
    # Blender keeps what it has compiled; some machines tell Python not to
    env = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    done = subprocess.run(
        [sys.executable, "-c", ENABLE, module],
        env={**env, "PYTHONPATH": paths, "BLENDER_USER_RESOURCES": str(folder / "profile")},
        capture_output=True,
        text=True,
        check=True,
    )
    took, foreign = json.loads(done.stdout.rpartition("@")[2])
    return took, foreign


def main() -> int:
    names = {"empty_addon": "an empty add-on", "blender_trellis": "this extension", **BUNDLED}
    times: dict[str, list[float]] = {module: [] for module in names}
    loaded: set[str] = set()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "empty_addon.py").write_text(EMPTY, encoding="utf-8")
        for run in range(RUNS + 1):
            for module, measured in times.items():
                took, foreign = enable(module, folder)
                if run:  # the first one compiles
                    measured.append(took / 1000)
                    loaded |= set(foreign) if module == "blender_trellis" else set()
    rows = [
        [names[module], *(seconds(each(times[module])) for each in (min, statistics.median, max))]
        for module in times
    ]
    # Whatever else the machine does only ever adds, so the best of several runs comes nearest to the cost itself
    best = {module: min(measured) for module, measured in times.items()}
    more = (best["blender_trellis"] - best["empty_addon"]) * 1000
    third_party = ", ".join(sorted(loaded)) or "none"
    table = Table(
        f"Enabling: import and registration, {RUNS} fresh processes each",
        ("", "best", "median", "worst"),
        rows,
        [
            f"More than the empty add-on, of the best: {more:.1f} ms; limit: {LIMIT:.0f} ms.",
            f"Third-party modules that this extension loads: {third_party}.",
        ],
    )
    ratios = [
        Ratio("Enabling, best of several", best["blender_trellis"], names[module], best[module])
        for module in (*BUNDLED, "empty_addon")
    ]
    broken = ["what enabling costs"] if more > LIMIT else []
    return finish(Report([table], ratios, broken + [f"it loads {each}" for each in sorted(loaded)]))


if __name__ == "__main__":
    sys.exit(main())

# SPDX-License-Identifier: GPL-3.0-or-later
"""What enabling the extension costs, beside an empty add-on that registers one panel, and what it loads.

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

ROOT = Path(__file__).resolve().parents[2]
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
    times: dict[str, list[float]] = {"empty_addon": [], "blender_trellis": []}
    loaded: set[str] = set()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "empty_addon.py").write_text(EMPTY, encoding="utf-8")
        for run in range(RUNS + 1):
            for module, measured in times.items():
                took, foreign = enable(module, folder)
                if run:  # the first one compiles
                    measured.append(took)
                    loaded |= set(foreign)
    middle = {module: statistics.median(measured) for module, measured in times.items()}
    print(f"{'enabled, ms':<20}{'runs':>6}{'best':>9}{'median':>9}{'worst':>9}")
    for module, measured in times.items():
        low, high = min(measured), max(measured)
        print(f"{module:<20}{RUNS:>6}{low:>9.1f}{middle[module]:>9.1f}{high:>9.1f}")
    # Whatever else the machine does only ever adds, so the best of several runs comes nearest to the cost itself
    more = min(times["blender_trellis"]) - min(times["empty_addon"])
    good = more <= LIMIT and not loaded
    print(
        f"difference of the best: {more:.1f} ms, at most {LIMIT}: {'kept' if more <= LIMIT else 'PASSED'}"
    )
    print(f"third-party modules loaded: {', '.join(sorted(loaded)) or 'none'}")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())

# SPDX-License-Identifier: GPL-3.0-or-later
"""What a Blender under test is started with: `blender --python start.py -- FOLDER MODULE LIFE`, by `run.py`."""

import sys
from importlib import import_module
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1]))

import guard
from window import driver

SOURCE = Path(__file__).parents[2] / "blender_trellis"
# The runner takes a line of the log that begins as the guard's do for a failure
guard.put_up(str(SOURCE), str(Path(driver.OUT, f"{driver.MODULE}.log")))
driver.run(import_module(f"window.{driver.MODULE}"))

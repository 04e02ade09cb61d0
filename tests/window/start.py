# SPDX-License-Identifier: GPL-3.0-or-later
"""What a Blender under test is started with: `blender --python start.py -- FOLDER MODULE LIFE`, by `run.py`."""

import sys
from importlib import import_module
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1]))

from window import driver

driver.run(import_module(f"window.{driver.MODULE}"))

# SPDX-License-Identifier: GPL-3.0-or-later
"""`python -m blender_trellis`: the command line without Blender's own binary."""

import sys

from .cli import main

sys.exit(main())

# SPDX-License-Identifier: GPL-3.0-or-later
"""`python -m blender_trellis`: the command line without Blender's own binary."""

import sys

try:
    from .cli import main

    sys.exit(main())
except KeyboardInterrupt:  # while it was starting
    sys.exit(130)

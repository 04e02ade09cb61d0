# SPDX-License-Identifier: GPL-3.0-or-later
"""From the sources to what people download: wheels, zips, the extension repository. `build.py` starts it; no zip holds it."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


class ReleaseError(Exception):
    """A package cannot be made as it should be; the message says why."""

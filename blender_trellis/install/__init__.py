# SPDX-License-Identifier: GPL-3.0-or-later
"""Installs the local engine TRELLIS.2 beside Blender, never into it: a Python environment of its own, and the model's weights.

installer.py        the whole of it: what is there, what is missing, install, uninstall
environment.py      the environment, made in steps that go on where they stopped; requirements.txt is what goes into it
builds.py           which build of PyTorch suits this computer, and where it comes from
weights.py          which files the model consists of (weights.json), and which of them are here
hub.py              the hub that has them: access, sizes, downloads that go on where they stopped; also run as a process
process.py          one child process, watched; guard.py is the child's side of it, check.py what tries the environment

Standard library only: it runs in Blender's Python.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Report:
    """How far it is: the last line that a step said, and the share of that step that is done, None where nobody knows."""

    step: str
    number: int
    count: int
    title: str
    message: str = ""
    fraction: float | None = None


Tell = Callable[[Report], None]
Say = Callable[[str, float | None], None]  # the same from within a step: message and fraction
Cancelled = Callable[[], bool]

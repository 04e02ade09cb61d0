# SPDX-License-Identifier: GPL-3.0-or-later
"""The fonts that Blender brings along, as files."""

from __future__ import annotations

from pathlib import Path

import bpy


def more_letters() -> list[Path]:
    """Those for the alphabets of Europe, and for Chinese, Japanese and Korean."""
    fonts = bpy.utils.system_resource("DATAFILES", path="fonts")
    names = ("Inter.*", "Noto Sans CJK *")
    return [path for name in names for path in Path(fonts).glob(name)] if fonts else []

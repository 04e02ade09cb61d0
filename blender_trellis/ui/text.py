# SPDX-License-Identifier: GPL-3.0-or-later
"""Words for the panels: in the interface's language, on as many lines as a sidebar needs (a label has one and cuts the rest)."""

from __future__ import annotations

import functools
import re

import blf
import bpy

# Where our words are looked up first: Blender's own of the same spelling may mean something else ("Log": a logarithm)
CONTEXT = "Trellis"
_CJK = r"\u3040-\u30ff\u3400-\u9fff"
_NOT_FIRST = "、。，．：；？！）」』…％ーぁぃぅぇぉっゃゅょァィゥェォッャュョ々"
# What stays on one line: a word, or one Chinese or Japanese character, with the space before it and the marks around it
_UNIT = rf"\s*[（「『]*(?:[{_CJK}]|[^\s{_CJK}{_NOT_FIRST}]+|[{_NOT_FIRST}])[{_NOT_FIRST}]*"


def tr(text: str) -> str:
    """`text` in the language of Blender's interface: for sentences with values, which Blender cannot look up."""
    translated: str = bpy.app.translations.pgettext_iface(text, CONTEXT)
    return translated


def language() -> str:
    """The code of the language that sentences are put into; "" where the interface is not translated."""
    translating = bpy.context.preferences.view.use_translate_interface
    return bpy.app.translations.locale if translating else ""


def said(sentence: str) -> str:
    """What a room below the interface said, in the interface's language: an error, how far something is."""
    code = language()
    if not code:
        return sentence
    from . import translations

    return translations.said(code, sentence)


def wrapped(
    context: bpy.types.Context, text: str, *, icon: bool = False, dialog: int = 0
) -> tuple[str, ...]:
    """`text` in lines that fit the region's width, beside an icon or alone; no line for no text.

    `dialog` is the width that a dialog was asked for: its region is the one that it was opened from.
    """
    scale = context.preferences.system.ui_scale
    # Margins of panel and box, and the tabs at the side; 20 more for an icon
    width = (dialog * scale or context.region.width) - (96 if icon else 64) * scale
    points = context.preferences.ui_styles[0].widget.points * scale
    return _lines(text, max(int(width), 60), round(points, 1))


@functools.lru_cache(maxsize=256)
def _lines(text: str, width: int, points: float) -> tuple[str, ...]:
    blf.size(0, points)
    lines: list[str] = []
    for paragraph in text.splitlines():
        line = ""
        for unit in re.findall(_UNIT, " ".join(paragraph.split())):
            longer = line + unit
            if line and blf.dimensions(0, longer)[0] > width:
                lines.append(line)
                line = unit.lstrip()
            else:
                line = longer
        lines.append(line)
    return tuple(lines)

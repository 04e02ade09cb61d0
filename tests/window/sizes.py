# SPDX-License-Identifier: GPL-3.0-or-later
"""The panel 250 units wide, at the interface scales 1.0 and 1.5, in English and in Japanese: pictures for eyes, and the words
that must be readable to their end."""

from pathlib import Path

import bpy

from window import driver as d
from window import trellis as t

WIDTH = 250
WHOLE = ("Image to 3D", "Generate", "Structure", "Shape", "Texture")


def everything_can_be_read_at_scale_1() -> d.Step:
    yield from t.open_tab()
    yield from _look("1")


def everything_can_be_read_at_scale_1_5() -> d.Step:
    bpy.context.preferences.view.ui_scale = 1.5
    yield 2.0
    yield from _look("1.5")


def languages_are_there() -> d.Step:
    """Some systems' Blenders come without the list of languages; ours do not need the rest of what is missing there."""
    yield 0.1
    if not (_speaks("ja_JP") and _speaks("zh_HANS")):
        folder = Path(bpy.utils.user_resource("DATAFILES", path="locale", create=True))
        names = ["Automatic:DEFAULT", "English:en_US", "Japanese:ja_JP", "Chinese:zh_HANS"]
        lines = [f"{number}:{name}" for number, name in enumerate(names)]
        (folder / "languages").write_text("\n".join(lines) + "\n", "utf-8")


def _speaks(language: str) -> bool:
    try:
        bpy.context.preferences.view.language = language
    except TypeError:
        return False
    return True


def japanese_fits() -> d.Step:
    if not _speaks("ja_JP"):
        raise d.LeftOut("this Blender was built without languages")
    view = bpy.context.preferences.view
    view.use_translate_interface = True
    yield from t.open_tab()
    for scale in (1.0, 1.5):
        view.ui_scale = scale
        yield 2.0
        yield from t.make_wide(WIDTH)
        yield from t.put_images(t.ROBOT)
        d.shot_sidebar(f"japanese-{scale:g}")


def _look(name: str) -> d.Step:
    yield from t.make_wide(WIDTH)
    yield from t.put_images(t.ROBOT)
    for endpoint in ("local/draft", "local/trellis-2", "fal-ai/trellis-2", "runware/trellis-2"):
        yield from t.choose(endpoint)
        d.shot_sidebar(f"{name}-{endpoint.replace('/', '-')}")
        for text in WHOLE if endpoint == "fal-ai/trellis-2" else WHOLE[:2]:
            yield from d.find(text)


LIVES = [
    [everything_can_be_read_at_scale_1, everything_can_be_read_at_scale_1_5, languages_are_there],
    [japanese_fits],
]

# SPDX-License-Identifier: GPL-3.0-or-later
"""The interface in Japanese and Chinese, where Blender itself shows it: labels, tooltips, the price, an error; and
English again after that."""

from pathlib import Path

import bpy

from window import driver as d
from window import trellis as t
from window.sizes import WIDTH, languages_are_there


def _choose(language: str) -> d.Step:
    view = bpy.context.preferences.view
    try:
        view.language = language
    except TypeError:
        raise d.LeftOut("this Blender was built without languages") from None
    view.use_translate_interface = view.use_translate_tooltips = language != "en_US"
    yield 2.0  # it is drawn with the new one


def _tooltip(command: str) -> str:
    """What Blender says of an operator."""
    described = getattr(bpy.ops.trellis, command).get_rna_type().description
    return str(bpy.app.translations.pgettext_tip(described))


def a_language_is_taken_up_while_blender_runs() -> d.Step:
    yield from t.open_tab(WIDTH)
    yield from t.put_images(t.ROBOT)
    yield from t.choose("fal-ai/trellis-2")
    for section in ("In the Scene", "Mesh", "Structure"):  # open from now on, in all languages
        yield from d.click_text(section, after=1.5)
    for language, generate, about in (
        ("ja_JP", "生成", "約 $0.30"),
        ("zh_HANS", "生成", "约 $0.30"),
    ):
        yield from _choose(language)
        told = bpy.app.translations.pgettext_iface
        assert told("Generate", "Operator") == generate
        assert not told("Generate 3D Model", "Operator").isascii()
        assert not _tooltip("generate").isascii()
        group = t.settings().bl_rna.properties["endpoint"]
        assert not told(group.name).isascii()
        d.shot_sidebar(f"{language}-1-fal")
        line = t.module("ui.money").at_generate(t.settings(), t.board())
        assert line.startswith(about), line
        yield from _opened(language)


def _opened(language: str) -> d.Step:
    """All sections, and what stands in the menus."""
    for endpoint in ("local/draft", "local/trellis-2", "runware/trellis-2"):
        yield from t.choose(endpoint)
        d.shot_sidebar(f"{language}-2-{endpoint.replace('/', '-')}")
    yield from t.choose("fal-ai/trellis-2")
    for name in ("Structure", "Texture", "Mesh", "In the Scene"):
        words = bpy.app.translations.pgettext_iface(name, "Trellis")
        assert words != name, name


def an_error_is_said_in_the_language() -> d.Step:
    yield from t.choose("local/draft")
    yield from _choose("ja_JP")
    bad = Path(d.OUT, "broken.png")
    bad.write_bytes(b"no picture")
    yield from t.put_images(bad)
    with d.override():
        bpy.ops.trellis.generate()
    view = t.newest()
    yield from d.until(lambda: view.error, "the error")
    yield 1.5
    d.shot_sidebar("3-error")
    assert view.error.isascii() and not t.module("ui.text").said(view.error).isascii()
    yield from t.put_images(t.ROBOT)
    with d.override():
        bpy.ops.trellis.generate()
    yield from t.arrived(1)
    yield 1.5
    d.shot("4-done")


def the_preferences_and_a_tooltip_are_seen() -> d.Step:
    yield from _choose("ja_JP")
    sidebar = d.box(d.region())
    yield from d.move(sidebar.right - 50, sidebar.top - 45)  # the first of the icons
    yield 3.0
    d.shot("5-tooltip")
    window = yield from t.open_preferences()
    d.shot("6-preferences", d.box(window), of=window)
    with bpy.context.temp_override(window=window):
        bpy.ops.wm.window_close()
    yield 1.0


def in_english_nothing_of_it_stays() -> d.Step:
    yield from _choose("en_US")
    assert (
        bpy.app.translations.pgettext_iface("Generate 3D Model", "Operator") == "Generate 3D Model"
    )
    yield from d.find("Generate")
    d.shot_sidebar("7-english")


LIVES = [
    [languages_are_there],
    [
        a_language_is_taken_up_while_blender_runs,
        an_error_is_said_in_the_language,
        the_preferences_and_a_tooltip_are_seen,
        in_english_nothing_of_it_stays,
    ],
]

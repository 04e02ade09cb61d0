# SPDX-License-Identifier: GPL-3.0-or-later
"""How a model is to be made: presets, also one's own, a stage reset; several at once, as variations. The models are those of a
stand-in."""

import json
from typing import Any

from window import driver as d
from window import trellis as t

FAL = "fal-ai/trellis-2"
fal: Any


def a_preset_is_chosen() -> d.Step:
    global fal  # noqa: PLW0603  later steps see what it was sent
    fal = yield from t.ready_for_fal(FAL)
    yield from d.click_text("Standard")
    d.shot("1-menu")
    yield from d.click_text("Web/Game", t.with_menus())
    yield from d.find("Web/Game")
    presets = t.module("endpoints.presets")
    assert _chosen() == presets.values_of("GAME", FAL)
    d.shot_sidebar("2-game")


def a_preset_of_ones_own_is_kept_chosen_and_removed() -> d.Step:
    t.settings().fal_ai_trellis_2.decimation_target = 123_456
    kept = _chosen()
    d.area().tag_redraw()
    yield 1.0
    yield from d.find("Custom")
    yield from d.click_operator("trellis.preset_add", below="robot.png")
    d.shot("3-name")
    name = yield from d.find("Name", d.box(d.window()))
    yield from d.fill(name.right + 100 * d.scale(), name.centre[1], "My Prop")
    yield from d.press("Return", after=1.5)
    yield from d.click_text("My Prop")
    yield from d.click_text("Draft", t.with_menus(), nth=-1)
    yield from d.until(lambda: _chosen() != kept, "the preset Draft")
    yield from d.click_text("Draft")
    d.shot("4-own")
    yield from d.click_text("My Prop", t.with_menus())
    yield from d.until(lambda: _chosen() == kept, "one's own preset")
    yield 1.0
    d.shot_sidebar("5-own")
    yield from d.click_operator("trellis.preset_add", below="robot.png")
    yield from d.find("Custom")
    assert _chosen() == kept


def a_stage_is_reset_by_its_arrow() -> d.Step:
    before = _chosen()
    yield from d.click_operator("trellis.reset_parameters", below="Generate")
    now = _chosen()
    assert now.items() < before.items(), (before, now)
    d.shot_sidebar("6-reset")


def variations_stand_in_a_row() -> d.Step:
    number = yield from d.find("Variations")
    yield from d.fill(*number.centre, "3")
    assert t.settings().variations == 3
    yield from t.press_generate()
    yield from t.arrived(3)
    seeds = sorted(json.loads(submit.body)["seed"] for submit in fal.submits)
    assert seeds == [seeds[0], seeds[0] + 1, seeds[0] + 2]
    t.in_a_row(t.models())
    yield 1.5
    d.shot("7-row")
    t.settings().variations = 1


def _chosen() -> dict[str, Any]:
    properties = t.module("ui.properties")
    return dict(properties.chosen(t.settings(), FAL))


LIVES = [
    [
        a_preset_is_chosen,
        a_preset_of_ones_own_is_kept_chosen_and_removed,
        a_stage_is_reset_by_its_arrow,
        variations_stand_in_a_row,
    ]
]

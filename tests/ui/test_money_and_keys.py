# SPDX-License-Identifier: GPL-3.0-or-later
"""What a model will cost, what the month has cost, and whether a key is any good."""

import time
from types import SimpleNamespace

import bpy
import pytest

import blender_trellis
from blender_trellis import config as configuration
from blender_trellis.generation.journal import Spent
from blender_trellis.generation.waits import kind
from blender_trellis.ui import money, operators, panels, preferences, properties, pump, screen
from services import fal_standin, runware_standin
from ui.layouts import draw, draw_preferences

FAL, RUNWARE = "fal-ai/trellis-2", "runware/trellis-2"
THIS_MONTH = time.strftime("%Y-%m")


@pytest.fixture
def settings(extension):
    return bpy.context.scene.trellis


def quiet(shown):
    return [
        each.text for each in shown.drawn if each.kind == "label" and each.text and not each.active
    ]


def test_the_estimate_follows_the_settings_and_is_there_only_where_something_is_charged(settings):
    assert not [text for text in quiet(draw(panels.TRELLIS_PT_generate)) if "$" in text]
    settings.endpoint = FAL
    assert "About $0.30" in quiet(draw(panels.TRELLIS_PT_generate))
    properties.group_of(settings, FAL).resolution = "1536"
    assert "About $0.35" in quiet(draw(panels.TRELLIS_PT_generate))
    settings.endpoint = RUNWARE
    settings.variations = 4
    told = " ".join(quiet(draw(panels.TRELLIS_PT_generate)))
    assert "About $0.10 ($0.08 to $0.22)" in told


def test_price_wait_and_the_month_stand_in_one_line(extension, settings):
    settings.endpoint = FAL
    extension.board.spent = [
        Spent("1999-12", "fal", 9.0, "USD", 30, False),
        Spent(THIS_MONTH, "fal", 2.1, "USD", 7, True),
        Spent(THIS_MONTH, "runware", 0.05, "USD", 2, False),
    ]
    extension.board.waits = {kind(FAL, {}): 48.0, kind(FAL, {"resolution": 1536}): 200.0}
    told = " ".join(quiet(draw(panels.TRELLIS_PT_generate)))
    assert told == "About $0.30 and 50 s · $2.15 this month"
    properties.group_of(settings, FAL).resolution = "1536"
    told = " ".join(quiet(draw(panels.TRELLIS_PT_generate)))
    assert told == "About $0.35 and 3 min · $2.15 this month"
    properties.group_of(settings, FAL).resolution = "512"  # never made yet: no time is invented
    told = " ".join(quiet(draw(panels.TRELLIS_PT_generate)))
    assert told == "About $0.25 · $2.15 this month"


def test_where_nothing_is_charged_the_wait_stands_alone(extension, settings):
    assert not quiet(draw(panels.TRELLIS_PT_generate))
    extension.board.waits = {kind("local/draft", {}): 1.6}
    extension.board.spent = [Spent(THIS_MONTH, "fal", 2.1, "USD", 7, True)]
    assert quiet(draw(panels.TRELLIS_PT_generate)) == ["About 2 s"]


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.2, "1 s"), (8.4, "8 s"), (48, "50 s"), (55, "1 min"), (200, "3 min"), (4800, "1 h 20 min")],
)
def test_waits_in_words(seconds, words):
    assert money.duration(seconds) == words


def test_the_wait_is_learned_from_jobs_and_is_there_again_at_the_next_start(
    extension, settings, picture, until
):
    properties.group_of(settings, "local/draft").resolution = "512"
    bpy.ops.trellis.generate(filepath=str(picture))
    until(lambda: not extension.busy)
    (line,) = quiet(draw(panels.TRELLIS_PT_generate))
    assert line.startswith("About ") and line.endswith(" s")
    blender_trellis.unregister()
    blender_trellis.register()
    until(lambda: bool(pump.get().board.waits))
    bpy.context.scene.trellis.local_draft.resolution = "512"
    assert quiet(draw(panels.TRELLIS_PT_generate)) == [line]


@pytest.fixture
def click(settings):
    """What a click on Generate does: the question that it asks, or "done" if it asks none."""

    def ask(endpoint=""):
        asked = []
        manager = SimpleNamespace(
            invoke_confirm=lambda operator, event, **words: asked.append(words) or {"INTERFACE"}
        )
        context = SimpleNamespace(scene=bpy.context.scene, window_manager=manager)
        operator = SimpleNamespace(
            bl_label="Generate 3D Model",
            _asked=lambda scene: endpoint or scene.trellis.endpoint,
            execute=lambda context: {"FINISHED"},
        )
        done = operators.TRELLIS_OT_generate.invoke(operator, context, None)
        assert done == ({"INTERFACE"} if asked else {"FINISHED"})
        return asked[0]["message"] if asked else "done"

    return ask


def test_a_click_asks_above_the_sum_in_the_preferences(settings, click, addon):
    assert addon.ask_above == preferences.ask_above() == 1.0
    settings.endpoint = FAL
    assert click() == "done"
    addon.ask_above = 0.3
    assert click() == "done"
    properties.group_of(settings, FAL).resolution = "1536"
    assert click() == "About $0.35 (estimate)."
    addon.ask_above = 0.0
    assert click(RUNWARE) == "About $0.03, $0.02 to $0.06 (estimate)."
    assert click("local/draft") == click("no/endpoint") == "done"


def test_a_script_is_never_asked(settings, addon, fal, picture, until, extension):
    addon.ask_above = 0.0
    assert bpy.ops.trellis.generate(filepath=str(picture), endpoint=FAL) == {"FINISHED"}
    until(lambda: not extension.busy)
    assert len(fal.submits) == 1 and extension.board.results()


def costs(shown):
    """The lines beneath the header "Costs"; None without one."""
    panel = [each.panel for each in shown.drawn]
    if "TRELLIS_costs" not in panel:
        return None
    header, *lines = [each.text for each in shown.drawn[panel.index("TRELLIS_costs") + 1 :]]
    assert header == "This month:"
    return lines


def test_what_this_month_has_cost_is_told_by_service(extension, settings):
    shown = panels.TRELLIS_PT_generate
    assert costs(draw(shown)) is None
    extension.board.spent = [Spent("1999-12", "fal", 9.0, "USD", 30, False)]
    assert costs(draw(shown)) is None
    extension.board.spent += [
        Spent(THIS_MONTH, "fal", 1.199, "USD", 4, True),
        Spent(THIS_MONTH, "runware", 0.0256, "EUR", 1, False),
    ]
    assert costs(draw(shown)) == ["fal: about $1.20, 4 jobs", "Runware: 0.03 EUR, 1 job"]


def test_costs_are_known_after_a_job_and_when_blender_starts(
    extension, settings, fal, picture, until
):
    bpy.ops.trellis.generate(filepath=str(picture), endpoint=FAL)
    until(lambda: not extension.busy)
    assert costs(draw(panels.TRELLIS_PT_generate)) == ["fal: $0.30, 1 job"]
    blender_trellis.unregister()
    blender_trellis.register()
    assert costs(draw(panels.TRELLIS_PT_generate)) is None
    until(lambda: bool(pump.get().board.spent))
    assert costs(draw(panels.TRELLIS_PT_generate)) == ["fal: $0.30, 1 job"]


def test_drawing_reads_nothing_but_memory(extension, settings, monkeypatch, fal):
    settings.endpoint = FAL
    monkeypatch.setattr("builtins.open", None)
    monkeypatch.setattr("sqlite3.connect", None)
    assert "About $0.30" in quiet(draw(panels.TRELLIS_PT_generate))


# Keys


def words_beneath(addon):
    """What the preferences say, label by label."""
    return draw_preferences(addon).texts()


@pytest.mark.parametrize(
    ("service", "key", "words"),
    [
        ("fal", fal_standin.KEY, "Accepted. The balance needs an administrator's key"),
        ("fal", fal_standin.ADMIN_KEY, "Accepted. Balance 24.50 USD"),
        ("fal", "wrong", "fal refuses the key"),
        ("fal", "", "There is no key for fal"),
        ("runware", runware_standin.KEY, "Accepted. Balance 12.34 USD"),
        ("runware", "wrong", "Runware refuses the key"),
    ],
)
def test_a_key_is_tried_without_waiting_and_the_answer_stands_beneath_it(
    extension, addon, fal, runware, until, monkeypatch, service, key, words
):
    variable = preferences.KEYS[f"{service}_key"]
    monkeypatch.delenv(variable)
    setattr(addon, f"{service}_key", key)
    assert bpy.ops.trellis.check_key(service=service) == {"FINISHED"}
    assert extension.board.keys == {service: "Asking…"} and "Asking…" in words_beneath(addon)
    until(lambda: not extension.busy)
    assert words in " ".join(words_beneath(addon))
    assert not fal.submits and not runware.submits
    setattr(addon, f"{service}_key", "another")  # of which nothing is known
    assert words not in " ".join(words_beneath(addon))


def test_the_answer_for_a_key_that_was_changed_meanwhile_is_not_shown(extension, addon, fal, until):
    bpy.ops.trellis.check_key(service="fal")
    addon.fal_key = "another"
    until(lambda: not extension.busy)
    assert not extension.board.keys


def test_in_background_mode_the_check_waits_and_reports(
    extension, fal, runware, monkeypatch, capfd
):
    monkeypatch.setattr(screen, "waits", lambda: True)
    assert bpy.ops.trellis.check_key(service="runware") == {"FINISHED"}
    assert "Accepted. Balance 12.34 USD" in capfd.readouterr().out
    monkeypatch.setenv("FAL_KEY", "wrong")
    with pytest.raises(RuntimeError, match="fal refuses the key"):
        bpy.ops.trellis.check_key(service="fal")


def test_without_online_access_a_key_is_not_sent_anywhere(extension, addon, monkeypatch, until):
    assert not bpy.app.online_access and preferences.config().offline
    monkeypatch.setenv("FAL_KEY", "k")
    bpy.ops.trellis.check_key(service="fal")
    until(lambda: not extension.busy)
    assert "may not go online" in extension.board.keys["fal"]


def test_the_preferences_name_the_variables_that_the_configuration_reads():
    shown = preferences.KEYS | preferences.ADDRESSES | preferences.LIMITS
    assert shown == configuration._ENVIRONMENT
    assert {f"{service}_key" for service in preferences.SERVICES} == preferences.KEYS.keys()

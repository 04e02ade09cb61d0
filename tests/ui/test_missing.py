# SPDX-License-Identifier: GPL-3.0-or-later
"""What keeps Generate from working is said beneath it, with the button that does something about it."""

from __future__ import annotations

import bpy
import pytest

from blender_trellis.ui import installs, orders, panels, preferences, properties
from ui.layouts import draw

FAL, LORA = "fal-ai/trellis-2", "fal-ai/trellis-2-lora"


@pytest.fixture
def settings(extension, picture):
    bpy.ops.trellis.add_images(filepath=str(picture))
    return bpy.context.scene.trellis


def beneath():
    """The words and the buttons between Generate and the first section."""
    drawn = draw(panels.TRELLIS_PT_generate).drawn
    start = [each.name for each in drawn].index("trellis.generate") + 1
    end = next(n for n in range(start, len(drawn)) if drawn[n].panel)
    here = drawn[start:end]
    words = " ".join(each.text for each in here if each.kind == "label" and each.active)
    return words, [(each.name, vars(each.given)) for each in here if each.kind == "operator"]


def test_nothing_is_said_where_nothing_is_missing(settings):
    assert beneath() == ("", [])


def test_an_image(settings):
    bpy.ops.trellis.remove_image()
    assert beneath() == ("Add an image", [])


def test_a_key(settings, fal, monkeypatch, until):
    monkeypatch.delenv("FAL_KEY")
    settings.endpoint = FAL
    until(lambda: beneath()[0])  # the keychain is looked into first
    opens = ("preferences.addon_show", {"module": preferences.ROOT})
    assert beneath() == ("Set the key for fal in the preferences", [opens])


def test_online_access(settings, monkeypatch):
    assert not bpy.app.online_access
    monkeypatch.setenv("FAL_KEY", "k")
    settings.endpoint = FAL
    opens = ("screen.userpref_show", {"section": "SYSTEM"})
    assert beneath() == (orders.OFFLINE, [opens])


def test_a_wrong_address(settings, monkeypatch):
    monkeypatch.setenv("TRELLIS_FAL_QUEUE_URL", "fal.example")
    settings.endpoint = FAL
    words, buttons = beneath()
    assert "fal.example" in words
    assert buttons == [("preferences.addon_show", {"module": preferences.ROOT})]


def test_an_engine_that_is_to_be_installed(settings, extension, monkeypatch):
    monkeypatch.delenv("TRELLIS_SIDECAR_URL")
    installs.get().lacking = frozenset({"local/trellis-2"})
    settings.endpoint = "local/trellis-2"
    words, buttons = beneath()
    assert words.startswith(orders.NOT_INSTALLED)
    assert [name for name, _ in buttons] == ["trellis.install_local"]


def test_one_of_several_parameters(settings, fal):
    settings.endpoint = LORA
    words, buttons = beneath()
    assert words == "Set one of these: Structure · LoRA, Shape · LoRA, Texture · LoRA"
    assert buttons == []
    properties.group_of(settings, LORA).geometry_lora_url = "https://example.com/a"
    assert beneath() == ("", [])

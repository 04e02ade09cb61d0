# SPDX-License-Identifier: GPL-3.0-or-later
"""Keys in the keychain, as preferences and panel deal with them: nothing waits for it, and no key is lost."""

import os
from pathlib import Path

import bpy
import pytest

import blender_trellis
from blender_trellis import keychain
from blender_trellis.keychain import SYSTEM
from blender_trellis.ui import orders, panels, preferences, pump, screen
from services import fal_standin
from ui.layouts import draw, draw_preferences

FAL = "fal-ai/trellis-2"
NO_KEY = "Set the key for fal in the preferences"
HELD = "The key in the keychain is used"


@pytest.fixture(autouse=True)
def _no_key_in_the_environment(fal, monkeypatch):
    monkeypatch.delenv("FAL_KEY")
    if "BLENDER_USER_RESOURCES" not in os.environ:  # `build.py test` sets it
        pytest.skip("this would save the user's own preferences")


@pytest.fixture
def lasting(extension):
    """Preferences that are the user's own, so that they may be saved: not those of a Blender with factory settings."""
    bpy.app.use_userpref_skip_save_on_exit = False
    yield
    bpy.app.use_userpref_skip_save_on_exit = True


@pytest.fixture
def answered(extension, addon, until):
    """Draws the preferences, lets the keychain answer, and draws them again."""

    def draw_again():
        draw_preferences(addon)
        until(lambda: not extension.busy)
        return draw_preferences(addon)

    return draw_again


def saved():
    """The file that the preferences are saved in."""
    return Path(bpy.utils.user_resource("CONFIG"), "userpref.blend").read_bytes()


def test_enabling_and_the_tab_of_a_local_engine_do_not_ask_the_keychain(extension, vault, until):
    draw(panels.TRELLIS_PT_generate)
    until(lambda: not extension.busy)
    assert vault.reads == 0


def test_a_key_moves_into_the_keychain_and_out_of_the_saved_preferences(
    extension, addon, vault, until, answered, lasting
):
    key = "a-key-that-is-nowhere-else-0f3a"
    addon.fal_key = f" {key} "
    bpy.ops.wm.save_userpref()
    assert key.encode() in saved()
    shown = answered()
    assert shown.names().count("trellis.keep_key") == 1
    assert "The key in the preferences is used" in shown.texts()
    assert bpy.ops.trellis.keep_key(service="fal") == {"FINISHED"}
    assert addon.fal_key and "Asking…" in draw_preferences(addon).texts()
    until(lambda: not extension.busy)
    assert vault.passwords == {(SYSTEM, "fal"): key}
    assert addon.fal_key == "" and key.encode() not in saved()
    shown = draw_preferences(addon)
    assert HELD in shown.texts() and "Asking…" not in shown.texts()
    assert "trellis.keep_key" not in shown.names() and "trellis.remove_key" in shown.names()
    assert bpy.ops.trellis.remove_key(service="fal") == {"FINISHED"}
    until(lambda: not extension.busy)
    assert vault.passwords == {} and HELD not in draw_preferences(addon).texts()


def test_factory_settings_are_not_saved_over_the_users_preferences(extension, addon, vault, until):
    bpy.ops.wm.save_userpref()
    before = saved()
    addon.fal_key = "k"
    bpy.ops.trellis.keep_key(service="fal")
    until(lambda: not extension.busy)
    assert addon.fal_key == "" and vault.passwords and saved() == before


def test_preferences_that_cannot_be_saved_are_told_of(
    extension, addon, vault, until, lasting, tmp_path
):
    addon.fal_key = "k"
    bpy.ops.wm.save_userpref()
    place = Path(bpy.utils.user_resource("CONFIG"))
    kept = place.rename(tmp_path / "kept")
    place.write_text("a file where the folder should be")
    try:
        bpy.ops.trellis.keep_key(service="fal")
        until(lambda: not extension.busy)
    finally:
        place.unlink()
        kept.rename(place)
    assert "could not save its preferences" in extension.board.keys["fal"]
    assert addon.fal_key == "" and vault.passwords == {(SYSTEM, "fal"): "k"}


def test_a_key_typed_while_another_one_moves_stays(extension, addon, vault, until):
    addon.fal_key = "first"
    vault.open.clear()
    bpy.ops.trellis.keep_key(service="fal")
    addon.fal_key = "second"
    vault.open.set()
    until(lambda: not extension.busy)
    assert vault.passwords == {(SYSTEM, "fal"): "first"} and addon.fal_key == "second"


@pytest.mark.parametrize("fault", ["broken", "forgetful"])
def test_a_key_that_the_keychain_does_not_take_stays_where_it_is(
    extension, addon, vault, until, fault
):
    addon.fal_key = "not-to-be-lost"
    setattr(vault, fault, True)
    bpy.ops.trellis.keep_key(service="fal")
    until(lambda: not extension.busy)
    assert addon.fal_key == "not-to-be-lost" and vault.passwords == {}
    told = " ".join(draw_preferences(addon).texts())
    assert "The keychain does not take the key" in told and "not-to-be-lost" not in told


def test_the_preferences_say_that_the_environment_wins_and_leave_the_keychain_alone(
    extension, addon, vault, monkeypatch, answered
):
    vault.passwords[SYSTEM, "fal"] = vault.passwords[SYSTEM, "runware"] = "k"
    monkeypatch.setenv("FAL_KEY", "k")
    shown = answered()
    assert "FAL_KEY of the environment is used" in shown.texts()
    assert shown.texts().count(HELD) == 1  # Runware's
    assert vault.reads == 1
    assert orders.unreachable(FAL) == ""


def test_without_a_keychain_the_preferences_do_not_speak_of_one(extension, addon, answered, home):
    addon.fal_key = "k"
    shown = answered()
    assert not {"trellis.keep_key", "trellis.remove_key"} & set(shown.names())
    words = " ".join(shown.texts()).replace(str(home), "")  # which is called like the test
    assert "keychain" not in words.lower()
    assert not bpy.ops.trellis.remove_key.poll()


def test_the_panel_waits_for_no_keychain_and_then_says_what_it_found(
    extension, vault, until, monkeypatch
):
    settings = bpy.context.scene.trellis
    settings.endpoint = FAL
    vault.open.clear()
    assert orders.unreachable(FAL) == ""
    for _ in range(3):
        pump.tick()
        draw(panels.TRELLIS_PT_generate)
    assert extension.busy and orders.unreachable(FAL) == ""
    vault.open.set()
    until(lambda: orders.unreachable(FAL) == NO_KEY)
    assert vault.reads == 1
    vault.broken = True
    bpy.ops.trellis.check_key(service="fal")
    until(lambda: not extension.busy)
    assert "does not give the key (KeychainFailure)" in orders.unreachable(FAL)
    assert "does not give the key" in extension.board.keys["fal"]
    vault.broken = False
    vault.passwords[SYSTEM, "fal"] = fal_standin.KEY
    bpy.ops.trellis.check_key(service="fal")
    until(lambda: not extension.busy)
    assert "Accepted" in extension.board.keys["fal"] and orders.unreachable(FAL) == ""


def test_other_work_goes_on_while_the_keychain_asks_somebody(extension, vault, until, fal, picture):
    vault.open.clear()
    vault.passwords[SYSTEM, "fal"] = fal_standin.KEY
    settings = bpy.context.scene.trellis
    settings.local_draft.resolution = settings.local_draft.texture_size = "512"
    for endpoint in (FAL, "local/draft"):
        assert bpy.ops.trellis.generate(filepath=str(picture), endpoint=endpoint) == {"FINISHED"}
    remote, local = sorted(extension.board.views.values(), key=lambda view: view.endpoint)
    until(lambda: bool(local.files) and not local.at_work)
    assert remote.at_work and not fal.calls
    vault.open.set()
    until(lambda: not extension.busy)
    assert remote.files and len(fal.submits) == 1


def test_blender_ends_while_the_keychain_still_asks_somebody(extension, vault, fal, picture, until):
    """A dialog that nobody answers must not hold up the end, nor the next start."""
    vault.open.clear()
    bpy.ops.trellis.generate(filepath=str(picture), endpoint=FAL)
    until(lambda: extension.session.runner is not None and vault.reads == 1)
    blender_trellis.unregister()
    assert keychain._answers == {}
    blender_trellis.register()
    assert not fal.calls


def test_in_background_mode_operators_wait_for_the_keychain(
    extension, addon, vault, fal, picture, monkeypatch
):
    monkeypatch.setattr(screen, "waits", lambda: True)
    assert orders.unreachable(FAL) == NO_KEY
    addon.fal_key = fal_standin.KEY
    assert bpy.ops.trellis.keep_key(service="fal") == {"FINISHED"}
    assert addon.fal_key == "" and vault.passwords == {(SYSTEM, "fal"): fal_standin.KEY}
    assert bpy.ops.trellis.generate(filepath=str(picture), endpoint=FAL) == {"FINISHED"}
    assert len(fal.submits) == 1
    assert bpy.ops.trellis.remove_key(service="fal") == {"FINISHED"}
    with pytest.raises(RuntimeError, match=NO_KEY):
        bpy.ops.trellis.generate(filepath=str(picture), endpoint=FAL)
    addon.fal_key = "not-to-be-lost"
    monkeypatch.setattr(keychain, "PATIENCE", 0.05)
    vault.open.clear()
    with pytest.raises(RuntimeError, match="The keychain does not answer"):
        bpy.ops.trellis.keep_key(service="fal")
    assert addon.fal_key == "not-to-be-lost"


def test_an_empty_field_is_not_kept(extension, addon, vault):
    addon.runware_key = "k"
    with pytest.raises(RuntimeError, match="There is no key in the preferences"):
        bpy.ops.trellis.keep_key(service="fal")
    addon.runware_key = ""
    assert not bpy.ops.trellis.keep_key.poll()
    assert preferences.typed("runware") == ""

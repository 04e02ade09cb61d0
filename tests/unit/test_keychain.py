# SPDX-License-Identifier: GPL-3.0-or-later
"""The keychain: where a key comes from, and what becomes of it when a keychain fails, waits, or is not there."""

from __future__ import annotations

import asyncio
import logging
import traceback
from pathlib import Path

import keyring
import pytest

from blender_trellis import keychain
from blender_trellis.config import Config
from blender_trellis.errors import AccessError
from blender_trellis.keychain import SYSTEM, Held
from keychains import Plain, Vault

KEY = "5ecre7-0f-fal"


def complete(config: Config, service: str = "fal") -> Config:
    return asyncio.run(keychain.complete(config, service))


@pytest.fixture
def preferred(home: Path) -> Config:
    """A configuration whose preferences hold a key."""
    return Config.load(fal_key="preferred")


def test_the_keychain_comes_after_the_environment_and_before_the_preferences(
    vault: Vault, preferred: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert complete(preferred).fal_key == "preferred"
    keychain.keep("fal", KEY).result()
    assert complete(preferred).fal_key == KEY
    assert complete(preferred, "runware").runware_key == ""
    keychain.forget()
    before = vault.reads
    monkeypatch.setenv("FAL_KEY", "of the environment")
    assert complete(Config.load(fal_key="preferred")).fal_key == "of the environment"
    assert vault.reads == before


def test_what_needs_no_key_does_not_ask_for_one(vault: Vault, home: Path) -> None:
    for service in ("local", ""):
        assert complete(Config.load(), service) == Config.load()
    assert vault.reads == 0


def test_an_answer_is_known_until_it_is_asked_anew_and_trouble_is_asked_again(vault: Vault) -> None:
    vault.passwords[SYSTEM, "fal"] = f" {KEY}\n"
    vault.broken = True
    assert keychain.ask("fal").result().trouble
    vault.broken = False
    assert [keychain.ask("fal").result().key for _ in range(3)] == [KEY] * 3
    assert vault.reads == 2
    vault.passwords[SYSTEM, "fal"] = "another"
    assert keychain.ask("fal").result().key == KEY
    assert keychain.ask("fal", anew=True).result().key == "another"
    keychain.forget()
    del vault.passwords[SYSTEM, "fal"]
    assert keychain.ask("fal").result() == Held("keychains Vault")


def test_who_asks_meanwhile_gets_the_same_answer(vault: Vault) -> None:
    vault.open.clear()
    asked = [keychain.ask("fal", anew=True) for _ in range(3)]
    assert not any(question.done() for question in asked)
    vault.open.set()
    assert {question.result() for question in asked} == {Held("keychains Vault")}
    assert vault.reads == 1


def test_a_key_is_kept_replaced_and_removed(vault: Vault) -> None:
    for key in (KEY, "another"):
        assert keychain.keep("fal", key).result().key == key
        assert vault.passwords == {(SYSTEM, "fal"): key}
        assert keychain.ask("fal").result().key == key
    for _ in range(2):
        assert keychain.remove("fal").result() == Held("keychains Vault")
        assert vault.passwords == {}
        assert keychain.ask("fal").result().key == ""


def test_a_keychain_that_fails_is_told_of_without_its_words(
    vault: Vault, preferred: Config, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    vault.passwords[SYSTEM, "fal"] = KEY
    vault.broken = True
    told = []
    for do in (keychain.remove, lambda service: keychain.keep(service, KEY)):
        with pytest.raises(AccessError, match="KeychainFailure") as caught:
            keychain.wait(do("fal"))
        told.append(caught)
    with pytest.raises(AccessError, match=r"does not give the key \(KeychainFailure\)") as caught:
        complete(Config.load())
    told.append(caught)
    assert complete(preferred).fal_key == "preferred"
    words = "".join(
        "".join(traceback.format_exception(each.value)) + repr(vars(each.value)) for each in told
    )
    assert KEY not in words + caplog.text and "The preferences' key is used" in caplog.text
    assert all(each.value.__context__ is None for each in told)
    assert vault.passwords == {(SYSTEM, "fal"): KEY}


def test_a_keychain_that_does_not_hold_what_it_took_has_not_taken_it(vault: Vault) -> None:
    vault.forgetful = True
    with pytest.raises(AccessError, match="it holds another one"):
        keychain.keep("fal", KEY).result()
    assert keychain.ask("fal").result().key == ""


def test_a_keychain_that_does_not_answer_is_not_waited_for_for_ever(
    vault: Vault, preferred: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    vault.passwords[SYSTEM, "fal"] = KEY
    vault.open.clear()
    monkeypatch.setattr(keychain, "PATIENCE", 0.05)
    assert "does not answer" in keychain.wait(keychain.ask("fal")).trouble
    with pytest.raises(AccessError, match="does not answer"):
        complete(Config.load())
    assert complete(preferred).fal_key == "preferred"
    asked = keychain.ask("fal")
    vault.open.set()  # somebody has unlocked it at last
    assert asked.result().key == KEY
    assert complete(Config.load()).fal_key == KEY


@pytest.mark.parametrize("kind", [Plain, None])
def test_without_a_keychain_that_keyring_recommends_there_is_none(
    vault: Vault, preferred: Config, kind: type[Vault] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    if kind:
        keyring.set_keyring(kind())
    else:  # as if keyring were set to one that is not installed
        monkeypatch.setattr(keyring.core, "_keyring_backend", None)
        monkeypatch.setenv("PYTHON_KEYRING_BACKEND", "no.such.Keychain")
    assert keychain.ask("fal").result() == Held()
    assert complete(preferred).fal_key == "preferred"
    for question in (keychain.keep("fal", KEY), keychain.remove("fal")):
        with pytest.raises(AccessError, match="no keychain on this computer"):
            question.result()


def test_what_is_held_does_not_show() -> None:
    assert KEY not in repr(Held("name", KEY))

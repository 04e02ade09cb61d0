# SPDX-License-Identifier: GPL-3.0-or-later
"""Keychains for tests, as backends of `keyring`'s own kind: `Vault` for this process, `Drawer` for processes of their own, which
are told of it by PYTHON_KEYRING_BACKEND=keychains.Drawer and KEYRING_PROPERTY_FILE."""

from __future__ import annotations

import json
import threading
from pathlib import Path

from keyring.backend import KeyringBackend


class KeychainFailure(Exception):
    """What a keychain says when it fails: it may say too much."""


class Vault(KeyringBackend):
    """A keychain in memory. It waits while it is not `open`, fails while it is `broken`, and counts how often it was read."""

    priority = 2

    def __init__(self) -> None:
        super().__init__()
        self.passwords: dict[tuple[str, str], str] = {}
        self.open = threading.Event()
        self.open.set()
        self.broken = False
        self.forgetful = False
        self.reads = 0

    def _answer(self, password: str = "") -> None:
        assert self.open.wait(120)
        if self.broken:
            raise KeychainFailure(f"{password} {self.passwords}")

    def get_password(self, service: str, username: str) -> str | None:
        self.reads += 1
        self._answer()
        return self.passwords.get((service, username))

    def set_password(self, service: str, username: str, password: str) -> None:
        self._answer(password)
        if not self.forgetful:
            self.passwords[service, username] = password

    def delete_password(self, service: str, username: str) -> None:
        self._answer()
        del self.passwords[service, username]


class Drawer(KeyringBackend):
    """A keychain in a file of JSON, named by its property `file`; a file that is not there is a broken keychain."""

    priority = 2
    file = ""

    def get_password(self, service: str, username: str) -> str | None:
        kept: dict[str, str] = json.loads(Path(self.file).read_text("utf-8"))
        return kept.get(f"{service}/{username}")

    def set_password(self, service: str, username: str, password: str) -> None:
        raise NotImplementedError


class Plain(Vault):
    """One that keyring does not recommend, as it does not recommend files in plain text."""

    priority = 0.5

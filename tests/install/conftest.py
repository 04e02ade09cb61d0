# SPDX-License-Identifier: GPL-3.0-or-later
"""The stand-in hub, which this process and its children take for the hub, without a token."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from install.hub import Hub


@pytest.fixture
def hub(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """The hub; the user has never logged in there."""
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_TOKEN_PATH", "TRELLIS_WEIGHTS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "nobody"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with Hub() as standin:
        monkeypatch.setenv("HF_ENDPOINT", standin.url)
        yield standin

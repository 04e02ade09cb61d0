# SPDX-License-Identifier: GPL-3.0-or-later
"""The stand-ins that this process and its children take for the hub and for the package index."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from blender_trellis.install import environment
from install.hub import Hub
from install.index import Index


@pytest.fixture
def hub(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """The hub; the user has never logged in there. Nothing else can be reached, GitHub neither."""
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_TOKEN_PATH", "TRELLIS_WEIGHTS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "nobody"))
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")  # where nobody listens
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with Hub() as standin:
        monkeypatch.setenv("HF_ENDPOINT", standin.url)
        yield standin


@pytest.fixture(scope="session")
def pip_wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The very pip that is installed, from wherever this computer's pip has it."""
    folder = tmp_path_factory.mktemp("pip")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
    subprocess.run([*command, "--dest", str(folder), environment.PIP], check=True)
    return next(folder.glob("pip-*.whl"))


@pytest.fixture
def index(
    home: Path, pip_wheel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Index]:
    """The index that the user's pip is set up for; no other can be reached."""
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    settings = {
        "PIP_CONFIG_FILE": os.devnull,
        "PIP_CACHE_DIR": str(tmp_path / "cache"),
        "PIP_RETRIES": "0",
        "PIP_DEFAULT_TIMEOUT": "100",  # of a download that is held
        "HTTPS_PROXY": "http://127.0.0.1:9",  # where nobody listens
        "NO_PROXY": "127.0.0.1",
    }
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    with Index(pip_wheel) as standin:
        monkeypatch.setenv("PIP_INDEX_URL", standin.url)
        yield standin

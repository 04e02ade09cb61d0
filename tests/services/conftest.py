# SPDX-License-Identifier: GPL-3.0-or-later
"""The stage on which a job meets a fault at a service."""

from __future__ import annotations

from pathlib import Path

import pytest

from scene import glbs
from services.fault_stage import Stage


@pytest.fixture(scope="session")
def other_glb(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """Another model than `small_glb`, and a longer one."""
    path = tmp_path_factory.mktemp("model") / "boxes.glb"
    return glbs.write(path, [glbs.box((1, 2, 1)), glbs.box((2, 1, 1), (0, 2, 0))]).read_bytes()


@pytest.fixture
def stage(
    service: str,
    request: pytest.FixtureRequest,
    home: Path,
    picture: Path,
    small_glb: bytes,
    other_glb: bytes,
    monkeypatch: pytest.MonkeyPatch,
) -> Stage:
    """One `service` ("fal" or "runware"), whose stand-in a test's runner takes for it."""
    standin = request.getfixturevalue(service)
    return Stage(service, standin, (small_glb, other_glb), picture, monkeypatch)

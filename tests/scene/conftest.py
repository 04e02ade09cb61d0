# SPDX-License-Identifier: GPL-3.0-or-later
"""An empty Blender file around every test, and the things that most of them start from."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import bpy
import pytest

from blender_trellis.scene.recipe import Recipe


@pytest.fixture(autouse=True)
def empty_file() -> Iterator[None]:
    bpy.ops.wm.read_factory_settings(use_empty=True)
    yield
    bpy.ops.wm.read_factory_settings(use_empty=True)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder whose name is neither ASCII nor without spaces."""
    path = tmp_path / "Modèle 猫 mit Leerzeichen"
    path.mkdir()
    return path


@pytest.fixture
def recipe() -> Recipe:
    return Recipe(
        "local/draft",
        {"texture_size": 1024, "remesh": True},
        seed=7,
        job_id="j-1",
        request_id="r-1",
        cost={"amount": 0.25, "currency": "USD", "estimate": False},
        version="0.1.0",
        created="2026-11-21T03:00:00+00:00",
        images=("Katze 猫.png",),
    )

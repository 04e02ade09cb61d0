# SPDX-License-Identifier: GPL-3.0-or-later
"""From nothing to a model, as a user does it in Blender: install with one click, then generate. Real packages, a tiny model.

It runs where the tests of the engine do, in one environment only: an installation takes a minute or two and 1.2 GB.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import bpy
import pytest

pytest.importorskip("torch", reason="the tiny checkpoint is written with PyTorch")

import blender_trellis
from blender_trellis.install import builds, environment, installer
from blender_trellis.scene.recipe import read
from blender_trellis.services import sidecar
from conftest import HOME_NAME
from trellis2 import checkpoint


@pytest.fixture(scope="module")
def extension(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The registered extension, which may go online, with an empty home; that home."""
    home = tmp_path_factory.mktemp("nothing") / HOME_NAME
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRELLIS_HOME", str(home))
        patch.setenv("TRELLIS_WEIGHTS", str(checkpoint.write(tmp_path_factory.mktemp("weights"))))
        bpy.ops.wm.read_factory_settings(use_empty=True)
        bpy.context.preferences.system.use_online_access = True
        blender_trellis.register()
        yield home
        blender_trellis.unregister()
        sidecar.stop(home)
        bpy.ops.wm.read_factory_settings(use_empty=True)


def test_one_click_makes_an_environment_that_works(extension: Path) -> None:
    assert not installer.status(extension).ready
    assert bpy.ops.trellis.install_local(device="CPU") == {"FINISHED"}
    assert installer.status(extension).ready, "an environment, and the weights that were there"
    check = environment.check_of(extension)
    assert check["device"] == "cpu" and check["torch"].startswith(builds.TORCH)
    log = (environment.folder(extension) / environment.LOG).read_text(encoding="utf-8")
    assert "Building wheel" not in log, "something was compiled"


def test_and_a_model_can_be_made_with_it(extension: Path, picture: Path) -> None:
    scene = bpy.context.scene
    made = bpy.ops.trellis.generate(filepath=str(picture), endpoint="local/trellis-2")
    assert made == {"FINISHED"}
    (model,) = (obj for obj in scene.objects if read(obj))
    recipe = read(model)
    assert recipe and recipe.endpoint == "local/trellis-2"
    assert len(model.data.polygons) > 100

# SPDX-License-Identifier: GPL-3.0-or-later
"""An older version is used in this Blender and updated: journal, results and preferences are there after a restart."""

import os
from pathlib import Path

import bpy

import older
from window import driver as d
from window import trellis as t


def version() -> str:
    return str(t.module("").__version__)


def preferences() -> bpy.types.AddonPreferences:
    return bpy.context.preferences.addons[t.ROOT].preferences


def install(package: Path) -> d.Step:
    done = bpy.ops.extensions.package_install_files(
        filepath=str(package), repo="user_default", enable_on_install=True
    )
    assert done == {"FINISHED"}
    yield 1.0


def an_older_version_is_installed() -> d.Step:
    package = older.make(Path(os.environ["WINDOW_PACKAGE"]), Path(d.OUT))
    yield from install(package)
    package.unlink()  # what else lies there is to be looked at
    bpy.ops.wm.save_userpref()


def it_is_used_and_updated() -> d.Step:
    assert version() == older.VERSION
    yield from t.open_tab()
    yield from t.put_images(t.ROBOT)
    yield from t.press_generate()
    yield from t.arrived(1)
    preferences().ask_above, preferences().jobs_at_once = 7.0, 2
    yield from install(Path(os.environ["WINDOW_PACKAGE"]))
    assert (preferences().ask_above, preferences().jobs_at_once) == (7.0, 2)
    bpy.ops.wm.save_userpref()


def the_next_blender_has_the_new_version_and_all_that_was_there() -> d.Step:
    assert version() != older.VERSION
    assert (preferences().ask_above, preferences().jobs_at_once) == (7.0, 2)
    yield from t.open_tab()
    yield from d.until(lambda: t.board().results(), "the result in the list")
    (result,) = t.board().results()
    assert all(Path(path).exists() for path in result.files)
    yield 2.0
    d.shot_sidebar("1-updated")
    yield from t.put_images(t.ROBOT)
    yield from t.press_generate()
    yield from t.arrived(1)
    assert len(t.board().results()) == 2


LIVES = [
    [an_older_version_is_installed],
    [it_is_used_and_updated],
    [the_next_blender_has_the_new_version_and_all_that_was_there],
]

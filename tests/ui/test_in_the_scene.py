# SPDX-License-Identifier: GPL-3.0-or-later
"""The section "In the Scene": what it shows, and what a model is like that was asked for with it."""

import bpy
import pytest

from blender_trellis.scene.recipe import read
from blender_trellis.ui import orders, wishes
from blender_trellis.ui.panels import TRELLIS_PT_generate

from . import layouts


def shown():
    return layouts.draw(TRELLIS_PT_generate).names("prop")


def test_only_what_applies_is_shown(extension):
    settings = bpy.context.scene.trellis
    assert {"height", "lods", "asset"} <= set(shown())
    assert not {"lod_1", "asset_tags"} & set(shown())
    settings.lods, settings.asset = 2, True
    assert {"lod_1", "lod_2", "asset_tags"} <= set(shown()) and "lod_3" not in shown()
    # the result becomes the mesh of an object, which stays where it is and as tall
    settings.endpoint = orders.RETEXTURE
    assert not {"height", "lods", "asset"} & set(shown())


def test_settings_are_the_scenes_own(extension):
    bpy.context.scene.trellis.lods = 3
    assert bpy.data.scenes.new("Other").trellis.lods == 0


def test_the_wish_says_what_is_set(extension):
    scene = bpy.context.scene
    settings = scene.trellis
    wish = wishes.wish_of(scene)
    assert wish["lods"] == [] and wish["asset"] is None
    settings.lods, settings.lod_2 = 2, 12.5
    settings.asset, settings.asset_tags = True, " chair, , old wood,"
    wish = wishes.wish_of(scene)
    assert wish["lods"] == [0.5, 0.125] and wish["asset"] == ["chair", "old wood"]


def test_a_model_arrives_with_its_lods_as_an_asset_in_one_undo_step(extension, until, picture):
    scene = bpy.context.scene
    settings = scene.trellis
    settings.lods, settings.asset, settings.asset_tags = 1, True, "toy"
    settings.local_draft.resolution = "512"
    bpy.ops.ed.undo_push(message="Before")
    bpy.ops.trellis.generate(filepath=str(picture))
    bpy.ops.ed.undo_push(message="Generate 3D Model")
    until(lambda: any(read(obj) for obj in scene.objects))
    (model,) = (obj for obj in scene.objects if read(obj))
    (level,) = model.children
    share = len(level.data.polygons) / len(model.data.polygons)
    assert share == pytest.approx(0.5, rel=0.05)
    assert [tag.name for tag in model.asset_data.tags] == ["toy"]
    assert list(bpy.context.view_layer.objects) == [model]
    until(lambda: not extension.busy)
    bpy.ops.ed.undo()
    until(lambda: not extension.busy)
    assert not bpy.data.objects and not bpy.data.meshes


def test_a_wish_of_an_earlier_version_is_understood(extension):
    scene = bpy.context.scene
    manner = wishes.manner_of({"scene": "x", "location": [0, 0, 0], "height": 2.0}, scene)
    assert manner["lods"] == () and manner["asset"] is None and manner["height"] == 2.0

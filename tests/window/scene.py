# SPDX-License-Identifier: GPL-3.0-or-later
"""What becomes of a model in the scene: a place chosen by a click, the empty that stands there, LODs, and its recipe."""

import bpy

from window import driver as d
from window import trellis as t


def empties() -> list[bpy.types.Object]:
    return [obj for obj in bpy.context.scene.objects if obj.type == "EMPTY"]


def the_section_opens() -> d.Step:
    yield from t.open_tab()
    yield from t.put_images(t.ROBOT)
    yield from d.click_text("Scene")
    settings = t.settings()
    settings.height, settings.lods, settings.asset = 1.5, 2, True
    d.area().tag_redraw()
    yield 1.5
    d.shot_sidebar("1-section")


def a_place_is_chosen_on_the_surface_under_the_mouse() -> d.Step:
    # a slope, in the middle of the view
    (slope,) = (obj for obj in bpy.context.scene.objects if obj.type == "MESH")
    slope.scale, slope.rotation_euler = (2, 2, 0.1), (0.5, 0, 0)
    yield 1.0
    yield from d.click_text("Place")
    assert d.window().modal_operators, "a place is being chosen"
    whole = d.box(d.region("WINDOW"))
    yield from d.click(whole.left + (whole.right - whole.left) * 0.5, whole.centre[1])
    assert t.settings().place_set and not d.window().modal_operators
    hit, place, *_ = slope.closest_point_on_mesh(
        slope.matrix_world.inverted() @ t.settings().place.copy()
    )
    assert hit and (slope.matrix_world @ place - t.settings().place).length < 1e-3
    yield from d.click_text("Place")
    yield from d.hover_viewport()
    yield from d.press("Escape")
    assert not d.window().modal_operators
    d.shot("2-place")


def an_empty_stands_there_until_the_model_does() -> d.Step:
    active = bpy.context.view_layer.objects.active
    yield from t.press_generate()
    (empty,) = empties()
    assert empty.location == t.settings().place and not empty.select_get()
    assert bpy.context.view_layer.objects.active == active
    view = t.newest()
    yield from d.until(lambda: (view.fraction or 0) > 0.3, "progress")
    yield 0.5
    d.shot("3-placeholder")
    yield from t.arrived(1)
    (model,) = t.models()
    assert not empties() and model.location == t.settings().place
    assert model.rotation_euler[:] == (0, 0, 0) and model.asset_data
    assert abs(model.dimensions.z - 1.5) < 0.01
    levels = [each for each in model.children if not each.visible_get()]
    assert [each.name[-4:] for each in levels] == ["LOD1", "LOD2"]
    yield 1.5
    d.shot("4-model")


def undo_and_redo_leave_no_empty() -> d.Step:
    yield from t.undo(0)
    yield from d.until(lambda: not empties(), "no empty after the undo")
    yield from t.redo(1)
    assert not empties()


def the_recipe_brings_the_settings_back() -> d.Step:
    (model,) = t.models()
    bpy.context.view_layer.objects.active = model
    t.settings().images.clear()
    d.area().tag_redraw()
    yield 1.5
    yield from d.click_text("Scene")  # closes it, and makes room
    yield from d.click_text("Recipe")
    d.shot_sidebar("5-recipe")
    yield from d.click_text("Use These Settings")
    assert [item.name for item in t.settings().images] == ["robot.png"]
    yield 2.0
    d.shot_sidebar("6-settings")


def it_runs_again() -> d.Step:
    yield from d.click_text("Run Again")
    yield from t.arrived(2)
    first, second = (obj["trellis"] for obj in t.models())
    assert first != second
    d.shot("7-again")


LIVES = [
    [
        the_section_opens,
        a_place_is_chosen_on_the_surface_under_the_mouse,
        an_empty_stands_there_until_the_model_does,
        undo_and_redo_leave_no_empty,
        the_recipe_brings_the_settings_back,
        it_runs_again,
    ]
]

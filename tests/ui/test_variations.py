# SPDX-License-Identifier: GPL-3.0-or-later
"""Several models of one picture, by a service that makes one at a time: jobs of their own, in one row, at the price of all."""

from __future__ import annotations

import json

import bpy
import pytest

import blender_trellis
from blender_trellis.generation.waits import kind
from blender_trellis.scene.recipe import read
from blender_trellis.ui import money, orders, panels, properties
from ui.layouts import draw

FAL, RETEXTURE = "fal-ai/trellis-2", "fal-ai/trellis-2/retexture"


def models():
    found = [obj for obj in bpy.context.scene.objects if read(obj)]
    return sorted(found, key=lambda obj: obj.location.x)


@pytest.fixture
def three(fal):
    """Asks for three models, to stand at (1, 2, 3), from seed 40 on."""

    def ask(picture):
        scene = bpy.context.scene
        settings = scene.trellis
        settings.endpoint, settings.variations = FAL, 3
        settings.seed, settings.seed_locked = 40, True
        scene.cursor.location = (1, 2, 3)
        return bpy.ops.trellis.generate(filepath=str(picture))

    return ask


def assert_in_a_row():
    # The stand-in's model is 1 wide
    for number, model in enumerate(models()):
        assert model.location[:] == pytest.approx((1 + 1.2 * number, 2, 3))
    made = [read(obj) for obj in models()]
    assert {recipe.seed for recipe in made} == {40, 41, 42}
    assert len({recipe.job_id for recipe in made}) == 3


def test_each_is_a_job_with_its_own_seed_and_they_stand_in_a_row(
    extension, fal, three, until, picture
):
    assert three(picture) == {"FINISHED"}
    until(lambda: len(models()) == 3 and not extension.busy)
    assert sorted(json.loads(submit.body)["seed"] for submit in fal.submits) == [40, 41, 42]
    assert_in_a_row()


def test_a_row_that_a_restart_interrupts_goes_on_beside_what_stands(
    extension, fal, three, until, picture, tmp_path
):
    three(picture)
    until(lambda: len(models()) == 3 and not extension.busy)
    last = models()[-1]
    job = extension.session.runner.journal.get(read(last).job_id)
    bpy.data.objects.remove(last)
    extension.work.bring(
        job.id, job.wish
    )  # as the pump does it for a job that another Blender has left
    until(lambda: len(models()) == 3 and not extension.busy)
    assert_in_a_row()


def test_those_that_failed_are_retried_into_the_same_row(extension, fal, three, until, picture):
    fal.script.status_error = ("Out of memory", "internal_error")
    three(picture)
    until(lambda: [view.error != "" for view in extension.board.jobs()] == [True] * 3)
    fal.script.status_error = None
    for view in extension.board.jobs():
        bpy.ops.trellis.retry_job(job_id=view.id)
    until(lambda: len(models()) == 3 and not extension.busy)
    assert_in_a_row()


def test_in_background_mode_they_stand_in_the_same_row(config, temporary, fal, three, picture):
    bpy.ops.wm.read_factory_settings(use_empty=True)
    blender_trellis.register()
    try:
        assert three(picture) == {"FINISHED"}
        assert_in_a_row()
        assert [read(obj).seed for obj in models()] == [40, 41, 42]
    finally:
        blender_trellis.unregister()
        bpy.ops.wm.read_factory_settings(use_empty=True)


def test_an_unlocked_seed_is_drawn_once_and_the_largest_is_followed_by_the_first(
    extension, fal, picture
):
    settings = bpy.context.scene.trellis
    settings.endpoint, settings.variations, settings.seed = FAL, 2, 5
    settings.seed_locked = False
    seeds = [
        order.parameters["seed"] for order in orders.orders_of(bpy.context.scene, "", str(picture))
    ]
    assert seeds[0] == settings.seed != 5 and seeds[1] == seeds[0] + 1
    settings.seed = properties.MAX_INT
    made = orders.orders_of(bpy.context.scene, "", str(picture))
    assert [order.parameters["seed"] for order in made] == [properties.MAX_INT, 0]
    assert made[0].wish["row"] == [order.id for order in made]


def test_runware_is_asked_once_for_all(extension, runware, picture):
    settings = bpy.context.scene.trellis
    settings.endpoint, settings.variations = "runware/trellis-2", 4
    (order,) = orders.orders_of(bpy.context.scene, "", str(picture))
    assert order.parameters["numberResults"] == 4 and "row" not in order.wish


def test_price_and_wait_are_those_of_all(extension, fal, monkeypatch):
    settings = bpy.context.scene.trellis
    settings.endpoint, settings.variations = FAL, 3
    extension.board.waits = {kind(FAL, {}): 50.0, kind("local/trellis-2", {}): 100.0}
    assert money.estimate(settings, FAL).amount == pytest.approx(0.9)
    # A service makes them at the same time, this computer one after the other
    assert money.at_generate(settings, extension.board) == "About $0.90 and 50 s"
    monkeypatch.setenv("TRELLIS_JOBS_AT_ONCE", "2")
    assert money.at_generate(settings, extension.board) == "About $0.90 and 2 min"
    settings.endpoint = "local/trellis-2"
    assert money.at_generate(settings, extension.board) == "About 5 min"


def test_a_retexture_is_one(extension, fal):
    settings = bpy.context.scene.trellis
    settings.endpoint, settings.variations = RETEXTURE, 3
    assert "variations" not in draw(panels.TRELLIS_PT_generate).names("prop")
    assert money.estimate(settings, RETEXTURE).amount == pytest.approx(0.24)
    settings.endpoint = FAL
    assert "variations" in draw(panels.TRELLIS_PT_generate).names("prop")

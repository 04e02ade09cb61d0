# SPDX-License-Identifier: GPL-3.0-or-later
"""Enabling and disabling: everything is there, described, and nothing stays behind."""

import subprocess
import sys
import threading
import types

import bpy
import pytest

import blender_trellis
from blender_trellis.ui import operators, operators_images, operators_services, preferences, pump
from harness import REPOSITORY

OPERATORS = [*operators.CLASSES, *operators_images.CLASSES, *operators_services.CLASSES]


def traces() -> dict[str, object]:
    handlers = {name: getattr(bpy.app.handlers, name) for name in dir(bpy.app.handlers)}
    return {
        "types": {name for name in dir(bpy.types) if "trellis" in name.lower()},
        "operators": dir(bpy.ops.trellis),
        "properties": [name for name in dir(bpy.types.Scene) if "trellis" in name],
        "menus": [each.__name__ for each in bpy.types.VIEW3D_MT_add._dyn_ui_initialize()],
        "handlers": {name: len(value) for name, value in handlers.items() if type(value) is list},
        "timer": bpy.app.timers.is_registered(pump.tick),
        "threads": {each.name for each in threading.enumerate() if "trellis" in each.name},
    }


def test_registering_twice_and_unregistering_leaves_no_trace(home):
    before = traces()
    for _ in range(2):
        blender_trellis.register()
        assert bpy.app.timers.is_registered(pump.tick)
        blender_trellis.unregister()
    assert traces() == before


def test_python_ends_well_after_it_in_every_blender():
    code = "import bpy, blender_trellis as t; t.register(); t.unregister()"
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, check=False)
    assert done.returncode == 0


def test_unregistering_with_a_job_on_its_way_leaves_no_thread_process_or_file(
    extension, until, asked, temporary
):
    until(lambda: extension.session.runner is not None)
    blender_trellis.unregister()
    assert not [each for each in threading.enumerate() if "trellis" in each.name]
    assert not list(temporary.iterdir())
    blender_trellis.register()


@pytest.mark.parametrize("cls", OPERATORS, ids=lambda cls: cls.bl_idname)
def test_every_operator_says_what_it_does(extension, cls):
    operator = getattr(bpy.ops.trellis, cls.bl_idname.partition(".")[2])
    described = operator.get_rna_type()
    assert described.name == cls.bl_label
    for_search = cls is not operators.TRELLIS_OT_undo_step
    assert for_search == ("INTERNAL" not in cls.bl_options)
    assert len(described.description) > 20 and not described.description.endswith(".")
    for prop in described.properties:
        shown = not prop.is_hidden and prop.identifier != "rna_type"
        assert not shown or (prop.name and prop.description), prop.identifier


SPENDS_OR_DELETES = {
    *(
        "generate",
        "generate_folder",
        "choose_folder",
        "retexture",
        "run_again",
        "retry_job",
        "send_again",
    ),
    *("cancel", "dismiss", "forget", "delete_result", "uninstall_local", "remove_key"),
    "export_result",  # over a file that is there
}
LEADS_THERE = {
    *("submit", "carry_out", "repeat", "retry", "send_again", "generate_folder"),
    *("dismiss", "forget", "delete", "invoke_confirm", "_ask"),
}


def named_in(code):
    """All that a function names, and those within it."""
    inside = (each for each in code.co_consts if isinstance(each, types.CodeType))
    return {*code.co_names}.union(*map(named_in, inside))


def test_nothing_that_spends_or_deletes_is_done_again_by_repeat_last(extension):
    """Blender repeats or adjusts what has REGISTER, without the question that comes before it."""
    found = set(SPENDS_OR_DELETES)
    for name in filter(lambda each: each.startswith("TRELLIS_OT_"), dir(bpy.types)):
        cls = getattr(bpy.types, name)
        own = [each for each in cls.__mro__ if each.__module__.startswith("blender_trellis")]
        methods = [each for base in own for each in vars(base).items() if each[0] != "_ask"]
        codes = [each.__code__ for _, each in methods if isinstance(each, types.FunctionType)]
        if LEADS_THERE & set().union(*map(named_in, codes)):
            found.add(name.removeprefix("TRELLIS_OT_"))
    options = {name: getattr(bpy.types, f"TRELLIS_OT_{name}").bl_options for name in found}
    assert {name for name in found if "REGISTER" in options[name]} == set()


def test_keys_are_hidden_and_never_on_the_scene(extension):
    properties = preferences.TRELLIS_AddonPreferences.bl_rna.properties
    for name in ("fal_key", "runware_key", "sidecar_token"):
        assert properties[name].subtype == "PASSWORD"
    names = {prop.identifier for prop in bpy.context.scene.trellis.bl_rna.properties}
    assert not {name for name in names if "key" in name or "token" in name}


def test_the_environment_wins_over_the_preferences(extension, monkeypatch):
    monkeypatch.setenv("FAL_KEY", "from-the-environment")
    assert preferences.config().fal_key == "from-the-environment"

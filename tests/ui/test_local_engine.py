# SPDX-License-Identifier: GPL-3.0-or-later
"""The local TRELLIS.2 in the panel: what is said while it is not installed, its parameters, and who retextures."""

import json

import bpy
import pytest

from blender_trellis.endpoints.schema import schemas
from blender_trellis.generation import glb
from blender_trellis.install import hub, weights
from blender_trellis.ui import installs, operators, orders, panels, panels_images, properties
from ui.layouts import draw

GENERATE, RETEXTURE = "local/trellis-2", "local/trellis-2/retexture"
BUTTON = "trellis.install_local"


@pytest.fixture
def settings(extension, monkeypatch, tmp_path, picture):
    """A scene with a picture, on a computer that has a PyTorch, by which it would do without another Python."""
    monkeypatch.delenv("TRELLIS_SIDECAR_URL")
    (tmp_path / "modules").mkdir()
    (tmp_path / "modules" / "torch.py").touch()
    monkeypatch.syspath_prepend(str(tmp_path / "modules"))
    bpy.ops.trellis.add_images(filepath=str(picture))
    return bpy.context.scene.trellis


@pytest.fixture
def look(extension, until):
    """Have Blender look which engines are there, as it does at its start and after an installation."""

    def looked():
        installs.get().look_for_engines()
        until(lambda: installs.tick() is None)
        return installs.get().lacking

    return looked


def put(home, files):
    """The model's files, as they are after a download."""
    for file in files:
        path = weights.folder(home) / file.target
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"weights")
        hub.record_of(path).write_text(json.dumps({"size": 7, "sha256": ""}))


def test_an_engine_that_is_not_installed_says_so_under_generate_with_a_button(settings, until):
    settings.endpoint = GENERATE
    until(lambda: orders.missing(bpy.context.scene) == orders.NOT_INSTALLED)
    shown = draw(panels.TRELLIS_PT_generate)
    assert orders.NOT_INSTALLED in " ".join(shown.texts()) and BUTTON in shown.names()
    assert not operators.TRELLIS_OT_generate.poll(bpy.context)
    with pytest.raises(RuntimeError, match="on this computer, or choose another"):
        bpy.ops.trellis.generate()
    settings.endpoint = "local/draft"
    assert BUTTON not in draw(panels.TRELLIS_PT_generate).names()
    assert orders.missing(bpy.context.scene) == ""


def test_once_it_is_installed_nothing_is_said_but_of_what_needs_more(settings, look, home):
    assert look() == {GENERATE, RETEXTURE}
    put(home, weights.wanted("512"))
    assert look() == {RETEXTURE}
    settings.endpoint = GENERATE
    assert orders.missing(bpy.context.scene) == ""
    assert BUTTON not in draw(panels.TRELLIS_PT_generate).names()
    put(home, weights.wanted("512", retexture=True))
    assert not look()


def test_weights_alone_are_not_enough(settings, look, home, monkeypatch):
    put(home, weights.wanted("512", retexture=True))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert look() == {GENERATE, RETEXTURE}


def test_of_another_computer_only_its_own_answer_tells(settings, look, monkeypatch):
    settings.endpoint = GENERATE
    assert look() and orders.missing(bpy.context.scene) == orders.NOT_INSTALLED
    monkeypatch.setenv("TRELLIS_SIDECAR_URL", "http://127.0.0.1:1")
    assert orders.missing(bpy.context.scene) == ""


def test_drawing_asks_no_disk(settings, look, monkeypatch):
    settings.endpoint = GENERATE
    look()
    monkeypatch.setattr("builtins.open", None)
    monkeypatch.setattr("os.stat", None)
    assert BUTTON in draw(panels.TRELLIS_PT_generate).names()


@pytest.mark.parametrize("endpoint", [GENERATE, RETEXTURE])
def test_every_parameter_is_in_the_panel(settings, endpoint):
    settings.endpoint = endpoint
    shown = draw(panels.TRELLIS_PT_generate).names("prop")
    wanted = {prop["name"] for prop in schemas()[endpoint]["properties"].values()}
    assert wanted <= set(shown)


def test_pictures_have_names_only_where_their_order_says_what_they_show(settings):
    roles = [panels_images._role(settings, index) for index in range(4)]
    assert roles == ["Front", "Right", "Back", "Left"]
    settings.endpoint = GENERATE
    assert [panels_images._role(settings, index) for index in (0, 7)] == ["View 1", "View 8"]


def test_what_is_set_in_the_panel_is_what_is_asked_for(settings, look, home, tmp_path):
    put(home, weights.wanted("512"))
    look()
    settings.endpoint = GENERATE
    group = properties.group_of(settings, GENERATE)
    group.pipeline_type, group.multi_image, group.untextured = "1536_cascade", "average", True
    group.texture_lora_path = str(tmp_path / "a.safetensors")
    group.texture_lora_scale, group.texture_format = 0.7, "webp"
    order = orders.order_of(bpy.context.scene)
    assert order.endpoint == GENERATE
    assert order.parameters == {
        "pipeline_type": "1536_cascade",
        "multi_image": "average",
        "untextured": True,
        "texture_lora_path": str(tmp_path / "a.safetensors"),
        "texture_lora_scale": 0.7,
        "texture_format": "webp",
        "seed": settings.seed,
    }


def test_who_retextures(settings, look, home, until, monkeypatch):
    """The chosen endpoint if it works on a mesh; else fal, with a key; else this computer; else fal, which says what it lacks."""
    scene = bpy.context.scene
    monkeypatch.setenv("TRELLIS_FAL_QUEUE_URL", "http://127.0.0.1:1")
    look()
    assert orders.retexture(scene) == orders.RETEXTURE
    until(lambda: "key for fal" in orders.unreachable(orders.retexture(scene)))
    put(home, weights.wanted("512", retexture=True))
    look()
    assert orders.retexture(scene) == RETEXTURE
    monkeypatch.setenv("FAL_KEY", "key")
    assert orders.retexture(scene) == orders.RETEXTURE
    settings.endpoint = RETEXTURE
    assert orders.retexture(scene) == RETEXTURE


def test_the_local_engine_gets_the_active_object_as_a_glb(settings, look, home, tmp_path):
    put(home, weights.wanted("512", retexture=True))
    look()
    with pytest.raises(RuntimeError, match="Select a mesh object"):
        bpy.ops.trellis.retexture()
    bpy.ops.mesh.primitive_cube_add()
    assert operators.TRELLIS_OT_retexture.poll(bpy.context)
    order = orders.order_of(bpy.context.scene, orders.retexture(bpy.context.scene))
    assert order.endpoint == RETEXTURE and order.wish["object"]["name"] == "Cube"
    path = tmp_path / "sent.glb"
    path.write_bytes(order.mesh)
    glb.check(path)

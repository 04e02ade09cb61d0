# SPDX-License-Identifier: GPL-3.0-or-later
"""The local engine in Blender: what the preferences show, the question before a download, and operators that do not wait."""

from __future__ import annotations

import json
import time
from types import SimpleNamespace

import bpy
import pytest

import blender_trellis
from blender_trellis.install import weights
from blender_trellis.services import sidecar
from blender_trellis.ui import (
    installs,
    operators_install,
    orders,
    panels_install,
    pump,
    screen,
)
from install.hub import GATED, TOKEN, Trouble
from local_server import LocalServer
from ui.layouts import Layout, context

STRUCTURE = "microsoft/TRELLIS.2-4B/ckpts/ss_flow_img_dit_1_3B_64_bf16.safetensors"


@pytest.fixture
def local(config, hub, temporary, monkeypatch):
    """The registered extension, whose operators do not wait, where Blender may go online."""
    monkeypatch.setattr(screen, "waits", lambda: False)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    bpy.ops.wm.read_factory_settings(use_empty=True)
    bpy.context.preferences.system.use_online_access = True
    blender_trellis.register()
    yield installs.get()
    blender_trellis.unregister()
    bpy.ops.wm.read_factory_settings(use_empty=True)


@pytest.fixture
def until(local):
    """Calls the timers' functions as Blender would in a window, until something is so."""

    def wait(done):
        deadline = time.monotonic() + 60
        while not done():
            assert time.monotonic() < deadline, vars(local)
            installs.tick()
            pump.tick()
            time.sleep(0.02)

    return wait


def shown():
    """The section of the preferences."""
    layout = Layout()
    panels_install.draw(layout, context())
    return layout


def asked(**given):
    """The question, as one text."""
    values = {"resolution": "512", "retexture": False, "without_gate": False, "source": ""}
    return "\n".join(panels_install.question(SimpleNamespace(**(values | given))))


def test_the_section_says_what_is_there_and_offers_what_can_be_done(local, until):
    assert "Environment: looking…" in shown().texts()
    until(lambda: local.status is not None)
    section = shown()
    assert " ".join(section.texts()[1:]) == (
        "Environment: not installed "
        "Weights: 512: 10.3 GiB missing, all resolutions: 15.1 GiB missing, retexture: 10.9 GiB missing"
    )
    assert section.names() == ["trellis.install_local"]


def test_the_question_names_gigabytes_and_licences_for_each_choice(local, until):
    local.look()
    until(lambda: local.status is not None)
    text = asked()
    assert "PyTorch 2.13.0 for" in text and "About 10.4 GiB of weights are downloaded." in text
    for licence in ("MIT", "DINOv3 License", "Apache-2.0"):
        assert f"Licence {licence}: https://" in text
    assert "Licences of the packages: BSD" in text and "GiB are free" in text
    assert "About 15.9 GiB" in asked(resolution="all", retexture=True)
    assert "taken over from the folder" in asked(source="/somewhere")


@pytest.mark.parametrize(("chosen", "offered"), [("512", "512"), ("1024", "all"), ("1536", "all")])
def test_a_click_offers_the_weights_that_the_chosen_resolution_needs(local, chosen, offered):
    bpy.context.scene.trellis.local_trellis_2.resolution = chosen
    operator = SimpleNamespace(
        bl_label="", properties=SimpleNamespace(is_property_set=lambda _: False), resolution="512"
    )
    manager = SimpleNamespace(invoke_props_dialog=lambda *_, **__: {"RUNNING_MODAL"})
    clicked = SimpleNamespace(scene=bpy.context.scene, window_manager=manager)
    operators_install.TRELLIS_OT_install_local.invoke(operator, clicked, None)
    assert operator.resolution == offered
    assert "PyTorch" in asked(resolution=offered), "the dialog knows the computer when it opens"


def test_without_online_access_the_question_says_what_to_do(local, until):
    local.look()
    until(lambda: local.status is not None)
    assert "may not go online" not in asked()
    bpy.context.preferences.system.use_online_access = False
    assert "may not go online" in asked() and "may not go online" in asked(source="/somewhere")
    bpy.ops.trellis.install_local(part="WEIGHTS")
    until(lambda: not local.at_work)
    assert "Blender may not go online" in local.words


def test_installing_goes_on_in_the_background_and_can_be_watched(local, until, hub, home):
    trouble = hub.trouble[STRUCTURE] = Trouble(after=100_000, hold=True)
    assert bpy.ops.trellis.install_local(part="WEIGHTS") == {"FINISHED"}
    assert local.at_work and not bpy.ops.trellis.install_local.poll()
    until(lambda: bool(local.report and local.report.fraction))
    assert trouble.held.wait(60)
    section = shown()
    assert section.names() == ["trellis.cancel_install"]
    (bar,) = section.texts("progress")
    assert bar.startswith("7/7 Downloading the model · ")
    assert bpy.ops.trellis.cancel_install() == {"FINISHED"}
    until(lambda: not local.at_work)
    assert "cancelled" in " ".join(shown().texts())
    assert not bpy.ops.trellis.cancel_install.poll()

    bpy.ops.trellis.install_local(part="WEIGHTS")
    until(lambda: not local.at_work)
    assert local.words.startswith("TRELLIS.2 is installed.\nU²-Net cannot be had: github.com")
    until(lambda: "512: ready" in " ".join(shown().texts()))
    assert shown().names() == [
        "trellis.install_local",
        "trellis.uninstall_local",
        "trellis.unload_local",
    ]
    assert "About 0.2 GiB" in asked() and "About 0.8 GiB" in asked(retexture=True)

    bpy.ops.trellis.uninstall_local()
    until(lambda: not local.at_work)
    assert not weights.folder(home).exists()


def test_another_server_at_the_sidecars_address_is_told_of(local, until, home):
    def answer(asked):
        body = b'{"version": "1", "busy": false}' if asked.command == "GET" else b"[]"
        asked.send_response(200)
        asked.send_header("Content-Length", str(len(body)))
        asked.end_headers()
        asked.wfile.write(body)

    server = LocalServer(answer)
    server.start()
    address = sidecar.folder(home) / "address.json"
    address.parent.mkdir(parents=True)
    address.write_text(json.dumps({"url": server.url, "token": "t"}))
    assert bpy.ops.trellis.unload_local() == {"FINISHED"}
    until(lambda: bool(local.words))
    assert local.words.startswith("Something unforeseen happened")
    server.stop()


def test_a_gate_is_explained_in_the_section(local, until, monkeypatch, hub):
    monkeypatch.delenv("HF_TOKEN")
    bpy.ops.trellis.install_local(part="WEIGHTS")
    until(lambda: not local.at_work)
    words = " ".join(shown().texts())
    assert "Meta" in words and f"{hub.url}/{GATED}" in words
    bpy.ops.trellis.install_local(part="WEIGHTS", without_gate=True)
    until(lambda: not local.at_work)
    assert local.words.startswith("TRELLIS.2 is installed.\nU²-Net cannot be had: github.com")


def test_the_sidebar_shows_the_way_to_it_and_how_far_it_is(local, until, hub, picture):
    bpy.ops.trellis.add_images(filepath=str(picture))
    bpy.context.scene.trellis.endpoint = "local/trellis-2"
    local.lacking = frozenset({"local/trellis-2"})
    assert orders.missing(bpy.context.scene) in ("", orders.NOT_INSTALLED)
    hub.trouble[STRUCTURE] = Trouble(after=100_000, hold=True)
    bpy.ops.trellis.install_local(part="WEIGHTS")
    layout = Layout()
    panels_install.draw_button(layout, context())
    assert layout.names() == ["trellis.cancel_install"]
    bpy.ops.trellis.cancel_install()
    until(lambda: not local.at_work)
    layout = Layout()
    panels_install.draw_button(layout, context())
    assert layout.names() == ["trellis.install_local"]


def test_switching_the_extension_off_ends_an_installation(local, until, hub):
    trouble = hub.trouble[STRUCTURE] = Trouble(after=100_000, hold=True)
    bpy.ops.trellis.install_local(part="WEIGHTS")
    assert trouble.held.wait(60)
    installs.unregister()
    assert not any(thread.is_alive() for thread in local._threads)


def test_drawing_reads_nothing_but_memory(local, until, monkeypatch):
    local.look()
    until(lambda: local.status is not None)
    asked()  # reads the list of files, once
    monkeypatch.setattr("builtins.open", None)
    monkeypatch.setattr("pathlib.Path.stat", None)
    monkeypatch.setattr("subprocess.run", None)
    assert shown().names() and asked(retexture=True)


def test_in_background_mode_it_waits_and_errors_are_raised(local, hub, home, monkeypatch, capfd):
    monkeypatch.setattr(screen, "waits", lambda: True)
    assert bpy.ops.trellis.install_local(part="WEIGHTS") == {"FINISHED"}
    assert not weights.missing(weights.folder(home), weights.needed("512"))
    assert bpy.ops.trellis.unload_local() == {"FINISHED"}
    assert "No model is loaded" in capfd.readouterr().out
    assert bpy.ops.trellis.uninstall_local() == {"FINISHED"}
    for given, words in (
        ({"source": "/nowhere"}, "There is no folder /nowhere"),
        ({"mirror": "http://mirror.example.org"}, "must begin with https://"),
        ({"python": "/nowhere/python"}, "is no Python that can be started"),
    ):
        with pytest.raises(RuntimeError, match=words):
            bpy.ops.trellis.install_local(part="WEIGHTS", **given)

# SPDX-License-Identifier: GPL-3.0-or-later
"""What all tests share: a home folder of their own (with a name that must be handled everywhere), and one sidecar."""

from __future__ import annotations

import os
import signal
import tempfile
import typing
from collections.abc import Iterator
from pathlib import Path

import keyring
import pytest
from PIL import Image, ImageDraw

from blender_trellis import keychain
from blender_trellis.config import Config
from blender_trellis.services import sidecar
from keychains import Vault
from scene import glbs
from services import fal_standin, runware_standin
from services.fal_standin import FalStandIn
from services.runware_standin import RunwareStandIn

HOME_NAME = "Zuhause mit Größe 家"


def pytest_configure() -> None:
    """Take interrupts again: a shell that starts the tests in the background has them ignored, and children inherit that."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_unconfigure() -> None:
    """Let go of Blender's types before Python ends.

    Blender 4.2's own glTF exporter writes `typing.Tuple[bpy.types.FCurve]`. Typing's caches keep that, and with it `bpy`,
    which as a module crashes when it is freed after Python: a script that imports it and exports is enough.
    """
    for forget in typing._cleanups:  # type: ignore[attr-defined]
        forget()


@pytest.fixture(scope="session", autouse=True)
def _no_foreign_settings() -> Iterator[None]:
    """Nothing of the user's own environment reaches a test."""
    patch = pytest.MonkeyPatch()
    for name in [*os.environ]:
        if name.startswith(("TRELLIS_", "KEYRING_")) or name in ("FAL_KEY", "RUNWARE_API_KEY"):
            patch.delenv(name)
    patch.setenv("PYTHON_KEYRING_BACKEND", "keyring.backends.null.Keyring")
    yield
    patch.undo()


@pytest.fixture(scope="session")
def _shared_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    home = tmp_path_factory.mktemp("sidecar") / HOME_NAME
    yield home
    sidecar.stop(home)


@pytest.fixture
def shared_sidecar(_shared_home: Path) -> tuple[str, str]:
    """Address and token of a real sidecar that tests share; another one where it ended because no test used it for long."""
    return sidecar.ensure(_shared_home)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty home folder, known to this process and its children."""
    path = tmp_path / HOME_NAME
    monkeypatch.setenv("TRELLIS_HOME", str(path))
    return path


@pytest.fixture
def own_sidecar(home: Path) -> Iterator[Path]:
    """The home folder of a sidecar that this test may start, kill and start again."""
    yield home
    sidecar.stop(home)


@pytest.fixture
def config(home: Path, shared_sidecar: tuple[str, str], monkeypatch: pytest.MonkeyPatch) -> Config:
    """A configuration with its own journal and the shared sidecar; children see the same."""
    monkeypatch.setenv("TRELLIS_SIDECAR_URL", shared_sidecar[0])
    monkeypatch.setenv("TRELLIS_SIDECAR_TOKEN", shared_sidecar[1])
    return Config.load()


@pytest.fixture
def vault() -> Iterator[Vault]:
    """A keychain that this process takes for the system's."""
    before, made = keyring.get_keyring(), Vault()
    keyring.set_keyring(made)
    keychain.forget()
    yield made
    made.open.set()
    keyring.set_keyring(before)
    keychain.forget()


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    """A simple subject with alpha: a red disc above a blue square."""
    path = tmp_path / "Ein Männchen 人.png"
    image = Image.new("RGBA", (256, 256))
    draw = ImageDraw.Draw(image)
    draw.rectangle((88, 120, 168, 240), fill=(30, 60, 200, 255))
    draw.ellipse((68, 16, 188, 136), fill=(210, 40, 30, 255))
    image.save(path)
    return path


@pytest.fixture(scope="session")
def small_glb(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A small, whole GLB: a textured box."""
    material = glbs.Material({"baseColor": glbs.picture(1)})
    path = tmp_path_factory.mktemp("model") / "box.glb"
    return glbs.write(path, [glbs.box((1, 2, 1))], material).read_bytes()


@pytest.fixture
def fal(small_glb: bytes, monkeypatch: pytest.MonkeyPatch) -> Iterator[FalStandIn]:
    """A stand-in of fal that this process and its children take for fal."""
    standin = FalStandIn()
    standin.glb = small_glb
    monkeypatch.setenv("TRELLIS_FAL_QUEUE_URL", standin.url("queue"))
    monkeypatch.setenv("TRELLIS_FAL_REST_URL", standin.url("rest"))
    monkeypatch.setenv("TRELLIS_FAL_API_URL", f"{standin.url('api')}/v1")
    monkeypatch.setenv("FAL_KEY", fal_standin.KEY)
    with standin:
        yield standin


@pytest.fixture
def runware(small_glb: bytes, monkeypatch: pytest.MonkeyPatch) -> Iterator[RunwareStandIn]:
    """A stand-in of Runware that this process and its children take for Runware."""
    standin = RunwareStandIn()
    standin.glb = small_glb
    monkeypatch.setenv("TRELLIS_RUNWARE_URL", standin.base)
    monkeypatch.setenv("RUNWARE_API_KEY", runware_standin.KEY)
    with standin:
        yield standin


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The temporary folder of this test alone, so that what is left behind can be seen."""
    path = tmp_path / "temporary files"
    path.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(path))
    return path

# SPDX-License-Identifier: GPL-3.0-or-later
"""What goes to the sidecar for TRELLIS.2: pictures with their transparency, the mesh, and what becomes of a refusal."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from blender_trellis.config import Config
from blender_trellis.errors import RejectedError
from blender_trellis.generation.request import Request
from blender_trellis.generation.runner import Runner
from gate import Gate
from harness import run_trellis

GENERATE, RETEXTURE = "local/trellis-2", "local/trellis-2/retexture"


@pytest.fixture
def bodies() -> list[dict[str, Any]]:
    """What was posted."""
    return []


@pytest.fixture
def gate(shared_sidecar: tuple[str, str], bodies: list[dict[str, Any]]) -> Iterator[Gate]:
    def keep(_headers: object, body: bytes) -> str:
        if body:
            bodies.append(json.loads(body))
        return ""

    with Gate(shared_sidecar[0], keep) as gate:
        yield gate


@pytest.fixture
def runner(config: Config, gate: Gate) -> Iterator[Runner]:
    runner = Runner(replace(config, sidecar_url=gate.url))
    yield runner
    runner.close()


def picture_in(uri: str) -> Image.Image:
    kind, _, text = uri.partition(",")
    assert kind == "data:image/png;base64"
    return Image.open(io.BytesIO(base64.b64decode(text)))


def test_pictures_keep_their_transparency_and_the_mesh_goes_along_whole(
    runner: Runner, gate: Gate, bodies: list[dict[str, Any]], tmp_path: Path, small_glb: bytes
) -> None:
    """The server's answer is a refusal, so that nothing is computed."""
    gate.on("^POST", "before", lambda: httpx.Response(422, json={"detail": "no"}))
    pixels = np.random.default_rng(1).integers(0, 256, (40, 30, 4), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "cut.png")
    wide = Image.new("RGBA", (5000, 2500), (10, 20, 30, 255))
    wide.paste((0, 0, 0, 0), (0, 0, 2500, 2500))
    wide.save(tmp_path / "wide.png")
    Image.new("RGB", (64, 64), "red").save(tmp_path / "photo.jpg")
    (tmp_path / "mesh.glb").write_bytes(small_glb)
    given = [tmp_path / name for name in ("cut.png", "wide.png", "photo.jpg")]
    request = Request(RETEXTURE, given, {"seed": 5}, mesh=tmp_path / "mesh.glb")
    with pytest.raises(RejectedError):
        runner.wait(runner.submit(request))
    (body,) = bodies
    cut, wide_sent, photo = map(picture_in, body["image_urls"])
    assert np.array_equal(np.asarray(cut), pixels)
    assert (wide_sent.size, wide_sent.mode, photo.mode) == ((2048, 1024), "RGBA", "RGB")
    assert wide_sent.getpixel((100, 500)) == (0, 0, 0, 0)
    assert wide_sent.getpixel((2000, 500)) == (10, 20, 30, 255)
    kind, _, text = body["mesh_url"].partition(",")
    assert kind == "data:model/gltf-binary;base64" and base64.b64decode(text) == small_glb
    assert body.keys() == {"image_urls", "mesh_url", "seed", "resolution", "texture_size"}


def test_a_lora_that_the_server_does_not_have_is_the_parameter_to_blame(
    runner: Runner, picture: Path, tmp_path: Path
) -> None:
    gone = str(tmp_path / "gone.safetensors")
    request = Request(GENERATE, [picture] * 3, {"geometry_lora_path": gone})
    with pytest.raises(RejectedError, match="geometry_lora_path: there is no file") as caught:
        runner.wait(runner.submit(request))
    assert caught.value.parameter == "geometry_lora_path"
    assert gone in caught.value.message


def test_the_command_line_lists_and_checks_the_parameters(
    config: Config, picture: Path, tmp_path: Path
) -> None:
    listed = run_trellis("endpoints", GENERATE)
    assert listed.code == 0
    rows = {line.split()[0]: line for line in listed.out.splitlines()}
    assert "512, 1024, 1024_cascade or 1536_cascade" in rows["pipeline_type"]
    assert "a file's path" in rows["sparse_structure_lora_path"]
    assert "a number from 0 to 4" in rows["texture_lora_scale"]
    assert "stochastic or average" in rows["multi_image"] and "49152" in rows["max_num_tokens"]

    def generate(*settings: str) -> tuple[int, str]:
        options = [part for setting in settings for part in ("--set", setting)]
        done = run_trellis("generate", picture, "--endpoint", GENERATE, *options, "--json")
        return done.code, done.last["message"]

    code, message = generate("pipeline_type=1024", "max_num_tokens=1")
    assert (code, "max_num_tokens must be a whole number from 4096" in message) == (2, True)
    code, message = generate(f"texture_lora_path={tmp_path / 'gone.safetensors'}")
    assert (code, "texture_lora_path: there is no file" in message) == (3, True)

# SPDX-License-Identifier: GPL-3.0-or-later
"""A mesh for a service that works on one, from a shell and from a script, with a stand-in of fal."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path

import pytest

from blender_trellis import api
from blender_trellis.errors import EndpointError, InputError
from harness import run_trellis
from services.fal_standin import FalStandIn

RETEXTURE = "fal-ai/trellis-2/retexture"


@pytest.fixture
def mesh(tmp_path: Path, small_glb: bytes) -> Path:
    path = tmp_path / "Stuhl ü.glb"
    path.write_bytes(small_glb)
    return path


@pytest.fixture
def _own_runner(home: Path, fal: FalStandIn) -> Iterator[None]:
    api._runner.cache_clear()
    yield
    api._runner().close()
    api._runner.cache_clear()


def test_generate_sends_the_mesh_with_the_picture(
    home: Path, fal: FalStandIn, picture: Path, mesh: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out.glb"
    done = run_trellis(
        *("generate", picture, "--endpoint", RETEXTURE, "--mesh", mesh, "--set", "seed=5"),
        *("--output", output, "--json"),
    )
    assert (done.code, done.last["state"]) == (0, "ready"), done.err
    (job,) = fal.jobs.values()
    data = base64.b64encode(mesh.read_bytes()).decode()
    assert job.endpoint == RETEXTURE and job.input["seed"] == 5
    assert job.input["mesh_url"] == f"data:model/gltf-binary;base64,{data}"
    assert job.input["image_url"].startswith("data:image/png;base64,")
    assert output.read_bytes() == fal.glb


@pytest.mark.parametrize(
    ("endpoint", "given", "words"),
    [
        (RETEXTURE, None, "works on a mesh. Give a GLB file."),
        (RETEXTURE, "gone.glb", "There is no mesh"),
        (RETEXTURE, "text.glb", "text.glb cannot be used"),
        ("fal-ai/trellis-2", "Stuhl ü.glb", "takes no mesh. Leave it out."),
    ],
)
def test_a_mesh_that_is_wrong_is_told_and_nothing_is_sent(
    home: Path,
    fal: FalStandIn,
    picture: Path,
    mesh: Path,
    tmp_path: Path,
    endpoint: str,
    given: str | None,
    words: str,
) -> None:
    (tmp_path / "text.glb").write_text("no model")
    option = ("--mesh", tmp_path / given) if given else ()
    done = run_trellis("generate", picture, "--endpoint", endpoint, *option, "--json")
    assert done.code == 2 and words in done.last["message"]
    assert not fal.calls


@pytest.mark.usefixtures("_own_runner")
def test_a_script_gives_the_mesh_as_a_path(fal: FalStandIn, picture: Path, mesh: Path) -> None:
    result = api.generate(picture, endpoint=RETEXTURE, mesh=str(mesh), seed=5, texture_size=1024)
    (job,) = fal.jobs.values()
    assert job.input["mesh_url"].startswith("data:model/gltf-binary;base64,")
    assert job.input["texture_size"] == 1024
    assert [path.read_bytes() for path in result.files] == [fal.glb] and result.seeds == [5]
    with pytest.raises(EndpointError, match="works on a mesh"):
        api.generate(picture, endpoint=RETEXTURE)
    with pytest.raises(InputError, match="There is no mesh"):
        api.generate(picture, endpoint=RETEXTURE, mesh="gone.glb")
    assert len(fal.jobs) == 1

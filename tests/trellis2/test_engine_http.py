# SPDX-License-Identifier: GPL-3.0-or-later
"""The local engine through the real sidecar over HTTP: a model is made, whatever is done to it in whichever stage."""

from __future__ import annotations

import asyncio
import io
import json
import os
import re
import signal
import sys
import time
import venv
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest

pytest.importorskip("torch", reason="TRELLIS.2's engine needs torch")

from blender_trellis.endpoints.schema import schemas
from blender_trellis.generation import glb
from blender_trellis.install import environment
from blender_trellis.services import sidecar, wire
from blender_trellis.sidecar import lanes, worker
from blender_trellis.sidecar.engines import TRELLIS2
from blender_trellis.sidecar.lanes import Lane
from blender_trellis.sidecar.worker import Worker
from conftest import HOME_NAME
from harness import run_trellis
from scene import glbs
from trellis2 import checkpoint
from trellis2.made import ENDPOINT, RETEXTURE, extras, picture

QUICK = {
    "seed": 51,
    "resolution": 512,
    "texture_size": 1024,
    "remesh": False,
    "decimation_target": 5000,
    "ss_sampling_steps": 2,
    "shape_slat_sampling_steps": 2,
    "tex_slat_sampling_steps": 2,
}
STAGES = ["image", "structure", "shape", "texture", "mesh"]
SECONDS = 120
"""That no wait here takes, however busy the machine is."""


def _until(there: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + SECONDS
    while not (found := there()):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return found


class Sidecar:
    """A real one, whose engine can be held at a stage."""

    def __init__(self, home: Path, plug: Path) -> None:
        self.home = home
        self.folder = plug
        self._seed = 0
        url, token = sidecar.ensure(home)
        headers = {"Authorization": f"Key {token}"}
        self.client = httpx.Client(base_url=url, headers=headers, timeout=60, trust_env=False)

    def submit(self, endpoint: str = ENDPOINT, **changes: Any) -> dict[str, Any]:
        """A job whose picture and seed no other one has."""
        self._seed += 1
        out = io.BytesIO()
        picture(f"#{self._seed:06x}").save(out, "PNG")
        known = schemas()[endpoint]["properties"]
        body = {name: value for name, value in QUICK.items() if name in known} | changes
        body["image_urls"] = [wire.data_uri(out.getvalue(), "image/png")]
        reply = self.client.post(f"/{endpoint}", json=body)
        assert reply.status_code == 200, reply.text
        ticket: dict[str, Any] = reply.json()
        return ticket

    def status(self, ticket: dict[str, Any]) -> dict[str, Any]:
        found: dict[str, Any] = self.client.get(ticket["status_url"], params={"logs": 1}).json()
        return found

    def result(self, ticket: dict[str, Any]) -> httpx.Response:
        _until(lambda: self.status(ticket)["status"] == "COMPLETED")
        return self.client.get(ticket["response_url"])

    def logs(self, ticket: dict[str, Any]) -> list[str]:
        return [entry["message"] for entry in self.status(ticket)["logs"]]

    def model(self, ticket: dict[str, Any]) -> bytes:
        """The finished model, checked."""
        result = self.result(ticket)
        assert result.status_code == 200, result.text
        data = self.client.get(result.json()["model_glb"]["url"]).content
        path = self.home / "made.glb"
        path.write_bytes(data)
        assert glb.check(path).images in (0, 2)
        return data

    def plug(self, what: str, stage: str) -> Path:
        path = self.folder / f"{what}.{stage}"
        path.touch()
        return path

    def held(self, stage: str) -> int:
        """Wait until the engine is held at `stage`; its process."""
        answer = self.folder / f"at.{stage}"
        pid = int(_until(lambda: answer.exists() and answer.read_text()))
        answer.unlink()
        return pid

    def unplug(self) -> None:
        for path in [*self.folder.iterdir()]:
            path.unlink(missing_ok=True)  # the engine takes some away itself


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sidecar]:
    home = tmp_path_factory.mktemp("engine") / HOME_NAME
    plug = tmp_path_factory.mktemp("plug")
    checkpoint.write(home / "trellis2" / "weights")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(Path(__file__).with_name("plug")))
        patch.setenv("PLUG", str(plug))
        patch.setenv("OMP_NUM_THREADS", "1")
        found = Sidecar(home, plug)
        yield found
        found.client.close()
        sidecar.stop(home)


@pytest.fixture(autouse=True)
def _unplugged(server: Sidecar) -> Iterator[None]:
    """A test that failed holds up no other one."""
    yield
    server.unplug()


def test_a_picture_becomes_a_textured_model(server: Sidecar) -> None:
    ticket = server.submit(tex_slat_sampling_steps=12, remesh=True)
    said = extras(server.model(ticket))
    assert said["engine"] == "trellis-2" and said["seed"] == 51
    assert said["forwards"]["tex_slat_flow_model_512"] == 12
    done = server.status(ticket)
    assert done["progress"]["fraction"] == 1 and done["progress"]["eta"] == 0
    assert "Sampling the structure (CPU)" in server.logs(ticket)
    assert server.logs(ticket)[0].startswith("Computing on the CPU, in ")
    assert "which takes very long: about " in server.logs(ticket)[0]
    assert said["device"] == "CPU" and said["precision"] in ("float32", "bfloat16")


def test_defaults_that_a_body_leaves_out_are_the_endpoints(server: Sidecar) -> None:
    """Only what differs from them is sent."""
    out = io.BytesIO()
    picture("white").save(out, "PNG")
    body = {"image_urls": [wire.data_uri(out.getvalue(), "image/png")], "resolution": 512}
    reply = server.client.post(f"/{ENDPOINT}", json=body | {"untextured": True})
    counted = extras(server.model(reply.json()))["forwards"]
    assert counted["sparse_structure_flow_model"] == 22
    assert counted["shape_slat_flow_model_512"] == 21
    assert "tex_slat_flow_model_512" not in counted


def test_a_worker_loads_each_network_once_where_there_is_plenty_of_memory(server: Sidecar) -> None:
    def loaded() -> list[str]:
        log = (sidecar.folder(server.home) / "start.log").read_text("utf-8")
        return re.findall(r"(\w+): loaded in", log)

    sidecar.unload(server.home)
    (server.folder / "free").write_text("64")
    before = len(loaded())
    server.model(server.submit())
    first = loaded()[before:]
    assert len(first) == len({*first}) == 7
    server.model(server.submit())
    assert loaded()[before:] == first
    server.unplug()
    server.model(server.submit())
    assert sorted(loaded()[before + 7 :]) == sorted(first), "memory is wanted elsewhere"


def test_a_mesh_gets_a_new_texture(server: Sidecar, tmp_path: Path) -> None:
    mesh = glbs.write(tmp_path / "box.glb", [glbs.box((1, 0.04, 0.05))]).read_bytes()
    uri = wire.data_uri(mesh, "model/gltf-binary")
    data = server.model(server.submit(RETEXTURE, mesh_url=uri))
    assert extras(data)["forwards"]["shape_slat_encoder"] == 1


@pytest.mark.parametrize("stage", STAGES)
def test_a_job_can_be_cancelled_in_every_stage(server: Sidecar, stage: str) -> None:
    hold = server.plug("hold", stage)
    ticket = server.submit()
    process = server.held(stage)
    _until(lambda: (server.status(ticket)["progress"] or {}).get("stage") == stage)
    assert server.client.put(ticket["cancel_url"]).status_code == 202
    result = server.result(ticket)
    assert (result.status_code, result.json()["error_type"]) == (499, "client_cancelled")
    hold.unlink()
    server.model(server.submit())
    assert Path(f"/proc/{process}").exists(), "the worker heeded it, and was not ended for it"


def test_a_job_that_does_not_heed_its_cancellation_ends_with_its_worker(server: Sidecar) -> None:
    """And stays cancelled: it is not started again, as one is whose worker ended by itself."""
    deaf = server.plug("deaf", "shape")
    ticket = server.submit()
    process = server.held("shape")
    server.client.put(ticket["cancel_url"])
    assert server.result(ticket).status_code == 499
    assert not Path(f"/proc/{process}").exists()
    deaf.unlink()
    server.model(server.submit())


@pytest.mark.parametrize("stage", STAGES)
def test_a_killed_worker_is_started_again_and_the_job_says_so(server: Sidecar, stage: str) -> None:
    hold = server.plug("hold", stage)
    ticket = server.submit()
    os.kill(server.held(stage), signal.SIGKILL)
    hold.unlink()
    said = extras(server.model(ticket))
    assert any("ended unexpectedly" in line and "memory" in line for line in server.logs(ticket))
    if stage in ("shape", "texture", "mesh"):
        assert "structure" in said["reused"], "what was done before the kill is not done again"
    server.model(server.submit())


def test_a_job_that_kills_its_worker_twice_fails_and_the_next_one_works(server: Sidecar) -> None:
    hold = server.plug("hold", "texture")
    ticket = server.submit()
    for _ in range(2):
        os.kill(server.held("texture"), signal.SIGKILL)
    result = server.result(ticket)
    assert result.status_code == 500
    assert "ended 2 times during this job" in result.json()["detail"]
    assert "perhaps memory ran out. Close other programs" in result.json()["detail"]
    hold.unlink()
    server.model(server.submit())


@pytest.mark.parametrize("stage", STAGES)
def test_memory_that_runs_out_ends_neither_server_nor_worker(server: Sidecar, stage: str) -> None:
    server.plug("oom", stage)
    ticket = server.submit()
    if stage in ("structure", "shape", "texture"):
        said = f"Memory ran out in the {stage} stage: going on with 1024 rows at a time"
        assert extras(server.model(ticket))["lowered"] == [said]
        assert said in server.logs(ticket)
        assert server.result(ticket).json()["notes"].count(said) == 1
    else:  # there is no resolution below 512
        result = server.result(ticket)
        assert result.status_code == 500
        assert f"does not suffice for the {stage} stage" in result.json()["detail"]
    assert extras(server.model(server.submit()))["lowered"] == []


def test_what_was_lowered_is_said_beside_the_finished_model(
    server: Sidecar, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRELLIS_HOME", str(server.home))
    shown = tmp_path / "shown.png"
    picture("#123456").save(shown)
    parameters = [f"--set={name}={value}".lower() for name, value in QUICK.items()]
    server.plug("oom", "texture")
    done = run_trellis(
        "generate", shown, "--endpoint", ENDPOINT, *parameters, "--output", tmp_path / "made.glb"
    )
    assert done.code == 0, done.err
    (note,) = (line for line in done.err.splitlines() if line.startswith("Note: "))
    assert "Memory ran out in the texture stage: going on with 1024 rows at a time." in note


def test_a_gpu_that_fails_is_not_used_again_by_the_same_process(server: Sidecar) -> None:
    """CUDA answers everything with the same error from then on."""
    server.model(server.submit())
    server.plug("broken", "shape")
    hold = server.plug("hold", "structure")
    ticket = server.submit()
    process = server.held("structure")
    hold.unlink()
    result = server.result(ticket)
    assert result.status_code == 500
    said = result.json()["detail"]
    assert "RuntimeError: CUDA error: an illegal memory access was encountered)" in said
    server.model(server.submit())
    assert not Path(f"/proc/{process}").exists()


def test_what_is_wrong_with_the_weights_is_said(server: Sidecar) -> None:
    weights = server.home / "trellis2" / "weights"
    path = checkpoint.path_of(weights, "tex_slat_decoder")
    aside = path.rename(path.with_suffix(".aside"))
    result = server.result(server.submit())
    assert result.status_code == 500
    assert f"{path.name} is not there" in result.json()["detail"]
    aside.rename(path)
    server.model(server.submit())


def test_draft_does_not_wait_for_it(server: Sidecar) -> None:
    hold = server.plug("hold", "shape")
    ticket = server.submit()
    server.held("shape")
    behind = server.submit()
    assert server.status(behind)["queue_position"] == 0
    draft = server.submit("local/draft", decimation_target=5000)
    assert server.result(draft).status_code == 200
    assert server.status(ticket)["status"] == "IN_PROGRESS"
    assert server.client.get("/health").json()["running"] == 1
    hold.unlink()
    server.model(ticket)
    server.model(behind)


def test_its_memory_can_be_had_back_when_it_is_idle_and_only_then(server: Sidecar) -> None:
    hold = server.plug("hold", "structure")
    ticket = server.submit()
    process = Path(f"/proc/{server.held('structure')}")
    assert sidecar.unload(server.home) is False
    hold.unlink()
    server.model(ticket)
    _until(lambda: server.client.get("/health").json()["busy"] is False)
    assert sidecar.unload(server.home) is True
    assert not process.exists()
    assert sidecar.unload(server.home) is False
    server.model(server.submit())


def test_an_idle_worker_ends_by_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lanes, "IDLE_SECONDS", 0.05)

    async def wait() -> None:
        idle = Worker(partial(worker.command, TRELLIS2, tmp_path))
        await idle.start()
        assert idle.is_there
        await Lane().wait(idle)
        assert not idle.is_there

    asyncio.run(wait())


def _environment(home: Path) -> Path:
    """An environment as the installer leaves it, in which this one's packages can be found; its Python."""
    folder = environment.folder(home)
    venv.create(folder / "venv", symlinks=True)
    (packages,) = (folder / "venv").glob("lib/python*/site-packages")
    there = [path for path in sys.path if path.endswith("site-packages")]
    (packages / "tests.pth").write_text("\n".join(there), encoding="utf-8")
    base = Path(sys.executable)
    state = {
        "digest": "",
        "base": str(base),
        "stamp": [base.stat().st_size, base.stat().st_mtime_ns],
        "done": [step.name for step in environment.STEPS],
        "check": {},
    }
    (folder / "install.json").write_text(json.dumps(state), encoding="utf-8")
    python = environment.python(home)
    assert python
    return python


def test_it_runs_in_the_environment_that_was_installed_for_it(own_sidecar: Path) -> None:
    """Which gets the package's folder, and nothing of the server's own path."""
    checkpoint.write(own_sidecar / "trellis2" / "weights")
    python = _environment(own_sidecar)
    found = Sidecar(own_sidecar, own_sidecar)
    try:
        found.model(found.submit())
        pid = json.loads((own_sidecar / "sidecar" / "address.json").read_text("utf-8"))["pid"]
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text("utf-8").split()
        lines = [Path(f"/proc/{child}/cmdline").read_text("utf-8") for child in children]
        (line,) = (line.strip("\0").split("\0") for line in lines if line.startswith(str(python)))
        assert line[1:3] == ["-I", "-c"]
        assert line[-1] == str(Path(worker.__file__).parents[2])
    finally:
        found.client.close()

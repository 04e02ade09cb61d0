# SPDX-License-Identifier: GPL-3.0-or-later
"""Keys are in memory and in the Authorization header of requests to their own service, and nowhere else, whatever goes wrong."""

from __future__ import annotations

import base64
import json
import logging
import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import numpy as np
import pytest
from PIL import Image

from blender_trellis import api, keychain
from blender_trellis.config import KEYS, Config
from blender_trellis.errors import AccessError, TrellisError
from blender_trellis.generation.request import Request
from blender_trellis.generation.runner import Runner
from blender_trellis.services import check_key, sidecar
from gate import Gate
from harness import run_trellis
from keychains import Vault
from services import fal_standin, runware_standin
from services.fal_standin import FalStandIn
from services.fault_stage import Stage
from services.fault_table import ECHO, KEY, SUBMIT, At, Cell, cells, detail, ready
from services.runware_standin import RunwareStandIn

FAL_KEY = "5e0aa6b2-0000-4e1d-8a53-1f0c5d9b7e21:5ecre7f41f41f41f41f4"
RUNWARE_KEY = "rw_5ecre7runwarerunwareru"
DRAFT = {"seed": 5, "resolution": 512, "texture_size": 512, "decimation_target": 5000}


@pytest.fixture(autouse=True)
def _marked_keys(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """Keys that occur nowhere by chance, and every logger of every library at its most talkative."""
    monkeypatch.setattr(fal_standin, "KEY", FAL_KEY)
    monkeypatch.setattr(runware_standin, "KEY", RUNWARE_KEY)
    caplog.set_level(logging.DEBUG)


@pytest.fixture
def raised(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The whole traceback of every error that a runner made an end of a job."""
    seen: list[str] = []
    end = Runner._end

    def listen(self: Runner, job_id: str, error: TrellisError) -> None:
        seen.append("".join(traceback.format_exception(error)))
        end(self, job_id, error)

    monkeypatch.setattr(Runner, "_end", listen)
    return seen


def _forms(key: str) -> Iterator[bytes]:
    """The ways in which a key could lie about, and its secret half alone."""
    for part in {key, key.rpartition(":")[2]}:
        yield part.encode()
        yield part.encode("utf-16-le")
        yield quote(part, safe="").encode()
        for before, mixed in ((0, 0), (1, 2), (2, 3)):  # letters that hang on what stands before
            yield base64.b64encode(bytes(before) + part.encode())[mixed:-4]


def _traces(things: dict[str, str | bytes], *keys: str) -> list[str]:
    """The names of those among `things` in which one of the keys is."""
    forms = [form for key in keys or (FAL_KEY, RUNWARE_KEY) for form in _forms(key)]
    data = {
        name: thing.encode() if isinstance(thing, str) else thing for name, thing in things.items()
    }
    return [name for name, thing in data.items() if any(form in thing for form in forms)]


def _files(folder: Path) -> dict[str, str | bytes]:
    """All files below a folder; of pictures what is written in them, too."""
    things: dict[str, str | bytes] = {}
    for path in folder.rglob("*"):
        if path.is_file():
            things[str(path)] = path.read_bytes()
            if path.suffix == ".png":
                with Image.open(path) as image:
                    things[f"{path}, its metadata"] = repr(image.info)
    return things


def _log(caplog: pytest.LogCaptureFixture) -> dict[str, str | bytes]:
    """All that was logged, as text and as the records that another handler might show."""
    records = {f"record {n}": repr(vars(record)) for n, record in enumerate(caplog.records)}
    return {"log": caplog.text, **records}


@pytest.mark.parametrize(
    ("service", "cell"),
    [pytest.param(service, cell, id=f"{service}-{name}") for service, name, cell in cells()],
)
def test_no_fault_brings_a_key_to_light(
    stage: Stage,
    service: str,
    cell: Cell,
    raised: list[str],
    temporary: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    at_work: dict[str, str | bytes] = {}
    stage.look = lambda: at_work.update(_files(tmp_path))
    played = stage.play(cell)
    assert any(name.endswith("-wal") for name in at_work)
    assert any(record.name.startswith("httpcore") for record in caplog.records)
    things = {
        **at_work,
        **{f"{name}, afterwards": data for name, data in _files(tmp_path).items()},
        **_log(caplog),
        "configuration": repr(stage.config),
        "job": repr(played.job),
        "events": repr(played.events),
        "error": f"{played.error} {played.error!r} {vars(played.error) if played.error else ''}",
        "tracebacks": "".join(raised),
    }
    assert _traces(things) == []
    assert list(temporary.iterdir()) == []
    for call in played.calls:
        assert (call.headers.get("authorization", "").endswith(stage.key)) == (
            call.host not in ("files", "upload")
        )
    strangers = [*played.fetches, *played.elsewhere]
    assert all("authorization" not in call.headers for call in strangers)
    assert _traces({"to strangers": repr(strangers)}) == []


@pytest.mark.parametrize("service", ["fal"])
def test_the_search_finds_a_key_where_one_is(
    stage: Stage, service: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Else the test above could not fail."""
    named = stage.picture.rename(stage.picture.with_name(f"{FAL_KEY.rpartition(':')[2]}.png"))
    stage.request = replace(stage.request, images=[named])
    found: list[str] = []
    stage.look = lambda: found.extend(_traces(_files(tmp_path / stage.config.home.name)))
    played = stage.play((ready(),))
    assert [Path(name).name for name in found] == ["journal.sqlite3-wal"]
    assert _traces(_files(stage.config.home)) == [str(stage.config.home / "journal.sqlite3")]
    logging.getLogger("some.library").debug("sent %s", {"authorization": f"Key {FAL_KEY}"})
    assert {"log", f"record {len(caplog.records) - 1}"} == {*_traces(_log(caplog))}
    encoded = {f"{n}": base64.b64encode(bytes(n) + FAL_KEY.encode() + b"!") for n in range(3)}
    things = {"quoted": quote(FAL_KEY, safe=""), "job": repr(played.job), **encoded}
    assert _traces(things) == [*things]


@pytest.mark.parametrize("service", ["fal", "runware"])
@pytest.mark.parametrize("spoilt", ["{}\n", " {}", "{}\nFAL_KEY", "{}\x00", "{}ü", "a key {}"])
def test_what_cannot_be_a_key_is_refused_without_showing_it(
    stage: Stage, service: str, spoilt: str, raised: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    """As it comes from the preferences. HTTP libraries show the whole header when they complain about one."""
    name = f"{service}_key"
    stage.config = replace(stage.config, **{name: spoilt.format(stage.key)})
    with closing(Runner(stage.config)) as runner:
        with pytest.raises(AccessError, match="no key has") as caught:
            runner.wait(runner.submit(stage.request))
        assert runner.journal.jobs() == []
    with pytest.raises(AccessError, match="no key has"):
        check_key(service, stage.config)
    assert stage.standin.calls == []
    told = "".join([*raised, str(caught.value), repr(vars(caught.value))])
    assert _traces({"told": told, **_log(caplog)}) == []


@pytest.mark.parametrize("service", ["fal", "runware"])
@pytest.mark.parametrize("fault", ["", "broken"])
def test_a_key_in_the_keychain_is_used_and_stays_there(
    stage: Stage,
    service: str,
    fault: str,
    vault: Vault,
    raised: list[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A keychain that fails says the key, in these tests."""
    monkeypatch.delenv(KEYS[service])
    keychain.keep(service, stage.key).result()
    keychain.forget()
    vault.broken = bool(fault)
    events: list[Any] = []
    with closing(Runner(Config.load())) as runner:
        job_id = runner.submit(stage.request)
        if fault:
            with pytest.raises(AccessError, match="KeychainFailure") as caught:
                runner.wait(job_id, events.append)
            events += [caught.value, vars(caught.value)]
            assert stage.standin.calls == [] and runner.journal.jobs() == []
        else:
            events.append(runner.wait(job_id, events.append))
            used = [call.headers.get("authorization", "") for call in stage.standin.calls]
            assert any(header.endswith(stage.key) for header in used)
        things = {"configuration": repr(runner.config), "events": repr(events)}
    for do in (lambda: keychain.keep(service, stage.key), lambda: keychain.remove(service)):
        try:
            keychain.wait(do())
        except AccessError as error:
            things[f"error {len(things)}"] = "".join(traceback.format_exception(error))
    assert len(things) == (4 if fault else 2)
    things["answers"] = repr(keychain._answers)
    assert _traces({**things, "raised": "".join(raised), **_log(caplog), **_files(tmp_path)}) == []


@pytest.mark.parametrize("service", ["fal", "runware"])
def test_the_command_line_takes_the_key_of_the_keychain(
    stage: Stage, service: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    variable, tests = KEYS[service], Path(__file__).parents[1]
    monkeypatch.delenv(variable)
    drawer = tmp_path / "drawer" / "keys.json"
    monkeypatch.setenv("PYTHON_KEYRING_BACKEND", "keychains.Drawer")
    monkeypatch.setenv("KEYRING_PROPERTY_FILE", str(drawer))
    asked = ("generate", stage.picture, "--endpoint", stage.column.endpoint, "--json")
    refused = run_trellis(*asked, cwd=tests)
    assert refused.code == 2
    assert "does not give the key (FileNotFoundError)" in refused.last["message"]
    drawer.parent.mkdir()
    drawer.write_text(json.dumps({f"{keychain.SYSTEM}/{service}": stage.key}), "utf-8")
    made = run_trellis(*asked, cwd=tests)
    assert (made.code, made.last["state"]) == (0, "ready")
    doctor = run_trellis("doctor", "--json", cwd=tests)
    assert doctor.last[variable] == "present, in the keychain"
    assert doctor.last["keychain"] == "keychains Drawer"
    assert "takes the key" in doctor.last[service]
    priced = run_trellis("price", stage.column.endpoint, "--image", stage.picture, cwd=tests)
    assert priced.code == 0
    drawer.unlink()
    ran = [refused, made, doctor, priced]
    things = {f"command {n}": done.out + done.err for n, done in enumerate(ran)}
    assert _traces({**things, **_files(tmp_path)}) == []


@pytest.mark.parametrize("service", ["fal", "runware"])
def test_the_command_line_shows_no_key(
    stage: Stage,
    service: str,
    monkeypatch: pytest.MonkeyPatch,
    temporary: Path,
    tmp_path: Path,
) -> None:
    for variable in ("TMPDIR", "TMP", "TEMP"):
        monkeypatch.setenv(variable, str(temporary))
    asked = ("--endpoint", stage.column.endpoint)
    made = run_trellis("generate", stage.picture, *asked, "--output", tmp_path / "m.glb", "--json")
    assert (made.code, made.last["state"]) == (0, "ready")
    with stage.set_up([At(SUBMIT, detail(400, ECHO)), At(SUBMIT, detail(400, ECHO), skip=1)]):
        front = stage.config.fal_queue_url if service == "fal" else stage.config.runware_url
        variable = {"fal": "TRELLIS_FAL_QUEUE_URL", "runware": "TRELLIS_RUNWARE_URL"}[service]
        monkeypatch.setenv(variable, front)
        refused = [
            run_trellis("generate", stage.picture, *asked, *more) for more in ((), ("--json",))
        ]
    ran = [
        made,
        *refused,
        run_trellis("jobs", "list", "--json"),
        run_trellis("jobs", "show", made.last["job_id"]),
        run_trellis("doctor", "--json"),
        run_trellis("price", stage.column.endpoint, "--image", stage.picture),
    ]
    things = {f"command {n}": done.out + done.err for n, done in enumerate(ran)}
    assert _traces({**things, **_files(tmp_path)}) == []
    assert [path.name for path in temporary.iterdir()] == []


def test_a_scene_and_its_file_hold_no_key(
    home: Path,
    picture: Path,
    temporary: Path,
    tmp_path: Path,
    fal: FalStandIn,
    runware: RunwareStandIn,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bpy = pytest.importorskip("bpy")
    bpy.ops.wm.read_factory_settings(use_empty=True)
    with closing(Runner(Config.load())) as runner:
        jobs = [
            runner.wait(runner.submit(Request(endpoint, [picture])))
            for endpoint in ("fal-ai/trellis-2", "runware/trellis-2")
        ]
    results = [api.result_of(job) for job in jobs]
    things: dict[str, str | bytes] = {}
    for result in results:
        (obj,) = api.import_result(result)
        recipe = json.loads(obj["trellis"])
        assert recipe["job_id"] == result.job_id
        things[f"object of {result.endpoint}"] = repr(list(obj.items()))
        api.write_all(result, tmp_path / f"{result.endpoint.replace('/', ' ')}.blend")
    bpy.ops.wm.save_as_mainfile(filepath=str(tmp_path / "scene.blend"), compress=False)
    things |= _files(tmp_path)
    blends = [data for name, data in things.items() if name.endswith(".blend")]
    assert len(blends) == 3
    for data in blends:  # not compressed, so the search can read it
        assert isinstance(data, bytes) and data[:7] == b"BLENDER" and b"trellis-2" in data
    assert _traces(things) == []
    assert list(temporary.iterdir()) == []
    bpy.ops.wm.read_factory_settings(use_empty=True)


def test_uploads_go_without_a_key(
    home: Path, tmp_path: Path, fal: FalStandIn, caplog: pytest.LogCaptureFixture
) -> None:
    """The address that fal's storage names is signed: it is its own key."""
    noise = np.random.default_rng(1).integers(0, 256, (1200, 1200, 3), np.uint8)
    picture = tmp_path / "noise.png"
    Image.fromarray(noise).save(picture)
    with closing(Runner(Config.load())) as runner:
        runner.wait(runner.submit(Request("fal-ai/trellis-2", [picture])))
    (put,) = [call for call in fal.calls if call.host == "upload"]
    assert "authorization" not in put.headers
    assert _traces({"call": repr(put), **_log(caplog), **_files(tmp_path)}) == []


@pytest.mark.parametrize("refused", [False, True])
def test_the_token_of_the_local_process_stays_with_it(
    config: Config,
    shared_sidecar: tuple[str, str],
    picture: Path,
    refused: bool,
    raised: list[str],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    url, token = shared_sidecar
    echo = ECHO.replace(KEY, token)
    with Gate(url) as gate, closing(Runner(replace(config, sidecar_url=gate.url))) as runner:
        gate.on("^POST", "before", lambda: "drop", times=1)
        gate.on("^GET .*/status", "before", lambda: httpx.Response(500, text=echo), times=1)
        gate.on("^GET /files", "half", lambda: "drop", times=1)
        if refused:
            gate.on("^POST", "before", lambda: httpx.Response(400, json={"detail": echo}))
        events: list[Any] = []
        job_id = runner.submit(Request("local/draft", [picture], DRAFT))
        try:
            runner.wait(job_id, events.append)
        except TrellisError as error:
            assert refused
            events.append(error)
        things = {"events": repr(events), "tracebacks": "".join(raised)}
        things |= {"job": repr(runner.journal.get(job_id)), **_log(caplog), **_files(tmp_path)}
    assert _traces({**things, "configuration": repr(runner.config)}, token) == []
    assert gate.seen


def test_a_local_process_is_started_without_the_keys(
    own_sidecar: Path, picture: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAL_KEY", FAL_KEY)
    monkeypatch.setenv("RUNWARE_API_KEY", RUNWARE_KEY)
    settings = [f"--set={name}={value}" for name, value in DRAFT.items()]
    assert run_trellis("generate", picture, *settings).code == 0
    address = json.loads((own_sidecar / "sidecar" / "address.json").read_text())
    things = _files(own_sidecar)
    if sys.platform == "linux":
        assert (own_sidecar / "sidecar" / "address.json").stat().st_mode & 0o077 == 0
        things["environment"] = Path(f"/proc/{address['pid']}/environ").read_bytes()
        things["command"] = Path(f"/proc/{address['pid']}/cmdline").read_bytes()
        assert os.fsencode(os.environ["TRELLIS_HOME"]) in things["environment"]
    assert _traces(things) == []
    assert [Path(name).name for name in _traces(things, address["token"])] == ["address.json"]
    assert sidecar.health((address["url"], address["token"]))

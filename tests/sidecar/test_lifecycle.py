# SPDX-License-Identifier: GPL-3.0-or-later
"""The sidecar as a process: one per user, found by its file, survives its caller, ends when nobody needs it."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from blender_trellis.errors import SidecarError
from blender_trellis.services import sidecar
from harness import REPOSITORY, run_trellis
from sidecar.studio import command


def _address(home: Path) -> dict[str, object]:
    loaded: dict[str, object] = json.loads((home / "sidecar" / "address.json").read_text("utf-8"))
    return loaded


def test_the_address_file_is_the_users_alone(own_sidecar: Path) -> None:
    url, token = sidecar.ensure(own_sidecar)
    address = _address(own_sidecar)
    assert (address["url"], address["token"]) == (url, token)
    assert len(token) >= 40
    mode = stat.S_IMODE((own_sidecar / "sidecar" / "address.json").stat().st_mode)
    assert mode == 0o600
    assert url.startswith("http://127.0.0.1:")


def test_two_at_once_start_one(own_sidecar: Path) -> None:
    with ThreadPoolExecutor(4) as pool:
        answers = set(pool.map(lambda _: sidecar.ensure(own_sidecar), range(4)))
    assert len(answers) == 1


def test_it_survives_the_process_that_started_it(own_sidecar: Path) -> None:
    code = (
        "import os, sys; from pathlib import Path; from blender_trellis.services import sidecar\n"
        "sidecar.ensure(Path(sys.argv[1])); os.kill(os.getpid(), 9)"
    )
    subprocess.run([sys.executable, "-c", code, str(own_sidecar)], cwd=REPOSITORY, check=False)
    address = sidecar.read_address(own_sidecar)
    assert sidecar.health(address)
    assert sidecar.ensure(own_sidecar) == address


def test_a_stale_address_file_is_no_obstacle(own_sidecar: Path) -> None:
    folder = own_sidecar / "sidecar"
    folder.mkdir(parents=True)
    stale = {"url": "http://127.0.0.1:9", "token": "t", "pid": 1, "version": "0"}
    (folder / "address.json").write_text(json.dumps(stale))
    url, token = sidecar.ensure(own_sidecar)
    assert (url, token) != ("http://127.0.0.1:9", "t")


def test_one_of_another_version_is_replaced_when_idle(
    own_sidecar: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = sidecar.ensure(own_sidecar)
    monkeypatch.setattr(sidecar, "__version__", "9.9.9")
    assert sidecar.ensure(own_sidecar) != before


def test_stop_and_status_by_command(own_sidecar: Path) -> None:
    started = run_trellis("sidecar", "start", "--json")
    assert started.code == 0
    assert started.last["running"] and started.last["url"] == _address(own_sidecar)["url"]
    assert run_trellis("sidecar", "stop", "--json").last == {"stopped": True}
    assert not (own_sidecar / "sidecar" / "address.json").exists()
    assert run_trellis("sidecar", "status", "--json").last == {"running": False, "url": None}
    assert run_trellis("sidecar", "stop", "--json").last == {"stopped": False}


def test_it_ends_when_nobody_calls(tmp_path: Path) -> None:
    process = subprocess.Popen(command(tmp_path, "--idle-seconds", 0.5), cwd=REPOSITORY)
    try:
        assert process.wait(60) == 0
    finally:
        process.kill()
    assert "nobody has called" in (tmp_path / "log.txt").read_text("utf-8")
    assert not (tmp_path / "address.json").exists()


def test_it_ends_and_leaves_nothing_when_the_extension_is_uninstalled(tmp_path: Path) -> None:
    package, home = tmp_path / "extension" / "blender_trellis", tmp_path / "home"
    shutil.copytree(
        REPOSITORY / "blender_trellis", package, ignore=shutil.ignore_patterns("__pycache__")
    )
    seconds = 8.0  # a quarter of them between two looks
    folder = home / "sidecar"
    process = subprocess.Popen(command(folder, "--idle-seconds", seconds), cwd=package.parent)
    try:
        while sidecar.health(sidecar.read_address(home)) is None:
            assert process.poll() is None
            time.sleep(0.05)
        shutil.rmtree(package)
        assert process.wait(60) == 0
    finally:
        process.kill()
    assert not home.exists()


def test_keys_do_not_reach_it(own_sidecar: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAL_KEY", "secret-of-fal")
    monkeypatch.setenv("RUNWARE_API_KEY", "secret-of-runware")
    monkeypatch.setenv("TRELLIS_SIDECAR_TOKEN", "secret-of-another-sidecar")
    sidecar.ensure(own_sidecar)
    environment = Path(f"/proc/{_address(own_sidecar)['pid']}/environ").read_bytes()
    assert b"secret-of" not in environment


def test_why_it_does_not_start_is_said(home: Path) -> None:
    home.mkdir()
    (home / "sidecar").write_text("a file where the folder should be")
    with pytest.raises(SidecarError, match="cannot be started"):
        sidecar.ensure(home)


def test_unfinished_jobs_are_worked_on_by_the_next_one(own_sidecar: Path, picture: Path) -> None:
    """A folder that a killed one left behind: a job it had acknowledged, and one it had not."""
    jobs = own_sidecar / "sidecar" / "jobs"
    sidecar.ensure(own_sidecar)
    sidecar.stop(own_sidecar)
    half = jobs / "half-written"
    half.mkdir()
    (half / "request.json.1.part").write_text("{")
    done = run_trellis("generate", picture, "--json")
    assert done.code == 0
    assert not half.exists()


def test_nothing_is_left_running(own_sidecar: Path) -> None:
    sidecar.ensure(own_sidecar)
    pid = int(str(_address(own_sidecar)["pid"]))
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    assert children
    sidecar.stop(own_sidecar)
    deadline = time.monotonic() + 10
    while any(_runs(int(child)) for child in [*children, pid]):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
        return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"
    except (ProcessLookupError, FileNotFoundError):
        return False

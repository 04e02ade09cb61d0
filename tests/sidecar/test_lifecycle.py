# SPDX-License-Identifier: GPL-3.0-or-later
"""The sidecar as a process: one per user, found by its file, survives its caller, ends when nobody needs it."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import socket
import stat
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from blender_trellis.config import Config
from blender_trellis.errors import GenerationError, RejectedError, SidecarError
from blender_trellis.services import Submission, Ticket, sidecar
from harness import REPOSITORY, run_trellis
from sidecar.studio import command

JOB = "bd373968-8512-4315-a95f-95a4401fea3e"
linux = pytest.mark.skipif(sys.platform != "linux", reason="looks for processes in /proc")


def _address(home: Path) -> dict[str, object]:
    loaded: dict[str, object] = json.loads((home / "sidecar" / "address.json").read_text("utf-8"))
    return loaded


def test_the_address_file_is_the_users_alone(own_sidecar: Path) -> None:
    url, token = sidecar.ensure(own_sidecar)
    address = _address(own_sidecar)
    assert (address["url"], address["token"]) == (url, token)
    assert len(token) >= 40
    if os.name == "posix":  # elsewhere the folder's list of access says so
        mode = stat.S_IMODE((own_sidecar / "sidecar" / "address.json").stat().st_mode)
        assert mode == 0o600
    assert url.startswith("http://127.0.0.1:")


def test_two_at_once_start_one(own_sidecar: Path) -> None:
    with ThreadPoolExecutor(4) as pool:
        answers = set(pool.map(lambda _: sidecar.ensure(own_sidecar), range(4)))
    assert len(answers) == 1


def _started(home: Path, port: int) -> tuple[subprocess.Popen[bytes], str]:
    """A sidecar at this port, which answers, and its token."""
    process = subprocess.Popen(command(home / "sidecar", "--port", port), cwd=REPOSITORY)
    while sidecar.health(sidecar.read_address(home)) is None:
        assert process.poll() is None
        time.sleep(0.05)
    return process, str(_address(home)["token"])


def test_a_token_of_an_earlier_one_at_the_same_port_is_refused_and_the_new_one_is_read(
    own_sidecar: Path,
) -> None:
    """A client that had the earlier one's asks and sends as if nothing had been."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    process, token = _started(own_sidecar, port)

    def replace() -> None:
        nonlocal process, token
        assert sidecar.stop(own_sidecar)
        process.wait(60)
        before = token
        process, token = _started(own_sidecar, port)
        url = f"http://127.0.0.1:{port}"
        statuses = [sidecar.ask(url, each, "/health").status_code for each in (before, token)]
        assert statuses == [401, 200]

    async def ask_and_send() -> None:
        service = sidecar.SidecarService(Config.load())
        try:
            await service.ready()
            await asyncio.to_thread(replace)
            place = f"/local/draft/requests/{JOB}"
            with pytest.raises(GenerationError, match="does not know this job"):
                await service.status(Ticket(JOB, f"{place}/status", place, f"{place}/cancel"))
            await asyncio.to_thread(replace)
            with pytest.raises(RejectedError, match="refuses the request"):
                await service.submit(Submission(JOB, "local/draft", {}))
        finally:
            await service.close()

    try:
        asyncio.run(ask_and_send())
    finally:
        process.kill()
        process.wait()


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


@linux
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


@linux
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

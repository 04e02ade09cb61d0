# SPDX-License-Identifier: GPL-3.0-or-later
"""What goes when the extension has been uninstalled, and what stays; the lock whose file may go."""

from __future__ import annotations

from pathlib import Path

import pytest

from blender_trellis import leftovers
from blender_trellis.home import FileLock


def _left_by_a_sidecar(home: Path) -> Path:
    folder = home / "sidecar"
    for place in (folder / "jobs", folder / "cache", home / "results"):
        place.mkdir(parents=True)
    (folder / "cache" / "stage.npz").write_bytes(b"")
    for name in ("log.txt", "log.txt.1", "start.log", "address.json", "lock"):
        (folder / name).write_text("{}")
    return folder


def test_nothing_stays_of_a_sidecar_that_has_ended(tmp_path: Path) -> None:
    home = tmp_path / "blender_trellis"
    leftovers.remove(_left_by_a_sidecar(home))
    assert not home.exists()
    leftovers.remove(home / "sidecar")
    assert not home.exists()


def test_models_and_jobs_that_nobody_has_collected_stay(tmp_path: Path) -> None:
    folder = _left_by_a_sidecar(tmp_path)
    job, model = folder / "jobs" / "1" / "job.json", tmp_path / "results" / "a.glb"
    job.parent.mkdir()
    for path in (job, model):
        path.write_text("{}")
    leftovers.remove(folder)
    assert {path for path in tmp_path.rglob("*") if path.is_file()} == {job, model}


def test_the_files_of_a_sidecar_that_runs_stay(tmp_path: Path) -> None:
    folder = _left_by_a_sidecar(tmp_path)
    with FileLock(folder / "lock") as lock:
        assert lock.acquire()
        leftovers.remove(folder)
        assert (folder / "address.json").exists() and (folder / "lock").exists()


def test_a_lock_whose_file_goes_while_somebody_waits_for_it_is_not_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fcntl = pytest.importorskip("fcntl", reason="Windows keeps the file of a lock that is held")
    first, second = FileLock(tmp_path / "lock"), FileLock(tmp_path / "lock")
    assert first.acquire()

    def remove_before(descriptor: int, how: int) -> None:
        monkeypatch.undo()
        first.remove()
        fcntl.flock(descriptor, how)

    monkeypatch.setattr(fcntl, "flock", remove_before)
    assert not second.acquire(), "another one would lock the next file of that name"
    assert not list(tmp_path.iterdir())
    assert second.acquire() and not first.acquire()
    second.release()

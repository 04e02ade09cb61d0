# SPDX-License-Identifier: GPL-3.0-or-later
"""The server on a Ray cluster: jobs are carried out there, survive the loss of a machine and of the server, are cancelled there.

`python build.py cluster` runs these where Ray is installed for them; elsewhere they are skipped.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from blender_trellis import doctor
from blender_trellis.config import Config
from cluster.simulated import Cluster, cluster
from sidecar.studio import ANNA, served, tokens
from sidecar.test_metrics import told
from sidecar.test_protocol import BODY

pytest.importorskip("ray", reason="Ray is not installed: python build.py cluster")

SLOW = BODY | {"resolution": 1024, "texture_size": 4096, "decimation_target": 100000}
WORKERS = 'trellis_workers{environment="own",state="%s"}'


@pytest.fixture(scope="module")
def machines() -> Iterator[Cluster]:
    with cluster(1, dashboard=True) as found:
        yield found


class Studio:
    """A server with this cluster, by its client."""

    def __init__(self, home: Path, url: str) -> None:
        self.home = home
        headers = {"Authorization": f"Key {ANNA}"}
        self.http = httpx.Client(base_url=url, headers=headers, timeout=60, trust_env=False)

    def submit(self, body: dict[str, Any], endpoint: str = "local/draft") -> str:
        ticket = self.http.post(f"/{endpoint}", json=body).json()
        return f"/{endpoint}/requests/{ticket['request_id']}"

    def status(self, job: str) -> dict[str, Any]:
        return dict(self.http.get(f"{job}/status", params={"logs": "1"}).json())

    def until(self, job: str, true: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        deadline = time.monotonic() + 120
        while not true(state := self.status(job)):
            assert time.monotonic() < deadline, state
            time.sleep(0.05)
        return state

    def done(self, job: str) -> list[str]:
        """What a job's log says in the end, when its model is there."""
        state = self.until(job, lambda state: state["status"] == "COMPLETED")
        result = self.http.get(job)
        assert result.status_code == 200, result.text
        file = result.json()["model_glb"]
        glb = self.http.get(file["url"]).content
        assert glb[:4] == b"glTF" and len(glb) == file["file_size"]
        return [line["message"] for line in state["logs"]]


def _at_work(state: dict[str, Any]) -> bool:
    return state["status"] == "IN_PROGRESS" and state["progress"] is not None


@contextmanager
def _studio(machines: Cluster, home: Path) -> Iterator[Studio]:
    options = ["--executor", "ray", "--ray-address", machines.address, "--node-home", home / "node"]
    with served(home, *options, "--token-file", tokens(home)) as server:
        studio = Studio(home, server["url"])
        yield studio
        studio.http.close()


@pytest.fixture
def studio(machines: Cluster, tmp_path: Path) -> Iterator[Studio]:
    with _studio(machines, tmp_path) as found:
        yield found


def test_a_model_is_made_and_nothing_of_the_job_stays_on_the_machine(studio: Studio) -> None:
    studio.done(studio.submit(BODY))
    assert list((studio.home / "node" / "sidecar" / "at-work").iterdir()) == []
    state = studio.http.get("/health").json()
    assert (state["executor"], state["workers"]) == ("ray", 1)


def test_the_doctor_says_where_rays_dashboard_is(studio: Studio, tmp_path: Path) -> None:
    config = Config(tmp_path, sidecar_url=str(studio.http.base_url), sidecar_token=ANNA)
    page = httpx.get(doctor._sidecar(config)["ray dashboard"], trust_env=False)
    assert page.status_code == 200 and "<title>Ray Dashboard</title>" in page.text


def test_a_picture_that_is_none_is_refused_as_it_is_here(studio: Studio) -> None:
    job = studio.submit(BODY | {"image_urls": ["data:image/png;base64,AAAA"]})
    studio.until(job, lambda state: state["status"] == "COMPLETED")
    assert studio.http.get(job).status_code == 422


def test_a_cancellation_reaches_the_machine(studio: Studio) -> None:
    job = studio.submit(SLOW)
    studio.until(job, _at_work)
    assert studio.http.put(f"{job}/cancel").status_code == 202
    studio.until(job, lambda state: state["status"] == "COMPLETED")
    assert studio.http.get(job).status_code == 499
    studio.done(studio.submit(BODY))


def test_a_job_of_a_server_that_is_killed_is_carried_out_by_the_next(
    machines: Cluster, tmp_path: Path
) -> None:
    with _studio(machines, tmp_path) as studio:
        jobs = [studio.submit(SLOW), studio.submit(BODY)]
        studio.until(jobs[0], _at_work)
    with _studio(machines, tmp_path) as studio:
        for job in jobs:
            studio.done(job)


def test_a_job_that_needs_what_no_machine_has_says_so_and_can_be_cancelled(
    studio: Studio, tmp_path: Path
) -> None:
    why = "Waiting for a machine with a GPU: the Ray cluster has none"
    studio.done(studio.submit(BODY))  # so the cluster has been looked at
    job = studio.submit({"image_urls": BODY["image_urls"]}, "local/trellis-2")
    state = studio.status(job)
    assert (state["status"], state["waits_for"]) == ("IN_QUEUE", why)
    assert [line["message"] for line in state["logs"]] == [why]
    config = Config(tmp_path, sidecar_url=str(studio.http.base_url), sidecar_token=ANNA)
    assert doctor._sidecar(config)["waiting jobs"] == why
    assert studio.http.put(f"{job}/cancel").status_code == 202
    assert studio.status(job)["status"] == "COMPLETED"


def test_machines_that_cannot_work_are_given_no_jobs_and_say_why(
    machines: Cluster, tmp_path: Path
) -> None:
    in_the_way = tmp_path / "node" / "sidecar"
    in_the_way.parent.mkdir()
    in_the_way.write_text("no folder", "utf-8")
    with _studio(machines, tmp_path) as studio:
        job = studio.submit(BODY)
        why = studio.until(job, lambda state: "cannot write" in state["waits_for"])["waits_for"]
        assert why.startswith("Waiting for a machine that can work: ") and str(in_the_way) in why
        config = Config(tmp_path, sidecar_url=str(studio.http.base_url), sidecar_token=ANNA)
        assert str(in_the_way) in doctor._sidecar(config)["machines that cannot work"]
        assert studio.status(job)["status"] == "IN_QUEUE"


def test_what_runs_is_finished_on_a_machine_that_is_drained_and_the_next_job_runs_elsewhere(
    machines: Cluster, studio: Studio
) -> None:
    (left,) = [each for each in machines.alive() if each in machines.added]
    running = studio.submit(SLOW)
    studio.until(running, _at_work)
    machines.drain(left)
    waiting = studio.submit(BODY)
    assert "Starting again" not in studio.done(running)
    machines.add()
    studio.done(waiting)
    deadline = time.monotonic() + 60
    while left in machines.alive():
        assert time.monotonic() < deadline
        time.sleep(0.2)


def test_a_job_whose_machine_dies_is_run_again_elsewhere_and_says_so(
    machines: Cluster, studio: Studio
) -> None:
    (lost,) = [each for each in machines.alive() if each in machines.added]
    job = studio.submit(SLOW)
    studio.until(job, _at_work)
    machines.kill(lost)
    machines.add()
    said = studio.done(job)
    left = "Its machine left the cluster, or its process there ended."
    assert f"The job was interrupted. {left}" in said
    assert "Starting again" in said


def test_an_idle_machine_that_dies_is_no_idle_worker_any_more(
    machines: Cluster, studio: Studio
) -> None:
    studio.done(studio.submit(BODY))

    def until(idle: int) -> dict[str, float]:
        deadline = time.monotonic() + 60
        while (figures := told(studio.http.get("/metrics").text))[WORKERS % "idle"] != idle:
            assert time.monotonic() < deadline
            time.sleep(0.1)
        return figures

    until(idle=1)
    (lost,) = [each for each in machines.alive() if each in machines.added]
    machines.kill(lost)
    figures = until(idle=0)
    assert (figures[WORKERS % "away"], figures["trellis_workers_lost_total"]) == (1, 0)

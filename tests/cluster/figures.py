# SPDX-License-Identifier: GPL-3.0-or-later
"""What a cluster of simulated machines does with many Draft jobs: how fast, and that each is begun, in whose turn, and delivered
as often as it must be.

The machines are processes of this computer with a CPU each, beside the server and this client: the ratio of two machines to one
is that of this computer, and no measurement of a network. `python build.py cluster` runs it.
"""

from __future__ import annotations

import os
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx

sys.path.insert(0, str(Path(__file__).parents[2]))
sys.path.insert(0, str(Path(__file__).parents[1]))

from cluster.simulated import Cluster, cluster
from sidecar.studio import ANNA, BERT, served, tokens
from sidecar.test_protocol import BODY

JOBS = int(os.environ.get("CLUSTER_JOBS", "200"))
MANY, FEW = 100, 5
PORT = 18443
LOOK_SECONDS = 0.25


class Client:
    """Somebody with a token, who sends jobs and collects them."""

    def __init__(self, token: str) -> None:
        self.http = httpx.Client(
            base_url=f"http://127.0.0.1:{PORT}",
            headers={"Authorization": f"Key {token}"},
            timeout=60,
            trust_env=False,
        )
        self.seeds: dict[str, int] = {}
        self.collected: list[str] = []

    def submit(self, count: int) -> None:
        for seed in range(count):
            ticket = self.http.post("/local/draft", json=BODY | {"seed": seed}).json()
            self.seeds[f"/local/draft/requests/{ticket['request_id']}"] = seed

    def waiting(self) -> int:
        """How many jobs of the whole server are not done; a server that is just being started again has all of them."""
        try:
            state = self.http.get("/health").json()
        except httpx.TransportError:
            return len(self.seeds)
        return int(state["queued"] + state["running"])

    def collect(self) -> None:
        """Fetch each model, check that it is the one that was asked for, and have the server forget it."""
        for job, seed in self.seeds.items():
            result = self.http.get(job).json()
            assert result["seed"] == seed, result
            glb = self.http.get(result["model_glb"]["url"]).content
            assert glb[:4] == b"glTF" and len(glb) == result["model_glb"]["file_size"]
            assert self.http.delete(job).status_code == 200
            assert self.http.get(job).status_code == 404
            self.collected.append(job)
        assert len(set(self.collected)) == len(self.seeds)

    def figure(self, name: str) -> int:
        """One of the server's figures for Prometheus."""
        lines = self.http.get("/metrics").text.splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith(f"{name} "))


def _serve(machines: Cluster, home: Path) -> Any:
    home.mkdir(exist_ok=True)
    options = ["--executor", "ray", "--ray-address", machines.address, "--port", str(PORT)]
    return served(home, *options, "--node-home", home / "node", "--token-file", tokens(home))


def _warm(client: Client, workers: int) -> None:
    """Until so many workers have made a model each."""
    warming = Client(BERT)
    _until(lambda: warming.http.get("/health").json()["workers"] >= workers)
    warming.submit(4 * workers)
    _until(lambda: client.waiting() == 0)
    warming.collect()


def _until(true: Callable[[], bool], seconds: float = 900) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(LOOK_SECONDS)


def throughput(machines: Cluster, home: Path, workers: int) -> float:
    """Jobs a second."""
    with _serve(machines, home):
        client = Client(ANNA)
        _warm(client, workers)
        before = client.figure("trellis_job_starts_total")
        began = time.monotonic()
        client.submit(JOBS)
        _until(lambda: client.waiting() == 0)
        took = time.monotonic() - began
        client.collect()
        starts = client.figure("trellis_job_starts_total") - before
    assert starts == len(client.collected) == JOBS
    rate = JOBS / took
    print(
        f"{workers} machine(s): {JOBS} jobs in {took:.1f} s, {rate:.2f} a second; "
        f"begun {starts}, delivered {len(client.collected)}"
    )
    return rate


def machine_lost(machines: Cluster, home: Path) -> None:
    """A machine's plug is pulled half-way."""
    with _serve(machines, home):
        client = Client(ANNA)
        _warm(client, 2)
        before = client.figure("trellis_job_starts_total")
        client.submit(JOBS)
        _until(lambda: client.waiting() <= JOBS // 2)
        alive = machines.alive()
        machines.kill(next(each for each in machines.added if each in alive))
        _until(lambda: client.waiting() == 0)
        client.collect()
        starts = client.figure("trellis_job_starts_total") - before
        lost = client.figure("trellis_workers_lost_total")
    assert lost <= 1 and starts == JOBS + lost and len(client.collected) == JOBS
    # A machine that is killed at work leaves the job's folder there
    at_work = home / "node" / "sidecar" / "at-work"
    _until(lambda: len([*at_work.iterdir()]) <= lost, seconds=30)
    print(
        f"one of 2 machines killed: {lost} worker(s) lost at work; begun {starts}, delivered {len(client.collected)} of {JOBS}"
    )


def server_lost(machines: Cluster, home: Path) -> None:
    """The server is killed half-way, and started again."""
    client = Client(ANNA)
    with _serve(machines, home) as server:
        client.submit(JOBS)
        _until(lambda: client.waiting() <= JOBS // 2)
        os.kill(server["pid"], signal.SIGKILL)
    left = sum(
        '"COMPLETED"' not in path.read_text("utf-8")
        for path in home.glob("sidecar/jobs/*/job.json")
    )
    with _serve(machines, home):
        _until(lambda: client.waiting() == 0)
        client.collect()
        starts = client.figure("trellis_job_starts_total")
    assert starts == left > 0 and len(client.collected) == JOBS
    print(
        f"server killed: {left} jobs were left, {starts} begun by the next one, delivered {len(client.collected)} of {JOBS}"
    )


def turns(machines: Cluster, home: Path, second: str, name: str) -> int:
    """How long the few jobs of one wait behind the many of another; how many of those are done then."""
    with _serve(machines, home):
        first, then = Client(ANNA), Client(second)
        _warm(first, 1)
        first.submit(MANY)
        began = time.monotonic()
        then.submit(FEW)
        waits: dict[str, float] = {}

        def all_done() -> bool:
            for job in then.seeds.keys() - waits.keys():
                if then.http.get(f"{job}/status").status_code == 200:
                    waits[job] = time.monotonic() - began
            return len(waits) == FEW

        _until(all_done)
        done = sum(first.http.get(f"{job}/status").status_code == 200 for job in first.seeds)
        then.collect()
        for job in first.seeds:  # done or not: it is of no interest any more
            first.http.put(f"{job}/cancel")
        _until(lambda: first.waiting() == 0)
    longest, middle = max(waits.values()), statistics.median(waits.values())
    print(
        f"{name}: {FEW} jobs behind {MANY} are done after {longest:.1f} s (median {middle:.1f} s), with {done}"
    )
    return done


def main() -> None:
    """All of it."""
    with tempfile.TemporaryDirectory() as scratch, cluster(1) as machines:
        home = Path(scratch)
        one = throughput(machines, home / "one", 1)
        assert turns(machines, home / "apart", BERT, "two clients") < MANY // 2
        alike = turns(machines, home / "alike", ANNA, "as one client, first come first served")
        assert alike == MANY
        machines.add()
        two = throughput(machines, home / "two", 2)
        print(
            f"ratio of 2 machines to 1: {two / one:.2f} ({os.cpu_count()} CPUs in all, load {os.getloadavg()[0]:.1f})"
        )
        server_lost(machines, home / "server")
        machine_lost(machines, home / "machine")


if __name__ == "__main__":
    main()

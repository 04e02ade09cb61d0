# SPDX-License-Identifier: GPL-3.0-or-later
"""A Ray cluster whose machines are processes of this computer, with a CPU each; beside them a head that carries out nothing.

It lives in a process of its own (`main`), which is told what to do in lines, since Ray takes a process for itself.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_STORE = {"object_store_memory": 150 * 2**20}


class Cluster:
    """The cluster, from outside."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self.address = str(self._answer())
        self.added: list[str] = []

    def add(self) -> str:
        """One more machine; its id."""
        self.added.append(str(self._ask("add")))
        return self.added[-1]

    def kill(self, machine: str) -> None:
        """Pull a machine's plug."""
        self._ask("kill", machine)

    def drain(self, machine: str) -> None:
        """Empty a machine, as docs/studio.md says."""
        ray = Path(sys.executable).with_name("ray")
        command = [ray, "drain-node", "--address", self.address, "--node-id", machine]
        command += ["--reason", "DRAIN_NODE_REASON_PREEMPTION", "--reason-message", "service"]
        subprocess.run(command, check=True, capture_output=True)

    def alive(self) -> list[str]:
        """The ids of the machines."""
        return list(self._ask("alive"))

    def _ask(self, *words: str) -> Any:
        assert self._process.stdin
        self._process.stdin.write(json.dumps(words) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> Any:
        assert self._process.stdout
        for line in self._process.stdout:
            if line.startswith("answer "):
                return json.loads(line.removeprefix("answer "))
        raise AssertionError("the cluster has ended")


@contextmanager
def cluster(machines: int, *, dashboard: bool = False) -> Iterator[Cluster]:
    """A cluster with so many machines, and Ray's dashboard where it is wanted."""
    with subprocess.Popen(
        [sys.executable, __file__, *["dashboard"] * dashboard],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"RAY_USAGE_STATS_ENABLED": "0"},
    ) as process:
        found = Cluster(process)
        for _ in range(machines):
            found.add()
        yield found


def main() -> None:
    """The cluster itself; does what the lines on standard input say, and ends with them."""
    import ray
    from ray.cluster_utils import Cluster as Simulated

    head = {"num_cpus": 0, "include_dashboard": "dashboard" in sys.argv, **_STORE}
    simulated = Simulated(initialize_head=True, head_node_args=head)
    ray.init(simulated.address, log_to_driver=False)
    _say(simulated.address)
    nodes: dict[str, Any] = {}
    for line in sys.stdin:
        word, *rest = json.loads(line)
        if word == "add":
            node = simulated.add_node(num_cpus=1, **_STORE)
            nodes[node.node_id] = node
            _say(node.node_id)
        elif word == "kill":
            simulated.remove_node(nodes.pop(rest[0]), allow_graceful=False)
            _say("killed")
        else:
            _say([each["NodeID"] for each in ray.nodes() if each["Alive"]])
    ray.shutdown()
    simulated.shutdown()


def _say(what: Any) -> None:
    sys.stdout.write(f"answer {json.dumps(what)}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()

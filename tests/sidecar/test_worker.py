# SPDX-License-Identifier: GPL-3.0-or-later
"""The server's side of a worker process."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

from blender_trellis.sidecar.worker import Worker


def test_the_exit_code_of_a_worker_that_dies_is_its_own(tmp_path: Path) -> None:
    """Its pipes are closed some time before it has ended, and it is not to be killed in between."""
    dying = "import os, time; os.close(1); time.sleep(0.3); os._exit(7)"

    async def events() -> list[dict[str, Any]]:
        worker = Worker(lambda: [sys.executable, "-c", dying])
        return [event async for event in worker.run("1", "local/draft", tmp_path)]

    assert asyncio.run(events()) == [{"id": "1", "event": "died", "why": "Its exit code was 7."}]


def test_a_job_that_is_cancelled_while_its_worker_starts_is_not_begun(tmp_path: Path) -> None:
    done = {"id": "1", "event": "done"}
    working = f"input(); print({json.dumps(done)!r})"

    async def events() -> list[dict[str, Any]]:
        worker = Worker(lambda: [sys.executable, "-c", working])
        asyncio.get_running_loop().call_soon(worker.cancel, "1")
        heard = [event async for event in worker.run("1", "local/draft", tmp_path)]
        await worker.stop()
        return heard

    assert asyncio.run(events()) == [{"id": "1", "event": "failed", "kind": "cancelled"}]

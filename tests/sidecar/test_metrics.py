# SPDX-License-Identifier: GPL-3.0-or-later
"""What Prometheus is told."""

from __future__ import annotations

import re
import sys
import time
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from blender_trellis import doctor
from blender_trellis.config import Config
from blender_trellis.sidecar.metrics import Family, Gpu, gpu_samples, gpus
from sidecar.studio import ANNA, served, tokens
from sidecar.test_protocol import BODY

_SAMPLE = re.compile(r'([a-z_]+)(\{(?:[a-z_]+="[^"]*",?)*\})? (\S+)')


def told(text: str) -> dict[str, float]:
    """Every sample by its name and labels; each line is one, or a comment in front of those that it is about."""
    found: dict[str, float] = {}
    family = ""
    for line in text.splitlines():
        if line.startswith("# "):
            family = line.split()[2]
            continue
        sample = _SAMPLE.fullmatch(line)
        assert sample and sample[1].startswith(family), line
        found[sample[1] + (sample[2] or "")] = float(sample[3])
    return found


def test_jobs_stages_and_workers_are_told_to_who_has_a_token(tmp_path: Path) -> None:
    with served(tmp_path, "--token-file", tokens(tmp_path)) as server:
        url = server["url"]
        assert httpx.get(f"{url}/metrics", trust_env=False).status_code == 401
        headers = {"Authorization": f"Key {ANNA}"}
        with httpx.Client(base_url=url, headers=headers, timeout=60, trust_env=False) as client:
            done = client.post("/local/draft", json=BODY).json()
            wrong = BODY | {"image_urls": ["data:image/png;base64,AAAA"]}
            failed = client.post("/local/draft", json=wrong).json()
            for ticket in (done, failed):
                while client.get(ticket["status_url"]).status_code == 202:
                    time.sleep(0.02)
            reply = client.get("/metrics")
        assert reply.headers["content-type"].startswith("text/plain; version=0.0.4")
        figures = told(reply.text)
        states = {
            state: figures[f'trellis_jobs{{state="{state}"}}']
            for state in ("in_queue", "in_progress", "completed", "failed")
        }
        assert states == {"in_queue": 0, "in_progress": 0, "completed": 1, "failed": 1}
        assert figures["trellis_job_starts_total"] == 2
        assert figures["trellis_workers_lost_total"] == 0
        assert figures['trellis_queue_length{environment="own"}'] == 0
        assert figures['trellis_workers{environment="own",state="idle"}'] == 1
        assert figures['trellis_workers{environment="trellis2",state="away"}'] == 1
        counts = [value for name, value in figures.items() if "stage_seconds_count" in name]
        assert counts and set(counts) == {1}

        host = url.removeprefix("http://")
        config = Config(tmp_path, sidecar_url=url, sidecar_token=ANNA)
        found = doctor._sidecar(config)["sidecar"]  # all of `examine` asks services too
        assert found.startswith(f"{host} answers, version")
        assert found.endswith("2 workers (local), 0 jobs wait")
        wrong_token = replace(config, sidecar_token="token-of-nobody-0123456789")
        refused = doctor._sidecar(wrong_token)["sidecar"]
        assert refused.startswith(f"{host} answers 401")
        assert "token-of-nobody" not in refused


def test_a_label_may_say_anything() -> None:
    family = Family("x", "gauge", "Something.", [({"a": 'say "no"\\\nyes'}, 0.5), ({}, 3)])
    assert str(family).splitlines()[2:] == [
        'trellis_x{a="say \\"no\\"\\\\\\nyes"} 0.5',
        "trellis_x 3",
    ]


@pytest.mark.skipif(sys.platform == "win32", reason="the stand-in of the tool is a shell script")
@pytest.mark.parametrize(
    ("says", "used"),
    [
        (
            "echo 'GPU-1, NVIDIA X, 1024, 8192'; echo 'GPU-2, NVIDIA X, 5, 8192'",
            [2.0**30, 5 * 2.0**20],
        ),
        ("echo 'GPU-1, NVIDIA GB10, [N/A], [N/A]'", []),
        ("echo 'No devices were found'; exit 6", []),
    ],
)
def test_graphics_cards_are_asked_of_nvidias_tool(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, says: str, used: list[float]
) -> None:
    tool = tmp_path / "nvidia-smi"
    tool.write_text(f"#!/bin/sh\n{says}\n", "utf-8")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    assert [gpu.used for gpu in gpus()] == used


def test_a_card_that_two_workers_tell_of_counts_once() -> None:
    gpu = Gpu("GPU-1", "X", "here", 1, 2)
    assert [value for _, value in gpu_samples([gpu, gpu])] == [1, 2]

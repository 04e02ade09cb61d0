# SPDX-License-Identifier: GPL-3.0-or-later
"""A share of the long haul: too short for memory to tell anything, long enough for what may not grow at all."""

from pathlib import Path

import pytest

from haul import haul
from haul.usage import PROC


@pytest.mark.skipif(not (PROC / "self" / "smaps_rollup").exists(), reason="asks Linux")
def test_jobs_leave_no_handle_thread_or_temporary_file_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRELLIS_HOME", "")
    monkeypatch.setenv("TMPDIR", "")
    monkeypatch.setattr(haul, "AT_ONCE", 2)
    samples = haul.one("runner", 10)
    assert len(samples) == 5
    assert not [grown for grown in haul.judge(samples) if "MiB" not in grown]
    assert samples[-1]["sidecar's temporary files"] == 0


def test_what_grew_is_named_and_a_warm_up_is_not() -> None:
    flat = {"worker MiB": 100.0, "worker threads": 3.0, "worker handles": 3.0, "results KiB": 0.0}
    samples = [flat | {"results KiB": 100.0 * each} for each in range(20)]
    samples[0]["worker MiB"], samples[9]["worker threads"] = 50.0, 9.0
    assert not haul.judge(samples)
    for each in samples[10:]:
        each["worker MiB"], each["worker handles"], each["worker threads"] = 105.5, 4.0, 9.0
    assert haul.judge(samples) == [
        "worker MiB: 100.0, in the end 105.5",
        "worker threads: 3.0, in the end 9.0",
        "worker handles: 3.0, in the end 4.0",
    ]

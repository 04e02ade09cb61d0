# SPDX-License-Identifier: GPL-3.0-or-later
"""Progress of any engine: a fraction that never falls, a time left that comes from work alone, a heartbeat."""

from __future__ import annotations

import threading

import pytest

from blender_trellis.sidecar.engines import stages
from blender_trellis.sidecar.engines.stages import Cancelled, Progress, Report, Stage

PLAN = [Stage("shape", 4, 30), Stage("texture", 2, 10), Stage("mesh", 10, 10)]


def _progress(reports: list[Report]) -> Progress:
    return Progress(PLAN, reports.append, lambda: False)


def test_shares_and_steps_give_the_fraction() -> None:
    reports: list[Report] = []
    progress = _progress(reports)
    for stage, step in (("shape", 0), ("shape", 1), ("shape", 4), ("texture", 1), ("mesh", 10)):
        progress.step(stage, step)
    assert [r.fraction for r in reports] == pytest.approx([0, 0.15, 0.6, 0.7, 1])


def test_what_is_ready_made_counts_for_nothing() -> None:
    reports: list[Report] = []
    progress = _progress(reports)
    progress.step("shape", 4, ready_made=True)
    progress.step("texture", 1, ready_made=True)
    progress.step("texture", 2)
    progress.step("mesh", 5)
    # half of the texture and the mesh are left: 5 and 10
    assert [r.fraction for r in reports] == pytest.approx([0, 0, 5 / 15, 10 / 15])
    assert [r.step for r in reports] == [4, 1, 2, 5]


def test_everything_ready_made_is_everything_done() -> None:
    reports: list[Report] = []
    progress = _progress(reports)
    for stage in PLAN:
        progress.step(stage.name, stage.steps, ready_made=True)
    assert reports[-1].fraction == 1


def test_the_fraction_never_falls_when_a_share_is_corrected_or_a_stage_begins_again() -> None:
    reports: list[Report] = []
    progress = _progress(reports)
    progress.step("shape", 4)
    progress.expect("texture", 100)
    progress.step("texture", 1)
    progress.step("shape", 1)
    progress.step("mesh", 10)
    fractions = [report.fraction for report in reports]
    assert fractions == sorted(fractions) and fractions[-1] == 1


def test_the_time_left_is_what_the_work_so_far_took(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [100.0]
    monkeypatch.setattr(stages.time, "monotonic", lambda: clock[0])
    reports: list[Report] = []
    progress = _progress(reports)
    progress.step("shape", 0)
    clock[0] += 30
    progress.step("shape", 2)
    progress.step("mesh", 10)
    assert reports[0].eta is None
    assert reports[1].eta == pytest.approx(70)
    assert reports[2].eta == 0


def test_a_heartbeat_repeats_the_last_report_while_a_step_is_long() -> None:
    reports: list[Report] = []
    enough = threading.Event()

    def listen(report: Report) -> None:
        reports.append(report)
        if len(reports) == 4:
            enough.set()

    progress = Progress(PLAN, listen, lambda: False)
    with progress.heartbeat(0.02):
        progress.step("shape", 1, "Sampling the shape")
        assert enough.wait(30)
    count = len(reports)
    assert {(r.stage, r.step, r.message) for r in reports} == {("shape", 1, "Sampling the shape")}
    lefts = [report.eta for report in reports]
    assert lefts == sorted(lefts, reverse=True), "time goes by"  # type: ignore[type-var]
    assert threading.active_count() == 1 and len(reports) == count, "it ends with the block"


def test_a_note_is_told_in_place_of_the_last_message() -> None:
    reports: list[Report] = []
    progress = _progress(reports)
    progress.note("nothing to add it to")
    progress.step("shape", 3, "Sampling")
    progress.note("Memory ran out")
    assert [(r.step, r.message) for r in reports] == [(3, "Sampling"), (3, "Memory ran out")]


def test_a_cancelled_job_ends_at_its_next_step_or_check() -> None:
    progress = Progress(PLAN, lambda _: None, lambda: True)
    for ask in (progress.check, lambda: progress.step("shape", 1)):
        with pytest.raises(Cancelled):
            ask()

# SPDX-License-Identifier: GPL-3.0-or-later
"""Whose turn it is: clients one after another, and the jobs of one in the order they came."""

from __future__ import annotations

import uuid

from blender_trellis.sidecar.lanes import Lane
from blender_trellis.sidecar.store import Job


def _jobs(clients: str) -> list[Job]:
    """A job for each letter, which names its client."""
    return [Job(str(uuid.uuid4()), "local/draft", 0.0, client=client) for client in clients]


def _served(lane: Lane, waiting: list[Job], count: int) -> str:
    """The clients of the next jobs; they no longer wait then."""
    served = ""
    for _ in range(count):
        job = lane.take(waiting)
        assert job
        waiting.remove(job)
        served += job.client
    return served


def test_one_who_comes_behind_a_hundred_waits_for_one() -> None:
    lane, waiting = Lane(), _jobs("a" * 100)
    assert _served(lane, waiting, 3) == "aaa"
    waiting += _jobs("bbbbb")
    assert _served(lane, waiting, 12) == "bababababaaa"


def test_the_jobs_of_one_client_go_as_they_came() -> None:
    lane, waiting = Lane(), _jobs("aaaa")
    came = list(waiting)
    assert [lane.take(waiting[at:]) for at in range(4)] == came


def test_who_had_a_turn_longest_ago_is_next_whatever_the_others_bring() -> None:
    lane, waiting = Lane(), _jobs("aabbcc")
    assert _served(lane, waiting, 4) == "abca"
    waiting += _jobs("bbbb")
    assert _served(lane, waiting, 6) == "bcbbbb"


def test_the_order_that_is_told_is_the_one_that_comes() -> None:
    lane, waiting = Lane(), _jobs("aaabacbccb")
    _served(lane, waiting, 2)
    told = lane.order(waiting)
    taken = []
    while job := lane.take(waiting):
        waiting.remove(job)
        taken.append(job)
    assert taken == told


def test_nobody_waits() -> None:
    assert Lane().take([]) is None

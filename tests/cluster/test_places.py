# SPDX-License-Identifier: GPL-3.0-or-later
"""A place on a cluster, as its machine is lost, left or sick; the cluster itself is not needed for that."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("ray", reason="Ray is not installed: python build.py cluster")

from blender_trellis.sidecar import ray_executor
from blender_trellis.sidecar.engines import OWN

HERE, THERE = "1" * 56, "2" * 56


class Remote:
    """An actor's method, which `does` something."""

    def __init__(self, does: Callable[..., Any]) -> None:
        self.remote = does


@pytest.fixture
def killed(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The actors that were ended."""
    found: list[Any] = []
    monkeypatch.setattr(ray_executor.ray, "kill", found.append)
    monkeypatch.setattr(ray_executor, "_RETRY_SECONDS", 0.001)
    return found


def _place(monkeypatch: pytest.MonkeyPatch, *actors: Any) -> ray_executor._Place:
    """A place whose actors are these, one after another."""
    coming = iter(actors)
    place = ray_executor._Place(OWN, None)
    monkeypatch.setattr(place, "_make", lambda: next(coming))
    return place


def test_a_place_that_is_to_leave_while_it_looks_after_its_machine_gets_another_one(
    killed: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def leaves() -> str:
        if place.machine:  # it was there, and had nothing to do
            await place.leave()
        return HERE

    async def stays() -> str:
        return THERE

    left, other = (SimpleNamespace(ready=Remote(ready)) for ready in (leaves, stays))
    place = _place(monkeypatch, left, other)

    async def look() -> None:
        await place.ready()
        assert place.machine == HERE
        await asyncio.wait_for(place.ready(), 30)

    asyncio.run(look())
    assert (place.machine, place._actor, killed) == (THERE, other, [left])

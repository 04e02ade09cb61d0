# SPDX-License-Identifier: GPL-3.0-or-later
"""How long a model takes, learned from those that were made: what a wait depends on, and the median of the past ones."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from ..endpoints.schema import schemas

if TYPE_CHECKING:
    from .job import Job

# Common names of the parameters by which waits differ most
_DECISIVE = ("resolution", "pipeline_type", "number_results")
_REMEMBERED = 15  # jobs of a kind, the newest: a driver or a service may have become faster
Kind = tuple[Any, ...]


def kind(endpoint: str, parameters: Mapping[str, Any]) -> Kind:
    """What a wait depends on. `parameters` go by documented name; what is missing has its default."""
    props = schemas().get(endpoint, {}).get("properties", {})
    known = {
        prop["name"]: parameters.get(documented, prop["default"])
        for documented, prop in props.items()
        if prop["name"] in _DECISIVE
    }
    return (endpoint, *(known.get(name) for name in _DECISIVE))


def one_by_one(endpoint: str) -> bool:
    """Whether jobs of this endpoint wait for each other, as on a computer with one GPU."""
    return bool(schemas().get(endpoint, {}).get("service") == "local")


def learn(jobs: Iterable[Job]) -> dict[Kind, float]:
    """The median wait in seconds by kind, from ready jobs with times.

    Where jobs wait for each other, one begins when the one before it is ready.
    """
    from statistics import median  # here, since enabling the extension loads this module

    waits: dict[Kind, list[float]] = defaultdict(list)
    before: dict[str, float] = {}
    timed = [(job.ready, job.submitted, job) for job in jobs if job.ready and job.submitted]
    for ready, submitted, job in sorted(timed, key=lambda each: each[0]):
        began = submitted
        if one_by_one(job.endpoint):
            began = max(began, before.get(job.endpoint, 0.0))
            before[job.endpoint] = ready
        if ready > began:  # else the clock was set
            waits[kind(job.endpoint, job.parameters)].append(ready - began)
    return {each: median(taken[-_REMEMBERED:]) for each, taken in waits.items()}

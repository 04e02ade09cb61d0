# SPDX-License-Identifier: GPL-3.0-or-later
"""The sidecar held to its own OpenAPI document by schemathesis: with what fits the document, with what does not, and without the
key."""

from __future__ import annotations

from pathlib import Path

import hypothesis
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.schemas import APIOperation
from schemathesis.specs.openapi.checks import negative_data_rejection, positive_data_acceptance

schemathesis.openapi.format("file-path", st.just(str(Path(__file__).resolve())))


def hold(url: str, token: str, examples: int, seed: int | None = None) -> int:
    """Send that many requests to each route but the one that would end the sidecar; returns how many routes there are. They are
    the same each time, and others for each `seed`.

    Raises:
        schemathesis.core.failures.FailureGroup: an answer is none that the document names.
    """
    key = {"Authorization": f"Key {token}"}
    document = schemathesis.openapi.from_url(f"{url}/openapi.json", headers=key)
    found = document.exclude(path="/shutdown").get_all_operations()
    operations = [each.ok() for each in found]
    for operation in operations:
        _ask(operation, key, examples, seed)
    return len(operations)


def _ask(operation: APIOperation, key: dict[str, str], examples: int, seed: int | None) -> None:
    unsure = [negative_data_rejection]  # as fal does, it takes "5" for 5
    if "trellis-2" in operation.path:  # no schema says that an end comes after a start
        unsure.append(positive_data_acceptance)

    @settings(
        max_examples=examples,
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(data=st.data())
    def ask(data: st.DataObject) -> None:
        mode = data.draw(st.sampled_from(GenerationMode))
        case = data.draw(operation.as_strategy(generation_mode=mode))
        case.call_and_validate(headers=key, excluded_checks=unsure)

    if seed is not None:
        hypothesis.seed(seed)(ask)
    ask()

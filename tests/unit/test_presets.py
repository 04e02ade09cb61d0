# SPDX-License-Identifier: GPL-3.0-or-later
"""What the presets mean at each endpoint."""

from __future__ import annotations

from typing import Any

import pytest

from blender_trellis.endpoints import get, prices
from blender_trellis.endpoints.presets import PRESETS, offered, touched, values_of
from blender_trellis.endpoints.schema import schemas

LORA = {"geometry_lora_url": "https://example.com/g.safetensors"}
EVERY = [(endpoint, preset) for endpoint in schemas() for preset in offered(endpoint)]


def _request(endpoint: str, preset: str) -> Any:
    given = LORA if "lora" in endpoint else {}
    return get(endpoint).parse({"seed": 1, **given, **values_of(preset, endpoint)})


@pytest.mark.parametrize(("endpoint", "preset"), EVERY)
def test_every_endpoint_takes_its_presets(endpoint: str, preset: str) -> None:
    assert _request(endpoint, preset)
    names = schemas()[endpoint]["properties"]
    assert {names[each]["name"] for each in values_of(preset, endpoint)} <= touched(endpoint)


@pytest.mark.parametrize("endpoint", schemas())
def test_presets_that_are_offered_differ(endpoint: str) -> None:
    values = [sorted(values_of(preset, endpoint).items()) for preset in offered(endpoint)]
    assert all(values.count(each) == 1 for each in values), values
    assert values_of("STANDARD", endpoint) == {}


@pytest.mark.parametrize("endpoint", prices.PRICES)
def test_a_draft_is_not_dearer_and_details_are_not_cheaper(endpoint: str) -> None:
    sums = []
    for preset in ("DRAFT", "STANDARD", "DETAILED"):
        cost = prices.estimate(endpoint, values_of(preset, endpoint))
        assert cost
        sums.append(cost.amount)
    assert sums == sorted(sums)


def test_an_endpoint_takes_of_a_goal_what_it_knows_as_near_as_it_can() -> None:
    assert values_of("DETAILED", "fal-ai/trellis") == {"mesh_simplify": 0.9, "texture_size": 2048}
    assert values_of("GAME", "runware/trellis-2") == {
        "settings.textureSize": 1024,
        "settings.decimationTarget": 100_000,
    }
    assert values_of("PRINT", "local/trellis-2")["untextured"] is True
    assert values_of("DRAFT", "fal-ai/trellis-2")["texture_size"] == 1024
    assert values_of("DRAFT", "local/draft")["decimation_target"] == 5_000


def test_what_makes_no_whole_model_is_not_printed() -> None:
    assert {name for name in schemas() if "PRINT" not in offered(name)} == {
        name for name, schema in schemas().items() if schema["mesh"]
    }
    assert all(preset.help and preset.name for preset in PRESETS.values())

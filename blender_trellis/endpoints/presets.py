# SPDX-License-Identifier: GPL-3.0-or-later
"""Goals that one may have for a model, and what each means at each endpoint: one table, under the parameters' common names.

An endpoint takes of a goal what it knows, as near as its ranges allow. Imports nothing third-party, for the panel's sake.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from .schema import nearest, schemas

Values = Mapping[str, Any]


class Preset(NamedTuple):
    """A goal. `values` go by common name; `instead` replaces some of them at single endpoints. `whole`: it makes sense only
    where a whole model is made, not just a texture."""

    name: str
    help: str
    values: Values
    instead: Mapping[str, Values] = MappingProxyType({})
    whole: bool = False


PRESETS = {
    "DRAFT": Preset(
        "Draft",
        "A quick and cheap look at what becomes of the picture",
        {
            "resolution": 512,
            "texture_size": 512,
            "decimation_target": 50_000,
            "decimation_target_polygons": 100_000,
            "mesh_simplify": 0.98,
        },
        instead={"local/draft": {"decimation_target": 5_000}},
    ),
    "STANDARD": Preset("Standard", "What the endpoint recommends: its own defaults", {}),
    "DETAILED": Preset(
        "Detailed",
        "As much detail as the endpoint gives. Slower, dearer and heavier",
        {
            "resolution": 1536,
            "texture_size": 4096,
            "decimation_target": 1_000_000,
            "decimation_target_polygons": 1_000_000,
            "mesh_simplify": 0.9,
        },
        instead={"local/draft": {"decimation_target": 200_000}},
    ),
    "GAME": Preset(
        "Web/Game",
        "A light model for real time: few faces, a small texture",
        {
            "resolution": 1024,
            "texture_size": 1024,
            "decimation_target": 20_000,
            "decimation_target_polygons": 100_000,
            "mesh_simplify": 0.98,
        },
        instead={"local/draft": {"decimation_target": 5_000}},
    ),
    "PRINT": Preset(
        "3D Print",
        "One closed, dense surface; the texture is small, or left out where the endpoint can",
        {
            "resolution": 1536,
            "texture_size": 512,
            "decimation_target": 1_000_000,
            "decimation_target_polygons": 1_000_000,
            "mesh_simplify": 0.9,
            "remesh": True,
            "untextured": True,
        },
        instead={"local/draft": {"decimation_target": 200_000}},
        whole=True,
    ),
}


def offered(endpoint: str) -> dict[str, Preset]:
    """The presets that make sense at an endpoint, by id."""
    whole = not schemas()[endpoint]["mesh"]
    return {name: preset for name, preset in PRESETS.items() if whole or not preset.whole}


def touched(endpoint: str) -> set[str]:
    """The common names of the endpoint's parameters that presets set: what one sets, another gives its default back."""
    known = {prop["name"] for prop in schemas()[endpoint]["properties"].values()}
    return known & {name for preset in PRESETS.values() for name in preset.values}


def values_of(preset: str, endpoint: str) -> dict[str, Any]:
    """What a preset sets at an endpoint, by documented name; what it does not name has its default."""
    wanted = PRESETS[preset]
    values = {**wanted.values, **wanted.instead.get(endpoint, {})}
    return {
        documented: value
        for documented, prop in schemas()[endpoint]["properties"].items()
        if prop["name"] in values
        and (value := nearest(values[prop["name"]], prop)) != prop["default"]
    }

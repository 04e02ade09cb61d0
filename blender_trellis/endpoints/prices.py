# SPDX-License-Identifier: GPL-3.0-or-later
"""What the services charge: one table, and the sums that follow from it. Imports nothing third-party, for the panel's sake."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, NamedTuple

from .schema import schemas

CURRENCY = "USD"


class Price(NamedTuple):
    """What one result costs: so many `units` by resolution, 1 where the table has none, at `unit_price` each.

    `span` is the cheapest and the dearest result, where a service bills computing time. `confirmed` says that the service
    itself publishes what a result costs; without it, that is inferred, or was seen by others, and `note` says which.
    """

    unit_price: float
    source: str
    date: str
    confirmed: bool
    note: str
    units: Mapping[int, float] = MappingProxyType({})
    span: tuple[float, float] | None = None


@dataclass(frozen=True)
class Estimate:
    """What a request is expected to cost, at least, and at most."""

    amount: float
    low: float
    high: float
    currency: str = CURRENCY

    def times(self, count: float) -> Estimate:
        """The same for `count` requests."""
        amount, low, high = (round(each * count, 6) for each in (self.amount, self.low, self.high))
        return Estimate(amount, low, high, self.currency)


PRICES = {
    "fal-ai/trellis-2": Price(
        0.05,
        units={512: 5, 1024: 6, 1536: 7},
        source="https://fal.ai/models/fal-ai/trellis-2",
        date="2026-09-14",
        confirmed=False,
        note="The sums were seen by others; the units and their price are inferred from them",
    ),
    "fal-ai/trellis-2-lora": Price(
        0.05,
        units={512: 5, 1024: 6},
        source="https://fal.ai/models/fal-ai/trellis-2-lora/llms.txt",
        date="2026-10",
        confirmed=True,
        note="The units and their price are inferred from the sums",
    ),
    "fal-ai/trellis": Price(
        0.02,
        source="https://fal.ai/models/fal-ai/trellis",
        date="2026-10",
        confirmed=False,
        note="Published as the price of a unit; that a result is one unit is inferred",
    ),
    "fal-ai/trellis/multi": Price(
        0.02,
        source="https://fal.ai/models/fal-ai/trellis/multi/llms.txt",
        date="2026-10",
        confirmed=True,
        note="",
    ),
    "fal-ai/trellis-2/multi": Price(
        0.05,
        units={512: 5, 1024: 6, 1536: 7},
        source="https://fal.ai/models/fal-ai/trellis-2",
        date="2026-10",
        confirmed=False,
        note="Others were billed 0.30 at 1024, for three pictures; the rest follows trellis-2",
    ),
    "fal-ai/trellis-2/retexture": Price(
        0.04,
        units={512: 5, 1024: 6},
        source="https://fal.ai/models/fal-ai/trellis-2/retexture",
        date="2026-10",
        confirmed=False,
        note="The sums, about, were seen by others; the units and their price are inferred from them",
    ),
    "runware/trellis-2": Price(
        0.0256,
        span=(0.0198, 0.055),
        source="https://content.runware.ai/models/microsoft-trellis-2/pricing",
        date="2026-10",
        confirmed=False,
        note="Computing time is billed. 0.0256 is Runware's example for 1024, read by others; the range is that of the examples "
        "in its documentation",
    ),
}


def estimate(
    endpoint: str, parameters: Mapping[str, Any], unit_price: float | None = None
) -> Estimate | None:
    """What a request will cost; None where nothing is charged.

    `parameters` go by documented name, and what is missing has its default. `unit_price` replaces the table's, and what the
    table knows of a range.
    """
    price = PRICES.get(endpoint)
    if price is None:
        return None
    resolution = _value(endpoint, parameters, "resolution")
    units = price.units[resolution] if price.units else 1
    units *= _value(endpoint, parameters, "number_results") or 1
    amount = charge(endpoint, units, unit_price)
    if price.span and unit_price is None:
        low, high = (round(edge * units, 6) for edge in price.span)
        return Estimate(amount, low, high)
    return Estimate(amount, amount, amount)


def charge(endpoint: str, units: float, unit_price: float | None = None) -> float:
    """What `units` of an endpoint cost, as fal's X-Fal-Billable-Units counts them, to the millionth of a dollar."""
    each = PRICES[endpoint].unit_price if unit_price is None else unit_price
    return round(units * each, 6)


def _value(endpoint: str, parameters: Mapping[str, Any], name: str) -> Any:
    """The value of the parameter with this common name; None where the endpoint has none."""
    for documented, prop in schemas()[endpoint]["properties"].items():
        if prop["name"] == name:
            return parameters.get(documented, prop["default"])
    return None

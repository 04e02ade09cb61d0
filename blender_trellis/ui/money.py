# SPDX-License-Identifier: GPL-3.0-or-later
"""Money in words: what a model will cost, what the month has cost, what is left on an account. Draw functions may ask."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from ..endpoints import prices
from . import preferences, properties
from .text import tr

if TYPE_CHECKING:
    from ..generation.journal import Spent
    from ..services import Account


def in_words(amount: float, currency: str = prices.CURRENCY) -> str:
    """An amount to the cent: "$0.30", "12.34 EUR"."""
    return f"${amount:.2f}" if currency == prices.CURRENCY else f"{amount:.2f} {currency}"


def estimate(settings: Any, endpoint: str) -> prices.Estimate | None:
    """What a model will cost with the scene's settings for `endpoint`; None where nothing is charged."""
    if endpoint not in prices.PRICES:
        return None
    return prices.estimate(endpoint, properties.chosen(settings, endpoint))


def about(cost: prices.Estimate) -> str:
    """An estimate, and how far off it may be: "About $0.30 (estimate)"."""
    amount, low, high = (
        in_words(edge, cost.currency) for edge in (cost.amount, cost.low, cost.high)
    )
    if low == high:
        return tr("About {amount} (estimate)").format(amount=amount)
    return tr("About {amount}, {low} to {high} (estimate)").format(
        amount=amount, low=low, high=high
    )


def this_month(spent: Iterable[Spent]) -> list[str]:
    """What was spent since the month began, a line for each service: "fal: about $1.20, 4 jobs"."""
    month = time.strftime("%Y-%m")
    return [_line(each) for each in spent if each.month == month]


def _line(spent: Spent) -> str:
    about = "about " if spent.estimate else ""
    jobs = "1 job" if spent.jobs == 1 else f"{spent.jobs} jobs"
    name = preferences.SERVICES.get(spent.service, spent.service)
    return f"{name}: {about}{in_words(spent.amount, spent.currency)}, {jobs}"


def accepted(account: Account) -> str:
    """What a service says of a key that it knows."""
    if account.balance is None:
        return "Accepted. The balance needs an administrator's key"
    return f"Accepted. Balance {account.balance:.2f} {account.currency}"

# SPDX-License-Identifier: GPL-3.0-or-later
"""Money and time in words: what a model will cost, how long it will take, what the month has cost, what is left on an account.

Draw functions may ask.
"""

from __future__ import annotations

import math
import time
from collections import defaultdict
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from ..endpoints import prices
from ..errors import TrellisError
from ..generation.waits import kind, one_by_one
from . import preferences, properties
from .text import tr

if TYPE_CHECKING:
    from ..generation.journal import Spent
    from ..generation.waits import Kind
    from ..services import Account
    from .jobs import Board


def in_words(amount: float, currency: str = prices.CURRENCY) -> str:
    """An amount to the cent: "$0.30", "12.34 EUR"."""
    return f"${amount:.2f}" if currency == prices.CURRENCY else f"{amount:.2f} {currency}"


def estimate(settings: Any, endpoint: str) -> prices.Estimate | None:
    """What all models that the scene asks for will cost at `endpoint`; None where nothing is charged."""
    if endpoint not in prices.PRICES:
        return None
    one = prices.estimate(endpoint, properties.chosen(settings, endpoint))
    return one and one.times(properties.variations(settings, endpoint))


def wait(settings: Any, endpoint: str, waits: dict[Kind, float]) -> float | None:
    """How many seconds they will take, as past ones of the kind did; None where there was none.

    `waits` are those of the pump's board.
    """
    asked = properties.parameters(settings.id_data, endpoint)
    one = waits.get(kind(endpoint, asked))
    in_one_job = properties.documented_name(endpoint, "number_results")
    jobs = 1 if in_one_job else properties.variations(settings, endpoint)
    return one and one * math.ceil(jobs / _at_once(endpoint))


def _at_once(endpoint: str) -> int:
    """How many jobs of the endpoint go on at the same time."""
    if one_by_one(endpoint):
        return 1
    try:
        return preferences.config().jobs_at_once
    except TrellisError:  # which the panel tells
        return 1


def duration(seconds: float) -> str:
    """A rough time: "8 s", "50 s", "3 min", "1 h 20 min"."""
    if seconds < 55:
        exact = seconds < 15
        rounded = max(round(seconds), 1) if exact else 5 * round(seconds / 5)
        return tr("{seconds} s").format(seconds=rounded)
    hours, minutes = divmod(max(round(seconds / 60), 1), 60)
    if hours:
        return tr("{hours} h {minutes} min").format(hours=hours, minutes=minutes)
    return tr("{minutes} min").format(minutes=minutes)


def at_generate(settings: Any, board: Board) -> str:
    """The line beneath Generate: "About $0.30 and 50 s · $2.15 this month"; "" where nothing is charged and no wait known."""
    cost = estimate(settings, settings.endpoint)
    seconds = wait(settings, settings.endpoint, board.waits)
    price, time_ = cost and _price(cost), seconds and duration(seconds)
    if price and time_:
        words = tr("About {price} and {time}").format(price=price, time=time_)
    elif price or time_:
        words = tr("About {price}").format(price=price or time_)
    else:
        return ""
    month = _month(board.spent) if cost else ""
    return f"{words} · {month}" if month else words


def _price(cost: prices.Estimate) -> str:
    amount, low, high = (
        in_words(edge, cost.currency) for edge in (cost.amount, cost.low, cost.high)
    )
    if low == high:
        return amount
    return tr("{amount} ({low} to {high})").format(amount=amount, low=low, high=high)


def _month(spent: Iterable[Spent]) -> str:
    """What was spent since the month began, in all: "$2.15 this month"; "" if nothing was."""
    month = time.strftime("%Y-%m")
    words = _sum(each for each in spent if each.month == month)
    return words and tr("{sum} this month").format(sum=words)


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


def in_all(spent: Iterable[Spent]) -> str:
    """What was ever spent: "$12.30 spent in all"; "" if nothing was."""
    words = _sum(spent)
    return words and tr("{sum} spent in all").format(sum=words)


def _sum(spent: Iterable[Spent]) -> str:
    sums: dict[str, float] = defaultdict(float)
    for each in spent:
        sums[each.currency] += each.amount
    return " + ".join(in_words(amount, currency) for currency, amount in sorted(sums.items()))


def _line(spent: Spent) -> str:
    name = preferences.SERVICES.get(spent.service, spent.service)
    amount = in_words(spent.amount, spent.currency)
    amount = tr("about {sum}").format(sum=amount) if spent.estimate else amount
    jobs = tr("1 job") if spent.jobs == 1 else tr("{count} jobs").format(count=spent.jobs)
    return f"{name}: {amount}, {jobs}"


def accepted(account: Account) -> str:
    """What a service says of a key that it knows."""
    if account.balance is None:
        return "Accepted. The balance needs an administrator's key"
    return f"Accepted. Balance {account.balance:.2f} {account.currency}"

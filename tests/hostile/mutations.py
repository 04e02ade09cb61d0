# SPDX-License-Identifier: GPL-3.0-or-later
"""Seeded mutations of JSON values and of bytes, from which both fuzzers make their inputs."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

# What programs stumble over, in any place
ODD: list[Any] = [
    None, True, False, 0, -1, 1, 2, 7, 255, 65535, 2**31 - 1, 2**31, 2**32, 2**53 + 1, 2**63, -(2**63), 10**30,
    0.5, -0.0, 1e308, -1e308, 5e-324, float("nan"), float("inf"), float("-inf"),
    "", " ", "0", "null", "../../../etc/passwd", "file:///etc/passwd", "data:/../../secret.png", "é人\u0000", "\ud800",
    "x" * 2000, [], {}, [[]], [None] * 50, {"": {}}, [0, 1, 2],
]  # fmt: skip
_NUMBERS = ("1e999", "-1e999", "9" * 5000, "0" * 9, "1.0", "NaN", "-Infinity", "0x10", "1_000")


def mutated(random: Random, value: Any, times: int = 1) -> Any:
    """A copy of a JSON value in which something is not as it was."""
    changed = {"": copy.deepcopy(value)}
    for _ in range(times):
        holder, key = random.choice(_places(changed))
        random.choice(_CHANGES)(random, holder, key, changed)
        if "" not in changed:
            return random.choice(ODD)
    return changed[""]


def text_of(random: Random, value: Any) -> bytes:
    """The value as JSON, now and then in a wrong encoding, cut off, or with numbers that no JSON library writes."""
    text = json.dumps(value, ensure_ascii=random.random() < 0.8)
    if random.random() < 0.08:
        digits = [at for at, letter in enumerate(text) if letter.isdigit()]
        if digits:
            at = random.choice(digits)
            text = text[:at] + random.choice(_NUMBERS) + text[at + 1 :]
    encoding = random.choice(["utf-8"] * 30 + ["utf-16", "utf-8-sig", "utf-32"])
    data = text.encode(encoding, "surrogatepass")
    return spoiled(random, data) if random.random() < 0.06 else data


def spoiled(random: Random, data: bytes) -> bytes:
    """Bytes that were flipped, cut, inserted, doubled or moved."""
    changed = bytearray(data)
    for _ in range(random.choice([1, 1, 1, 2, 4, 16])):
        at = random.randrange(len(changed) + 1)
        end = min(len(changed), at + random.choice([1, 2, 4, 16, 100, 1000]))
        match random.randrange(6):
            case 0 if at < len(changed):
                changed[at] ^= 1 << random.randrange(8)
            case 1 if at < len(changed):
                changed[at] = random.choice([0, 1, 0x7F, 0x80, 0xFF, random.randrange(256)])
            case 2:
                del changed[at:end]
            case 3:
                changed[at:at] = random.randbytes(end - at)
            case 4:
                changed[at:at] = changed[at:end]
            case _:
                changed[at:end] = changed[at:end][::-1]
    return bytes(
        changed[: random.randrange(len(changed) + 1)] if random.random() < 0.1 else changed
    )


def _places(value: Any) -> list[tuple[Any, Any]]:
    """Every place in a tree, as what holds it and its key or number there."""
    found: list[tuple[Any, Any]] = []
    open_: list[Any] = [value]
    while open_:
        holder = open_.pop()
        keys: Sequence[Any] = list(holder) if isinstance(holder, dict) else range(len(holder))
        for key in keys:
            found.append((holder, key))
            if isinstance(holder[key], dict | list):
                open_.append(holder[key])
    return found


def _odd(random: Random, holder: Any, key: Any, _: Any) -> None:
    holder[key] = copy.deepcopy(random.choice(ODD))


def _near(random: Random, holder: Any, key: Any, _: Any) -> None:
    """Another number, close by or far off; another string or truth."""
    match holder[key]:
        case bool(value):
            holder[key] = not value
        case int(value):
            holder[key] = random.choice(
                [value + 1, value - 1, value * 2, -value, value ^ (1 << random.randrange(33)), float(value), str(value)]
            )  # fmt: skip
        case float(value):
            holder[key] = random.choice([value * 1e30, -value, value // 1, str(value)])
        case str(value):
            at = random.randrange(len(value) + 1)
            holder[key] = (
                value[:at] + random.choice(["", "x", "\n", "人", "\0", " "]) + value[at + 1 :]
            )
        case _:
            _odd(random, holder, key, _)


def _drop(_: Random, holder: Any, key: Any, __: Any) -> None:
    del holder[key]


def _transplant(random: Random, holder: Any, key: Any, tree: Any) -> None:
    """What stands elsewhere."""
    other, name = random.choice(_places(tree))
    holder[key] = copy.deepcopy(other[name])


def _wrap(random: Random, holder: Any, key: Any, _: Any) -> None:
    holder[key] = random.choice([lambda v: [v], lambda v: {"value": v}, json.dumps])(holder[key])


def _nest(random: Random, holder: Any, key: Any, _: Any) -> None:
    for _ in range(random.choice([3, 60, 400])):
        holder[key] = [holder[key]]


def _multiply(random: Random, holder: Any, key: Any, _: Any) -> None:
    if isinstance(holder, list):
        holder[key:key] = [copy.deepcopy(holder[key]) for _ in range(random.choice([1, 3, 200]))]
    else:
        holder[f"{key}{random.choice(['', '_', 's', '2'])}"] = copy.deepcopy(random.choice(ODD))


def _rename(random: Random, holder: Any, key: Any, _: Any) -> None:
    if isinstance(holder, dict):
        holder[random.choice([key.upper(), key + " ", key[1:], "__proto__"])] = holder.pop(key)
    else:
        random.shuffle(holder)


_Change = Callable[[Random, Any, Any, Any], None]
_CHANGES: list[_Change] = [
    _odd,
    _odd,
    _near,
    _near,
    _near,
    _drop,
    _drop,
    _transplant,
    _wrap,
    _nest,
    _multiply,
    _rename,
]

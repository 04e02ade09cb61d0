# SPDX-License-Identifier: GPL-3.0-or-later
"""The endpoints as plain JSON Schema, read from `schema.json`: all that panel and properties need, without pydantic.

`schema.json` is generated from the models by `generate.py`. A property's keywords beyond JSON Schema's own: `stage`, `unit`,
`advanced`, `always`, `source`, `name` (the Python name, the same at every endpoint that knows the parameter) and `header`.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

Schema = dict[str, Any]
CARRIED_OUT = frozenset({"local/draft"})  # what this version can do, of all that it can describe
FILE = Path(__file__).with_name("schema.json")


@functools.cache
def schemas() -> dict[str, Schema]:
    """JSON Schema of every endpoint, by endpoint id."""
    loaded: dict[str, Schema] = json.loads(FILE.read_text(encoding="utf-8"))
    return loaded


def describe_range(prop: Schema) -> str:
    """What a property may be, in words: 'a whole number from 1 to 50 steps'."""
    unit = f" {prop['unit']}" if prop.get("unit") else ""
    choices = prop.get("enum") or ([prop["const"]] if "const" in prop else None)
    if choices:
        *rest, last = (str(choice) for choice in choices)
        return (f"{', '.join(rest)} or {last}" if rest else last) + unit
    if prop["type"] == "boolean":
        return "true or false"
    if prop["type"] == "string":
        return "a text" if "pattern" not in prop else "an http(s) URL"
    kind = "a whole number" if prop["type"] == "integer" else "a number"
    low, high = (prop.get(edge) for edge in ("minimum", "maximum"))
    if low is not None and high is not None:
        return f"{kind} from {low} to {high}{unit}"
    if low is not None:
        return f"{kind} of at least {low}{unit}"
    return f"{kind} ({prop['unit']})" if unit else kind


def _nearest(value: Any, prop: Schema) -> Any:
    if "enum" in prop:
        numeric = isinstance(value, int | float) and isinstance(prop["enum"][0], int | float)
        return min(prop["enum"], key=lambda choice: abs(choice - value)) if numeric else value
    if prop.get("type") in ("integer", "number"):
        value = max(value, prop.get("minimum", value))
        value = min(value, prop.get("maximum", value))
    return value


def carry_over(
    values: Mapping[str, Any], source: str, target: str
) -> tuple[dict[str, Any], list[str]]:
    """The parameters that both endpoints know, from `source`'s names and ranges to `target`'s.

    Returns the values by `target`'s documented names, and a sentence for each one that had to change.
    """
    theirs = {prop["name"]: wire for wire, prop in schemas()[target]["properties"].items()}
    kept, notes = {}, []
    for wire, value in values.items():
        prop = schemas()[source]["properties"][wire]
        name = theirs.get(prop["name"])
        if name is None:
            continue
        wanted = schemas()[target]["properties"][name]
        kept[name] = _nearest(value, wanted)
        if kept[name] != value:
            notes.append(f"{wanted['title']}: {value} became {kept[name]}, the nearest it takes.")
    return kept, notes

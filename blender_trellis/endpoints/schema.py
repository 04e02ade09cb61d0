# SPDX-License-Identifier: GPL-3.0-or-later
"""The endpoints as plain JSON Schema, read from `schema.json`: all that panel and properties need, without pydantic.

`schema.json` is generated from the models by `generate.py`. Keywords beyond JSON Schema's own are those of `base.Endpoint` for
an endpoint (`service`, `source`, `images`, `mesh`, `references`, `one_of`, `unconfirmed`) and those of `base.parameter` for a
property (`stage`, `unit`, `advanced`, `always`, `source`, `header`, `query`), with `name`, its Python name, the same at every
endpoint. A property whose `format` is "file-path" is the path of a file.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ..errors import EndpointError

Schema = dict[str, Any]
FILE = Path(__file__).with_name("schema.json")
HTTP_URL, HTTPS_URL = "^https?://", "^https://"  # the patterns of parameters that are URLs


@functools.cache
def schemas() -> dict[str, Schema]:
    """JSON Schema of every endpoint, by endpoint id."""
    loaded: dict[str, Schema] = json.loads(FILE.read_text(encoding="utf-8"))
    return loaded


def unknown_endpoint(endpoint: str) -> EndpointError:
    """What to say of an endpoint that does not exist: the one that was probably meant, or all."""
    import difflib

    near = difflib.get_close_matches(endpoint, schemas(), n=1)
    hint = f"Did you mean {near[0]}?" if near else f"Choose one of {', '.join(schemas())}."
    return EndpointError(f"There is no endpoint {endpoint!r}. {hint}")


def describe_range(prop: Schema, say: Callable[[str], str] = str) -> str:
    """What a property may be, in words: 'a whole number from 1 to 50 steps'. `say` translates the parts that it is made of."""
    unit = say(prop["unit"]) if prop.get("unit") else ""
    choices = prop.get("enum") or ([prop["const"]] if "const" in prop else None)
    if choices:
        *rest, last = (str(choice) for choice in choices)
        words = say("{rest} or {last}").format(rest=", ".join(rest), last=last) if rest else last
        return with_unit(words, unit, say)
    if prop["type"] == "boolean":
        return say("true or false")
    if prop.get("format") == "file-path":
        return say("a file's path")
    if prop["type"] == "string":
        if "pattern" not in prop:
            return say("a text")
        return say("an https URL") if prop["pattern"] == HTTPS_URL else say("an http(s) URL")
    return _describe_number(prop, unit, say)


def _describe_number(prop: Schema, unit: str, say: Callable[[str], str]) -> str:
    kind = say("a whole number") if prop["type"] == "integer" else say("a number")
    low, high = (prop.get(edge) for edge in ("minimum", "maximum"))
    if low is not None and high is not None:
        words = say("{kind} from {low} to {high}").format(kind=kind, low=low, high=high)
    elif low is not None:
        words = say("{kind} of at least {low}").format(kind=kind, low=low)
    elif "exclusiveMinimum" in prop:
        low = f"{prop['exclusiveMinimum']:g}"
        words = say("{kind} greater than {low}").format(kind=kind, low=low)
    else:
        return f"{kind} ({unit})" if unit else kind
    return with_unit(words, unit, say)


def with_unit(words: str, unit: str, say: Callable[[str], str] = str) -> str:
    """A value or a range with its unit, if it has one: both are translated already."""
    return say("{value} {unit}").format(value=words, unit=unit) if unit else words


def nearest(value: Any, prop: Schema) -> Any:
    """The value that a parameter takes in place of `value`; the same where it takes that."""
    if "enum" in prop:
        numeric = isinstance(value, int | float) and isinstance(prop["enum"][0], int | float)
        return min(prop["enum"], key=lambda choice: abs(choice - value)) if numeric else value
    if prop.get("type") in ("integer", "number"):
        value = max(value, prop.get("minimum", value))
        value = min(value, prop.get("maximum", value))
    return round(value) if prop.get("type") == "integer" else value


class Change(NamedTuple):
    """A value that another endpoint does not take, and what it takes in its place. `prop` is the other endpoint's."""

    prop: Schema
    before: Any
    after: Any


def carry_over(
    values: Mapping[str, Any], source: str, target: str
) -> tuple[dict[str, Any], list[Change]]:
    """The parameters that both endpoints know, from `source`'s names and ranges to `target`'s.

    Returns the values by `target`'s documented names, and those that had to change.
    """
    theirs = {prop["name"]: wire for wire, prop in schemas()[target]["properties"].items()}
    kept, changes = {}, []
    for wire, value in values.items():
        prop = schemas()[source]["properties"][wire]
        name = theirs.get(prop["name"])
        if name is None:
            continue
        wanted = schemas()[target]["properties"][name]
        kept[name] = nearest(value, wanted)
        if kept[name] != value:
            changes.append(Change(wanted, value, kept[name]))
    return kept, changes

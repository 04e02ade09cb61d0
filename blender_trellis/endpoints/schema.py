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
from collections.abc import Mapping
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


def describe_range(prop: Schema) -> str:
    """What a property may be, in words: 'a whole number from 1 to 50 steps'."""
    unit = f" {prop['unit']}" if prop.get("unit") else ""
    choices = prop.get("enum") or ([prop["const"]] if "const" in prop else None)
    if choices:
        *rest, last = (str(choice) for choice in choices)
        return (f"{', '.join(rest)} or {last}" if rest else last) + unit
    if prop["type"] == "boolean":
        return "true or false"
    if prop.get("format") == "file-path":
        return "a file's path"
    if prop["type"] == "string":
        url = "an https URL" if prop.get("pattern") == HTTPS_URL else "an http(s) URL"
        return url if "pattern" in prop else "a text"
    return _describe_number(prop, unit)


def _describe_number(prop: Schema, unit: str) -> str:
    kind = "a whole number" if prop["type"] == "integer" else "a number"
    low, high = (prop.get(edge) for edge in ("minimum", "maximum"))
    if low is not None and high is not None:
        return f"{kind} from {low} to {high}{unit}"
    if low is not None:
        return f"{kind} of at least {low}{unit}"
    if "exclusiveMinimum" in prop:
        return f"{kind} greater than {prop['exclusiveMinimum']:g}{unit}"
    return f"{kind} ({prop['unit']})" if unit else kind


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

# SPDX-License-Identifier: GPL-3.0-or-later
"""Writes what is generated from the endpoint models: `schema.json`, and in a checkout the tables in docs/<service>.md."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from . import models
from .base import STAGES, Endpoint
from .presets import offered, values_of
from .prices import CURRENCY, PRICES, Price
from .schema import FILE, describe_range

DOCS = Path(__file__).parents[2] / "docs"
BEGIN, END = "<!-- generated -->\n", "<!-- end -->\n"


def schema(model: type[Endpoint]) -> dict[str, Any]:
    """A model's JSON Schema, with what the panel needs to know of the endpoint itself."""
    made = model.model_json_schema(by_alias=True)
    names = {wire: name for name, wire in model.wire_names().items()}
    for wire, prop in made["properties"].items():
        prop["name"] = names[wire]
        prop.setdefault("source", model.source)
    return {
        "$id": model.id,
        "title": model.title,
        "description": (model.__doc__ or "").strip(),
        "service": model.service,
        "source": model.source,
        "images": {
            "key": model.image_key,
            "maximum": model.max_images,
            "side": model.max_side,
            "views": list(model.views),
            "margin": model.margin,
        },
        "mesh": bool(model.mesh_key),
        "references": sorted(model.references),
        "one_of": list(model.one_of),
        "unconfirmed": model.unconfirmed,
        "type": "object",
        "additionalProperties": False,
        "properties": made["properties"],
    }


def schema_json() -> str:
    """The text of `schema.json`."""
    every = {name: schema(model) for name, model in models().items()}
    return json.dumps(every, indent=1, ensure_ascii=False) + "\n"


def _parameter_row(wire: str, prop: dict[str, Any]) -> str:
    default = prop.get("default")
    shown = "" if default is None else f"`{json.dumps(default)}`"
    text = prop["description"] + (" *(advanced)*" if prop["advanced"] else "")
    return f"| `{wire}` | {prop['stage']} | {describe_range(prop)} | {shown} | {text} |"


def _parameter_table(model: type[Endpoint]) -> list[str]:
    made = schema(model)
    count = model.max_images
    inputs = "one picture" if count == 1 else f"1 to {count} pictures"
    mesh = " and a mesh" if model.mesh_key else ""
    rows = sorted(made["properties"].items(), key=lambda row: STAGES.index(row[1]["stage"]))
    return [
        f"### `{model.id}`",
        "",
        f"{model.title}: {made['description']} Takes {inputs}{mesh}; a picture is scaled down to {model.max_side} pixels at most."
        f" Source: {model.source}.",
        "",
        "| Parameter | Stage | Value | Default | What it does |",
        "|---|---|---|---|---|",
        *(_parameter_row(wire, prop) for wire, prop in rows),
        "",
    ]


def _price_row(endpoint: str, price: Price) -> str:
    each = [
        f"{price.unit_price * units:.2f} at {resolution}"
        for resolution, units in price.units.items()
    ]
    sums = ", ".join(each) or f"{price.unit_price:g}"
    if price.span:
        sums += f" ({price.span[0]:g} to {price.span[1]:g})"
    confirmed = "yes" if price.confirmed else "no"
    return f"| `{endpoint}` | {sums} | {confirmed} | {price.source} | {price.date} | {price.note} |"


def _price_table(endpoints: list[str]) -> list[str]:
    rows = [_price_row(name, PRICES[name]) for name in endpoints if name in PRICES]
    if not rows:
        return []
    return [
        "## Prices",
        "",
        "What one result costs. *Published* says whether the service itself says so.",
        "",
        f"| Endpoint | {CURRENCY} | Published | Source | Read | Remark |",
        "|---|---|---|---|---|---|",
        *rows,
        "",
    ]


def _preset_table(endpoints: list[str]) -> list[str]:
    rows = []
    for endpoint in endpoints:
        for name, preset in offered(endpoint).items():
            sets = [f"`{each}` {json.dumps(to)}" for each, to in values_of(name, endpoint).items()]
            rows.append(f"| {preset.name} | `{endpoint}` | {', '.join(sets) or 'the defaults'} |")
    return [
        "## Presets",
        "",
        "What the panel's presets set; the others of these parameters get their defaults back.",
        "",
        "| Preset | Endpoint | Sets |",
        "|---|---|---|",
        *rows,
        "",
    ]


def tables(service: str) -> str:
    """Prices, presets and parameters of a service's endpoints, as Markdown."""
    ours = [model for model in models().values() if model.service == service]
    lines = [
        *_price_table([model.id for model in ours]),
        *_preset_table([model.id for model in ours]),
        "## Parameters",
        "",
        "A parameter without a default is not sent unless it is set; a seed that is not set is drawn and always sent.",
        "",
    ]
    return "\n".join(lines + [line for model in ours for line in _parameter_table(model)])


def pages() -> dict[Path, str]:
    """The page of each service, as it should be: written by hand but for what stands between the marks."""
    made = {}
    for service in dict.fromkeys(model.service for model in models().values()):
        path = DOCS / f"{service}.md"
        before, rest = path.read_text(encoding="utf-8").split(BEGIN)
        _, after = rest.split(END)
        made[path] = f"{before}{BEGIN}{tables(service)}{END}{after}"
    return made


def main() -> None:
    """Write all of it."""
    FILE.write_text(schema_json(), encoding="utf-8", newline="\n")
    if DOCS.is_dir():
        for path, text in pages().items():
            path.write_text(text, encoding="utf-8", newline="\n")


if __name__ == "__main__":
    main()

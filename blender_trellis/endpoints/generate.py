# SPDX-License-Identifier: GPL-3.0-or-later
"""Writes what is generated from the endpoint models: `schema.json`, and docs/parameters.md in a checkout."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from . import models
from .base import STAGES, Endpoint
from .schema import CARRIED_OUT, FILE, describe_range

DOCS = Path(__file__).parents[2] / "docs" / "parameters.md"


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
        "images": {"key": model.image_key, "maximum": model.max_images, "side": model.max_side},
        "type": "object",
        "additionalProperties": False,
        "properties": made["properties"],
    }


def schema_json() -> str:
    """The text of `schema.json`."""
    every = {name: schema(model) for name, model in models().items()}
    return json.dumps(every, indent=1, ensure_ascii=False) + "\n"


def _row(wire: str, prop: dict[str, Any]) -> str:
    default = prop.get("default")
    shown = "" if default is None else f"`{json.dumps(default)}`"
    text = prop["description"] + (" *(advanced)*" if prop["advanced"] else "")
    return f"| `{wire}` | {prop['stage']} | {describe_range(prop)} | {shown} | {text} |"


def parameter_tables() -> str:
    """The text of docs/parameters.md."""
    lines = [
        "# Parameters",
        "",
        "Generated from the models in `blender_trellis/endpoints` by `python build.py docs`.",
        "",
        "A parameter without a default is not sent unless it is set; a seed that is not set is drawn and always sent.",
    ]
    for name, model in models().items():
        made = schema(model)
        described = (
            "" if name in CARRIED_OUT else " Described only: this version does not carry it out."
        )
        count = model.max_images
        pictures = "one picture" if count == 1 else f"1 to {count} pictures"
        lines += [
            "",
            f"## `{name}`",
            "",
            f"{made['title']}: {made['description']} Takes {pictures}, scaled down to {model.max_side} pixels"
            f" at most.{described} Source: {model.source}.",
            "",
            "| Parameter | Stage | Value | Default | What it does |",
            "|---|---|---|---|---|",
        ]
        rows = sorted(made["properties"].items(), key=lambda row: STAGES.index(row[1]["stage"]))
        lines += [_row(wire, prop) for wire, prop in rows]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Write both files."""
    FILE.write_text(schema_json(), encoding="utf-8", newline="\n")
    if DOCS.parent.is_dir():
        DOCS.write_text(parameter_tables(), encoding="utf-8", newline="\n")


if __name__ == "__main__":
    main()

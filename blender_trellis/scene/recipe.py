# SPDX-License-Identifier: GPL-3.0-or-later
"""How a model was made, kept on the model itself as one custom property, so that it can be made again."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, fields
from typing import Any

PROPERTY = "trellis"


@dataclass(frozen=True)
class Recipe:
    """What was asked and what came of it. Has no place for a key, by design.

    `created` is an ISO 8601 time, `images` are file names without folders, `version` is the extension's.
    """

    endpoint: str
    parameters: dict[str, Any] = field(default_factory=dict)
    seed: int | None = None
    job_id: str | None = None
    request_id: str | None = None
    cost: dict[str, Any] | None = None
    version: str = ""
    created: str = ""
    images: tuple[str, ...] = ()

    def to_json(self) -> str:
        return json.dumps(asdict(self), ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> Recipe:
        """The recipe that `text` records; keys of later versions are ignored.

        Raises ValueError where `text` is no recipe.
        """
        record = json.loads(text)
        if not isinstance(record, dict) or not isinstance(record.get("endpoint"), str):
            raise ValueError("not a recipe: no endpoint")
        known = {f.name: record[f.name] for f in fields(cls) if f.name in record}
        parameters, images = known.get("parameters", {}), known.get("images", [])
        if not isinstance(parameters, dict) or not isinstance(images, list):
            raise ValueError("not a recipe: parameters or images of another type")
        return cls(**known | {"images": tuple(str(name) for name in images)})


def stamp(obj: Any, recipe: Recipe) -> None:
    """Write `recipe` on `obj`, any Blender datablock."""
    obj[PROPERTY] = recipe.to_json()


def read(obj: Any) -> Recipe | None:
    """The recipe on `obj`, or None: also for what somebody else stored under the same name."""
    text = obj.get(PROPERTY) if obj is not None else None
    if not isinstance(text, str):
        return None
    try:
        return Recipe.from_json(text)
    except (ValueError, RecursionError):
        return None

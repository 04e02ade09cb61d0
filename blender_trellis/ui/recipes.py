# SPDX-License-Identifier: GPL-3.0-or-later
"""How a generated object was made, in words, and back into the settings. Draw functions may ask."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import bpy

from ..endpoints.schema import schemas
from . import money, properties
from .text import tr

if TYPE_CHECKING:
    from ..scene.recipe import Recipe


def of_active(context: Any) -> Recipe | None:
    """The recipe of the active object, or of what it hangs on: of a part of a model, or a LOD."""
    obj = context.active_object
    while obj is not None:
        found = _read(obj)
        if found:
            return found
        obj = obj.parent
    return None


def _read(obj: bpy.types.Object) -> Recipe | None:
    from ..scene.recipe import PROPERTY

    text = obj.get(PROPERTY)
    return _parsed(text) if isinstance(text, str) else None


@functools.lru_cache(maxsize=16)
def _parsed(text: str) -> Recipe | None:
    from ..scene.recipe import PROPERTY, read

    return read({PROPERTY: text})


def title_of(recipe: Recipe) -> str:
    """What to call a model that is made by it once more: as the first one was called, after its first picture."""
    return recipe.images[0].rsplit(".", 1)[0] if recipe.images else recipe.endpoint


def differing(recipe: Recipe) -> dict[str, Any]:
    """The parameters that differ from the endpoint's defaults, by documented name; all where it is not known any more."""
    if recipe.endpoint not in schemas():
        return recipe.parameters
    return {
        documented: recipe.parameters[documented]
        for documented, prop in properties.parameters_of(recipe.endpoint)
        if recipe.parameters.get(documented, prop["default"]) != prop["default"]
    }


def lines(recipe: Recipe) -> Iterator[tuple[str, str]]:
    """What to show of it, as names and values."""
    schema = schemas().get(recipe.endpoint, {})
    yield tr("Made By"), tr(schema.get("title", recipe.endpoint))
    for documented, value in differing(recipe).items():
        prop = schema.get("properties", {}).get(documented, {})
        yield _name(prop, documented), _words(value)
    if recipe.seed is not None:
        yield tr("Seed"), str(recipe.seed)
    if recipe.cost:
        amount = money.in_words(recipe.cost["amount"], recipe.cost["currency"])
        words = tr("about {price}") if recipe.cost["estimate"] else "{price}"
        yield tr("Cost"), words.format(price=amount)
    if recipe.created:
        yield tr("Date"), _date(recipe.created)


def _name(prop: dict[str, Any], documented: str) -> str:
    """The parameter's own name, and the stage's where several have one of that name."""
    if not prop:
        return documented
    title = tr(prop["title"])
    return f"{tr(prop['stage'].capitalize())} · {title}"


def _words(value: Any) -> str:
    if isinstance(value, bool):
        return tr("On") if value else tr("Off")
    return f"{value:g}" if isinstance(value, float) else str(value)


def _date(created: str) -> str:
    from datetime import datetime

    try:
        return datetime.fromisoformat(created).astimezone().strftime("%Y-%m-%d %H:%M")
    except ValueError:
        return created

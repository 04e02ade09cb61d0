# SPDX-License-Identifier: GPL-3.0-or-later
"""The words that people read, found in the source: what a translation must have. Knows nothing of Blender."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from blender_trellis.endpoints.presets import PRESETS

PACKAGE = Path(__file__).parents[1] / "blender_trellis"
# Nothing of these is ever shown in Blender
_ELSEWHERE = re.compile(
    r"cli|__main__|doctor|endpoints/(generate|prices)\.py|generation/(rows|sheet)\.py"
    r"|sidecar/(access|document|metrics|__main__)\.py"
)
_IN_THE_SCHEMA = re.compile(r"endpoints/(fal|local|runware|trellis2)\.py")  # but for their errors
# What reads like words and is none, or is the same in every language
NAMES = {
    "By which a result finds the scene that asked for it",  # three that describe hidden properties
    "The preset that was applied last",
    "What it made of the parameters",
    "Operator",  # a context of translations
    "Clipboard",  # three names of pictures, and so of models
    "Render",
    "Viewport",
    "Python",
    "Runware",
    "Trellis",
    "TRELLIS · fal",
    "TRELLIS.2 · Runware",
    "TRELLIS.2 · fal",
    "WebP",
    "fal",
}
# Sentences below the interface that only logs, files and other programs read
_UNSEEN = re.compile(
    r"^(Trellis |Bearer|Request: |Endpoint: |Job: |Key |HTTP|The parameters of|Job .* belongs|Internal)"
)


def interface() -> set[str]:
    """What the interface says: every literal in `ui/` that reads like words, and the words of schema and presets."""
    found: set[str] = set()
    for path in _modules("ui"):
        found |= {text for text, places in _texts(path) if not places and _reads_like_words(text)}
    for path in (*_modules("ui"), *_modules("endpoints")):
        found |= set(_said(path))
    return (found | set(_of_the_schema())) - NAMES


def sentences() -> tuple[set[str], set[str]]:
    """What the rooms below the interface say, and the errors of the interface: sentences that people read, and all strings,
    of which sentences are made.

    Values stand in braces, by the name that they have in the source: "There is no image {path}. Check the path."
    """
    whole: set[str] = set()
    every: set[str] = set()
    for path in _modules(""):
        name = path.relative_to(PACKAGE).as_posix()
        inside = name.startswith("ui/")
        for text, valued in _texts(path):
            every.add(text)
            if _IN_THE_SCHEMA.match(name) and not (valued and text.endswith(".")):
                continue
            if _is_sentence(text) and (valued or not inside) and not _UNSEEN.search(text):
                whole.add(text)
    return whole, every


def places(text: str) -> list[str]:
    """The names in braces."""
    return sorted(re.findall(r"\{(\w+)\}", text))


def _modules(room: str) -> Iterator[Path]:
    for path in sorted((PACKAGE / room).rglob("*.py")):
        if not _ELSEWHERE.match(path.relative_to(PACKAGE).as_posix()):
            yield path


def _is_sentence(text: str) -> bool:
    """Whether it begins and ends as one, or tells in several words what is going on."""
    if re.search(r"[a-z)}][.?…]$", text):
        own = re.sub(r"\{\w+\}", "", text)
        return bool(re.match(r"\s*([A-Z{]|fal )", text)) and bool(re.search(r"[a-z]", own))
    return bool(re.match(r"[A-Z][a-z]+( [a-z]|: )", text))


def _reads_like_words(text: str) -> bool:
    return (
        bool(re.match(r"[A-Z][a-z ].*|[A-Z0-9].* [a-z(].*|fal [A-Z].*", text, re.S))
        and "_" not in text
    )


def _said(path: Path) -> Iterator[str]:
    """What is translated by hand: literals given to `tr` or `say`."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        match node:
            case ast.Call(ast.Name("tr" | "say"), [ast.Constant(str(text)), *_]):
                yield text


def _of_the_schema() -> Iterator[str]:
    schemas: dict[str, Any] = json.loads(
        (PACKAGE / "endpoints" / "schema.json").read_text(encoding="utf-8")
    )
    for schema in schemas.values():
        yield schema["title"]
        yield schema["title"].rpartition(" · ")[2]
        yield schema["description"]
        yield from (view.capitalize() for view in schema["images"]["views"])
        for prop in schema["properties"].values():
            yield prop["title"]
            yield prop["description"]
            yield prop["stage"].capitalize()
            if prop["unit"]:
                yield prop["unit"]
            if prop["type"] == "string" and not {"png", "webp"} & {*prop.get("enum", ())}:
                yield from (each.capitalize() for each in prop.get("enum", ()) if each.isalpha())
    for preset in PRESETS.values():
        yield from (preset.name, preset.help)


def _texts(path: Path) -> Iterator[tuple[str, bool]]:
    """Every string of a module, but documentation; and whether it has values in it, whose names then stand in braces."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    skipped: set[int] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            skipped.add(id(node.value))
        if isinstance(node, ast.JoinedStr):
            skipped |= {id(part) for part in node.values}
        types = [getattr(node, each, None) for each in ("returns", "annotation")]
        if isinstance(node, (ast.FunctionDef, ast.arg)):
            skipped |= {id(part) for each in types if each for part in ast.walk(each)}
        if isinstance(node, ast.Call) and _logs(node.func):
            skipped |= {id(part) for part in ast.walk(node)}
    for node in ast.walk(tree):
        if id(node) in skipped:
            continue
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value, False
        elif isinstance(node, ast.JoinedStr):
            yield _template(node), True


def _logs(function: ast.expr) -> bool:
    return isinstance(function, ast.Attribute) and function.attr in (
        "debug",
        "info",
        "warning",
        "error",
        "exception",
        "execute",
    )


def _template(text: ast.JoinedStr) -> str:
    whole, names = "", set[str]()
    for part in text.values:
        if isinstance(part, ast.Constant):
            whole += str(part.value)
        elif isinstance(part, ast.FormattedValue):
            base = _name(part.value)
            name, number = base, 2
            while name in names:
                name, number = f"{base}{number}", number + 1
            names.add(name)
            whole += "{" + name + "}"
    return whole


def _name(value: ast.expr) -> str:
    """What to call a value: after what is computed last, and not after the function that spells it."""
    if isinstance(value, ast.Attribute):
        return value.attr
    if isinstance(value, ast.Name):
        return value.id
    if isinstance(value, ast.Subscript) and isinstance(value.slice, ast.Constant):
        return _identifier(str(value.slice.value))
    if isinstance(value, ast.Call):
        named = value.func
        inner = [*value.args]
        if isinstance(named, ast.Attribute) and not inner:
            return _name(named.value)
        return _name(inner[-1]) if inner else _name(named)
    children = [child for child in ast.iter_child_nodes(value) if isinstance(child, ast.expr)]
    return next((name for child in children if (name := _name(child)) != "value"), "value")


def _identifier(text: str) -> str:
    return text if text.isidentifier() else "value"

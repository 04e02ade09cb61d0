# SPDX-License-Identifier: GPL-3.0-or-later
"""What the pages quote is there: files and headings that they lead to, messages, and the words on buttons."""

from __future__ import annotations

import ast
import functools
import re
import unicodedata
from pathlib import Path

import pytest

from blender_trellis.endpoints.schema import schemas
from harness import REPOSITORY

PACKAGE = REPOSITORY / "blender_trellis"
PAGES = [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").glob("*.md"))]
# Blender's own words
BLENDERS = {
    "Edit", "Preferences", "Get Extensions", "Install from Disk…", "Add-ons", "System", "Allow Online Access",
    "Object", "Relations", "Make Local", "Assign Shortcut", "Realize Instances", "Solid", "Material Preview",
    "Python Tooltips", "Interface", "Language",
}  # fmt: skip


@functools.cache
def texts() -> frozenset[str]:
    """Every text in the package but docstrings, with {} where a value goes."""
    found: set[str] = set()
    for path in PACKAGE.rglob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        ours = {node.value for node in ast.walk(tree) if isinstance(node, ast.Expr)}
        for node in ast.walk(tree):
            if isinstance(node, ast.JoinedStr):
                found.add("".join(map(_piece, node.values)))
            elif (
                isinstance(node, ast.Constant) and isinstance(node.value, str) and node not in ours
            ):
                found.add(_bare(node.value))
    return frozenset(found)


def _piece(value: ast.expr) -> str:
    return str(value.value) if isinstance(value, ast.Constant) else "{}"


def _bare(text: str) -> str:
    """A text whose places have no names."""
    return re.sub(r"\{[^{}]*\}", "{}", text)


def can_appear(message: str) -> bool:
    """Whether some text of the package holds it."""
    return any(_bare(message) in text for text in texts())


@functools.cache
def labels() -> frozenset[str]:
    """What may stand on a button, a panel or in a menu, in lower case: a title has its service behind it."""
    endpoints = schemas().values()
    titles = {prop["title"] for each in endpoints for prop in each["properties"].values()}
    names = {each["title"] for each in endpoints}
    makers = {name.rpartition(" · ")[0] for name in names}
    return frozenset(text.lower() for text in texts() | titles | names | makers)


def messages() -> list[str]:
    """What the first column of the troubleshooting page quotes."""
    text = (REPOSITORY / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
    return re.findall(r"^\| `(.+?)` \|", text, re.MULTILINE)


@pytest.mark.parametrize("message", messages())
def test_a_message_that_is_explained_is_one_that_can_appear(message: str) -> None:
    assert can_appear(message)


def test_a_message_that_nobody_says_would_be_found() -> None:
    assert len(messages()) > 40
    assert not can_appear("There is no image {path}. Look under the bed.")


@pytest.mark.parametrize("page", ["guide.md", "troubleshooting.md"])
def test_the_words_in_italics_are_on_a_button_or_a_panel(page: str) -> None:
    text = (REPOSITORY / "docs" / page).read_text(encoding="utf-8")
    quoted = re.findall(r"(?<![*\w])\*([^*]+)\*(?!\*)", text)
    words = {word for each in quoted for word in " ".join(each.split()).split(" › ")} - BLENDERS
    assert len(words) > 5
    assert [word for word in sorted(words) if word.lower() not in labels()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    links = re.findall(r"\]\(([^)\s]+)\)", text) + re.findall(r'src="([^"]+)"', text)
    for link in links:
        if link.startswith(("https://", "http://")):
            continue
        file, _, anchor = link.partition("#")
        target = (page.parent / file).resolve() if file else page
        assert target.exists(), link
        if anchor:
            assert anchor in _anchors(target), link


def _anchors(page: Path) -> set[str]:
    """What the headings of a page are called in links, by GitHub's rule."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    kept = (
        "".join(letter for letter in heading.lower() if _is_kept(letter)) for heading in headings
    )
    return {heading.replace(" ", "-") for heading in kept}


def _is_kept(letter: str) -> bool:
    return letter in " -_" or unicodedata.category(letter)[0] in "LN"

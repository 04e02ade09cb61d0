# SPDX-License-Identifier: GPL-3.0-or-later
"""The interface in other languages. Two files of each, from English to the language:

LANGUAGE.json         the words of the interface, which Blender looks up. Read when the language is chosen, so that only who
                      needs one waits for it
LANGUAGE.errors.json  what the rooms below the interface say, who know only English. Read when the first of it is to be shown.
                      Values have names in braces: "There is no image {path}. Check the path."

A language is called as Blender calls it, in all versions from 4.2 on. What is missing in a file is shown in English.
"""

from __future__ import annotations

import functools
import json
import re
from pathlib import Path

import bpy

from ... import __package__ as root
from .. import properties
from ..text import CONTEXT

LANGUAGES = ("ja_JP", "zh_HANS")
_END = re.compile(r"[.?…]\s+(?=[^\sa-z]|fal )|\n(?=.)")  # of a sentence, before another one
_SIDE_BY_SIDE = re.compile(r"(\{\w+\})(?: \{\w+\})+")
_TOGETHER = 4  # sentences that one entry may have
_MOST = 12  # sentences of a message that is looked at one by one
_LONGEST = 300  # characters of a value: more than that are other programs' words
_INSIDE = 8  # characters that a sentence must have of its own to be found inside another one
# Blender asks in these for labels of operators, and for all else
_CONTEXTS = (CONTEXT, "Operator", bpy.app.translations.contexts.default)


def words(language: str, kind: str = "") -> dict[str, str]:
    """The file of a language: of the interface, or `kind` ".errors"; empty where there is none."""
    if language not in LANGUAGES:
        return {}
    path = Path(__file__).with_name(f"{language}{kind}.json")
    read: dict[str, str] = json.loads(path.read_text(encoding="utf-8"))
    return read


def catalogue(language: str) -> dict[tuple[str, str], str]:
    """What Blender wants to know of a language: by context and English; nothing where there is no file."""
    known = words(language)
    if known:
        known |= properties.tooltips(lambda text: known.get(text, text))
    return {(context, text): known[text] for context in _CONTEXTS for text in known}


_told: list[str] = []  # the language that Blender knows our words of


def follow() -> None:
    """Have Blender know our words in the language of its interface, which may have been changed; for draw functions too."""
    language: str = bpy.app.translations.locale
    if _told != [language]:
        unregister()
        _told[:] = [language]
        bpy.app.translations.register(str(root), {language: catalogue(language)})


def unregister() -> None:
    if _told:
        bpy.app.translations.unregister(str(root))
    _told.clear()
    _known.cache_clear()
    said.cache_clear()


class _Sentence:
    """A sentence with places for values. Places side by side in both languages are one, which may hold several sentences."""

    def __init__(self, text: str, translation: str) -> None:
        for found in [*_SIDE_BY_SIDE.finditer(text)]:
            if found[0] in translation:
                text = text.replace(found[0], found[1])
                translation = translation.replace(found[0], found[1])
        self.translation = translation
        self.parts = re.split(r"\{(\w+)\}", text)  # words and names by turns
        self.fixed = sum(map(len, self.parts[::2]))

    def match(self, text: str) -> dict[str, str] | None:
        """The values that `text` has in the places; None where it is another sentence."""
        if not all(part in text for part in self.parts[::2]):  # much faster than what follows
            return None
        places = [
            f"(?P<{part}>.*?)" if number % 2 else re.escape(part)
            for number, part in enumerate(self.parts)
        ]
        found = re.fullmatch("".join(places), text, re.DOTALL)
        if found is None or (self.parts[-1] == "." and _END.search(found[self.parts[-2]])):
            return None  # what seems to be its last value begins another sentence
        return found.groupdict()


@functools.lru_cache(maxsize=1)
def _known(language: str) -> tuple[dict[str, str], list[_Sentence]]:
    """What is to be found word by word; and the sentences with places, those with the most words of their own first."""
    read = words(language, ".errors")
    errors = {text.strip(): translation.strip() for text, translation in read.items()}
    sentences = [_Sentence(*pair) for pair in errors.items() if re.search(r"\{\w+\}", pair[0])]
    return words(language) | errors, sorted(sentences, key=lambda each: each.fixed, reverse=True)


@functools.lru_cache(maxsize=1024)
def said(language: str, text: str, least: int = 4) -> str:
    """An English sentence or several in `language`, with all values that are in them; English where they are not known.

    A value may be such a sentence itself. Sentences with fewer than `least` characters of their own, which fit almost anything,
    are not considered.
    """
    plain = text.strip()
    if not plain or (least == _INSIDE and len(plain) > _LONGEST):
        return text
    exact, sentences = _known(language)
    return text.replace(plain, exact.get(plain) or _composed(language, plain, least, sentences))


def _composed(language: str, text: str, least: int, sentences: list[_Sentence]) -> str:
    if listed := _list(language, text):
        return listed
    for sentence in sentences:
        if sentence.fixed < least:
            break
        values = sentence.match(text)
        if values is not None:
            values = {name: said(language, value, _INSIDE) for name, value in values.items()}
            return sentence.translation.format(**values)
    several = _one_by_one(language, text, least)
    reason = text.removesuffix(".")
    if several == text != reason and (why := said(language, reason, _INSIDE)) != reason:
        return _known(language)[0]["{sentence}."].format(sentence=why)
    return several


def _list(language: str, text: str) -> str:
    """Words in a list, if all of them are known or have no letters: "512: ready, all resolutions: 2 GB missing"; else ""."""
    for separator in (", ", ": "):
        if separator in text and not text.endswith("."):
            parts = text.split(separator)
            new = [said(language, part, _INSIDE) for part in parts]
            if all(a != b or not re.search("[A-Za-z]", a) for a, b in zip(parts, new, strict=True)):
                return separator.join(new)
    return ""


def _one_by_one(language: str, text: str, least: int) -> str:
    """Several sentences, those of them in the language that are known: first those that belong together."""
    ends = [end.end() for end in _END.finditer(text)]
    for end in ends[:_TOGETHER]:
        first = text[:end].strip()
        here = said(language, first, least)
        if here != first:
            return f"{here} {said(language, text[end:], least)}"
    if not 0 < len(ends) < _MOST:
        return text
    return text[: ends[0]] + said(language, text[ends[0] :], least)

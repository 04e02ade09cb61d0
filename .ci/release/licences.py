# SPDX-License-Identifier: GPL-3.0-or-later
"""What is bundled, and under which licences: for the zips, and as a page of the docs."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from packaging.utils import canonicalize_name

from . import ROOT, ReleaseError
from .wheels import PLATFORMS, Bundled, faults, fetch, locked, pin, read

PAGE = ROOT / "docs" / "licences.md"


def notices(bundled: Iterable[Path]) -> str:
    """A table of what these wheels hold, and the text of each licence.

    Raises:
        ReleaseError: one has no licence text, or one that is not known to go with the GPL.
    """
    parts = _different(bundled)
    wrong = [fault for part in parts for fault in faults(part)]
    if wrong:
        raise ReleaseError("; ".join(wrong) + ".")
    texts = [
        "\n".join(
            [f"## {part.name} {part.version}", *(f"\n```\n{text}\n```" for text in part.texts)]
        )
        for part in parts
    ]
    head = ["# Software that is bundled", _table(parts), *_within(parts)]
    return "\n\n".join([*head, *texts]) + "\n"


def page() -> str:
    """docs/licences.md. One wheel of each distribution speaks for all of them."""
    wheels: dict[str, Path] = {}
    for target in ("linux-x64", *PLATFORMS):
        names = {pin(name): name for name in locked(target) if pin(name) not in wheels}
        wheels |= {pin(path.name): path for path in fetch(target, names.values())}
    parts = _different(wheels.values())
    compiled = "\n\n".join(_within(parts))
    return f"""# What the package bundles

The extension itself is under [GPL-3.0-or-later](../LICENSE). Its zip holds these libraries as the wheels that their authors
published, and their licences' texts in `THIRD_PARTY.md`. `.ci/release/wheels.toml` has each file's hash. `python build.py lock`
writes this page.

{_table(parts, _where())}

{compiled}
"""


def _where() -> dict[str, str]:
    """The systems for which a distribution is bundled, where not for all."""
    systems: dict[str, set[str]] = {}
    for target in PLATFORMS:
        for name in locked(target):
            system = target.partition("-")[0].capitalize()
            systems.setdefault(canonicalize_name(pin(name).split("==")[0]), set()).add(system)
    spelt = {"Macos": "macOS"}
    return {
        name: "" if len(where) == 3 else ", ".join(sorted(spelt.get(one, one) for one in where))
        for name, where in systems.items()
    }


def _different(wheels: Iterable[Path]) -> list[Bundled]:
    one_each = {pin(path.name): path for path in sorted(wheels, reverse=True)}
    return sorted((read(path) for path in one_each.values()), key=lambda part: part.name.lower())


def _within(parts: Iterable[Bundled]) -> list[str]:
    """What is compiled into the wheels, as they themselves say."""
    rows = ["| Compiled in | Part | Version | Licence |", "| --- | --- | --- | --- |"]
    for part in parts:
        rows += [
            f"| {part.name} | {each.name} | {each.version} | {each.licence or 'not named'} |"
            for each in part.parts
        ]
    words = (
        "Compiled wheels hold libraries of others. These are what their own bills of materials name; the terms of each licence "
        "are at https://spdx.org/licenses."
    )
    return [words, "\n".join(rows)] if len(rows) > 2 else []


def _table(parts: Iterable[Bundled], where: dict[str, str] | None = None) -> str:
    headings = ["Library", "Version", "Licence", "Source", *(["Only on"] if where else [])]
    rows = [headings, ["---"] * len(headings)]
    for part in parts:
        only = [where[canonicalize_name(part.name)]] if where else []
        rows.append([part.name, part.version, part.licence, part.source, *only])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)

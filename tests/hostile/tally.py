# SPDX-License-Identifier: GPL-3.0-or-later
"""What became of what was tried, counted, and shown as a table in Markdown."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

# In this order in a table; the last four must stay at 0
REFUSED, ACCEPTED, UNCERTAIN = "refused", "accepted", "uncertain"
CRASHED, HUNG, LOST, LEAKED = "crashed", "hung", "lost", "leaked"
BAD = (CRASHED, HUNG, LOST, LEAKED)


@dataclass
class Tally:
    """Outcomes by what was done; `findings` says of each bad one what it was, and where its input was kept."""

    title: str
    keep: Path
    inputs: int = 0  # where one that is tried has several
    counts: dict[str, Counter[str]] = field(default_factory=dict)
    findings: list[str] = field(default_factory=list)

    def add(self, way: str, outcome: str) -> None:
        self.counts.setdefault(way, Counter())[outcome] += 1

    def bad(self, way: str, outcome: str, words: str, data: bytes) -> None:
        """Count what must not be, and keep its input."""
        self.add(way, outcome)
        self.keep.mkdir(parents=True, exist_ok=True)
        path = self.keep / f"{way}-{hashlib.sha256(data).hexdigest()[:12]}"
        path.write_bytes(data)
        self.findings.append(f"{outcome}: {words} ({path})")

    def total(self, outcome: str) -> int:
        return sum(count[outcome] for count in self.counts.values())

    @property
    def tried(self) -> int:
        return sum(count.total() for count in self.counts.values())

    def table(self, columns: Iterable[str]) -> str:
        """Lines of Markdown: a row for each way, and one for all."""
        names = [*columns]
        lines = [
            f"| {self.title} | tried | {' | '.join(names)} |",
            "|---|" + "--:|" * (len(names) + 1),
        ]
        rows = {
            **dict(sorted(self.counts.items())),
            "**all**": sum(self.counts.values(), Counter[str]()),
        }
        for way, count in rows.items():
            numbers = [count.total(), *(count[name] for name in names)]
            lines.append(f"| {way} | {' | '.join(f'{number:,}' for number in numbers)} |")
        return "\n".join(lines)

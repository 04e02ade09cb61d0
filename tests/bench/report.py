# SPDX-License-Identifier: GPL-3.0-or-later
"""What a measurement has found: printed as tables, and handed over as it is to page.py, which starts it with a file for that."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

HAND_OVER = "BENCH_REPORT"  # the variable that names the file


@dataclass(frozen=True)
class Ratio:
    """`ours` and the time of what is used `instead`, both in seconds and of this run."""

    what: str
    ours: float
    instead: str
    other: float

    @property
    def words(self) -> str:
        """Ours as a share or as a multiple of the other one: "1/12", "2.5×"."""
        if self.ours > self.other:
            return f"{self.ours / self.other:.{1 if self.ours < 20 * self.other else 0}f}×"
        times = self.other / self.ours
        return f"1/{times:.{1 if times < 20 else 0}f}"


@dataclass(frozen=True)
class Table:
    """`rows` have a cell for each of `heads`; the first `words` of them are no figures. `notes` are sentences below it."""

    title: str
    heads: Sequence[str]
    rows: Sequence[Sequence[str]]
    notes: Sequence[str] = ()
    words: int = 1


@dataclass(frozen=True)
class Report:
    """`broken` names the limits that were passed."""

    tables: Sequence[Table]
    ratios: Sequence[Ratio] = ()
    broken: Sequence[str] = field(default=())


def seconds(value: float) -> str:
    """A time with three digits, in the unit that fits."""
    if value >= 1:
        return f"{value:.3g} s"
    return f"{value * 1000:.3g} ms" if value >= 1e-4 else f"{value * 1e6:.3g} µs"


def finish(report: Report) -> int:
    """Print what was found, and hand it over where somebody waits for it; the exit status."""
    for table in report.tables:
        print("\n".join(lines(table)), end="\n\n")
    for ratio in report.ratios:
        ours, other = seconds(ratio.ours), seconds(ratio.other)
        print(f"{ratio.what}: {ratio.words} of {ratio.instead} ({ours}, {other})")
    for limit in report.broken:
        print(f"Limit passed: {limit}")
    if os.environ.get(HAND_OVER):
        Path(os.environ[HAND_OVER]).write_text(json.dumps(asdict(report)), "utf-8")
    return 1 if report.broken else 0


def read(path: Path) -> Report:
    """What `finish` has handed over."""
    told = json.loads(path.read_text("utf-8"))
    return Report(
        [Table(**table) for table in told["tables"]],
        [Ratio(**ratio) for ratio in told["ratios"]],
        told["broken"],
    )


def lines(table: Table) -> list[str]:
    """The table for a terminal: the first column to the left, the others to the right."""
    cells = [table.heads, *table.rows]
    widths = [max(len(row[column]) for row in cells) for column in range(len(table.heads))]
    drawn = [
        "  ".join(
            cell.ljust(width) if column < table.words else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in cells
    ]
    return [table.title, *drawn, *table.notes]

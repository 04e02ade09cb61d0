# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs the measurements one after another, each in a process of its own, and with --write makes docs/benchmarks.md of one run.

`build.py bench` starts this. A name is that of a script here without its "bench_".
"""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from report import HAND_OVER, Ratio, Report, Table, read, seconds

HERE = Path(__file__).resolve().parent
PAGE = HERE.parents[1] / "docs" / "benchmarks.md"
# In this order on the page
NAMES = ("import", "arrival", "enable", "pump", "draft", "mesh")
INTRODUCTION = """# Measured

All figures of this page are of one run of `python build.py bench --write` on one machine:
{machine}.
Times differ from machine to machine, ratios less so. Where the extension stands beside another way, both were measured in turns,
with the same model and the same service, which is a stand-in on the same computer: what a real service and a real line take is in
none of these figures.
"""


def machine() -> str:
    """What this runs on, in words that name nobody's computer."""
    import bpy

    where = f"{platform.system()} on {platform.machine()}"
    where += f", Blender {bpy.app.version_string}, Python {platform.python_version()}"
    if hasattr(os, "sysconf"):
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
        where = f"{memory:.0f} GiB of memory, {where}"
    return f"{os.cpu_count()} cores, {where}"


def measure(name: str) -> tuple[int, Report | None]:
    """One script's exit status and what it has found; None where it came to no end."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "report.json"
        command = [sys.executable, str(HERE / f"bench_{name}.py")]
        status = subprocess.call(command, env=os.environ | {HAND_OVER: str(path)})
        return status, read(path) if path.exists() else None


def page(reports: Sequence[Report]) -> Iterator[str]:
    """The page, line by line: ratios first."""
    yield INTRODUCTION.format(machine=machine())
    ratios = [ratio for report in reports for ratio in report.ratios]
    yield from markdown(_short(ratios))
    for report in reports:
        for table in report.tables:
            yield from markdown(table)


def _short(ratios: Sequence[Ratio]) -> Table:
    heads = ["", "beside", "ratio", "this extension", "the other"]
    rows = [
        [each.what, each.instead, each.words, seconds(each.ours), seconds(each.other)]
        for each in ratios
    ]
    return Table("In short", heads, rows, words=2)


def markdown(table: Table) -> Iterator[str]:
    """One table as a section of the page."""
    yield f"## {table.title}\n"
    for number, row in enumerate((table.heads, *table.rows)):
        yield f"| {' | '.join(row)} |"
        if number == 0:
            yield "|---" * table.words + "|--:" * (len(row) - table.words) + "|"
    yield ""
    if table.notes:
        yield " ".join(table.notes) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n\n")[0])
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--write", action="store_true", help=f"write {PAGE.name} of all of them")
    which.add_argument("--only", choices=NAMES, action="append", help="this one; may be repeated")
    options = parser.parse_args()
    found = [measure(name) for name in options.only or NAMES]
    reports = [report for _, report in found if report]
    if options.write and len(reports) < len(found):
        print(f"Not written: {PAGE}, since not everything could be measured.")
    elif options.write:
        PAGE.write_text("\n".join(page(reports)).rstrip() + "\n", "utf-8")
        print(f"Written: {PAGE}")
    return max(status for status, _ in found)


if __name__ == "__main__":
    sys.exit(main())

# SPDX-License-Identifier: GPL-3.0-or-later
"""Both fuzzers with as large a budget as is asked for, random histories of the journal, and random requests to the sidecar:
`python build.py fuzz`."""

from __future__ import annotations

import argparse
import logging
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path

from PIL import Image, ImageDraw

from blender_trellis.services import sidecar
from hostile import importing, journal_model, openapi, replying
from hostile.tally import CRASHED, Tally

ROOT = Path(__file__).parents[2]
_STEPS = 50  # of a history of the journal


def subject(path: Path) -> Path:
    """A picture that can be sent."""
    image = Image.new("RGBA", (64, 64))
    ImageDraw.Draw(image).ellipse((8, 8, 56, 56), fill=(200, 40, 30, 255))
    image.save(path)
    return path


def finding(what: str, keep: Path, work: Callable[[], object]) -> list[str]:
    """Have `work` done, and where it fails, keep why as a text in `keep`; what is to be said of that."""
    try:
        work()
    except Exception as error:  # noqa: BLE001  whatever it is, the other parts are still to be tried
        keep.mkdir(parents=True, exist_ok=True)
        path = keep / f"{what}.txt"
        path.write_text("".join(traceback.format_exception(error)), encoding="utf-8")
        return [f"{CRASHED}: {what}: {type(error).__name__} ({path})"]
    return []


def main() -> int:
    """Exit status 1 where anything crashed, hung, was lost, sent twice or left behind."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--keep", type=Path, default=ROOT / "dist" / "fuzz")
    options = parser.parse_args()
    logging.disable(logging.CRITICAL)
    began = time.monotonic()
    findings: list[str] = []

    def tell(tally: Tally, columns: tuple[str, ...]) -> None:
        findings.extend(tally.findings)
        print(tally.table(columns), "\n", *tally.findings, sep="\n", flush=True)

    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as scratch:
        folder = Path(scratch)
        picture = subject(folder / "subject.png")
        for service in replying.SERVICES:
            count = options.count // len(replying.SERVICES)
            tally = replying.fuzz(service, count, options.seed, folder, picture, options.keep)
            tell(tally, replying.COLUMNS)
        tell(importing.fuzz(options.count, options.seed, folder, options.keep), importing.COLUMNS)
        examples, asked = options.count // 20, options.count // 100

        def journal() -> None:
            journal_model.run(examples, _STEPS, options.seed)
            print(
                f"Journal: {examples} histories of up to {_STEPS} steps, all as the model says.\n"
            )

        def door() -> None:
            try:
                routes = openapi.hold(*sidecar.ensure(folder), asked, options.seed)
            finally:
                sidecar.stop(folder)
            print(
                f"Sidecar: {asked} requests to each of {routes} routes, answered as documented.\n"
            )

        for what, work in (("journal", journal), ("sidecar", door)):
            found = finding(what, options.keep, work)
            findings.extend(found)
            print(*found, sep="\n", flush=True)
    minutes = (time.monotonic() - began) / 60
    print(
        f"Seed {options.seed}, {options.count:,} of each, {minutes:.0f} minutes, {len(findings)} findings."
    )
    return bool(findings)


if __name__ == "__main__":
    raise SystemExit(main())

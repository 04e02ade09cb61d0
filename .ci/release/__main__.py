# SPDX-License-Identifier: GPL-3.0-or-later
"""The commands of build.py that make a release; in an environment that has bpy, pip and packaging."""

from __future__ import annotations

import argparse
import sys

from . import ROOT, ReleaseError, licences, package, repository, wheels

DIST = ROOT / "dist"


def main() -> int:
    parser = argparse.ArgumentParser(prog="release")
    parser.add_argument("command", choices=["package", "repository", "lock"])
    parser.add_argument("--platform", action="append", choices=[*wheels.PLATFORMS])
    parser.add_argument("--url", default="")
    options = parser.parse_args()
    try:
        if options.command == "lock":
            wheels.renew()
            licences.PAGE.write_text(licences.page(), "utf-8", newline="\n")
            return 0
        made = [package.make(name, DIST) for name in options.platform or wheels.PLATFORMS]
        print(package.table(made))
        if options.command == "repository":
            print(repository.make(made, DIST / "repository", options.url))
    except ReleaseError as error:
        print(f"build.py: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())

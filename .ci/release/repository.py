# SPDX-License-Identifier: GPL-3.0-or-later
"""The extension repository: a folder of zips with an index that Blender reads, and a page to drag the extension from.

Blender looks there for updates by itself. Any web server that gives out files will do.
"""

from __future__ import annotations

import html
import json
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from . import ReleaseError
from .package import blenders_tool

_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>{name}</title>
<style>
body {{ font: 16px/1.5 sans-serif; max-width: 44em; margin: 3em auto; padding: 0 1em }}
td, th {{ padding: .3em 1em .3em 0; text-align: left }}
code {{ font-size: .85em; word-break: break-all }}
</style>
</head>
<body>
<h1>{name}</h1>
<p>{tagline}. For Blender {blender} and newer.</p>
<p>Drag the link of your system into Blender's window. Blender then asks whether to add this repository, from which it updates the
extension. Or add it by hand, in Preferences › Get Extensions › Repositories › Add Remote Repository, with the address
<code>{url}</code>.</p>
<table>
<tr><th>Drag this</th><th>Size</th><th>SHA-256</th></tr>
{rows}
</table>
</body>
</html>
"""
_ROW = '<tr><td><a href="{link}">{platform} {version}</a></td><td>{size:.1f} MB</td><td><code>{digest}</code></td></tr>'


def make(packages: Iterable[Path], folder: Path, url: str) -> Path:
    """Makes `folder` anew, with the packages, `index.json` and `index.html`, for a repository that people will find at `url`.

    The packages are of one version: of several, Blender would not take the newest.

    Raises:
        ReleaseError: Blender's own program cannot make the index of them.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for package in packages:
        shutil.copy(package, folder)
    command = [sys.executable, str(blenders_tool()), "server-generate", f"--repo-dir={folder}"]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    if done.returncode:
        raise ReleaseError(f"Blender cannot index {folder}: {done.stdout}{done.stderr}")
    index = folder / "index.json"
    listing = json.loads(index.read_text("utf-8"))
    listing["data"].sort(key=lambda entry: entry["archive_url"])  # Blender goes by the disk's order
    index.write_text(json.dumps(listing, indent=2) + "\n", "utf-8", newline="\n")
    page = _page(listing["data"], f"{url.rstrip('/')}/index.json")
    (folder / "index.html").write_text(page, "utf-8", newline="\n")
    return folder


def _page(entries: list[dict[str, Any]], url: str) -> str:
    one = entries[0]
    return _PAGE.format(
        name=html.escape(one["name"]),
        tagline=html.escape(one["tagline"]),
        blender=html.escape(one["blender_version_min"]),
        url=html.escape(url),
        rows="\n".join(map(_row, entries)),
    )


def _row(entry: dict[str, Any]) -> str:
    """What Blender wants to know of a dropped link stands in the link itself."""
    query = {
        "repository": "./index.json",
        "blender_version_min": entry["blender_version_min"],
        "platforms": ",".join(entry["platforms"]),
    }
    return _ROW.format(
        link=html.escape(f"{entry['archive_url']}?{urlencode(query)}"),
        platform=html.escape(", ".join(entry["platforms"])),
        version=html.escape(entry["version"]),
        size=entry["archive_size"] / 1e6,
        digest=html.escape(entry["archive_hash"].removeprefix("sha256:")),
    )

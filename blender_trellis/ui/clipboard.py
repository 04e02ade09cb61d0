# SPDX-License-Identifier: GPL-3.0-or-later
"""What can be pasted as a picture: files and addresses by their names, or the image itself.

Blender's own `image.clipboard_paste` works in image editors alone, and not under X11 (4.3 and 5.2, tried).
"""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit
from urllib.request import url2pathname

from ..errors import ImageError
from . import pictures

_NOTHING = "There is no picture on the clipboard. Copy an image, the path of a file, or its address on the web."
_SECONDS = 5  # whoever owns the clipboard may not answer


def named(text: str) -> list[str]:
    """The picture files and addresses that a text names, one a line; none if it is any other text."""
    lines = [line.strip().strip("\"'") for line in text.splitlines() if line.strip()]
    found = [_local(line) for line in lines]
    if not all(pictures.on_the_web(path) or _is_file(path) for path in found):
        return []
    return found


def _local(line: str) -> str:
    """The path where a file manager copies a file's URL."""
    return url2pathname(unquote(urlsplit(line).path)) if line.startswith("file:///") else line


def _is_file(path: str) -> bool:
    try:
        return Path(path).is_file()
    except (OSError, ValueError):  # too long for a path, or with a NUL
        return False


def is_text(text: str) -> bool:
    """Whether the clipboard holds words: under X11 an image's own bytes come as a text too."""
    return bool(text) and all(each.isprintable() or each.isspace() for each in text)


def copied() -> list[str]:
    """The files of the picture or pictures on the clipboard; an image gets a lasting one.

    Not to be called while the clipboard holds text: that may be Blender's own, which cannot answer meanwhile.

    Raises:
        ImageError: there is none.
        StorageError: it cannot be kept.
    """
    found = _by_tool() if sys.platform.startswith("linux") else _by_pillow()
    if isinstance(found, list):
        return found
    return [str(pictures.keep(pictures.Packed("Clipboard", found)))]


def _by_tool() -> bytes:
    """A PNG, from the tool that the desktop has for it: Pillow asks the same ones, without an end to its patience."""
    for variable, command in (
        ("WAYLAND_DISPLAY", ("wl-paste", "--no-newline", "--type", "image/png")),
        ("DISPLAY", ("xclip", "-selection", "clipboard", "-target", "image/png", "-out")),
    ):
        if not os.environ.get(variable) or not shutil.which(command[0]):
            continue
        try:
            done = subprocess.run(command, capture_output=True, timeout=_SECONDS, check=False)
        except (OSError, subprocess.TimeoutExpired):
            continue
        if done.returncode == 0 and done.stdout:
            return done.stdout
        raise ImageError(_NOTHING)
    raise ImageError(
        "Images cannot be taken from the clipboard here: install xclip, or wl-clipboard under Wayland. Paths and addresses can."
    )


def _by_pillow() -> bytes | list[str]:
    from PIL import ImageGrab

    try:
        found: Any = ImageGrab.grabclipboard()
    except (OSError, NotImplementedError, subprocess.SubprocessError) as error:
        raise ImageError(_NOTHING) from error
    if not found:
        raise ImageError(_NOTHING)
    if isinstance(found, list):
        return [str(path) for path in found]
    out = io.BytesIO()
    found.save(out, "PNG", compress_level=1)
    return out.getvalue()

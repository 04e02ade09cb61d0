# SPDX-License-Identifier: GPL-3.0-or-later
"""What an uninstalled extension would leave behind beside the models: the sidecar's log, lock, address and cache.

Blender tells no extension that it is uninstalled, and deletes its folders only. So who still runs by then looks for itself: this
Blender when it ends, and the sidecar from time to time. Standard library only.
"""

from __future__ import annotations

import atexit
import shutil
from contextlib import suppress
from pathlib import Path

from .home import FileLock, default_home


def is_uninstalled() -> bool:
    """Whether the package has gone from the disk since it was imported."""
    return not Path(__file__).exists()


def remove(sidecar: Path) -> None:
    """Remove what a sidecar leaves in its folder, but for jobs that nobody has collected, and what folders are empty then.

    Nothing is removed while a sidecar runs, or is just beginning: it may be that of another Blender.
    """
    if sidecar.is_dir():
        lock = FileLock(sidecar / "lock")
        if not lock.acquire():
            return
        for path in [path for path in sidecar.iterdir() if path.is_file() and path.name != "lock"]:
            with suppress(OSError):
                path.unlink()
        shutil.rmtree(sidecar / "cache", ignore_errors=True)
        lock.remove()
    home = sidecar.parent
    for folder in (sidecar / "jobs", sidecar, home / "results", home):
        with suppress(OSError):  # there is something in it, or it is not there
            folder.rmdir()


def _at_exit() -> None:
    if is_uninstalled():
        remove(default_home() / "sidecar")


def look_at_exit() -> None:
    """Have this done when the process ends, if the extension is uninstalled by then."""
    atexit.unregister(_at_exit)
    atexit.register(_at_exit)

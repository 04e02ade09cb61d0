# SPDX-License-Identifier: GPL-3.0-or-later
"""Run in a child process: `guard.py -m MODULE …` or `guard.py SCRIPT …`, ended when standard input ends.

So a child and what it starts never outlive the process that wants the result, however that one ends: two installers would
write to the same files. Standard library only, and nothing of the package: it runs in any Python.
"""

from __future__ import annotations

import os
import runpy
import signal
import sys
import threading


def _watch(parent: int) -> None:
    os.read(parent, 1)  # nothing is ever written: it returns when the other end is gone
    if sys.platform != "win32":
        os.killpg(0, signal.SIGKILL)  # process.py made the child the first of its group
    os._exit(1)


def main() -> None:
    """Run what the arguments name."""
    parent = os.dup(0)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    threading.Thread(target=_watch, args=(parent,), daemon=True).start()
    sys.argv.pop(0)
    if sys.argv[0] == "-m":
        sys.argv.pop(0)
        runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
    else:
        runpy.run_path(sys.argv[0], run_name="__main__")


main()

# SPDX-License-Identifier: GPL-3.0-or-later
"""What a process holds at one moment, as Linux tells it: memory, handles, threads, children. Other systems have no /proc."""

from __future__ import annotations

import ctypes
import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

PROC = Path("/proc")


@dataclass(frozen=True)
class Usage:
    """`memory` is what is resident, in MiB; `handles` are open files and pipes, `connections` sockets."""

    memory: float
    handles: int
    connections: int
    threads: int

    @classmethod
    def of(cls, pid: int) -> Usage:
        """Raises OSError where the process is gone."""
        place = PROC / str(pid)
        told = (place / "smaps_rollup").read_text().splitlines()
        pages = next(int(line.split()[1]) for line in told if line.startswith("Rss:"))
        sockets = others = 0
        for handle in (place / "fd").iterdir():
            with suppress(OSError):  # the one by which the folder is listed
                socket = str(handle.readlink()).startswith("socket:")
                sockets, others = sockets + socket, others + (not socket)
        return cls(pages / 1024, others, sockets, len(list((place / "task").iterdir())))


def children(pid: int) -> list[int]:
    """The processes that `pid` started and that are still there."""
    found = []
    for place in PROC.iterdir():
        if place.name.isdigit():
            with suppress(OSError, IndexError):
                # the second field, a program's name in brackets, may hold anything
                parent = (place / "stat").read_text().rpartition(")")[2].split()[1]
                found += [int(place.name)] * (int(parent) == pid)
    return found


def peak(pid: int) -> float:
    """The most that a process was ever resident with, in MiB; 0 where it is gone."""
    with suppress(OSError):
        for line in (PROC / str(pid) / "status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
    return 0.0


def given_back() -> float:
    """Has this process's allocator give back what it keeps of freed memory; returns how much that was, in MiB."""
    before = Usage.of(os.getpid()).memory
    with suppress(OSError, AttributeError):  # another C library than glibc
        ctypes.CDLL(None).malloc_trim(0)
    return before - Usage.of(os.getpid()).memory


def files(folder: Path) -> tuple[int, int]:
    """How many files and folders are in a folder, and their bytes, while others write there."""
    count = size = 0
    for path in folder.rglob("*"):
        with suppress(OSError):
            status = path.lstat()
            count, size = count + 1, size + (0 if path.is_dir() else status.st_size)
    return count, size

# SPDX-License-Identifier: GPL-3.0-or-later
"""Which build of PyTorch suits a computer: one table, and a look at the hardware."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from ..errors import InputError
from .process import hidden

TORCH = "2.13.0"
DEVICES = ("cuda", "rocm", "mps", "cpu")
_WHEELS = "https://download.pytorch.org/whl"
_PCS = frozenset({"linux-x86_64", "win32-x86_64"})


@dataclass(frozen=True)
class Build:
    """One build of PyTorch.

    `suffix` is its local version, `index` where its wheel is, both empty for the package index's own build; `whole_index`: what
    it depends on is in that index alone. For NVIDIA, `driver` is the oldest driver branch that it runs with, and `capability`
    the oldest and newest of the cards' compute capabilities. `room` is the free disk in bytes to ask for.
    """

    name: str
    device: str
    title: str
    platforms: frozenset[str]
    suffix: str
    index: str
    room: int
    driver: int = 0
    capability: tuple[float, float] = (0, 0)
    whole_index: bool = False

    @property
    def licences(self) -> str:
        """Those of everything that pip installs with it."""
        ours = "BSD, MIT, Apache-2.0, MPL-2.0, PSF-2.0"
        return f"{ours}; NVIDIA's own for its CUDA libraries" if self.device == "cuda" else ours

    @property
    def requirement(self) -> str:
        """The exact wheel, as pip wants it."""
        return f"torch=={TORCH}{self.suffix}"


# Indexes of 2.13: PyTorch's RELEASE.md, "Release Compatibility Matrix" (CUDA 12.6 and 13.0 stable, ROCm 7.2); its CUDA 13.2 is
# experimental and left out. Cards: "PyTorch CUDA Support Matrix" there. Drivers: NVIDIA's "Minor Version Compatibility" (CUDA 13
# wants 580, CUDA 12 wants 525). There is no build for Macs with Intel, nor for Windows on ARM.
# Of `room` only the CPU build's was measured (1.2 GB installed, 0.2 GB downloaded); the others are generous guesses.
BUILDS = (
    Build(
        "cu130",
        "cuda",
        "NVIDIA, CUDA 13.0",
        _PCS,
        "+cu130",
        f"{_WHEELS}/cu130",
        12 * 10**9,
        driver=580,
        capability=(7.5, 99),
    ),
    Build(
        "cu126",
        "cuda",
        "NVIDIA, CUDA 12.6",
        _PCS,
        "+cu126",
        f"{_WHEELS}/cu126",
        12 * 10**9,
        driver=525,
        capability=(5.0, 9.0),
    ),
    Build(
        "rocm7.2",
        "rocm",
        "AMD, ROCm 7.2",
        frozenset({"linux-x86_64"}),
        "+rocm7.2",
        f"{_WHEELS}/rocm7.2",
        25 * 10**9,
        whole_index=True,
    ),
    Build("mps", "mps", "Apple's GPU", frozenset({"darwin-arm64"}), "", "", 2 * 10**9),
    Build("cpu", "cpu", "CPU", _PCS | {"linux-aarch64"}, "+cpu", f"{_WHEELS}/cpu", 2 * 10**9),
    Build("cpu", "cpu", "CPU", frozenset({"darwin-arm64"}), "", "", 2 * 10**9),
)


@dataclass(frozen=True)
class Card:
    """An NVIDIA card: its driver's branch (580), and its compute capability (8.6)."""

    name: str
    driver: int
    capability: float


@dataclass(frozen=True)
class Choice:
    """A build, and why it is not the one that a user might expect; "" where there is nothing to say."""

    build: Build
    why: str = ""


def choose(device: str | None, platform: str) -> Choice:
    """The build for this computer, or the one for `device` if the user named one.

    Raises:
        InputError: PyTorch has none.
    """
    return fitting(device, platform, nvidia(), has_amd())


def fitting(device: str | None, platform: str, cards: Collection[Card], amd: bool) -> Choice:
    """The same for a computer with these cards; `platform` as `environment.examine` tells it, "linux-x86_64"."""
    here = [build for build in BUILDS if platform in build.platforms]
    if not here:
        raise InputError(
            f"PyTorch {TORCH} has no build for this computer ({platform}). Use a service, or the Draft engine."
        )
    by_device = {build.device: build for build in reversed(here)}  # of two the first one stays
    if device == "cuda" and not cards and "cuda" in by_device:
        return Choice(by_device["cuda"], "No NVIDIA card was found; it was asked for all the same.")
    if device in (None, "cuda") and cards:
        runs = [build for build in here if any(_runs(build, card) for card in cards)]
        if runs:
            return Choice(runs[0])
        why = _too_old(cards)
        if device == "cuda":
            raise InputError(why)
        return Choice(by_device["cpu"], f"{why} Until then it runs on the CPU, very slowly.")
    if device is None:
        wanted = "mps" if "mps" in by_device else "rocm" if amd and "rocm" in by_device else "cpu"
        usable = " (on Windows: one of NVIDIA's)" if platform.startswith("win32") else ""
        slow = (
            f"No graphics card that PyTorch can use{usable} was found: it runs on the CPU, very slowly. A model takes from tens "
            "of minutes to hours."
        )
        return Choice(by_device[wanted], slow if wanted == "cpu" else "")
    if device not in by_device:
        names = ", ".join(sorted(by_device))
        raise InputError(f"There is no build for {device} on {platform}. Choose one of {names}.")
    return Choice(by_device[device])


def _runs(build: Build, card: Card) -> bool:
    oldest, newest = build.capability
    return build.device == "cuda" and (
        card.driver >= build.driver and oldest <= card.capability <= newest
    )


def _too_old(cards: Collection[Card]) -> str:
    card = max(cards, key=lambda card: card.capability)
    oldest = min(build.capability[0] for build in BUILDS if build.device == "cuda")
    if card.capability < oldest:
        return f"The {card.name} is too old for PyTorch {TORCH}, and no driver changes that."
    needed = min(
        build.driver
        for build in BUILDS
        if build.device == "cuda" and build.capability[0] <= card.capability <= build.capability[1]
    )
    return f"The NVIDIA driver {card.driver} is too old for the {card.name}: install {needed} or newer."


def nvidia() -> list[Card]:
    """The NVIDIA cards that their driver's own tool lists; none where there is no such tool."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return []
    query = [tool, "--query-gpu=driver_version,compute_cap,name", "--format=csv,noheader"]
    try:
        done = subprocess.run(
            query, capture_output=True, text=True, check=False, timeout=30, **hidden()
        )
    except (OSError, subprocess.TimeoutExpired):
        return []
    return [card for line in done.stdout.splitlines() for card in _card(line)]


def _card(line: str) -> list[Card]:
    """One line of the answer, "550.54.15, 8.6, NVIDIA RTX A4000"; none of one that says something else."""
    try:
        driver, capability, name = line.split(", ", 2)
        return [Card(name.strip(), int(driver.split(".")[0]), float(capability))]
    except ValueError:
        return []


def has_amd(nodes: Path = Path("/sys/class/kfd/kfd/topology/nodes")) -> bool:
    """Whether Linux knows an AMD GPU that can compute: a node of its KFD driver with shader units."""
    if sys.platform != "linux":
        return False
    try:
        lists = [path.read_text().split("\n") for path in nodes.glob("*/properties")]
    except OSError:
        return False
    return any(
        line.startswith("simd_count ") and line.split()[1] != "0"
        for lines in lists
        for line in lines
    )

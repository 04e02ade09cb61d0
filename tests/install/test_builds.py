# SPDX-License-Identifier: GPL-3.0-or-later
"""Which build of PyTorch a computer gets."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from blender_trellis.errors import InputError
from blender_trellis.install import builds
from blender_trellis.install.builds import Card, fitting

LINUX, WINDOWS, MAC = "linux-x86_64", "win32-x86_64", "darwin-arm64"
AMPERE = Card("RTX 3060", 580, 8.6)
OLD_DRIVER = Card("RTX 3060", 550, 8.6)
BLACKWELL = Card("RTX 5090", 580, 12.0)
PASCAL = Card("GTX 1080", 580, 6.1)
KEPLER = Card("GTX 780", 470, 3.5)


@pytest.mark.parametrize(
    ("device", "platform", "cards", "amd", "build"),
    [
        (None, LINUX, [AMPERE], False, "cu130"),
        (None, WINDOWS, [BLACKWELL], False, "cu130"),
        (None, LINUX, [OLD_DRIVER], False, "cu126"),
        (
            None,
            LINUX,
            [PASCAL],
            False,
            "cu126",
        ),  # CUDA 13 has no kernels for it, whatever the driver
        (None, LINUX, [KEPLER, AMPERE], False, "cu130"),
        (None, LINUX, [AMPERE], True, "cu130"),
        (None, LINUX, [], True, "rocm7.2"),
        (None, WINDOWS, [], True, "cpu"),
        (None, LINUX, [], False, "cpu"),
        (None, MAC, [], False, "mps"),
        ("cpu", MAC, [], False, "cpu"),
        ("cpu", LINUX, [AMPERE], False, "cpu"),
        ("rocm", LINUX, [AMPERE], False, "rocm7.2"),
        ("cuda", WINDOWS, [], False, "cu130"),  # for a card that is put in later
    ],
)
def test_the_build_that_suits(device, platform, cards, amd, build) -> None:
    assert fitting(device, platform, cards, amd).build.name == build


def test_a_new_card_with_an_old_driver_runs_on_the_cpu_and_hears_what_to_do() -> None:
    blackwell = Card("RTX 5090", 570, 12.0)
    choice = fitting(None, LINUX, [blackwell], False)
    assert choice.build.device == "cpu"
    assert "driver 570 is too old for the RTX 5090: install 580 or newer" in choice.why
    with pytest.raises(InputError, match="install 580 or newer"):
        fitting("cuda", LINUX, [blackwell], False)
    assert "install 525 or newer" in fitting(None, LINUX, [Card("T4", 470, 7.5)], False).why
    assert "GTX 780 is too old" in fitting(None, LINUX, [KEPLER], False).why


def test_a_cpu_is_said_to_be_slow_and_a_card_is_not() -> None:
    assert "very slowly" in fitting(None, LINUX, [], False).why
    assert "on Windows: one of NVIDIA's" in fitting(None, WINDOWS, [], True).why
    assert fitting(None, LINUX, [AMPERE], False).why == fitting(None, MAC, [], False).why == ""
    assert fitting("cpu", LINUX, [AMPERE], False).why == "", "it was asked for"


@pytest.mark.parametrize("platform", ["darwin-x86_64", "win32-arm64", "linux-i686"])
def test_a_computer_without_a_build_is_told_so(platform: str) -> None:
    with pytest.raises(InputError, match=f"no build for this computer .{platform}."):
        fitting(None, platform, [], False)


def test_a_device_that_a_platform_does_not_have_is_refused_with_those_it_has() -> None:
    with pytest.raises(
        InputError, match=r"no build for rocm on win32-x86_64. Choose one of cpu, cuda"
    ):
        fitting("rocm", WINDOWS, [], True)


def test_each_wheel_is_named_exactly_and_comes_from_pytorch_or_the_package_index() -> None:
    for build in builds.BUILDS:
        assert build.requirement.startswith("torch==2.13.0") and bool(build.suffix) == bool(
            build.index
        )
        assert (
            not build.index or build.index == f"https://download.pytorch.org/whl/{build.suffix[1:]}"
        )


@pytest.mark.skipif(sys.platform == "win32", reason="the stand-in is a shell script")
@pytest.mark.parametrize(
    ("says", "cards"),
    [
        ("580.95.05, 8.6, NVIDIA GeForce RTX 3060", [Card("NVIDIA GeForce RTX 3060", 580, 8.6)]),
        ("550.1, 9.0, NVIDIA H100\n550.1, 9.0, NVIDIA H100", [Card("NVIDIA H100", 550, 9.0)] * 2),
        ("NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver.", []),
        ("470.1, [N/A], Tesla K80", []),
        ("", []),
    ],
)
def test_cards_are_what_the_drivers_tool_lists(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, says: str, cards: list[Card]
) -> None:
    tool = tmp_path / "nvidia-smi"
    tool.write_text(f"#!/bin/sh\ncat <<'END'\n{says}\nEND\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    assert builds.nvidia() == cards


@pytest.mark.skipif(sys.platform != "linux", reason="Linux's driver")
def test_an_amd_card_is_a_node_of_the_driver_with_shader_units(tmp_path: Path) -> None:
    assert not builds.has_amd(tmp_path)
    for name, units in (("0", 0), ("1", 60)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "properties").write_text(f"cpu_cores_count 8\nsimd_count {units}\n")
        assert builds.has_amd(tmp_path) == bool(units)

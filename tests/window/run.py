# SPDX-License-Identifier: GPL-3.0-or-later
"""Installs the built package into new profiles of a real Blender and carries out the window tests there: `build.py window`.

Needs the standard library alone, and an X server: of its own (Xvfb) where there is one, since the tests move the mouse. Each
module of tests has a profile of its own, as a user has it after installing; pictures and logs go to one folder.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
TESTS = (
    "first_model",
    "images_in",
    "restart",
    "update",
    "remote",
    "folder",
    "parameters",
    "scene",
    "history",
    "leftovers",
    "sizes",
    "languages",
)
BENCH, PICTURES = "bench", "pictures"
SIZE = (1600, 1000)
AGAIN = 75  # as in driver.py
LIMIT = 600  # seconds for one life of a module
TOOLS = {
    "xdotool": "moves the mouse and types",
    "import": "takes pictures (ImageMagick)",
    "convert": "prepares them for reading (ImageMagick)",
    "tesseract": "reads what stands on them",
}
# What Blender and Python print where something is wrong that they go on after
WRONG = re.compile(
    r"Traceback \(most recent call last\)|^rna_uiItem|WARNING.*rna_ui|^Error: ", re.M
)


class CannotError(Exception):
    """These tests cannot be run here, for the reason given."""


@dataclass(frozen=True)
class Blender:
    """The one under test: the program, its version, and the environment of all its processes."""

    program: str
    version: str
    env: dict[str, str]
    folder: Path

    @property
    def profile(self) -> Path:
        """The profile that the package is installed into; each module has a copy."""
        return self.folder / "profile"

    def with_profile(self, profile: Path) -> dict[str, str]:
        return self.env | {"BLENDER_USER_RESOURCES": str(profile)}

    def command(self, *arguments: str) -> str:
        """What a command of Blender's own prints.

        Raises:
            CannotError: it failed.
        """
        done = subprocess.run(
            [self.program, *arguments],
            env=self.with_profile(self.profile),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            check=False,
        )
        if done.returncode:
            raise CannotError(f"blender {' '.join(arguments)} failed:\n{done.stdout}")
        return done.stdout


# -- Around the tests ----------------------------------------------------------------------------


def check_tools() -> None:
    if sys.platform in ("win32", "darwin"):
        raise CannotError(
            "The window tests work through an X server, which Windows and macOS do not have. Run them on Linux."
        )
    lacking = [f"{name} ({what})" for name, what in TOOLS.items() if not shutil.which(name)]
    if lacking:
        raise CannotError(f"Install first: {', '.join(lacking)}.")


def python_with_xlib() -> str:
    """A Python that can drop files; "" if there is none."""
    for python in (sys.executable, "python3", "/usr/bin/python3"):
        if shutil.which(python):
            tried = subprocess.run([python, "-c", "import Xlib"], capture_output=True, check=False)
            if tried.returncode == 0:
                return python
    return ""


@contextmanager
def display(visible: bool) -> Iterator[dict[str, str]]:
    """Variables that lead to an X server: a new one that nobody sees, or the one at hand."""
    if visible or not shutil.which("Xvfb"):
        if not os.environ.get("DISPLAY"):
            raise CannotError(
                "There is no X server here. Install Xvfb, or start this in a session."
            )
        authority = os.environ.get("XAUTHORITY") or str(Path.home() / ".Xauthority")
        yield {"DISPLAY": os.environ["DISPLAY"], "XAUTHORITY": authority}
        return
    read, written = os.pipe()
    screen = f"{SIZE[0]}x{SIZE[1]}x24"
    command = ["Xvfb", "-displayfd", str(written), "-screen", "0", screen, "-dpi", "96"]
    Path("/tmp/.X11-unix").mkdir(mode=0o1777, exist_ok=True)
    server = subprocess.Popen(
        [*command, "-noreset", "-nolisten", "tcp"],
        pass_fds=[written],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    os.close(written)
    try:
        number = os.read(read, 16).decode().strip()
        if not number:
            raise CannotError("Xvfb did not start.")
        yield {"DISPLAY": f":{number}", "LIBGL_ALWAYS_SOFTWARE": "1"}
    finally:
        server.terminate()
        server.wait()


@contextmanager
def home(pictures: bool) -> Iterator[Path]:
    """A folder for all that the tests leave, which is also the user's home; where one is as a rule if pictures show it, and if
    it can be made there."""
    usual = Path("/home/you")
    if not (pictures and os.access(usual.parent, os.W_OK) and not usual.exists()):
        with tempfile.TemporaryDirectory(prefix="window-", ignore_cleanup_errors=True) as scratch:
            yield Path(scratch)
        return
    usual.mkdir()
    try:
        yield usual
    finally:
        shutil.rmtree(usual, ignore_errors=True)


def environment(folder: Path, shown: dict[str, str], package: Path) -> dict[str, str]:
    """What tests are told, and nothing of the user's own: neither settings and keys, nor the home folder and the keychain."""
    theirs = ("FAL_", "RUNWARE_", "TRELLIS_", "BLENDER_", "XDG_", "WAYLAND_", "PYTHON")
    env = {name: value for name, value in os.environ.items() if not name.startswith(theirs)}
    (folder / "run").mkdir(mode=0o700)
    return (
        env
        | {"HOME": str(folder), "XDG_RUNTIME_DIR": str(folder / "run"), "LANG": "C.UTF-8"}
        | {"WINDOW_XLIB": python_with_xlib(), "WINDOW_PACKAGE": str(package)}
        | {"PYTHON_KEYRING_BACKEND": "keyring.backends.null.Keyring"}
        | shown
    )


def install(blender: Blender, package: Path) -> None:
    """As a user does it who knows the command line; the switch `-e` enables it."""
    arguments = ["install-file", "-r", "user_default", "-e", str(package)]
    say(f"Installing {package.name} into a new profile of Blender {blender.version}")
    blender.command("--command", "extension", *arguments)


def version_of(program: str) -> str:
    try:
        said = subprocess.run(
            [program, "--version"], capture_output=True, text=True, check=False
        ).stdout
    except OSError as error:
        raise CannotError(f"{program} cannot be started: {error}.") from error
    found = re.search(r"^Blender (\d+)\.(\d+)\.(\d+)", said, re.M)
    if not found:
        raise CannotError(f"{program} does not say that it is a Blender.")
    if (int(found[1]), int(found[2])) < (4, 2):
        raise CannotError(
            f"This is Blender {found[1]}.{found[2]}; the extension needs 4.2 or newer."
        )
    return ".".join(found.groups())


# -- The tests -----------------------------------------------------------------------------------


def carry_out(blender: Blender, module: str, out: Path) -> list[dict[str, Any]]:
    """One module in a profile of its own, with as many starts of Blender as it wants: what it told."""
    profile = blender.folder / module
    shutil.copytree(blender.profile, profile, symlinks=True)
    report, log = out / f"{module}.jsonl", out / f"{module}.log"
    log.unlink(missing_ok=True)
    life, status = 0, AGAIN
    while status == AGAIN:
        command = [blender.program, "-p", "0", "0", *map(str, SIZE)]
        command += ["--python", str(HERE / "start.py"), "--", str(out), module, str(life)]
        with log.open("ab") as written:
            status = watch(
                command, blender.with_profile(profile), written, out / f"{module}-killed.png"
            )
        life += 1
    told = (
        [json.loads(line) for line in report.read_text("utf-8").splitlines()]
        if report.exists()
        else []
    )
    report.unlink(missing_ok=True)
    failed = any(each.get("result") == "FAILED" for each in told)
    if status and not failed:
        told.append(failure(f"Blender ended with {status}, see {log.name}"))
    said = WRONG.search(log.read_text("utf-8", "replace"))
    if said and not failed:
        told.append(failure(f"{said[0]!r} stands in {log.name}"))
    shutil.rmtree(profile, ignore_errors=True)
    return told


def failure(why: str) -> dict[str, Any]:
    return {"step": "blender_is_content", "seconds": 0.0, "result": "FAILED", "why": why}


def watch(command: list[str], env: dict[str, str], log: Any, picture: Path) -> int:
    """A process's exit status; after LIMIT seconds it is killed, with a last picture of the screen."""
    process = subprocess.Popen(
        command, env=env, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
    )
    try:
        return process.wait(LIMIT)
    except subprocess.TimeoutExpired:
        subprocess.run(["import", "-silent", "-window", "root", picture], env=env, check=False)
        return -signal.SIGKILL
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def show(module: str, told: list[dict[str, Any]]) -> None:
    for each in told:
        if "figure" in each:
            say(f"    {each['figure']}: {each['value']}")
            continue
        name = each["step"].replace("_", " ")
        say(f"{each['result']:<12}{each['seconds']:7.1f} s  {module}: {name}")
        if each.get("why"):
            say("    " + each["why"])


def run(options: argparse.Namespace) -> int:
    version = version_of(options.blender)
    check_tools()
    out = ROOT / "dist" / "window" / version
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    started, told = time.monotonic(), list[dict[str, Any]]()
    with home(options.pictures) as folder, display(options.visible) as shown:
        package = options.package.resolve()
        blender = Blender(options.blender, version, environment(folder, shown, package), folder)
        install(blender, package)
        try:
            for module in chosen(options):
                told_now = carry_out(blender, module, out)
                show(module, told_now)
                told += told_now
        finally:
            # The sidecar outlives Blender by ten idle minutes
            blender.command("--command", "trellis", "sidecar", "stop")
    if options.pictures:
        for made in out.glob(f"{PICTURES}-*.png"):
            shutil.copy(made, ROOT / "docs" / "images" / made.name.removeprefix(f"{PICTURES}-"))
    results = [each["result"] for each in told if "result" in each]
    counts = ", ".join(f"{results.count(kind)} {kind}" for kind in dict.fromkeys(results))
    pictures = len(list(out.glob("*.png")))
    took = time.monotonic() - started
    say(f"Blender {version}: {counts} in {took:.0f} s; {pictures} pictures in {out}")
    return 1 if {"FAILED", "not reached"} & {*results} else 0


def chosen(options: argparse.Namespace) -> Sequence[str]:
    if options.pictures:
        return [PICTURES]
    return [BENCH] if options.bench else options.modules or TESTS


def say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--blender", required=True)
    parser.add_argument("--package", required=True, type=Path)
    for switch in ("--visible", "--pictures", "--bench"):
        parser.add_argument(switch, action="store_true")
    parser.add_argument("modules", nargs="*", choices=[*TESTS, []], metavar="MODULE")
    try:
        return run(parser.parse_args(arguments))
    except CannotError as error:
        sys.stderr.write(f"window: {error}\n")
        return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

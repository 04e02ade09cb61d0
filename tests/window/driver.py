# SPDX-License-Identifier: GPL-3.0-or-later
"""Hands and eyes for a Blender window, from inside that Blender: real mouse, keyboard and clipboard events through the X server,
pictures of its screen, and words read off them.

A step of a test is a generator function; `yield SECONDS` gives Blender's event loop its time. What sends events runs beside the
loop and is never waited for inside it: Blender must handle a move before the press. Coordinates are Blender's own, in pixels
from the window's lower left corner.
"""

from __future__ import annotations

import csv
import functools
import itertools
import json
import os
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import bpy

OUT, MODULE, LIFE = sys.argv[sys.argv.index("--") + 1 :][:3]
AGAIN = 75  # exit status: start this Blender once more, for the module's next life
PATIENCE = 120.0  # seconds for anything: the machine may be slow, and the pictures are drawn by its processor
# Software OpenGL draws a few frames a second, and a button is pressed only if it was drawn under the mouse before
HOVER, HOLD, AFTER = 0.6, 0.15, 0.8
# So much slower at most is a machine that has other work, too
HOVER *= min(max(os.getloadavg()[0] / (os.cpu_count() or 1), 1.0), 3.0)
# How bright letters are and what they stand on, for `words`: dim ones on a panel, and ones on a button under the mouse
DIM, BRIGHT = "25%,55%", "45%,75%"

Step = Iterator[float]


class LeftOut(Exception):
    """A step cannot be tried here, for the reason given."""


@dataclass(frozen=True)
class Box:
    """A rectangle of the window."""

    left: int
    bottom: int
    right: int
    top: int

    @property
    def centre(self) -> tuple[int, int]:
        return (self.left + self.right) // 2, (self.bottom + self.top) // 2


# -- Where things are ----------------------------------------------------------------------------


def window() -> bpy.types.Window:
    return bpy.context.window_manager.windows[0]


def area(kind: str = "VIEW_3D") -> bpy.types.Area:
    return next(each for each in window().screen.areas if each.type == kind)


def region(kind: str = "UI", of: str = "VIEW_3D") -> bpy.types.Region:
    return next(each for each in area(of).regions if each.type == kind)


def box(of: bpy.types.Region | bpy.types.Window) -> Box:
    left, bottom = (0, 0) if isinstance(of, bpy.types.Window) else (of.x, of.y)
    return Box(left, bottom, left + of.width, bottom + of.height)


def scale() -> float:
    """How many pixels a unit of the interface has."""
    return float(bpy.context.preferences.system.ui_scale)


def override(kind: str = "UI") -> Any:
    """A context in the 3D viewport, for an operator that a test calls itself."""
    return bpy.context.temp_override(
        window=window(), screen=window().screen, area=area(), region=region(kind)
    )


@functools.cache
def _origin(wide: int, high: int) -> tuple[int, int]:
    """Where the upper left corner of this Blender's window of a size is on the screen: a window manager may have moved it."""
    found = _output("xdotool", "search", "--onlyvisible", "--pid", str(os.getpid()))
    for number in found.split():
        said = _output("xdotool", "getwindowgeometry", "--shell", number)
        known = dict(line.split("=", 1) for line in said.splitlines() if "=" in line)
        if (int(known["WIDTH"]), int(known["HEIGHT"])) == (wide, high):
            return int(known["X"]), int(known["Y"])
    return 0, 0


def on_screen(x: float, y: float, of: bpy.types.Window | None = None) -> tuple[int, int]:
    """The screen's pixel for one of a window: the main one, if it is not said which."""
    of = of or window()
    left, top = _origin(of.width, of.height)
    return left + int(x), top + of.height - 1 - int(y)


def place_of(other: bpy.types.Window) -> Box:
    """Where another window lies over the main one, as a part of that."""
    (x, y), (left, bottom) = on_screen(0, 0, other), on_screen(0, 0)
    return Box(x - left, bottom - y, x - left + other.width, bottom - y + other.height)


def _output(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout


# -- Eyes ----------------------------------------------------------------------------------------


def shot(name: str, part: Box | None = None, of: bpy.types.Window | None = None) -> Path:
    """A picture of the whole screen, or of a part of a window. `screen.screenshot` reads black where OpenGL is software."""
    path = Path(OUT, f"{MODULE}-{name}.png")
    command = ["import", "-silent", "-window", "root"]
    if part:
        left, top = on_screen(part.left, part.top - 1, of)
        size = f"{part.right - part.left}x{part.top - part.bottom}"
        command += ["-crop", f"{size}+{left}+{top}", "+repage"]
    subprocess.run([*command, str(path)], check=True)
    return path


def shot_sidebar(name: str) -> Path:
    return shot(name, box(region()))


@dataclass(frozen=True)
class Word:
    text: str
    box: Box


def words(part: Box, levels: str = DIM) -> list[Word]:
    """What can be read in a part of the window, by tesseract, in reading order; `levels`: what is black, and what is white."""
    scale = 3
    path = shot("ocr", part)
    # Bright letters on a dark, half-transparent panel become black ones on white, also red, dim and inverted ones
    clear = ["-channel", "R", "-separate", "-resize", f"{100 * scale}%"]
    clear += ["-level", levels, "-negate"]
    subprocess.run(["convert", path, *clear, path], check=True)
    rows = _output("tesseract", str(path), "-", "--psm", "11", "tsv").splitlines()
    path.unlink()
    found = []
    for row in csv.DictReader(rows, delimiter="\t", quoting=csv.QUOTE_NONE):
        if row["text"] and row["text"].strip() and float(row["conf"]) > 20:
            x, y, wide, high = (
                int(row[key]) // scale for key in ("left", "top", "width", "height")
            )
            left, top = part.left + x, part.top - y
            found.append(Word(row["text"], Box(left, top - high, left + wide, top)))
    return found


def places(text: str, part: Box, levels: str = DIM) -> list[Box]:
    """Where the words of `text` stand in a row."""
    seen, wanted = words(part, levels), text.lower().split()
    found = []
    for start in range(len(seen) - len(wanted) + 1):
        row = seen[start : start + len(wanted)]
        if [word.text.lower().strip(".,:;|…") for word in row] == wanted:
            boxes = [word.box for word in row]
            lows, highs = [each.bottom for each in boxes], [each.top for each in boxes]
            found.append(Box(boxes[0].left, min(lows), boxes[-1].right, max(highs)))
    return found


def read(part: Box) -> str:
    return " ".join(word.text for word in words(part))


def find(text: str, part: Box | None = None, nth: int = 0) -> Generator[float, None, Box]:
    """The nth place where `text` stands (-1: the last), in the sidebar if not elsewhere; it may take a moment to appear."""
    deadline = time.monotonic() + 15
    levels = itertools.cycle((DIM, BRIGHT))
    while True:
        found = places(text, part or box(region()), next(levels))
        if -len(found) <= nth < len(found):
            return found[nth]
        assert time.monotonic() < deadline, (
            f"{text!r} is not on the screen; read: {read(part or box(region()))}"
        )
        yield 0.5


# -- Hands ---------------------------------------------------------------------------------------


def act(*command: object, after: float = AFTER) -> Step:
    """Run a program beside Blender's event loop, and go on some time after it has ended."""
    program = subprocess.Popen([str(each) for each in command])
    while program.poll() is None:
        yield 0.05
    assert program.returncode == 0, f"{command} ended with {program.returncode}"
    yield after


def move(x: float, y: float) -> Step:
    yield from act("xdotool", "mousemove", *on_screen(x, y), after=0.4)


def click(x: float, y: float, button: int = 1, after: float = AFTER) -> Step:
    right, down = on_screen(x, y)
    hands = ["mousemove", right - 3, down, "sleep", HOLD, "mousemove", right, down, "sleep", HOVER]
    hands += ["mousedown", button, "sleep", HOLD, "mouseup", button]
    yield from act("xdotool", *hands, after=after)


def click_text(text: str, part: Box | None = None, nth: int = 0, after: float = AFTER) -> Step:
    found = yield from find(text, part, nth)
    yield from click(*found.centre, after=after)


def press(*names: str, after: float = 0.5) -> Step:
    yield from act("xdotool", "key", "--delay", 60, *names, after=after)


def write(text: str) -> Step:
    yield from act("xdotool", "type", "--delay", 25, text, after=0.5)


def click_operator(command: str, below: str = "", x: float | None = None) -> Step:
    """Press the button of an operator, as `trellis.cancel`, where only an icon shows it: on the vertical line at `x`, which is
    that of the icons at the sidebar's right, under the words `below`. Blender says what the button under the mouse does."""
    sidebar, scale = box(region()), bpy.context.preferences.system.ui_scale
    x = sidebar.right - 50 * scale if x is None else x
    y = sidebar.top - 30 * scale
    if below:
        heading = yield from find(below)
        y = heading.bottom - 5 * scale
    seen: list[str] = []
    while y > sidebar.bottom:
        yield from act("xdotool", "mousemove", *on_screen(x, y), after=0.35)
        seen.append(_under_the_mouse())
        if seen[-1].startswith(f"bpy.ops.{command}("):
            yield from click(x, y)
            return
        y -= 10 * scale
    raise AssertionError(f"no button of {command} at {x:.0f}; there are {sorted({*seen})}")


def _under_the_mouse() -> str:
    """The call of the button under the mouse."""
    manager = bpy.context.window_manager
    manager.clipboard = ""
    with override():
        if bpy.ops.ui.copy_python_command_button.poll():
            bpy.ops.ui.copy_python_command_button()
    return manager.clipboard


def fill(x: float, y: float, text: str) -> Step:
    """Replace what stands in the text field at x, y."""
    yield from click(x, y, after=1.0)
    yield from press("ctrl+a")
    yield from write(text)
    yield from press("Return")


def drop(x: float, y: float, *paths: Path) -> Step:
    """Drop files as from a file manager."""
    python = os.environ.get("WINDOW_XLIB")
    if not python:
        raise LeftOut("no Python here has python-xlib, which is needed to drop files")
    drag = Path(__file__).with_name("drop.py")
    yield from act(python, drag, *on_screen(x, y), *paths, after=1.0)


def hover_viewport() -> Step:
    """Put the mouse where a key means the 3D viewport, below everything in it."""
    whole = box(region("WINDOW"))
    yield from move(whole.left + (whole.right - whole.left) * 0.35, whole.bottom + 40)


# -- Waiting and telling -------------------------------------------------------------------------


def until(done: Callable[[], Any], what: str, every: float = 0.1) -> Step:
    deadline = time.monotonic() + PATIENCE
    while not done():
        assert time.monotonic() < deadline, f"{what}: not within {PATIENCE:.0f} s"
        yield every


def tell(**known: Any) -> None:
    """A line for the runner: how a step went, or a figure that was measured."""
    with Path(OUT, f"{MODULE}.jsonl").open("a", encoding="utf-8") as report:
        report.write(json.dumps(known) + "\n")


def figure(name: str, value: str) -> None:
    tell(figure=name, value=value)


def run(module: ModuleType) -> None:
    """Carry out the module's steps of this life, one after the other; the first that fails ends them."""
    bpy.context.preferences.view.show_splash = False  # in time: the splash is made after this
    lives: list[list[Callable[[], Step]]] = module.LIVES
    last = int(LIFE) + 1 == len(lives)
    script = _all(lives[int(LIFE)])

    def tick() -> float | None:
        try:
            return next(script)
        except StopIteration as end:
            _leave(1 if end.value else 0 if last else AGAIN)

    bpy.app.timers.register(tick, first_interval=1.0, persistent=True)


def _all(steps: list[Callable[[], Step]]) -> Iterator[float]:
    """Every step; returns whether one failed."""
    for number, step in enumerate(steps):
        started, result = time.monotonic(), {"result": "passed"}
        try:
            yield from step()
        except LeftOut as reason:
            result = {"result": "left out", "why": str(reason)}
        except Exception as error:  # noqa: BLE001  whatever it is, it is told
            traceback.print_exc()
            shot("failure")
            result = {"result": "FAILED", "why": _why(error)}
        tell(step=step.__name__, seconds=time.monotonic() - started, **result)
        if result["result"] == "FAILED":
            for missed in steps[number + 1 :]:
                tell(step=missed.__name__, seconds=0.0, result="not reached")
            return True
    return False


def _why(error: Exception) -> str:
    """What it says, and where."""
    place = traceback.extract_tb(error.__traceback__)[-1]
    return f"{Path(place.filename).name}:{place.lineno}: {str(error) or place.line}"


def _leave(status: int) -> None:
    """End at once, as a crash would: no question, no tidying, and the status is kept."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)

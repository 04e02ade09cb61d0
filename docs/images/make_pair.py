# SPDX-License-Identifier: GPL-3.0-or-later
"""Makes picture-and-model.png, the picture at the top of the README: what went in, and what `python build.py demo` made of it.

python docs/images/make_pair.py, after the demo, in its virtual environment.
"""

from __future__ import annotations

from pathlib import Path

from PIL import Image, ImageDraw

HERE = Path(__file__).parent
PAIR = (HERE / "robot.png", HERE.parents[1] / "demo" / "preview.png")
SIDE = 480
GAP = 90
BACKGROUND = (236, 238, 240)
ARROW = (150, 156, 162)


def main() -> None:
    """Both on one plain background, an arrow between them."""
    sheet = Image.new("RGB", (2 * SIDE + GAP, SIDE), BACKGROUND)
    for place, path in zip((0, SIDE + GAP), PAIR, strict=True):
        picture = Image.open(path).convert("RGBA").resize((SIDE, SIDE), Image.Resampling.LANCZOS)
        sheet.paste(picture, (place, 0), picture)
    middle, left = SIDE // 2, SIDE + GAP // 2 - 30
    draw = ImageDraw.Draw(sheet)
    draw.line((left, middle, left + 44, middle), ARROW, 8)
    draw.polygon([(left + 40, middle - 16), (left + 66, middle), (left + 40, middle + 16)], ARROW)
    sheet.save(HERE / "picture-and-model.png", optimize=True)


if __name__ == "__main__":
    main()

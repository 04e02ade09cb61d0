# SPDX-License-Identifier: GPL-3.0-or-later
"""The contact sheet of a batch: a small picture of each model with its name, in rows, on as many pages as it takes."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from PIL import Image, ImageDraw, ImageFont

from ..home import atomic_write
from .library import output_error, thumbnail

_log = logging.getLogger(__name__)

SIDE = 192  # pixels of a picture's sides
_CAPTION = 26  # pixels below it
_GAP = 8
_COLUMNS = 8
_ROWS = 25  # on a page, so that it stays a picture that can be looked at
_FONT = 13
_PAPER, _CARD, _INK, _ALARM = "#303030", "#3d3d3d", "#e6e6e6", "#ff7a6b"


class Cell(NamedTuple):
    """A model's place. `picture` is a small one of it, None where there is no model; `note` then says why, in a word."""

    name: str
    picture: Path | None
    note: str = ""


def picture_of(model: Path, kept: Path) -> Path | None:
    """A picture of a model, the one that lies beside it if there is one; else it is drawn, and kept as `kept`.

    None where that cannot be done: it tells nothing about the model, so it is only logged.
    """
    for there in (kept, thumbnail(model)):
        if there.exists():
            return there
    try:
        from ..pixels.view import draw  # numpy, which is not everywhere

        drawn = draw(model, SIDE)
        kept.parent.mkdir(exist_ok=True)
        with atomic_write(kept) as part:
            drawn.save(part, "PNG")
    except (OSError, ValueError, ImportError) as error:
        _log.info("no picture of %s: %s", model, error)
        return None
    return kept


def make_sheet(cells: Iterable[Cell], to: Path) -> list[Path]:
    """Draw the contact sheet as the PNG `to`; further pages stand beside it, as name-2.png. Returns all of them.

    Raises:
        OutputError: one cannot be written.
    """
    pages: list[Path] = []
    left = iter(cells)
    while page := [*islice(left, _COLUMNS * _ROWS)]:
        path = to.with_stem(f"{to.stem}-{len(pages) + 1}") if pages else to
        try:
            with atomic_write(path) as part:
                _page(page).save(part, "PNG")
        except OSError as error:
            raise output_error(error, path) from error
        pages.append(path)
    return pages


def _page(cells: Sequence[Cell]) -> Image.Image:
    columns = min(len(cells), _COLUMNS)
    rows = -(-len(cells) // columns)
    width, height = SIDE + _GAP, SIDE + _CAPTION + _GAP
    page = Image.new("RGB", (columns * width + _GAP, rows * height + _GAP), _PAPER)
    for cell, (row, column) in zip(cells, _places(columns), strict=False):
        _put(page, cell, _GAP + column * width, _GAP + row * height)
    return page


def _places(columns: int) -> Iterator[tuple[int, int]]:
    row = 0
    while True:
        yield from ((row, column) for column in range(columns))
        row += 1


def _put(page: Image.Image, cell: Cell, x: int, y: int) -> None:
    """One cell, with its upper left corner at a place of the page."""
    draw = ImageDraw.Draw(page)
    font = ImageFont.load_default(_FONT)
    draw.rectangle((x, y, x + SIDE - 1, y + SIDE + _CAPTION - 1), fill=_CARD)
    if cell.picture:
        with Image.open(cell.picture) as opened:
            picture = opened.convert("RGBA")
        picture.thumbnail((SIDE, SIDE))
        inset = ((SIDE - picture.width) // 2, (SIDE - picture.height) // 2)
        page.paste(picture, (x + inset[0], y + inset[1]), picture)
    if cell.note:
        draw.text((x + SIDE / 2, y + SIDE / 2), cell.note, fill=_ALARM, font=font, anchor="mm")
    name = _fitting(cell.name, font, SIDE - 2 * _GAP)
    draw.text((x + SIDE / 2, y + SIDE + _CAPTION / 2), name, fill=_INK, font=font, anchor="mm")


def _fitting(name: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int) -> str:
    """`name`, or as much of its end as there is place for: names of one batch differ there."""
    kept = name
    while font.getlength(kept) > width and len(kept) > 2:
        kept = f"…{kept[2:]}"
    return kept

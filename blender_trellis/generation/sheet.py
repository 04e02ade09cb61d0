# SPDX-License-Identifier: GPL-3.0-or-later
"""The contact sheet of a batch: a small picture of each model with its name, in rows, on as many pages as it takes."""

from __future__ import annotations

import contextlib
import functools
import logging
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from PIL import Image, ImageDraw, ImageFont

from ..errors import InputError
from ..home import atomic_write
from .job import State
from .library import numbered, output_error, thumbnail
from .rows import SHEET, THUMBNAILS

if TYPE_CHECKING:
    from .book import Book
    from .journal import Journal
    from .rows import Row

_log = logging.getLogger(__name__)

SIDE = 192  # pixels of a picture's sides
_CAPTION = 26  # pixels below it
_GAP = 8
_COLUMNS = 8
_ROWS = 25  # on a page, so that it stays a picture that can be looked at
_LETTERS = 13  # pixels, their height
_PAPER, _CARD, _INK, _ALARM = "#303030", "#3d3d3d", "#e6e6e6", "#ff7a6b"


_Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


class Cell(NamedTuple):
    """A model's place. `number` is that of its row. `picture` is a small one of it, None where there is no model; `note` then
    says why, in a word."""

    number: int
    name: str
    picture: Path | None
    note: str = ""


def contact_sheet(
    book: Book,
    rows: Iterable[Row],
    journal: Journal,
    more_letters: Callable[[], Sequence[Path]] = tuple,
) -> list[Path]:
    """Draw what became of a batch's rows, in its folder; returns all pages. `more_letters` as for `make_sheet`.

    Raises:
        OutputError: one cannot be written.
    """

    def cells() -> Iterator[Cell]:
        for row in rows:
            known = book.lines.get(row.output)
            if known is None:
                yield Cell(row.number, row.output, None, "not made")
            elif known.state is State.READY:
                picture = picture_in(book, row.output, journal, known.job_id)
                yield Cell(row.number, row.output, picture, "" if picture else "no picture")
            else:
                yield Cell(row.number, row.output, None, str(known.state))

    return make_sheet(cells(), book.folder / SHEET, more_letters)


def picture_in(book: Book, output: str, journal: Journal, job_id: str | None) -> Path | None:
    """A picture of a batch's model, drawn once; None as for `picture_of`."""
    model = book.folder / output
    with contextlib.suppress(InputError):  # else somebody took it out of the journal
        model = Path(journal.get(job_id or "").files[0])
    return picture_of(model, book.folder / THUMBNAILS / f"{job_id}.png")


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


def make_sheet(
    cells: Iterable[Cell], to: Path, more_letters: Callable[[], Sequence[Path]] = tuple
) -> list[Path]:
    """Draw the contact sheet as the PNG `to`; further pages stand beside it, as name-2.png. Returns all of them.

    Pillow's own font has the letters of ASCII alone; where a name has others, `more_letters` is asked for files of other fonts. A
    name that none of them can write is replaced by the number of its row.

    Raises:
        OutputError: one cannot be written.
    """
    fonts = _Fonts(more_letters)
    pages: list[Path] = []
    left = iter(cells)
    while page := [*islice(left, _COLUMNS * _ROWS)]:
        path = numbered(to, len(pages))
        try:
            with atomic_write(path) as part:
                _page(page, fonts).save(part, "PNG")
        except OSError as error:
            raise output_error(error, path) from error
        pages.append(path)
    return pages


class _Fonts:
    """What names are written with."""

    def __init__(self, more_letters: Callable[[], Sequence[Path]]) -> None:
        self._more_letters = more_letters
        self.own = ImageFont.load_default(_LETTERS)

    @functools.cached_property
    def _others(self) -> list[_Font]:
        found: list[_Font] = []
        for path in self._more_letters():
            try:
                found.append(ImageFont.truetype(path, _LETTERS))
            except OSError as error:  # it may be packed in a way that this Pillow does not know
                _log.info("%s cannot be used: %s", path, error)
        return found

    def caption(self, cell: Cell) -> tuple[str, _Font]:
        """What to call a model, and the font for that."""
        name = unicodedata.normalize("NFC", cell.name)  # macOS has letters and accents apart
        if name.isascii():
            return name, self.own
        font = next((font for font in self._others if _has(font, name)), None)
        return (name, font) if font else (f"row {cell.number}", self.own)


def _has(font: _Font, text: str) -> bool:
    """Whether a font has all letters of a text: for those that it lacks it draws all the same."""
    lacking = _drawn(font, "\uffff")
    return all(_drawn(font, letter) != lacking for letter in set(text))


def _drawn(font: _Font, letter: str) -> bytes:
    picture = Image.new("L", (2 * _LETTERS, 2 * _LETTERS))
    ImageDraw.Draw(picture).text((0, 0), letter, fill=255, font=font)
    return picture.tobytes()


def _page(cells: Sequence[Cell], fonts: _Fonts) -> Image.Image:
    columns = min(len(cells), _COLUMNS)
    rows = -(-len(cells) // columns)
    width, height = SIDE + _GAP, SIDE + _CAPTION + _GAP
    page = Image.new("RGB", (columns * width + _GAP, rows * height + _GAP), _PAPER)
    for number, cell in enumerate(cells):
        row, column = divmod(number, columns)
        _put(page, cell, fonts, _GAP + column * width, _GAP + row * height)
    return page


def _put(page: Image.Image, cell: Cell, fonts: _Fonts, x: int, y: int) -> None:
    """One cell, with its upper left corner at a place of the page."""
    draw = ImageDraw.Draw(page)
    draw.rectangle((x, y, x + SIDE - 1, y + SIDE + _CAPTION - 1), fill=_CARD)
    if cell.picture:
        with Image.open(cell.picture) as opened:
            picture = opened.convert("RGBA")
        picture.thumbnail((SIDE, SIDE))
        inset = ((SIDE - picture.width) // 2, (SIDE - picture.height) // 2)
        page.paste(picture, (x + inset[0], y + inset[1]), picture)
    if cell.note:
        middle = (x + SIDE / 2, y + SIDE / 2)
        draw.text(middle, cell.note, fill=_ALARM, font=fonts.own, anchor="mm")
    name, font = fonts.caption(cell)
    name = _fitting(name, font, SIDE - 2 * _GAP)
    draw.text((x + SIDE / 2, y + SIDE + _CAPTION / 2), name, fill=_INK, font=font, anchor="mm")


def _fitting(name: str, font: _Font, width: int) -> str:
    """`name`, or as much of its end as there is place for: names of one batch differ there."""
    kept = name
    while font.getlength(kept) > width and len(kept) > 4:
        kept = f"...{kept[4:]}"
    return kept

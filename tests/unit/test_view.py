# SPDX-License-Identifier: GPL-3.0-or-later
"""Small pictures of models without Blender, and the contact sheet that they are put on."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from blender_trellis import cli_batch
from blender_trellis.generation import sheet
from blender_trellis.generation.sheet import SIDE, Cell, make_sheet, picture_of
from blender_trellis.pixels.view import draw
from scene import glbs


def _drawn(path: Path, *meshes: glbs.Shape) -> np.ndarray:
    return np.asarray(draw(glbs.write(path, list(meshes)), 96)).astype(int)


def test_a_box_is_seen_from_the_front_its_right_and_above_without_gaps(tmp_path: Path) -> None:
    seen = _drawn(tmp_path / "box.glb", glbs.box((1, 2, 1)))
    rows, columns = np.nonzero(seen[..., 3])
    assert (rows.min(), rows.max()) == pytest.approx((5, 90), abs=2)
    assert columns.max() - columns.min() < 60
    front, right, top = seen[60, 40], seen[60, 60], seen[12, 48]
    assert (front[3], right[3], top[3]) == (255, 255, 255)
    assert len({tuple(each[:3]) for each in (front, right, top)}) == 3
    inside = seen[30:70, 40:56, 3]
    assert (inside == 255).all()


def test_a_texture_is_seen_in_its_colours(tmp_path: Path) -> None:
    png = io.BytesIO()
    Image.new("RGB", (8, 8), "red").save(png, "PNG")
    red = glbs.Material({"baseColor": png.getvalue()})
    path = glbs.write(tmp_path / "red.glb", [glbs.box((1, 1, 1))], red)
    seen = np.asarray(draw(path, 64)).astype(int)
    middle = seen[20:44, 20:44].reshape(-1, 4)
    assert middle[:, 0].min() > 90 and middle[:, 1:3].max() == 0


def test_what_cannot_be_drawn_has_no_picture(tmp_path: Path) -> None:
    broken = tmp_path / "broken.glb"
    for data in (b"", b"glTF" + bytes(40), b"x" * 100):
        broken.write_bytes(data)
        with pytest.raises(ValueError):
            draw(broken, 32)
    assert picture_of(broken, tmp_path / "thumbnails" / "x.png") is None


def test_a_sheet_has_a_cell_for_each_and_goes_on_on_another_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sheet, "_ROWS", 2)
    model = glbs.write(tmp_path / "box.glb", [glbs.box((1, 1, 1))])
    picture = picture_of(model, tmp_path / "thumbnails" / "box.png")
    cells = [
        Cell(number, f"{number} with a long name that does not fit.glb", picture)
        for number in range(17)
    ]
    cells[3] = Cell(3, "3.glb", None, "failed")
    first, second = make_sheet(cells, tmp_path / "sheet.png")
    assert (first.name, second.name) == ("sheet.png", "sheet-2.png")
    with Image.open(first) as page, Image.open(second) as last:
        assert page.size == (8 * (SIDE + 8) + 8, 2 * (SIDE + 34) + 8)
        assert last.size == (SIDE + 16, SIDE + 42)
        shown = np.asarray(page)
    assert (shown[8 : 8 + SIDE, 8 : 8 + SIDE] > 120).any()
    said = shown[8 : 8 + SIDE, 8 + 3 * (SIDE + 8) : 8 + 3 * (SIDE + 8) + SIDE].astype(int)
    assert (said[..., 0] - said[..., 2] > 80).any(), "the word in its colour"


def _caption(folder: Path, name: str, **more: Any) -> bytes:
    (page,) = make_sheet([Cell(7, name, None)], folder / "sheet.png", **more)
    with Image.open(page) as picture:
        return picture.tobytes()


def test_a_name_is_written_in_a_font_that_has_its_letters_and_else_it_is_a_number(
    tmp_path: Path,
) -> None:
    blenders = {"more_letters": cli_batch._more_letters}
    number = _caption(tmp_path, "row 7")
    names = [
        "Stühle.glb",
        "Stöhle.glb",
        "Łódź.glb",
        "Łęęź.glb",
        "椅子.glb",
        "桌子.glb",
        "의자.glb",
        "식자.glb",
    ]
    written = {_caption(tmp_path, name, **blenders) for name in names}
    assert len(written) == len(names) and number not in written
    assert {_caption(tmp_path, name) for name in names} == {number}
    apart = "Stu\u0308hle.glb"  # as macOS spells it
    assert _caption(tmp_path, apart, **blenders) == _caption(tmp_path, names[0], **blenders)
    assert _caption(tmp_path, "\u0b95.glb", **blenders) == number, "of no letters that they have"

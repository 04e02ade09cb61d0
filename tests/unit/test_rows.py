# SPDX-License-Identifier: GPL-3.0-or-later
"""What a batch is made of: which arguments make one, and how manifests are read."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from blender_trellis.errors import InputError
from blender_trellis.generation.request import Request
from blender_trellis.generation.rows import Row, outputs_of, read_rows, source_of

DEFAULTS = Request("local/draft", [], {"resolution": 512})


def test_a_folder_a_manifest_and_a_pattern_make_a_batch_and_pictures_do_not(tmp_path: Path) -> None:
    odd = tmp_path / "robot[1].png"
    odd.touch()
    for one in (str(tmp_path), "rows.CSV", "rows.jsonl", "pictures/*.png", "**/robot?.jpg"):
        assert source_of([one]) == one
    for other in (
        str(odd),
        "robot.png",
        "https://a.example/x.png?size=*",
        "data:image/png;base64,",
        "A" * 9000,
    ):
        assert source_of([other]) is None
    with pytest.raises(InputError, match="must be given alone"):
        source_of(["robot.png", str(tmp_path)])


def _read(path: Path, text: str) -> list[Row]:
    path.write_text(text, encoding="utf-8")
    rows, problems = read_rows(str(path), DEFAULTS)
    assert not problems
    return rows


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_the_same_rows_in_csv_however_it_is_separated_and_in_jsonl(
    tmp_path: Path, separator: str
) -> None:
    header = ["images", "output", "seed", "cut_out"]
    cells = [["a.png|b.png", '"one, or; two"', "7", "TRUE"], ["c.png", "", "", ""]]
    table = "\r\n".join(separator.join(line) for line in [header, *cells])
    first = _read(tmp_path / "rows.csv", table)
    lines = (
        '{"images": ["a.png", "b.png"], "output": "one, or; two", "seed": 7, "cut_out": true}\n\n'
        '{"images": "c.png", "output": null, "seed": null, "cut_out": null}\n'
    )
    second = _read(tmp_path / "rows.jsonl", lines)
    for rows in (first, second):
        assert [row.output for row in rows] == ["one, or; two.glb", "c.glb"]
        asked = rows[0].request
        assert asked.images == [tmp_path / "a.png", tmp_path / "b.png"]
        assert (asked.parameters, asked.cut_out) == ({"resolution": 512, "seed": 7}, True)
    assert [row.number for row in first] == [2, 3]
    assert [row.number for row in second] == [1, 3]
    assert [row.mark for row in first] == [row.mark for row in second]


def test_one_row_does_not_write_over_the_second_model_of_another(tmp_path: Path) -> None:
    first = (
        '{"images": "a.png", "output": "toy", "endpoint": "runware/trellis-2", "numberResults": 2}'
    )
    path = tmp_path / "rows.jsonl"
    path.write_text(f'{first}\n{{"images": "a.png", "output": "TOY-2"}}\n')
    rows, problems = read_rows(str(path), Request("local/draft", []))
    assert [row.outputs for row in rows] == [["toy.glb", "toy-2.glb"]]
    assert [each.words for each in problems] == ["line 2: TOY-2.glb is the output of line 1 too."]


def test_what_is_asked_for_is_told_by_names_and_parameters(tmp_path: Path) -> None:
    line = '{"images": "a.png", "output": "x"%s}'
    marks = [
        _read(tmp_path / "rows.jsonl", line % more)[0].mark
        for more in ("", ', "seed": 1', ', "cut_out": true', ', "output": "y"')
    ]
    assert len({*marks[:3]}) == 3 and marks[3] == marks[0]
    moved = tmp_path / "elsewhere"
    moved.mkdir()
    assert _read(moved / "rows.jsonl", line % "")[0].mark == marks[0]


def test_a_row_fits_what_it_was_while_its_files_hold_the_same(tmp_path: Path) -> None:
    line = '{"images": "robot.png", "output": "x"}'
    row = {}
    for number, (name, data) in enumerate({"old": b"a", "copied": b"a", "other": b"b"}.items()):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "robot.png").write_bytes(data)
        os.utime(folder / "robot.png", (number, number))
        row[name] = _read(folder / "rows.jsonl", line)[0]
    row["gone"] = _read(tmp_path / "rows.jsonl", line)[0]
    mark = row["old"].mark
    assert [name for name in row if row[name].fits(mark)] == ["old", "copied", "gone"]
    of_older_versions = mark.partition(":")[0]
    assert row["other"].fits(of_older_versions) and row["other"].fits(row["gone"].mark)
    else_asked = _read(tmp_path / "old" / "rows.jsonl", line.replace('"x"', '"x", "seed": 1'))[0]
    assert not else_asked.fits(mark) and not else_asked.fits(of_older_versions)
    (tmp_path / "old" / "robot.png").write_bytes(b"c")
    assert not row["old"].fits(mark)


@pytest.mark.parametrize(
    ("name", "data", "words"),
    [
        ("rows.csv", b"", "there is no column 'images'"),
        ("rows.csv", b"images,seed,seed\na.png,1,2", "there are 2 columns 'seed'"),
        ("rows.csv", b"images\n\n", "has no rows"),
        ("rows.jsonl", b"[1]", "line 1: it is no JSON object"),
        ("rows.jsonl", b'{"images": 3}', "line 1: There is no image"),
        ("rows.csv", b"images\n\xff\xfe", "Save it as UTF-8 text"),
        ("gone.csv", None, "Cannot read"),
    ],
)
def test_a_manifest_that_is_none_says_why(
    tmp_path: Path, name: str, data: bytes | None, words: str
) -> None:
    if data is not None:
        (tmp_path / name).write_bytes(data)
    try:
        _, problems = read_rows(str(tmp_path / name), DEFAULTS)
        said = " ".join(problem.words for problem in problems)
    except InputError as error:
        said = error.message
    assert words in said


def test_two_pictures_of_one_name_have_models_of_two_names(tmp_path: Path) -> None:
    pictures = [tmp_path / name for name in ("A.jpg", "a.png", "b-2.png", "b.png")]
    assert outputs_of(pictures, tmp_path, 2) == [
        ["A.glb", "A-2.glb"],
        ["a.png.glb", "a.png-2.glb"],
        ["b-2.glb", "b-2-2.glb"],
        ["b.png.glb", "b.png-2.glb"],
    ]

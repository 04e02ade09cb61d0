# SPDX-License-Identifier: GPL-3.0-or-later
"""What measurements hand over to the page is what they have found, and a ratio says which side is the longer one."""

from pathlib import Path

import pytest

from bench.report import HAND_OVER, Ratio, Report, Table, finish, read, seconds


@pytest.mark.parametrize(
    ("ours", "other", "words"),
    [(0.05, 1.0, "1/20"), (0.4, 1.0, "1/2.5"), (3.0, 2.0, "1.5×"), (50.0, 2.0, "25×")],
)
def test_a_ratio_is_a_share_where_we_are_quicker_and_a_multiple_where_we_are_not(
    ours: float, other: float, words: str
) -> None:
    assert Ratio("", ours, "", other).words == words


def test_a_time_has_three_digits_and_a_fitting_unit() -> None:
    assert [seconds(each) for each in (12.345, 0.01234, 0.00001234)] == [
        "12.3 s",
        "12.3 ms",
        "12.3 µs",
    ]


def test_a_report_arrives_whole_and_a_passed_limit_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(HAND_OVER, str(tmp_path / "report.json"))
    table = Table("Ticks", ["", "median"], [["with eight jobs", "12 µs"]], ["Limit: 4 ms."])
    whole = Report([table], [Ratio("Import", 0.1, "stock", 2.0)], ["the worst tick"])
    assert finish(whole) == 1
    assert read(tmp_path / "report.json") == whole
    said = capsys.readouterr().out.splitlines()
    assert "with eight jobs   12 µs" in said and "Limit passed: the worst tick" in said
    assert finish(Report([table])) == 0

"""Tables of measurements keep their rows, and squares are as large as they say."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from tto.errors import BadArgument


@dataclass(frozen=True)
class Row:
    name: str
    steps: int
    change: float


def test_a_table_goes_on_with_what_its_file_has(script, tmp_path):
    path = tmp_path / "new" / "rows.csv"
    script.Table(path, Row).add([Row("a, b", 1, 0.1), Row("c", 2, -3.0)])
    table = script.Table(path, Row)
    assert table.rows == [Row("a, b", 1, 0.1), Row("c", 2, -3.0)]
    assert table.has(name="c", steps=2) and not table.has(name="c", steps=1)
    table.add([Row("d", 3, 1e-9)])
    assert script.Table(path, Row).rows == table.rows


def test_rows_of_a_measurement_that_fails_are_not_kept(script, tmp_path):
    def rows():
        yield Row("a", 1, 0.0)
        raise BadArgument("no")

    table = script.Table(tmp_path / "rows.csv", Row)
    with pytest.raises(BadArgument):
        table.add(rows())
    assert table.rows == script.Table(tmp_path / "rows.csv", Row).rows == []


def test_a_file_with_other_columns_is_left_alone(script, tmp_path):
    (tmp_path / "rows.csv").write_text("name,seconds\na,1\n")
    with pytest.raises(BadArgument, match="other columns"):
        script.Table(tmp_path / "rows.csv", Row)
    assert (tmp_path / "rows.csv").read_text() == "name,seconds\na,1\n"


def test_a_picture_smaller_than_the_square_is_refused(script, photograph, tmp_path):
    photograph(80, 60).save(tmp_path / "a.png")
    assert script.square(tmp_path / "a.png", 60).rgb.shape == (60, 60, 3)
    assert script.square(tmp_path / "a.png", 0).rgb.shape == (60, 80, 3)
    with pytest.raises(BadArgument, match="80x60"):
        script.square(tmp_path / "a.png", 64)

"""Tables of measurements keep their rows, and mistakes are one line."""

from __future__ import annotations

import os
import runpy
import sys
from dataclasses import dataclass
from pathlib import Path

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


def test_an_empty_file_is_a_new_table(script, tmp_path):
    path = tmp_path / "rows.csv"
    path.touch()
    script.Table(path, Row).add([Row("a", 1, 0.1)])
    assert script.Table(path, Row).rows == [Row("a", 1, 0.1)]


def test_a_line_that_a_kill_cut_short_is_dropped_and_cut(script, tmp_path):
    path = tmp_path / "rows.csv"
    script.Table(path, Row).add([Row("a", 1, 0.1), Row("b", 2, -3.25)])
    os.truncate(path, path.stat().st_size - 4)  # a number is left, -3.
    table = script.Table(path, Row)
    assert table.rows == [Row("a", 1, 0.1)]
    table.add([Row("c", 3, 0.5)])
    assert script.Table(path, Row).rows == [Row("a", 1, 0.1), Row("c", 3, 0.5)]


def test_rows_of_a_measurement_that_fails_are_not_kept(script, tmp_path):
    def rows():
        yield Row("a", 1, 0.0)
        raise BadArgument("no")

    table = script.Table(tmp_path / "rows.csv", Row)
    with pytest.raises(BadArgument):
        table.add(rows())
    assert table.rows == script.Table(tmp_path / "rows.csv", Row).rows == []


@pytest.mark.parametrize("text", ["name,seconds\na,1\n", "name,seconds\na,1", "a letter"])
def test_a_file_with_other_columns_is_left_alone(script, tmp_path, text):
    (tmp_path / "rows.csv").write_text(text)
    with pytest.raises(BadArgument, match="other columns"):
        script.Table(tmp_path / "rows.csv", Row)
    assert (tmp_path / "rows.csv").read_text() == text


@pytest.mark.parametrize(
    "program, arguments",
    [
        ("compare_refiners", "{folder}/a.png -m {folder}/absent.safetensors"),
        ("gain_by_base", "{folder}/absent --base dcae-small -q 1"),
        ("compare_entropy_models", "{folder} {folder} --seed 1 --only mbt2018 --out {folder}/file"),
        ("ablate", "{folder}/a.png -m {folder}/absent.safetensors"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(script, tmp_path, monkeypatch, capsys, program, arguments):
    (tmp_path / "file").touch()
    programs = Path(script.__file__).parent
    monkeypatch.setattr(sys, "argv", [program, *arguments.format(folder=tmp_path).split()])
    monkeypatch.syspath_prepend(programs)
    with pytest.raises(SystemExit) as stopped:
        runpy.run_path(str(programs / f"{program}.py"), run_name="__main__")
    assert stopped.value.code == 2
    said = capsys.readouterr().err
    assert said.startswith("tto: ") and said.count("\n") == 1

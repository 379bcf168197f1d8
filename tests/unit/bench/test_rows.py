from __future__ import annotations

import csv
import json
import math
from dataclasses import asdict, replace

import pytest

from tto.bench.rows import Identity, Row, RowLog, read_csv, row_to_json, write_csv
from tto.errors import BadArgument, FileError

IDENTITY = Identity(
    dataset="kodak",
    image="a.png",
    content="0123",
    width=8,
    height=4,
    codec="jpeg",
    effort="",
    quality=50.0,
    settings="4:2:0",
    version="Pillow",
    jobs=1,
    threads=1,
)
ROW = Row(
    **asdict(IDENTITY),
    file="files/a.jpg",
    bytes=100,
    bpp=25.0,
    scores={"psnr": 30.5, "ms_ssim": math.nan},
    J=math.nan,
    base_bytes=math.nan,
    base_psnr=math.nan,
    base_J=math.nan,
    steps=0,
    encode_seconds=0.25,
    decode_seconds=0.125,
    peak_memory_mb=12.0,
    parameters=0,
)


def same(a: Row, b: Row) -> bool:
    return row_to_json(a) == row_to_json(b)


def test_rows_come_back_from_the_log(tmp_path):
    perfect = replace(ROW, image="b.png", scores={"psnr": math.inf, "vmaf": 97.5})
    with RowLog(tmp_path / "new" / "rows.jsonl") as log:
        log.append(ROW)
        log.append(perfect)
    with RowLog(tmp_path / "new" / "rows.jsonl") as log:
        assert list(log.finished) == [ROW.key, perfect.key]
        assert same(log.finished[ROW.key], ROW)
        assert log.finished[perfect.key].scores == {"psnr": math.inf, "vmaf": 97.5}
        assert math.isnan(log.finished[perfect.key].J)


def test_every_line_is_plain_json(tmp_path):
    with RowLog(tmp_path / "rows.jsonl") as log:
        log.append(replace(ROW, scores={"psnr": math.inf}))

    def refuse(word):
        raise AssertionError(word)

    record = json.loads((tmp_path / "rows.jsonl").read_text(), parse_constant=refuse)
    assert record["psnr"] == "inf"
    assert record["J"] is None


@pytest.mark.parametrize("cut", [1, 20, 200])
def test_a_line_cut_off_by_a_kill_is_removed_and_the_rest_is_kept(tmp_path, cut):
    path = tmp_path / "rows.jsonl"
    with RowLog(path) as log:
        log.append(ROW)
        whole = path.read_bytes()
        log.append(replace(ROW, image="b.png"))
    path.write_bytes(path.read_bytes()[: len(whole) + cut])
    with RowLog(path) as log:
        assert list(log.finished) == [ROW.key]
        log.append(replace(ROW, image="c.png"))
    with RowLog(path) as log:
        assert [row.image for row in log.finished.values()] == ["a.png", "c.png"]


def test_a_row_is_on_the_disk_before_the_next(tmp_path):
    with RowLog(tmp_path / "rows.jsonl") as log:
        log.append(ROW)
        assert (tmp_path / "rows.jsonl").read_bytes().endswith(b"}\n")


def test_two_runs_cannot_share_a_folder(tmp_path):
    with RowLog(tmp_path / "rows.jsonl"), pytest.raises(FileError, match="in use"):
        RowLog(tmp_path / "rows.jsonl")
    RowLog(tmp_path / "rows.jsonl").__exit__()


def test_a_file_of_something_else_is_left_alone(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text("shopping list\n")
    with pytest.raises(FileError, match="not a file of measurements"):
        RowLog(path)
    assert path.read_text() == "shopping list\n"


def test_csv_keeps_every_figure(tmp_path):
    rows = [ROW, replace(ROW, image="b.png", scores={"psnr": math.inf, "ms_ssim": 0.1 + 0.2}, J=0.1 + 0.2)]
    write_csv(tmp_path / "results.csv", rows)
    assert all(same(a, b) for a, b in zip(rows, read_csv(tmp_path / "results.csv"), strict=True))
    lines = (tmp_path / "results.csv").read_text().splitlines()
    assert lines[0].startswith("dataset,image") and lines[0].endswith(",psnr,ms_ssim")
    assert "nan" not in lines[1]


def test_rows_of_before_some_columns_are_read(tmp_path):
    write_csv(tmp_path / "results.csv", [replace(ROW, scoring="0123abcd", processor="abacus")])
    (row,) = csv.DictReader((tmp_path / "results.csv").open())
    assert Row.from_record(row).scoring == row.pop("scoring") == "0123abcd"
    assert Row.from_record(row).processor == row.pop("processor") == "abacus"
    assert same(Row.from_record(row), ROW)


def test_a_foreign_csv_is_refused_by_name(tmp_path):
    (tmp_path / "other.csv").write_text("a,b\n1,2\n")
    with pytest.raises(BadArgument, match="other.csv"):
        read_csv(tmp_path / "other.csv")
    with pytest.raises(FileError):
        read_csv(tmp_path / "missing.csv")


@pytest.mark.parametrize(
    "change",
    [
        {"content": "4567"},
        {"image": "b.png"},
        {"version": "Pillow 2"},
        {"quality": 50.5},
        {"effort": "fast"},
        {"settings": "4:4:4"},
        {"jobs": 2},
        {"threads": 4},
    ],
)
def test_anything_that_changes_the_outcome_changes_the_key(change):
    assert replace(IDENTITY, **change).key != IDENTITY.key
    assert replace(IDENTITY).key == IDENTITY.key


def test_a_row_has_the_key_of_what_it_measured():
    assert ROW.key == replace(ROW, bytes=7, scores={}).key == IDENTITY.key


def test_a_table_holds_no_formula_and_no_escape_sequence_yet_keeps_names(tmp_path):
    names = ["=cmd|' /C calc'!A0", "+1.png", "-1.png", "@x.png", "'quoted'.png", "plain.png"]
    write_csv(tmp_path / "results.csv", [replace(ROW, image=name) for name in names])
    cells = [line["image"] for line in csv.DictReader((tmp_path / "results.csv").open())]
    assert not any(cell.startswith(("=", "+", "-", "@")) for cell in cells)
    assert [row.image for row in read_csv(tmp_path / "results.csv")] == names


def test_control_characters_of_somebody_elses_table_are_replaced(tmp_path):
    path = tmp_path / "results.csv"
    write_csv(path, [ROW])
    path.write_text(path.read_text().replace("a.png", "\x1b]0;title\x07a.png"))
    assert read_csv(path)[0].image == "?]0;title?a.png"
    path.write_text(path.read_text().replace(",100,", ",\x1b[31m,"))
    with pytest.raises(BadArgument) as refused:
        read_csv(path)
    assert "\x1b" not in str(refused.value)

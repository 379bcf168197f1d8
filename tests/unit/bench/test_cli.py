from __future__ import annotations

import json
import subprocess
import sys
from contextlib import nullcontext
from dataclasses import dataclass

import pytest
import torch
from rich.progress import Progress

from tto.bench import cli, memory
from tto.bench.cli import parse_efforts, parse_names, parse_numbers
from tto.bench.curves import mean_curves
from tto.bench.measure import Failure
from tto.bench.rows import read_csv, write_csv
from tto.bench.summary import summarize
from tto.cli import main
from tto.workers import Here


def tto(*arguments: object) -> int:
    """Run the command line in this process; its exit code."""
    with pytest.raises(SystemExit) as stopped:
        main([str(argument) for argument in arguments])
    return stopped.value.code


@dataclass(frozen=True)
class Actors(Here):
    """As those of Ray."""

    device: str = "cpu"


def test_anchors_on_a_folder(pictures, tmp_path, capsys):
    out, options = tmp_path / "out", ["-m", "none", "--anchors", "jpeg,webp", "--limit", 2, "--crop", 64]
    assert tto("bench", pictures, *options, "--out", out) == 0
    captured = capsys.readouterr()
    printed = captured.out
    columns = [cell.strip() for cell in printed.splitlines()[0].split("|")[1:-1]]
    assert columns[:5] == ["codec", "chroma", "BD-rate % vs jpeg", "compared dB", "95 % interval"]
    assert captured.err == ""
    assert printed.endswith(f"{out / 'report.html'} shows all of it\n")
    assert "<h1>pictures, first images only, centre 64x64: 2 images</h1>" in (out / "report.html").read_text()


def test_how_far_it_is_without_a_terminal_is_said_on_request(pictures, tmp_path, capsys):
    options = ["-m", "none", "--anchors", "jpeg", "--limit", 1, "--crop", 64, "--examples", 0]
    assert tto("-v", "bench", pictures, *options, "--out", tmp_path / "out") == 0
    assert [line for line in capsys.readouterr().err.splitlines() if "files" in line][-1] == "tto: 13 of 13 files"


def test_a_model_at_two_efforts_and_two_qualities(pictures, tmp_path, capsys, fake_codec):
    options = ["-m", "dcae-small", "--effort", "none,best", "-q", "2,6", "--anchors", "none", "--examples", 0]
    assert tto("bench", pictures, *options, "--crop", 64, "--threads", 1, "--out", tmp_path / "out") == 0
    assert "dcae-small (best)" in capsys.readouterr().out
    assert len(fake_codec.calls) == 3 * 2 * 2
    assert {row.threads for row in read_csv(tmp_path / "out" / "results.csv")} == {1}


def test_rows_tell_of_the_device_of_the_actors(pictures, tmp_path, monkeypatch, fake_codec):
    monkeypatch.setattr("tto.cli.workplace.require", lambda *_: None)
    monkeypatch.setattr("tto.cli.workplace.Workplace.open", lambda *_: nullcontext(Actors(device="cuda")))
    options = ["-m", "dcae-small", "-q", "2,6", "--anchors", "none", "--limit", 1, "--crop", 64, "--ray"]
    assert tto("bench", pictures, *options, "--out", tmp_path / "out") == 0
    assert {row.settings for row in read_csv(tmp_path / "out" / "results.csv")} == {
        f"on cuda, PyTorch {torch.__version__}"
    }


def test_compare_two_runs(tmp_path, capsys, make_rows):
    write_csv(tmp_path / "a.csv", make_rows("tto", 0.1, "none"))
    write_csv(tmp_path / "b.csv", make_rows("tto", 0.09, "none"))
    assert tto("bench", "--compare", tmp_path / "a.csv", tmp_path / "b.csv") == 0
    printed = capsys.readouterr().out
    assert "| mean curve |    -10.00 | -10.00 … -10.00 |   31.0–37.0 |       100 |" in printed


def test_published_curves_as_the_tool_prints_them(capsys):
    assert tto("bench", "kodak", "--published") == 0
    lines = {line.split("|")[1].strip(): line for line in capsys.readouterr().out.splitlines() if "|" in line}
    assert "-16.98" in lines["dcae"] and "-19.96" in lines["hpcm-large"] and "-11.73" in lines["tcm-large"]


@pytest.mark.parametrize(
    "arguments, message",
    [
        ([], "which images?"),
        (["nowhere"], "neither a folder nor a data set"),
        (["holiday", "--published"], "no published curves for holiday"),
        (["{pictures}", "-m", "none", "--anchors", "none"], "nothing to measure"),
        (["{pictures}", "-m", "none", "--anchors", "gif"], "unknown anchor"),
        (["{pictures}", "-q", "two"], "takes numbers"),
        (["{pictures}", "-m", "none", "--anchors", "jpeg", "--crop", "500"], "has 192x176 pixels: no square of 500"),
        (["{pictures}", "-m", "none", "--metrics", "beauty"], "unknown metric 'beauty'"),
        (["{pictures}", "-m", "none", "--against", "vvc"], "no curve 'vvc' to compare with: there are jpeg, jpeg2000"),
        (["--compare", "missing.csv", "missing.csv"], "cannot read missing.csv"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(pictures, capsys, arguments, message):
    assert tto("bench", *(argument.format(pictures=pictures) for argument in arguments)) == 2
    captured = capsys.readouterr()
    assert message in captured.err and captured.err.count("\n") == 1


def test_lists_are_separated_by_commas():
    assert parse_names("a, b,,c") == ["a", "b", "c"]
    assert parse_names("none") == []
    assert parse_efforts("none,fast") == ["none", "fast"]
    assert parse_numbers("2,4.5") == [2.0, 4.5]
    assert parse_numbers("all") == []


def test_a_missing_package_is_named_before_the_work(pictures, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("tto.packages.find_spec", lambda name: None)
    assert tto("bench", pictures, "--out", tmp_path / "out") == 2
    assert capsys.readouterr().err == "tto: this needs the package bjontegaard: pip install 'tto[bench]'\n"
    assert not (tmp_path / "out").exists()


def test_a_missing_anchor_is_one_line_here_and_in_the_report(pictures, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("tto.bench.anchors.pillow.find_spec", lambda module: None)
    out, options = tmp_path / "out", ["-m", "none", "--anchors", "jxl,webp", "--limit", 1, "--crop", 64]
    assert tto("bench", pictures, *options, "--examples", 0, "--out", out) == 0
    reason = "the package pillow-jxl-plugin is not installed: pip install 'tto[bench]'"
    assert f"tto: jxl is left out: {reason}\n" in capsys.readouterr().err
    assert f"left out: {reason}" in json.loads((out / "results.json").read_text())["about"]["jxl"]


def test_the_table_fits_a_terminal(make_rows, capsys, monkeypatch):
    monkeypatch.setattr(cli.sys.stdout, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("COLUMNS", "40")
    failure = Failure("jpeg", 5.0, "a.png", "no room")
    cli.print_summary(summarize(mean_curves(make_rows("jpeg", 0.3))), [failure])
    lines = capsys.readouterr().out.splitlines()
    assert all(len(line) <= 40 for line in lines if " dB" not in line) and "want of room" in "".join(lines)
    assert lines[-1] == "failed: jpeg, quality 5, a.png: no room"


def test_the_bar_counts_only_what_is_left(monkeypatch, make_rows):
    monkeypatch.setattr(cli.sys.stderr, "isatty", lambda: True, raising=False)
    rows, bars, enter = make_rows("jpeg", 0.3), [], Progress.__enter__
    monkeypatch.setattr(Progress, "__enter__", lambda bar: bars.append(bar) or enter(bar))
    with cli.progress(len(rows)) as on_row:
        for row in rows[:4]:
            on_row(row, False)
        for row in rows[4:]:
            on_row(row, True)
    (task,) = bars[0].tasks
    assert task.total == task.completed == len(rows) - 4 > 0


def test_peak_memory_is_that_of_the_work_alone():
    """In a process of its own: what earlier tests left in this one blurs the counter."""
    if not memory._CLEAR_REFS.exists():
        pytest.skip("only Linux can start the count of peak memory anew")
    program = """
import time
import numpy as np
from tto.bench import memory
big = np.ones(80_000_000, np.uint8)
memory.reset_peak("cpu")
during = memory.peak_mb("cpu")
del big
memory.reset_peak("cpu")
time.sleep(0.01)
print(during - memory.peak_mb("cpu"))
"""
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert float(run.stdout) > 60

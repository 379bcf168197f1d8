from __future__ import annotations

import io
import json

import pytest

from tto.train.console import Console, duration
from tto.train.curve import draw_curve
from tto.train.errors import SaveError
from tto.train.run_folder import RunFolder, environment, read_metrics


def test_metrics_of_undone_steps_and_a_torn_line_are_forgotten(tmp_path):
    folder = RunFolder(tmp_path)
    for step in (1, 2, 3):
        folder.log({"kind": "train", "total_steps": step, "loss": 1.0 / step})
    with open(folder.metrics, "a") as file:
        file.write('{"kind": "tra')
    folder.forget_after(2)
    assert [r["total_steps"] for r in read_metrics(folder.metrics)] == [1, 2]
    folder.log({"kind": "train", "total_steps": 3, "loss": 0.3})
    assert len(folder.metrics.read_text().splitlines()) == 3


def test_other_processes_write_nothing(tmp_path):
    folder = RunFolder(tmp_path / "run", writes=False)
    folder.log({"total_steps": 1})
    draw_curve(folder)
    assert not folder.path.exists()


def test_curve_is_a_png(tmp_path):
    folder = RunFolder(tmp_path)
    draw_curve(folder)
    folder.log({"kind": "train", "total_steps": 1, "loss": 2.0})
    folder.log({"kind": "validation", "total_steps": 1, "loss": 1.0, "bpp": [0.1, 0.2], "psnr": [28.0, 30.0]})
    draw_curve(folder)
    assert (tmp_path / "curve.png").read_bytes().startswith(b"\x89PNG")


def test_environment_can_be_written_down():
    found = json.loads(json.dumps(environment()))
    assert found["packages"]["torch"] and found["threads"] >= 1


def test_console_prints_lines_and_no_bar_when_piped():
    stream = io.StringIO()
    console = Console(stream=stream)
    console.say("a line")
    console.show("stage", 0.5, 3.0)
    console.close()
    Console(quiet=True, stream=stream).say("unheard")
    assert stream.getvalue() == "a line\n"


def test_durations_are_readable():
    assert [duration(s) for s in (5, 75, 3723, 200000)] == ["0:05", "1:15", "1:02:03", "2.3 days"]


def test_what_cannot_be_written_is_named(tmp_path):
    folder = RunFolder(tmp_path / "absent")
    with pytest.raises(SaveError, match="cannot write .*metrics.jsonl: No such file"):
        folder.log({"total_steps": 1})

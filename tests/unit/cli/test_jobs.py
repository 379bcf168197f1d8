"""Which output belongs to which input."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from threading import Barrier

import pytest
import typer

from tto.cli.bars import Bars, Row
from tto.cli.jobs import Job, plan_jobs, run_jobs, to_json, write_output
from tto.errors import BadArgument, FileError
from tto.interruption import Interrupted, Interruption


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("b.png", "a.JPG", "notes.txt", "c.tto"):
        Path(name).write_bytes(b"")
    Path("sub.png").mkdir()
    return tmp_path


def outputs(*inputs: str, output: str | None = None) -> list[tuple[str, str]]:
    jobs = plan_jobs([Path(name) for name in inputs], output, (".png", ".jpg"), ".tto")
    return [(str(job.input), str(job.output)) for job in jobs]


def test_output_lies_beside_its_input(folder):
    assert outputs("b.png", "elsewhere/d.png") == [("b.png", "b.tto"), ("elsewhere/d.png", "elsewhere/d.tto")]


def test_folder_stands_for_its_pictures_in_order(folder):
    assert outputs(".") == [("a.JPG", "a.tto"), ("b.png", "b.tto")]


def test_output_of_one_file_is_a_file_unless_it_is_or_looks_like_a_folder(folder):
    assert outputs("b.png", output="new/x.bin") == [("b.png", "new/x.bin")]
    assert outputs("b.png", output="sub.png") == [("b.png", "sub.png/b.tto")]
    assert outputs("b.png", output="other/") == [("b.png", "other/b.tto")]


def test_output_of_several_files_or_of_a_folder_is_a_folder(folder):
    assert outputs("b.png", "a.JPG", output="out") == [("b.png", "out/b.tto"), ("a.JPG", "out/a.tto")]
    assert outputs(".", output="out2") == [("a.JPG", "out2/a.tto"), ("b.png", "out2/b.tto")]


def test_collisions_are_refused(folder):
    with pytest.raises(BadArgument, match=r"b\.png and b\.jpg would both be written to b\.tto"):
        outputs("b.png", "b.jpg")
    with pytest.raises(BadArgument, match="both be written"):
        outputs("b.png", "b.png")
    Path("link.tto").symlink_to("b.png")
    with pytest.raises(BadArgument, match="link.tto is an input"):
        outputs("b.png", output="link.tto")
    with pytest.raises(BadArgument, match="b.png is an input"):
        outputs("b.png", output="./b.png")


def test_folder_without_pictures_is_refused(folder):
    with pytest.raises(BadArgument, match="no files"):
        outputs("sub.png")


def test_folder_of_an_output_is_made_when_it_is_written(folder):
    write_output(Path("one/two/x.tto"), b"content")
    assert Path("one/two/x.tto").read_bytes() == b"content"
    with pytest.raises(FileError, match="cannot make the folder notes.txt"):
        write_output(Path("notes.txt/x.tto"), b"content")


def test_json_has_null_for_numbers_it_cannot_write():
    record = {"psnr": float("inf"), "J": float("nan"), "bpp": 0.5, "bytes": 3, "input": "ü"}
    assert json.loads(to_json(record)) == {"psnr": None, "J": None, "bpp": 0.5, "bytes": 3, "input": "ü"}


def double(job: Job) -> dict[str, str]:
    if job.input.name == "b.png":
        raise FileError("b is broken")
    return {"twice": 2 * job.input.name}


@pytest.mark.parametrize("at_once", [1, 3])
def test_jobs_are_printed_in_order_and_a_failure_does_not_stop_the_others(folder, capsys, at_once):
    jobs = [Job(Path(name), Path("x")) for name in ("a.JPG", "b.png", "none.png", "c.tto")]
    with Bars(4) as bars, pytest.raises(typer.Exit) as ended:
        run_jobs(jobs, double, "{twice} to {output}", False, bars, at_once)
    assert ended.value.exit_code == 2
    out, err = capsys.readouterr()
    assert out == "a.JPGa.JPG to x\nc.ttoc.tto to x\n"
    assert [line.split(":")[0] for line in err.splitlines()] == ["tto", "tto"]
    assert "b is broken" in err
    assert "cannot read none.png" in err


@pytest.mark.parametrize("at_once", [1, 2])
def test_after_an_interruption_no_job_is_begun_and_the_number_of_written_files_is_said(folder, capsys, at_once):
    interruption = Interruption()

    def work(job):
        if job.input.name == "c.tto":
            interruption.number = signal.SIGTERM
        return double(job)

    jobs = [Job(Path(name), Path("x")) for name in ("a.JPG", "c.tto", "b.png", "a.JPG", "a.JPG")]
    with Bars(5) as bars, pytest.raises(Interrupted, match="^interrupted: 2 of 5 written, the last") as ended:
        run_jobs(jobs, work, "{twice}", False, bars, at_once, interruption)
    assert ended.value.exit_code == 143
    assert capsys.readouterr().out == "a.JPGa.JPG\nc.ttoc.tto\n"


def test_a_job_that_is_broken_off_does_not_count_as_written(folder, capsys):
    def work(job):
        if job.input.name == "c.tto":
            raise KeyboardInterrupt
        return double(job)

    jobs = [Job(Path(name), Path("x")) for name in ("a.JPG", "c.tto", "a.JPG")]
    with Bars(3) as bars, pytest.raises(Interrupted, match="^interrupted: 1 of 3 written$") as ended:
        run_jobs(jobs, work, "{twice}", False, bars)
    assert ended.value.exit_code == 130


def test_jobs_at_once_meet(folder, capsys):
    """Each waits for the other, which would never end one after the other."""
    both = Barrier(2, timeout=20)
    with Bars(2) as bars:
        run_jobs([Job(Path("a.JPG"), Path("x"))] * 2, lambda job: {"n": both.wait() >= 0}, "{n}", False, bars, 2)
    assert capsys.readouterr().out == "True\nTrue\n"


def test_bars_are_silent_where_there_is_no_terminal(capsys):
    with Bars(5) as bars, bars.steps() as show:
        show(Row(1, 2, "figures", "3 s left"))
        bars.file_done()
    assert capsys.readouterr() == ("", "")


def test_bars_on_a_terminal_show_files_and_steps(capsys, monkeypatch):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    with Bars(5) as bars:
        with bars.steps() as show, bars.steps() as other:
            show(Row(1, 24, "0.500 bpp", "3 s left"))
            other(Row(7, 24, "0.600 bpp", "2 s left"))
            bars._shown.refresh()
        bars.file_done()
    shown = capsys.readouterr().err
    for text in ("0/5", "files", " 1/24", "steps", "0.500 bpp", "3 s left", " 7/24", "1/5"):
        assert text in shown, text


def test_jobs_are_values():
    assert Job(Path("a"), Path("b")) == Job(Path("a"), Path("b"))

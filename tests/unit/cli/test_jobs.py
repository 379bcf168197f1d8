"""Working through many files."""

from __future__ import annotations

import io
import json
import signal
import sys
from pathlib import Path
from threading import Barrier, Event

import pytest
import typer

from tto.cli.bars import Bars, Row, waiting
from tto.cli.jobs import Made, Parcel, Printing, check_jobs, read_input, read_parcel, run_jobs, to_json, write_output
from tto.cli.naming import STREAM, Job
from tto.errors import FileError
from tto.interruption import Interrupted, Interruption
from tto.workers import Here


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("b.png", "a.JPG", "c.tto"):
        Path(name).write_bytes(b"")
    Path("sub.png").mkdir()
    return tmp_path


def test_folder_of_an_output_is_made_when_it_is_written(folder):
    write_output(Path("one/two/x.tto"), b"content")
    assert Path("one/two/x.tto").read_bytes() == b"content"
    with pytest.raises(FileError, match="cannot make the folder b.png"):
        write_output(Path("b.png/x.tto"), b"content")


def test_what_cannot_be_done_is_refused_before_the_others_are_begun(folder, capsys):
    jobs = [Job(Path(name), Path(output)) for name, output in [("b.png", "c.tto"), ("none", "d"), ("a.JPG", "b.png/x")]]
    assert check_jobs(jobs) == (jobs[:1], True)
    assert capsys.readouterr().err.splitlines() == [
        "tto: cannot read none: no such file",
        "tto: a.JPG: cannot make the folder b.png: b.png is no folder".replace("b.png is", f"{folder / 'b.png'} is"),
    ]
    assert check_jobs(jobs[:1]) == (jobs[:1], False)
    with pytest.raises(typer.Exit):
        check_jobs(jobs[1:])


def test_a_path_that_may_not_be_looked_at_is_refused_alone(folder, capsys, monkeypatch):
    exists = Path.exists

    def look(path):
        if path.name == "closed.png":
            raise PermissionError(13, "Permission denied", str(path))
        return exists(path)

    monkeypatch.setattr(Path, "exists", look)
    jobs = [Job(Path("closed.png"), Path("x")), Job(Path("b.png"), Path("y"))]
    assert check_jobs(jobs) == (jobs[1:], True)
    assert capsys.readouterr().err == "tto: closed.png: Permission denied\n"


def test_existing_outputs_are_refused_or_skipped_on_request(folder, capsys, caplog):
    there, new = Job(Path("b.png"), Path("c.tto")), Job(Path("b.png"), Path("d.tto"))
    assert check_jobs([there, new], overwrite=False) == ([new], True)
    assert "c.tto exists" in capsys.readouterr().err
    assert check_jobs([there, new], is_done=lambda job: job == there) == ([new], False)
    assert "1 of 2 exist" in caplog.text
    assert check_jobs([there], is_done=lambda job: True) == ([], False)


def test_a_command_may_refuse_jobs_for_its_own_reasons(folder, capsys):
    def check(job):
        raise FileError("no")

    with pytest.raises(typer.Exit):
        check_jobs([Job(Path("b.png"))], check=check)
    assert capsys.readouterr().err == "tto: b.png: no\n"


def test_standard_input_and_output_are_bytes(monkeypatch, capfdbinary):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"\x00\xff")))
    write_output(STREAM, read_input(STREAM))
    assert capfdbinary.readouterr().out == b"\x00\xff"


def test_a_terminal_is_neither_input_nor_output(folder, monkeypatch, capsys):
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    for job in (Job(STREAM, Path("x")), Job(Path("b.png"), STREAM)):
        with pytest.raises(typer.Exit):
            check_jobs([job])
    assert capsys.readouterr().err.count("is a terminal") == 2


def test_what_is_said_goes_to_stderr_where_stdout_has_the_file(folder, capsys):
    with Bars(1) as bars:
        run_jobs([Job(Path("b.png"), STREAM)], lambda: lambda parcel: Made({}), Printing(lambda record: "said"), bars)
    assert capsys.readouterr() == ("", "said\n")


def test_names_of_files_are_no_markup(monkeypatch):
    """An error in what bars show would come from a thread of theirs."""
    from rich.progress import Progress

    shown = []
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    stop = Progress.stop
    monkeypatch.setattr(Progress, "stop", lambda bars: shown.append(bars.make_tasks_table(bars.tasks)) or stop(bars))
    with Bars(2, "[/a[edit].png"):
        pass
    texts = [str(cell) for column in shown[0].columns for cell in column.cells]
    assert "[/a[edit].png" in texts
    with waiting("loading [/x"):
        pass


def test_json_has_null_for_numbers_it_cannot_write():
    record = {"psnr": float("inf"), "J": float("nan"), "bpp": 0.5, "bytes": 3, "input": "ü"}
    assert json.loads(to_json(record)) == {"psnr": None, "J": None, "bpp": 0.5, "bytes": 3, "input": "ü"}


def double(parcel: Parcel) -> Made:
    name = parcel.job.input.name
    if name == "b.png":
        raise FileError("b is broken")
    return Made({"twice": 2 * name}, {parcel.job.target: 2 * name.encode()})


def doubling():
    return double


@pytest.mark.parametrize("at_once", [1, 3])
def test_jobs_are_printed_in_order_and_a_failure_does_not_stop_the_others(folder, capsys, at_once):
    jobs = [Job(Path(name), Path("x")) for name in ("a.JPG", "b.png", "c.tto")]
    with Bars(3) as bars:
        assert run_jobs(jobs, doubling, Printing("{twice} to {output}".format_map), bars, Here(at_once))
    assert capsys.readouterr() == ("a.JPGa.JPG to x\nc.ttoc.tto to x\n", "tto: b.png: b is broken\n")


@pytest.mark.parametrize("at_once", [1, 2])
def test_after_an_interruption_no_job_is_begun_and_the_number_of_written_files_is_said(folder, capsys, at_once):
    interruption, interrupted = Interruption(), Event()

    def work(parcel):
        if parcel.job.input.name == "c.tto":
            interruption.number = signal.SIGTERM
            interrupted.set()
        elif at_once == 2:
            interrupted.wait(500)
        return double(parcel)

    jobs = [Job(Path(name), Path("x")) for name in ("a.JPG", "c.tto", "b.png", "a.JPG", "a.JPG")]
    with Bars(5) as bars, pytest.raises(Interrupted, match="^interrupted: 2 of 5 written, the last") as ended:
        run_jobs(jobs, lambda: work, Printing("{twice}".format_map), bars, Here(at_once), interruption)
    assert ended.value.exit_code == 143
    assert capsys.readouterr().out == "a.JPGa.JPG\nc.ttoc.tto\n"


def test_a_job_that_is_broken_off_does_not_count_as_written(folder, capsys):
    def work(parcel):
        if parcel.job.input.name == "c.tto":
            raise KeyboardInterrupt
        return double(parcel)

    jobs = [Job(Path(name), Path("x")) for name in ("a.JPG", "c.tto", "a.JPG")]
    with Bars(3) as bars, pytest.raises(Interrupted, match="^interrupted: 1 of 3 written$") as ended:
        run_jobs(jobs, lambda: work, Printing("{twice}".format_map), bars)
    assert ended.value.exit_code == 130


def test_jobs_at_once_meet(folder, capsys):
    """Each waits for the other, which would never end one after the other."""
    both = Barrier(2, timeout=500)
    jobs, start = [Job(Path("a.JPG"))] * 2, lambda: lambda parcel: Made({"n": both.wait() >= 0})
    with Bars(2) as bars:
        run_jobs(jobs, start, Printing("{n}".format_map), bars, Here(2))
    assert capsys.readouterr().out == "True\nTrue\n"


@pytest.fixture
def late_first():
    """Two jobs, whose first is done after the second, when the event is set; and the start of their work."""
    event = Event()

    def work(parcel):
        if parcel.index == 0:
            event.wait(500)
        return Made({"name": parcel.job.input.name})

    return [Job(Path("a.JPG")), Job(Path("c.tto"))], event, lambda: work


def test_rows_keep_the_order_of_the_jobs_however_they_are_done(folder, capsys, late_first):
    jobs, event, start = late_first
    with Bars(2) as bars:
        bars.file_done = event.set  # when the second job is done, the first goes on
        run_jobs(jobs, start, Printing("{name}".format_map), bars, Here(2))
    assert capsys.readouterr().out == "a.JPG\nc.tto\n"


def test_what_was_done_when_it_was_broken_off_is_printed_whatever_came_before_it(folder, capsys, late_first):
    jobs, event, start = late_first

    def read(index, job):
        if index == 2:
            event.set()
            raise KeyboardInterrupt
        return read_parcel(index, job)

    with Bars(3) as bars, pytest.raises(Interrupted, match="^interrupted: 1 of 3 written$"):
        run_jobs([*jobs, jobs[0]], start, Printing("{name}".format_map), bars, Here(2), read=read)
    assert capsys.readouterr().out == "c.tto\n"


def test_an_output_is_told_of_before_it_is_written(folder, capsys):
    seen = []

    def tell(parcel, made):
        seen.append((parcel.data, dict(made.files), parcel.job.target.exists()))

    with Bars(1) as bars:
        run_jobs([Job(Path("a.JPG"), Path("x"))], doubling, Printing("{twice}".format_map), bars, before_writing=tell)
    assert seen == [(b"", {Path("x"): b"a.JPGa.JPG"}, False)]
    assert Path("x").read_bytes() == b"a.JPGa.JPG"


def test_an_output_that_cannot_be_told_of_is_not_written_and_the_others_go_on(folder, capsys):
    def tell(parcel, made):
        if parcel.index == 0:
            raise FileError("disk full")

    jobs = [Job(Path("a.JPG"), Path("x")), Job(Path("c.tto"), Path("y"))]
    with Bars(2) as bars:
        assert run_jobs(jobs, doubling, Printing("{twice}".format_map), bars, before_writing=tell)
    assert capsys.readouterr().err == "tto: a.JPG: disk full\n"
    assert not Path("x").exists() and Path("y").exists()


def test_bars_are_silent_where_there_is_no_terminal(capsys):
    with Bars(5) as bars, bars.steps() as show:
        show(Row(1, 2, "figures", "3 s left"))
        bars.file_done()
    assert capsys.readouterr() == ("", "")


def test_bars_on_a_terminal_show_files_and_steps(capsys, monkeypatch):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    clock = iter((100, 103))
    monkeypatch.setattr("tto.cli.bars.monotonic", lambda: next(clock))
    with Bars(5, "workers start") as bars:
        with bars.steps() as show, bars.steps() as other:
            show(Row(1, 24, "0.500 bpp", "3 s left"))
            other(Row(7, 24, "0.600 bpp", "2 s left"))
            bars._shown.refresh()
        bars.file_done()
    shown = capsys.readouterr().err
    for text in (
        "0/5",
        "files",
        " 1/24",
        "steps",
        "0.500 bpp",
        "3 s left",
        " 7/24",
        "1/5",
        "workers start",
        "0:00:12 left",
    ):
        assert text in shown, text

"""Many pictures: several workers do just what one process does."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.many_pictures import check_all_commands, contents, make_pictures, preparations
from tto.cli import main
from tto.workers import Processes


@pytest.fixture(scope="module")
def pictures(tmp_path_factory, photograph) -> Path:
    return make_pictures(tmp_path_factory.mktemp("many") / "pictures", photograph)


def test_processes_do_what_one_does(capsys, pictures, tmp_path, tiny_checkpoint, monkeypatch):
    monkeypatch.chdir(tmp_path)
    prepared = preparations(monkeypatch, Processes)
    check_all_commands(capsys, prepared, pictures, tiny_checkpoint, "--jobs", "2", "--threads", "1")


@pytest.mark.usefixtures("interruptible")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGKILL, -9)])
def test_workers_end_with_the_program_which_says_how_far_it_came(tmp_path, pictures, tiny_checkpoint, number, code):
    """A terminal tells all of the process group of Ctrl-C; by themselves these workers would never end."""
    command = [sys.executable, "-m", "tto", "compress", "-r", pictures, "-o", tmp_path / "out", "-m", tiny_checkpoint]
    environment = {**os.environ, "PYTHONPATH": os.getcwd(), "OMP_NUM_THREADS": "1"}
    run = subprocess.Popen(
        [*map(str, command), "--jobs", "2", "--steps", "1000000"],
        stderr=subprocess.PIPE, text=True, env=environment, start_new_session=True,
    )  # fmt: skip
    try:
        deadline = time.monotonic() + 400
        while len(workers := children(run.pid)) < 3:  # the two, and what looks after what they share
            assert time.monotonic() < deadline and run.poll() is None
            time.sleep(0.1)
        os.killpg(run.pid, number) if number == signal.SIGINT else os.kill(run.pid, number)
        _, err = run.communicate(timeout=400)
    finally:
        run.kill()
    assert run.returncode == code
    assert number == signal.SIGKILL or err == "tto: interrupted: 0 of 6 written\n"
    assert contents(tmp_path) == {}
    while any(map(is_running, workers)):
        assert time.monotonic() < deadline
        time.sleep(0.1)


def children(process: int) -> list[int]:
    try:
        return [int(one) for one in Path(f"/proc/{process}/task/{process}/children").read_text().split()]
    except FileNotFoundError:
        pytest.skip("needs Linux' list of a process's children")


def is_running(process: int) -> bool:
    """A zombie has no command line."""
    try:
        return Path(f"/proc/{process}/cmdline").read_bytes() != b""
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["compress", "-r", "{folder}", "--jobs", "0"], "'--jobs'"),
        (["compress", "-r", "{folder}", "--jobs", "2", "--ray"], "give one of them"),
        (["verify", "-", "--jobs", "2"], "standard input and output are for one picture, --jobs for many"),
        (["compress", "{folder}/a.png", "-o", "-", "--ray"], "standard input and output are for one picture, --ray"),
        (["compress", "-r", "{folder}", "--jobs", "2", "--batch", "2"], "--batch is for one process"),
        (["compress", "-r", "{folder}", "--ray", "--device", "cuda:1"], "--device cuda with --ray"),
        (["bench", "{folder}", "--jobs", "2", "--ray"], "give one of them"),
    ],
)
def test_what_does_not_go_together_is_one_line(pictures, tmp_path, capsys, args, message, monkeypatch):
    monkeypatch.setattr("tto.cli.workplace.require", lambda package, extra: None)
    before = contents(pictures)
    with pytest.raises(SystemExit) as ended:
        main([arg.format(folder=pictures) for arg in args])
    captured = capsys.readouterr()
    assert (ended.value.code, captured.out, captured.err.count("\n")) == (2, "", 1)
    assert message in captured.err
    assert contents(pictures) == before


def test_without_ray_one_line_says_how_to_get_it(pictures, capsys, monkeypatch):
    monkeypatch.setattr("tto.packages.find_spec", lambda package: None)
    with pytest.raises(SystemExit) as ended:
        main(["decompress", str(pictures / "a.png"), "-o", "x.png", "--ray"])
    assert ended.value.code == 2
    assert capsys.readouterr().err == "tto: this needs the package ray: pip install 'tto[ray]'\n"

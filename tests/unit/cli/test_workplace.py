"""Where files are worked on."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from tto.cli.naming import STREAM, Job
from tto.cli.workplace import Workplace, absolute, absolute_model
from tto.errors import BadArgument
from tto.interruption import Interrupted
from tto.workers import Here, Processes, share_of_cores

JOB = Job(Path("a.png"), Path("a.tto"))


@pytest.mark.parametrize(
    ("workplace", "expected"),
    [
        (Workplace(), Here(3)),
        (Workplace(threads=5), Here(3, 5)),
        (Workplace(jobs=1, threads=5), Here(3, 5)),
        (Workplace(jobs=2), Processes(2, share_of_cores(2))),
        (Workplace(jobs=2, threads=5), Processes(2, 5)),
        (Workplace(jobs=8).limited(2), Processes(2, share_of_cores(2))),
        (Workplace(jobs=8).limited(0), Here(3)),
        (Workplace().limited(2), Here(3)),
    ],
)
def test_processes_are_as_many_as_told_and_share_the_cores_out(workplace, expected):
    with workplace.open(at_once=3) as workforce:
        assert workforce == expected


def test_one_process_does_what_several_cannot():
    Workplace(jobs=1).check([JOB], at_once=4)
    Workplace().check([Job(STREAM, STREAM)], at_once=4)
    with pytest.raises(BadArgument, match="--batch"):
        Workplace(jobs=2).check([JOB], at_once=4)
    with pytest.raises(BadArgument, match="standard input and output are for one picture, --jobs for many"):
        Workplace(jobs=1).check([Job(Path("a.png"), STREAM)])


def test_sigterm_ends_work_elsewhere_as_an_interruption():
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(Interrupted, match="what was finished is kept") as ended, Workplace(jobs=2).open():
        os.kill(os.getpid(), signal.SIGTERM)
        signal.pause()
    assert ended.value.exit_code == 143
    assert signal.getsignal(signal.SIGTERM) == before


def test_a_file_has_a_name_that_holds_elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("model.safetensors").touch()
    assert absolute("model.safetensors") == str(tmp_path / "model.safetensors")
    assert absolute("dcae-small") == "dcae-small"


def test_a_models_name_is_one_whatever_lies_there(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for path in ("dcae-small", "mbt2018-mean", "hf:/OWNER/NAME", "folder"):
        Path(path).mkdir(parents=True)
    for name in ("dcae-small", "mbt2018-mean", "hf://OWNER/NAME"):
        assert absolute_model(name) == name
    assert absolute_model("folder") == str(tmp_path / "folder")

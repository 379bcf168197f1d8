"""Choices that the command line offers before anything is loaded are those that there are."""

from __future__ import annotations

import os
import re

import pytest
from typer.main import get_command

from tto.cli import app, main
from tto.cli.compress import Metric
from tto.cli.options import Effort
from tto.refine.distortion import METRICS
from tto.refine.presets import EFFORTS, steps_of


def test_efforts_and_metrics_are_those_that_there_are():
    assert [effort.value for effort in Effort] == list(EFFORTS)
    assert [metric.value for metric in Metric] == list(METRICS)


@pytest.mark.parametrize(("policy", "given", "expected"), [("", "", "5000"), ("", "9", "9"), ("active", "", None)])
def test_threads_soon_sleep_unless_the_environment_says_how_they_wait(monkeypatch, policy, given, expected):
    for name, value in (("OMP_WAIT_POLICY", policy), ("GOMP_SPINCOUNT", given)):
        monkeypatch.setenv(name, value)
        if not value:
            monkeypatch.delenv(name)
    with pytest.raises(SystemExit):
        main(["--version"])
    assert os.environ.get("GOMP_SPINCOUNT") == expected


def test_help_has_the_steps_of_each_effort():
    command = get_command(app).get_command(None, "compress")
    text = next(option.help for option in command.params if option.name == "effort")
    told = {name: int(steps) for name, steps in re.findall(r"(\w+) \((\d+)", text)}
    assert told == {name: steps_of(stages) for name, stages in EFFORTS.items() if stages}

"""Choices that the command line offers before anything is loaded are those that there are."""

from __future__ import annotations

import re

from typer.main import get_command

from tto.cli import app
from tto.cli.compress import Metric
from tto.cli.options import Effort
from tto.refine.distortion import METRICS
from tto.refine.presets import EFFORTS, steps_of


def test_efforts_and_metrics_are_those_that_there_are():
    assert [effort.value for effort in Effort] == list(EFFORTS)
    assert [metric.value for metric in Metric] == list(METRICS)


def test_help_has_the_steps_of_each_effort():
    command = get_command(app).get_command(None, "compress")
    text = next(option.help for option in command.params if option.name == "effort")
    told = {name: int(steps) for name, steps in re.findall(r"(\w+) \((\d+)", text)}
    assert told == {name: steps_of(stages) for name, stages in EFFORTS.items() if stages}

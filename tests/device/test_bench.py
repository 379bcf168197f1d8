"""The bench measures on a device what the codec does there."""

from __future__ import annotations

import pytest

from tto.bench import coders
from tto.bench.coders import model_series
from tto.bench.datasets import open_dataset
from tto.bench.measure import Machine, measure, plan, sources


@pytest.fixture
def pictures(tmp_path, photograph):
    folder = tmp_path / "pictures"
    folder.mkdir()
    photograph(100, 70).save(folder / "a.png")
    return folder


def test_rows_are_those_of_the_cpu(pictures, tmp_path, tiny_checkpoint, device):
    rows = {}
    for place in ("cpu", device.type):
        machine = Machine(tmp_path / place, place)
        series = model_series([str(tiny_checkpoint)], ["2"], [4.0], place)
        measured = measure(plan(sources(open_dataset(str(pictures))), series, machine), machine, ["psnr"])
        assert not measured.failures
        rows[place] = measured.rows
    coders.load_model_once.cache_clear()
    for theirs, ours in zip(rows["cpu"], rows[device.type], strict=True):
        assert ours.settings.startswith(f"on {device.type}, PyTorch ") and ours.peak_memory_mb >= 0
        assert ours.base_bytes == theirs.base_bytes
        assert ours.scores["psnr"] == pytest.approx(theirs.scores["psnr"], abs=0.1)

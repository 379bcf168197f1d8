from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import tto
from tto.bench import coders, measure
from tto.bench.coders import anchor_series, model_series
from tto.bench.datasets import open_dataset
from tto.bench.measure import Machine, Source, plan
from tto.bench.rows import RowLog, row_to_json
from tto.errors import BadArgument
from tto.metrics import psnr


def make_tasks(pictures, series, **options):
    return plan(open_dataset(str(pictures)).sources(**options), series, with_lpips=False)


@pytest.fixture
def count_work(monkeypatch):
    """Counts how often each key is measured; after `limit` rows it breaks off like Ctrl-C."""

    class Work:
        done: Counter[str] = Counter()
        limit = math.inf

    work = Work()
    real = measure.measure_one

    def one(task, machine):
        if sum(work.done.values()) >= work.limit:
            raise KeyboardInterrupt
        work.done[task.identity.key] += 1
        return real(task, machine)

    monkeypatch.setattr(measure, "measure_one", one)
    return work


def test_a_row_tells_of_the_file_on_disk_and_its_decoded_pixels(pictures, tmp_path):
    tasks = make_tasks(pictures, anchor_series(["jpeg"]))
    rows = measure.measure(tasks[:3], Machine(tmp_path / "out"))
    for task, row in zip(tasks, rows, strict=False):
        path = tmp_path / "out" / row.file
        assert row.bytes == path.stat().st_size
        assert row.bpp == pytest.approx(8 * row.bytes / (192 * 176))
        decoded = np.asarray(Image.open(path).convert("RGB"))
        assert row.psnr == pytest.approx(psnr(task.source.pixels(), decoded))
        assert 0 < row.ms_ssim < 1
        assert row.ms_ssim_db == pytest.approx(-10 * math.log10(1 - row.ms_ssim))
        assert min(row.encode_seconds, row.decode_seconds) > 0
        assert row.peak_memory_mb > 10
        assert math.isnan(row.J) and math.isnan(row.lpips)


def test_efforts_reach_the_codec_by_name_and_by_steps(pictures, tmp_path, fake_codec):
    series = model_series(["dcae-small"], ["none", "best", "25"], [2, 4.5], "cpu")
    rows = measure.measure(make_tasks(pictures, series, limit=1), Machine(tmp_path))
    assert fake_codec.calls == [
        (2.0, {"effort": "none"}),
        (4.5, {"effort": "none"}),
        (2.0, {"effort": "best"}),
        (4.5, {"effort": "best"}),
        (2.0, {"steps": 25}),
        (4.5, {"steps": 25}),
    ]
    assert [row.label for row in rows[::2]] == ["dcae-small (none)", "dcae-small (best)", "dcae-small (25)"]
    assert [row.steps for row in rows[::2]] == [0, 6, 25]
    assert pytest.approx(0.4) == rows[2].J
    assert rows[2].base_bytes == rows[2].bytes + 10


def test_finished_rows_are_not_measured_again(pictures, tmp_path, count_work):
    tasks = make_tasks(pictures, anchor_series(["webp"]))
    first = measure.measure(tasks, Machine(tmp_path))
    assert set(count_work.done.values()) == {1}
    again = measure.measure(tasks, Machine(tmp_path))
    assert set(count_work.done.values()) == {1}
    assert [row_to_json(row) for row in again] == [row_to_json(row) for row in first]


def test_a_run_broken_off_goes_on_where_it_stopped(pictures, tmp_path, count_work):
    tasks = make_tasks(pictures, anchor_series(["jpeg"]))
    count_work.limit = 5
    with pytest.raises(KeyboardInterrupt):
        measure.measure(tasks, Machine(tmp_path))
    with RowLog(tmp_path / "rows.jsonl") as log:
        assert len(log.finished) == 5
    count_work.limit = math.inf
    heard = []
    rows = measure.measure(tasks, Machine(tmp_path), lambda row, is_new: heard.append(is_new))
    assert len(rows) == len(tasks) == len(count_work.done)
    assert set(count_work.done.values()) == {1}
    assert Counter(heard) == {False: 5, True: len(tasks) - 5}


def test_changed_pixels_are_measured_again(pictures, tmp_path, count_work):
    series = anchor_series(["jpeg"])
    measure.measure(make_tasks(pictures, series), Machine(tmp_path))
    before = sum(count_work.done.values())
    Image.new("RGB", (192, 176), "red").save(pictures / "b.png")
    measure.measure(make_tasks(pictures, series), Machine(tmp_path))
    assert sum(count_work.done.values()) == before + len(series[0].qualities)


def test_several_processes_find_the_same_as_one(pictures, tmp_path):
    tasks = make_tasks(pictures, anchor_series(["webp"]), limit=1)[:4]
    figures = []
    for jobs in (1, 2):
        rows = measure.measure(tasks, Machine(tmp_path / str(jobs), jobs=jobs))
        figures.append([(row.key, row.bytes, row.psnr) for row in rows])
    assert figures[0] == figures[1]


KILLED = """
import sys, time
from pathlib import Path
import tto
from tto.bench import coders, measure
from tto.bench.datasets import open_dataset
slow = coders.AnchorCoder.encode
coders.AnchorCoder.encode = lambda self, image, quality: (time.sleep(0.2), slow(self, image, quality))[1]
tasks = measure.plan(open_dataset(sys.argv[1]).sources(), coders.anchor_series(["jpeg"]), False)
measure.measure(tasks, measure.Machine(Path(sys.argv[2])))
"""


@pytest.mark.skipif(os.name != "posix", reason="needs SIGKILL")
def test_a_killed_run_loses_no_row_and_repeats_none(pictures, tmp_path, count_work):
    process = subprocess.Popen([sys.executable, "-c", KILLED, str(pictures), str(tmp_path / "out")])
    log_file = tmp_path / "out" / "rows.jsonl"
    deadline = time.monotonic() + 500
    while not log_file.exists() or log_file.read_bytes().count(b"\n") < 3:
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    finished = log_file.read_bytes().count(b"\n")
    tasks = make_tasks(pictures, anchor_series(["jpeg"]))
    assert 3 <= finished < len(tasks)
    rows = measure.measure(tasks, Machine(tmp_path / "out"))
    assert len(rows) == len(tasks)
    assert sum(count_work.done.values()) == len(tasks) - finished
    keys = [line.split(b'"')[3] for line in log_file.read_bytes().splitlines()]
    assert len(keys) == len(set(keys)) == len(tasks)


def test_a_crop_is_the_centre_and_is_labelled(pictures):
    source = open_dataset(str(pictures)).sources(crop=64)[0]
    assert source.dataset == "pictures, centre 64x64"
    assert np.array_equal(source.pixels(), Source("", source.path, 0).pixels()[56:120, 64:128])
    assert Source("", source.path, 1000).pixels().shape == (176, 192, 3)


def test_gray_and_transparent_pictures_are_measured_as_rgb(tmp_path):
    folder = tmp_path / "odd"
    folder.mkdir()
    Image.new("L", (40, 30), 100).save(folder / "gray.png")
    Image.new("RGBA", (40, 30), (10, 20, 30, 40)).save(folder / "alpha.png")
    tasks = make_tasks(folder, anchor_series(["webp"]))
    rows = measure.measure(tasks[::13], Machine(tmp_path / "out"))
    assert [row.image for row in rows] == ["alpha.png", "gray.png"]
    assert all(math.isnan(row.ms_ssim) for row in rows)  # too small for five scales


def test_what_cannot_be_measured_is_refused_at_once(fake_codec):
    with pytest.raises(BadArgument, match="unknown anchor 'gif'"):
        anchor_series(["gif"])
    with pytest.raises(BadArgument, match="between 1 and 8"):
        model_series(["dcae-small"], ["none"], [9], "cpu")
    with pytest.raises(BadArgument, match="unknown effort 'heroic'"):
        model_series(["dcae-small"], ["none", "heroic"], [2], "cpu")


def test_two_checkpoints_of_one_name_and_one_called_like_an_anchor_are_refused(tmp_path, fake_codec):
    paths = [tmp_path / name for name in ("a/tiny.pth", "b/tiny.pth", "jpeg.pth")]
    for path in paths:
        path.parent.mkdir(exist_ok=True)
        path.touch()
    with pytest.raises(BadArgument, match="two codecs are called tiny"):
        model_series([str(path) for path in paths[:2]], ["none"], [2], "cpu")
    with pytest.raises(BadArgument, match="two codecs are called jpeg"):
        model_series([str(paths[2])], ["none"], [2], "cpu")


def test_a_model_of_one_rate_is_measured_at_that_rate(fake_codec, monkeypatch):
    monkeypatch.setattr(type(fake_codec), "qualities", 1)
    (series,) = model_series(["published"], ["none"], [2, 4], "cpu")
    assert series.qualities == (1.0,)


def test_sources_are_all_that_bytes_and_pixels_depend_on():
    package = Path(tto.__file__).parent
    folders = {path.relative_to(package).parts[0] for path in coders._sources() if package in path.parents}
    present = {path.parent.name for path in package.glob("*/*.py")}
    assert {"side", "refine", "codec.py"} <= folders
    assert folders & present == present - {"bench", "cli", "train"}


def test_the_version_of_a_model_follows_its_weights_and_the_sources(fake_codec):
    (series,) = model_series(["dcae-small"], ["none"], [2], "cpu")
    assert series.version == f"tto {coders.source_version()}, weights {b'fakecode'.hex()}"

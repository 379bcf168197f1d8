from __future__ import annotations

import json
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
import torch
from PIL import Image

import tto
from tests.many_pictures import preparations
from tto import metrics, perceptual, ssimulacra2
from tto.bench import coders, measure, scores, vmaf
from tto.bench.anchors.pillow import PillowAnchor
from tto.bench.coders import anchor_series, model_series
from tto.bench.datasets import open_dataset
from tto.bench.measure import Failure, Machine, NothingMeasured, Source, plan, sources
from tto.bench.rows import RowLog, row_to_json
from tto.errors import BadArgument
from tto.metrics import psnr
from tto.workers import Here, Processes


def make_tasks(pictures, series, machine=Machine(Path()), **options):  # noqa: B008 (immutable)
    return plan(sources(open_dataset(str(pictures)), **options), series, machine)


@pytest.fixture
def count_work(monkeypatch):
    """Counts how often each key is measured; after `limit` rows it breaks off like Ctrl-C."""

    class Work:
        done: Counter[str] = Counter()
        limit = math.inf

    work = Work()
    real = measure.measure_one

    def one(wanted, machine):
        if sum(work.done.values()) >= work.limit:
            raise KeyboardInterrupt
        work.done[wanted.task.identity.key] += 1
        return real(wanted, machine)

    monkeypatch.setattr(measure, "measure_one", one)
    return work


def test_a_row_tells_of_the_file_on_disk_and_its_decoded_pixels(pictures, tmp_path):
    tasks = make_tasks(pictures, anchor_series(["jpeg"]))
    rows = measure.measure(tasks[:3], Machine(tmp_path / "out")).rows
    for task, row in zip(tasks, rows, strict=False):
        path = tmp_path / "out" / row.file
        assert row.bytes == path.stat().st_size
        assert row.bpp == pytest.approx(8 * row.bytes / (192 * 176))
        decoded = np.asarray(Image.open(path).convert("RGB"))
        assert row.scores["psnr"] == pytest.approx(psnr(task.source.pixels(), decoded))
        assert 0 < row.scores["ms_ssim"] < 1
        assert min(row.encode_seconds, row.decode_seconds) > 0
        assert row.peak_memory_mb < 50  # what JPEG adds to this process, not all of it
        assert math.isnan(row.J) and row.parameters == 0


def test_efforts_reach_the_codec_by_name_and_by_steps(pictures, tmp_path, fake_codec):
    series = model_series(["dcae-small"], ["none", "best", "25"], [2, 4.5], "cpu")
    rows = measure.measure(make_tasks(pictures, series, limit=1), Machine(tmp_path)).rows
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
    assert rows[2].parameters == 8 and rows[2].peak_memory_mb < 50  # without the networks that are loaded


def test_memory_is_that_of_the_device_on_which_the_coder_computes(pictures, tmp_path, fake_codec, monkeypatch):
    asked = []
    for name in ("reset_peak", "peak_mb"):
        monkeypatch.setattr(measure, name, lambda device: asked.append(device) or 0.0)
    series = model_series(["dcae-small"], ["none"], [2], "cpu") + anchor_series(["webp"])
    tasks = make_tasks(pictures, series, limit=1)[:2]
    monkeypatch.setattr(type(fake_codec), "device", torch.device("cuda:1"))  # in another process
    measure.measure(tasks, Machine(tmp_path))
    assert asked == ["cuda:1", "cuda:1", "cpu", "cpu"]


def test_a_coder_has_the_network_of_its_quality_before_the_clock_starts(fake_codec, monkeypatch):
    networks = {2.0: type(fake_codec)(), 3.0: type(fake_codec)()}
    monkeypatch.setattr(fake_codec, "at", networks.get, raising=False)
    (series,) = model_series(["family"], ["none"], [2, 3], "cpu")
    assert [series.open(rung, "cpu").codec for rung in series.rungs] == list(networks.values())


def test_finished_rows_are_not_measured_again(pictures, tmp_path, count_work):
    tasks = make_tasks(pictures, anchor_series(["webp"]))
    first = measure.measure(tasks, Machine(tmp_path)).rows
    assert set(count_work.done.values()) == {1}
    again = measure.measure(tasks, Machine(tmp_path)).rows
    assert set(count_work.done.values()) == {1}
    assert [row_to_json(row) for row in again] == [row_to_json(row) for row in first]


def test_files_of_other_measurements_are_left_alone_and_missing_ones_made_again(pictures, tmp_path, count_work):
    machine, series = Machine(tmp_path / "out"), anchor_series(["jpeg"])
    whole, small = (make_tasks(pictures, series, limit=1, crop=crop)[:2] for crop in (0, 64))
    first = measure.measure(whole, machine).rows
    measure.measure(small, machine)
    assert measure.measure(whole, machine).rows == first and set(count_work.done.values()) == {1}
    assert [(machine.folder / row.file).stat().st_size for row in first] == [row.bytes for row in first]
    (machine.folder / first[0].file).unlink()
    (machine.folder / first[1].file).write_bytes(b"cut")
    again = measure.measure(whole, machine).rows
    assert [row.bytes for row in again] == [row.bytes for row in first]
    assert [count_work.done[task.identity.key] for task in whole] == [2, 2]


def test_a_run_broken_off_goes_on_where_it_stopped(pictures, tmp_path, count_work):
    tasks = make_tasks(pictures, anchor_series(["jpeg"]))
    count_work.limit = 5
    with pytest.raises(KeyboardInterrupt):
        measure.measure(tasks, Machine(tmp_path))
    with RowLog(tmp_path / "rows.jsonl") as log:
        assert len(log.finished) == 5
    count_work.limit = math.inf
    heard = []
    rows = measure.measure(tasks, Machine(tmp_path), on_row=lambda row, is_new: heard.append(is_new)).rows
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


def test_several_processes_find_the_same_as_one(pictures, tmp_path, monkeypatch):
    """Here of one, as if it were two."""
    monkeypatch.setattr(measure, "processes", lambda number, threads: Here() if number == 1 else Processes(1, 1))
    prepared, figures = preparations(monkeypatch, Processes), []
    for jobs in (1, 2):
        machine = Machine(tmp_path / str(jobs), jobs=jobs)
        rows = measure.measure(make_tasks(pictures, anchor_series(["webp"]), machine, limit=1)[:4], machine).rows
        figures.append([(row.image, row.quality, row.bytes, row.scores["psnr"]) for row in rows])
    assert figures[0] == figures[1] and len(prepared) == 1


KILLED = """
import sys, time
from pathlib import Path
import tto
from tto.bench import coders, measure
from tto.bench.anchors.pillow import PillowAnchor
from tto.bench.datasets import open_dataset
slow = PillowAnchor.encode
PillowAnchor.encode = lambda self, image, quality: (time.sleep(0.2), slow(self, image, quality))[1]
machine = measure.Machine(Path(sys.argv[2]))
sources = measure.sources(open_dataset(sys.argv[1]))
measure.measure(measure.plan(sources, coders.anchor_series(["jpeg"]), machine), machine)
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
    rows = measure.measure(tasks, Machine(tmp_path / "out")).rows
    assert len(rows) == len(tasks)
    assert sum(count_work.done.values()) == len(tasks) - finished
    lines = [json.loads(line) for line in log_file.read_bytes().splitlines()]
    assert len({(line["image"], line["quality"]) for line in lines}) == len(lines) == len(tasks)


def test_a_crop_is_the_centre_and_is_labelled(pictures):
    source = sources(open_dataset(str(pictures)), crop=64)[0]
    assert source.dataset == "pictures, centre 64x64"
    assert np.array_equal(source.pixels(), Source("", source.path, 0).pixels()[56:120, 64:128])


def test_an_image_smaller_than_the_square_is_refused_before_anything_is_measured(pictures):
    with pytest.raises(BadArgument, match=r"a\.png has 192x176 pixels: no square of 177"):
        make_tasks(pictures, anchor_series(["jpeg"]), crop=177)


def test_gray_and_transparent_pictures_are_measured_as_rgb(tmp_path):
    folder = tmp_path / "odd"
    folder.mkdir()
    Image.new("L", (40, 30), 100).save(folder / "gray.png")
    Image.new("RGBA", (40, 30), (10, 20, 30, 40)).save(folder / "alpha.png")
    tasks = make_tasks(folder, anchor_series(["webp"]))
    rows = measure.measure(tasks[::13], Machine(tmp_path / "out")).rows
    assert [row.image for row in rows] == ["alpha.png", "gray.png"]
    assert all(math.isnan(row.scores["ms_ssim"]) for row in rows)  # too small for five scales


def test_what_cannot_be_measured_is_refused_at_once(fake_codec):
    with pytest.raises(BadArgument, match="unknown anchor 'gif'"):
        coders.missing_anchors(["gif"])
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


def test_without_qualities_a_model_is_measured_at_all_that_it_has(fake_codec, monkeypatch):
    monkeypatch.setattr(type(fake_codec), "qualities", 3)
    (series,) = model_series(["dcae-small"], ["none"], [], "cpu")
    assert series.qualities == (1.0, 2.0, 3.0)


def test_sources_are_all_that_bytes_and_pixels_depend_on():
    package = Path(tto.__file__).parent
    folders = {path.relative_to(package).parts[0] for path in coders._sources() if package in path.parents}
    present = {path.parent.name for path in package.glob("*/*.py")}
    assert {"side", "refine", "codec.py"} <= folders
    assert folders & present == present - {"bench", "cli", "train"}


def test_the_version_of_a_model_follows_its_weights_and_the_sources(fake_codec):
    (series,) = model_series(["dcae-small"], ["none"], [2], "cpu")
    assert series.version == f"tto {coders.source_version()}, weights {b'fakecode'.hex()}, lambda 0.01"


def test_rows_of_another_lambda_or_pytorch_are_not_taken_up_again(fake_codec, monkeypatch):
    (series,) = model_series(["dcae-small"], ["none"], [2], "cpu")
    monkeypatch.setattr(type(fake_codec), "trained_for", "lambda 0.02")
    monkeypatch.setattr(torch, "__version__", "9.9")
    (other,) = model_series(["dcae-small"], ["none"], [2], "cpu")
    assert series.version != other.version and series.settings != other.settings


@pytest.mark.parametrize("reduced", [False, True])
def test_rows_of_processors_that_descend_otherwise_are_told_apart(fake_codec, monkeypatch, reduced):
    monkeypatch.setattr(coders, "descends_in_bfloat16", lambda device: reduced)
    (series,) = model_series(["dcae-small"], ["none"], [2], "cpu")
    assert series.settings.endswith(", gradients in bfloat16") is reduced
    (elsewhere,) = coders.computed_on([series], "cuda")
    assert elsewhere.settings == f"on cuda, PyTorch {torch.__version__}"


def test_usual_qualities_are_those_that_a_model_has(fake_codec, monkeypatch):
    assert model_series(["dcae-small"], ["none"], None, "cpu")[0].qualities == (2.0, 4.0, 6.0, 8.0)
    monkeypatch.setattr(type(fake_codec), "qualities", 6)
    assert model_series(["dcae-small"], ["none"], None, "cpu")[0].qualities == (2.0, 4.0, 6.0)
    with pytest.raises(BadArgument, match="between 1 and 6"):
        model_series(["dcae-small"], ["none"], [8], "cpu")


def test_codecs_are_called_by_the_whole_name_of_their_file_or_folder(tmp_path, monkeypatch, fake_codec):
    (tmp_path / "v1.1").mkdir()
    (tmp_path / "a-0.013.safetensors").write_bytes(b"")
    monkeypatch.chdir(tmp_path / "v1.1")
    (tmp_path / "v1.1" / "b.safetensors").write_bytes(b"")
    monkeypatch.setattr(fake_codec, "qualities", 1)
    monkeypatch.setattr(fake_codec.model, "lambda_at", lambda quality: 0.01, raising=False)
    series = model_series([str(tmp_path / "a-0.013.safetensors"), "."], ["none"], None, "cpu")
    assert [one.codec for one in series] == ["a-0.013", "v1.1"]


def test_a_picture_of_sixteen_bits_is_measured_in_eight(tmp_path):
    Image.fromarray(np.full((4, 4), 65535, np.uint16)).save(tmp_path / "deep.png")
    assert (Source("photos", tmp_path / "deep.png", 0).pixels() == 255).all()


def test_other_numbers_of_processes_are_measured_apart(pictures, tmp_path, count_work):
    """Their seconds do not compare."""
    series = anchor_series(["webp"])
    for jobs, threads in ((1, 1), (1, 2), (2, 1)):
        identities = {
            task.identity.key for task in make_tasks(pictures, series, Machine(tmp_path, "cpu", jobs, threads))
        }
        assert not identities & set(count_work.done)
        count_work.done.update(identities)


def test_a_score_asked_for_later_needs_no_second_encoding(pictures, tmp_path, monkeypatch):
    tasks = make_tasks(pictures, anchor_series(["webp"]), limit=1)
    first = measure.measure(tasks, Machine(tmp_path)).rows
    monkeypatch.setattr(PillowAnchor, "encode", None)
    again = measure.measure(tasks, Machine(tmp_path), ("psnr", "ms_ssim", "ssimulacra2")).rows
    assert [row.encode_seconds for row in again] == [row.encode_seconds for row in first]
    assert [row.decode_seconds for row in again] == [row.decode_seconds for row in first]
    assert again[0].scores["ssimulacra2"] < again[-1].scores["ssimulacra2"] < 100
    assert again[3].scores["psnr"] == first[3].scores["psnr"]
    heard = []
    measure.measure(tasks, Machine(tmp_path), ("psnr", "ssimulacra2"), lambda row, is_new: heard.append(is_new))
    assert not any(heard)


def test_scores_of_before_are_computed_anew_without_a_second_encoding(pictures, tmp_path, monkeypatch):
    tasks = make_tasks(pictures, anchor_series(["webp"]), limit=1)[:2]
    first = measure.measure(tasks, Machine(tmp_path)).rows
    monkeypatch.setattr(PillowAnchor, "encode", None)
    monkeypatch.setattr(measure, "load_score", lambda metric: lambda original, decoded: 7.0)
    assert [row.scores for row in measure.measure(tasks, Machine(tmp_path)).rows] == [row.scores for row in first]
    monkeypatch.setattr(measure, "scoring_version", lambda: "another")
    for _ in range(2):
        again = measure.measure(tasks, Machine(tmp_path)).rows
        assert [row.scores for row in again] == [{"psnr": 7.0, "ms_ssim": 7.0}] * 2
        assert [(row.file, row.encode_seconds) for row in again] == [(row.file, row.encode_seconds) for row in first]
        monkeypatch.setattr(measure, "load_score", None)  # once is enough


def test_the_version_of_scores_is_of_all_sources_that_score():
    sources = {Path(module.__file__) for module in (metrics, ssimulacra2, perceptual, scores, vmaf)}
    assert {Path(tto.__file__).parent / name for name in coders.SCORING} == sources


def test_a_row_says_what_processor_its_seconds_are_of(pictures, tmp_path, monkeypatch):
    tasks = make_tasks(pictures, anchor_series(["webp"]), limit=1)[:2]
    for name, part in [("abacus", tasks[:1]), ("slide rule", tasks)]:
        monkeypatch.setattr(measure, "processor", lambda device, name=name: f"{name} ({device})")
        measured = measure.measure(part, Machine(tmp_path))
    assert [row.processor for row in measured.rows] == ["abacus (cpu)", "slide rule (cpu)"]


def test_a_row_that_cannot_be_made_again_is_left_out(pictures, tmp_path, monkeypatch):
    tasks = make_tasks(pictures, anchor_series(["webp"]), limit=1)[:3]
    first = measure.measure(tasks, Machine(tmp_path)).rows
    (tmp_path / first[1].file).unlink()
    monkeypatch.setattr(PillowAnchor, "encode", lambda *_: 1 / 0)
    measured = measure.measure(tasks, Machine(tmp_path))
    assert [failure.quality for failure in measured.failures] == [first[1].quality]
    assert measured.tasks == tasks[::2] and [row.key for row in measured.rows] == [row.key for row in first[::2]]


def test_without_leave_to_count_memory_anew_a_row_lacks_that_figure_alone(pictures, tmp_path, monkeypatch):
    monkeypatch.setattr("tto.bench.memory._CLEAR_REFS", tmp_path)  # is there, and cannot be written
    tasks = make_tasks(pictures, anchor_series(["webp"]), limit=1)[:1]
    (row,) = measure.measure(tasks, Machine(tmp_path / "out")).rows
    assert math.isnan(row.peak_memory_mb) and row.scores["psnr"] > 20


def test_what_fails_does_not_stop_the_rest(pictures, tmp_path, monkeypatch):
    encode = PillowAnchor.encode

    def failing(self, image, quality):
        if quality == 50:
            raise MemoryError("no room\x1b[31m")
        return encode(self, image, quality)

    monkeypatch.setattr(PillowAnchor, "encode", failing)
    tasks = make_tasks(pictures, anchor_series(["webp"]))
    measured = measure.measure(tasks, Machine(tmp_path))
    assert measured.failures[0] == Failure("webp", 50.0, "a.png", "MemoryError: no room?[31m")
    assert [failure.image for failure in measured.failures] == ["a.png", "b.png", "c.png"]
    assert len(measured.rows) == len(measured.tasks) == len(tasks) - 3
    assert all(task.identity.key == row.key for task, row in zip(measured.tasks, measured.rows, strict=True))
    monkeypatch.undo()
    assert measure.measure(tasks, Machine(tmp_path)).failures == []


def test_nothing_at_all_is_an_error(pictures, tmp_path, monkeypatch):
    monkeypatch.setattr(PillowAnchor, "encode", lambda *_: 1 / 0)
    with pytest.raises(NothingMeasured, match="nothing could be measured: ZeroDivisionError"):
        measure.measure(make_tasks(pictures, anchor_series(["webp"])), Machine(tmp_path))


def test_a_folder_of_checkpoints_is_one_codec_and_each_of_them_a_quality(pictures, tmp_path, monkeypatch, fake_codec):
    """By rising λ, whatever their names."""
    for name in ("a", "b", "c"):
        (tmp_path / "family" / f"{name}.safetensors").parent.mkdir(exist_ok=True)
        (tmp_path / "family" / f"{name}.safetensors").write_bytes(b"")
    opened = []

    def load(model, device):
        opened.append(Path(model).stem)
        codec = type(fake_codec)()
        codec.qualities, codec.fingerprint = 1, Path(model).stem.encode()
        codec.model.lambda_at = lambda quality: {"a": 0.05, "b": 0.002, "c": 0.01}[Path(model).stem]
        return codec

    monkeypatch.setattr(coders, "load_model_once", load)
    (series,) = model_series([str(tmp_path / "family")], ["none"], [2, 4], "cpu")
    assert (series.codec, series.qualities) == ("family", (1.0, 2.0, 3.0))
    assert [Path(rung.source).stem for rung in series.rungs] == ["b", "c", "a"]
    assert all(rung.at == 1.0 for rung in series.rungs)
    opened.clear()
    rows = measure.measure(make_tasks(pictures, [series], limit=1), Machine(tmp_path / "out")).rows
    assert opened == ["b", "c", "a"] and [row.quality for row in rows] == [1, 2, 3]


def test_a_folder_named_like_a_model_is_not_taken_for_it(tmp_path, monkeypatch, fake_codec):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "dcae-small").mkdir()
    (series,) = model_series(["dcae-small"], ["none"], [2], "cpu")
    assert (series.codec, series.qualities) == ("dcae-small", (2.0,))


def test_a_folder_without_checkpoints_or_with_one_of_many_rates_is_refused(tmp_path, fake_codec):
    with pytest.raises(BadArgument, match="no .safetensors checkpoints in the folder"):
        model_series([str(tmp_path)], ["none"], [2], "cpu")
    (tmp_path / "many.safetensors").write_bytes(b"")
    with pytest.raises(BadArgument, match="many.safetensors has 8 rates"):
        model_series([str(tmp_path)], ["none"], [2], "cpu")

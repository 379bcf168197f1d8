"""Refinement as a person meets it: efforts, targets, budgets, regions, interruptions."""

from __future__ import annotations

import itertools
import json
import os
import signal
import time

import numpy as np
import pytest
from PIL import Image

from tto.cli import main
from tto.container import read
from tto.image import load_picture
from tto.metrics import psnr
from tto.refine.plan import _scaled
from tto.refine.presets import EFFORTS, steps_of


@pytest.fixture
def photo(tmp_path, photograph):
    path = tmp_path / "photo.png"
    photograph(72, 60).save(path)
    return path


@pytest.fixture
def compress(capsys, photo, tiny_checkpoint):
    """`tto compress` in this process: the JSON it prints."""

    def run(*options, source=photo) -> dict:
        with pytest.raises(SystemExit) as caught:
            main(["compress", str(source), "-m", str(tiny_checkpoint), "--json", *map(str, options)])
        captured = capsys.readouterr()
        assert caught.value.code == 0, captured.err
        return json.loads(captured.out)

    return run


def test_a_higher_effort_never_ends_with_a_higher_cost(compress, monkeypatch):
    """Each stage has a quarter of its steps."""
    short = {stage: _scaled((stage,), steps_of((stage,)) // 4) for stages in EFFORTS.values() for stage in stages}
    for effort, stages in EFFORTS.items():
        monkeypatch.setitem(EFFORTS, effort, sum((short[stage] for stage in stages), ()))
    results = [compress("-q", 3, "--effort", effort) for effort in ("none", "fast", "balanced", "best")]
    costs = [result["J"] for result in results]
    assert costs == sorted(costs, reverse=True)
    assert costs[1] < costs[0]
    assert {result["base_J"] for result in results} == {costs[0]}
    assert [result["steps"] for result in results] == sorted(result["steps"] for result in results)


def test_figures_are_those_of_the_file(compress, photo, tiny_checkpoint, tmp_path, capsys):
    record = compress("-q", 5, "--steps", 7)
    assert record["steps"] == 7
    with pytest.raises(SystemExit):
        main(["decompress", record["output"], "-m", str(tiny_checkpoint), "-o", str(tmp_path / "back.png")])
    back = load_picture(tmp_path / "back.png").rgb
    size = os.path.getsize(record["output"])
    assert record["bytes"] == size
    assert record["psnr"] == pytest.approx(psnr(load_picture(photo).rgb, back))
    assert record["J"] < record["base_J"]


def test_a_refined_file_is_read_again_bit_for_bit(small_codec, photograph):
    result = small_codec.compress(photograph(100, 70), 3, steps=6)
    assert np.array_equal(np.asarray(small_codec.decompress(result.data)), np.asarray(result.image))
    assert result.base_J > result.J


def test_gray_stays_gray_and_alpha_exact_when_refined(small_codec, photograph):
    image = photograph(70, 50).convert("LA")
    image.putalpha(Image.linear_gradient("L").resize((70, 50)))
    result = small_codec.compress(image, 3, steps=24)
    assert result.image.mode == "LA"
    assert np.array_equal(np.asarray(result.image)[..., 1], np.asarray(image)[..., 1])
    assert result.base_J > result.J


@pytest.mark.parametrize("size", [(1, 1), (200, 1), (65, 63)])
def test_every_size_refines(small_codec, photograph, size):
    result = small_codec.compress(photograph(*size), 2, steps=3)
    assert small_codec.decompress(result.data).size == size
    assert result.steps == 3
    assert result.base_J > result.J or size == (1, 1)


def test_target_rate_and_quality_are_met(small_codec, photograph):
    image = photograph(160, 128)
    middle = small_codec.compress(image, 4)
    assert small_codec.compress(image, target_bpp=1.1 * middle.bpp).bpp == pytest.approx(1.1 * middle.bpp, rel=0.01)
    wanted = middle.psnr + 0.3
    assert small_codec.compress(image, target_psnr=wanted, steps=2).psnr == pytest.approx(wanted, abs=0.05)


def test_a_budget_is_kept(small_codec, photograph, monkeypatch):
    """By a clock that moves on by a twentieth of a second whenever it is looked at."""
    ticks = itertools.count()
    for clock in ("monotonic", "perf_counter"):
        monkeypatch.setattr(time, clock, lambda: next(ticks) / 20)
    result = small_codec.compress(photograph(64, 64), budget=5)
    assert result.steps > 0
    assert 4 < result.seconds < 5.5


def test_weight_moves_quality_into_the_region(small_codec, photograph):
    image = photograph(96, 96)
    region = np.full((96, 96), 10, np.uint8)
    region[:, :48] = 255
    plain = small_codec.compress(image, 4, steps=24)
    aimed = small_codec.compress(image, 4, steps=24, roi=Image.fromarray(region))
    original = np.asarray(image)[:, :48]
    assert psnr(original, np.asarray(aimed.image)[:, :48]) > psnr(original, np.asarray(plain.image)[:, :48])


def test_ms_ssim_is_what_falls_when_it_is_asked_for(small_codec, photograph):
    result = small_codec.compress(photograph(176, 176), 4, steps=12, metric="ms-ssim")
    assert result.base_J > result.J


@pytest.mark.parametrize(
    "options",
    [
        ("--effort", "most"),
        ("--steps", "-2"),
        ("--steps", "3", "--budget", "2"),
        ("--target-bpp", "1", "--target-psnr", "30"),
        ("--target-bpp", "0"),
        ("--metric", "vmaf"),
        ("--roi", "missing.png"),
    ],
)
def test_options_without_meaning_are_one_line_and_no_file(options, photo, tiny_checkpoint, capsys):
    with pytest.raises(SystemExit) as caught:
        main(["compress", str(photo), "-m", str(tiny_checkpoint), *options])
    assert caught.value.code == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
    assert not photo.with_suffix(".tto").exists()


# --- signals ---------------------------------------------------------------------------------------


@pytest.fixture
def interrupted(monkeypatch, capfd, photo, tiny_checkpoint, tmp_path, interruptible):
    """`tto compress photo.png other.png`, told to refine for very long, which gets signals at its 20th
    step: its exit code, stdout and stderr."""
    other = tmp_path / "other.png"
    Image.new("RGB", (20, 20)).save(other)

    def run(*numbers) -> tuple[int, str, str]:
        left = list(numbers)

        def row_of(progress):
            while left and progress.step == 20:
                os.kill(os.getpid(), left.pop(0))

        monkeypatch.setattr("tto.cli.compression.row_of", row_of)
        with pytest.raises(SystemExit) as caught:
            main(["compress", str(photo), str(other), "-m", str(tiny_checkpoint), "--steps", "1000000", "--json"])
        captured = capfd.readouterr()
        return caught.value.code, captured.out, captured.err

    return run


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_interruption_writes_the_best_so_far_and_says_how_far_it_came(interrupted, number, code, photo):
    ended, out, err = interrupted(number)
    assert ended == code
    assert err.splitlines() == [
        "tto: finishing the step; again to abort",
        "tto: interrupted: 1 of 2 written, the last with the best so far",
    ]
    record = json.loads(out)
    assert 0 < record["steps"] < 1_000_000
    assert record["J"] < record["base_J"]
    assert read(photo.with_suffix(".tto").read_bytes()).header.width == 72
    assert not photo.with_name("other.tto").exists()


def test_a_second_interruption_aborts(interrupted, photo):
    code, out, err = interrupted(signal.SIGINT, signal.SIGINT)
    assert (code, out) == (130, "")
    assert err.splitlines()[1:] == ["tto: interrupted: 0 of 2 written"]
    assert not photo.with_suffix(".tto").exists()

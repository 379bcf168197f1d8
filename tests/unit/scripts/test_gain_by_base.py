"""The table of gains by base is of real files, each against the unrefined one."""

from __future__ import annotations

import csv

from tto.codec import load_codec
from tto.image import load_picture


def test_a_table_has_the_mean_and_the_worst_change_of_each_base_and_rate(script):
    rows = [
        script.Row("a", "0f", 1.0, 0.01, image, image, 256, method, bpp, 30.0, change, 1.0)
        for image, bpp, changes in (("x", 0.5, (0.0, -3.0)), ("y", 0.7, (0.0, -1.0)))
        for method, change in zip(("none", "fast"), changes, strict=True)
    ]
    assert script.markdown(rows).splitlines()[-1] == (
        "| a | 0.01 | 256 | 0.600 | 30.00 | +0.00 % (+0.00, n = 2) | -2.00 % (-1.00, n = 2) |"
    )


def test_rows_are_of_the_efforts_that_were_asked_for(script, tiny_checkpoint, photograph, tmp_path, capsys):
    for name in ("a", "b"):
        photograph(80, 60).save(tmp_path / f"{name}.png")
    out = tmp_path / "gain.csv"
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "model.safetensors").write_bytes(tiny_checkpoint.read_bytes())
    run = str(tmp_path / "run")
    for efforts in ("none", "none,fast"):  # the second goes on with the first, and has no such quality as 90
        script.main(tmp_path, [run], [2.0, 90.0], crop=48, pictures=2, efforts=efforts, out=out)
    rows = list(csv.DictReader(out.open()))
    assert [(row["base"], row["image"], row["method"]) for row in rows] == [
        (run, "a", "none"), (run, "b", "none"), (run, "a", "fast"), (run, "b", "fast"),
    ]  # fmt: skip
    assert all(float(row["change"]) == 0 for row in rows[:2]) and all(float(row["change"]) < 0 for row in rows[2:])
    assert "| λ | crop | bpp | dB | none | fast |" in capsys.readouterr().out


def test_bases_of_one_rate_have_a_line_each(script):
    rows = [
        script.Row(base, "0f", 1.0, 0.013, "x", "x", 256, "fast", 0.5, 30.0, change, 1.0)
        for base, change in (("a", -1.0), ("b", -3.0))
    ]
    assert [line.split("|")[-2].strip() for line in script.markdown(rows).splitlines()[2:]] == [
        "-1.00 % (-1.00, n = 1)", "-3.00 % (-3.00, n = 1)",
    ]  # fmt: skip


def test_pictures_are_told_apart_by_their_pixels_and_crops_by_lines(script):
    rows = [
        script.Row("a", "0f", 1.0, 0.01, "1", content, crop, "fast", bpp, 30.0, change, 1.0)
        for content, crop, bpp, change in (("x", 256, 0.5, -1.0), ("y", 256, 0.7, -3.0), ("z", 128, 0.9, -5.0))
    ]
    assert script.markdown(rows).splitlines()[2:] == [
        "| a | 0.01 | 256 | 0.600 | 30.00 | -2.00 % (-1.00, n = 2) |",
        "| a | 0.01 | 128 | 0.900 | 30.00 | -5.00 % (-5.00, n = 1) |",
    ]


def test_another_picture_of_the_same_name_is_measured(script, tiny_checkpoint, photograph, tmp_path):
    for seed, name in enumerate(("a/1.png", "a/1.jpg", "b/1.png")):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        photograph(80, 60, seed).save(tmp_path / name)
    out = tmp_path / "gain.csv"
    for folder in ("a", "b", "a"):
        script.main(tmp_path / folder, [str(tiny_checkpoint)], [2.0], crop=48, efforts="none", out=out)
    rows = list(csv.DictReader(out.open()))
    assert [row["image"] for row in rows] == ["1"] * 3 and len({row["content"] for row in rows}) == 3


def test_networks_for_ms_ssim_are_compared_by_squared_error_like_the_others(
    script, tiny_checkpoint, photograph, monkeypatch
):
    codec, results = load_codec(str(tiny_checkpoint), "cpu"), []
    compress = codec.compress
    monkeypatch.setattr(codec.model, "metric", "ms-ssim")
    monkeypatch.setattr(codec, "compress", lambda *a, **b: results.append(compress(*a, **b)) or results[-1])
    cell = script.Cell("m", "0f", "1", "x", 0, 3.0, "none", script.MOST_STEPS)
    script.row_of(codec, cell, load_picture(photograph(161, 161)))
    assert [result.metric for result in results] == ["mse"]

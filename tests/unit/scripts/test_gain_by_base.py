"""The table of gains by base is of real files, each against the unrefined one."""

from __future__ import annotations

import csv


def test_a_table_has_the_mean_and_the_worst_change_of_each_base_and_rate(script):
    rows = [
        script.Row("a", "0f", 1.0, 0.01, image, 256, method, bpp, 30.0, change, 1.0)
        for image, bpp, changes in (("x", 0.5, (0.0, -3.0)), ("y", 0.7, (0.0, -1.0)))
        for method, change in zip(("none", "fast"), changes, strict=True)
    ]
    assert script.markdown(rows).splitlines()[-1] == (
        "| a | 0.01 | 0.600 | 30.00 | +0.00 % (+0.00, n = 2) | -2.00 % (-1.00, n = 2) |"
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
    assert "| λ | bpp | dB | none | fast |" in capsys.readouterr().out


def test_bases_of_one_rate_have_a_line_each(script):
    rows = [
        script.Row(base, "0f", 1.0, 0.013, "x", 256, "fast", 0.5, 30.0, change, 1.0)
        for base, change in (("a", -1.0), ("b", -3.0))
    ]
    assert [line.split("|")[-2].strip() for line in script.markdown(rows).splitlines()[2:]] == [
        "-1.00 % (-1.00, n = 1)", "-3.00 % (-3.00, n = 1)",
    ]  # fmt: skip

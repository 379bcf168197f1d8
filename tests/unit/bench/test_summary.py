from __future__ import annotations

import math
from dataclasses import replace

import pytest

from tto.bench.curves import compare, mean_curves
from tto.bench.measure import Failure
from tto.bench.published import published_curves
from tto.bench.summary import summarize
from tto.bench.tables import (
    bd_rate_cells,
    columns_that_fit,
    comparison_cells,
    failure_lines,
    latex,
    markdown,
    point_cells,
    summary_cells,
)
from tto.errors import BadArgument


@pytest.fixture
def rows(make_rows):
    return make_rows("jpeg", 0.3) + make_rows("tto", 0.1, "none") + make_rows("tto", 0.09, "fast")


@pytest.fixture
def curves(rows):
    return mean_curves(rows)


def test_a_point_is_the_mean_of_the_images_figures(curves):
    first = curves[0].points[0]
    assert (curves[0].label, curves[1].label) == ("jpeg", "tto (none)")
    assert first.bpp == pytest.approx(0.3 * (1 + 1.1 + 1.2) / 3)
    assert first.scores["psnr"] == pytest.approx(31)  # mean of 30, 31 and 32 dB
    assert first.on_axis("ms_ssim") == pytest.approx(10)
    assert first.peak_memory_mb == 102  # the largest


def test_a_quality_that_some_image_lacks_is_no_point(make_rows):
    (curve,) = mean_curves(make_rows("jpeg", 0.3)[:-1])
    assert curve.values("quality") == [1, 2]


def test_a_codec_that_failed_on_an_image_is_not_compared_on_the_easier_rest(make_rows):
    jpeg, tto = mean_curves(make_rows("jpeg", 0.3) + make_rows("tto", 0.1, "none", images="ab"))
    assert len(jpeg.points) == 3 and tto.points == ()
    header, cells = summary_cells(summarize([jpeg, tto]))
    assert cells[1][:3] == ["tto (none)", "–", "–"] and "compared dB" not in header


def test_one_image_without_ms_ssim_leaves_the_mean_without(make_rows):
    rows = make_rows("jpeg", 0.3)
    (curve,) = mean_curves([replace(rows[0], scores={**rows[0].scores, "ms_ssim": math.nan}), *rows[1:]])
    assert math.isnan(curve.points[0].on_axis("ms_ssim"))
    assert curve.points[1].on_axis("ms_ssim") > 0
    assert compare(curve, curve, "ms_ssim").percent == pytest.approx(0)


def test_a_distance_is_compared_on_a_scale_that_rises_with_quality(make_rows):
    def with_lpips(rows):
        return [replace(row, scores={**row.scores, "lpips": 0.4 / row.quality}) for row in rows]

    half, whole = mean_curves(with_lpips(make_rows("a", 0.1)) + with_lpips(make_rows("b", 0.2)))
    assert half.on_axis("lpips") == pytest.approx([10 * math.log10(quality / 0.4) for quality in (1, 2, 3)])
    assert compare(whole, half, "lpips").percent == pytest.approx(-50)


def test_a_summary_line_compares_with_anchors_and_with_no_effort(curves):
    jpeg, none, fast = summarize(curves).lines
    assert none.bd_rate["psnr"]["jpeg"].percent == pytest.approx(100 * (1 / 3 - 1))
    assert "jpeg" not in jpeg.bd_rate["psnr"]
    assert fast.against_none.percent == pytest.approx(-10)
    assert fast.J_gain == pytest.approx(10)
    assert math.isnan(none.against_none.percent) and math.isnan(jpeg.J_gain)
    assert none.encode_seconds == pytest.approx(2)


def test_published_vtm_and_bpg_become_anchors(curves):
    lines = summarize([*curves, *published_curves("kodak")]).lines
    assert list(lines[1].bd_rate["psnr"]) == ["jpeg", "vtm-9.1, published", "bpg-444, published"]
    dcae = next(line for line in lines if line.curve.codec == "dcae")
    assert dcae.bd_rate["psnr"]["vtm-9.1, published"].percent == pytest.approx(-16.98, abs=0.005)


def test_the_interval_is_of_the_choice_of_images(make_rows):
    agreeing = make_rows("jpeg", 0.3) + make_rows("tto", 0.1, "none")
    sure = summarize(mean_curves(agreeing), agreeing).lines[1]
    assert sure.interval == (pytest.approx(-66.67, abs=0.01), pytest.approx(-66.67, abs=0.01))
    unlike = [replace(row, bpp=row.bpp * (2 if row.image == "a.png" else 1)) for row in agreeing[9:]]
    unsure = summarize(mean_curves([*agreeing[:9], *unlike]), [*agreeing[:9], *unlike]).lines[1]
    assert unsure.interval[0] < unsure.bd_rate["psnr"]["jpeg"].percent < unsure.interval[1]
    assert all(math.isnan(end) for end in summarize(mean_curves(agreeing), agreeing).lines[0].interval)


def test_the_table_compares_with_the_curve_that_was_chosen(curves, rows):
    header, cells = summary_cells(summarize(curves, rows, "tto (none)"))
    assert header[2] == "BD-rate % vs tto (none)"
    assert [row[2] for row in cells] == ["+200.00", "0", "-10.00"]
    published = [*curves, *published_curves("kodak")]
    assert summarize(published, rows, "vtm-9.1").anchor == "vtm-9.1, published"
    with pytest.raises(BadArgument, match="no curve 'vvc'"):
        summarize(curves, rows, "vvc")


def test_the_summary_as_markdown(curves, rows):
    text = markdown(*summary_cells(summarize(curves, rows)))
    lines = text.splitlines()
    assert lines[0].startswith(
        "| codec      | chroma | BD-rate % vs jpeg | compared dB |   95 % interval | BD-rate % vs none | J gain % |"
    )
    assert lines[1].startswith("| ---------- | -----: | ----------------: |")
    assert (
        "| tto (fast) |      – |            -70.00 |   31.0–37.0 | -70.00 … -70.00 |            -10.00 |    10.00 |"
        in text
    )
    assert lines[4].endswith("|       102 |          5.3 | 0.10–0.40 | 31.0–37.0 |")
    assert "failed" not in text
    assert len({len(line) for line in lines}) == 1


def test_a_terminal_gets_the_columns_that_fit_and_hears_of_the_others(curves, rows):
    header, cells = summary_cells(summarize(curves, rows))
    whole = columns_that_fit(header, cells, 200).splitlines()
    assert whole[0].split() == ["BD-rate", "BD-rate", "J"] and whole[2].split()[:2] == ["codec", "chroma"]
    assert whole[-1].split() == " ".join(cells[-1]).split()
    assert len({len(line) for line in whole[3:]}) == 1
    wide = len(whole[-1])
    assert columns_that_fit(header, cells, wide).splitlines() == whole
    narrow = columns_that_fit(header, cells, wide - 1).splitlines()
    assert narrow[-1] == "Not shown here for want of room: PSNR dB."
    assert all(len(line) < wide for line in narrow[:-1]) and narrow[-2].endswith(cells[-1][-2])


def test_chroma_stands_beside_the_figures_of_anchors(make_rows):
    rows = make_rows("vvc", 0.1) + make_rows("avif-444", 0.2) + make_rows("tto", 0.1, "none")
    header, cells = summary_cells(summarize(mean_curves(rows)))
    assert header[1] == "chroma" and [row[1] for row in cells] == ["4:2:0", "4:4:4", "–"]


def test_tables_say_how_much_of_the_curves_was_compared(make_rows):
    rows = make_rows("jpeg", 0.3) + make_rows("tto", 0.1, "none")
    rows += [replace(row, codec="far", scores={"psnr": row.scores["psnr"] + 9}) for row in rows[9:]]
    better = [replace(row, scores={"psnr": row.scores["psnr"] + 3}) for row in rows[9:18]]
    summary = summarize(mean_curves([*rows[:9], *better, *rows[18:]]))
    header, cells = summary_cells(summary)
    assert header[3] == "compared dB" and [row[3] for row in cells] == ["–", "34.0–37.0", "–"]
    header, cells = bd_rate_cells(summary, "psnr")
    assert [row[2] for row in cells] == ["–", "50", "0"]


def test_what_failed_is_counted_and_told(curves, rows):
    failures = [Failure("tto (none)", 8.0, name, "out of memory") for name in ("a.png", "b.png")]
    header, cells = summary_cells(summarize(curves, rows), failures)
    assert header[-1] == "failed"
    assert [row[-1] for row in cells] == ["–", "2", "–"]
    again = Failure("tto (none)", 2.5, "a.png", "out of memory")
    assert failure_lines([*failures, again]) == [
        "failed: tto (none), quality 8, 2.5, a.png: out of memory",
        "failed: tto (none), quality 8, b.png: out of memory",
    ]


def test_every_metric_has_its_own_bd_rates_where_it_was_measured(curves, make_rows):
    summary = summarize([*curves, *published_curves("kodak")])
    header, cells = bd_rate_cells(summary, "ms_ssim")
    assert header == ["MS-SSIM (dB): BD-rate %", "vs jpeg", "overlap %"]
    assert cells == [["jpeg", "0", "–"], ["tto (none)", "-66.67", "100"], ["tto (fast)", "-70.00", "100"]]
    assert bd_rate_cells(summary, "psnr")[0][1::2] == [
        f"vs {name}" for name in ("jpeg", "vtm-9.1, published", "bpg-444, published")
    ]


def test_columns_that_would_hold_nothing_are_left_out(make_rows):
    header, cells = summary_cells(summarize(mean_curves(make_rows("jpeg", 0.3))))
    assert "J gain %" not in header and "parameters M" not in header
    assert all(len(row) == len(header) for row in cells)


def test_a_name_with_a_bar_stays_in_its_cell():
    assert markdown(["codec", "x"], [["a|b", "1"]]).splitlines()[2] == "| a\\|b  |   1 |"


def test_latex_has_minus_signs_and_no_bare_specials():
    text = latex(["codec", "BD-rate %"], [["a_b & c", "-3.10"], ["d", "–"]])
    assert r"a\_b \& c & $-3.10$ \\" in text
    assert r"BD-rate \%" in text
    text = latex(["a\\b$", "interval"], [["x", "+9.33 … +13.12"], ["y", "0.13–1.30"]])
    assert r"a\textbackslash{}b\$" in text and r"$+9.33$ \dots{} $+13.12$" in text and "0.13--1.30" in text
    assert text.startswith("\\begin{tabular}{lr}\n\\toprule")


def test_the_table_of_points_holds_what_was_measured_here(curves):
    header, cells = point_cells([*curves, *published_curves("kodak")])
    assert len(cells) == 9
    assert cells[3][:4] == ["tto (none)", "1", "0.1100", "31.00"]
    assert header[2:6] == ["bpp", "PSNR dB", "MS-SSIM", "J"] and header[-1] == "decode s"


def test_the_table_of_a_comparison_states_interval_and_overlap(make_rows):
    from tto.bench.compare import compare_runs

    (comparison,) = compare_runs(make_rows("tto", 0.1, "none"), make_rows("tto", 0.09, "none"))
    _, cells = comparison_cells(comparison)
    assert cells[0] == ["mean curve", "-10.00", "-10.00 … -10.00", "31.0–37.0", "100"]
    assert [row[0] for row in cells[1:]] == ["a.png", "b.png", "c.png"]

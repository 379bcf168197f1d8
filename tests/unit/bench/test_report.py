from __future__ import annotations

import csv
import hashlib
import io
import json
import math
import re
from base64 import b64decode, b64encode
from dataclasses import replace
from html import escape

import numpy as np
import pytest
from PIL import Image

from tto.bench.coders import anchor_series, model_series
from tto.bench.curves import mean_curves
from tto.bench.datasets import open_dataset
from tto.bench.measure import Machine, Measured, measure, plan, sources
from tto.bench.report.examples import bit_overlay, make_examples
from tto.bench.report.html import PALEST, About, _curves, build_page
from tto.bench.report.write import Options, write_report
from tto.bench.summary import summarize


@pytest.fixture(scope="module")
def run(shared_pictures, tmp_path_factory, lasting_fake_codec):
    """What two efforts of a model and two anchors gave on three pictures, and the machine."""
    series = anchor_series(["jpeg", "webp"])
    series += model_series(["dcae-small"], ["none", "best"], [2, 4, 8], "cpu")
    machine = Machine(tmp_path_factory.mktemp("report"))
    tasks = plan(sources(open_dataset(str(shared_pictures))), series, machine)
    return measure(tasks, machine, ("psnr", "ms_ssim", "ssimulacra2")), machine


@pytest.fixture(scope="module")
def report(run):
    """The folder of a report, with Kodak's published curves beside it to have some."""
    write_report(*run, Options("<Title> & more", "kodak", 1, "tto bench pictures </script>"))
    return run[1].folder


def page_data(folder) -> dict:
    page = (folder / "report.html").read_text()
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.S)[1])


def test_everything_is_there(report):
    names = {path.name for path in report.iterdir()}
    assert names == {
        "files", "rows.jsonl", "results.csv", "results.json", "summary.md", "summary.tex", "rd.png", "rd.svg",
        "report.html",
    }  # fmt: skip
    assert Image.open(report / "rd.png").size[0] > 1000
    assert "<svg" in (report / "rd.svg").read_text()


def test_nothing_is_replaced_while_the_page_is_not_made(run, tmp_path, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("tto.bench.report.write.make_examples", interrupted)
    measured, machine = run
    with pytest.raises(KeyboardInterrupt):
        write_report(measured, replace(machine, folder=tmp_path), Options("Pictures", "", 1, "tto bench"))
    assert list(tmp_path.iterdir()) == []


def test_the_report_says_what_its_seconds_are_of(run, tmp_path):
    measured, machine = run
    rows = [replace(row, processor="abacus" if row.effort else "") for row in measured.rows]
    write_report(measured._replace(rows=rows), replace(machine, folder=tmp_path), Options("", "", 0, ""))
    of_model = sum(row.processor == "abacus" for row in rows)
    seconds = json.loads((tmp_path / "results.json").read_text())["about"]["seconds"]
    assert f"{of_model} files on abacus" in seconds.split("; ")
    assert f"{len(rows) - of_model} files on what an earlier version did not note" in seconds.split("; ")


def test_an_image_that_some_codec_gives_back_exactly_is_told_and_left_out_of_the_means(tmp_path, make_rows, caplog):
    """Means of PSNR would be infinite at some points, and BD-rates speak of the others alone."""
    rows = make_rows("jpeg", 0.3) + make_rows("tto", 0.1, "none")
    exact = [
        replace(row, image="white.png", content="white", scores={"psnr": math.inf, "ms_ssim": 1.0}) for row in rows
    ]
    for name in "ab":
        (tmp_path / name).mkdir()
    alone = write_report(Measured([], rows, []), Machine(tmp_path / "a"), Options("a", "", 0, ""))
    both = write_report(Measured([], [*rows, *exact], []), Machine(tmp_path / "b"), Options("b", "", 0, ""))
    assert repr(both.lines) == repr(alone.lines)  # which has nan
    assert f"white.png is left out of all means and BD-rates: {rows[0].label} gives it back exactly" in caplog.text
    assert "gives it back exactly" in json.loads((tmp_path / "b" / "results.json").read_text())["about"]["white.png"]
    assert "white.png" in (tmp_path / "b" / "results.csv").read_text()


def test_a_title_with_dollars_is_no_mathematics(tmp_path, make_rows):
    write_report(Measured([], make_rows("jpeg", 0.3), []), Machine(tmp_path), Options("cost_$5_to_$9", "", 0, ""))
    assert (tmp_path / "report.html").is_file()


def test_published_curves_of_the_same_name_do_not_pale_a_models_efforts(run):
    rows = run[0].rows
    published = replace(mean_curves(rows)[0], codec="dcae-small", effort="", label="published", source="a paper")
    described = _curves([*mean_curves(rows), published], rows)
    strengths = {one["label"]: one["strength"] for one in described if one["kind"] == "model"}
    assert strengths == {"dcae-small (none)": PALEST, "dcae-small (best)": 100}


def test_json_and_csv_hold_every_row(report, run):
    record = json.loads((report / "results.json").read_text())
    rows = list(csv.DictReader((report / "results.csv").open()))
    assert len(record["rows"]) == len(rows) == len(run[0].rows)
    assert float(rows[0]["psnr"]) == run[0].rows[0].scores["psnr"]
    assert record["about"]["command"] == "tto bench pictures </script>"
    labels = [line["curve"]["label"] for line in record["curves"]]
    assert labels[:4] == ["jpeg", "webp", "dcae-small (none)", "dcae-small (best)"]
    assert record["curves"][3]["bd_rate"]["psnr"]["jpeg"]["percent"] < 0
    assert record["anchor"] == "jpeg" and record["failures"] == []


def test_the_page_escapes_what_it_is_given_and_links_nowhere(report):
    page = (report / "report.html").read_text()
    assert "<h1>&lt;Title&gt; &amp; more: 3 images</h1>" in page
    assert "tto bench pictures &lt;/script&gt;" in page
    assert not re.search(r"""(src|href)=["']?(https?:)?//""", page)
    assert not re.search(r"@[A-Z_]+@", page)
    assert page.count("</script>") == 2


HOSTILE = ("@DATA@", "<img src=x onerror=alert(1)>.png", "<!--<script>.png", "</script><b>.png", "@STYLE@@TITLE@.png")


@pytest.mark.parametrize("name", HOSTILE)
def test_no_name_of_a_file_is_more_than_text(name, run):
    """Neither a name of the template nor markup nor the beginning of a comment (which would swallow the program)."""
    measured, _ = run
    rows = [replace(row, image=name, dataset=name) for row in measured.rows]
    summary = summarize(mean_curves(rows), rows)
    page = build_page(About(name, name, {"images": name}), rows, summary, [], [], "jpeg")
    data = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.S)[1]
    assert "<" not in data
    assert json.loads(data)["rows"][0][0] == name
    assert page.count("<script") == page.count("</script>") == 2
    assert f"<h1>{escape(name)}</h1>" in page and "<img src" not in page and "<!--" not in page
    assert page.count('id="data"') == 1 and page.count("<style>") == 1


def test_the_page_may_run_its_own_program_and_nothing_else(report):
    page = (report / "report.html").read_text()
    policy = re.search(r'<meta http-equiv="Content-Security-Policy"\s+content="([^"]*)"', page)[1]
    assert policy.startswith("default-src 'none'; img-src data:; ")
    for tag in ("style", "script"):
        content = re.search(f"<{tag}>(.*?)</{tag}>", page, re.S)[1]
        digest = b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy


def test_the_page_carries_curves_rows_and_effort(report, run):
    data = page_data(report)
    kinds = {curve["label"]: curve["kind"] for curve in data["curves"]}
    assert kinds["jpeg"] == "anchor" and kinds["vtm-9.1, published"] == "published"
    assert kinds["dcae-small (best)"] == "model"
    assert len(data["rows"]) == len(run[0].rows)
    assert [metric["title"] for metric in data["metrics"]] == ["PSNR (dB)", "MS-SSIM (dB)", "SSIMULACRA2"]
    assert all(len(row) == len(data["columns"]) for row in data["rows"])
    (effort,) = data["effort"]
    assert sorted(point["effort"] for point in effort["points"]) == ["best", "none"]
    assert data["mainCurve"] == data["rightView"] == "dcae-small (best)"
    assert data["leftView"] == "jpeg"
    assert [column["title"] for column in data["columns"]][:4] == ["image", "codec", "quality", "bytes"]
    assert "LPIPS" not in [column["title"] for column in data["columns"]]


def test_views_are_the_decoders_pixels(run):
    (tasks, rows, _), machine = run
    (example,) = make_examples(tasks, rows, "dcae-small (best)", machine, 1)
    assert example.image == "b.png"
    labels = ["original", "jpeg", "webp", "dcae-small (none)", "dcae-small (best)"]
    assert len(example.rates) == 3
    for rate, quality in zip(example.rates, (2, 4, 8), strict=True):
        views = [example.views[index] for index in rate.views]
        assert [view.label for view in views] == labels
        best = next(r for r in rows if (r.image, r.label, r.quality) == ("b.png", "dcae-small (best)", quality))
        assert rate.name == f"{best.bpp:.2f} bpp"
        assert np.array_equal(shown(views[4]), np.asarray(Image.open(machine.folder / best.file).convert("RGB")))
        assert views[4].note.startswith(f"quality {quality}, {best.bytes} bytes")
        # A map of the bits of each of the model's files, refined or not.
        assert all(view.bits.startswith("data:image/webp") for view in views[3:])
        assert not any(view.bits for view in views[:3])
    pixels = next(task for task in tasks if task.source.path.name == "b.png").source.pixels()
    assert np.array_equal(shown(example.views[0]), pixels)


def shown(view) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(b64decode(view.source.partition(",")[2]))))


def test_other_codecs_are_shown_at_the_nearest_rate(run):
    (tasks, rows, _), machine = run
    (example,) = make_examples(tasks, rows, "dcae-small (best)", machine, 1)
    middle = [example.views[index] for index in example.rates[1].views[1:]]
    rates = [float(re.search(r"([\d.]+) bpp", view.note)[1]) for view in middle]
    assert max(rates) < 1.5 * min(rates)


def test_the_overlay_is_opaque_where_bits_go_and_fits_odd_sizes():
    overlay = bit_overlay(np.array([[0.0, 4.0], [2.0, 0.0]]), (20, 30), 16)
    assert overlay.shape == (20, 30, 4)
    assert overlay[0, 0, 3] == 0 and overlay[15, 29, 3] == 220 and overlay[19, 0, 3] == 110


def test_anchors_alone_make_a_report_too(shared_pictures, tmp_path):
    machine = Machine(tmp_path / "out")
    tasks = plan(sources(open_dataset(str(shared_pictures))), anchor_series(["jpeg"]), machine)
    write_report(measure(tasks, machine), machine, Options("Pictures", "", 0, "tto bench"))
    data = page_data(tmp_path / "out")
    assert data["effort"] == [] and data["examples"] == []
    assert data["mainCurve"] == "jpeg"
    assert (data["leftView"], data["rightView"]) == ("original", "jpeg")
    assert "1 codec or effort, " in (tmp_path / "out" / "report.html").read_text()

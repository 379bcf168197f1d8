from __future__ import annotations

import csv
import io
import json
import re
from base64 import b64decode

import numpy as np
import pytest
from PIL import Image

from tto.bench.coders import anchor_series, model_series
from tto.bench.datasets import open_dataset
from tto.bench.measure import Machine, measure, plan
from tto.bench.report.examples import bit_overlay, make_examples
from tto.bench.report.write import Options, write_report


@pytest.fixture(scope="module")
def run(shared_pictures, tmp_path_factory, lasting_fake_codec):
    """Tasks and rows of two efforts of a model and two anchors on three pictures."""
    series = anchor_series(["jpeg", "webp"])
    series += model_series(["dcae-small"], ["none", "best"], [2, 4, 8], "cpu")
    tasks = plan(open_dataset(str(shared_pictures)).sources(), series, with_lpips=False)
    machine = Machine(tmp_path_factory.mktemp("report"))
    return tasks, measure(tasks, machine), machine


@pytest.fixture(scope="module")
def report(run):
    """The folder of a report, with Kodak's published curves beside it to have some."""
    write_report(*run, Options("<Title> & more", "kodak", 1, "tto bench pictures </script>"))
    return run[2].folder


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


def test_json_and_csv_hold_every_row(report, run):
    record = json.loads((report / "results.json").read_text())
    rows = list(csv.DictReader((report / "results.csv").open()))
    assert len(record["rows"]) == len(rows) == len(run[1])
    assert float(rows[0]["psnr"]) == run[1][0].psnr
    assert record["about"]["command"] == "tto bench pictures </script>"
    labels = [line["curve"]["label"] for line in record["curves"]]
    assert labels[:4] == ["jpeg", "webp", "dcae-small (none)", "dcae-small (best)"]
    assert record["curves"][3]["bd_rate"]["jpeg"]["percent"] < 0


def test_the_page_escapes_what_it_is_given_and_links_nowhere(report):
    page = (report / "report.html").read_text()
    assert "<h1>&lt;Title&gt; &amp; more: 3 images</h1>" in page
    assert "tto bench pictures &lt;/script&gt;" in page
    assert not re.search(r"""(src|href)=["']?(https?:)?//""", page)
    assert not re.search(r"@[A-Z_]+@", page)
    assert page.count("</script>") == 2


def test_the_page_carries_curves_rows_and_effort(report, run):
    data = page_data(report)
    kinds = {curve["label"]: curve["kind"] for curve in data["curves"]}
    assert kinds["jpeg"] == "anchor" and kinds["vtm-9.1, published"] == "published"
    assert kinds["dcae-small (best)"] == "model"
    assert len(data["rows"]) == len(run[1])
    (effort,) = data["effort"]
    assert sorted(point["effort"] for point in effort["points"]) == ["best", "none"]
    assert data["mainCurve"] == data["rightView"] == "dcae-small (best)"
    assert data["leftView"] == "jpeg"
    assert [column["title"] for column in data["columns"]][:4] == ["image", "codec", "quality", "bytes"]
    assert "LPIPS" not in [column["title"] for column in data["columns"]]


def test_views_are_the_decoders_pixels(run):
    (example,) = make_examples(*run[:2], "dcae-small (best)", run[2], 1)
    tasks, rows, machine = run
    assert example.image == "b.png"
    assert [view.label for view in example.views] == [
        "original", "jpeg", "webp", "dcae-small (none)", "dcae-small (best)",
    ]  # fmt: skip
    shown = np.asarray(Image.open(io.BytesIO(b64decode(example.views[0].source.partition(",")[2]))))
    assert np.array_equal(shown, next(task for task in tasks if task.source.path.name == "b.png").source.pixels())
    best = next(r for r in rows if (r.image, r.label, r.quality) == ("b.png", "dcae-small (best)", 4))
    shown = np.asarray(Image.open(io.BytesIO(b64decode(example.views[4].source.partition(",")[2]))))
    assert np.array_equal(shown, np.asarray(Image.open(machine.folder / best.file).convert("RGB")))
    assert example.views[4].note.startswith(f"quality 4, {best.bytes} bytes")
    assert example.views[3].bits.startswith("data:image/webp") and not example.views[4].bits


def test_other_codecs_are_shown_at_the_nearest_rate(run):
    (example,) = make_examples(*run[:2], "dcae-small (best)", run[2], 1)
    rates = [float(re.search(r"([\d.]+) bpp", view.note)[1]) for view in example.views[1:]]
    assert max(rates) < 1.5 * min(rates)


def test_the_overlay_is_opaque_where_bits_go_and_fits_odd_sizes():
    overlay = bit_overlay(np.array([[0.0, 4.0], [2.0, 0.0]]), (20, 30), 16)
    assert overlay.shape == (20, 30, 4)
    assert overlay[0, 0, 3] == 0 and overlay[15, 29, 3] == 220 and overlay[19, 0, 3] == 110


def test_anchors_alone_make_a_report_too(shared_pictures, tmp_path):
    tasks = plan(open_dataset(str(shared_pictures)).sources(), anchor_series(["jpeg"]), with_lpips=False)
    machine = Machine(tmp_path / "out")
    write_report(tasks, measure(tasks, machine), machine, Options("Pictures", "", 0, "tto bench"))
    data = page_data(tmp_path / "out")
    assert data["effort"] == [] and data["examples"] == []
    assert data["mainCurve"] == "jpeg"

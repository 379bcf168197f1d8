"""The demo's comparison is fair, its files are all there, and it says something at once."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from tto.bench.anchors import ANCHORS
from tto.bench.anchors.anchor import at_least
from tto.cli import demo
from tto.cli.demo import GAP, LABEL_HEIGHT, RIVALS, Shown, side_by_side
from tto.image import Picture, load_picture

ROWS, COLUMNS = np.mgrid[0:48, 0:64].astype(np.uint8)
RGB = np.stack([5 * ROWS, 3 * COLUMNS, ROWS ^ COLUMNS], axis=2)


@pytest.mark.parametrize("name", RIVALS)
def test_every_rival_has_the_smallest_file_that_is_no_smaller(name):
    anchor, image = ANCHORS[name], Picture(RGB).to_pil()
    qualities = range(int(anchor.ladder[0]), int(anchor.ladder[-1]) + 1)
    sizes = [len(anchor.encode(image, quality).data) for quality in qualities]
    limit = sorted(sizes)[len(sizes) // 2]
    found = sizes.index(len(at_least(anchor, image, limit)))
    assert sizes[found - 1] < limit <= sizes[found]
    assert len(at_least(anchor, image, 10)) == sizes[0]
    assert len(at_least(anchor, image, 100_000)) == sizes[-1]


def test_pictures_stand_in_rows_with_a_gap_and_a_label():
    shown = [Shown(color, Image.new("RGB", (60, 30), color)) for color in ("red", "blue", "lime")]
    image = side_by_side(shown, columns=2)
    assert image.size == (2 * 60 + GAP, 2 * (30 + LABEL_HEIGHT) + GAP)
    first, second = LABEL_HEIGHT, 2 * LABEL_HEIGHT + 30 + GAP
    places = [(0, first), (60 + GAP // 2, first + 1), (60 + GAP, first), (0, second)]
    assert [image.getpixel(place) for place in places] == [(255, 0, 0), (255,) * 3, (0, 0, 255), (0, 255, 0)]
    labels = np.asarray(image)[:LABEL_HEIGHT]
    assert (labels < 128).any()


def test_labels_tell_bytes_and_quality():
    assert Shown("AVIF", None, bytes(1234), 31.416).label == "AVIF: 1234 bytes, 31.42 dB"
    assert Shown("original", None).label == "original"


def test_demo_writes_files_and_a_row_for_each_quality(tmp_path, tiny_checkpoint, monkeypatch, capsys):
    photograph = tmp_path / "demo.png"
    Picture(RGB).to_pil().save(photograph)
    monkeypatch.setattr(demo, "bundled_photograph", lambda: photograph)
    printed_before_loading = []
    load = demo.open_codec
    monkeypatch.setattr(
        demo, "open_codec", lambda *args: printed_before_loading.append(capsys.readouterr().out) or load(*args)
    )
    demo.demo(tmp_path / "out", str(tiny_checkpoint), demo.Effort.none, "cpu")
    assert "demo.png" in printed_before_loading[0]
    names = {path.name for path in (tmp_path / "out").iterdir()}
    kinds = ("{}.tto", "{}.png", "{}.jpeg", "{}.webp", "{}.avif", "{}-compared.png", "{}-detail.png")
    assert names == {"original.png"} | {kind.format(f"quality-{q}") for kind in kinds for q in (2, 4, 6)}
    compared = load_picture(tmp_path / "out" / "quality-2-compared.png")
    assert compared.rgb.shape == (2 * (48 + LABEL_HEIGHT) + GAP, 3 * 64 + 2 * GAP, 3)
    lines = capsys.readouterr().out.splitlines()
    for quality, line in zip((2, 4, 6), lines[2:], strict=False):
        sizes = [(tmp_path / "out" / f"quality-{quality}.{kind}").stat().st_size for kind in ("tto", "jpeg", "avif")]
        assert line.split()[0] == str(quality)
        assert all(str(size) in line for size in sizes)


def test_a_format_that_this_pillow_lacks_is_left_out(monkeypatch):
    lacking = type("Lacking", (), {"missing": lambda self: "built without avif"})()
    monkeypatch.setitem(ANCHORS, "avif", lacking)
    assert demo.rivals_here() == ["jpeg", "webp"]
    assert "AVIF" not in demo.heading(demo.Effort.fast, demo.rivals_here())[0]


def test_missing_photograph_is_said(monkeypatch, tmp_path):
    from tto.errors import FileError

    monkeypatch.setattr(demo.resources, "files", lambda name: tmp_path)
    with pytest.raises(FileError, match="photograph is missing"):
        demo.bundled_photograph()

"""The demo's comparison with JPEG is fair, and its files are all there."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from tto.cli import demo
from tto.cli.demo import jpeg_of_size, side_by_side
from tto.image import Picture, load_picture

ROWS, COLUMNS = np.mgrid[0:48, 0:64].astype(np.uint8)
RGB = np.stack([5 * ROWS, 3 * COLUMNS, ROWS ^ COLUMNS], axis=2)


def test_jpeg_is_the_best_that_is_not_larger():
    image = Picture(np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)).to_pil()
    for limit in (1000, 2000, 3000):
        assert 0.9 * limit < len(jpeg_of_size(image, limit).data) <= limit


def test_smallest_jpeg_stands_in_where_none_is_small_enough():
    smallest = jpeg_of_size(Picture(RGB).to_pil(), 10)
    assert len(smallest.data) > 10
    assert smallest.image.size == (64, 48)


def test_pictures_stand_in_a_row_with_a_gap():
    row = side_by_side([Image.new("RGB", (4, 3), color) for color in ("red", "blue")])
    assert row.size == (16, 3)
    assert [row.getpixel((x, 1)) for x in (3, 5, 12)] == [(255, 0, 0), (255, 255, 255), (0, 0, 255)]


def test_demo_writes_files_and_a_row_for_each_quality(tmp_path, tiny_checkpoint, monkeypatch, capsys):
    photograph = tmp_path / "demo.png"
    Picture(RGB).to_pil().save(photograph)
    monkeypatch.setattr(demo, "bundled_photograph", lambda: photograph)
    demo.demo(tmp_path / "out", str(tiny_checkpoint), "cpu")
    names = {path.name for path in (tmp_path / "out").iterdir()}
    kinds = ("{}.tto", "{}.png", "{}-jpeg.jpg", "{}-original-tto-jpeg.png")
    assert names == {"original.png"} | {kind.format(f"quality-{q}") for kind in kinds for q in (2, 4, 6)}
    comparison = load_picture(tmp_path / "out" / "quality-2-original-tto-jpeg.png")
    assert comparison.rgb.shape == (48, 3 * 64 + 16, 3)
    printed = capsys.readouterr().out
    for quality in (2, 4, 6):
        assert str((tmp_path / "out" / f"quality-{quality}.tto").stat().st_size) in printed


def test_missing_photograph_is_said(monkeypatch, tmp_path):
    from tto.errors import FileError

    monkeypatch.setattr(demo.resources, "files", lambda name: tmp_path)
    with pytest.raises(FileError, match="photograph is missing"):
        demo.bundled_photograph()

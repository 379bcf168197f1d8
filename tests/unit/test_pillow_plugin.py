"""Pillow opens and saves .tto files, and fails in Pillow's own words."""

from __future__ import annotations

import io
import shutil
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image, UnidentifiedImageError

import tto
from tto.container import read, write
from tto.image import Picture

ROWS, COLUMNS = np.mgrid[0:12, 0:20].astype(np.uint8)
RGB = np.stack([20 * ROWS, 12 * COLUMNS, ROWS + COLUMNS], axis=2)


@pytest.fixture(autouse=True)
def plugin(tmp_path_factory, tiny_checkpoint, monkeypatch):
    """The plugin, with the tiny network in the place of the shipped one."""
    folder = tmp_path_factory.mktemp("weights")
    shutil.copy(tiny_checkpoint, folder / "dcae-small.safetensors")
    monkeypatch.setattr("tto.models.weights_folder", lambda: folder)
    tto.register_pillow()
    tto.register_pillow()


def saved(picture: Picture, **options) -> bytes:
    file = io.BytesIO()
    picture.to_pil().save(file, "TTO", **options)
    return file.getvalue()


def test_opening_reads_size_mode_and_metadata_without_decoding(monkeypatch):
    picture = Picture(RGB, alpha=ROWS * 20, icc=b"icc", exif=b"Exif\0\0II*\0\x08\0\0\0\0\0", xmp=b"<x/>")
    data = saved(picture)
    monkeypatch.setattr("tto.api.decompress", lambda data: pytest.fail("decoded too early"))
    image = Image.open(io.BytesIO(data))
    assert (image.format, image.size, image.mode) == ("TTO", (20, 12), "RGBA")
    assert (image.info["icc_profile"], image.info["exif"], image.info["xmp"]) == (
        picture.icc,
        picture.exif,
        picture.xmp,
    )


@pytest.mark.parametrize("grayscale", [False, True])
@pytest.mark.parametrize("has_alpha", [False, True])
def test_loading_gives_the_decoders_pixels(grayscale, has_alpha):
    rgb = RGB[..., [0, 0, 0]] if grayscale else RGB
    data = saved(Picture(rgb, grayscale, ROWS * 20 if has_alpha else None))
    image, expected = Image.open(io.BytesIO(data)), tto.decompress(data)
    assert image.mode == expected.mode == ("L" if grayscale else "RGB") + ("A" if has_alpha else "")
    assert image.tobytes() == expected.tobytes()
    assert image.resize((3, 3)).size == (3, 3)


def test_files_are_saved_and_opened_by_their_suffix(tmp_path):
    Picture(RGB).to_pil().save(tmp_path / "a.tto", quality=7.5)
    with Image.open(tmp_path / "a.tto") as image:
        assert image.convert("L").size == (20, 12)
    assert read((tmp_path / "a.tto").read_bytes()).header.quality == 7.5


def test_metadata_can_be_given_to_save():
    exif = Image.Exif()
    exif[0x0112] = 8
    image = Image.open(io.BytesIO(saved(Picture(RGB), exif=exif, icc_profile=b"icc")))
    assert image.getexif()[0x0112] == 8
    assert image.info["icc_profile"] == b"icc"


def test_options_of_compression_are_honoured(monkeypatch):
    plain, refined = saved(Picture(RGB)), saved(Picture(RGB), steps=12)
    assert refined != plain
    from tto.api import compress

    assert refined == compress(Picture(RGB).to_pil(), steps=12).data


def test_an_option_that_is_none_is_refused():
    with pytest.raises(OSError, match="optimize"):
        saved(Picture(RGB), optimize=True)


def test_damaged_file_is_not_identified():
    data = saved(Picture(RGB))
    for damaged in (data[:-1], data[:20], data[:40] + b"?" + data[41:]):
        with pytest.raises(UnidentifiedImageError):
            Image.open(io.BytesIO(damaged))


def test_other_files_are_left_to_other_plugins():
    file = io.BytesIO()
    Picture(RGB).to_pil().save(file, "PNG")
    assert Image.open(file).format == "PNG"


def test_file_of_an_unknown_model_opens_but_does_not_load():
    container = read(saved(Picture(RGB)))
    data = write(replace(container, header=replace(container.header, fingerprint=b"another!")))
    image = Image.open(io.BytesIO(data))
    for _ in range(2):
        with pytest.raises(OSError, match="another model|not here"):
            image.load()


def test_huge_claim_is_a_bomb_to_pillow():
    container = read(saved(Picture(RGB)))
    data = write(replace(container, header=replace(container.header, width=60_000, height=60_000)))
    with pytest.raises(Image.DecompressionBombError):
        Image.open(io.BytesIO(data))


def test_what_cannot_be_saved_is_an_os_error_and_leaves_no_file(tmp_path):
    with pytest.raises(OSError, match="mode CMYK"):
        Image.new("CMYK", (2, 2)).save(tmp_path / "a.tto")
    with pytest.raises(OSError, match="quality"):
        Picture(RGB).to_pil().save(tmp_path / "a.tto", quality=9)
    assert list(tmp_path.iterdir()) == []

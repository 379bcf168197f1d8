"""HEIC and JPEG XL are read where a package for them is installed, and named where it is not."""

from __future__ import annotations

import io
import sys

import numpy as np
import pytest
from PIL import Image

from tto.errors import LimitExceeded, NotInstalled
from tto.formats import jxl_size
from tto.image import load_picture

HEIC = b"\0\0\0\x18ftypheic\0\0\0\0"
JXL = b"\xff\x0a" + bytes(20)


@pytest.fixture
def pillow_without_plugins(monkeypatch):
    Image.init()  # else what it registers now would be forgotten
    for kind in ("HEIF", "JXL"):
        monkeypatch.delitem(Image.OPEN, kind, raising=False)
        monkeypatch.setattr(Image, "ID", [name for name in Image.ID if name != kind])


@pytest.mark.parametrize(("data", "package"), [(HEIC, "pillow_heif"), (JXL, "pillow_jxl")])
def test_a_missing_package_is_named(monkeypatch, pillow_without_plugins, tmp_path, data, package):
    monkeypatch.setattr("tto.packages.find_spec", lambda name: None)
    path = tmp_path / "photo"
    path.write_bytes(data)
    for source in (path, data, io.BytesIO(data)):
        with pytest.raises(NotInstalled, match=rf"{package}: pip install 'tto\[formats\]'"):
            load_picture(source)


@pytest.mark.parametrize(("package", "kind"), [("pillow_heif", "HEIF"), ("pillow_jxl", "JXL")])
def test_pictures_of_other_formats_are_read(photograph, package, kind, request, monkeypatch):
    plugin = pytest.importorskip(package)
    if kind == "HEIF":
        plugin.register_heif_opener()
    image, file = photograph(64, 48), io.BytesIO()
    image.save(file, kind, quality=95)
    request.getfixturevalue("pillow_without_plugins")
    for module in [name for name in sys.modules if name.startswith("pillow_jxl")]:  # it registers when it is imported
        monkeypatch.delitem(sys.modules, module)
    picture = load_picture(file.getvalue())
    assert kind in Image.OPEN
    assert picture.rgb.shape == (48, 64, 3)
    assert np.abs(picture.rgb.astype(int) - np.asarray(image)).mean() < 8


@pytest.mark.parametrize(
    "size", [(8, 8), (40, 48), (500, 333), (5000, 5), (300, 200), (801, 600), (1200, 1000), (64, 2000), (9000, 2)]
)
@pytest.mark.parametrize("boxed", [False, True])
def test_size_of_a_jpeg_xl_is_read_without_decoding_it(size, boxed):
    pytest.importorskip("pillow_jxl")
    file = io.BytesIO()
    extra = {"exif": b"Exif\0\0II*\0\x08\0\0\0\0\0"} if boxed else {}
    Image.new("RGB", size, (9, 9, 9)).save(file, "JXL", effort=1, **extra)
    assert file.getvalue().startswith(b"\xff\x0a") is not boxed
    assert jxl_size(file) == size


@pytest.mark.parametrize("data", [b"", b"\xff", b"\0\0\0\x0cJXL \r\n\x87\n", b"\0\0\0\x08free" * 3])
def test_what_has_no_codestream_has_no_size(data):
    assert jxl_size(io.BytesIO(data)) == (0, 0)


def test_a_jpeg_xl_beyond_the_limit_is_refused_before_it_is_decoded(monkeypatch, tmp_path):
    pytest.importorskip("pillow_jxl")
    file = io.BytesIO()
    Image.new("RGB", (300, 200)).save(file, "JXL", effort=1)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 29_999)
    monkeypatch.setattr(Image, "open", lambda *_: pytest.fail("it is opened"))
    (tmp_path / "a.jxl").write_bytes(file.getvalue())
    for source in (file, tmp_path / "a.jxl"):
        with pytest.raises(LimitExceeded, match="300x200 are more pixels"):
            load_picture(source)

"""HEIC and JPEG XL are read where a package for them is installed, and named where it is not."""

from __future__ import annotations

import io
import sys

import numpy as np
import pytest
from PIL import Image

from tto.errors import NotInstalled
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

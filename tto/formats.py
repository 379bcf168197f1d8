"""Formats of pictures: their suffixes, and those that Pillow reads with a package's help."""

from __future__ import annotations

import os
from typing import IO, TYPE_CHECKING

from tto.packages import require

if TYPE_CHECKING:
    from PIL import Image

PICTURE_SUFFIXES = (
    ".avif", ".bmp", ".gif", ".heic", ".heif", ".hif", ".jp2", ".jpeg", ".jpg", ".jxl", ".pgm", ".png", ".ppm", ".tif",
    ".tiff", ".webp",
)  # fmt: skip
HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
JXL_BEGINNINGS = (b"\xff\x0a", b"\0\0\0\x0cJXL \r\n\x87\n")
PREFIX = 16  # bytes


def open_image(source: str | os.PathLike | IO[bytes]) -> Image.Image:
    """`Image.open`, which learns HEIC and JPEG XL when the first file of that kind comes.

    Raises what that raises, or `NotInstalled`.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        return Image.open(source)
    except UnidentifiedImageError:
        if not _learn(_prefix(source)):
            raise
        return Image.open(source)


def _prefix(source: str | os.PathLike | IO[bytes]) -> bytes:
    if isinstance(source, (str, os.PathLike)):
        with open(source, "rb") as file:
            return file.read(PREFIX)
    source.seek(0)  # as Pillow does
    prefix = source.read(PREFIX)
    source.seek(0)
    return prefix


def _learn(prefix: bytes) -> bool:
    """Whether the format of a file that begins so could be added to Pillow's. Raises `NotInstalled`."""
    from PIL import Image

    if prefix[4:8] == b"ftyp" and prefix[8:12] in HEIF_BRANDS and "HEIF" not in Image.OPEN:
        require("pillow_heif", "formats")
        from pillow_heif import register_heif_opener

        register_heif_opener()
        return True
    if prefix.startswith(JXL_BEGINNINGS) and "JXL" not in Image.OPEN:
        require("pillow_jxl", "formats")
        import pillow_jxl  # noqa: F401 (importing it is all)

        return True
    return False

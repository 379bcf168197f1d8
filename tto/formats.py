"""Formats of pictures: their suffixes, and those that Pillow reads with a package's help."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import nullcontext
from typing import IO, TYPE_CHECKING

from tto.errors import LimitExceeded
from tto.packages import require

if TYPE_CHECKING:
    from PIL import Image

PICTURE_SUFFIXES = (
    ".avif", ".bmp", ".gif", ".heic", ".heif", ".hif", ".jp2", ".jpeg", ".jpg", ".jxl", ".pgm", ".png", ".ppm", ".tif",
    ".tiff", ".webp",
)  # fmt: skip
HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
JXL_CODESTREAM = b"\xff\x0a"
JXL_BEGINNINGS = (JXL_CODESTREAM, b"\0\0\0\x0cJXL \r\n\x87\n")
JXL_CODE_BOXES = {b"jxlc": 0, b"jxlp": 4}
"""Boxes of a codestream, or its first part, and bytes before it."""
JXL_RATIOS = (None, (1, 1), (12, 10), (4, 3), (3, 2), (16, 9), (5, 4), (2, 1))
PREFIX = 16  # bytes
PROGRAMS = ("EPS",)
"""Formats that Pillow gives to another program, which does what the file says."""


def open_image(source: str | os.PathLike | IO[bytes]) -> Image.Image:
    """`Image.open`, which learns HEIC and JPEG XL when the first file of that kind comes.

    Raises what that raises, also for a program that another one would have to run, `NotInstalled` or `LimitExceeded`.
    """
    from PIL import Image, UnidentifiedImageError

    _limit_jxl(source)
    try:
        image = Image.open(source)
    except UnidentifiedImageError:
        if not _learn(_prefix(source)):
            raise
        image = Image.open(source)
    if image.format in PROGRAMS:
        image.close()
        raise UnidentifiedImageError(f"{image.format} is a program that draws")
    return image


def _prefix(source: str | os.PathLike | IO[bytes]) -> bytes:
    if isinstance(source, (str, os.PathLike)):
        with open(source, "rb") as file:
            return file.read(PREFIX)
    source.seek(0)  # as Pillow does
    prefix = source.read(PREFIX)
    source.seek(0)
    return prefix


def _limit_jxl(source: str | os.PathLike | IO[bytes]) -> None:
    """Raises `LimitExceeded` for a JPEG XL beyond Pillow's limit: its package decodes before Pillow looks."""
    from PIL import Image

    most = Image.MAX_IMAGE_PIXELS
    if most is None or not _prefix(source).startswith(JXL_BEGINNINGS):
        return
    with open(source, "rb") if isinstance(source, (str, os.PathLike)) else nullcontext(source) as file:
        width, height = jxl_size(file)
        file.seek(0)
    if width * height > 2 * most:
        raise LimitExceeded(f"{width}x{height} are more pixels than Pillow's limit allows")


def jxl_size(file: IO[bytes]) -> tuple[int, int]:
    """Width and height by the first bytes of a JPEG XL's codestream (ISO/IEC 18181-1, SizeHeader), bare or in boxes.

    (0, 0) where there is none.
    """
    file.seek(0)
    start = file.read(len(JXL_CODESTREAM))
    if start != JXL_CODESTREAM:
        file.seek(0)
        while True:
            head = file.read(8)
            kind, length, begun = head[4:], int.from_bytes(head[:4], "big"), 8
            if length == 1:
                length, begun = int.from_bytes(file.read(8), "big"), 16
            if kind in JXL_CODE_BOXES:
                file.seek(JXL_CODE_BOXES[kind] + len(JXL_CODESTREAM), os.SEEK_CUR)
                break
            if len(head) < 8 or length < begun:
                return 0, 0
            file.seek(length - begun, os.SEEK_CUR)
    take = _bits(file.read(PREFIX))
    small = take(1)

    def side() -> int:
        return 8 * (1 + take(5)) if small else 1 + take((9, 13, 18, 30)[take(2)])

    height = side()
    if ratio := JXL_RATIOS[take(3)]:
        return height * ratio[0] // ratio[1], height
    return side(), height


def _bits(data: bytes) -> Callable[[int], int]:
    """Takes so many bits, the lowest ones first."""
    rest = int.from_bytes(data, "little")

    def take(count: int) -> int:
        nonlocal rest
        taken = rest & ((1 << count) - 1)
        rest >>= count
        return taken

    return take


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

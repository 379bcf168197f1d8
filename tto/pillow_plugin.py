"""Pillow reads and writes .tto files: `Image.open("x.tto")`, `image.save("x.tto", quality=4)`.

Opening verifies the file and reads size, mode and metadata; the network runs when the pixels are asked for.
"""

from __future__ import annotations

import io
from typing import IO

from PIL import Image, ImageFile

from tto.attachments import unpack_metadata
from tto.container import MAGIC, SectionType, read
from tto.errors import TTOError

FORMAT = "TTO"
METADATA = ("exif", "icc_profile", "xmp")


def register_pillow() -> None:
    """Make Pillow know .tto files. Calling it again changes nothing."""
    Image.register_open(FORMAT, TTOImageFile, _accept)
    Image.register_save(FORMAT, _save)
    Image.register_extension(FORMAT, ".tto")
    Image.register_mime(FORMAT, "image/x-tto")


def _accept(prefix: bytes) -> bool:
    return prefix.startswith(MAGIC)


class TTOImageFile(ImageFile.ImageFile):
    """A .tto file as Pillow sees it: mode L, LA, RGB or RGBA.

    As with Pillow's own formats, a damaged file raises `UnidentifiedImageError` on opening, a picture beyond
    Pillow's limit `DecompressionBombError`, and one that cannot be decoded `OSError` on loading.
    """

    format = FORMAT
    format_description = "tto compressed image"

    def _open(self) -> None:
        assert self.fp is not None
        data = self.fp.read()
        self._data: bytes | None = data
        try:
            container = read(data, max_pixels=None)  # Image.open applies Pillow's own limit
            metadata = unpack_metadata(container.sections)
        except TTOError as error:
            raise SyntaxError(str(error)) from error  # by which a plugin tells Image.open that it cannot
        header = container.header
        channels = "L" if header.grayscale else "RGB"
        self._size = (header.width, header.height)
        self._mode = channels + ("A" if SectionType.ALPHA in container.sections else "")
        names = {"icc": "icc_profile", "exif": "exif", "xmp": "xmp"}
        self.info.update({names[key]: data for key, data in metadata.items() if data})

    def load(self):
        """Decode once; Pillow then reads the decoded pixels as it would raw data."""
        if self._data is not None:
            from tto.api import decompress

            try:
                decoded = decompress(self._data, max_pixels=None)  # Image.open asked
            except TTOError as error:
                raise OSError(str(error)) from error
            if self._exclusive_fp and self.fp is not None:
                self.fp.close()
            self.fp = io.BytesIO(decoded.tobytes())
            self.tile = [ImageFile._Tile("raw", (0, 0, *self.size), 0, (self.mode,))]
            self._data = None
        return super().load()


def _save(image: Image.Image, file: IO[bytes], filename: str | bytes) -> None:
    """Options of `Image.save`: those of `tto.compress`, and `exif`, `icc_profile`, `xmp`. Another one is refused.

    Pillow opens the file before it asks, so what is refused leaves an existing file empty, as with Pillow's formats.
    """
    from tto.api import compress

    options = dict(image.encoderinfo)
    source = image.copy()
    source.info.update({key: options.pop(key) for key in METADATA if key in options})
    if isinstance(source.info.get("exif"), Image.Exif):
        source.info["exif"] = source.info["exif"].tobytes()
    try:
        result = compress(source, **options)
    except (TTOError, TypeError) as error:  # TypeError: an option that is none
        raise OSError(str(error)) from error
    file.write(result.data)

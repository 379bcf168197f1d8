"""What a file keeps without loss beside the coded picture: alpha plane, ICC profile, EXIF, XMP.

Everything is deflated. Decoding is bounded: a body that would grow past the size it must have is refused
before that memory is taken.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping

import numpy as np

from tto.container import SectionType, section_name
from tto.errors import CorruptFile, LimitExceeded, WrongLength
from tto.image import Picture

MAX_METADATA_BYTES = 1 << 24
EXIF_PREFIX = b"Exif\0\0"


def pack_attachments(picture: Picture) -> dict[SectionType, bytes]:
    """Sections for everything in `picture` but its colours; what the picture lacks has no section.

    Raises `LimitExceeded` for metadata of more than 16 MiB.
    """
    metadata = {
        SectionType.ICC: picture.icc,
        SectionType.EXIF: picture.exif.removeprefix(EXIF_PREFIX) if picture.exif else None,
        SectionType.XMP: picture.xmp,
    }
    sections = {kind: _deflate_metadata(kind, data) for kind, data in metadata.items() if data}
    if picture.alpha is not None:
        sections[SectionType.ALPHA] = pack_alpha(picture.alpha)
    return sections


def unpack_attachments(rgb: np.ndarray, grayscale: bool, sections: Mapping[SectionType, bytes]) -> Picture:
    """The picture of decoded colours `rgb` (uint8 [H, W, 3]) with what `pack_attachments` kept.

    Raises `CorruptFile` or `LimitExceeded`.
    """
    height, width = rgb.shape[:2]
    alpha = sections.get(SectionType.ALPHA)
    plane = None if alpha is None else unpack_alpha(alpha, width, height)
    return Picture(rgb, grayscale, plane, **unpack_metadata(sections))


# --- metadata --------------------------------------------------------------------------------------


def unpack_metadata(sections: Mapping[SectionType, bytes]) -> dict[str, bytes | None]:
    """The fields `icc`, `exif` and `xmp` of `Picture`. Raises `CorruptFile` or `LimitExceeded`."""
    exif = _inflate_metadata(SectionType.EXIF, sections)
    return {
        "icc": _inflate_metadata(SectionType.ICC, sections),
        "exif": None if exif is None else EXIF_PREFIX + exif,
        "xmp": _inflate_metadata(SectionType.XMP, sections),
    }


def _deflate_metadata(kind: SectionType, data: bytes) -> bytes:
    if len(data) > MAX_METADATA_BYTES:
        raise LimitExceeded(f"{kind.name} data of {len(data)} bytes; at most {MAX_METADATA_BYTES} are kept")
    return zlib.compress(data, 9)


def _inflate_metadata(kind: SectionType, sections: Mapping[SectionType, bytes]) -> bytes | None:
    return inflate(sections[kind], MAX_METADATA_BYTES, section_name(kind)) if kind in sections else None


def inflate(data: bytes, max_bytes: int, section: str) -> bytes:
    """Undo `zlib.compress`. Raises `LimitExceeded` beyond `max_bytes`, `CorruptFile` if damaged."""
    decompressor = zlib.decompressobj()
    try:
        out = decompressor.decompress(data, max_bytes + 1)  # a bound of 0 would mean none
    except zlib.error as error:
        raise CorruptFile(section, "it cannot be inflated") from error
    if len(out) > max_bytes:
        raise LimitExceeded(f"{section} grows to more than {max_bytes} bytes")
    if not decompressor.eof or decompressor.unused_data:
        raise WrongLength(section, "its deflated data ends in the wrong place")
    return out


# --- alpha -----------------------------------------------------------------------------------------
# The first byte of the section says how the plane was turned into bytes before deflate; the encoder takes
# the smallest. All are exact: differences are modulo 256.


def _raw(alpha: np.ndarray) -> np.ndarray:
    return alpha


def _left(alpha: np.ndarray) -> np.ndarray:
    return np.diff(alpha, axis=1, prepend=np.uint8(0))


def _undo_left(residual: np.ndarray) -> np.ndarray:
    return np.cumsum(residual, axis=1, dtype=np.uint8)


def _plane(alpha: np.ndarray) -> np.ndarray:
    """Residual of left + above - above-left."""
    return np.diff(_left(alpha), axis=0, prepend=np.uint8(0))


def _undo_plane(residual: np.ndarray) -> np.ndarray:
    return _undo_left(np.cumsum(residual, axis=0, dtype=np.uint8))


ALPHA_CONSTANT = 0  # one byte follows: the value of all pixels
ALPHA_BITS = 1  # only 0 and 255: one bit a pixel, rows padded to bytes, deflated
ALPHA_PREDICTORS: dict[int, tuple[Callable, Callable]] = {  # one byte a pixel, deflated
    2: (_raw, _raw),
    3: (_left, _undo_left),
    4: (_plane, _undo_plane),
}


def pack_alpha(alpha: np.ndarray) -> bytes:
    """Body of section ALPHA for a plane, uint8 [H, W]."""
    value = alpha[0, 0]
    if (alpha == value).all():
        return bytes([ALPHA_CONSTANT, value])
    if ((alpha == 0) | (alpha == 255)).all():
        return bytes([ALPHA_BITS]) + zlib.compress(np.packbits(alpha > 0, axis=1).tobytes(), 9)
    candidates = (
        bytes([method]) + zlib.compress(np.ascontiguousarray(apply(alpha)).tobytes(), 9)
        for method, (apply, _) in ALPHA_PREDICTORS.items()
    )
    return min(candidates, key=len)


def unpack_alpha(body: bytes, width: int, height: int) -> np.ndarray:
    """Inverse of `pack_alpha`: uint8 [height, width]. Raises `CorruptFile` or `LimitExceeded`."""
    name = section_name(SectionType.ALPHA)
    method = body[0] if body else None
    if method == ALPHA_CONSTANT and len(body) == 2:
        return np.full((height, width), body[1], np.uint8)
    if method == ALPHA_BITS:
        rows = _inflate_rows(body, height, (width + 7) // 8, name)
        return np.unpackbits(rows, axis=1, count=width) * np.uint8(255)
    if method in ALPHA_PREDICTORS:
        _, undo = ALPHA_PREDICTORS[method]
        return undo(_inflate_rows(body, height, width, name))
    raise CorruptFile(name, "unknown method")


def _inflate_rows(body: bytes, height: int, row_bytes: int, name: str) -> np.ndarray:
    plane = inflate(body[1:], height * row_bytes, name)
    if len(plane) != height * row_bytes:
        raise WrongLength(name, f"{len(plane)} of {height * row_bytes} bytes")
    return np.frombuffer(plane, np.uint8).reshape(height, row_bytes).copy()

"""The .tto file: a header of fixed size, then typed sections. FORMAT.md has it byte by byte.

    header | section | section | ... | last section

The header's fields (`HEADER_FIELDS`) and the kinds of section (`SectionType`) are declared once, as data;
reading and writing are derived from them. Every checksum, length and limit is verified here, before any part
of the file is decoded. This module imports neither torch nor numpy.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum, IntFlag
from typing import NamedTuple

from tto.errors import (
    BadArgument,
    CorruptFile,
    LimitExceeded,
    NotATTOFile,
    UnsupportedSection,
    UnsupportedVersion,
    WrongChecksum,
    WrongLength,
)

MAGIC = b"\x8etto"
VERSION = 1
MAX_SIDE = 65_535
MAX_PIXELS = 2 * 89_478_485  # where Pillow, too, takes a picture for a decompression bomb
QUALITY_STEPS = 1000  # the file has the quality in thousandths
NEUTRAL_QP = 128  # step size 1
MODULES_FINGERPRINT = 4  # bytes of the side modules' fingerprint, at the start of the sections that they made


# --- declaration -----------------------------------------------------------------------------------


class Field(NamedTuple):
    """One field of the header: `code` is its `struct` format; all are little-endian."""

    name: str
    code: str
    meaning: str


HEADER_FIELDS = (
    Field("magic", "4s", "0x8e, then 'tto' in ASCII"),
    Field("version", "B", "format version, 1"),
    Field("flags", "B", "bit 0: native arithmetic, bit 1: grayscale; other bits are 0"),
    Field("width", "H", "1 to 65535 pixels"),
    Field("height", "H", "1 to 65535 pixels"),
    Field("fingerprint", "8s", "of the model: see `base_models.fingerprint`"),
    Field("quality", "H", "quality in thousandths, at least 1000"),
    Field("qp", "B", "the latent's step size is 2^((qp - 128) / 32)"),
    Field("crc", "I", "CRC-32 of all bytes before it"),
)
HEADER_STRUCT = struct.Struct("<" + "".join(field.code for field in HEADER_FIELDS))
CRC_STRUCT = struct.Struct("<I")


class Flags(IntFlag):
    NONE = 0
    NATIVE = 1  # scale indexes come from float32 on the encoder's machine: not portable
    GRAYSCALE = 2  # decoded to one channel


MANDATORY = 0x80  # bit of a section's type byte: who does not know the section must not decode the file
LAST = 0x40  # bit of a section's type byte: the file ends after this section
CODE_MASK = 0x3F


class SectionType(IntEnum):
    """Kinds of section. The value has the `MANDATORY` bit: a kind is either always mandatory or never."""

    Z = MANDATORY | 1  # range-coded hyper-latent
    Y = MANDATORY | 2  # CRC-32 of each slice's scale indexes, then the range-coded latent
    INDEX_LIST = MANDATORY | 3  # scale indexes too close to a level's boundary to be recomputed
    SCALE_QP = MANDATORY | 4  # per slice the step that σ is divided by, instead of the header's
    SYNTAX = MANDATORY | 5  # quantized syntax of the decoder-side transform (DDT)
    COMPENSATION = MANDATORY | 6  # mask and codes of the masked compensation (MSC)
    ALPHA = MANDATORY | 7  # lossless alpha plane
    FILTER = MANDATORY | 8  # quantized coefficients of the decoder-side filter
    ADAPTATION = MANDATORY | 9  # quantized changes of the synthesis' last weights
    ICC = 16  # deflated ICC profile
    EXIF = 17  # deflated EXIF data, without the leading "Exif\0\0"
    XMP = 18  # deflated XMP packet


KNOWN = {int(kind): kind for kind in SectionType}
REQUIRED = (SectionType.Z, SectionType.Y)


# --- values ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Header:
    """What a decoder must know first. `quality` is a multiple of 1/1000 (see `quantize_quality`)."""

    width: int
    height: int
    fingerprint: bytes
    quality: float
    qp: int = NEUTRAL_QP
    flags: Flags = Flags.NONE

    @property
    def native(self) -> bool:
        return Flags.NATIVE in self.flags

    @property
    def grayscale(self) -> bool:
        return Flags.GRAYSCALE in self.flags

    @property
    def step_size(self) -> float:
        return step_size(self.qp)


@dataclass(frozen=True)
class Container:
    """A .tto file taken apart. `unknown` has optional sections of later programs, by their type byte."""

    header: Header
    sections: Mapping[SectionType, bytes]
    unknown: Mapping[int, bytes] = field(default_factory=dict)


def quantize_quality(quality: float) -> float:
    """The quality that the file can hold: encoder and decoder must both use this one."""
    if not 1 <= quality <= 65:
        raise BadArgument(f"quality must be at least 1, got {quality:g}")
    return round(quality * QUALITY_STEPS) / QUALITY_STEPS


def step_size(qp: int) -> float:
    """Quantization step of the latent, 1/16 to 15.7: 32 steps per octave, 1 at `NEUTRAL_QP`."""
    return 2.0 ** ((qp - NEUTRAL_QP) / 32)


# --- header ----------------------------------------------------------------------------------------


def write_header(header: Header) -> bytes:
    """25 bytes."""
    values = {
        "magic": MAGIC,
        "version": VERSION,
        "flags": int(header.flags),
        "width": header.width,
        "height": header.height,
        "fingerprint": header.fingerprint,
        "quality": round(quantize_quality(header.quality) * QUALITY_STEPS),
        "qp": header.qp,
        "crc": 0,
    }
    check_size(header.width, header.height, None)
    if len(header.fingerprint) != 8:
        raise BadArgument("a model fingerprint has 8 bytes")
    packed = HEADER_STRUCT.pack(*(values[field.name] for field in HEADER_FIELDS))
    body = packed[: -CRC_STRUCT.size]
    return body + CRC_STRUCT.pack(zlib.crc32(body))


def read_header(data: bytes, *, max_pixels: int | None = MAX_PIXELS) -> Header:
    """Header of a .tto file; `data` needs to hold only its first 25 bytes.

    `max_pixels=None` takes the limit away. Raises `NotATTOFile`, `UnsupportedVersion`, `WrongLength`, `WrongChecksum`,
    `CorruptFile` or `LimitExceeded`.
    """
    if len(data) < len(MAGIC) or data[: len(MAGIC)] != MAGIC:
        raise NotATTOFile("not a .tto file")
    if len(data) > len(MAGIC) and data[len(MAGIC)] != VERSION:
        raise UnsupportedVersion(f"format version {data[len(MAGIC)]}; this program reads version {VERSION}")
    if len(data) < HEADER_STRUCT.size:
        raise WrongLength("header", f"{len(data)} of {HEADER_STRUCT.size} bytes")
    values = dict(zip((f.name for f in HEADER_FIELDS), HEADER_STRUCT.unpack_from(data), strict=True))
    if values["crc"] != zlib.crc32(data[: HEADER_STRUCT.size - CRC_STRUCT.size]):
        raise WrongChecksum("header")
    if values["flags"] & ~int(Flags.NATIVE | Flags.GRAYSCALE):
        raise CorruptFile("header", f"unknown flags {values['flags']:#04x}")
    if values["quality"] < QUALITY_STEPS:
        raise CorruptFile("header", f"quality {values['quality'] / QUALITY_STEPS:g} is below 1")
    check_size(values["width"], values["height"], max_pixels)
    return Header(
        width=values["width"],
        height=values["height"],
        fingerprint=values["fingerprint"],
        quality=values["quality"] / QUALITY_STEPS,
        qp=values["qp"],
        flags=Flags(values["flags"]),
    )


def check_size(width: int, height: int, max_pixels: int | None) -> None:
    """Refuse a picture without pixels, with a side beyond 65535, or with more than `max_pixels` pixels."""
    if not (1 <= width <= MAX_SIDE and 1 <= height <= MAX_SIDE):
        raise LimitExceeded(f"a picture of {width}x{height}: sides must be 1 to {MAX_SIDE} pixels")
    if max_pixels is not None and width * height > max_pixels:
        raise LimitExceeded(f"a picture of {width}x{height} has more than {max_pixels} pixels")


# --- file ------------------------------------------------------------------------------------------


def write(container: Container) -> bytes:
    """The bytes of a .tto file; sections in the order of their type's code."""
    missing = [kind.name for kind in REQUIRED if kind not in container.sections]
    if missing:
        raise BadArgument(f"a .tto file needs the section {missing[0]}")
    bodies = {int(kind): body for kind, body in container.sections.items()} | dict(container.unknown)
    order = sorted(bodies, key=lambda kind: kind & CODE_MASK)
    parts = [write_header(container.header)]
    for kind in order:
        prefix = bytes([kind | (LAST if kind == order[-1] else 0)]) + write_varint(len(bodies[kind]))
        crc = zlib.crc32(bodies[kind], zlib.crc32(prefix))
        parts += [prefix, CRC_STRUCT.pack(crc), bodies[kind]]
    return b"".join(parts)


def read(data: bytes, *, max_pixels: int | None = MAX_PIXELS) -> Container:
    """Take a .tto file apart and verify all of it.

    Raises what `read_header` raises, or `UnsupportedSection`; each `CorruptFile` names the section.
    """
    header = read_header(data, max_pixels=max_pixels)
    sections: dict[SectionType, bytes] = {}
    unknown: dict[int, bytes] = {}
    position, last = HEADER_STRUCT.size, False
    while not last:
        kind, last, body, position = _read_section(data, position)
        if kind in sections or kind in unknown:
            raise CorruptFile(section_name(kind), "the section is there twice")
        if kind in KNOWN:
            sections[KNOWN[kind]] = body
        elif kind & MANDATORY:
            raise UnsupportedSection(f"the file needs {section_name(kind)}, which this program does not know")
        else:
            unknown[kind] = body
    if position != len(data):
        raise WrongLength("end", f"{len(data) - position} bytes after the last section")
    for kind in REQUIRED:
        if kind not in sections:
            raise CorruptFile(section_name(kind), "the section is missing")
    return Container(header, sections, unknown)


def section_name(kind: int) -> str:
    known = KNOWN.get(kind)
    return f"section {known.name.lower()}" if known else f"section {kind:#04x}"


def section_size(body: bytes) -> int:
    """Bytes that a section with this body takes in the file."""
    return 1 + len(write_varint(len(body))) + CRC_STRUCT.size + len(body)


def _read_section(data: bytes, start: int) -> tuple[int, bool, bytes, int]:
    """One section at `start`: its type, whether it is the last, its body, and where the next one begins."""
    if start >= len(data):
        raise WrongLength("end", "the last section is missing")
    kind, last = data[start] & ~LAST, bool(data[start] & LAST)
    name = section_name(kind)
    length, crc_start = read_varint(data, start + 1, name)
    body_start = crc_start + CRC_STRUCT.size
    end = body_start + length
    if end > len(data):
        raise WrongLength(name, f"{max(0, len(data) - body_start)} of {length} bytes")
    body = bytes(data[body_start:end])
    if CRC_STRUCT.unpack_from(data, crc_start)[0] != zlib.crc32(body, zlib.crc32(data[start:crc_start])):
        raise WrongChecksum(name)
    return kind, last, body, end


# --- small encodings used inside sections ----------------------------------------------------------


def write_varint(value: int) -> bytes:
    """LEB128: seven bits a byte, lowest first; the top bit says that another byte follows."""
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def read_varint(data: bytes, start: int, section: str) -> tuple[int, int]:
    """A number below 2^35 in its shortest LEB128 form at `start`, and the position after it."""
    value = 0
    for index in range(5):
        if start + index >= len(data):
            raise WrongLength(section, "it ends inside a number")
        byte = data[start + index]
        value |= (byte & 0x7F) << (7 * index)
        if byte < 0x80:
            if byte == 0 and index > 0:
                raise CorruptFile(section, "a number is not in its shortest form")
            return value, start + index + 1
    raise CorruptFile(section, "a number is too long")


def join_y(checksums: Sequence[int], payload: bytes) -> bytes:
    """Body of section Y: one CRC-32 of the scale indexes per slice, then the range-coded latent."""
    return b"".join(CRC_STRUCT.pack(checksum) for checksum in checksums) + payload


def split_y(body: bytes, num_slices: int) -> tuple[tuple[int, ...], bytes]:
    """Inverse of `join_y`; the model knows the number of slices."""
    size = CRC_STRUCT.size * num_slices
    if len(body) < size:
        raise WrongLength("section y", f"{len(body)} bytes are too few for {num_slices} checksums")
    return struct.unpack(f"<{num_slices}I", body[:size]), body[size:]


def read_scale_qps(body: bytes, num_slices: int) -> tuple[int, ...]:
    """Body of section SCALE_QP: one byte for each slice."""
    if len(body) != num_slices:
        raise WrongLength(section_name(SectionType.SCALE_QP), f"{len(body)} bytes for {num_slices} slices")
    return tuple(body)


def write_index_list(slices: Sequence[Sequence[tuple[int, int]]], index_bytes: int = 1) -> bytes:
    """Body of section INDEX_LIST: per slice the number of entries, then each entry.

    An entry is (position of the symbol in its slice, table index); positions ascend, and are written as
    the distance from the position after the entry before.
    """
    out = bytearray()
    for entries in slices:
        out += write_varint(len(entries))
        following = 0
        for position, index in entries:
            out += write_varint(position - following)
            out += index.to_bytes(index_bytes, "little")
            following = position + 1
    return bytes(out)


def read_index_list(body: bytes, num_slices: int, most: int, index_bytes: int = 1) -> list[list[tuple[int, int]]]:
    """Inverse of `write_index_list`, of `most` entries at most. The caller checks positions and indexes."""
    name = section_name(SectionType.INDEX_LIST)
    slices, cursor = [], 0
    for _ in range(num_slices):
        count, cursor = read_varint(body, cursor, name)
        most -= count
        if most < 0 or count > len(body) - cursor:
            raise WrongLength(
                name, f"{count} entries cannot be in {len(body)} bytes, or are more than there are values"
            )
        entries, following = [], 0
        for _ in range(count):
            distance, cursor = read_varint(body, cursor, name)
            if cursor + index_bytes > len(body):
                raise WrongLength(name, "it ends inside an entry")
            index = int.from_bytes(body[cursor : cursor + index_bytes], "little")
            entries.append((following + distance, index))
            following, cursor = following + distance + 1, cursor + index_bytes
        slices.append(entries)
    if cursor != len(body):
        raise WrongLength(name, "bytes after the last entry")
    return slices

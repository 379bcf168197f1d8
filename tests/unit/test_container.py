"""The file format: known values give known bytes, and whatever is wrong is refused by name."""

from __future__ import annotations

import subprocess
import sys
import zlib
from dataclasses import replace
from pathlib import Path

import pytest

import tto.container
from tto.container import (
    HEADER_FIELDS,
    HEADER_STRUCT,
    MAX_PIXELS,
    REQUIRED,
    Container,
    Flags,
    Header,
    SectionType,
    join_y,
    quantize_quality,
    read,
    read_header,
    read_index_list,
    read_scale_qps,
    read_varint,
    section_name,
    split_y,
    step_size,
    write,
    write_header,
    write_index_list,
    write_varint,
)
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

HEADER = Header(width=768, height=512, fingerprint=bytes(range(8)), quality=4.5, flags=Flags.GRAYSCALE)
Y = join_y([1, 2], b"yyy")
CONTAINER = Container(HEADER, {SectionType.Z: b"zz", SectionType.Y: Y, SectionType.ICC: b"i"})
EXPECTED = bytes.fromhex(
    "8e74746f 01 02 0003 0002 0001020304050607 9411 80 8ffdcc8c"
    "81 02 72d32512 7a7a"
    "82 0b c1e4c564 0100000002000000 797979"
    "50 01 1f1f88be 69"
)


def section(kind: int, body: bytes) -> bytes:
    prefix = bytes([kind]) + write_varint(len(body))
    return prefix + zlib.crc32(prefix + body).to_bytes(4, "little") + body


def with_crc(header_body: bytes) -> bytes:
    return header_body + zlib.crc32(header_body).to_bytes(4, "little")


def test_known_container_gives_known_bytes():
    assert write(CONTAINER) == EXPECTED


def test_reading_inverts_writing():
    assert read(EXPECTED) == CONTAINER


def test_format_page_has_every_declared_field_and_section():
    page = (Path(tto.container.__file__).parent / "FORMAT.md").read_text()
    offset = 0
    for (name, code, meaning), size in zip(HEADER_FIELDS, (4, 1, 1, 2, 2, 8, 2, 1, 4), strict=True):
        assert f"| {offset} | {size} | {name} | {meaning} |" in page, code
        offset += size
    assert offset == HEADER_STRUCT.size == 25
    for kind in SectionType:
        required = "yes" if kind in REQUIRED else ""
        row = f"| {int(kind):#04x} | {kind & 0x3F} | {kind.name.lower()} | {required}"
        assert row.rstrip() in page


def test_format_pages_example_is_a_real_file():
    page = (Path(tto.container.__file__).parent / "FORMAT.md").read_text()
    block = page.split("## Example")[1]
    rows = [line[4:].split("  ")[0] for line in block.splitlines() if line.startswith("    ")]
    assert bytes.fromhex("".join(rows)) == EXPECTED


@pytest.mark.parametrize("num_slices", [4, 5])
def test_overhead_of_a_plain_file_is_at_most_64_bytes(num_slices):
    z, y = bytes(20_000), bytes(3_000_000)
    sections = {SectionType.Z: z, SectionType.Y: join_y([0] * num_slices, y)}
    assert len(write(Container(HEADER, sections))) - len(z) - len(y) <= 64


def test_quality_is_kept_in_thousandths():
    written = write_header(replace(HEADER, quality=2.34567))
    assert read_header(written).quality == quantize_quality(2.34567) == 2.346


@pytest.mark.parametrize("quality", [0.999, 0, -1, 66, float("nan"), float("inf")])
def test_quality_outside_its_range_is_refused(quality):
    with pytest.raises(BadArgument, match="quality"):
        quantize_quality(quality)


def test_step_sizes_are_32_per_octave_around_one():
    assert [step_size(qp) for qp in (0, 96, 128, 160)] == [1 / 16, 0.5, 1.0, 2.0]
    assert step_size(129) == pytest.approx(1.0218971486541166, rel=1e-15)


# --- header ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("data", [b"", b"tto", b"some text, long enough for a header", b"\x89PNG\r\n\x1a\n"])
def test_data_without_the_magic_bytes_is_not_a_tto_file(data):
    with pytest.raises(NotATTOFile):
        read(data)


def test_other_version_is_refused_before_its_header_is_interpreted():
    with pytest.raises(UnsupportedVersion, match="version 2"):
        read(EXPECTED[:4] + b"\x02" + EXPECTED[5:])


def test_header_checksum_is_verified():
    with pytest.raises(WrongChecksum, match="header: wrong checksum"):
        read_header(EXPECTED[:6] + b"\xff" + EXPECTED[7:])


@pytest.mark.parametrize("size", [5, 24])
def test_truncated_header_is_refused(size):
    with pytest.raises(WrongLength, match=f"header: {size} of 25 bytes"):
        read_header(EXPECTED[:size])


def test_huge_claim_is_refused_unless_the_caller_raises_the_limit():
    data = write_header(replace(HEADER, width=60_000, height=60_000))
    with pytest.raises(LimitExceeded, match="60000x60000"):
        read_header(data)
    assert read_header(data, max_pixels=None).width == 60_000


def test_default_limit_is_pillows_bomb_limit():
    from PIL import Image

    assert MAX_PIXELS == 2 * Image.MAX_IMAGE_PIXELS


@pytest.mark.parametrize("size", [(0, 5), (5, 0)])
def test_picture_without_pixels_is_refused(size):
    body = HEADER_STRUCT.pack(b"\x8etto", 1, 0, *size, bytes(8), 1000, 128, 0)[:-4]
    with pytest.raises(LimitExceeded):
        read_header(with_crc(body))


@pytest.mark.parametrize("size", [(65_536, 1), (1, 65_536), (0, 1)])
def test_sides_beyond_the_format_are_not_written(size):
    with pytest.raises(LimitExceeded):
        write_header(replace(HEADER, width=size[0], height=size[1]))


def test_unknown_flags_and_low_quality_are_refused():
    for flags, quality in ((4, 1000), (0, 999)):
        body = HEADER_STRUCT.pack(b"\x8etto", 1, flags, 1, 1, bytes(8), quality, 128, 0)[:-4]
        with pytest.raises(CorruptFile, match="header"):
            read_header(with_crc(body))


# --- sections --------------------------------------------------------------------------------------


def test_damaged_section_is_named():
    for offset, name in ((len(EXPECTED) - 1, "icc"), (len(EXPECTED) - 9, "y"), (31, "z")):
        damaged = bytearray(EXPECTED)
        damaged[offset] ^= 1
        with pytest.raises(WrongChecksum, match=f"section {name}: wrong checksum"):
            read(bytes(damaged))


def test_truncated_section_is_refused_before_decoding():
    with pytest.raises(WrongLength, match="section y: 10 of 11 bytes"):
        read(EXPECTED[: 25 + 8 + 6 + 10])


def test_whole_sections_cut_off_are_noticed():
    with pytest.raises(WrongLength, match="last section is missing"):
        read(EXPECTED[:-7])


def test_trailing_bytes_are_refused():
    with pytest.raises(WrongLength, match="1 bytes after"):
        read(EXPECTED + b"\0")


def test_section_that_is_there_twice_is_refused():
    z = section(SectionType.Z, b"z")
    with pytest.raises(CorruptFile, match="section z: the section is there twice"):
        read(write_header(HEADER) + z + z + section(SectionType.Y | 0x40, Y))


@pytest.mark.parametrize("missing", REQUIRED)
def test_missing_required_section_is_refused_by_reader_and_writer(missing):
    (other,) = set(REQUIRED) - {missing}
    with pytest.raises(CorruptFile, match=f"{section_name(missing)}: the section is missing"):
        read(write_header(HEADER) + section(other | 0x40, b""))
    with pytest.raises(BadArgument, match=missing.name):
        write(Container(HEADER, {other: b""}))


def test_unknown_optional_section_is_skipped_and_kept():
    container = replace(CONTAINER, unknown={0x20: b"later"})
    assert read(write(container)) == container


def test_unknown_mandatory_section_is_refused():
    with pytest.raises(UnsupportedSection, match="section 0xa0"):
        read(write(replace(CONTAINER, unknown={0xA0: b"later"})))


def test_claimed_length_beyond_the_file_takes_no_memory():
    data = write_header(HEADER) + bytes([SectionType.Z]) + write_varint(2**34) + bytes(4)
    with pytest.raises(WrongLength, match="0 of 17179869184 bytes"):
        read(data)


# --- small encodings -------------------------------------------------------------------------------


def test_varints_have_known_bytes():
    known = {0: "00", 127: "7f", 128: "8001", 300: "ac02", 16384: "808001"}
    assert {number: write_varint(number).hex() for number in known} == known
    assert read_varint(b"..\xac\x02", 2, "here") == (300, 4)


@pytest.mark.parametrize("data", [b"\x80\x00", b"\xff\xff\xff\xff\xff\x01"])
def test_bad_varints_are_refused(data):
    with pytest.raises(CorruptFile, match="here"):
        read_varint(data, 0, "here")


@pytest.mark.parametrize("data", [b"", b"\x80"])
def test_truncated_varints_are_refused(data):
    with pytest.raises(WrongLength, match="here: it ends inside a number"):
        read_varint(data, 0, "here")


def test_y_is_checksums_then_payload():
    body = join_y([1, 0xFFFFFFFF], b"payload")
    assert body == bytes.fromhex("01000000ffffffff") + b"payload"
    assert split_y(body, 2) == ((1, 0xFFFFFFFF), b"payload")
    with pytest.raises(WrongLength, match="too few"):
        split_y(body, 4)


def test_step_of_sigma_is_there_for_every_slice():
    assert read_scale_qps(b"\x80\x81", 2) == (128, 129)
    with pytest.raises(WrongLength, match="scale_qp: 2 bytes for 3 slices"):
        read_scale_qps(b"\x80\x81", 3)


def test_index_list_has_known_bytes_and_comes_back():
    slices = [[], [(0, 63), (1, 0), (300, 7)], [(5, 9)]]
    body = write_index_list(slices)
    assert body == bytes.fromhex("00 03 003f 0000 aa0207 01 0509")
    assert read_index_list(body, 3, most=4) == slices


@pytest.mark.parametrize("body", ["", "00", "000000", "0001", "000105", "00ffffffff0f"])
def test_index_lists_of_another_length_are_refused(body):
    with pytest.raises(WrongLength, match="index_list"):
        read_index_list(bytes.fromhex(body), 2, most=100)


def test_an_index_list_of_more_entries_than_values_is_refused_before_it_is_read():
    body = write_index_list([[(0, 1), (1, 1)], [(0, 1), (1, 1)]])
    with pytest.raises(WrongLength, match="2 entries cannot be in .* or are more than there are values"):
        read_index_list(body, 2, most=3)


def test_container_imports_neither_torch_nor_numpy():
    code = "import sys, tto.container; print(sorted({'torch', 'numpy', 'PIL'} & set(sys.modules)))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"

"""Damaged containers: always a typed error of one line, never anything else."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tto.container import Container, Flags, Header, SectionType, join_y, read, write
from tto.errors import TTOError

HEADER = Header(width=33, height=17, fingerprint=b"12345678", quality=3.25)
SMALL = write(
    Container(
        HEADER,
        {SectionType.Z: b"hyper", SectionType.Y: join_y([7, 8, 9, 10], b"latent"), SectionType.EXIF: b"exif"},
    )
)


def assert_refused(data: bytes) -> None:
    with pytest.raises(TTOError) as caught:
        read(data)
    assert "\n" not in str(caught.value) and str(caught.value)


def test_truncation_at_every_byte_is_refused():
    for length in range(len(SMALL)):
        assert_refused(SMALL[:length])


def test_every_flipped_bit_is_refused():
    for position in range(len(SMALL) * 8):
        damaged = bytearray(SMALL)
        damaged[position // 8] ^= 1 << (position % 8)
        assert_refused(bytes(damaged))


def test_every_removed_and_every_doubled_byte_is_refused():
    for position in range(len(SMALL)):
        assert_refused(SMALL[:position] + SMALL[position + 1 :])
        assert_refused(SMALL[: position + 1] + SMALL[position:])


@given(st.binary(max_size=200))
def test_random_bytes_are_refused(data):
    assert_refused(data)
    assert_refused(SMALL[:4] + data)
    assert_refused(SMALL[:25] + data)


optional = st.dictionaries(st.sampled_from([k for k in SectionType if k & 0x3F > 2]), st.binary(max_size=300))
headers = st.builds(
    Header,
    width=st.integers(1, 9000),
    height=st.integers(1, 9000),
    fingerprint=st.binary(min_size=8, max_size=8),
    quality=st.integers(1000, 65000).map(lambda thousandths: thousandths / 1000),
    qp=st.integers(0, 255),
    flags=st.sampled_from([Flags.NONE, Flags.NATIVE, Flags.GRAYSCALE, Flags.NATIVE | Flags.GRAYSCALE]),
)


@settings(max_examples=200, deadline=None)
@given(headers, st.binary(max_size=300), st.binary(max_size=20_000), optional)
def test_any_container_comes_back(header, z, y, others):
    container = Container(header, {SectionType.Z: z, SectionType.Y: y} | others)
    assert read(write(container)) == container

"""Small files that ask for much: refused before a network runs, and where memory ends all the same, by one line."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

import tto
from tto.cli.info import info
from tto.container import Container, Header, SectionType, join_y, write
from tto.errors import CorruptFile, NotEnoughMemory, WrongLength
from tto.models import DEFAULT_MODEL, listed_models

GIB = 1 << 30
DECODE = """
import resource, sys
from pathlib import Path
import tto.codec, tto.memory
model, file, room, asked = sys.argv[1:]
codec = tto.codec.load_codec(model, device="cpu")
if asked == "unasked":
    tto.memory.BYTES_PER_PIXEL = 0
used = tto.memory._kilobytes(tto.memory.PROCESS, "VmSize")
resource.setrlimit(resource.RLIMIT_AS, (used + int(room), resource.RLIM_INFINITY))
try:
    codec.decompress(Path(file).read_bytes())
except tto.errors.TTOError as error:
    print(type(error).__name__, error)
"""
resource = pytest.importorskip("resource")


@pytest.fixture(scope="module")
def codec(tiny_checkpoint):
    return tto.load_codec(str(tiny_checkpoint), device="cpu")


def bomb(codec, width: int, height: int, z: bytes = b"", y: bytes = bytes(16), fingerprint=None, **others) -> bytes:
    header = Header(width, height, fingerprint or codec.fingerprint, 4.0)
    sections = {SectionType.Z: z, SectionType.Y: join_y([0] * codec.latent_coder.num_slices, y)}
    return write(Container(header, sections | {SectionType[name]: body for name, body in others.items()}))


def long_enough(codec, width: int, height: int) -> bytes:
    """A file of that size whose streams are just as long as they must be."""
    y_shape, z_shape = codec.model.latent_shapes(height, width)
    z = z_shape[1] * z_shape[2] * codec.model.z_tables().costs.min(1).sum() / 8
    y = math.prod(y_shape) * codec.model.y_tables().costs.min() / 8
    return bomb(codec, width, height, bytes(int(z) + 1), bytes(int(y) + 1))


def decode_in(room: int, asked: str, file: Path, model: Path) -> str:
    """The error that decoding ends with in a process that has `room` bytes of address space left."""
    command = [sys.executable, "-W", "ignore", "-c", DECODE, str(model), str(file), str(room), asked]
    environment = {**os.environ, "PYTHONPATH": os.getcwd(), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_streams_too_short_for_the_picture_are_refused_before_anything_is_computed(codec, monkeypatch):
    monkeypatch.setattr(codec.latent_coder, "decode", lambda *arguments: pytest.fail("it is being decoded"))
    monkeypatch.setattr(codec, "read_side", lambda *arguments: pytest.fail("its side information is being decoded"))
    for size in ((9000, 9000), (2048, 2048)):
        with pytest.raises(WrongLength, match="section z: 0 bytes are too few for the picture's size"):
            codec.decompress(bomb(codec, *size, COMPENSATION=b"sidemask"))
    with pytest.raises(WrongLength, match="section y: .* too few"):
        codec.decompress(bomb(codec, 9000, 9000, z=bytes(1 << 20), y=b""))


def test_shortest_streams_are_long_enough(codec, photograph):
    """A gray picture at the lowest quality, of the size from which on lengths matter."""
    flat = Image.new("RGB", (640, 640), (128, 128, 128))
    assert codec.decompress(codec.compress(flat, 1).data).size == (640, 640)


def test_picture_beyond_the_memory_is_refused_before_a_network_runs(codec, tiny_checkpoint, tmp_path):
    (tmp_path / "bomb.tto").write_bytes(long_enough(codec, 9000, 9000))
    error = decode_in(5 * GIB, "asked", tmp_path / "bomb.tto", tiny_checkpoint)
    assert error.startswith("NotEnoughMemory a picture of 9000x9000 takes 9.0 GB of memory; 5.")


def test_memory_that_ends_while_decoding_is_an_error_of_ours(codec, tiny_checkpoint, photograph, tmp_path):
    (tmp_path / "photo.tto").write_bytes(codec.compress(photograph(1024, 1024)).data)
    error = decode_in(GIB >> 6, "unasked", tmp_path / "photo.tto", tiny_checkpoint)
    assert error == "NotEnoughMemory not enough memory for a picture of 1024x1024"


def test_pillow_is_told_in_its_own_words(tmp_path, monkeypatch):
    codec = tto.load_codec(device="cpu")
    (tmp_path / "short.tto").write_bytes(bomb(codec, 9000, 9000))
    (tmp_path / "large.tto").write_bytes(long_enough(codec, 9000, 9000))
    monkeypatch.setattr("tto.memory.free_memory", lambda device: GIB)
    tto.register_pillow()
    for name, cause in (("short", CorruptFile), ("large", NotEnoughMemory)):
        with Image.open(tmp_path / f"{name}.tto") as image, pytest.raises(OSError) as caught:
            image.load()
        assert isinstance(caught.value.__cause__, cause)


def test_info_reads_no_mask_of_millions_of_positions(codec, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("tto.side.codes.decode_mask", lambda *arguments: pytest.fail("the mask is being decoded"))
    shipped = bytes.fromhex(listed_models()[DEFAULT_MODEL].fingerprint)
    (tmp_path / "bomb.tto").write_bytes(bomb(codec, 65_535, 65_535, fingerprint=shipped, COMPENSATION=b"sidemask"))
    info([tmp_path / "bomb.tto"])
    shown = capsys.readouterr().out
    assert "65535x65535" in shown and "compensation 8 bytes" in shown and "of positions" not in shown

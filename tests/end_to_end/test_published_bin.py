"""Published .bin files from the command line: written, read, and refused where they cannot be."""

from __future__ import annotations

import struct
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from tto.cli import main
from tto.codec import load_codec
from tto.published_bin import compress_to_bin


@pytest.fixture(scope="module")
def one_rate(tmp_path_factory, tiny_sizes):
    from base_models import create_model, save_checkpoint

    torch.manual_seed(0)
    model = create_model("dcae-small", **tiny_sizes, lambdas=(0.013,))
    model.update_tables()
    path = tmp_path_factory.mktemp("published") / "one-rate.safetensors"
    save_checkpoint(model.eval(), path)
    return path


def test_bin_file_is_written_and_read_and_damaged_ones_are_a_line_each_and_no_output(
    one_rate, photograph, tmp_path, capsys
):
    """Whatever the case of its suffix. In a process of its own: an escape without end once made decoders leave their
    buffer.
    """
    photograph(70, 40).save(tmp_path / "a.png")
    with pytest.raises(SystemExit) as ended:
        main(["compress", str(tmp_path / "a.png"), "-o", str(tmp_path / "A.BIN"), "-m", str(one_rate)])
    assert not ended.value.code and capsys.readouterr().err == ""
    whole = (tmp_path / "A.BIN").read_bytes()
    assert whole[:4] == bytes([0, 40, 0, 70])
    (tmp_path / "cut.bin").write_bytes(whole[:-8])
    for length in (4_000_000, 256):
        z = struct.pack(">I", length) + b"\xff" * length
        (tmp_path / f"{length}.bin").write_bytes(struct.pack(">HHI", 64, 64, 8) + bytes(8) + z)
    damaged = ("cut.bin", "4000000.bin", "256.bin")
    names = [tmp_path / name for name in ("A.BIN", *damaged)]
    command = [sys.executable, "-m", "tto", "decompress", *names, "-o", tmp_path / "out", "-m", one_rate]
    read = subprocess.run(command, capture_output=True, text=True)
    assert read.returncode == 2, read.stderr
    lines = read.stderr.splitlines()
    assert len(lines) == 3 and all(any(name in line for line in lines) for name in damaged)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["A.png"]
    expected = compress_to_bin(load_codec(str(one_rate)), tmp_path / "a.png")
    assert whole == expected.data
    assert np.array_equal(np.asarray(Image.open(tmp_path / "out" / "A.png")), expected.array)
    photograph(70, 40).convert("RGBA").save(tmp_path / "alpha.png")
    with pytest.raises(SystemExit):
        main(["compress", str(tmp_path / "alpha.png"), "-o", str(tmp_path / "A.BIN"), "-m", str(one_rate)])
    assert "alpha and metadata are left out" in capsys.readouterr().err


def test_model_of_several_rates_is_refused(tiny_checkpoint, photograph, tmp_path, capsys):
    photograph(70, 40).save(tmp_path / "a.png")
    with pytest.raises(SystemExit) as end:
        main(["compress", str(tmp_path / "a.png"), "-o", str(tmp_path / "a.bin"), "-m", str(tiny_checkpoint)])
    assert end.value.code == 2
    assert "one rate" in capsys.readouterr().err
    assert not (tmp_path / "a.bin").exists()


def fall_on_the_other_side(monkeypatch, dtypes: tuple) -> None:
    """Arithmetic of another machine: the first σ of each slice is rounded to the other side of a table's boundary."""
    from base_models import published

    choose = published._scale_indexes

    def fall(model, sigma):
        indexes = choose(model, sigma)
        return [indexes[0] ^ 1, *indexes[1:]] if sigma.dtype in dtypes else indexes

    monkeypatch.setattr(published, "_scale_indexes", fall)


@pytest.fixture
def bin_file(one_rate, photograph, tmp_path):
    from tto.codec import load_codec
    from tto.published_bin import encode_bin

    (tmp_path / "a.bin").write_bytes(encode_bin(load_codec(str(one_rate)), np.asarray(photograph(70, 40))))
    return tmp_path / "a.bin"


def test_what_float32_cannot_read_is_tried_in_float64_and_said(bin_file, one_rate, tmp_path, capsys, monkeypatch):
    fall_on_the_other_side(monkeypatch, (torch.float32,))
    with pytest.raises(SystemExit) as caught:
        main(["decompress", str(bin_file), "-o", str(tmp_path / "b.png"), "-m", str(one_rate)])
    assert not caught.value.code
    assert capsys.readouterr().err.splitlines() == [
        f"tto: {bin_file}: damaged in this machine's float32; float64 could read it"
    ]
    assert Image.open(tmp_path / "b.png").size == (70, 40)


def test_what_neither_can_read_is_damaged(bin_file, one_rate, tmp_path, capsys, monkeypatch):
    fall_on_the_other_side(monkeypatch, (torch.float32, torch.float64))
    with pytest.raises(SystemExit) as caught:
        main(["decompress", str(bin_file), "-o", str(tmp_path / "b.png"), "-m", str(one_rate)])
    assert caught.value.code == 2
    assert "corrupt file: .bin: the y stream" in capsys.readouterr().err

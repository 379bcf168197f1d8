"""Published .bin files from the command line: written, read, and refused where they cannot be."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image


def tto(*arguments) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-m", "tto", *map(str, arguments)], capture_output=True, text=True)


@pytest.fixture(scope="module")
def one_rate(tmp_path_factory, tiny_sizes):
    from base_models import create_model, save_checkpoint

    torch.manual_seed(0)
    model = create_model("dcae-small", **tiny_sizes, lambdas=(0.013,))
    model.update_tables()
    path = tmp_path_factory.mktemp("published") / "one-rate.safetensors"
    save_checkpoint(model.eval(), path)
    return path


def test_bin_file_is_written_and_read(one_rate, photograph, tmp_path):
    photograph(70, 40).save(tmp_path / "a.png")
    written = tto("compress", tmp_path / "a.png", "-o", tmp_path / "a.bin", "-m", one_rate)
    assert written.returncode == 0, written.stderr
    assert (tmp_path / "a.bin").read_bytes()[:4] == bytes([0, 40, 0, 70])
    read = tto("decompress", tmp_path / "a.bin", "-o", tmp_path / "b.png", "-m", one_rate)
    assert read.returncode == 0, read.stderr
    assert np.asarray(Image.open(tmp_path / "b.png")).shape == (40, 70, 3)


def test_truncated_bin_file_is_one_line_and_no_output(one_rate, photograph, tmp_path):
    photograph(70, 40).save(tmp_path / "a.png")
    tto("compress", tmp_path / "a.png", "-o", tmp_path / "a.bin", "-m", one_rate)
    (tmp_path / "a.bin").write_bytes((tmp_path / "a.bin").read_bytes()[:-8])
    read = tto("decompress", tmp_path / "a.bin", "-o", tmp_path / "b.png", "-m", one_rate)
    assert read.returncode == 2
    assert len(read.stderr.splitlines()) == 1
    assert not (tmp_path / "b.png").exists()


def test_model_of_several_rates_is_refused(tiny_checkpoint, photograph, tmp_path):
    photograph(70, 40).save(tmp_path / "a.png")
    written = tto("compress", tmp_path / "a.png", "-o", tmp_path / "a.bin", "-m", tiny_checkpoint)
    assert written.returncode == 2
    assert "one rate" in written.stderr
    assert not (tmp_path / "a.bin").exists()

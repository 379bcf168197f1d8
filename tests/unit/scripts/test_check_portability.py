"""The check of portability, with networks that are made for it."""

from __future__ import annotations

import csv
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from base_models import load_checkpoint
from tto.padding import to_tensor


class Here:
    """Runs in this process what is to run in another, which does not know the script by its name here."""

    def __init__(self, *arguments, **options):
        pass

    def __enter__(self):
        return self

    def __exit__(self, *error):
        pass

    def submit(self, function, *arguments):
        made = function(*arguments)
        return SimpleNamespace(result=lambda: made)


NAMES = ("elic-small", "grm-small")


def test_random_networks_are_checked_by_name(script, photograph, tmp_path, monkeypatch, capsys):
    photograph(64, 64).save(tmp_path / "a.png")
    monkeypatch.setattr(script, "VARIANTS", script.VARIANTS[-1:])
    monkeypatch.setattr(script, "ProcessPoolExecutor", Here)
    arguments = (str(tmp_path), "--quality", "1", "--random", *NAMES, "--out", str(tmp_path / "rows.csv"))
    monkeypatch.setattr(sys, "argv", ["check_portability.py", *arguments])
    assert script.main() == 0
    with (tmp_path / "rows.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["model"], row["index_mismatches"]) for row in rows] == [(name, "0") for name in NAMES]


def test_a_file_that_does_not_decode_is_counted_and_the_next_one_decoded(script, photograph, tiny_checkpoint, tmp_path):
    for name in ("a", "b"):
        photograph(64, 64).save(tmp_path / f"{name}.png")
    paths = [tmp_path / "a.png", tmp_path / "b.png"]
    files = script.encode(paths, 0, [2.0], str(tiny_checkpoint), tmp_path / "files")
    data = files[0].read_bytes()
    files[0].write_bytes(data[:-1] + bytes([data[-1] ^ 255]))
    rows = script.decode_all(script.VARIANTS[0], files, str(tiny_checkpoint))
    assert [row["index_mismatches"] for row in rows] == [1, 0]


def test_each_variant_decodes_as_it_says(script, tmp_path, tiny_checkpoint, monkeypatch):
    """Settings of the process, and strides of the weights."""
    seen = []

    def decompress(codec, data):
        last = codec.model.g_a[0].conv.weight.is_contiguous(memory_format=torch.channels_last)
        seen.append((torch.get_num_threads(), torch.backends.mkldnn.enabled, last))
        return np.zeros((1, 1, 3), np.uint8)

    monkeypatch.setattr(script.Codec, "decompress", decompress)
    (tmp_path / "a.tto").write_bytes(b"")
    np.save(tmp_path / "a.npy", np.zeros((1, 1, 3), np.uint8))
    for variant in script.VARIANTS[:-1]:
        script.decode_all(variant, [tmp_path / "a.tto"], str(tiny_checkpoint))
    assert seen == [(2, True, False), (1, True, False), (2, False, False), (2, True, True)]


def test_a_table_that_is_another_in_a_batch_is_counted(script, photograph, tiny_checkpoint, monkeypatch):
    codec = script.load_codec(str(tiny_checkpoint), "cpu")
    data = codec.compress(photograph(64, 64), 2.0).data
    assert script.batch_mismatches(codec, data) == 0
    walk, tables_of, in_batch = codec.latent_coder.portable_walker.walk, script.tables_of, []

    def other(codec, mu, sigma):
        tables, near = tables_of(codec, mu, sigma)
        return (tables + 1 if in_batch else tables), near

    def walk_of_a_batch(z_hat, *arguments):
        in_batch.append(len(z_hat))
        return walk(z_hat, *arguments)

    monkeypatch.setattr(script, "tables_of", other)
    monkeypatch.setattr(codec.latent_coder.portable_walker, "walk", walk_of_a_batch)
    assert script.batch_mismatches(codec, data) > 0
    assert in_batch == [2]


@pytest.mark.parametrize("name", ["cheng2020-anchor", "tcm-small", "grm-small"])
def test_latents_of_random_networks_are_of_natural_scales(script, photograph, tmp_path, name):
    """Also of networks that have no starting point of their own."""
    photograph(64, 64).save(tmp_path / "a.png")
    model = load_checkpoint(script.save_random(name, tmp_path / "a.png", tmp_path))
    x = to_tensor(script.load_picture(tmp_path / "a.png").rgb)
    with torch.no_grad():
        y = model.analysis(x)
        z = model.hyper_analysis(y)
        walk = model.walk(z.round(), 1.0, lambda i, mu, sigma: mu.round())
    assert 0.3 < float(y.std()) < 1.2 and 0.2 < float(walk.sigma.median()) < 1.5
    assert float(z.std()) == pytest.approx(0.6, rel=0.2)

"""The command line with networks of every kind of parts: a checkpoint by its path, there and back."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from base_models import create_model, save_checkpoint
from tests.tiny_models import tiny_sizes_of
from tto.cli import main


@pytest.fixture(scope="module", params=["tcm", "elic", "ftic-small", "mbt2018", "bmshj2018-factorized"])
def checkpoint(request, photograph, tmp_path_factory):
    return save_tiny(request.param, photograph, tmp_path_factory.mktemp(request.param))


def save_tiny(name: str, photograph, folder: Path) -> Path:
    """A checkpoint of a registered network made tiny, fitted to pictures."""
    pictures = np.stack([np.asarray(photograph(128, 128, seed)) for seed in range(3)])
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = create_model(name, **tiny_sizes_of(name))
    model.init_from_images(torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 255)
    model.update_tables(fit_quantiles=True)
    save_checkpoint(model.eval(), folder / "model.safetensors")
    return folder / "model.safetensors"


def run(capsys, *arguments) -> str:
    with pytest.raises(SystemExit) as end:
        main([str(argument) for argument in arguments])
    assert not end.value.code
    return capsys.readouterr().out


def test_a_refined_file_is_decoded_to_the_pixels_that_were_measured(checkpoint, photograph, tmp_path, capsys):
    picture = photograph(90, 70)
    picture.save(tmp_path / "a.png")
    options = ("-m", checkpoint, "--device", "cpu")
    row = json.loads(run(capsys, "compress", tmp_path / "a.png", *options, "-q", "1", "--effort", "fast", "--json"))
    run(capsys, "decompress", tmp_path / "a.tto", "-o", tmp_path / "b.png", *options)
    decoded = np.asarray(Image.open(tmp_path / "b.png"), float)
    psnr = 10 * np.log10(255**2 / np.square(decoded - np.asarray(picture)).mean())
    assert row["psnr"] == pytest.approx(psnr, abs=1e-3) and row["J"] < row["base_J"]
    assert row["bytes"] == (tmp_path / "a.tto").stat().st_size


DRAWINGS = {
    "elic-both": {"bits", "error", "dictionary"},
    "grm-small": {"bits", "error", "reference"},
    "mbt2018-mean": {"bits", "error"},
}
"""What is drawn for networks of three families."""


@pytest.mark.parametrize("name", DRAWINGS)
def test_a_rate_is_met_with_a_region_and_drawn_with_every_network(name, photograph, tmp_path, capsys):
    model = save_tiny(name, photograph, tmp_path)
    picture = photograph(128, 128)
    picture.save(tmp_path / "a.png")
    mask = np.zeros((128, 128), np.uint8)
    mask[:, :64] = 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    options = ("-m", model, "--device", "cpu", "--json", "--steps", "1")
    plain = json.loads(run(capsys, "compress", tmp_path / "a.png", "-o", tmp_path / "plain.tto", *options))
    wanted = 0.8 * plain["bpp"]
    options += ("--target-bpp", wanted, "--roi", tmp_path / "mask.png", "--explain", tmp_path / "why")
    row = json.loads(run(capsys, "compress", tmp_path / "a.png", *options))
    assert row["bpp"] == pytest.approx(wanted, rel=0.02)
    drawn = {path.stem.removeprefix("a-") for path in (tmp_path / "why").iterdir()}
    assert drawn - {"filter"} == DRAWINGS[name]
    run(capsys, "decompress", tmp_path / "a.tto", "-o", tmp_path / "b.png", "-m", model, "--device", "cpu")
    decoded = np.asarray(Image.open(tmp_path / "b.png"), float)
    psnr = 10 * np.log10(255**2 / np.square(decoded - np.asarray(picture)).mean())
    assert row["psnr"] == pytest.approx(psnr, abs=1e-3)

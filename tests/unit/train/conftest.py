"""Small photographs-like images, and a recipe that trains a tiny network on them in seconds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image


def smooth_image(seed: int, width: int, height: int) -> Image.Image:
    """Coloured blobs: noise enlarged until it is smooth."""
    noise = np.random.default_rng(seed).integers(0, 256, (height // 16 + 2, width // 16 + 2, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC)


@pytest.fixture(scope="session", autouse=True)
def on_cpu():
    """These tests run on the processor, also where there is a GPU, from a start that is found quickly."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ACCELERATE_USE_CPU", "true")
        patch.setattr("tto.train.building.INITIALIZATION_CROPS", 8)
        yield


@pytest.fixture(scope="session")
def photos(tmp_path_factory) -> Path:
    """A folder with five images, one of them in a nested folder; the smallest is 80×72."""
    folder = tmp_path_factory.mktemp("photos")
    (folder / "nested").mkdir()
    for number, (width, height) in enumerate([(96, 80), (80, 72), (128, 100), (90, 90)]):
        smooth_image(number, width, height).save(folder / f"{number}.png")
    smooth_image(9, 100, 110).save(folder / "nested" / "9.png")
    return folder


@pytest.fixture
def tiny_recipe(tiny_sizes, photos) -> dict:
    """A recipe as a tree of plain values: two stages of a few steps on 64×64 crops."""
    stage = {"crop": 64, "batch": 2, "steps": 3, "optimizer": {"name": "muon"}}
    return {
        "model": {"name": "dcae-small", "config": {key: plain(value) for key, value in tiny_sizes.items()}},
        "data": {"train": [str(photos)], "val": [str(photos)]},
        "seed": 3,
        "ema_decay": 0.9,
        "log_every": 1,
        "validation": {"images": 1, "samples": 1},
        "trackers": [],
        "stages": [{"name": "first", **stage}, {"name": "second", **stage, "schedule": {"decay": 1.0}}],
    }


@pytest.fixture
def write_recipe(tmp_path):
    """Writes a tree as a recipe file and returns its path."""

    def write(tree: dict, name: str = "recipe.yaml") -> Path:
        path = tmp_path / name
        path.write_text(yaml.safe_dump(tree))
        return path

    return write


def plain(value):
    return list(value) if isinstance(value, tuple) else value

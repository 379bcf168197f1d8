"""What many tests need: a network small enough to code a picture in milliseconds."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

# Before torch is imported. Threads gain nothing on networks this small, and on a busy machine they wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(autouse=True)
def threads_stay_in_their_test():
    """`--threads` holds for the process, and the next test runs in the same."""
    yield
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(int(os.environ["OMP_NUM_THREADS"]))


@pytest.fixture
def interruptible():
    """A shell's background jobs ignore Ctrl-C, and so does what they start."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(scope="session")
def tiny_sizes() -> dict[str, Any]:
    """Overrides that make of "dcae-small" a network of about 100,000 parameters."""
    from tests.tiny_models import tiny_sizes_of

    return tiny_sizes_of("dcae-small")


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory, tiny_sizes) -> Path:
    """That network with eight qualities, untrained, as a file that `-m` takes."""
    import torch

    from base_models import create_model, save_checkpoint

    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = create_model("dcae-small", **tiny_sizes)
    model.update_tables()
    path = tmp_path_factory.mktemp("model") / "tiny.safetensors"
    save_checkpoint(model.eval(), path)
    return path


@pytest.fixture(scope="session")
def photograph():
    """`photograph(width, height, seed=0)`: a smooth random colour picture with some texture, as PIL image."""
    import numpy as np
    from PIL import Image

    def make(width: int, height: int, seed: int = 0) -> Image.Image:
        random = np.random.default_rng(seed)
        coarse = random.uniform(0, 255, (max(height // 16, 2), max(width // 16, 2), 3)).astype(np.uint8)
        smooth = np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC), np.float64)
        return Image.fromarray(np.clip(smooth + random.normal(0, 6, smooth.shape), 0, 255).astype(np.uint8))

    return make


@pytest.fixture(scope="session")
def small_model(photograph):
    """`dcae-small` with random weights whose latents have natural scales, tables built, in eval mode."""
    import numpy as np
    import torch

    from base_models import create_model

    with torch.random.fork_rng():
        torch.manual_seed(7)
        model = create_model("dcae-small")
    pixels = np.stack([np.asarray(photograph(128, 128, seed)) for seed in range(4)])
    model.init_from_images(torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255)
    model.update_tables()
    return model.eval().requires_grad_(False)


@pytest.fixture(scope="session")
def small_codec(small_model):
    """A codec of `small_model` on the CPU."""
    from tto.codec import Codec

    return Codec(small_model, device="cpu")


@pytest.fixture(scope="session")
def make_side_modules():
    """`make_side_modules(channels, codes, seed)`: random side modules whose outputs have natural scales."""
    import torch

    from tto.side.weights import SideConfig, SideModules

    def make(channels: int, codes: int = 16, seed: int = 0) -> SideModules:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            modules = SideModules(SideConfig(channels, codes))
            for parameter in list(modules.ddt.decoder.parameters())[-2:]:  # its last layer
                torch.nn.init.normal_(parameter, std=0.05)
        with torch.no_grad():
            size = modules.msc.compensations().norm(dim=1).mean()
            modules.msc.decoder[-1].weight *= channels**0.5 * 0.3 / size
        return modules.eval().requires_grad_(False)

    return make


@pytest.fixture(scope="session")
def side_of():
    """`side_of(coder, codes, syntax, levels)`: side information of a `SideCoder`, its parts by what they say."""
    from tto.side.compensation import CompensationCoder
    from tto.side.filter import FilterCoder
    from tto.side.side import Side
    from tto.side.transform import TransformCoder

    def make(coder, codes=None, syntax=None, levels=None) -> Side:
        said = {CompensationCoder: codes, TransformCoder: syntax, FilterCoder: levels}
        side = Side()
        for kind, value in said.items():
            side = side if value is None else side.with_(coder[kind].make(value))
        return side

    return make


@pytest.fixture(scope="session")
def other_side_modules(small_model, make_side_modules):
    return make_side_modules(small_model.config.M, seed=1)


@pytest.fixture(scope="session")
def side_codec(small_model, make_side_modules):
    """A codec of `small_model` with side modules of 16 codes."""
    from tto.codec import Codec

    return Codec(small_model, "cpu", make_side_modules(small_model.config.M))

"""A small problem whose network is untrained but has latents of natural scale."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from tto.image import load_picture
from tto.refine import engine
from tto.refine.distortion import SquaredError
from tto.refine.engine import refine
from tto.refine.plan import Plan
from tto.refine.problem import Problem
from tto.refine.state import Callbacks, State


@pytest.fixture(scope="session")
def tiny_codec(tiny_sizes, photograph):
    from base_models import create_model
    from tto.codec import Codec

    with torch.random.fork_rng():
        torch.manual_seed(3)
        model = create_model("dcae-small", **tiny_sizes)
    pixels = np.stack([np.asarray(photograph(64, 64, seed)) for seed in range(4)])
    model.init_from_images(torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255)
    model.update_tables()
    return Codec(model.eval().requires_grad_(False), device="cpu")


@pytest.fixture(scope="session")
def picture(photograph):
    return load_picture(photograph(70, 50))


@pytest.fixture(scope="session")
def problem(tiny_codec, picture) -> Problem:
    return Problem(tiny_codec.model, 4.0, 0.01, picture.height, picture.width, SquaredError(picture.rgb))


@pytest.fixture(scope="session")
def latents(tiny_codec, picture) -> tuple[torch.Tensor, torch.Tensor]:
    """y and z at quality 4."""
    y, z = tiny_codec.analyse(picture.rgb, 4.0)
    return y.clone(), z.clone()


@pytest.fixture(scope="session")
def side_problem(problem, make_side_modules) -> Problem:
    """`problem` for a model with side modules of 16 codes."""
    from tto.side.coder import SideCoder

    modules = make_side_modules(problem.model.config.M)
    return replace(problem, side_coder=SideCoder(modules, torch.device("cpu")))


@pytest.fixture
def run():
    """`run(problem, latents, *stages, qp, **callbacks)`: a whole refinement."""

    def run(problem, latents, *stages, qp=128, **callbacks):
        return refine(problem, *latents, qp, Plan(stages), Callbacks(**callbacks))

    return run


@pytest.fixture
def start():
    """`start(problem, latents, *operations, qp)`: the state before these operations."""

    def start(problem, latents, *operations, qp=128) -> State:
        return State(problem, *latents, qp, Plan((operations,)).budget, Callbacks())

    return start


@pytest.fixture
def no_filter(monkeypatch):
    """Stages end without a filter."""
    monkeypatch.setattr(engine, "finished", lambda problem, best: best)

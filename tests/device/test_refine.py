"""Refinement with everything that is looked for, alone and in batches, on a device."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from tests.unit.refine.test_batch import together
from tto.image import load_picture
from tto.refine.adaptation import FitAdaptation
from tto.refine.batch import Batch
from tto.refine.compensation import ChooseCodes
from tto.refine.descent import Phase
from tto.refine.distortion import SquaredError
from tto.refine.engine import refine
from tto.refine.filtering import FitFilter
from tto.refine.flips import AnnealSymbols, FlipSymbols
from tto.refine.plan import Plan
from tto.refine.problem import Problem
from tto.refine.quantization_step import ChooseStep
from tto.refine.relaxations import SoftRounding, StraightThrough
from tto.refine.schedules import Constant
from tto.refine.state import Callbacks
from tto.refine.transform import FitTransform

QUALITY = 2.0
LATENTS = (
    (Phase(2, SoftRounding(), Constant(0.05), Constant(0.3)), AnnealSymbols(1), FlipSymbols(2)),
    (Phase(1, StraightThrough(), Constant(0.02)), ChooseStep(8, 1, (FlipSymbols(1),))),
)
ALL = (*LATENTS, (FitTransform(), ChooseCodes(2), FitFilter(), FitAdaptation(11)))


def case(codec, image: Image.Image):
    """A problem with its latents."""
    picture = load_picture(image)
    distortion = SquaredError(picture.rgb, device=codec.device)
    problem = Problem(
        codec.model, QUALITY, 0.01, picture.height, picture.width, distortion, side_coder=codec.side_coder
    )
    return problem, *(latent.clone() for latent in codec.analyse(picture.rgb, QUALITY))


def test_every_operation_finds_there_what_it_finds_on_the_cpu(codecs, photograph):
    """But for the order of sums in optimizers, which PyTorch runs otherwise there."""
    found = []
    for codec in codecs:
        problem, y, z = case(codec, photograph(70, 50))
        found.append(refine(problem, y, z, 128, Plan(ALL), Callbacks()))
    assert found[0].steps == found[1].steps
    for theirs, ours in zip(*(one.candidates for one in found), strict=True):
        assert pytest.approx(theirs.J, rel=2e-3) == ours.J
        assert ours.y.device.type == codecs[1].device.type


@pytest.mark.parametrize("options", [{"metric": "ms-ssim"}, {"roi": True}])
def test_whole_compressions_gain_there(codecs, photograph, options):
    picture = photograph(170, 165)
    if "roi" in options:
        options = {"roi": Image.fromarray(np.arange(165 * 170, dtype=np.uint8).reshape(165, 170))}
    found = codecs[1].compress(picture, QUALITY, steps=3, **options)
    assert found.base_J > found.J


def test_pictures_refined_together_get_what_they_get_alone(codecs, photograph):
    cases = [case(codecs[1], photograph(*size, seed)) for seed, size in enumerate(((70, 50), (100, 60)))]
    for (problem, y, z), found in zip(cases, together(Batch(), cases, LATENTS[:1]), strict=True):
        alone = refine(problem, y, z, 128, Plan(LATENTS[:1]), Callbacks())
        assert pytest.approx(found.candidates[-1].J, rel=2e-3) == alone.candidates[-1].J

"""What every registered model must keep: the contract of `base_models.base`, through tto's own coder and refinement."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from base_models import fingerprint, load_checkpoint, save_checkpoint
from base_models.base import round_through
from base_models.tiles import Chain
from tto.codec import Codec
from tto.container import NEUTRAL_QP, SectionType, step_size
from tto.latent_coding import LatentCoder
from tto.refine.distortion import SquaredError
from tto.refine.problem import Evaluation, Problem, evaluate_alone
from tto.refine.rate import expected_bits


@pytest.fixture(scope="module")
def case(tiny_name, photograph, tiny_model, lively_model) -> SimpleNamespace:
    """A model with a picture x, its latents y and z, a quality between two, and what codes them."""
    height = max(64, tiny_model(tiny_name).stride)
    pixels = np.stack([np.asarray(photograph(2 * height, height, seed)) for seed in range(3)])
    images = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255
    model = lively_model(tiny_name, images)
    quality = min(1.5, model.qualities)
    with torch.no_grad():
        y = model.analysis(images[:1], quality)
        z = model.hyper_analysis(y, quality)
    coder = LatentCoder(model)
    return SimpleNamespace(
        model=model, x=images[:1], y=y, z=z, quality=quality, coder=coder, rgb=pixels[0], size=pixels.shape[1:3]
    )


def rounded_walk(model, y, z, quality, known=False):
    """A walk over rounded latents; with `known` they are given to it, too."""
    z_hat = (z - model.z_medians().to(z)).round() + model.z_medians().to(z)
    if model.grid == "integer":
        parts = model.split_y(y.round())
        return model.walk(z_hat, quality, lambda i, mu, sigma: parts[i], y.round() if known else None)
    parts = model.split_y(y)
    y_hat = y.round() if known else None
    return model.walk(z_hat, quality, lambda i, mu, sigma: (parts[i] - mu).round() + mu, y_hat)


def test_parts_are_all_of_y_and_latents_have_the_sizes_that_are_told(case):
    model, shapes = case.model, case.model.latent_shapes(*case.size)
    assert tuple(case.y.shape[1:]) == shapes.y and tuple(case.z.shape[1:]) == shapes.z
    assert model.latent_shapes(case.size[0] - model.stride + 1, case.size[1]) == shapes
    numbers = torch.arange(case.y.numel()).view(case.y.shape)
    parts = model.split_y(numbers)
    assert torch.equal(model.join_y(parts, shapes.y[1:]), numbers)
    assert len(set(torch.cat([part.flatten() for part in parts]).tolist())) == numbers.numel()
    slices = [model.slice_of(i) for i in range(len(parts))]
    assert slices == sorted(slices) and set(slices) == set(range(model.slices))
    assert shapes.y[0] == model.y_channels and shapes.y[1] * model.y_stride == case.size[0]


@torch.no_grad()
def test_the_walk_is_that_of_forward(case):
    model = case.model
    walk = rounded_walk(model, case.y, case.z, case.quality)
    output = model(case.x, case.quality)
    torch.testing.assert_close(output["x_hat"], model.synthesis(walk.y_hat, case.quality), rtol=1e-4, atol=1e-5)
    if walk.sigma is not None:
        likelihood = model.y_prior.likelihood(case.y, walk.sigma, walk.mu)
        torch.testing.assert_close(output["likelihoods"]["y"], likelihood, rtol=1e-3, atol=1e-6)
    bits = {name: float(-values.log2().sum()) for name, values in output["likelihoods"].items()}
    assert set(bits) == ({"y", "z"} if case.z.numel() else {"y"})
    assert min(bits.values()) > 50


@torch.no_grad()
def test_parts_are_called_in_order_and_depend_on_earlier_ones_alone(case):
    walker = case.model.entropy_walker()
    y, z = case.y.double(), case.z.double()
    shapes = [tuple(part.shape) for part in walker.split_y(y)]

    def means(changed: int) -> list[torch.Tensor]:
        seen = []

        def code_part(i, mu, sigma):
            assert i == len(seen) and tuple(mu.shape) == shapes[i]
            assert sigma is None or sigma.shape == mu.shape
            seen.append(mu)
            return mu.round() + (3.0 if i == changed else 0.0)

        walker.walk(z.round(), case.quality, code_part)
        assert len(seen) == len(shapes)
        return seen

    middle = (len(shapes) - 1) // 2
    before, after = means(-1), means(middle)
    same = [torch.equal(one, other) for one, other in zip(before, after, strict=True)]
    assert all(same[: middle + 1])
    assert len(shapes) == 1 or not all(same)


@torch.no_grad()
def test_contexts_in_parallel_are_those_of_the_serial_walk(case):
    """Where contexts depend on the means of earlier parts, a walk that is given ŷ goes its way all the same."""
    walker = case.model.entropy_walker()
    latents = case.y.double(), case.z.double()
    serial, parallel = (rounded_walk(walker, *latents, case.quality, known) for known in (False, True))
    for one, other in zip(serial, parallel, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("qp", [NEUTRAL_QP, NEUTRAL_QP + 13])
@pytest.mark.parametrize("native", [False, True])
def test_latents_are_decoded_to_what_the_encoder_had(case, native, qp):
    for fit_scales in (False, True):
        sections, y_hat = case.coder.encode(case.y, case.z, case.quality, qp, native, fit_scales)
        shapes = case.model.latent_shapes(*case.size)
        decoded = case.coder.decode(sections, shapes, case.quality, qp, native)
        torch.testing.assert_close(decoded, y_hat, rtol=0, atol=1e-9 if not native else 1e-4)
        assert (decoded.to(case.y) - case.y).abs().median() <= step_size(qp)


def test_another_number_of_threads_and_no_onednn_decode_the_same(case):
    sections, y_hat = case.coder.encode(case.y, case.z, case.quality, NEUTRAL_QP)
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with torch.backends.mkldnn.flags(enabled=False):
            decoded = case.coder.decode(sections, case.model.latent_shapes(*case.size), case.quality, NEUTRAL_QP, False)
    finally:
        torch.set_num_threads(threads)
    torch.testing.assert_close(decoded, y_hat, rtol=0, atol=1e-9)


@pytest.mark.parametrize("qp", [NEUTRAL_QP, NEUTRAL_QP - 9])
def test_estimated_bits_are_those_of_the_file(case, qp):
    problem = Problem(case.model, case.quality, 0.01, *case.size, SquaredError(case.rgb))
    candidate = problem.candidate(case.y, case.z, qp)
    sections, _ = case.coder.encode(case.y, case.z, case.quality, qp)
    bits = 8 * (len(sections[SectionType.Z]) + len(sections[SectionType.Y]) - 4 * case.model.slices)
    assert candidate.bpp * problem.pixels == pytest.approx(bits, rel=0.03, abs=96)


def test_gradients_of_rate_and_distortion_reach_y_and_z(case):
    problem = Problem(case.model, case.quality, 0.01, *case.size, SquaredError(case.rgb))
    y, z = (latent.clone().requires_grad_(True) for latent in (case.y, case.z))
    evaluation = Evaluation(problem, y, z, NEUTRAL_QP, round_through, expected_bits)
    of_rate = problem.evaluate(evaluation._replace(loss=lambda outcome: outcome.bits, leaves=(y, z))).gradients
    of_y = evaluation._replace(loss=lambda outcome: outcome.distortion, leaves=(y,))
    (of_distortion,) = problem.evaluate(of_y).gradients
    for gradient in (of_rate[0], of_distortion, *(of_rate[1:] if z.numel() else ())):
        assert gradient.isfinite().all() and gradient.abs().sum() > 0


def test_a_lowered_model_gives_what_autocast_gives_and_leaves_the_model_alone(case):
    problem = Problem(case.model, case.quality, 0.01, *case.size, SquaredError(case.rgb), bfloat16=True)
    lowered = case.model.lowered(torch.bfloat16)
    y = case.y.clone().requires_grad_(True)
    evaluation = Evaluation(problem, y, case.z, NEUTRAL_QP, round_through, expected_bits, exact=False)
    evaluation = evaluation._replace(loss=lambda outcome: outcome.bits + 1e3 * outcome.distortion, leaves=(y,))
    plain, fast = (
        evaluate_alone(evaluation._replace(problem=one)) for one in (problem, replace(problem, lowered=lowered))
    )
    assert torch.equal(plain.gradients[0], fast.gradients[0])
    assert torch.equal(plain.outcome.x_hat, fast.outcome.x_hat)
    assert {parameter.dtype for parameter in case.model.parameters()} == {torch.float32}
    assert torch.bfloat16 in {parameter.dtype for parameter in lowered.parameters()}


def test_a_saved_model_is_the_same_model(case, tmp_path):
    save_checkpoint(case.model, tmp_path / "model.safetensors")
    loaded = load_checkpoint(tmp_path / "model.safetensors")
    assert (loaded.registered_name, loaded.config) == (case.model.registered_name, case.model.config)
    assert fingerprint(loaded) == fingerprint(case.model)
    with torch.no_grad():
        assert torch.equal(loaded(case.x, case.quality)["x_hat"], case.model(case.x, case.quality)["x_hat"])


def test_training_goes_on_after_loading(case, tmp_path):
    save_checkpoint(case.model, tmp_path / "model.safetensors")
    model = load_checkpoint(tmp_path / "model.safetensors").requires_grad_(True).train()
    output = model(case.x, case.quality)
    bits = sum(-likelihoods.log2().sum() for likelihoods in output["likelihoods"].values())
    (bits + 100 * (output["x_hat"] - case.x).square().sum() + model.aux_loss()).backward()
    without = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.isfinite().all()]
    assert without == []


def test_refinement_lowers_J_and_the_file_decodes(case):
    codec = Codec(case.model, "cpu")
    result = codec.compress(case.rgb[:50, :70], case.quality, steps=8)
    assert result.base_J > result.J
    assert np.array_equal(np.asarray(codec.decompress(result.data)), np.asarray(result.image))


@torch.inference_mode()
def test_tiles_give_what_the_whole_gives(case, tiny_name, monkeypatch):
    """In little memory, in float32 and, as files are coded, in float64.

    Maps of latents as small as these are one tile of most networks; `test_dcae` has larger ones.
    """
    counts, tiles = [], Chain.tiles
    monkeypatch.setattr(Chain, "tiles", lambda chain, *of: counts.append(len(found := tiles(chain, *of))) or found)

    def is_tiled() -> bool:
        found = max(counts, default=0) > 1
        counts.clear()
        return found

    model, memory = case.model, 3e5
    y = model.analysis(case.x, case.quality, memory)
    assert is_tiled()
    x_hat, tiled = (model.synthesis(case.y, case.quality, bound) for bound in (None, memory))
    assert is_tiled()
    z = model.hyper_analysis(case.y, case.quality, memory)
    for found, expected in ((y, case.y), (z, case.z), (tiled, x_hat)):
        torch.testing.assert_close(
            found, expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max() if expected.numel() else 1)
        )
    walker, z_hat = case.coder.portable_walker, (case.z - model.z_medians()).round().double()
    whole, tiled = (
        walker.walk(z_hat, case.quality, lambda i, mu, sigma: mu.round(), memory=bound) for bound in (None, memory)
    )
    assert is_tiled() or not tiny_name.endswith("dictionary")
    for found, expected in zip(tiled, whole, strict=True):
        if expected is not None:
            torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)
    alone = walker.code(z_hat, case.quality, lambda i, mu, sigma: mu.round(), memory=memory)
    assert torch.equal(alone, tiled.y_hat)


def test_synthesis_of_one_picture_may_begin_before_its_last_weights(case):
    model = case.model
    with torch.no_grad():
        held = model.held_at(case.y, case.quality)
        own = {name: 1.1 * tensor for name, tensor in model.last_weights().items()}
        for given in ({}, own):
            expected = model.with_weights(given).synthesis(case.y, case.quality)
            assert torch.equal(held.with_weights(given).synthesis(case.y, case.quality), expected)


def test_a_picture_may_have_last_weights_of_its_own(case):
    """They are used in place of the model's, which stay, and gradients reach them."""
    model = case.model
    own = {name: tensor.detach().clone().requires_grad_() for name, tensor in model.last_weights().items()}
    x_hat = model.with_weights(own).synthesis(case.y, case.quality)
    with torch.no_grad():
        torch.testing.assert_close(x_hat.detach(), model.synthesis(case.y, case.quality))
    gradients = torch.autograd.grad(x_hat.square().sum(), list(own.values()))
    assert sum(float(gradient.abs().sum()) > 0 for gradient in gradients) >= 2
    assert not any(tensor.requires_grad for tensor in model.last_weights().values())

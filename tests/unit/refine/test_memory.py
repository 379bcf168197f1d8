"""Running out of memory, simulated: a step is done again in less of it, and what cannot be done is said in a line."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.autograd.graph import saved_tensors_hooks

from tto.errors import NotEnoughMemory
from tto.memory import ran_out
from tto.refine import compensation, filtering, transform
from tto.refine import problem as problem_module
from tto.refine.compensation import ChooseCodes
from tto.refine.descent import Phase
from tto.refine.engine import refine
from tto.refine.flips import FlipSymbols
from tto.refine.memory import LITTLE, largest_side, with_less_memory
from tto.refine.plan import Plan
from tto.refine.problem import Evaluation
from tto.refine.rate import mixed_bits
from tto.refine.relaxations import SoftRounding
from tto.refine.schedules import Constant
from tto.refine.state import Callbacks
from tto.refine.transform import FitTransform

STAGES = ((Phase(2, SoftRounding(), Constant(0.05), Constant(0.3)), FlipSymbols(2)),)
ON_CPU = RuntimeError("[enforce fail at alloc_cpu.cpp:124] DefaultCPUAllocator: can't allocate memory: you tried to…")
ERRORS = [torch.OutOfMemoryError("CUDA out of memory"), MemoryError(), ON_CPU]


@pytest.fixture
def short_of_memory(monkeypatch):
    """`short_of_memory(error, enough)`: evaluations with gradients raise `error` unless `enough(problem)`."""
    forward = problem_module.forward

    def arrange(error, enough):
        def limited(evaluations, model):
            if torch.is_grad_enabled() and not all(enough(one.problem) for one in evaluations):
                raise error
            return forward(evaluations, model)

        monkeypatch.setattr(problem_module, "forward", limited)

    return arrange


def run(problem, latents):
    return refine(problem, *latents, 128, Plan(STAGES), Callbacks())


@pytest.mark.parametrize("error", ERRORS)
def test_small_tiles_are_tried_first_and_gives_the_same_latents(problem, latents, short_of_memory, error):
    unlimited = run(problem, latents)
    short_of_memory(error, lambda problem: problem.memory == LITTLE)
    limited = run(problem, latents)
    expected = pytest.approx(unlimited.candidates[-1].J, rel=1e-5)
    assert limited.steps == unlimited.steps == 4
    assert expected == limited.candidates[-1].J


def test_within_bounds_less_is_remembered_for_the_same_gradients(problem, latents):
    found = []
    for memory in (None, 1e12):  # all fits: nothing goes over tiles
        bounded, kept = replace(problem, memory=memory), {}
        y, z = (latent.clone().requires_grad_() for latent in latents)
        evaluation = Evaluation(
            bounded, y, z, 128, lambda u: u, mixed_bits, loss=lambda outcome: outcome.bits, leaves=(y, z), exact=False
        )

        def keep(x: torch.Tensor, kept=kept) -> torch.Tensor:
            kept[x.untyped_storage()._cdata] = x.numel()
            return x

        with saved_tensors_hooks(keep, lambda x: x):
            outcomes = problem_module.forward([evaluation], bounded.model)
        found.append((sum(kept.values()), *torch.autograd.grad(outcomes[0].bits, (y, z))))
    (whole, *expected), (bounded, *gradients) = found
    assert whole - bounded > 10 * latents[0].numel()
    for ours, theirs in zip(gradients, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


def test_then_gradients_are_taken_in_bfloat16(problem, latents, short_of_memory):
    short_of_memory(ERRORS[0], lambda problem: problem.memory == LITTLE and problem.bfloat16)
    assert run(problem, latents).steps == 4


def test_what_does_not_fit_is_said_with_what_does(problem, short_of_memory):
    large = replace(problem, height=300, width=260, memory=LITTLE, bfloat16=True)
    short_of_memory(ERRORS[2], lambda problem: problem.width < 150)
    with pytest.raises(NotEnoughMemory, match="not enough memory to refine 260x300; 128x128 fits"):
        with_less_memory(large, ERRORS[2])


def test_where_nothing_fits_refinement_is_to_be_left_out(problem, short_of_memory):
    short_of_memory(ERRORS[1], lambda problem: False)
    assert largest_side(problem) == 0
    with pytest.raises(NotEnoughMemory, match="leave refinement out"):
        with_less_memory(replace(problem, memory=LITTLE, bfloat16=True), ERRORS[1])


def test_other_errors_pass(problem):
    other = RuntimeError("shapes do not match")
    assert not ran_out(other)
    with pytest.raises(RuntimeError, match="shapes do not match"):
        with_less_memory(problem, other)


@pytest.mark.parametrize("error", ERRORS)
def test_a_filter_that_does_not_fit_is_left_out(problem, latents, monkeypatch, error):
    def fail(*arguments):
        raise error

    monkeypatch.setattr(filtering, "fit_filter", fail)
    found = run(problem, latents)
    assert found.steps == 4
    assert not found.candidates[-1].side.sections


@pytest.mark.parametrize("error", ERRORS)
def test_side_information_that_does_not_fit_is_left_out(side_problem, latents, monkeypatch, error):
    def fail(*arguments):
        raise error

    monkeypatch.setattr(transform, "fit_transform", fail)
    monkeypatch.setattr(compensation, "choose_codes", fail)
    found = refine(side_problem, *latents, 128, Plan((*STAGES, (FitTransform(), ChooseCodes(3)))), Callbacks())
    assert len(found.candidates) == 2 and found.candidates[1].J <= found.candidates[0].J


def test_memory_that_runs_out_late_leaves_what_there_is(problem, latents, monkeypatch):
    expected, failing = run(problem, latents), (FlipSymbols(3),)
    monkeypatch.setattr(FlipSymbols, "run", lambda self, state: exec("raise NotEnoughMemory('')", globals()))
    with pytest.raises(NotEnoughMemory):
        refine(problem, *latents, 128, Plan((failing,)), Callbacks())
    monkeypatch.undo()
    stages, flips = Plan((*STAGES, failing)), FlipSymbols.run
    late = lambda self, state: flips(self, state) if self.steps == 2 else exec("raise NotEnoughMemory('')", globals())  # noqa: E731
    monkeypatch.setattr(FlipSymbols, "run", late)
    (candidate,) = refine(problem, *latents, 128, stages, Callbacks()).candidates
    assert candidate.J == expected.candidates[0].J

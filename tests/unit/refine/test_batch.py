"""Pictures refined together get what they get alone, and what goes wrong with one is its own affair."""

from __future__ import annotations

import threading
import weakref
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
import torch

from tto.refine import batch as batch_module
from tto.refine.batch import Batch
from tto.refine.compensation import ChooseCodes
from tto.refine.descent import Phase
from tto.refine.distortion import SquaredError
from tto.refine.engine import refine
from tto.refine.flips import AnnealSymbols, FlipSymbols
from tto.refine.plan import Plan
from tto.refine.problem import Evaluation, evaluate
from tto.refine.quantization_step import ChooseStep
from tto.refine.relaxations import SoftRounding, StraightThrough
from tto.refine.schedules import Constant
from tto.refine.state import Callbacks
from tto.refine.transform import FitTransform

STAGES = (
    (Phase(3, SoftRounding(), Constant(0.05), Constant(0.3)), AnnealSymbols(3), FlipSymbols(6)),
    (Phase(2, StraightThrough(), Constant(0.02)), ChooseStep(8, 2, (AnnealSymbols(1), FlipSymbols(2)))),
    (FitTransform(), ChooseCodes(3), FlipSymbols(2)),
)


@pytest.fixture(scope="module")
def cases(side_problem, tiny_codec, photograph):
    """Problems and latents of three pictures of the same padded size, one of them gray, and of a larger one."""
    found = []
    for size, seed in (((70, 50), 0), ((100, 60), 1), ((70, 50), 2), ((130, 70), 3)):
        rgb = np.asarray(photograph(*size, seed))
        width, height = size
        problem = replace(side_problem, width=width, height=height, distortion=SquaredError(rgb), grayscale=seed == 2)
        found.append((problem, *(latent.clone() for latent in tiny_codec.analyse(rgb, 4.0))))
    return found


def together(batch, cases, stages=STAGES, callbacks=()):
    """Refines every case in a thread of its own, all inside `batch` before the first step."""
    inside = threading.Barrier(len(cases))

    def work(case, own):
        problem, y, z = case
        with batch:
            inside.wait()
            return refine(replace(problem, evaluate=batch.evaluate), y, z, 128, Plan(stages), own)

    with ThreadPoolExecutor(len(cases)) as pool:
        return list(pool.map(work, cases, callbacks or [Callbacks()] * len(cases)))


@pytest.fixture
def sizes(monkeypatch):
    """Of the batches that are evaluated."""
    seen = []

    def evaluate_and_count(evaluations):
        seen.append(len(evaluations))
        return evaluate(evaluations)

    monkeypatch.setattr(batch_module, "evaluate", evaluate_and_count)
    return seen


def test_pictures_get_what_they_get_alone(cases, sizes):
    batched = together(Batch(), cases)
    assert max(sizes) == 3  # the larger one goes by itself
    assert sizes.count(3) > 0.25 * len(sizes)  # who is a step behind is waited for; a fifth without
    for (problem, y, z), found in zip(cases, batched, strict=True):
        alone = refine(problem, y, z, 128, Plan(STAGES), Callbacks())
        for one, other in zip(found.candidates, alone.candidates, strict=True):
            assert pytest.approx(other.J, rel=2e-3) == one.J
            assert one.J <= problem.candidate(y, z, 128).J


def test_gradients_and_projections_are_those_of_each_alone(cases):
    def evaluation(problem, y, z, signs):
        leaves = tuple(latent.clone().requires_grad_(True) for latent in (y, z))
        projection = (lambda: torch.ones(1, 3, problem.height, problem.width)) if signs else None
        return Evaluation(problem, *leaves, 128, lambda u: u, loss=problem.cost, leaves=leaves, projection=projection)

    evaluations = [evaluation(*case, signs) for case, signs in zip(cases[:3], (True, False, True), strict=True)]
    for found, one in zip(evaluate(evaluations), evaluations, strict=True):
        (alone,) = evaluate([one])
        assert found.outcome.bits == pytest.approx(float(alone.outcome.bits), rel=1e-5)
        for names in ("gradients", "projected"):
            for got, expected in zip(getattr(found, names), getattr(alone, names), strict=True):
                torch.testing.assert_close(got, expected, rtol=1e-3, atol=1e-5)
    assert [len(found.projected) for found in evaluate(evaluations)] == [2, 0, 2]


def test_who_stops_or_fails_does_not_hold_up_the_others(cases):
    def fail():
        raise ValueError("enough")

    stopping = [Callbacks(should_stop=lambda: True), Callbacks(), Callbacks(), Callbacks()]
    found = together(Batch(), cases, callbacks=stopping)
    assert [refinement.steps > 0 for refinement in found] == [False, True, True, True]
    batch = Batch()
    with pytest.raises(ValueError, match="enough"):
        together(batch, cases, callbacks=[Callbacks(should_stop=fail), *stopping[1:]])
    assert together(batch, cases[:2], STAGES[:1])[1].steps > 0


def test_who_waits_hears_that_the_one_who_worked_was_interrupted(cases, monkeypatch):
    """Ctrl-C in the thread that evaluates for all: the others must not wait for ever."""
    monkeypatch.setattr(batch_module, "evaluate", lambda evaluations: exec("raise KeyboardInterrupt"))
    batch, inside, heard = Batch(), threading.Barrier(3), []

    def work(case):
        problem, y, z = case
        with batch:
            inside.wait()
            try:
                batch.evaluate(Evaluation(problem, y, z, 128, torch.round))
            except BaseException as error:
                heard.append(type(error))

    threads = [threading.Thread(target=work, args=(case,), daemon=True) for case in cases[:3]]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert sorted(error.__name__ for error in heard) == ["KeyboardInterrupt", "RuntimeError", "RuntimeError"]


def test_memory_that_is_short_for_large_pictures_is_not_for_small_ones(cases, monkeypatch):
    seen = []

    def limited(evaluations):
        large = evaluations[0].problem.width > 100
        seen.append((large, len(evaluations)))
        if large and len(evaluations) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return evaluate(evaluations)

    monkeypatch.setattr(batch_module, "evaluate", limited)
    batch = Batch()
    together(batch, [cases[3], cases[3]], STAGES[:1])
    together(batch, cases[:2], STAGES[:1])
    assert seen.count((True, 2)) == 1 and (False, 2) in seen


def test_one_that_cannot_be_evaluated_is_told_alone(cases):
    broken = (cases[0][0], cases[0][1], cases[0][2][:, :-1])
    batch = Batch()
    with pytest.raises(RuntimeError, match="size of tensor"):
        together(batch, [broken, *cases[1:3]], STAGES[:1])


def test_memory_that_is_short_for_all_is_enough_for_a_half(cases, monkeypatch, sizes):
    counted = batch_module.evaluate

    def limited(evaluations):
        found = counted(evaluations)
        if len(evaluations) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return found

    monkeypatch.setattr(batch_module, "evaluate", limited)
    found = together(Batch(), cases[:3], STAGES[:1])
    assert sizes.count(3) == 1  # and not again
    assert all(refinement.steps >= 11 for refinement in found)  # of 12, where the last is no try


def test_what_a_failed_attempt_held_is_gone_before_the_next(cases, monkeypatch):
    class Graph:
        pass

    alive, found = weakref.WeakSet(), []

    def limited(evaluations):
        found.append(len(alive))
        graph = Graph()
        alive.add(graph)
        if len(evaluations) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return evaluate(evaluations)

    monkeypatch.setattr(batch_module, "evaluate", limited)
    problem, y, z = cases[0]
    group = [batch_module.Pending(Evaluation(problem, y, z, 128, torch.round)) for _ in range(4)]
    Batch()._evaluate_together(group)
    assert found == [0] * 7 and all(one.evaluated is not None for one in group)


def test_memory_that_is_short_in_the_middle_of_flips_is_enough_for_a_half(cases, monkeypatch):
    given = []

    def limited(evaluations):
        given.append(len(evaluations))
        found = evaluate(evaluations)
        if len(evaluations) > 1 and evaluations[0].projection is not None:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return found

    monkeypatch.setattr(batch_module, "evaluate", limited)
    stages = ((AnnealSymbols(3), FlipSymbols(6)),)
    shared = together(Batch(), [cases[0], cases[2]], stages)
    assert 2 in given and given[-1] == 1
    alone = [refine(problem, y, z, 128, Plan(stages), Callbacks()) for problem, y, z in (cases[0], cases[2])]
    for one, other in zip(shared, alone, strict=True):
        assert pytest.approx(other.candidates[-1].J, rel=1e-3) == one.candidates[-1].J


def test_alone_there_is_nobody_to_wait_for(cases):
    problem, y, z = cases[0]
    batch = Batch()
    assert batch.evaluate(Evaluation(problem, y, z, 128, torch.round)).outcome.bits > 0

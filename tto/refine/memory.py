"""When memory runs out: the same work in less of it, in two steps, then an error that names what would fit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch

from tto.container import NEUTRAL_QP
from tto.errors import NotEnoughMemory
from tto.memory import ran_out
from tto.refine.distortion import SquaredError
from tto.refine.problem import Candidate, Evaluation, Problem, evaluate
from tto.side.side import NO_SIDE

LITTLE = 32e6
"""Bytes for activations where memory ran out."""


def with_less_memory(problem: Problem, error: Exception) -> Problem:
    """The problem after `error`: over small tiles, then also with gradients in bfloat16.

    Raises `error` itself where it is another one, and `NotEnoughMemory` where nothing is left to try.
    """
    if not ran_out(error):
        raise error
    if problem.memory is None or problem.memory > LITTLE:
        return replace(problem, memory=LITTLE)
    if not problem.bfloat16:
        return replace(problem, bfloat16=True)
    side = largest_side(problem)
    raise NotEnoughMemory(
        f"not enough memory to refine {problem.width}x{problem.height}; "
        + (f"{side}x{side} fits, and without refinement more" if side else "leave refinement out")
    ) from error


def attempted(search: Callable[[], Candidate], candidate: Candidate) -> Candidate:
    """What a search gives, or the candidate as it was where memory does not suffice."""
    try:
        return search()
    except (MemoryError, RuntimeError) as error:
        if not ran_out(error):
            raise
        return candidate


def released(error: Exception) -> Exception:
    """An error of want of memory without what its traceback holds, which would be wanting once more."""
    return error.with_traceback(None) if ran_out(error) else error


def largest_side(problem: Problem) -> int:
    """Side of a square in whose memory a step goes: the picture's area is halved until one does. 0 if none."""
    stride = problem.model.stride
    area = problem.pixels / 2
    while (side := int(area**0.5) // stride * stride) > 0:
        try:
            _try_a_step(problem, side)
        except (MemoryError, RuntimeError) as error:
            if not ran_out(error):
                raise
            area /= 2
        else:
            return side
    return 0


def _try_a_step(problem: Problem, side: int) -> None:
    """Gradients for a black square."""
    black = SquaredError(np.zeros((side, side, 3), np.uint8))
    square = replace(problem, height=side, width=side, distortion=black, side=NO_SIDE)
    y, z = (
        torch.zeros(1, *shape, device=problem.medians.device, requires_grad=True)
        for shape in problem.model.latent_shapes(side, side)
    )
    leaves = (y, z)
    evaluate([Evaluation(square, y, z, NEUTRAL_QP, lambda u: u, loss=square.cost, leaves=leaves, exact=False)])

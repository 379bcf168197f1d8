"""What the searches for a filter and for a transform share: both change the picture after g_s, at fixed latents."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import torch
from torch import Tensor

from tto.refine.distortion import Distortion, SquaredError
from tto.refine.problem import Candidate, Problem
from tto.refine.state import KeepOn
from tto.side.side import Side


def judge_sides(
    problem: Problem,
    candidate: Candidate,
    x_hat: Tensor,
    sides: Iterable[Side],
    keep_on: KeepOn,
) -> Candidate:
    """The candidate, or it with one of `sides`, which differ from the problem's in filter or transform: the lowest J.

    `x_hat` [1, 3, H, W] is the picture before filter and transform, not clamped. `keep_on` is called with the best
    after every side and may end the search.
    """
    best = candidate
    for side in sides:
        with torch.no_grad():
            pixels = side.on_picture(x_hat).clamp(0, 1)
        found = replace(problem, side=side).with_picture(candidate, pixels)
        best = min(best, found, key=lambda one: one.J)
        if not keep_on(best):
            break
    return best


def error_weights(distortion: Distortion, x_hat: Tensor, rows: slice = slice(None)) -> Tensor:
    """What the squared error of each value of some rows of x̂ [1, 3, H, W] counts in 255²·MSE.

    Nothing where clamping mends it.
    """
    values = x_hat[:, :, rows]
    weights = ((values >= 0) & (values <= 1)).to(x_hat) * 255**2 / x_hat.numel()
    if isinstance(distortion, SquaredError) and distortion.weights is not None:
        weights = weights * distortion.pixel_weights[rows].to(weights)
    return weights

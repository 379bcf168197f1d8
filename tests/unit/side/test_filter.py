"""The filter follows its definition, pixel by pixel, and leaves alone what it should; its levels as bytes."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tto.errors import CorruptFile
from tto.padding import to_tensor
from tto.side import filter as filters
from tto.side.filter import (
    ACTIVITIES,
    CLASSES,
    DIRECTIONS,
    RINGS,
    ROWS,
    TAPS,
    FilterLevels,
    apply_filter,
    block_classes,
    decode_filter,
    encode_filter,
    luma_of,
    second_differences,
)


def waves(height: int, width: int, *, down: float = 0.0, across: float = 0.0, strength: float = 0.4) -> torch.Tensor:
    """A gray picture of one wave, [1, 1, H, W], with so many radians a pixel."""
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    return (0.5 + strength * torch.sin(down * y + across * x)).view(1, 1, height, width)


@pytest.fixture
def coefficients():
    return torch.randn(ROWS, len(TAPS), generator=torch.Generator().manual_seed(0)) * 0.05


def test_taps_are_half_of_a_diamond():
    both = {*TAPS, *((-dy, -dx) for dy, dx in TAPS)}
    diamond = {(dy, dx) for dy in range(-3, 4) for dx in range(-3, 4) if 0 < abs(dy) + abs(dx) <= 3}
    assert len(TAPS) == 12 and both == diamond
    assert RINGS.count(0) == 2 and RINGS.count(1) == 4 and RINGS.count(2) == 6


def test_every_pixel_is_what_the_definition_says(photograph, coefficients):
    x_hat = to_tensor(np.asarray(photograph(23, 18)))
    x_hat[..., :12] = x_hat[..., 12:13, :1]
    luma = luma_of(x_hat)
    classes = block_classes(luma)
    assert classes.shape == (5, 6)
    assert len(classes.unique()) > 1
    found = apply_filter(x_hat, coefficients)

    def at(plane, row, column):
        return plane[..., min(max(row, 0), 17), min(max(column, 0), 22)]

    for row, column in [(0, 0), (17, 22), (5, 9), (16, 3), (8, 21)]:
        own, expected = coefficients[classes[row // 4, column // 4]], x_hat[0, :, row, column].clone()
        chroma = x_hat - luma
        for (dy, dx), weight, shared in zip(TAPS, own, coefficients[CLASSES], strict=True):
            for plane, factor in ((luma, weight), (chroma, shared)):
                there, opposite = at(plane, row + dy, column + dx), at(plane, row - dy, column - dx)
                expected += (factor * (there + opposite - 2 * plane[..., row, column]))[0]
        torch.testing.assert_close(found[0, :, row, column], expected, rtol=1e-4, atol=1e-5)


def test_zero_changes_nothing_and_flat_pictures_are_left(photograph, coefficients):
    x_hat = to_tensor(np.asarray(photograph(30, 20)))
    assert torch.equal(apply_filter(x_hat, torch.zeros(ROWS, len(TAPS))), x_hat)
    flat = torch.full((1, 3, 9, 13), 0.7)
    torch.testing.assert_close(apply_filter(flat, coefficients), flat)


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (4, 4), (5, 3)])
def test_every_size_goes(size, coefficients):
    x_hat = torch.rand(1, 3, *size)
    assert apply_filter(x_hat, coefficients).shape == x_hat.shape


def test_gray_stays_gray(coefficients):
    gray = torch.rand(1, 1, 16, 16).expand(1, 3, 16, 16)
    filtered = apply_filter(gray, coefficients)
    torch.testing.assert_close(filtered[:, 0], filtered[:, 2])


def test_classes_are_by_activity_and_direction():
    quiet, busy = waves(32, 32, across=0.1, strength=0.05), waves(32, 32, across=2.0)
    assert set(block_classes(quiet).flatten().tolist()) == {1}  # none of much, but all of it across
    assert set(block_classes(busy).flatten().tolist()) == {DIRECTIONS * len(ACTIVITIES) + 1}
    assert set(block_classes(waves(32, 32, down=2.0)).flatten().tolist()) == {DIRECTIONS * len(ACTIVITIES) + 2}
    falling = block_classes(waves(32, 32, down=1.0, across=1.0))[1:-1, 1:-1]
    rising = block_classes(waves(32, 32, down=1.0, across=-1.0))[1:-1, 1:-1]
    assert {int(c) % DIRECTIONS for c in falling.flatten()} == {3}
    assert {int(c) % DIRECTIONS for c in rising.flatten()} == {4}
    assert block_classes(torch.full((1, 1, 8, 8), 0.5)).tolist() == [[0, 0], [0, 0]]


@pytest.mark.parametrize("size", [(12, 12), (13, 18), (2, 1)])
@pytest.mark.parametrize("band", [1 << 20, 64])
@pytest.mark.parametrize("unused", [slice(0), slice(CLASSES), slice(CLASSES, ROWS)])
def test_gradients_are_those_of_what_the_filter_does(coefficients, size, band, unused, monkeypatch):
    """A small step along any direction changes a weighted sum as they say, in float64; classes stay."""
    monkeypatch.setattr(filters, "BAND", band)
    coefficients[unused] = 0
    random = torch.Generator().manual_seed(1)
    x_hat, weights, direction = (torch.rand(1, 3, *size, generator=random, dtype=torch.float64) for _ in range(3))
    (gradient,) = torch.autograd.grad((weights * apply_filter(x_hat.requires_grad_(), coefficients)).sum(), x_hat)
    step = 1e-7 * direction
    with torch.no_grad():
        ends = [(weights * apply_filter(x, coefficients)).sum() for x in (x_hat + step, x_hat - step)]
    assert float((gradient * step).sum()) == pytest.approx(float(ends[0] - ends[1]) / 2, rel=1e-5)
    assert (gradient - weights).abs().max() > 1e-3 or size == (2, 1)


def test_second_differences_of_a_slope_vanish_inside():
    slope = torch.arange(10.0).expand(1, 1, 10, 10)
    for difference in second_differences(slope):
        assert torch.equal(difference[..., 3:-3, 3:-3], torch.zeros(1, 1, 4, 4))


SOME_RINGS = (1, 0, 1, 0)


def some_levels(scale: float, rows=5, seed=0) -> tuple[tuple[int, ...], ...]:
    levels = np.random.default_rng(seed).normal(0, scale, (rows, len(SOME_RINGS)))
    return tuple(tuple(row) for row in np.clip(levels.round(), -127, 127).astype(int).tolist())


@pytest.mark.parametrize("scale", [0.5, 3, 40, 1000])
@pytest.mark.parametrize("exponent", [0, 7, 15])
def test_filter_round_trips(scale, exponent):
    found = FilterLevels(some_levels(scale), exponent)
    assert decode_filter(encode_filter(found, SOME_RINGS), 5, SOME_RINGS) == found


def test_filter_bytes_are_these_everywhere():
    assert encode_filter(FilterLevels(((0, 3, 0, -1), (0, 2, 0, 0), (1, 0, 0, 0)), 6), SOME_RINGS).hex() == "0600442b71"


def test_zeros_of_a_filter_cost_little():
    sparse = np.zeros((16, len(SOME_RINGS)), int)
    sparse[3, 1] = 2
    assert len(encode_filter(FilterLevels(tuple(map(tuple, sparse.tolist())), 6), SOME_RINGS)) <= 5


@pytest.mark.parametrize(
    ("data", "reason"), [(b"", "it is empty"), (b"\x10\x00", "exponent 16"), (b"\x06", "the filter does nothing")]
)
def test_damaged_filter_is_refused(data, reason):
    with pytest.raises(CorruptFile, match=f"section filter: .*{reason}"):
        decode_filter(data, 5, SOME_RINGS)

"""Transforms over tiles give what the whole map gives, values and gradients, in the memory they are told."""

from __future__ import annotations

from fractions import Fraction

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from base_models.blocks import DownStage, SwinGroup, UpStage, conv, deconv
from base_models.ftic import FrequencyBlock
from base_models.probe import TEMPORARIES, measure, probe
from base_models.tiles import Chain, Findings, run_bounded


def tiled(steps, memory: float, *inputs: Tensor) -> tuple[Tensor, ...]:
    return run_bounded(steps, inputs, memory, Findings())


@pytest.fixture
def counted(monkeypatch) -> list[int]:
    """How many tiles each chain took."""
    counts, tiles_of = [], Chain.tiles

    def tiles(self, *arguments):
        tiles = tiles_of(self, *arguments)
        counts.append(len(tiles))
        return tiles

    monkeypatch.setattr(Chain, "tiles", tiles)
    return counts


def normal(shape: tuple[int, ...]) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(5))


@pytest.fixture(scope="module")
def analysis() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(DownStage(3, 8), SwinGroup(8, 4, 4, 2), conv(8, 12)).requires_grad_(False)


@pytest.fixture(scope="module")
def synthesis() -> nn.Sequential:
    torch.manual_seed(1)
    return nn.Sequential(deconv(12, 8), SwinGroup(8, 4, 4, 2), UpStage(8, 3)).requires_grad_(False)


@pytest.mark.parametrize(
    ("step", "scale", "align", "spoiled"),
    [
        (nn.Conv2d(2, 3, 5, padding=2), 1, 1, 2),
        (nn.Conv2d(2, 3, 1), 1, 1, 0),
        (conv(2, 3), Fraction(1, 2), 2, 1),
        (deconv(2, 3), 2, 1, 2),
        (nn.Sequential(deconv(2, 3), nn.ReLU(), nn.Conv2d(3, 2, 3, padding=1)), 2, 1, 3),
        (SwinGroup(4, 2, 4, 1), 1, 4, 2),  # a window ends at the cut; a depth-wise and a dense 3×3
        (SwinGroup(4, 2, 4, 2), 1, 4, 4),  # windows moved by 2 end 2 inside it, and with them what they attend to
    ],
)
def test_reach_of_a_step_is_found(step, scale, align, spoiled):
    first = next(step.parameters())
    channels = 4 if isinstance(step, SwinGroup) else 2
    reach = probe(step, [channels], first)
    assert (reach.scale, reach.align, reach.spoiled) == (scale, align, spoiled)


def test_step_that_looks_at_everything_has_no_reach():
    assert probe(lambda x: x - x.mean((2, 3), keepdim=True), [1], torch.zeros(1)).spoiled is None


def test_memory_of_a_step_is_counted_without_its_weights():
    step = nn.Sequential(nn.Conv2d(2, 6, 1), nn.GELU()).requires_grad_(False)
    cost = measure(step, [2], torch.zeros(1), remembering=True)
    assert (cost.scale, cost.channels) == (1, 6)
    assert cost.remembered == 2 + 6
    assert cost.working == TEMPORARIES * (6 + 6)
    assert measure(step, [2], torch.zeros(1), remembering=False).remembered == 0


@pytest.mark.parametrize("size", [(96, 128), (64, 72), (8, 200)])
@pytest.mark.parametrize("memory", [200_000, 1])
@torch.inference_mode()
def test_tiles_give_what_the_whole_gives(analysis, synthesis, counted, size, memory):
    x = normal((2, 3, *size))
    y = analysis(x)
    for transform, maps in ((analysis, x), (synthesis, y)):
        torch.testing.assert_close(tiled(transform, memory, maps)[0], transform(maps), rtol=1e-5, atol=1e-6)
    assert min(counted) > 1


def test_gradients_over_tiles_are_those_of_the_whole(synthesis, counted):
    y = normal((1, 12, 24, 32)).requires_grad_()
    target = normal((1, 3, 96, 128))
    (expected,) = torch.autograd.grad(F.mse_loss(synthesis(y), target), y)
    (x_hat,) = tiled(synthesis, 600_000, y)
    (found,) = torch.autograd.grad(F.mse_loss(x_hat, target), y)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-9)
    assert counted[0] > 1


def test_no_tile_needs_more_memory_than_there_is(synthesis):
    channels, chain = 12, Chain()
    for step in synthesis:
        cost = measure(step, [channels], torch.zeros(1), remembering=True)
        chain += Chain((step,), (cost,), (probe(step, [channels], torch.zeros(1)),))
        channels = cost.channels
    counts = []
    for numbers in (1e6, 3e5):
        for kept in (False, True):
            tiles = chain.tiles((64, 64), numbers, kept)
            counts.append(len(tiles))
            positions = [[len(rows) * len(columns) for rows, columns in tile] for tile in tiles]
            assert max(chain.numbers(of_tile, kept) for of_tile in positions) <= numbers
    assert counts == sorted(counts) and counts[0] < counts[-1]


def test_what_tiles_freed_is_given_back_after_every_few_forward_and_backward(synthesis, counted, monkeypatch):
    returned = []
    monkeypatch.setattr("base_models.tiles.return_freed", lambda: returned.append(True))
    monkeypatch.setattr("base_models.tiles.TIDIED", 3)
    y = normal((1, 12, 16, 24)).requires_grad_(True)
    (x_hat,) = tiled(synthesis, 2e5, y)
    often = sum(-(-tiles // 3) for tiles in counted)
    assert max(counted) > 3 and len(returned) == often
    x_hat.sum().backward()
    assert len(returned) == 2 * often


def test_what_fits_is_computed_at_once(synthesis, counted):
    """So small pictures get the very numbers that they got without tiles, and nothing is probed for them."""
    y = normal((1, 12, 16, 16))
    assert torch.equal(tiled(synthesis, 1e9, y)[0], synthesis(y))
    assert not counted


def test_group_that_looks_too_far_is_opened_and_gives_the_same(counted):
    torch.manual_seed(2)
    steps = nn.Sequential(conv(4, 4, 3, 1), SwinGroup(4, 2, 4, 20), conv(4, 4, 3, 1)).requires_grad_(False)
    x = normal((1, 4, 64, 48)).requires_grad_()
    expected = steps(x)
    (found,) = tiled(steps, 200_000, x)
    assert len(counted) == 1 + 21 + 1 and counted[1] > 1
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    weight = normal(found.shape)
    (found,), (expected,) = (torch.autograd.grad(out, x, weight) for out in (found, expected))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_windows_that_wrap_round_the_map_go_over_tiles(counted):
    torch.manual_seed(3)
    block = FrequencyBlock(8, 4, 2, shifted=True).requires_grad_(False)
    steps = nn.Sequential(conv(4, 8, 3, 1), block, conv(8, 4, 3, 1))
    x = normal((2, 4, 64, 48)).requires_grad_()
    expected = steps(x)
    (found,) = tiled(steps, 300_000, x)
    assert len(counted) == 3 and min(counted) > 1
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    weight = normal(found.shape)
    (found,), (expected,) = (torch.autograd.grad(out, x, weight) for out in (found, expected))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_step_that_looks_at_everything_runs_whole_between_tiled_ones(counted):
    centred = nn.Sequential(conv(2, 2, 3, 1), nn.InstanceNorm2d(2), conv(2, 2, 3, 1)).requires_grad_(False)
    x = normal((1, 2, 64, 64))
    torch.testing.assert_close(tiled(centred, 20_000, x)[0], centred(x), rtol=1e-5, atol=1e-6)
    assert counted[0] > 1 and counted[1] == 1 and counted[2] > 1


def test_several_maps_in_and_out(counted):
    def step(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
        return F.avg_pool2d(a, 3, 1, 1) * b, a + b

    a, b = normal((1, 2, 40, 40)).requires_grad_(), normal((1, 2, 40, 40)).requires_grad_()
    found, expected = tiled([step], 5_000, a, b), step(a, b)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(
        *(torch.autograd.grad(maps[0].sum() + maps[1].square().sum(), (a, b)) for maps in (found, expected))
    )
    assert counted[0] > 1

"""What the simulated device is for: the mistakes that a real one shows."""

from __future__ import annotations

import copy
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from torch import nn

from tests.device.simulated import simulated

PLACE = torch.device("xpu", 0)


@pytest.fixture
def device():
    with simulated("xpu") as found:
        yield found


def test_tensors_stay_where_they_were_made_or_moved(device):
    made, moved = torch.ones(3, device=device), torch.arange(3.0).to(device)
    assert made.device == moved.device == (made + moved).device == PLACE
    assert torch.zeros(3).device == made.cpu().device == made.to("cpu").device == torch.device("cpu")
    assert (
        made.view(3, 1).to(torch.float16).device == torch.zeros_like(made).device == made.new_zeros(2).device == PLACE
    )
    assert torch.ones(2).to(made).device == copy.deepcopy(made).device == PLACE
    assert made.to(device) is made and moved.tolist() == [0.0, 1.0, 2.0]


@pytest.mark.parametrize(
    "mistake",
    [
        lambda x: x + torch.ones(3),
        lambda x: torch.cat([x, torch.zeros(3)]),
        lambda x: x.where(torch.tensor([True, False, True]), 0.0),
        lambda x: torch.arange(3.0)[x.long()],
        lambda x: x.add_(torch.from_numpy(np.ones(3, np.float32))),
        lambda x: x @ torch.tensor([1.0, 2.0, 3.0]),
    ],
)
def test_operations_on_two_places_are_refused(device, mistake):
    with pytest.raises(RuntimeError, match="in one place"):
        mistake(torch.ones(3, device=device))


def test_what_a_device_takes_from_the_cpu_is_taken(device):
    x = torch.ones(3, device=device)
    x[torch.tensor([0, 2])] = 5.0
    x[:2] = torch.zeros(2)
    assert (x * torch.tensor(2.0)).tolist() == [0.0, 0.0, 10.0]
    assert x[torch.tensor([2])].device == PLACE


def test_a_devices_tensor_has_no_array(device):
    x = torch.ones(3, device=device)
    for mistake in (lambda: x.numpy(), lambda: np.asarray(x)):
        with pytest.raises(TypeError, match="no array"):
            mistake()
    assert x.cpu().numpy().sum() == 3


def test_numbers_are_drawn_with_the_devices_generator(device):
    own, other = torch.Generator(device).manual_seed(0), torch.Generator().manual_seed(0)
    assert torch.rand(3, generator=own, device=device).device == PLACE
    for generator, place in ((other, device), (own, "cpu")):
        with pytest.raises(RuntimeError, match="expected a generator"):
            torch.rand(3, generator=generator, device=place)


def test_gradients_are_where_their_tensors_are(device):
    layer = nn.Conv2d(2, 2, 3, padding=1).to(device)
    x = torch.ones(1, 2, 4, 4, device=device, requires_grad=True)
    layer(x)[..., 1:].square().sum().backward()
    assert x.grad.device == layer.weight.grad.device == PLACE
    with pytest.raises(RuntimeError, match="in one place"):
        layer.cpu()(x)


class OfTheCpu(torch.autograd.Function):
    """Its gradient is told by numbers that are kept on the CPU, and moved if `moves`."""

    @staticmethod
    def forward(ctx, x, moves):
        ctx.moves, ctx.numbers = moves, torch.full((3,), 2.0)
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        return gradient * (ctx.numbers.to(gradient) if ctx.moves else ctx.numbers), None


def test_backward_passes_written_in_python_see_it_too(device):
    x = torch.ones(3, device=device, requires_grad=True)
    (gradient,) = torch.autograd.grad(OfTheCpu.apply(x, True).sum(), x)
    assert gradient.device == PLACE and gradient.tolist() == [2.0, 2.0, 2.0]
    with pytest.raises(RuntimeError, match="in one place"):
        OfTheCpu.apply(x, False).sum().backward()


def test_threads_that_begin_see_it_too(device):
    def mistake() -> None:
        torch.ones(3, device=device) + torch.ones(3)

    with ThreadPoolExecutor(1) as pool, pytest.raises(RuntimeError, match="in one place"):
        pool.submit(mistake).result()


def test_a_device_without_float64_refuses_it():
    with simulated("mps", has_float64=False) as device:
        x = torch.ones(3, device=device)
        for mistake in (
            lambda: x.double(),
            lambda: torch.ones(3, dtype=torch.float64, device=device),
            lambda: torch.ones(3, dtype=torch.float64).to(device),
            lambda: x.to("cpu", torch.float64),
        ):
            with pytest.raises(TypeError, match="has no torch.float64"):
                mistake()
        assert x.cpu().double().to(device, torch.float32).device.type == "mps"


def test_outside_there_is_no_such_device():
    with simulated("xpu") as device:
        inside = torch.ones(3, device=device)
    assert inside.device == torch.device("cpu") and torch.Generator().device == torch.device("cpu")

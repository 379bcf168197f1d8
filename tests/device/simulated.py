"""A device that is not there, for tests on machines without one.

Tensors stay the CPU's, but every storage is marked with the place where a real machine would have it, and what such a
machine refuses is refused: an operation on tensors of two places, the array of a tensor that is not the CPU's, numbers
drawn with another place's generator and, where the device has none, float64. Arithmetic is the CPU's to the last bit,
so results can be compared. It says nothing of speed or of memory.

What Python calls (`_Calls`) tells where tensors are wanted, and what is computed in the end (`_Operations`), the
backward pass included, is checked and marked. Storages that only an operation's inside has made fit everywhere.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

CPU = torch.device("cpu")
WIDE = (torch.float64, torch.complex128)
TO_ARRAY = (torch.Tensor.numpy, torch.Tensor.__array__)
NAMES_DEVICES = (torch.device, torch._C._nn._parse_to)
"""Calls that only read what a device is called."""
NOT_COMPUTED = ("copy_", "_has_compatible_shallow_copy_type")
"""Operations on tensors of any places."""
INDEXED = ("index", "_unsafe_index", "index_put", "index_put_", "_index_put_impl_")
INDEXES = dict.fromkeys(INDEXED, 1) | {"index_fill_": 2}
"""Operations on a device's tensor one of whose arguments, and which, may be the CPU's."""

Place = torch.device | None
"""Of a storage; None fits everywhere."""


def place_of(x: Tensor) -> Place:
    """Where a tensor is; what was made outside of the simulation is the CPU's."""
    with torch._C.DisableTorchFunction():
        return getattr(x.untyped_storage(), "place", CPU)


class Simulation:
    """One device; `device` has an index, as those of real tensors have."""

    def __init__(self, device: torch.device, has_float64: bool):
        self.device = self.indexed(device)
        self.has_float64 = has_float64

    @contextmanager
    def inside(self) -> Iterator[None]:
        """For this thread."""
        with _Calls(self), _Operations(self):
            yield

    @staticmethod
    def indexed(device: torch.device | str) -> torch.device:
        device = torch.device(device)
        return device if device.type in ("cpu", "meta") else torch.device(device.type, device.index or 0)

    def mark(self, x: Tensor, place: Place) -> None:
        if place == self.device and x.dtype in WIDE and not self.has_float64:
            raise TypeError(f"{self.device} has no {x.dtype}")
        with torch._C.DisableTorchFunction():
            x.untyped_storage().place = place


def _tensors(*values: Any) -> list[Tensor]:
    """Those among arguments or results and in lists of them."""
    found = []
    for value in values:
        if isinstance(value, Tensor):
            found.append(value)
        elif isinstance(value, tuple | list):
            found += _tensors(*value)
    return found


def _storages(values: Sequence[Tensor]) -> set[int]:
    with torch._C.DisableTorchFunction():
        return {value.untyped_storage()._cdata for value in values}


class _Operations(TorchDispatchMode):
    """Checks the places of what goes into an operation, and marks what comes out of it."""

    def __init__(self, simulation: Simulation):
        super().__init__()
        self.simulation = simulation

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        given = _tensors(args, *kwargs.values())
        _check_places(function._schema.name.split("::")[1], args, given)
        result = function(*args, **kwargs)
        before, places = _storages(given), {place_of(x) for x in given} - {None}
        place = self.simulation.device if self.simulation.device in places else CPU if places else None
        for x in _tensors(result):
            if not _storages([x]) & before:
                self.simulation.mark(x, place)
        return result


def _check_places(name: str, args: tuple, given: Sequence[Tensor]) -> None:
    """Numbers without dimensions are everywhere, and copies go from anywhere to anywhere."""
    if name in INDEXES and place_of(args[0]) != CPU:
        given = _tensors(args[: INDEXES[name]], args[INDEXES[name] + 1 :])
    if name not in NOT_COMPUTED and len({place_of(x) for x in given if x.dim()} - {None}) > 1:
        found = ", ".join(f"{list(x.shape)} on {place_of(x)}" for x in given)
        raise RuntimeError(f"expected all tensors of {name} in one place, found {found}")


class _Calls(TorchFunctionMode):
    """Hears where tensors are wanted, which the operations below never learn."""

    def __init__(self, simulation: Simulation):
        super().__init__()
        self.simulation = simulation

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        given = _tensors(args, *kwargs.values())
        here = any(place_of(x) == self.simulation.device for x in given)
        if function in NAMES_DEVICES:
            found = function(*args, **kwargs)
            return (self.simulation.device, *found[1:]) if here else found  # `Module.to` like a tensor
        if function == torch.Tensor.device.__get__:
            with torch._C.DisableTorchFunction():
                return self.simulation.device if here else args[0].device
        if function in TO_ARRAY and here:
            raise TypeError(f"a tensor on {self.simulation.device} has no array: use Tensor.cpu() first")
        wanted = self._wanted(function, args, kwargs)
        self._check_generator(kwargs.get("generator"), wanted, args)
        result = function(*map(self._real, args), **{name: self._real(value) for name, value in kwargs.items()})
        before = _storages(given)
        if isinstance(result, Tensor):
            return self._placed(result, wanted, before, here)
        for x in _tensors(result):
            self._placed(x, wanted, before, here)
        return result

    def _wanted(self, function, args: tuple, kwargs: dict) -> Place:
        """The place that is asked for, if any is."""
        if function == torch.Tensor.cpu:
            return CPU
        target = kwargs.get("device")
        if function == torch.Tensor.to and target is None:
            target = kwargs.get("other", args[1] if len(args) > 1 else None)
            if isinstance(target, Tensor):
                return place_of(target)
        return self.simulation.indexed(target) if isinstance(target, str | torch.device) else None

    def _real(self, value: Any) -> Any:
        """The CPU in place of the device."""
        if not isinstance(value, str | torch.device):
            return value
        kind = value.type if isinstance(value, torch.device) else value.split(":")[0]
        return CPU if kind == self.simulation.device.type else value

    def _check_generator(self, generator: torch.Generator | None, wanted: Place, args: tuple) -> None:
        if generator is None:
            return
        place = wanted or (place_of(args[0]) if args and isinstance(args[0], Tensor) else CPU)
        if self.simulation.indexed(getattr(generator, "place", CPU)) != place:
            raise RuntimeError(f"expected a generator of {place}")

    def _placed(self, x: Tensor, wanted: Place, before: set[int], here: bool) -> Tensor:
        """A result where it is wanted; copied if it is something that is elsewhere."""
        is_new = not _storages([x]) & before
        if wanted is not None and place_of(x) != wanted:
            x = x if is_new else x.clone()
            self.simulation.mark(x, wanted)
        elif wanted is None and is_new and (place_of(x) is None or not _is_marked(x)):
            self.simulation.mark(x, self.simulation.device if here else CPU)
        return x


def _is_marked(x: Tensor) -> bool:
    """Not what copied a storage and went through no operation."""
    with torch._C.DisableTorchFunction():
        return hasattr(x.untyped_storage(), "place")


class _Generator(torch.Generator):
    """Draws on the CPU, and knows its place."""

    def __new__(cls, device: torch.device | str = "cpu"):
        return super().__new__(cls, "cpu")

    def __init__(self, device: torch.device | str = "cpu"):
        self.place = torch.device(device)


@contextmanager
def simulated(name: str, has_float64: bool = True) -> Iterator[torch.device]:
    """Inside, a device of that name is there, for this thread and those that begin."""
    simulation = Simulation(torch.device(name), has_float64)
    generator, run, backward = torch.Generator, threading.Thread.run, torch.autograd._engine_run_backward

    def run_inside(thread: threading.Thread) -> None:
        with simulation.inside():
            run(thread)

    def backward_inside(*arguments, **options):
        """`torch.autograd.grad` is a call that is heard itself, and meanwhile no other would be."""
        with _Calls(simulation):
            return backward(*arguments, **options)

    torch.Generator, threading.Thread.run = _Generator, run_inside
    torch.autograd._engine_run_backward = backward_inside
    try:
        with simulation.inside():
            yield torch.device(name)
    finally:
        torch.Generator, threading.Thread.run = generator, run
        torch.autograd._engine_run_backward = backward

"""Transforms in bounded memory: over tiles, with what lies around them, so that the result is that of the whole map.

A transform is a chain of steps. Where a step's input is cut though the map goes on, outputs near the cut are spoiled;
how many is found by trying (`base_models.probe`). For a box of outputs, the boxes that the steps need are found from
the last step to the first; the input is cropped to the first of them, and what each step gives to the next. So a step
at low resolution may look far without making those at high resolution dearer. A residual group that looks too far for
that is opened: each of its layers goes over tiles of its own. A step that wraps round the map is given what lies on the
other side around it.

With gradients, a tile's activations are computed anew in the backward pass, one tile at a time. Weights are frozen.

Shapes: `B` batch, `C` channels, `H W` height and width of a map; a position is one of H · W.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise, product
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .heap import return_freed
from .probe import Cost, Input, Reach, Step, maps_of, measure, probe

Maps = tuple[Tensor, ...]
TIDIED = 8
"""Tiles after which memory is given back: after each one it would take a quarter more time."""


class Function(NamedTuple):
    """A step that is no module, and what it uses that has windows."""

    function: Step
    parts: tuple[nn.Module, ...] = ()

    def __call__(self, *inputs: Tensor) -> Tensor | Maps:
        return self.function(*inputs)

    def modules(self) -> Iterator[nn.Module]:
        return (module for part in self.parts for module in part.modules())


class Residual(nn.Module):
    """x plus a chain of layers of it, which may be run one after the other, each over tiles of its own."""

    @abstractmethod
    def chain(self) -> Sequence[nn.Module]:
        """Layers that map [B, C, H, W] to the same shape."""

    def forward(self, x: Tensor) -> Tensor:
        inner = x
        for layer in self.chain():
            inner = layer(inner)
        return x + inner


def run_whole(steps: Iterable[Step], inputs: Maps) -> Maps:
    """The transform of whole maps, whatever memory it takes."""
    maps = inputs
    for step in steps:
        maps = maps_of(step(*maps))
    return maps


class Findings:
    """What was found out about the steps of one transform, each under its number; made once, when first needed."""

    def __init__(self):
        self._costs: dict[tuple, Cost] = {}
        self._reaches: dict[tuple, Reach] = {}

    def cost(self, number: tuple[int, ...], step: Step, inputs: Sequence[Input], like: Tensor, kept: bool) -> Cost:
        if (number, kept) not in self._costs:
            self._costs[number, kept] = measure(step, inputs, like, kept)
        return self._costs[number, kept]

    def reach(self, number: tuple[int, ...], step: Step, inputs: Sequence[Input], like: Tensor) -> Reach:
        if number not in self._reaches:
            self._reaches[number] = probe(step, inputs, like)
        return self._reaches[number]


def run_bounded(steps: Iterable[Step], inputs: Maps, memory: float, findings: Findings) -> Maps:
    """The transform of `inputs`, in about `memory` bytes beside these and its results.

    Inputs are maps [B, C, H, W] of one size, the first one at least; tensors with other dimensions are given whole to
    every tile. `findings` belong to these steps, and grow.
    """
    steps, like = list(steps), inputs[0]
    numbers = memory / like.element_size() / len(like)
    kept = torch.is_grad_enabled() and any(x.requires_grad for x in inputs)
    given, costs = [[x.shape[1] if x.dim() == 4 else x for x in inputs]], []
    for n, step in enumerate(steps):
        costs.append(findings.cost((n,), step, given[-1], like, kept))
        given.append([costs[-1].channels])
    if _numbers_of_whole(costs, _size(inputs), kept) <= numbers:
        return run_whole(steps, inputs)

    def chain_of(number: tuple[int, ...], step: Step, given: Sequence[Input]) -> Chain:
        cost = findings.cost(number, step, given, like, kept)
        return Chain((step,), (cost,), (findings.reach(number, step, given, like),))

    def run(chain: Chain, maps: Maps) -> Maps:
        tiles = chain.tiles(_size(maps), numbers, kept)
        return _Tiled.apply(chain, tiles, *maps) if kept else _assemble(chain, tiles, maps)

    maps, waiting = inputs, Chain()
    for n, step in enumerate(steps):
        chain = chain_of((n,), step, given[n])
        wraps = getattr(step, "wraps", 0)
        if chain.is_local and not wraps:
            waiting += chain
            continue
        if waiting.steps:
            maps, waiting = run(waiting, maps), Chain()
        if isinstance(step, Residual):
            inner = maps
            for k, layer in enumerate(step.chain()):
                inner = run(chain_of((n, k), layer, given[n]), inner)
            maps = (maps[0] + inner[0],)
        elif wraps:
            maps = tuple(F.pad(x, (wraps,) * 4, mode="circular") for x in maps)
            maps = tuple(x[:, :, wraps:-wraps, wraps:-wraps] for x in run(chain, maps))
        else:
            maps = run(chain, maps)
    return run(waiting, maps) if waiting.steps else maps


def _numbers_of_whole(costs: Sequence[Cost], size: tuple[int, int], kept: bool) -> float:
    """Numbers in memory where nothing goes over tiles."""
    positions, working, remembered = Fraction(math.prod(size)), 0.0, 0.0
    for cost in costs:
        working = max(working, float(cost.working * positions))
        remembered += float(cost.remembered * positions)
        positions *= cost.scale**2
    return working + kept * remembered


class Box(NamedTuple):
    """Part of a map."""

    rows: range
    columns: range

    def of(self, x: Tensor, top: int = 0, left: int = 0) -> Tensor:
        """Cropped from a map, or from a part of it that begins at (top, left); what is no map is given whole."""
        if x.dim() != 4:
            return x
        rows, columns = self
        return x[:, :, rows.start - top : rows.stop - top, columns.start - left : columns.stop - left]


@dataclass(frozen=True)
class Chain:
    """Steps that go over tiles together."""

    steps: tuple[Step, ...] = ()
    costs: tuple[Cost, ...] = ()
    reaches: tuple[Reach, ...] = ()

    def __add__(self, other: Chain) -> Chain:
        return Chain(self.steps + other.steps, self.costs + other.costs, self.reaches + other.reaches)

    @property
    def is_local(self) -> bool:
        return all(reach.spoiled is not None for reach in self.reaches)

    def sizes(self, size: tuple[int, int]) -> list[tuple[int, int]]:
        """Height and width of each step's input, then of the last one's output."""
        sizes = [size]
        for reach in self.reaches:
            height, width = sizes[-1]
            sizes.append((int(height * reach.scale), int(width * reach.scale)))
        return sizes

    def tiles(self, size: tuple[int, int], numbers: float, kept: bool) -> list[list[Box]]:
        """What each step needs as input for one tile of the last one's output, then that tile: for every tile.

        As few tiles as need no more `numbers` each, or the smallest that there are.
        """
        sides = list(zip(*self.sizes(size), strict=True))
        unit = self._unit() if self.is_local else max(sides[0][-1], sides[1][-1])
        counts = [1, 1]
        while True:
            spans = [
                [self._needed(span, side) for span in _spans(side[-1], count, unit)]
                for side, count in zip(sides, counts, strict=True)
            ]
            largest = [[max(map(len, of_step)) for of_step in zip(*of_side, strict=True)] for of_side in spans]
            outputs = [lengths[-1] for lengths in largest]
            positions = [height * width for height, width in zip(*largest, strict=True)]
            if max(outputs) <= unit or self.numbers(positions, kept) <= numbers:
                return [[Box(*box) for box in zip(*pair, strict=True)] for pair in product(*spans)]
            counts[outputs.index(max(outputs))] += 1

    def _unit(self) -> int:
        """Outputs between places where a tile may end without more input than it needs."""
        unit, scale = 1, Fraction(1)
        for reach in reversed(self.reaches):
            scale *= reach.scale
            unit = math.lcm(unit, math.ceil(reach.align * scale))
        return unit

    def _needed(self, wanted: range, sizes: Sequence[int]) -> list[range]:
        """Along one side: what each step needs for `wanted` outputs of the last, then `wanted` itself."""
        spans = [wanted]
        for reach, size in zip(reversed(self.reaches), reversed(sizes[:-1]), strict=True):
            spans.append(reach.needed(spans[-1], size))
        return spans[::-1]

    def numbers(self, positions: Sequence[int], kept: bool) -> float:
        """Numbers in memory while one tile of batch 1 is at work whose steps have inputs of so many positions."""
        parts = list(zip(self.costs, positions, strict=False))
        working = max(cost.working * count for cost, count in parts)
        return working + kept * sum(cost.remembered * count for cost, count in parts)

    def run(self, crops: Maps, boxes: Sequence[Box]) -> Maps:
        """One tile, from the inputs cropped to the first of its boxes."""
        maps = crops
        for step, reach, box, wanted in zip(self.steps, self.reaches, boxes[:-1], boxes[1:], strict=True):
            top, left = (int(span.start * reach.scale) for span in box)
            maps = tuple(wanted.of(x, top, left) for x in maps_of(step(*maps)))
        return maps


def _spans(size: int, count: int, unit: int) -> list[range]:
    """`size` in about `count` equal parts that end at multiples of `unit`."""
    cuts = {0, size} | {min(size, round(size * i / count / unit) * unit) for i in range(1, count)}
    return [range(*pair) for pair in pairwise(sorted(cuts))]


def _size(maps: Maps) -> tuple[int, int]:
    height, width = maps[0].shape[2:]
    return height, width


def _assemble(chain: Chain, tiles: Sequence[Sequence[Box]], inputs: Maps) -> Maps:
    wholes: Maps = ()
    for boxes in _tidied(tiles):
        maps = chain.run(tuple(boxes[0].of(x) for x in inputs), boxes)
        if not wholes:
            size = chain.sizes(_size(inputs))[-1]
            wholes = tuple(x.new_empty(*x.shape[:2], *size) for x in maps)
        for whole, x in zip(wholes, maps, strict=True):
            boxes[-1].of(whole).copy_(x)
    return wholes


def _tidied(tiles: Sequence[Sequence[Box]]) -> Iterator[Sequence[Box]]:
    """One after the other; after every few, what they freed goes back, or the heap's holes grow from tile to tile."""
    for number, boxes in enumerate(tiles, 1):
        yield boxes
        if number % TIDIED == 0 or number == len(tiles):
            return_freed()


class _Tiled(torch.autograd.Function):
    """`_assemble` whose backward pass goes over the tiles again."""

    @staticmethod
    def forward(ctx, chain: Chain, tiles: list[list[Box]], *inputs: Tensor) -> Maps:
        ctx.chain, ctx.tiles = chain, tiles
        ctx.save_for_backward(*inputs)
        device = inputs[0].device.type
        ctx.precision = device, torch.get_autocast_dtype(device), torch.is_autocast_enabled(device)
        return _assemble(chain, tiles, inputs)

    @staticmethod
    def backward(ctx, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        inputs = ctx.saved_tensors
        gradients = [torch.zeros_like(x) if x.requires_grad else None for x in inputs]
        for boxes in _tidied(ctx.tiles):
            crops = tuple(boxes[0].of(x).detach().requires_grad_(x.requires_grad) for x in inputs)
            with torch.enable_grad(), torch.autocast(*ctx.precision):
                maps = ctx.chain.run(crops, boxes)
            wanted = [crop for crop in crops if crop.requires_grad]
            found = iter(torch.autograd.grad(maps, wanted, [boxes[-1].of(x) for x in upstream]))
            for total in gradients:
                if total is not None:
                    boxes[0].of(total).add_(next(found))
        return None, None, *gradients

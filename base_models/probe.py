"""What a step of a network does to positions, and how much memory it takes: found by trying it on small maps."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

Step = Callable[..., Tensor | tuple[Tensor, ...]]
"""Maps [B, C, H, W] of one size → maps of one size; between two steps there is one map. A step with windows has modules
with an attribute `window`: their side, in positions of the step's input. One that wraps round the map has an attribute
`wraps`: how many positions of the other side make that needless, a multiple of its windows."""
Input = int | Tensor
"""A map of so many channels, or a tensor that all positions share: [...], or one for each picture [B, ..., ...]."""
SIDE = 128
NOISE = 1e-5
"""Of the largest output: what a device may give another time."""
LEAST_SIDE = 8
TEMPORARIES = 2.0
"""Memory at work over what the largest operation reads and writes."""


@dataclass(frozen=True)
class Cost:
    """Numbers in memory for each position of a step's input: while at work, and kept for a backward pass.

    `scale` outputs along a side, of `channels`, come from one input.
    """

    scale: Fraction
    channels: int
    working: float
    remembered: float


@dataclass(frozen=True)
class Reach:
    """How far a step looks along a side.

    Inputs may be cut at multiples of `align`; then `spoiled` outputs on either side of a cut are not those of the
    whole, or None where that is nearly all. `scale` outputs come from one input.
    """

    scale: Fraction
    align: int
    spoiled: int | None

    def needed(self, wanted: range, size: int) -> range:
        """Inputs, out of `size`, from which `wanted` outputs come out right."""
        if self.spoiled is None:
            return range(size)
        first = math.floor((wanted.start - self.spoiled) / self.scale)
        last = math.ceil((wanted.stop + self.spoiled) / self.scale)
        return range(max(0, first // self.align * self.align), min(size, -(-last // self.align) * self.align))


@torch.inference_mode(False)
def measure(step: Step, inputs: Sequence[Input], like: Tensor, remembering: bool) -> Cost:
    """The cost of a step that takes such inputs, with the type and device of `like`.

    Without `remembering`, what a backward pass would need is not counted.
    """
    side = math.lcm(_window(step), LEAST_SIDE)
    given = _made(inputs, side, side, like)
    operands, remembered = _Operands(given), _Remembered()
    with torch.no_grad(), operands:
        out = maps_of(step(*given))[0]
    if remembering:
        with torch.enable_grad(), remembered:
            step(*(x.clone().requires_grad_() for x in given))
    scale = Fraction(out.shape[2], side)
    return Cost(scale, out.shape[1], TEMPORARIES * operands.most / side**2, remembered.total / side**2)


@torch.inference_mode(False)
@torch.no_grad()
def probe(step: Step, inputs: Sequence[Input], like: Tensor) -> Reach:
    """The reach of such a step: outputs that become NaN where half of the input is NaN are spoiled by a cut there.

    Windows that are moved round the border hide behind a mask what comes from the other side, but not NaN; a step that
    does without the mask looks at everything.
    """
    window = _window(step)
    width = math.lcm(window, LEAST_SIDE)
    side = -(-SIDE // (2 * width)) * 2 * width
    plain = _rows(step, _made(inputs, side, width, like))
    spoiled, half = 0, len(plain) // 2
    for first in (True, False):
        given = _made(inputs, side, width, like, slice(None, side // 2) if first else slice(side // 2, None), torch.nan)
        rows = _rows(step, given).isnan().any(1)
        spoiled = max(spoiled, int((rows[half:] if first else rows[:half].flip(0)).cumprod(0).sum()))
        given = _made(inputs, side, width, like, slice(None, 1) if first else slice(-1, None), 100.0)
        changed = ((_rows(step, given) - plain).abs() > NOISE * plain.abs().amax()).any(1)
        if changed[-1 if first else 0] and not getattr(step, "wraps", 0):
            spoiled = len(plain)
    scale = Fraction(len(plain), side)
    return Reach(scale, math.lcm(window, scale.denominator), spoiled if spoiled <= len(plain) // 4 else None)


def _rows(step: Step, given: Sequence[Tensor]) -> Tensor:
    """What a step gives, [rows, other values]."""
    return torch.cat(maps_of(step(*given)), 1)[0].movedim(1, 0).flatten(1)


def maps_of(result: Tensor | tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """What a step gave, also where it gave one map."""
    return result if isinstance(result, tuple) else (result,)


def _window(step: Step) -> int:
    modules = step.modules() if hasattr(step, "modules") else ()
    return math.lcm(*(module.window for module in modules if isinstance(getattr(module, "window", None), int)))


def _made(
    inputs: Sequence[Input], height: int, width: int, like: Tensor, rows: slice = slice(0), value: float = 0.0
) -> list[Tensor]:
    """Maps of zeros, of `value` in some rows, for a batch of one picture."""
    given = []
    for one in inputs:
        if isinstance(one, Tensor):
            given.append(one.detach()[: 1 if one.dim() > 2 else None])
            continue
        given.append(torch.zeros(1, one, height, width, dtype=like.dtype, device=like.device))
        given[-1][:, :, rows] = value
    return given


class _Operands(TorchDispatchMode):
    """Hears how many numbers the largest operation reads and writes; weights are not counted."""

    def __init__(self, inputs: Sequence[Tensor]):
        super().__init__()
        self.most = 0
        self._activations = {x.untyped_storage().data_ptr() for x in inputs}

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Nothing here is compiled, and telling PyTorch's compiler so would import it: 160 MB."""
        return False

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        read = [x for x in tree_leaves((args, kwargs)) if self._counts(x)]
        written = [x for x in tree_leaves(result) if isinstance(x, Tensor)]
        if read:
            self._activations |= {x.untyped_storage().data_ptr() for x in written}
            self.most = max(self.most, sum(x.numel() for x in read + written))
        return result

    def _counts(self, x: object) -> bool:
        return isinstance(x, Tensor) and x.untyped_storage().data_ptr() in self._activations


class _Remembered(torch.autograd.graph.saved_tensors_hooks):
    """Hears how many numbers are kept for a backward pass; weights are not counted."""

    def __init__(self):
        self.total, self._known = 0, set()
        super().__init__(self._count, lambda x: x)

    def _count(self, x: Tensor) -> Tensor:
        storage = x.untyped_storage()
        of_weight = isinstance(x, nn.Parameter) or isinstance(x._base, nn.Parameter)
        if not of_weight and storage.data_ptr() not in self._known:
            self._known.add(storage.data_ptr())
            self.total += storage.nbytes() // x.element_size()
        return x

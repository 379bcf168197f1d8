"""Adaptation: a picture's own change of the last weights of the synthesis **[ours]**, told in a few hundred bytes.

It is for pictures unlike those that the network was trained on. After low-rank updates of weights (E. Hu, "LoRA", ICLR
2022) and content-adaptive decoders (K. Tsubota, H. Akutsu, K. Aizawa, "Universal Deep Image Compression via
Content-Adaptive Optimization with Adapters", WACV 2023); here the weights themselves change, and decoding takes no
longer.

A weight [D, ...] seen as a matrix [D, E] gets `r·L·R` more, L [D, rank], R [rank, E], r the root mean square of its
values; a bias [D] gets `r·l` more. L, R and l are levels times 2^−exponent.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from tto.container import SectionType, section_name
from tto.entropy_coding import SymbolDecoder, SymbolEncoder
from tto.errors import CorruptFile
from tto.side.bits import BitModel, LevelModel, read_exponent
from tto.side.side import Part, PartCoder

if TYPE_CHECKING:
    from base_models import BaseModel

LEFT, RIGHT, BIAS = range(3)
"""Kinds of levels, each with probabilities of its own."""
LARGEST_RANK = 4
LARGEST_SUM = 1 << 15
"""Of all levels without their signs: each unit costs a decoder time, and can be made to cost next to no bytes."""

Change = tuple[np.ndarray, ...]
"""Levels of one tensor: L [D, rank] and R [rank, E], or l [D], or nothing where it stays."""


@dataclass(frozen=True)
class Changes:
    """Of all tensors of `BaseModel.last_weights`, in their order."""

    changes: tuple[Change, ...]
    exponent: int


def scale_of(tensor: Tensor) -> float:
    """r; the sum is in float64, so that rounding it to float32 almost always gives the same."""
    return float(tensor.detach().cpu().double().square().mean().sqrt().float())


def changed(tensor: Tensor, change: Sequence[Tensor]) -> Tensor:
    """A weight or bias with factors or a vector in place of levels; differentiable."""
    more = change[0] @ change[1] if len(change) == 2 else change[0]
    return tensor + (scale_of(tensor) * more).to(tensor).view_as(tensor)


# --- what travels in the file ------------------------------------------------------------------------------------


def encode_changes(found: Changes) -> bytes:
    """One byte, the exponent; then for every tensor its rank (biases: 0 or 1) in unary, and its levels."""
    encoder, ranks, model = SymbolEncoder(), BitModel(LARGEST_RANK), LevelModel((LEFT, RIGHT, BIAS))
    for change in found.changes:
        rank = change[0].shape[1] if len(change) == 2 else len(change)
        for number in range(min(rank + 1, LARGEST_RANK)):
            ranks.encode(encoder, number, rank > number)
        kinds = (LEFT, RIGHT) if len(change) == 2 else (BIAS,) * len(change)
        for kind, levels in zip(kinds, change, strict=True):
            for level in levels.ravel().tolist():
                model.encode(encoder, kind, False, level)
    return bytes([found.exponent]) + encoder.data()


def decode_changes(data: bytes, tensors: Sequence[Tensor]) -> Changes:
    """Inverse of `encode_changes`. Raises `CorruptFile`."""
    name = section_name(SectionType.ADAPTATION)
    exponent = read_exponent(data, name)
    decoder, ranks = SymbolDecoder(data[1:], name), BitModel(LARGEST_RANK)
    model, changes, left = LevelModel((LEFT, RIGHT, BIAS)), [], LARGEST_SUM

    def read(kind: int, *shape: int) -> np.ndarray:
        nonlocal left
        levels = np.zeros(int(np.prod(shape)), np.int64)
        for place in range(len(levels)):
            levels[place] = level = model.decode(decoder, kind, False)
            left -= abs(level)
            if left < 0:
                raise CorruptFile(name, f"its levels sum to more than {LARGEST_SUM}")
        return levels.reshape(shape)

    for tensor in tensors:
        rank = 0
        while rank < LARGEST_RANK and ranks.decode(decoder, rank):
            rank += 1
        most = 1 if tensor.dim() == 1 else min(len(tensor), tensor[0].numel())
        if rank > most:
            raise CorruptFile(name, f"rank {rank} where {most} is the highest")
        if tensor.dim() == 1:
            changes.append((read(BIAS, len(tensor)),) if rank else ())
            continue
        rows = len(tensor)
        changes.append((read(LEFT, rows, rank), read(RIGHT, rank, tensor.numel() // rows)) if rank else ())
    if not any(changes):
        raise CorruptFile(name, "it changes nothing")
    return Changes(tuple(changes), exponent)


@dataclass(frozen=True, eq=False)
class Adaptation(Part):
    """What the section says is known only beside a network: `on_network` reads it."""

    section = SectionType.ADAPTATION
    place = 0

    body: bytes = field(repr=False)
    _made: dict[BaseModel, BaseModel] = field(default_factory=dict, repr=False)

    def on_network(self, model: BaseModel) -> BaseModel:
        if model not in self._made:
            self._made[model] = model.with_weights(self._weights(model))
        return self._made[model]

    @torch.no_grad()
    def _weights(self, model: BaseModel) -> dict[str, Tensor]:
        own = model.last_weights()
        found = decode_changes(self.body, list(own.values()))
        step = 2.0**-found.exponent
        return {
            name: changed(tensor, [torch.from_numpy(levels).double() * step for levels in change])
            for (name, tensor), change in zip(own.items(), found.changes, strict=True)
            if change
        }


class AdaptationCoder(PartCoder):
    part = Adaptation

    def make(self, found: Changes) -> Adaptation:
        """Where nothing changes, or more than a file may say, it says nothing."""
        total = sum(int(np.abs(levels).sum()) for change in found.changes for levels in change)
        return Adaptation(encode_changes(found) if any(found.changes) and total <= LARGEST_SUM else b"")

    def read(self, body: bytes, size: tuple[int, int]) -> Adaptation:
        read_exponent(body, section_name(SectionType.ADAPTATION))
        return Adaptation(body)

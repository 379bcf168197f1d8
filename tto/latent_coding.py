"""Latents to bytes and back: one walk over the slices, with the entropy model in float64.

    y, z ─ encode ─ sections z, y, index list ─ decode ─ y_hat      (the same y_hat on both sides)

Shapes: one image; `M` channels of y, `N` of z, `h w` size of y, `hz wz` of z.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from base_models import BaseModel, LatentShapes
from tto.container import (
    SectionType,
    join_y,
    read_index_list,
    read_scale_qps,
    section_name,
    section_size,
    split_y,
    step_size,
    write_index_list,
)
from tto.entropy_coding import SymbolDecoder, SymbolEncoder, Tables, checksum, scale_indexes
from tto.errors import BadCheckpoint, CorruptFile, IndexMismatch

MAX_SYMBOL = 1 << 30
SCALE_QP_OFFSETS = range(-4, 16, 2)
"""Steps tried for σ, from y's own on: an octave has 32, and the tables are 5.7 apart. Refined latents are narrower than
the network was trained to expect, and its index is rounded up."""
STRIPPED_BYTES = 16
"""A stream loses its trailing zero bytes; more than so many have no chance to be there."""
Slice = tuple[np.ndarray, np.ndarray]
"""Symbols int64 and σ float64 of one slice, flat."""


class LatentCoder:
    """Codes the latents of one base model.

    In portable mode everything that decides a scale index runs in float64; `native` mode uses the model as it is
    (float32), is faster, and decodes only where the arithmetic is the same.
    """

    def __init__(self, model: BaseModel):
        self._native_walker = model
        self.portable_walker = model.entropy_walker(torch.float64)
        self._z_tables = Tables.of(model.z_tables())
        self._y_tables = Tables.of(model.y_tables())
        self.scale_table = model.scale_table.cpu().numpy().astype(np.float64)
        self._medians = model.z_medians()
        self.num_slices = model.slices

    def walker(self, native: bool) -> tuple[BaseModel, torch.dtype]:
        """What walks over the slices, and in which precision."""
        return (self._native_walker, torch.float32) if native else (self.portable_walker, torch.float64)

    @torch.inference_mode()
    def encode(
        self, y: Tensor, z: Tensor, quality: float, qp: int, native: bool = False, fit_scales: bool = False
    ) -> tuple[dict[SectionType, bytes], Tensor]:
        """Rounds y [1, M, h, w] and z [1, N, hz, wz] and codes them.

        `fit_scales` gives σ of each slice a step of its own where that saves bytes. Returns the sections and ŷ as the
        decoder will have it. Raises `BadCheckpoint` where latents are not finite or absurdly large, which only damaged
        weights give.
        """
        walker, dtype = self.walker(native)
        step = step_size(qp)
        y, z = y.contiguous(), z.contiguous()  # the decoder's layout: another would round ŷ otherwise
        z_symbols = _checked((z - self._medians).round())
        z_encoder = SymbolEncoder()
        z_encoder.encode(_flat(z_symbols), _channel_indexes(z.shape), self._z_tables)

        slices: list[Slice] = []
        parts = walker.split_y(y.to(dtype))

        def round_slice(i: int, mu: Tensor, sigma: Tensor) -> Tensor:
            symbols = _checked(((parts[i] - mu) / step).round())
            slices.append((_flat(symbols), _flat_float(sigma)))
            return symbols * step + mu

        walk = walker.walk(z_symbols.to(dtype) + self._medians.to(dtype), quality, round_slice)

        scale_qps = self._fitting_scale_qps(slices, qp) if fit_scales else (qp,) * self.num_slices
        y_encoder = SymbolEncoder()
        checksums, listed = [], []
        for (symbols, sigma), scale_qp in zip(slices, scale_qps, strict=True):
            indexes, near = scale_indexes(sigma / step_size(scale_qp), self.scale_table)
            y_encoder.encode(symbols, indexes, self._y_tables)
            checksums.append(checksum(indexes))
            positions = () if native else np.flatnonzero(near).tolist()
            listed.append([(position, int(indexes[position])) for position in positions])
        sections = {
            SectionType.Z: z_encoder.data(),
            SectionType.Y: join_y(checksums, y_encoder.data()),
        }
        if any(listed):
            sections[SectionType.INDEX_LIST] = write_index_list(listed)
        if any(scale_qp != qp for scale_qp in scale_qps):
            sections[SectionType.SCALE_QP] = bytes(scale_qps)
        return sections, walk.y_hat

    def _fitting_scale_qps(self, slices: Sequence[Slice], qp: int) -> tuple[int, ...]:
        """The step of σ that codes each slice in the fewest bits, or `qp` for all where a section would cost more."""
        tried = [max(0, min(255, qp + offset)) for offset in SCALE_QP_OFFSETS]
        chosen, saved = [], 0.0
        for symbols, sigma in slices:
            bits = {
                scale_qp: self._y_tables.bits(symbols, scale_indexes(sigma / step_size(scale_qp), self.scale_table)[0])
                for scale_qp in tried
            }
            chosen.append(min(bits, key=bits.get))
            saved += bits[qp] - bits[chosen[-1]]
        return tuple(chosen) if saved > 8 * section_size(bytes(self.num_slices)) else (qp,) * self.num_slices

    def require_enough(self, sections: Mapping[SectionType, bytes], shapes: LatentShapes) -> None:
        """Refuse a picture that is larger than its streams can say, before anything is computed for it.

        They cannot be shorter than the cheapest symbols of all positions. Raises `CorruptFile`.
        """
        least = {
            SectionType.Z: math.prod(shapes.z[1:]) * self._z_tables.least_costs.sum(),
            SectionType.Y: math.prod(shapes.y) * self._y_tables.least_costs.min(),
        }
        for kind, bits in least.items():
            if 8 * (len(sections[kind]) + STRIPPED_BYTES) < bits:
                raise CorruptFile(section_name(kind), f"{len(sections[kind])} bytes are too few for the picture's size")

    @torch.inference_mode()
    def decode(
        self,
        sections: Mapping[SectionType, bytes],
        shapes: LatentShapes,
        quality: float,
        qp: int,
        native: bool,
        on_slice: Callable[[Tensor, Tensor], None] = lambda symbols, sigma: None,
    ) -> Tensor:
        """ŷ [1, M, h, w]. Raises `CorruptFile`, or `IndexMismatch` naming the slice.

        `on_slice` hears of the symbols of each slice and of σ in its steps.
        """
        walker, dtype = self.walker(native)
        device = self._medians.device
        step = step_size(qp)
        z_hat = self.decode_z(sections, shapes, dtype)

        checksums, payload = split_y(sections[SectionType.Y], self.num_slices)
        y_decoder = SymbolDecoder(payload, section_name(SectionType.Y))
        listed = [[] for _ in range(self.num_slices)]
        if SectionType.INDEX_LIST in sections:
            listed = read_index_list(sections[SectionType.INDEX_LIST], self.num_slices)
        scale_qps = (qp,) * self.num_slices
        if SectionType.SCALE_QP in sections:
            scale_qps = read_scale_qps(sections[SectionType.SCALE_QP], self.num_slices)

        def read(i: int, mu: Tensor, sigma: Tensor) -> Tensor:
            scale_step = step_size(scale_qps[i])
            indexes, _ = scale_indexes(_flat_float(sigma) / scale_step, self.scale_table)
            for position, index in listed[i]:
                if position >= len(indexes) or index >= len(self.scale_table):
                    raise CorruptFile(section_name(SectionType.INDEX_LIST), "an entry is out of range")
                indexes[position] = index
            if checksum(indexes) != checksums[i]:
                raise IndexMismatch(i)
            symbols = _tensor(y_decoder.decode(indexes, self._y_tables), dtype, device).view_as(mu)
            on_slice(symbols, sigma / scale_step)
            return symbols * step + mu

        return walker.walk(z_hat, quality, read).y_hat

    def decode_z(
        self, sections: Mapping[SectionType, bytes], shapes: LatentShapes, dtype: torch.dtype = torch.float32
    ) -> Tensor:
        """ẑ [1, N, hz, wz]. Raises `CorruptFile`."""
        shape = (1, *shapes.z)
        decoder = SymbolDecoder(sections[SectionType.Z], section_name(SectionType.Z))
        symbols = decoder.decode(_channel_indexes(shape), self._z_tables)
        return _tensor(symbols, dtype, self._medians.device).view(shape) + self._medians.to(dtype)


def _checked(symbols: Tensor) -> Tensor:
    if not bool((symbols.abs() < MAX_SYMBOL).all()):  # also false for NaN
        raise BadCheckpoint("the model's latents are not finite: its weights are damaged")
    return symbols


def _flat(symbols: Tensor) -> np.ndarray:
    return symbols.reshape(-1).to(torch.int64).cpu().numpy()


def _flat_float(x: Tensor) -> np.ndarray:
    return x.reshape(-1).to(torch.float64).cpu().numpy()


def _tensor(symbols: np.ndarray, dtype: torch.dtype, device: torch.device) -> Tensor:
    return torch.from_numpy(symbols).to(device=device, dtype=dtype)


def _channel_indexes(shape: tuple[int, ...]) -> np.ndarray:
    return np.repeat(np.arange(shape[1]), shape[2] * shape[3])

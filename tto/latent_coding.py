"""Latents to bytes and back: one walk over the parts, with the entropy model in float64.

    y, z ─ encode ─ sections z, y, index list ─ decode ─ y_hat      (the same y_hat on both sides)

Shapes: one image; `M` channels of y, `N` of z, `h w` size of y, `hz wz` of z, `n` values of one part.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby

import numpy as np
import torch
from torch import Tensor

from base_models import BaseModel, LatentShapes, Memory
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
from tto.device import has_float64
from tto.entropy_coding import SymbolDecoder, SymbolEncoder, Tables, checksum
from tto.errors import BadCheckpoint, CorruptFile, IndexMismatch, WrongLength
from tto.memory import Room
from tto.table_choice import ByChannel, ByScale, ByScaleAndFraction, Centre, TableChoice

MAX_SYMBOL = 1 << 30
TABLES_KEPT = 8
"""Of those that depend on quality and step, which files choose."""
SCALE_QP_OFFSETS = range(-4, 16, 2)
"""Steps tried for σ, from y's own on: an octave has 32, and the tables are 5.7 apart. Refined latents are narrower than
the network was trained to expect, and its index is rounded up."""
STRIPPED_BYTES = 16
"""A stream loses its trailing zero bytes; more than so many have no chance to be there."""


@dataclass(frozen=True)
class CodedPart:
    """Symbols int64 [n] of part `number`, what they are centred on, and σ float64 [n], None for a factorized prior."""

    number: int
    symbols: np.ndarray
    centre: Centre
    sigma: np.ndarray | None


class LatentCoder:
    """Codes the latents of one base model.

    In portable mode everything that decides an index runs in float64; `native` mode uses the model as it is (float32),
    is faster, and decodes only where the arithmetic is the same.
    """

    def __init__(self, model: BaseModel, room: Room | None = None):
        """Walks keep within `room` in portable mode; tiles would change the float32 that native files rely on."""
        self._room = room
        self._native_walker = model
        device = model.z_medians().device
        self._exact_device = device if has_float64(device) else torch.device("cpu")
        exact = model if self._exact_device == device else copy.deepcopy(model).cpu()
        self.portable_walker = exact.entropy_walker(torch.float64)
        self._z_tables = lru_cache(TABLES_KEPT)(lambda step: Tables.of(model.z_tables(step)))
        self._y_tables = lru_cache(TABLES_KEPT)(lambda step, quality: Tables.of(model.y_tables(step, quality)))
        self.choice = table_choice(model)
        self._medians = model.z_medians()
        self.num_slices = model.slices

    def walker(self, native: bool) -> tuple[BaseModel, torch.dtype]:
        """What walks over the parts, and in which precision: on the model's device, if that has float64."""
        return (self._native_walker, torch.float32) if native else (self.portable_walker, torch.float64)

    def _device(self, native: bool) -> torch.device:
        """Where that is."""
        return self._medians.device if native else self._exact_device

    def _memory(self, shape: Sequence[int], native: bool) -> Memory:
        """For a walk over y of a shape."""
        height, width = (side * self._native_walker.y_stride for side in shape[-2:])
        return None if native or self._room is None else self._room.for_picture(height, width)

    def tables(self, step: float, quality: float) -> Tables:
        """Those of y. Only a factorized prior has others for each step and quality."""
        return self._y_tables(step, quality) if isinstance(self.choice, ByChannel) else self._y_tables(1.0, 1.0)

    def z_tables(self, quality: float) -> Tables:
        """Those of z. Few models have others for each quality."""
        return self._z_tables(self._native_walker.z_step(quality))

    @torch.inference_mode()
    def encode(
        self, y: Tensor, z: Tensor, quality: float, qp: int, native: bool = False, fit_scales: bool = False
    ) -> tuple[dict[SectionType, bytes], Tensor]:
        """Rounds y [1, M, h, w] and z [1, N, hz, wz] and codes them.

        `fit_scales` gives σ of each slice a step of its own where that saves bytes; parts are kept for that until all
        are known. Returns the sections and ŷ, float32, as the decoder will have it. Raises `BadCheckpoint` where
        latents are not finite or absurdly large, which only damaged weights give.
        """
        walker, dtype = self.walker(native)
        step = step_size(qp)
        y, z = y.contiguous(), z.contiguous()  # the decoder's layout: another would round ŷ otherwise
        z_symbols = _checked((z - self._medians).round())
        device = self._device(native)
        y = y.to(device)
        z_encoder = SymbolEncoder()
        z_encoder.encode(_flat(z_symbols), _channel_indexes(z.shape), self.z_tables(quality))

        tables = self.tables(step, quality)
        writer, coded = _Writer(self, tables, qp, native), []
        fits = fit_scales and not isinstance(self.choice, ByChannel)
        y_parts, channels = walker.split_y(y), self._channels(y.shape)
        on_integers = walker.grid == "integer"
        known = (y.to(dtype) / step).round() * step if on_integers and not native else None  # native: as the decoder

        def round_part(i: int, mu: Tensor, sigma: Tensor | None) -> Tensor:
            centre = self.choice.centre(_flat_float(_checked(mu)) / step, channels[i])
            around = 0.0 if on_integers else mu
            whole = _checked(((y_parts[i].to(dtype) - around) / step).round())
            part = CodedPart(i, _flat(whole) - centre.shift, centre, None if sigma is None else _flat_float(sigma))
            if fits:
                coded.append(part)
            else:
                writer.add(part, qp)
            return whole * step + around

        z_hat = z_symbols.to(device).to(dtype) + self._medians.to(device).to(dtype)
        y_hat = walker.code(z_hat, quality, round_part, known, self._memory(y.shape, native)).float()
        if fits:
            scale_qps = self._fitting_scale_qps(self._by_slice(coded), qp, tables)
            for part in coded:
                writer.add(part, scale_qps[self.slice_of(part.number)])
        return {SectionType.Z: z_encoder.data()} | writer.sections(), y_hat

    def slice_of(self, part: int) -> int:
        return self._native_walker.slice_of(part)

    def _by_slice(self, coded: Sequence[CodedPart]) -> list[list[CodedPart]]:
        return [list(parts) for _, parts in groupby(coded, lambda part: self.slice_of(part.number))]

    def indexes(self, part: CodedPart, scale_qp: int) -> tuple[np.ndarray, np.ndarray]:
        sigma = None if part.sigma is None else part.sigma / step_size(scale_qp)
        return self.choice.indexes(sigma, part.centre)

    def _fitting_scale_qps(self, slices: Sequence[Sequence[CodedPart]], qp: int, tables: Tables) -> tuple[int, ...]:
        """The step of σ that codes each slice in the fewest bits, or `qp` for all where a section would cost more."""
        tried = [max(0, min(255, qp + offset)) for offset in SCALE_QP_OFFSETS]
        chosen, saved = [], 0.0
        for parts in slices:
            bits = {
                scale_qp: sum(float(tables.bits(part.symbols, self.indexes(part, scale_qp)[0]).sum()) for part in parts)
                for scale_qp in tried
            }
            chosen.append(min(bits, key=bits.__getitem__))
            saved += bits[qp] - bits[chosen[-1]]
        return tuple(chosen) if saved > 8 * section_size(bytes(self.num_slices)) else (qp,) * self.num_slices

    def require_enough(
        self, sections: Mapping[SectionType, bytes], shapes: LatentShapes, quality: float, qp: int
    ) -> None:
        """Refuse a picture that is larger than its streams can say, before anything is computed for it.

        They cannot be shorter than the cheapest symbols of all positions. Raises `WrongLength`.
        """
        costs = self.tables(step_size(qp), quality).least_costs
        of_position = costs.sum() if isinstance(self.choice, ByChannel) else shapes.y[0] * costs.min()
        least = {
            SectionType.Z: math.prod(shapes.z[1:]) * self.z_tables(quality).least_costs.sum(),
            SectionType.Y: math.prod(shapes.y[1:]) * of_position,
        }
        for kind, bits in least.items():
            if 8 * (len(sections[kind]) + STRIPPED_BYTES) < bits:
                raise WrongLength(section_name(kind), f"{len(sections[kind])} bytes are too few for the picture's size")

    @torch.inference_mode()
    def decode(
        self,
        sections: Mapping[SectionType, bytes],
        shapes: LatentShapes,
        quality: float,
        qp: int,
        native: bool,
        on_part: Callable[[Tensor], None] | None = None,
    ) -> Tensor:
        """ŷ [1, M, h, w], float32. Raises `CorruptFile`, or `IndexMismatch` naming the slice.

        `on_part` is called with the bits of each part's symbols, in the part's shape.
        """
        walker, dtype = self.walker(native)
        device = self._device(native)
        step = step_size(qp)
        z_hat = self.decode_z(sections, shapes, quality, dtype)
        tables, reader = self.tables(step, quality), self._reader(sections, shapes, qp)
        decoder = SymbolDecoder(reader.payload, section_name(SectionType.Y))
        on_integers = walker.grid == "integer"

        def read(i: int, mu: Tensor, sigma: Tensor | None) -> Tensor:
            centre = self.choice.centre(_flat_float(mu) / step, reader.channels[i])
            indexes = reader.indexes(i, centre, None if sigma is None else _flat_float(sigma))
            symbols = decoder.decode(indexes, tables)
            if on_part is not None:
                on_part(torch.from_numpy(tables.bits(symbols, indexes)).view(mu.shape))
            y_hat = _tensor(symbols + centre.shift, dtype, device).view_as(mu).mul_(step)
            return y_hat if on_integers else y_hat.add_(mu)

        return walker.code(z_hat, quality, read, memory=self._memory(shapes.y, native)).float()

    def _reader(self, sections: Mapping[SectionType, bytes], shapes: LatentShapes, qp: int) -> IndexReader:
        """Raises `CorruptFile`."""
        checksums, payload = split_y(sections[SectionType.Y], self.num_slices)
        listed = [[] for _ in range(self.num_slices)]
        if SectionType.INDEX_LIST in sections:
            index_bytes = self.choice.index_type.itemsize
            body, values = sections[SectionType.INDEX_LIST], math.prod(shapes.y)
            listed = read_index_list(body, self.num_slices, values, index_bytes)
            if not any(listed):
                raise CorruptFile(section_name(SectionType.INDEX_LIST), "it lists nothing")
        scale_qps = (qp,) * self.num_slices
        if SectionType.SCALE_QP in sections:
            if isinstance(self.choice, ByChannel):
                raise CorruptFile(section_name(SectionType.SCALE_QP), "the model has no sigma")
            scale_qps = read_scale_qps(sections[SectionType.SCALE_QP], self.num_slices)
        channels = self._channels((1, *shapes.y))
        slices = [self._native_walker.slice_of(part) for part in range(len(channels))]
        return IndexReader(self.choice, channels, slices, checksums, listed, scale_qps, payload)

    def decode_z(
        self,
        sections: Mapping[SectionType, bytes],
        shapes: LatentShapes,
        quality: float,
        dtype: torch.dtype = torch.float32,
    ) -> Tensor:
        """ẑ [1, N, hz, wz]. Raises `CorruptFile`."""
        shape = (1, *shapes.z)
        if sections[SectionType.Z] and not math.prod(shape):
            raise CorruptFile(section_name(SectionType.Z), "the model has no z")
        decoder = SymbolDecoder(sections[SectionType.Z], section_name(SectionType.Z))
        symbols = decoder.decode(_channel_indexes(shape), self.z_tables(quality))
        device = self._device(native=dtype != torch.float64)
        return _tensor(symbols, dtype, device).view(shape) + self._medians.to(device).to(dtype)

    def _channels(self, shape: Sequence[int]) -> list[np.ndarray | None]:
        """For each part the channel of y of each of its values, flat, where tables depend on it."""
        parts = self._native_walker.split_y(torch.arange(shape[1])[None, :, None, None].expand(*shape))
        return [_flat(part) if isinstance(self.choice, ByChannel) else None for part in parts]


class _Writer:
    """The sections of y, from parts in coding order and the step of σ of each."""

    def __init__(self, coder: LatentCoder, tables: Tables, qp: int, native: bool):
        self._coder, self._tables, self._qp, self._native = coder, tables, qp, native
        self._symbols = SymbolEncoder()
        self._checksums, self._starts = [0] * coder.num_slices, [0] * coder.num_slices
        self._listed: list[list[tuple[int, int]]] = [[] for _ in range(coder.num_slices)]
        self._scale_qps = [qp] * coder.num_slices

    def add(self, part: CodedPart, scale_qp: int) -> None:
        number = self._coder.slice_of(part.number)
        indexes, near = self._coder.indexes(part, scale_qp)
        self._symbols.encode(part.symbols, indexes, self._tables)
        positions = () if self._native else np.flatnonzero(near).tolist()
        start = self._starts[number]
        self._listed[number] += [(start + position, int(indexes[position])) for position in positions]
        self._checksums[number] = checksum(indexes, self._checksums[number])
        self._starts[number] += len(indexes)
        self._scale_qps[number] = scale_qp

    def sections(self) -> dict[SectionType, bytes]:
        sections = {SectionType.Y: join_y(self._checksums, self._symbols.data())}
        if any(self._listed):
            index_bytes = self._coder.choice.index_type.itemsize
            sections[SectionType.INDEX_LIST] = write_index_list(self._listed, index_bytes)
        if any(scale_qp != self._qp for scale_qp in self._scale_qps):
            sections[SectionType.SCALE_QP] = bytes(self._scale_qps)
        return sections


@dataclass
class IndexReader:
    """What a file says of the tables of y, part by part in coding order; `slices` has the slice of each part.

    `start`, `crc` and `entry` are how many indexes of the current slice there were so far, their checksum, and how many
    of its listed ones.
    """

    choice: TableChoice
    channels: list[np.ndarray | None]
    slices: list[int]
    checksums: Sequence[int]
    listed: Sequence[Sequence[tuple[int, int]]]
    scale_qps: Sequence[int]
    payload: bytes
    start: int = 0
    crc: int = 0
    entry: int = 0

    def indexes(self, part: int, centre: Centre, sigma: np.ndarray | None) -> np.ndarray:
        """Tables of a part, those that the file lists in their places; `centre` may be mended by them.

        Raises `CorruptFile`, and `IndexMismatch` at the last part of a slice whose checksum is another.
        """
        number = self.slices[part]
        if sigma is not None:
            sigma = sigma / step_size(self.scale_qps[number])
        indexes, _ = self.choice.indexes(sigma, centre)
        end = self.start + len(indexes)
        ends_slice = part + 1 == len(self.slices) or self.slices[part + 1] != number
        entries = self.listed[number]
        while self.entry < len(entries) and entries[self.entry][0] < end:
            position, index = entries[self.entry]
            try:
                self.choice.replace(centre, indexes, position - self.start, index)
            except ValueError as error:
                raise CorruptFile(section_name(SectionType.INDEX_LIST), str(error)) from None
            self.entry += 1
        if ends_slice and self.entry < len(entries):
            raise CorruptFile(section_name(SectionType.INDEX_LIST), "an entry is out of range")
        self.start, self.crc = end, checksum(indexes, self.crc)
        if ends_slice:
            if self.crc != self.checksums[number]:
                raise IndexMismatch(number)
            self.start = self.crc = self.entry = 0
        return indexes


def table_choice(model: BaseModel) -> TableChoice:
    """How a model's tables are chosen."""
    if model.scale_table is None:
        return ByChannel()
    kind = ByScaleAndFraction if model.grid == "integer" else ByScale
    return kind(model.scale_table.cpu().numpy().astype(np.float64))


def _checked(symbols: Tensor) -> Tensor:
    if not bool((symbols.abs() < MAX_SYMBOL).all()):  # also false for NaN
        raise BadCheckpoint("the model's latents are not finite: its weights are damaged")
    return symbols


def _flat(symbols: Tensor) -> np.ndarray:
    return symbols.reshape(-1).to(torch.int64).cpu().numpy()


def _flat_float(x: Tensor) -> np.ndarray:
    return x.reshape(-1).cpu().to(torch.float64).numpy()


def _tensor(symbols: np.ndarray, dtype: torch.dtype, device: torch.device) -> Tensor:
    return torch.from_numpy(symbols).to(device=device, dtype=dtype)


def _channel_indexes(shape: tuple[int, ...]) -> np.ndarray:
    return np.repeat(np.arange(shape[1]), shape[2] * shape[3])

"""Side information of one picture: what it says, what it costs, and what it does.

    codes ── section compensation ── codes ── codebook, MSC decoder ── c      ŷ + m ⊙ c ── g_s ── x̂
    levels ─ section filter ──────── levels ─ coefficients ─────────── F      x̂ + F(x̂)
    syntax ─ section syntax ──────── syntax ─ DDT decoder ──────────── K      x̂ + K·x̂, of what that gives

`K` is computed in float64. Shapes: `M` channels of y, `h w` its size.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from tto.container import SectionType, section_name, section_size
from tto.errors import CorruptFile, WrongModel
from tto.modules.adaptive_filter import RINGS, ROWS, apply_filter
from tto.modules.ddt import apply_transform
from tto.modules.side import SideModules
from tto.side_coding import (
    FINGERPRINT_BYTES,
    NO_CODE,
    FilterLevels,
    Syntax,
    decode_codes,
    decode_filter,
    decode_syntax,
    encode_codes,
    encode_filter,
    encode_syntax,
)

OF_MODULES = (SectionType.SYNTAX, SectionType.COMPENSATION)
SIDE_SECTIONS = (*OF_MODULES, SectionType.FILTER)


@dataclass(frozen=True, eq=False)
class Side:
    """Side information; without any, nothing is changed and nothing costs.

    `codes` int64 [h, w] with `NO_CODE` where the mask is off, `compensation` [1, M, h, w] what they add to ŷ (after
    LRP, gains not undone), `coefficients` [rows, taps] are the filter's, `matrix` [1, 3, 3] is K. Made by `SideCoder`.
    """

    sections: Mapping[SectionType, bytes] = field(default_factory=dict)
    codes: np.ndarray | None = None
    syntax: Syntax | None = None
    levels: FilterLevels | None = None
    compensation: Tensor | None = None
    coefficients: Tensor | None = None
    matrix: Tensor | None = None

    @property
    def bits(self) -> int:
        """What the sections take in the file."""
        return 8 * sum(section_size(body) for body in self.sections.values())

    def on_latent(self, y_hat: Tensor) -> Tensor:
        return y_hat if self.compensation is None else y_hat + self.compensation.to(y_hat.dtype)

    def on_picture(self, x_hat: Tensor) -> Tensor:
        """x̂ [1, 3, H, W], not clamped."""
        with torch.autocast(x_hat.device.type, enabled=False):
            if self.coefficients is not None:
                x_hat = apply_filter(x_hat, self.coefficients)
            if self.matrix is not None:
                x_hat = apply_transform(x_hat, self.matrix.to(x_hat.dtype))
        return x_hat


NO_SIDE = Side()


class SideCoder:
    """Codes and reads side information: filters, and what a model's side modules understand, where it has any."""

    def __init__(self, modules: SideModules | None, device: torch.device = torch.device("cpu")):  # noqa: B008
        self.modules = modules
        self._device = device
        self.fingerprint = b""
        if modules is None:
            return
        self.fingerprint = modules.fingerprint
        self.frequencies = modules.msc.frequencies.cpu().numpy().astype(np.int64)
        with torch.no_grad():
            self.compensations = modules.msc.compensations().float().to(device)  # [K, M]
        self.transform_decoder = copy.deepcopy(modules.ddt.decoder).cpu().double().eval().requires_grad_(False)

    def make(
        self, codes: np.ndarray | None = None, syntax: Syntax | None = None, levels: FilterLevels | None = None
    ) -> Side:
        """Side information of codes int64 [h, w], a syntax and a filter; codes and filters of nothing are left out."""
        if levels is not None and not any(map(any, levels.levels)):
            levels = None
        if codes is not None and not (codes != NO_CODE).any():
            codes = None
        sections: dict[SectionType, bytes] = {}
        if codes is not None:
            sections[SectionType.COMPENSATION] = self.fingerprint + encode_codes(codes, self.frequencies)
        if syntax is not None:
            sections[SectionType.SYNTAX] = self.fingerprint + encode_syntax(syntax)
        if levels is not None:
            sections[SectionType.FILTER] = encode_filter(levels, RINGS)
        return self._side(sections, codes, syntax, levels)

    def read(self, sections: Mapping[SectionType, bytes], size: tuple[int, int]) -> Side:
        """The side information of a file whose latent has `size` (h, w). Raises `WrongModel` or `CorruptFile`."""
        if self.modules is None and any(kind in sections for kind in OF_MODULES):
            raise WrongModel("the file was made with side modules, which this model does not have")
        codes = syntax = levels = None
        if SectionType.COMPENSATION in sections:
            codes = decode_codes(self._body(sections, SectionType.COMPENSATION), size, self.frequencies)
        if SectionType.SYNTAX in sections:
            syntax = decode_syntax(self._body(sections, SectionType.SYNTAX))
        if SectionType.FILTER in sections:
            levels = decode_filter(sections[SectionType.FILTER], ROWS, RINGS)
        own = {kind: sections[kind] for kind in SIDE_SECTIONS if kind in sections}
        return self._side(own, codes, syntax, levels)

    @torch.no_grad()
    def matrix(self, syntax: Tensor) -> Tensor:
        """Syntax float64 [1, 9] → K [1, 3, 3] float64."""
        return self.transform_decoder(syntax).to(self._device)

    def _side(
        self,
        sections: Mapping[SectionType, bytes],
        codes: np.ndarray | None,
        syntax: Syntax | None,
        levels: FilterLevels | None,
    ) -> Side:
        compensation = None if codes is None else self._compensation(codes)
        coefficients = None if levels is None else coefficients_of(levels)
        matrix = None if syntax is None else self.matrix(values_of(syntax))
        return Side(sections, codes, syntax, levels, compensation, coefficients, matrix)

    def _compensation(self, codes: np.ndarray) -> Tensor:
        padded = torch.cat([self.compensations, torch.zeros_like(self.compensations[:1])])  # NO_CODE is the last
        return padded[torch.from_numpy(codes).to(self._device)].permute(2, 0, 1)[None].contiguous()

    def _body(self, sections: Mapping[SectionType, bytes], kind: SectionType) -> bytes:
        body = sections[kind]
        if len(body) <= FINGERPRINT_BYTES:
            raise CorruptFile(section_name(kind), f"{len(body)} bytes are too few")
        made_by = body[:FINGERPRINT_BYTES]
        if made_by != self.fingerprint:
            raise WrongModel(
                f"the file was made with other side modules (fingerprint {made_by.hex()}, "
                f"this model has {self.fingerprint.hex()})"
            )
        return body[FINGERPRINT_BYTES:]


def values_of(syntax: Syntax) -> Tensor:
    """[1, 9] float64, exact."""
    return torch.tensor([syntax.levels], dtype=torch.float64) * 2.0**-syntax.exponent


def coefficients_of(levels: FilterLevels) -> Tensor:
    """[rows, taps] float32, exact."""
    return torch.tensor(levels.levels, dtype=torch.float32) * 2.0**-levels.exponent

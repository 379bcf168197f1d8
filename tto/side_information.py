"""Side information of one picture: what it says, what it costs, and what it does.

    codes ── section compensation ── codes ── codebook, MSC decoder ── c      ŷ + m ⊙ c ── g_s ── x̂ + K·x̂
    syntax ─ section syntax ──────── syntax ─ DDT decoder ──────────── K

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
from tto.modules.ddt import apply_transform
from tto.modules.side import SideModules
from tto.side_coding import (
    FINGERPRINT_BYTES,
    NO_CODE,
    Syntax,
    decode_codes,
    decode_syntax,
    encode_codes,
    encode_syntax,
)

SIDE_SECTIONS = (SectionType.SYNTAX, SectionType.COMPENSATION)


@dataclass(frozen=True, eq=False)
class Side:
    """Side information; without any, nothing is changed and nothing costs.

    `codes` int64 [h, w] with `NO_CODE` where the mask is off, `compensation` [1, M, h, w] what they add to ŷ (after
    LRP, gains not undone), `matrix` [1, 3, 3] is K. Made by `SideCoder`.
    """

    sections: Mapping[SectionType, bytes] = field(default_factory=dict)
    codes: np.ndarray | None = None
    syntax: Syntax | None = None
    compensation: Tensor | None = None
    matrix: Tensor | None = None

    @property
    def bits(self) -> int:
        """What the sections take in the file."""
        return 8 * sum(section_size(body) for body in self.sections.values())

    def on_latent(self, y_hat: Tensor) -> Tensor:
        return y_hat if self.compensation is None else y_hat + self.compensation.to(y_hat.dtype)

    def on_picture(self, x_hat: Tensor) -> Tensor:
        """x̂ [1, 3, H, W], not clamped."""
        if self.matrix is None:
            return x_hat
        return apply_transform(x_hat, self.matrix.to(x_hat.dtype))


NO_SIDE = Side()


class SideCoder:
    """Codes and reads the side information that a model's side modules understand."""

    def __init__(self, modules: SideModules, device: torch.device):
        self.modules = modules
        self.fingerprint = modules.fingerprint
        self.frequencies = modules.msc.frequencies.cpu().numpy().astype(np.int64)
        with torch.no_grad():
            self.compensations = modules.msc.compensations().float().to(device)  # [K, M]
        self.transform_decoder = copy.deepcopy(modules.ddt.decoder).cpu().double().eval().requires_grad_(False)
        self._device = device

    def make(self, codes: np.ndarray | None = None, syntax: Syntax | None = None) -> Side:
        """Side information of codes int64 [h, w] and a syntax; codes without a mask are left out."""
        if codes is not None and not (codes != NO_CODE).any():
            codes = None
        sections: dict[SectionType, bytes] = {}
        if codes is not None:
            sections[SectionType.COMPENSATION] = self.fingerprint + encode_codes(codes, self.frequencies)
        if syntax is not None:
            sections[SectionType.SYNTAX] = self.fingerprint + encode_syntax(syntax)
        return self._side(sections, codes, syntax)

    def read(self, sections: Mapping[SectionType, bytes], size: tuple[int, int]) -> Side:
        """The side information of a file whose latent has `size` (h, w). Raises `WrongModel` or `CorruptFile`."""
        codes = syntax = None
        if SectionType.COMPENSATION in sections:
            codes = decode_codes(self._body(sections, SectionType.COMPENSATION), size, self.frequencies)
        if SectionType.SYNTAX in sections:
            syntax = decode_syntax(self._body(sections, SectionType.SYNTAX))
        own = {kind: sections[kind] for kind in SIDE_SECTIONS if kind in sections}
        return self._side(own, codes, syntax)

    @torch.no_grad()
    def matrix(self, syntax: Tensor) -> Tensor:
        """Syntax float64 [1, 9] → K [1, 3, 3] float64."""
        return self.transform_decoder(syntax).to(self._device)

    def _side(self, sections: Mapping[SectionType, bytes], codes: np.ndarray | None, syntax: Syntax | None) -> Side:
        compensation = None if codes is None else self._compensation(codes)
        matrix = None if syntax is None else self.matrix(values_of(syntax))
        return Side(sections, codes, syntax, compensation, matrix)

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


def needs_side_modules(sections: Mapping[SectionType, bytes]) -> bool:
    return any(kind in sections for kind in SIDE_SECTIONS)


def values_of(syntax: Syntax) -> Tensor:
    """[1, 9] float64, exact."""
    return torch.tensor([syntax.levels], dtype=torch.float64) * 2.0**-syntax.exponent

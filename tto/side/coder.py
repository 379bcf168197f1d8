"""All kinds of side information that one model can have, made and read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, TypeVar

import torch

from tto.container import SectionType
from tto.errors import BadArgument, WrongModel
from tto.side.adaptation import AdaptationCoder
from tto.side.compensation import CompensationCoder
from tto.side.filter import FilterCoder
from tto.side.side import NO_SIDE, PartCoder, Side
from tto.side.transform import TransformCoder

if TYPE_CHECKING:
    from tto.side.weights import SideModules

KINDS: tuple[type[PartCoder], ...] = (AdaptationCoder, CompensationCoder, FilterCoder, TransformCoder)
CPU = torch.device("cpu")
OneKind = TypeVar("OneKind", bound=PartCoder)


class SideCoder:
    """The coders of one model, each under its class: `coder[FilterCoder].make(levels)`."""

    def __init__(
        self,
        modules: SideModules | None = None,
        device: torch.device = CPU,
        kinds: tuple[type[PartCoder], ...] = KINDS,
    ):
        self.modules = modules
        self.fingerprint = b"" if modules is None else modules.fingerprint
        self._kinds = kinds
        self._coders = {kind: kind(modules, device) for kind in kinds if modules is not None or not kind.needs_modules}

    def __contains__(self, kind: type[PartCoder]) -> bool:
        return kind in self._coders

    def __getitem__(self, kind: type[OneKind]) -> OneKind:
        """Raises `BadArgument` where the model has no side information of this kind."""
        if kind not in self._coders:
            raise BadArgument(f"this model has no side information of kind {kind.part.__name__.lower()}")
        return self._coders[kind]

    def read(self, sections: Mapping[SectionType, bytes], size: tuple[int, int]) -> Side:
        """The side information of a file whose latent has `size` (h, w). Raises `WrongModel` or `CorruptFile`."""
        side = NO_SIDE
        for kind in self._kinds:
            if kind.part.section not in sections:
                continue
            if kind not in self._coders:
                raise WrongModel("the file was made with side modules, which this model does not have")
            side = side.with_(self._coders[kind].read(sections[kind.part.section], size))
        return side

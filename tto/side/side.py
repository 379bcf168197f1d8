"""Side information of one picture: an ordered tuple of parts, each of another kind.

    ŷ ── part.on_latent, one after the other ── g_s ── x̂ ── part.on_picture, one after the other ── picture
                                                 └ of part.on_network

A part says what it changes (for example levels of filter coefficients), has the bytes that say so in the file, and does
it. A model's `PartCoder` of that kind makes and reads it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar, TypeVar

import torch
from torch import Tensor

from tto.container import MODULES_FINGERPRINT, SectionType, section_name, section_size
from tto.errors import WrongLength, WrongModel

if TYPE_CHECKING:
    from base_models import BaseModel
    from tto.side.weights import SideModules


class Part(ABC):
    """One kind of side information. Where `body` is empty it says nothing, and is left out.

    Parts act in ascending order of their kind's `place`.
    """

    section: ClassVar[SectionType]
    place: ClassVar[int]
    body: bytes

    def on_latent(self, y_hat: Tensor) -> Tensor:
        """ŷ [1, M, h, w] after LRP, gains not undone, as the synthesis is to have it."""
        return y_hat

    def on_network(self, model: BaseModel) -> BaseModel:
        """The network whose synthesis this picture is to have. Raises `CorruptFile` where that cannot be."""
        return model

    def on_picture(self, x_hat: Tensor) -> Tensor:
        """x̂ [1, 3, H, W], not clamped; its three channels are equal where the picture is gray."""
        return x_hat


OnePart = TypeVar("OnePart", bound=Part)


@dataclass(frozen=True, eq=False)
class Side:
    """Without parts nothing is changed and nothing costs."""

    parts: tuple[Part, ...] = ()

    def with_(self, part: Part) -> Side:
        """With this part in place of the one of its kind; without that one where the part says nothing."""
        others = self.without(type(part))
        if not part.body:
            return others
        return replace(self, parts=tuple(sorted((*others.parts, part), key=lambda one: one.place)))

    def without(self, kind: type[Part]) -> Side:
        return replace(self, parts=tuple(part for part in self.parts if not isinstance(part, kind)))

    def before(self, kind: type[Part]) -> Side:
        """The parts that act before those of a kind."""
        return replace(self, parts=tuple(part for part in self.parts if part.place < kind.place))

    def get(self, kind: type[OnePart]) -> OnePart | None:
        """The part of a kind, if there is one."""
        return next((part for part in self.parts if isinstance(part, kind)), None)

    @property
    def sections(self) -> dict[SectionType, bytes]:
        return {part.section: part.body for part in self.parts}

    @property
    def bits(self) -> int:
        """What the sections take in the file."""
        return 8 * sum(section_size(part.body) for part in self.parts)

    def on_latent(self, y_hat: Tensor) -> Tensor:
        for part in self.parts:
            y_hat = part.on_latent(y_hat)
        return y_hat

    def on_network(self, model: BaseModel) -> BaseModel:
        for part in self.parts:
            model = part.on_network(model)
        return model

    def on_picture(self, x_hat: Tensor) -> Tensor:
        """x̂ [1, 3, H, W], not clamped."""
        with torch.autocast(x_hat.device.type, enabled=False):
            for part in self.parts:
                x_hat = part.on_picture(x_hat)
        return x_hat


NO_SIDE = Side()


class PartCoder(ABC):
    """Makes and reads the parts of one kind for one model. Each has a `make` of its own, from what the part says."""

    part: ClassVar[type[Part]]
    needs_modules: ClassVar[bool] = False
    """Whether there are none for a model without side modules."""

    def __init__(self, modules: SideModules | None, device: torch.device):
        self.modules, self.device = modules, device

    @abstractmethod
    def read(self, body: bytes, size: tuple[int, int]) -> Part:
        """The part whose section has this body, in a file whose latent has `size` (h, w).

        Raises `CorruptFile` or `WrongModel`.
        """


class ModulesPartCoder(PartCoder):
    """Of a kind that side modules understand: its section begins with their fingerprint."""

    needs_modules = True

    def __init__(self, modules: SideModules, device: torch.device):
        super().__init__(modules, device)
        self._fingerprint = modules.fingerprint

    def sealed(self, body: bytes) -> bytes:
        return self._fingerprint + body

    def opened(self, body: bytes) -> bytes:
        """Inverse of `sealed`. Raises `WrongLength` or `WrongModel`."""
        if len(body) <= MODULES_FINGERPRINT:
            raise WrongLength(section_name(self.part.section), f"{len(body)} bytes are too few")
        made_by = body[:MODULES_FINGERPRINT]
        if made_by != self._fingerprint:
            raise WrongModel(
                f"the file was made with other side modules (fingerprint {made_by.hex()}, "
                f"this model has {self._fingerprint.hex()})"
            )
        return body[MODULES_FINGERPRINT:]

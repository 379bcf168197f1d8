"""The dictionary entropy model with other networks' transforms, and beside ELIC's own contexts.

Source: Lu 2025, supplement Table 1.

Autoencoder and entropy model are chosen independently, the first by `CombinationConfig.autoencoder` and the second by
the registered name:

    autoencoder     own entropy model       dictionary              both
    DCAE            –                       dcae                    –
    ELIC            elic                    elic-dictionary         elic-both
    TCM             tcm, tcm-n128           tcm-dictionary          –
    FTIC            ftic                    ftic-dictionary         –

How contexts and dictionary meet in `elic-both` the paper does not say: here **[ours]** each group of channels asks the
dictionary once, with the hyper features and all groups before it, and both of its passes read the answer. Of the
dictionary's model it has the dictionary alone, no prediction of what rounding leaves.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from .base import BaseModel, Memory, Quality
from .dcae import DictionaryCoded, DictionaryModelConfig
from .dictionary import DictionaryAttention
from .elic import ELIC, ELICConfig
from .ftic import FTICConfig, whole_map_bytes
from .initialization import Down, Up
from .limits import check_multiple, check_ranges
from .registry import register, registered
from .tiles import Function


@dataclass(frozen=True)
class CombinationConfig(DictionaryModelConfig):
    """Size of a dictionary entropy model, and the `autoencoder` to put it into: a registered model that has transforms
    to take (`make_transforms`), whose size they keep.
    """

    autoencoder: str = "elic"

    @property
    def M(self) -> int:
        """Channels of y."""
        return registered(self.autoencoder)[1].M


class DictionaryCombination(DictionaryCoded):
    """The transforms of one network with the dictionary entropy model."""

    registered_name = "elic-dictionary"

    def __init__(self, config: CombinationConfig | None = None):
        super().__init__(config or CombinationConfig())
        network, sizes = registered(self.config.autoencoder)
        self._network: Any = network
        if not hasattr(network, "make_transforms"):
            raise ValueError(f"autoencoder is {self.config.autoencoder!r}, which has no transforms to take")
        check_multiple("M", sizes.M, self.config.num_slices)
        self.stride = self._network.stride  # pyright: ignore[reportAttributeAccessIssue] (of this network)
        self.g_a, self.g_s = self._network.make_transforms(sizes)
        self.make_dictionary_model(self.config, self.config.M)

    @property
    def walk_bytes(self) -> float:
        """Of the transforms alone."""
        sizes = registered(self.config.autoencoder)[1]
        return whole_map_bytes(sizes) if isinstance(sizes, FTICConfig) else 0.0

    def strides(self) -> list[tuple[Down, Up]]:
        return self._network.strides(self)


@dataclass(frozen=True)
class ELICDictionaryConfig(ELICConfig):
    """Sizes of an ELIC and of a dictionary."""

    dict_entries: int = 128
    dict_heads: int = 20
    dict_head_dim: int = 32
    msfa_scales: int = 3

    def __post_init__(self) -> None:
        super().__post_init__()
        check_ranges(self, dict_entries=(1, 65536), dict_heads=(1, 256), dict_head_dim=(1, 256), msfa_scales=(0, 16))


class ELICWithDictionary(ELIC):
    """ELIC whose groups of channels read the dictionary's answer beside their space-channel contexts."""

    registered_name = "elic-both"
    not_matrices = ("dt",)
    recognize = BaseModel.recognize  # pyright: ignore[reportAssignmentType] (of registered sizes only)

    def __init__(self, config: ELICDictionaryConfig | None = None):
        config = config or ELICDictionaryConfig()
        super().__init__(config, beside=config.M)
        self.dt = nn.Parameter(torch.randn(config.dict_entries, config.dict_heads * config.dict_head_dim))
        self.dt_cross_attention = nn.ModuleList(
            DictionaryAttention(
                2 * config.N + sum(config.groups[:k]),
                config.M, config.dict_heads, config.dict_head_dim, config.msfa_scales,
            )
            for k in range(len(config.groups))
        )  # fmt: skip

    def context(self, k: int, hyper: Tensor, earlier: Sequence[Tensor], memory: Memory) -> Tensor:
        attention = self.dt_cross_attention[k]
        ask = Function(lambda *known: attention(torch.cat(known, 1), self.dt), (attention,))
        (answer,) = self.bounded(f"dictionary {k}", [ask], (hyper, *earlier), memory)
        return torch.cat([super().context(k, hyper, earlier, memory), answer], 1)

    def explanations(self, z_hat: Tensor, quality: Quality, y_hat: Tensor) -> dict[str, Tensor]:
        """`dictionary`: how strongly the last group uses each entry at each position (Lu 2025, Fig. 8)."""
        hyper = self.h_s(z_hat / self.gain("gain_z", quality, z_hat))
        earlier = y_hat.split(self.slice_channels, 1)[:-1]
        last = cast(DictionaryAttention, self.dt_cross_attention[-1])
        return {"dictionary": last.attention_maps(torch.cat([hyper, *earlier], 1), self.dt)[0]}


SMALL: dict[str, Any] = dict(
    N=48, hyper_head_dim=16, num_slices=4, dict_entries=64, dict_heads=4, dict_head_dim=16, context_widths=(36, 32)
)

register("elic-dictionary", DictionaryCombination, CombinationConfig(autoencoder="elic"))
register("elic-both", ELICWithDictionary, ELICDictionaryConfig())
register("tcm-dictionary", DictionaryCombination, CombinationConfig(autoencoder="tcm"))
register("ftic-dictionary", DictionaryCombination, CombinationConfig(autoencoder="ftic"))
for autoencoder in ("elic-small", "tcm-small", "ftic-small"):
    register(f"{autoencoder}-dictionary", DictionaryCombination, CombinationConfig(autoencoder=autoencoder, **SMALL))
register(
    "elic-small-both",
    ELICWithDictionary,
    ELICDictionaryConfig(
        N=48, M=128, groups=(8, 8, 16, 32, 64), context_widths=(48, 32), dict_entries=64, dict_heads=4, dict_head_dim=16
    ),
)

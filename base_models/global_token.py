"""An ablation of DCAE: tokens made from each picture, quantized and coded, in place of the dictionary.

Source of the ablation: Lu 2025, Table 5.
Source of the tokens: J. Kim, B. Heo, J. Lee, "Joint Global and Local Hierarchical Priors for Learned Image
Compression", CVPR 2022. **[ours]** The tokens travel as further rows of z, under its factorized prior: row and column
mean nothing there, and what is left of the last row holds medians, which cost bits, too. The small network has 12
tokens where the published one has 8: they fill rows of 4 and of 6, as crops of 256 and pictures of 384 have them.

Shapes: `B` batch, `T` tokens, `N` channels of z, `hz wz` size of its own part, `C` = heads · D of a dictionary entry.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .base import LatentShapes, Memory, Quality, full_precision
from .dcae import DCAE, DCAEConfig, DictionaryModelConfig, HyperFeatures
from .initialization import fit_last_layer
from .limits import check_ranges
from .registry import register


@dataclass(frozen=True)
class GlobalTokenConfig(DCAEConfig):
    """Sizes of a DCAE; `dict_entries` counts the tokens of a picture, 8 in the paper."""

    swin_layers: tuple[int, int, int] = (0, 0, 4)
    dict_entries: int = 8
    msfa_scales: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_ranges(self, dict_entries=(1, 65536))


class TokenMaker(nn.Module):
    """Learned queries look at all of y: [B, M, h, w] → [B, N, T]."""

    not_matrices = ("queries",)

    def __init__(self, tokens: int, y_channels: int, z_channels: int):
        super().__init__()
        self.queries = nn.Parameter(torch.randn(tokens, y_channels))
        self.ln = nn.LayerNorm(y_channels)
        self.k = nn.Linear(y_channels, y_channels)
        self.v = nn.Linear(y_channels, y_channels)
        self.output = nn.Linear(y_channels, z_channels)

    def forward(self, y: Tensor) -> Tensor:
        positions = self.ln(y.flatten(2).transpose(1, 2))  # [B, h·w, M]
        queries = self.queries.expand(len(y), -1, -1)
        seen = F.scaled_dot_product_attention(queries, self.k(positions), self.v(positions))
        return self.output(seen).transpose(1, 2)


class GlobalTokenDCAE(DCAE):
    """DCAE whose entropy model asks a picture's own tokens."""

    registered_name = "dcae-global-token"
    transforms = ("g_a", "g_s", "h_a", "tokens")

    def __init__(self, config: GlobalTokenConfig | None = None):
        super().__init__(config or GlobalTokenConfig())
        self.tokens = TokenMaker(self.config.dict_entries, self.config.M, self.config.N)

    def make_dictionary(self, c: DictionaryModelConfig) -> None:
        self.dt = nn.Linear(c.N, c.dict_heads * c.dict_head_dim)

    def hyper_analysis(self, y: Tensor, quality: Quality = 1.0, memory: Memory = None) -> Tensor:
        (z,) = self.bounded("h_a", self.h_a, (y,), memory)
        z, tokens = full_precision(z), full_precision(self.tokens(y))
        values = torch.cat([z.flatten(2), tokens], 2)[..., None] * self.gain("gain_z", quality, y)
        filler = self.z_medians().expand(len(z), -1, -values.shape[2] % z.shape[-1], -1)
        return torch.cat([values, filler], 2).squeeze(-1).unflatten(2, (-1, z.shape[-1]))

    def hyper_features(self, z_hat: Tensor, quality: Quality, memory: Memory = None) -> HyperFeatures:
        count = self.config.dict_entries
        rows = -(-count // z_hat.shape[-1])
        tokens = (z_hat / self.gain("gain_z", quality, z_hat))[:, :, -rows:].flatten(2)[..., :count]
        query = super().hyper_features(z_hat[:, :, :-rows], quality, memory).query
        return HyperFeatures(query, self.dt(tokens.transpose(1, 2)))

    def latent_shapes(self, height: int, width: int) -> LatentShapes:
        y, (channels, rows, columns) = super().latent_shapes(height, width)
        return LatentShapes(y, (channels, rows + -(-self.config.dict_entries // columns), columns))

    @torch.no_grad()
    def init_from_images(self, x: Tensor) -> None:
        """Tokens, and apart from them z's own part, start with the deviation that z starts with."""
        super().init_from_images(x)
        y = self.analysis(x, self.middle_quality)
        fit_last_layer(cast(nn.Conv2d, self.h_a[-1]), lambda: self.h_a(y))
        fit_last_layer(self.tokens.output, lambda: self.tokens(y))

    def explanations(self, z_hat: Tensor, quality: Quality, y_hat: Tensor) -> dict[str, Tensor]:
        """`tokens`: how strongly the last slice uses each of the picture's tokens at each position."""
        return {"tokens": super().explanations(z_hat, quality, y_hat)["dictionary"]}


register("dcae-global-token", GlobalTokenDCAE, GlobalTokenConfig())
register(
    "dcae-small-global-token",
    GlobalTokenDCAE,
    GlobalTokenConfig(
        stage_channels=(32, 48, 80),
        swin_layers=(0, 0, 2),
        head_dims=(8, 16, 16),
        M=160,
        N=48,
        dict_entries=12,
        num_slices=4,
        dict_heads=4,
        dict_head_dim=16,
        context_widths=(36, 32),
        hyper_head_dim=16,
    ),
)

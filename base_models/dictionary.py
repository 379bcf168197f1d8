"""Dictionary-based cross attention of DCAE (Lu 2025, §3.2), with multi-scale feature aggregation (MSFA).

Shapes: `B` batch, `H W` latent size, `E` dictionary entries, `D` channels of one head, `C` = heads · D.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .blocks import ConvGLU, ResScale


class ScaleConv(nn.Module):
    """One scale of the aggregation: 1×1, depth-wise 3×3, 1×1, GELU between."""

    def __init__(self, channels: int):
        super().__init__()
        self.in_trans = nn.Conv2d(channels, channels, 1)
        self.dw_conv = nn.Conv2d(channels, channels, 3, padding=1, groups=channels)
        self.out_trans = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.out_trans(F.gelu(self.dw_conv(F.gelu(self.in_trans(x)))))


class DenseScales(nn.Module):
    """All scales concatenated, then mixed by a 1×1 convolution."""

    def __init__(self, channels: int, scales: int):
        super().__init__()
        self.conv_layers = nn.ModuleList(nn.Sequential(nn.GELU(), ScaleConv(channels)) for _ in range(scales))
        self.proj = nn.Conv2d(channels * (scales + 1), channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        outputs = [x]
        for layer in self.conv_layers:
            outputs.append(layer(outputs[-1]))
        return self.proj(torch.cat(outputs, dim=1))


class SpatialAttention(nn.Module):
    """A gate in (0, 1) per position from the mean and the maximum over channels: [B, C, H, W] → [B, 1, H, W]."""

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(2, 1, 7, padding=3, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return torch.sigmoid(self.conv1(torch.cat([x.mean(1, keepdim=True), x.amax(1, keepdim=True)], dim=1)))


class MultiScaleAggregation(nn.Module):
    """MSFA (Lu 2025, §3.2): features of several receptive fields for the dictionary's query; [B, H, W, C] → same."""

    def __init__(self, channels: int, scales: int):
        super().__init__()
        self.s = nn.Conv2d(channels, channels, 1)
        self.spatial_atte = SpatialAttention()
        self.dense = DenseScales(channels, scales)

    def forward(self, x: Tensor) -> Tensor:
        features = self.dense(self.s(x.permute(0, 3, 1, 2)))
        return (features * self.spatial_atte(features)).permute(0, 2, 3, 1)


class DictionaryAttention(nn.Module):
    """Looks up a dictionary with what is known of the latent so far: one [E, C] for all, or one each [B, E, C].

    `msfa_scales = 0` leaves the aggregation out (Lu 2025, Table 4, m = 0).
    """

    def __init__(self, in_channels: int, out_channels: int, heads: int, head_dim: int, msfa_scales: int):
        super().__init__()
        channels = heads * head_dim
        self.heads = heads
        self.scale = nn.Parameter(torch.ones(heads, 1, 1))
        self.x_trans = nn.Linear(in_channels, channels)
        if msfa_scales:
            self.ln_scale = nn.LayerNorm(channels)
            self.msa = MultiScaleAggregation(channels, msfa_scales)
            self.res_scale_1 = ResScale(channels)
        self.msfa_scales = msfa_scales
        self.lnx = nn.LayerNorm(channels)
        self.q_trans = nn.Linear(channels, channels)
        self.dict_ln = nn.LayerNorm(channels)
        self.k = nn.Linear(channels, channels)
        self.linear = nn.Linear(channels, channels)
        self.ln_mlp = nn.LayerNorm(channels)
        self.mlp = ConvGLU(channels)
        self.output_trans = nn.Sequential(nn.Linear(channels, out_channels))
        self.res_scale_2 = ResScale(channels)
        self.res_scale_3 = ResScale(channels)

    def query(self, support: Tensor) -> Tensor:
        """Features that ask the dictionary: [B, in, H, W] → [B, H, W, C]."""
        x = self.x_trans(support.permute(0, 2, 3, 1))
        if self.msfa_scales:
            x = self.res_scale_1(x) + self.msa(self.ln_scale(x))
        return x

    def project(self, query: Tensor, dictionary: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Scaled queries [B, heads, H·W, D], keys and values [B, heads, E, D]."""
        b, heads = query.shape[0], self.heads
        values = self.dict_ln(dictionary)
        q = self.q_trans(self.lnx(query)).flatten(1, 2).unflatten(-1, (heads, -1)).transpose(1, 2)
        k = self.k(values).unflatten(-1, (heads, -1)).transpose(-3, -2)
        v = values.unflatten(-1, (heads, -1)).transpose(-3, -2)
        return q * self.scale, k.expand(b, -1, -1, -1), v.expand(b, -1, -1, -1)

    def attention_maps(self, support: Tensor, dictionary: Tensor) -> Tensor:
        """How strongly each position uses each entry, mean over heads (Lu 2025, Fig. 8): [B, E, H, W], sums to 1."""
        q, k, _ = self.project(self.query(support), dictionary)
        weights = (q @ k.transpose(-1, -2)).softmax(-1).mean(1)  # [B, H·W, E]
        return weights.transpose(1, 2).unflatten(-1, support.shape[-2:])

    def forward(self, support: Tensor, dictionary: Tensor) -> Tensor:
        query = self.query(support)
        q, k, v = self.project(query, dictionary)
        x = F.scaled_dot_product_attention(q, k.to(q.dtype), v.to(q.dtype), scale=1.0)
        x = x.transpose(1, 2).flatten(2).view_as(query)
        x = self.res_scale_2(query) + self.linear(x)
        x = self.res_scale_3(x) + self.mlp(self.ln_mlp(x))
        return self.output_trans(x).permute(0, 3, 1, 2)

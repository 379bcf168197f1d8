"""ELIC: learned image compression with unevenly grouped space-channel contexts.

Paper: D. He, Z. Yang, W. Peng, R. Ma, H. Qin, Y. Wang, "ELIC: Efficient Learned Image Compression with Unevenly
Grouped Space-Channel Contextual Adaptive Coding", CVPR 2022 (arXiv:2203.10886). Sizes and arithmetic are those of
CompressAI's `Elic2022Official`, whose checkpoints load in both of its key layouts. Ours: the frozen configuration, and
gains per quality.

Shapes: `B` batch, `H W` image size (multiples of 64), `N` channels of transforms and of z, `M` channels of y, `h w`
size of y, `C_k` channels of group k. A part is one pass over a group, [B, C_k, h, w/2]: the anchors, which lie like the
white squares of a checkerboard, or the others.

    x ─ g_a ─ y ── group by group, anchors first ── y_hat ─ g_s ─ x_hat
              │      ▲ mu, sigma ← h_s, earlier groups (channel context), anchors (spatial context)
             h_a ─ z ─ z_hat ─ h_s
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from .base import CodePart, Memory, Quality, Walk, full_precision, numbered, rename
from .blocks import MaskedConv, ResidualBottleneck, apply_masks, bias_of, conv, deconv
from .double import as_matrix_products
from .limits import check_lambdas, check_ranges
from .registry import name_of, register
from .residual import GatedAttention
from .sliced import SlicedModel


@dataclass(frozen=True)
class ELICConfig:
    """Size of an ELIC; the defaults are CompressAI's (32.1 M parameters). `groups` are channels, M together."""

    N: int = 192
    M: int = 320
    groups: tuple[int, ...] = (16, 16, 32, 64, 192)
    context_widths: tuple[int, int] = (224, 128)
    lambdas: tuple[float, ...] = (0.013,)

    def __post_init__(self) -> None:
        """Raises `ValueError` naming a field that no network has."""
        check_ranges(self, N=(2, 4096), M=(2, 4096), context_widths=(1, 4096))
        check_lambdas(self.lambdas)
        whole = isinstance(self.groups, tuple) and all(type(width) is int and width > 0 for width in self.groups)
        if not whole or sum(self.groups) != self.M:
            raise ValueError(f"groups is {self.groups!r}, expected whole numbers that add up to M = {self.M}")


class CheckerboardConv(MaskedConv):
    """5×5 convolution that sees only positions of the other colour."""

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__(in_channels, out_channels, 5, padding=2)
        rows, columns = torch.meshgrid(torch.arange(5), torch.arange(5), indexing="ij")
        self.register_buffer("mask", ((rows + columns) % 2).float(), persistent=False)


def split_checkerboard(x: Tensor) -> tuple[Tensor, Tensor]:
    """Anchors, among them the first position, and the others of [..., h, w], each [..., h, w/2]; w is even."""
    left, right = x.unflatten(-1, (-1, 2)).unbind(-1)
    odd_rows = (torch.arange(x.shape[-2], device=x.device) % 2 == 1)[:, None]
    return torch.where(odd_rows, right, left), torch.where(odd_rows, left, right)


def join_checkerboard(anchors: Tensor, others: Tensor) -> Tensor:
    """Inverse of `split_checkerboard`."""
    odd_rows = (torch.arange(anchors.shape[-2], device=anchors.device) % 2 == 1)[:, None]
    columns = torch.where(odd_rows, others, anchors), torch.where(odd_rows, anchors, others)
    return torch.stack(columns, -1).flatten(-2)


def transforms(c: ELICConfig) -> tuple[nn.Sequential, nn.Sequential]:
    """g_a and g_s."""

    def residual() -> list[ResidualBottleneck]:
        return [ResidualBottleneck(c.N) for _ in range(3)]

    g_a = nn.Sequential(
        conv(3, c.N), *residual(),
        conv(c.N, c.N), *residual(), GatedAttention(c.N),
        conv(c.N, c.N), *residual(),
        conv(c.N, c.M), GatedAttention(c.M),
    )  # fmt: skip
    g_s = nn.Sequential(
        GatedAttention(c.M), deconv(c.M, c.N), *residual(),
        deconv(c.N, c.N), GatedAttention(c.N), *residual(),
        deconv(c.N, c.N), *residual(),
        deconv(c.N, 3),
    )  # fmt: skip
    return g_a, g_s


def parameter_head(in_channels: int, out_channels: int, least: int) -> nn.Sequential:
    """Three 1×1 convolutions whose widths fall linearly from input to output, those between at least to `least`."""
    between = [max(in_channels + (out_channels - in_channels) * i // 3, least) for i in (1, 2)]
    widths = [in_channels, *between, out_channels]
    layers = [conv(a, b, 1, 1) for a, b in zip(widths, widths[1:], strict=False)]
    return nn.Sequential(layers[0], nn.ReLU(), layers[1], nn.ReLU(), layers[2])


def channel_context(in_channels: int, widths: tuple[int, int], out_channels: int) -> nn.Sequential:
    """Three 5×5 convolutions that keep the size: what earlier groups of channels say of one."""
    return nn.Sequential(
        conv(in_channels, widths[0], 5, 1),
        nn.ReLU(),
        conv(widths[0], widths[1], 5, 1),
        nn.ReLU(),
        conv(widths[1], out_channels, 5, 1),
    )


class ELIC(SlicedModel):
    """The network; a slice in the file is a group of channels, which has two parts."""

    registered_name = "elic"

    make_transforms = staticmethod(transforms)

    def __init__(self, config: ELICConfig | None = None, beside: int = 0):
        """`beside` counts channels that a subclass adds to the context of each group."""
        super().__init__(config or ELICConfig())
        c = self.config
        self.slice_channels = c.groups
        self.g_a, self.g_s = transforms(c)
        self.h_a = nn.Sequential(conv(c.M, c.N, 3, 1), nn.ReLU(), conv(c.N, c.N), nn.ReLU(), conv(c.N, c.N))
        wide = c.N * 3 // 2
        self.h_s = nn.Sequential(deconv(c.N, c.N), nn.ReLU(), deconv(c.N, wide), nn.ReLU(), deconv(wide, 2 * c.N, 3, 1))
        self.channel_context = nn.ModuleDict(
            {
                f"y{k}": channel_context(sum(c.groups[:k]), c.context_widths, 2 * c.groups[k])
                for k in range(1, len(c.groups))
            }
        )
        self.context_prediction = nn.ModuleList(CheckerboardConv(width, 2 * width) for width in c.groups)
        self.entropy_parameters = nn.ModuleList(
            parameter_head(2 * c.N + beside + (4 if k else 2) * width, 2 * width, 2 * c.N)
            for k, width in enumerate(c.groups)
        )
        self.make_entropy_models(c.M, c.N)

    def slice_of(self, part: int) -> int:
        return part // 2

    def split_y(self, y: Tensor) -> list[Tensor]:
        return [part for group in super().split_y(y) for part in split_checkerboard(group)]

    def join_y(self, parts: Sequence[Tensor], size: tuple[int, int] | None = None) -> Tensor:
        return super().join_y([join_checkerboard(*pair) for pair in zip(parts[::2], parts[1::2], strict=True)])

    def walk(
        self,
        z_hat: Tensor,
        quality: Quality,
        code_part: CodePart,
        y_hat: Tensor | None = None,
        memory: Memory = None,
    ) -> Walk:
        (hyper,) = self.bounded("h_s", self.h_s, (z_hat / self.gain("gain_z", quality, z_hat),), memory)
        groups, y_hats, mus, sigmas = [], [], [], []
        for k in range(self.slices):
            contexts = split_checkerboard(self.context(k, hyper, groups, memory))
            seen = contexts[0].new_zeros(len(hyper), 2 * self.slice_channels[k], *contexts[0].shape[2:])
            for i in range(2):
                sigma, mu = self.entropy_parameters[k](torch.cat([seen, contexts[i]], 1)).chunk(2, 1)
                mus.append(full_precision(mu))
                sigmas.append(full_precision(sigma))
                y_hats.append(code_part(2 * k + i, mus[-1], sigmas[-1]))
                if i == 0:
                    anchors = y_hats[-1].to(hyper.dtype)
                    anchors = join_checkerboard(anchors, torch.zeros_like(anchors))
                    seen = split_checkerboard(self.context_prediction[k](anchors))[1]
            groups.append(join_checkerboard(*y_hats[-2:]).to(hyper.dtype))
        return Walk(self.join_y(y_hats), self.join_y(mus), self.join_y(sigmas))

    def entropy_walker(self, dtype: torch.dtype = torch.float64) -> ELIC:
        walker = cast(ELIC, super().entropy_walker(dtype))
        contexts = nn.ModuleList(cast(CheckerboardConv, conv).plain() for conv in walker.context_prediction)
        walker.context_prediction = as_matrix_products(contexts)
        return walker

    def context(self, k: int, hyper: Tensor, earlier: Sequence[Tensor], memory: Memory) -> Tensor:
        """What both passes of group k are predicted from, [B, K, h, w]: ẑ and the groups before it."""
        return torch.cat([self.channel_context[f"y{k}"](torch.cat(list(earlier), 1)), hyper], 1) if k else hyper

    def set_first_guess(self, mu: Tensor, sigma: Tensor) -> None:
        guesses = zip(mu.split(self.slice_channels), sigma.split(self.slice_channels), strict=True)
        for head, (mu_k, sigma_k) in zip(self.entropy_parameters, guesses, strict=True):
            bias_of(cast(nn.Sequential, head)[-1]).copy_(torch.cat([sigma_k, mu_k]))

    @classmethod
    def recognize(cls, state: dict[str, Tensor]) -> tuple[str, dict[str, Any]] | None:
        """All sizes are those of convolutions. CompressAI's other ELIC ends `h_s` otherwise."""
        state = cls.rename_keys(state)
        if not state.keys() >= OWN_KEYS or "dt" in state:
            return None
        channels = len(state["g_a.0.weight"])
        if state["h_s.4.weight"].shape[1] != 2 * channels:
            return None
        groups = tuple(weight.shape[1] for weight in numbered(state, "context_prediction.{}.weight"))
        widths = tuple(len(state[f"channel_context.y1.{layer}.weight"]) for layer in (0, 2))
        sizes = {"N": channels, "M": sum(groups), "groups": groups, "context_widths": widths}
        return name_of(cls, sizes), sizes

    @classmethod
    def rename_keys(cls, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """From CompressAI, up to 1.2.8 (`latent_codec.hyper.…`) and after it (`latent_codec.h_a`, `latent_codec.z`)."""
        state = {k: value for k, value in apply_masks(state).items() if not k.endswith("context_prediction.mask")}
        return rename(state, LATENT_CODEC_RENAMES)


OWN_KEYS = {"g_a.0.weight", "h_s.4.weight", "channel_context.y1.2.weight", "context_prediction.0.weight"}
LATENT_CODEC_RENAMES = (
    (r"^latent_codec\.y\.latent_codec\.y\d+\.(?:latent_codec\.)?y\.gaussian_conditional\.", "gaussian_conditional."),
    (r"^latent_codec\.y\.latent_codec\.y(\d+)\.(entropy_parameters|context_prediction)\.", r"\2.\1."),
    (r"^latent_codec\.y\.channel_context\.", "channel_context."),
    (r"^latent_codec\.(?:hyper\.|z\.)?", ""),
)


register("elic", ELIC, ELICConfig())
register("elic-small", ELIC, ELICConfig(N=48, M=128, groups=(8, 8, 16, 32, 64), context_widths=(48, 32)))

"""Slices of channels coded one after another, each predicted from the hyper-latent and from all slices before it.

Source: D. Minnen, S. Singh, "Channel-wise autoregressive entropy models for learned image compression", ICIP 2020
(arXiv:2007.08739), with its latent residual prediction; names are those of the published DCAE and TCM checkpoints.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn

from .base import CodePart, Memory, Quality, Walk, full_precision
from .blocks import bias_of, conv
from .sliced import SlicedModel
from .tiles import Function

LATENT_CODEC = (
    (r"^latent_codec\.y\.channel_context\.y(\d+)\.(mean|scale)_cc\.", r"cc_\2_transforms.\1."),
    (r"^latent_codec\.y\.latent_codec\.y(\d+)\.lrp_transform\.", r"lrp_transforms.\1."),
    (r"^latent_codec\.y\.latent_codec\.y\d+\.gaussian_conditional\.", "gaussian_conditional."),
    (r"^latent_codec\.(?:z\.|h_s\.)?", ""),
)
"""Renames of checkpoints as CompressAI writes them after release 1.2.8: patterns and what stands in their place."""


class Prediction(NamedTuple):
    """Of one slice, [B, M/S, h, w] each, and what its residual is predicted from beside its values, [B, K, h, w]."""

    mu: Tensor
    sigma: Tensor
    support: Tensor


def beside(features: Tensor, y_hat: Tensor) -> Tensor:
    """Features and slices of ŷ as one map, in the precision of the features."""
    return torch.cat([features, y_hat.to(features.dtype)], dim=1)


def context_head(in_channels: int, widths: tuple[int, int], out_channels: int) -> nn.Sequential:
    """Three 3×3 convolutions that keep the size, for μ, σ or the residual of a slice."""
    return nn.Sequential(
        conv(in_channels, widths[0], 3, 1),
        nn.GELU(),
        conv(widths[0], widths[1], 3, 1),
        nn.GELU(),
        conv(widths[1], out_channels, 3, 1),
    )


class ChannelSlices(SlicedModel):
    """A model whose slices are as wide as each other and known to each other."""

    support_repeats: bool = True
    """Whether what a residual is predicted from begins with all of the first map that is known."""

    def make_heads(self, channels: int, slices: int, supports: Sequence[int], widths: tuple[int, int]) -> None:
        """Heads for y of so many channels; `supports` counts the channels that each slice is predicted from."""
        width = channels // slices
        self.slice_channels = (width,) * slices
        self.cc_mean_transforms = nn.ModuleList(context_head(k, widths, width) for k in supports)
        self.cc_scale_transforms = nn.ModuleList(context_head(k, widths, width) for k in supports)
        self.lrp_transforms = nn.ModuleList(context_head(k + width, widths, width) for k in supports)
        for head in self.cc_scale_transforms:
            nn.init.constant_(bias_of(cast(nn.Sequential, head)[-1]), 1.0)

    def set_first_guess(self, mu: Tensor, sigma: Tensor) -> None:
        for heads, guess in ((self.cc_mean_transforms, mu), (self.cc_scale_transforms, sigma)):
            for head, part in zip(heads, guess.split(self.slice_channels), strict=True):
                bias_of(cast(nn.Sequential, head)[-1]).copy_(part)

    @abstractmethod
    def hyper_features(self, z_hat: Tensor, quality: Quality, memory: Memory = None) -> Any:
        """What ẑ says of y: all that is known before the first slice, as a named tuple of maps [B, C, h, w].

        Tensors that are no maps come last; None, the default there, for one that a model does without.
        """

    @abstractmethod
    def predict(self, i: int, known: Any) -> Prediction:
        """Slice i from what is known before it."""

    @abstractmethod
    def extend(self, known: Any, y_hat_i: Tensor) -> Any:
        """What is known after a slice."""

    def walk(
        self,
        z_hat: Tensor,
        quality: Quality,
        code_part: CodePart,
        y_hat: Tensor | None = None,
        memory: Memory = None,
    ) -> Walk:
        """Contexts need residuals that are predicted at μ, so that `y_hat` is of no use."""
        y_hats, mus, sigmas = zip(*self._slices(z_hat, quality, code_part, memory), strict=True)
        return Walk(self.join_y(y_hats), self.join_y(mus), self.join_y(sigmas))

    def code(
        self,
        z_hat: Tensor,
        quality: Quality,
        code_part: CodePart,
        y_hat: Tensor | None = None,
        memory: Memory = None,
    ) -> Tensor:
        return self.join_y([y_hat_i for y_hat_i, *_ in self._slices(z_hat, quality, code_part, memory)])

    def _slices(
        self, z_hat: Tensor, quality: Quality, code_part: CodePart, memory: Memory
    ) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """ŷ, μ and σ of one slice after the other. Within `memory`, what is known is put together in each tile."""
        known, y_hats = self.hyper_features(z_hat, quality, memory), []
        for i in range(self.slices):
            maps = tuple(x for x in known if x is not None)
            repeated = (maps[0], *y_hats) if memory is not None and self.support_repeats else ()
            channels = sum(x.shape[1] for x in repeated)
            predict = Function(partial(self._predict, i, type(known), len(maps), channels), (self,))
            mu, sigma, support = self.bounded(f"prediction {i}", [predict], (*maps, *y_hats), memory)
            y_hat_i = code_part(i, mu, sigma)
            residual = Function(partial(self._residual, i))
            (change,) = self.bounded(f"residual {i}", [residual], (*repeated, support, y_hat_i), memory)
            y_hat_i = y_hat_i + change
            yield y_hat_i, mu, sigma
            del support, maps, repeated, mu, sigma, change  # before the next ones are made
            if memory is not None:
                y_hats.append(y_hat_i)
            elif i + 1 < self.slices:
                known = self.extend(known, y_hat_i)

    def _predict(self, i: int, kind: Any, count: int, repeated: int, *given: Tensor) -> Prediction:
        """From the first `count`, as was known to begin with, and the slices of ŷ since; its support leaves out the
        channels that it repeats.
        """
        known = kind(*given[:count])
        for y_hat_i in given[count:]:
            known = self.extend(known, y_hat_i)
        mu, sigma, support = self.predict(i, known)
        return Prediction(full_precision(mu), full_precision(sigma), support[:, repeated:] if repeated else support)

    def _residual(self, i: int, *seen: Tensor) -> Tensor:
        """Of slice i, from its support and ŷ before it."""
        residual = self.lrp_transforms[i](torch.cat([x.to(seen[0].dtype) for x in seen], dim=1))
        return 0.5 * torch.tanh(full_precision(residual))

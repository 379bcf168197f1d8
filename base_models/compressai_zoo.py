"""CompressAI's image codecs as base models: its own networks, with its names for their weights.

    name                    y                                       source
    bmshj2018-factorized    factorized prior, no z                  Ballé 2018, "Variational image compression with a
    bmshj2018-hyperprior    σ from z, which comes from |y|          scale hyperprior", ICLR
    mbt2018-mean            μ, σ from z                             Minnen 2018, "Joint autoregressive and hierarchical
    mbt2018                 μ, σ from z and the context of ŷ        priors for learned image compression", NeurIPS
    cheng2020-anchor        the same, residual blocks               Cheng 2020, "Learned image compression with
    cheng2020-attn          the same, with attention                discretized Gaussian mixture likelihoods and
                                                                    attention modules", CVPR (here one Gaussian)

Each network was trained for one λ. **[ours]** It serves other qualities through its quantization step, Δ ∝ λ^−½: y is
multiplied by the gain √(λ(q)/λ(trained)) before quantization and divided by it after.

CompressAI is imported when a network is made. Shapes: as in `base`; `B, M, h, w` of y.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from .base import BaseModel, CodePart, LatentShapes, Memory, Quality, Walk, full_precision
from .blocks import MaskedConv, apply_masks, bias_of
from .derived_tables import rescaled_tables
from .entropy_models import FactorizedPrior, GaussianConditional, IntegerGaussian
from .initialization import FittedModel, init_from_images
from .limits import check_lambdas, check_ranges
from .raster import REACH, diagonals, join_diagonals, split_diagonals
from .registry import register
from .tables import IntegerTables
from .third_party import compressai

LAMBDAS = (0.0018, 0.0035, 0.0067, 0.0130, 0.0250, 0.0483, 0.0932, 0.1800)
"""Weights of 255²·MSE that the published qualities 1…8 were trained with. Those trained for MS-SSIM had 2.4 … 220 for
1 − MS-SSIM, which is within 8 % of the same weights on tto's scale for it."""
STEP_PRECISION = 1 << 20
"""Steps of a factorized prior are multiples of its inverse: machines differ in the last bits of a logarithm."""
MOST_CHANNELS = 640
"""Twice the published: what a damaged file says must not fill memory."""


@dataclass(frozen=True)
class ZooConfig:
    """Widths; λ of the qualities that the family has; and which of these this network was trained at."""

    N: int = 128
    M: int = 192
    lambdas: tuple[float, ...] = LAMBDAS
    trained_quality: int = 1

    def __post_init__(self) -> None:
        """Raises `ValueError` naming a field that no network has."""
        check_ranges(self, N=(1, MOST_CHANNELS), M=(1, MOST_CHANNELS), trained_quality=(1, 65))
        check_lambdas(self.lambdas)
        if self.trained_quality > len(self.lambdas):
            raise ValueError(f"trained_quality is {self.trained_quality}, expected at most {len(self.lambdas)}")


class ZooModel(FittedModel):
    """What the families have in common. `network_name` is that of the class in `compressai.models`."""

    network_name: ClassVar[str]
    takes_m: ClassVar[bool] = True
    not_matrices = ("*.gamma",)
    h_s: nn.Sequential
    context_prediction: nn.Conv2d
    entropy_parameters: nn.Sequential
    entropy_bottleneck: FactorizedPrior
    gaussian_conditional: GaussianConditional

    def __init__(self, config: Any = None):
        super().__init__(config or ZooConfig())
        entropy_models, models = compressai("entropy_models"), compressai("models")
        with torch.device("cpu"):  # they cannot be made on the meta device
            network = getattr(models, self.network_name)(*self.network_arguments())
        _take_positions_first(network)
        _mask_weights(network)
        for name, child in network.named_children():
            if isinstance(child, entropy_models.EntropyBottleneck | entropy_models.EntropyBottleneckVbr):
                child = FactorizedPrior(child.channels)
            elif isinstance(child, entropy_models.GaussianConditional):
                child = IntegerGaussian() if self.grid == "integer" else GaussianConditional()
            self.add_module(name, child)

    def network_arguments(self) -> tuple[Any, ...]:
        """What CompressAI's class is made with."""
        return (self.config.N, self.config.M) if self.takes_m else (self.config.N,)

    def analysis(self, x: Tensor, quality: Quality = 1.0, memory: Memory = None) -> Tensor:
        self.check_sides(x)
        (y,) = self.bounded("g_a", self.g_a, (x,), memory)
        return full_precision(y) * self.gain(quality, x)

    def synthesis(self, y_hat: Tensor, quality: Quality = 1.0, memory: Memory = None) -> Tensor:
        (x_hat,) = self.bounded("g_s", self.g_s, (y_hat / self.gain(quality, y_hat),), memory)
        return full_precision(x_hat)

    def gain(self, quality: Quality, like: Tensor) -> Tensor | float:
        """What y is multiplied by before quantization, [B, 1, 1, 1]."""
        if self.qualities == 1:
            return 1.0
        trained = self.lambda_at(float(self.config.trained_quality))
        gain = (self.lambda_at(quality) / trained).sqrt().reshape(-1, 1, 1, 1)
        return gain.to(device=like.device, dtype=like.dtype)

    @property
    def beside_weights(self) -> str:
        """λ, from which gains are computed."""
        return "" if self.qualities == 1 else f"{list(self.config.lambdas)} {self.config.trained_quality}"

    def split_y(self, y: Tensor) -> list[Tensor]:
        return [y]

    def join_y(self, parts: Sequence[Tensor], size: tuple[int, int]) -> Tensor:
        return parts[0]

    @property
    def slices(self) -> int:
        return 1

    def latent_shapes(self, height: int, width: int) -> LatentShapes:
        rows, columns = (-(-side // self.stride) for side in (height, width))
        y = (rows * self.stride // self.y_stride, columns * self.stride // self.y_stride)
        if self.z_prior is None:
            return LatentShapes((self.config.M, *y), (0, *y))
        return LatentShapes((self.config.M, *y), (self.config.N, rows, columns))

    @property
    def z_prior(self) -> FactorizedPrior | None:
        return self.entropy_bottleneck

    @property
    def y_prior(self) -> GaussianConditional | FactorizedPrior:
        return self.gaussian_conditional

    @torch.no_grad()
    def init_from_images(self, x: Tensor) -> None:
        """See `base_models.initialization`; normalization starts as the identity."""
        layer: Any
        for layer in (*self.g_a, *self.g_s):
            if hasattr(layer, "gamma_reparam"):
                layer.gamma.data = layer.gamma_reparam.init(torch.zeros_like(layer.gamma))
        init_from_images(self, x, float(self.gain(self.middle_quality, x)))

    def set_first_guess(self, mu: Tensor, sigma: Tensor) -> None:
        middle = float(self.gain(self.middle_quality, mu))
        bias_of(self.last_of_entropy_model()).copy_(torch.cat([sigma, mu]) / middle)

    def last_of_entropy_model(self) -> nn.Module:
        """The layer that gives σ and μ."""
        return self.h_s[-1]

    @classmethod
    def recognize(cls, state: dict[str, Tensor]) -> tuple[str, dict[str, Any]] | None:
        """Widths are those of convolutions; what tells a family from the others is in `is_own`."""
        state = cls.rename_keys(state)
        first = state.get("g_a.0.weight" if cls.takes_m else "g_a.0.conv1.weight")
        last = state.get("g_a.6.weight") if cls.takes_m else first
        if first is None or last is None or not cls.is_own(state):
            return None
        return cls.registered_name, {"N": len(first), "M": len(last)}

    @classmethod
    @abstractmethod
    def is_own(cls, state: dict[str, Tensor]) -> bool:
        """Whether tensors with `g_a` as this class has it are of this class."""

    @classmethod
    def rename_keys(cls, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Shortcuts of strided residual blocks were called `downsample` once."""
        return {key.replace(".downsample.", ".skip."): value for key, value in state.items()}


class Factorized(ZooModel):
    """y has a density for each channel, and there is no z."""

    registered_name = "bmshj2018-factorized"
    network_name = "FactorizedPrior"
    stride = 16

    @classmethod
    def is_own(cls, state: dict[str, Tensor]) -> bool:
        return {"g_a.1.beta", "entropy_bottleneck.quantiles"} <= state.keys() and "h_a.0.weight" not in state

    def hyper_analysis(self, y: Tensor, quality: Quality = 1.0, memory: Memory = None) -> Tensor:
        return y[:, :0]

    def walk(
        self,
        z_hat: Tensor,
        quality: Quality,
        code_part: CodePart,
        y_hat: Tensor | None = None,
        memory: Memory = None,
    ) -> Walk:
        """μ is the medians of y; `z_hat` only says how large y is."""
        medians = self.entropy_bottleneck.medians().to(z_hat.dtype) * self.gain(quality, z_hat)
        mu = medians.expand(len(z_hat), -1, *z_hat.shape[-2:]).contiguous()
        return Walk(code_part(0, mu, None), mu, None)

    def y_tables(self, step: float = 1.0, quality: float = 1.0) -> IntegerTables:
        gain = float(self.gain(quality, torch.zeros((), dtype=torch.float64)))
        return rescaled_tables(self.y_prior.tables(), round(step / gain * STEP_PRECISION) / STEP_PRECISION)

    def y_likelihood(self, y: Tensor, walk: Walk, quality: Quality) -> Tensor:
        """Of cells that are as wide as the quantization step of the quality, in units of the density."""
        gain = self.gain(quality, y)
        if not isinstance(gain, Tensor):
            return self.y_prior.likelihood(y)
        return self.y_prior.likelihood(y - self.y_prior.medians() * (gain - 1), 1 / gain)

    @property
    def z_prior(self) -> None:
        return None

    @property
    def y_prior(self) -> FactorizedPrior:
        return self.entropy_bottleneck


class ScaleHyperprior(ZooModel):
    """z gives σ."""

    registered_name = "bmshj2018-hyperprior"
    network_name = "ScaleHyperprior"

    @classmethod
    def is_own(cls, state: dict[str, Tensor]) -> bool:
        return (
            "g_a.1.beta" in state
            and "Gain" not in state
            and "h_s.4.weight" in state
            and len(state["h_s.4.weight"]) == len(state["g_a.6.weight"])
        )

    def hyper_analysis(self, y: Tensor, quality: Quality = 1.0, memory: Memory = None) -> Tensor:
        (z,) = self.bounded("h_a", self.h_a, ((y / self.gain(quality, y)).abs(),), memory)
        return full_precision(z)

    def walk(
        self,
        z_hat: Tensor,
        quality: Quality,
        code_part: CodePart,
        y_hat: Tensor | None = None,
        memory: Memory = None,
    ) -> Walk:
        (sigma,) = self.bounded("h_s", self.h_s, (z_hat,), memory)
        sigma = full_precision(sigma) * self.gain(quality, z_hat)
        mu = torch.zeros_like(sigma)
        return Walk(code_part(0, mu, sigma), mu, sigma)

    def set_first_guess(self, mu: Tensor, sigma: Tensor) -> None:
        bias_of(self.h_s[-2]).copy_(sigma / float(self.gain(self.middle_quality, sigma)))


class MeanScaleHyperprior(ZooModel):
    """z gives μ and σ."""

    registered_name = "mbt2018-mean"
    network_name = "MeanScaleHyperprior"

    @classmethod
    def is_own(cls, state: dict[str, Tensor]) -> bool:
        return _has_means(state) and "context_prediction.weight" not in state

    def hyper_analysis(self, y: Tensor, quality: Quality = 1.0, memory: Memory = None) -> Tensor:
        (z,) = self.bounded("h_a", self.h_a, (y / self.gain(quality, y),), memory)
        return full_precision(z)

    def walk(
        self,
        z_hat: Tensor,
        quality: Quality,
        code_part: CodePart,
        y_hat: Tensor | None = None,
        memory: Memory = None,
    ) -> Walk:
        (found,) = self.bounded("h_s", self.h_s, (z_hat,), memory)
        sigma, mu = (full_precision(found) * self.gain(quality, z_hat)).chunk(2, 1)
        return Walk(code_part(0, mu, sigma), mu, sigma)


class Autoregressive(MeanScaleHyperprior):
    """z and the causal 5×5 neighbourhood in ŷ give μ and σ; a part is a diagonal of the raster.

    ŷ is round(y/Δ)·Δ, as in the evaluating `forward` of CompressAI's classes, and not round(y/Δ − μ/Δ)·Δ + μ as in
    their `compress`: only so does ŷ, and with it every context, not depend on the μ of the positions before. Where ŷ is
    given (estimate, refinement, encoder) contexts are one convolution; a decoder goes along the diagonals, which have
    up to w/3 positions each. Both compute the same from the same ŷ, so that estimate and stream agree.
    """

    registered_name = "mbt2018"
    network_name = "JointAutoregressiveHierarchicalPriors"
    grid = "integer"

    @classmethod
    def is_own(cls, state: dict[str, Tensor]) -> bool:
        return _has_means(state) and "context_prediction.weight" in state

    @classmethod
    def rename_keys(cls, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """What is masked is zero, also where CompressAI's network was not called since its last step of training."""
        return apply_masks(super().rename_keys(state))

    def walk(
        self,
        z_hat: Tensor,
        quality: Quality,
        code_part: CodePart,
        y_hat: Tensor | None = None,
        memory: Memory = None,
    ) -> Walk:
        (hyper,), gain = self.bounded("h_s", self.h_s, (z_hat,), memory), self.gain(quality, z_hat)
        if y_hat is None:
            return self._serial_walk(hyper, gain, code_part)
        context = self.context_prediction((y_hat / gain).to(hyper.dtype))
        sigma, mu = (full_precision(self.entropy_parameters(torch.cat([hyper, context], 1))) * gain).chunk(2, 1)
        for i, (mu_i, sigma_i) in enumerate(zip(self.split_y(mu), self.split_y(sigma), strict=True)):
            code_part(i, mu_i, sigma_i)
        return Walk(y_hat, mu, sigma)

    def _serial_walk(self, hyper: Tensor, gain: Tensor | float, code_part: CodePart) -> Walk:
        """A diagonal after the other: its neighbours are gathered, and one matrix product is the convolution."""
        batch, _, height, width = hyper.shape
        reach, side = REACH, 2 * REACH + 1
        taps = torch.tensor([(row, column) for row in range(reach + 1) for column in range(side)])
        taps = taps[: reach * side + reach]  # what lies before the middle
        weight = self.context_prediction.weight[:, :, taps[:, 0], taps[:, 1]].flatten(1)  # [2M, M·taps]
        bias = bias_of(self.context_prediction)[:, None]
        known = hyper.new_zeros(batch, weight.shape[1] // len(taps), height + reach, width + 2 * reach)
        y_hats, mus, sigmas = [], [], []
        for i, positions in enumerate(diagonals(height, width)):
            rows, columns = (positions // width)[:, None], (positions % width)[:, None]
            neighbours = known[:, :, rows + taps[:, 0], columns + taps[:, 1]]  # [B, M, n, taps]
            context = weight @ neighbours.transpose(2, 3).flatten(1, 2) + bias  # [B, 2M, n]
            features = torch.cat([hyper.flatten(2)[..., positions], context], 1)
            parameters = full_precision(self.entropy_parameters(features[..., None])[..., 0]) * flat(gain)
            sigma, mu = parameters.chunk(2, 1)
            y_hat = code_part(i, mu, sigma)
            known[:, :, rows[:, 0] + reach, columns[:, 0] + reach] = (y_hat / flat(gain)).to(known.dtype)
            for of_all, part in zip((y_hats, mus, sigmas), (y_hat, mu, sigma), strict=True):
                of_all.append(part)
        y_hat, mu, sigma = (self.join_y(of_all, (height, width)) for of_all in (y_hats, mus, sigmas))
        return Walk(y_hat, mu, sigma)

    def split_y(self, y: Tensor) -> list[Tensor]:
        return split_diagonals(y)

    def join_y(self, parts: Sequence[Tensor], size: tuple[int, int]) -> Tensor:
        return join_diagonals(parts, size)

    def slice_of(self, part: int) -> int:
        return 0

    def last_of_entropy_model(self) -> nn.Module:
        return self.entropy_parameters[-1]


class Cheng2020Anchor(Autoregressive):
    registered_name = "cheng2020-anchor"
    network_name = "Cheng2020Anchor"
    takes_m = False
    init_from_images = BaseModel.init_from_images

    @classmethod
    def is_own(cls, state: dict[str, Tensor]) -> bool:
        return "context_prediction.weight" in state and "g_a.3.conv1.weight" in state

    def __init__(self, config: ZooConfig | None = None):
        super().__init__(config or ZooConfig(M=128))
        if self.config.N != self.config.M:
            raise ValueError(f"M is {self.config.M}, expected N, {self.config.N}")


class Cheng2020Attention(Cheng2020Anchor):
    registered_name = "cheng2020-attn"
    network_name = "Cheng2020Attention"

    @classmethod
    def is_own(cls, state: dict[str, Tensor]) -> bool:
        return "context_prediction.weight" in state and "g_a.3.conv1.weight" not in state


class _Pointwise(nn.Conv2d):
    """A 1×1 convolution of every `step`-th row and column."""

    step: int

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x[..., :: self.step, :: self.step])


def _take_positions_first(network: nn.Module) -> None:
    """Strided 1×1 convolutions as others: oneDNN's backward pass writes beyond their memory with channels last."""
    for child in network.modules():
        if type(child) is nn.Conv2d and child.kernel_size == (1, 1) and child.stride[0] > 1:
            child.__class__ = _Pointwise
            assert isinstance(child, _Pointwise)
            child.step, child.stride = child.stride[0], (1, 1)


def _mask_weights(network: nn.Module) -> None:
    """Masked convolutions as others: CompressAI's own change their weights when they are called."""
    for child in network.modules():
        if isinstance(getattr(child, "mask", None), Tensor):
            child.__class__ = MaskedConv
            assert isinstance(child, MaskedConv)
            child.weight.data *= child.mask


def _has_means(state: Mapping[str, Tensor]) -> bool:
    """Whether `h_s` ends in μ and σ, of networks with generalized divisive normalization and one rate."""
    widths = [len(state[key]) for key in ("g_a.6.weight", "h_s.4.weight") if key in state]
    return "g_a.1.beta" in state and "Gain" not in state and len(widths) == 2 and widths[1] == 2 * widths[0]


def flat(gain: Tensor | float) -> Tensor | float:
    """[B, 1, 1, 1] → [B, 1, 1], for parts with one dimension of positions."""
    return gain[..., 0] if isinstance(gain, Tensor) else gain


FAMILIES: tuple[type[ZooModel], ...] = (
    Factorized, ScaleHyperprior, MeanScaleHyperprior, Autoregressive, Cheng2020Anchor, Cheng2020Attention,
)  # fmt: skip
for family in FAMILIES:
    register(family.registered_name, family, ZooConfig() if family.takes_m else ZooConfig(M=128))

"""CompressAI's networks of variable rate as base models, with its names for their weights.

    name                        y
    bmshj2018-hyperprior-vbr    σ from z, which comes from |y|
    mbt2018-mean-vbr            μ, σ from z

Source: F. Kamisli, F. Racapé, H. Choi, "Variable-Rate Learned Image Compression with Multi-Objective Optimization and
Quantization-Reconstruction Offsets", DCC 2024 (arXiv:2402.18930). y is multiplied by one learned gain per quality
before quantization; what is decoded is drawn towards μ by an offset that a small network gives for σ and the gain, and
another gives the step of z for the gain.

`forward` in CompressAI 1.2.8 passes that step as another argument, so that its likelihoods of z are of unit cells;
those here are of cells of the step, as its `compress` codes them.

Deviations **[ours]**: qualities between the trained ones have gains that are interpolated geometrically; a value less
than one step from μ, which only relaxed and rescaled ones are, has its share of the offset; tables of z are those of
unit cells, rescaled to the step, so that no machine computes them from floats.

Shapes: as in `base`; `B, M, h, w` of y.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from .base import CodePart, Memory, Quality, Walk, interpolate_geometric
from .compressai_zoo import LAMBDAS, MOST_CHANNELS, STEP_PRECISION, MeanScaleHyperprior, ScaleHyperprior, ZooModel
from .entropy_models import LowerBound
from .limits import check_lambdas, check_ranges
from .registry import register

LEAST_Z_STEP = 0.5


@dataclass(frozen=True)
class VbrConfig:
    """Widths, λ of the qualities, and whether z has a step that depends on the quality, as the published weights do."""

    N: int = 192
    M: int = 320
    lambdas: tuple[float, ...] = LAMBDAS
    z_steps: bool = True

    def __post_init__(self) -> None:
        """Raises `ValueError` naming a field that no network has."""
        check_ranges(self, N=(1, MOST_CHANNELS), M=(1, MOST_CHANNELS))
        check_lambdas(self.lambdas)
        if not isinstance(self.z_steps, bool):
            raise ValueError(f"z_steps is {self.z_steps!r}, expected true or false")


class VariableRate(ZooModel):
    """What both have in common, before the class of the network of one rate."""

    QuantABCD: nn.Sequential
    gayn2zqstep: nn.Sequential

    def __init__(self, config: VbrConfig | None = None):
        super().__init__(config or VbrConfig())
        if self.config.z_steps:
            self.lower_bound_zqstep = LowerBound(LEAST_Z_STEP)
        lambdas = torch.tensor(self.config.lambdas)
        self.Gain = nn.Parameter((lambdas / lambdas[-1]).sqrt())  # the published ones to four digits

    @property
    def beside_weights(self) -> str:
        return ""

    def network_arguments(self) -> tuple[Any, ...]:
        return (self.config.N, self.config.M, self.config.z_steps)

    def gain(self, quality: Quality, like: Tensor) -> Tensor:
        """What y is multiplied by before quantization, [B, 1, 1, 1]; found on the CPU, in float64."""
        gain = interpolate_geometric(self.Gain.abs().cpu(), torch.as_tensor(quality).cpu())
        return gain.reshape(-1, 1, 1, 1).to(device=like.device, dtype=like.dtype)

    def hyper_analysis(self, y: Tensor, quality: Quality = 1.0, memory: Memory = None) -> Tensor:
        z, medians = super().hyper_analysis(y, quality, memory), self.z_medians()
        return (z - medians) / self._z_step(quality, z) + medians

    def walk(
        self,
        z_hat: Tensor,
        quality: Quality,
        code_part: CodePart,
        y_hat: Tensor | None = None,
        memory: Memory = None,
    ) -> Walk:
        medians = self.z_medians().to(z_hat.dtype)
        z_hat = (z_hat - medians) * self._z_step(quality, z_hat) + medians
        walk = super().walk(z_hat, quality, code_part, memory=memory)
        assert walk.sigma is not None
        return walk._replace(y_hat=walk.y_hat - self.offset(walk.y_hat - walk.mu, walk.sigma, quality))

    def offset(self, distance: Tensor, sigma: Tensor, quality: Quality) -> Tensor:
        """How far values at a distance from μ, in steps, are drawn towards it."""
        sigma = self.gaussian_conditional.lower_bound_scale(sigma)
        gain = self.gain(quality, sigma).detach().expand_as(sigma)
        return distance.clamp(-1, 1) * self.QuantABCD(torch.stack([sigma, gain], -1))[..., 0]

    def z_step(self, quality: float = 1.0) -> float:
        """In float64, so that all machines round it to the same multiple."""
        if not self.config.z_steps:
            return 1.0
        gain = self.gain(quality, torch.zeros((), dtype=torch.float64))
        step = float(copy.deepcopy(self.gayn2zqstep).cpu().double()(1 / gain.reshape(-1, 1)))
        return round(max(step, LEAST_Z_STEP) * STEP_PRECISION) / STEP_PRECISION

    def _z_step(self, quality: Quality, like: Tensor) -> Tensor | float:
        """[B, 1, 1, 1]."""
        if not self.config.z_steps:
            return 1.0
        gain = self.gain(quality, like).reshape(-1, 1)
        return self.lower_bound_zqstep(self.gayn2zqstep(1 / gain))[..., None, None]

    def z_likelihood(self, z: Tensor, quality: Quality) -> Tensor:
        step = self._z_step(quality, z)
        return self.entropy_bottleneck.likelihood(z, step if isinstance(step, Tensor) else None)

    @classmethod
    def is_own(cls, state: Mapping[str, Tensor]) -> bool:
        """Whether it is that of the network of one rate, and these modules."""
        return "QuantABCD.0.weight" in state and super().is_own(without_rates(state))

    @classmethod
    def recognize(cls, state: dict[str, Tensor]) -> tuple[str, dict[str, Any]] | None:
        found = super().recognize(state)
        if found is None:
            return None
        name, widths = found
        lambdas = LAMBDAS if len(state["Gain"]) == len(LAMBDAS) else tuple(state["Gain"].square().tolist())
        return name, widths | {"lambdas": lambdas, "z_steps": "gayn2zqstep.0.weight" in state}

    @classmethod
    def rename_keys(cls, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Without an offset that earlier networks had and none uses."""
        return {key: value for key, value in super().rename_keys(state).items() if key != "QuantOffset"}


def without_rates(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {key: value for key, value in state.items() if key != "Gain"}


class ScaleHyperpriorVbr(VariableRate, ScaleHyperprior):
    registered_name = "bmshj2018-hyperprior-vbr"
    network_name = "ScaleHyperpriorVbr"


class MeanScaleHyperpriorVbr(VariableRate, MeanScaleHyperprior):
    registered_name = "mbt2018-mean-vbr"
    network_name = "MeanScaleHyperpriorVbr"


register("bmshj2018-hyperprior-vbr", ScaleHyperpriorVbr, VbrConfig())
register("mbt2018-mean-vbr", MeanScaleHyperpriorVbr, VbrConfig())

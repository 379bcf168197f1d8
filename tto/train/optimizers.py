"""Which parameters a stage trains, and with which optimizer.

A base model below side modules (`base.…`) is never trained.

Muon (`tto.train.muon`) is for matrices and convolutions. What is no linear map of features goes to Adam: biases, norms,
scales, gains, GDN's γ, relative positions, the dictionary, depth-wise kernels and the entropy bottleneck.
"""

from __future__ import annotations

from fnmatch import fnmatchcase

import torch
from torch import Tensor, nn
from torch.optim import Adam, Optimizer

from base_models import BaseModel
from tto.train.errors import MissingModule
from tto.train.muon import Muon
from tto.train.recipe import OptimizerSettings, StageSettings

ADAM_ONLY = ("*relative_position_params", "*.gamma", "dt", "gain_*", "entropy_bottleneck.*", "msc.codebook")
FROZEN = "base."


def is_quantile(name: str) -> bool:
    """Whether a parameter belongs to the auxiliary loss alone."""
    return name.endswith("quantiles")


def trainable_names(model: nn.Module, stage: StageSettings) -> list[str]:
    """Names of the parameters a stage trains with its main loss.

    Raises `MissingModule` if one of its patterns fits nothing.
    """
    names = [name for name, _ in model.named_parameters() if not is_quantile(name) and not name.startswith(FROZEN)]
    for pattern in stage.trainable:
        if not any(fnmatchcase(name, pattern) for name in names):
            raise MissingModule(
                f"stage {stage.name!r} trains {pattern!r}, which model {model.registered_name!r} does not have"
            )
    return [name for name in names if any(fnmatchcase(name, pattern) for pattern in stage.trainable)]


def freeze_all_but(model: nn.Module, names: list[str]) -> None:
    """Only the named parameters get gradients."""
    chosen = set(names)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in chosen)


def create_optimizer(model: nn.Module, names: list[str], settings: OptimizerSettings) -> Optimizer:
    """Optimizer of the main loss; every group keeps its peak learning rate in `peak`."""
    chosen = set(names)
    matrices, others = [], []
    for name, parameter in model.named_parameters():
        if name in chosen:
            (matrices if settings.name == "muon" and is_matrix(name, parameter) else others).append(parameter)
    groups = [
        {"params": matrices, "lr": settings.muon_learning_rate, "use_muon": True},
        {"params": others, "lr": settings.learning_rate, "use_fallback": True},
    ]
    groups = [{**group, "peak": group["lr"]} for group in groups if group["params"]]
    if settings.name == "muon":
        return Muon(groups, betas=settings.betas)
    return Adam([{k: v for k, v in g.items() if not k.startswith("use_")} for g in groups], betas=settings.betas)


def is_matrix(name: str, parameter: Tensor) -> bool:
    """Whether Muon may train a parameter."""
    if parameter.ndim < 2 or min(parameter.shape[:2]) < 4:
        return False
    return not any(fnmatchcase(name, pattern) for pattern in ADAM_ONLY)


def set_learning_rates(optimizer: Optimizer, factor: float) -> None:
    """Every group at `factor` times its peak."""
    for group in optimizer.param_groups:
        group["lr"] = group["peak"] * factor


class QuantileOptimizer:
    """Fits the quantiles of the entropy bottleneck to its distribution, apart from everything else (Adam).

    Its gradient needs no other parameter and no data, so every process computes the same one by itself.
    """

    def __init__(self, model: nn.Module, learning_rate: float, active: bool = True):
        self.model = model
        self.parameters = [p for name, p in model.named_parameters() if active and is_quantile(name)]
        self.adam = Adam(self.parameters, lr=learning_rate) if self.parameters else None

    def step(self) -> Tensor:
        """One update; returns the auxiliary loss."""
        if self.adam is None or not isinstance(self.model, BaseModel):
            return torch.zeros(())
        with torch.enable_grad():
            for parameter in self.parameters:
                parameter.requires_grad_(True)
            loss = self.model.aux_loss()
            gradients = torch.autograd.grad(loss, self.parameters)
        for parameter, gradient in zip(self.parameters, gradients, strict=True):
            parameter.requires_grad_(False)
            parameter.grad = gradient
        self.adam.step()
        for parameter in self.parameters:
            parameter.grad = None
        return loss.detach()

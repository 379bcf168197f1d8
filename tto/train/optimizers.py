"""Which parameters a stage trains, and with which optimizer.

A base model below side modules (`base.…`) is never trained.

Muon (`tto.train.muon`) is for matrices and convolutions. What is no linear map of features goes to Adam: biases, norms,
scales, depth-wise kernels, and what modules name in `not_matrices` (`base_models.BaseModel`).
"""

from __future__ import annotations

from fnmatch import fnmatchcase

import torch
from torch import Tensor, nn
from torch.optim import Adam, Optimizer

from base_models import BaseModel
from base_models.entropy_models import FactorizedPrior
from tto.train.errors import MissingModule
from tto.train.muon import Muon
from tto.train.recipe import OptimizerSettings, StageSettings

FROZEN = "base."


def without_quantiles(model: nn.Module) -> list[str]:
    """Names of all parameters but those that belong to the auxiliary loss alone."""
    quantiles = {id(prior.quantiles) for prior in _factorized_priors(model)}
    return [name for name, parameter in model.named_parameters() if id(parameter) not in quantiles]


def trainable_names(model: nn.Module, stage: StageSettings) -> list[str]:
    """Names of the parameters a stage trains with its main loss.

    Raises `MissingModule` if one of its patterns fits nothing.
    """
    names = [name for name in without_quantiles(model) if not name.startswith(FROZEN)]
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
    chosen, excepted = set(names), not_matrices(model)
    matrices, others = [], []
    for name, parameter in model.named_parameters():
        if name in chosen:
            by_muon = settings.name == "muon" and name not in excepted and is_matrix(parameter)
            (matrices if by_muon else others).append(parameter)
    groups = [
        {"params": matrices, "lr": settings.muon_learning_rate, "use_muon": True},
        {"params": others, "lr": settings.learning_rate, "use_fallback": True},
    ]
    groups = [{**group, "peak": group["lr"]} for group in groups if group["params"]]
    if settings.name == "muon":
        return Muon(groups, betas=settings.betas)
    return Adam([{k: v for k, v in g.items() if not k.startswith("use_")} for g in groups], betas=settings.betas)


def not_matrices(model: nn.Module) -> set[str]:
    """Names of parameters that modules say are no linear map."""
    return {
        f"{path}.{name}".lstrip(".")
        for path, module in model.named_modules()
        for name, _ in module.named_parameters()
        if any(fnmatchcase(name, pattern) for pattern in getattr(module, "not_matrices", ()))
    }


def is_matrix(parameter: Tensor) -> bool:
    """Whether Muon may train a parameter, by its shape."""
    return parameter.ndim >= 2 and min(parameter.shape[:2]) >= 4


def set_learning_rates(optimizer: Optimizer, factor: float) -> None:
    """Every group at `factor` times its peak."""
    for group in optimizer.param_groups:
        group["lr"] = group["peak"] * factor


class QuantileOptimizer:
    """Fits the quantiles of factorized priors in training to their distributions, apart from everything else (Adam).

    A prior is in training if any parameter of it has gradients. The quantiles' gradient needs no other parameter and no
    data, so every process computes the same one by itself.
    """

    def __init__(self, model: nn.Module, learning_rate: float):
        self.model = model
        self.parameters = [
            prior.quantiles
            for prior in _factorized_priors(model)
            if any(parameter.requires_grad for parameter in prior.parameters())
        ]
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


def _factorized_priors(model: nn.Module) -> list[FactorizedPrior]:
    return model.factorized_priors() if isinstance(model, BaseModel) else []

"""Making the network of a run, and handing it over when the run is done."""

from __future__ import annotations

import copy
import warnings
from dataclasses import replace
from pathlib import Path
from typing import cast

import torch
from accelerate import Accelerator
from torch import nn

from base_models import BaseModel, CheckpointError, checkpoint_bytes, create_model, load_checkpoint
from tto.errors import BadArgument, FileError
from tto.files import write_atomic
from tto.metrics import MS_SSIM_MIN_SIDE
from tto.models import checkpoint_path
from tto.side.weights import save_with_side_modules
from tto.train.crops import CropPlan, CropSampler, to_batch
from tto.train.errors import RecipeError, SaveError
from tto.train.images import ImageStore
from tto.train.objective import RateDistortion
from tto.train.recipe import ModelSettings, Recipe, StageSettings
from tto.train.refined import RefinedShare
from tto.train.side_model import BaseWithSide, build_with_side
from tto.train.side_stages import STAGES, SideStage, init_from_images
from tto.train.step import Objective

INITIALIZATION_CROPS = 96


def build_model(recipe: Recipe, with_checkpoint: bool = True) -> BaseModel | BaseWithSide:
    """The recipe's network in training mode, from its checkpoint or else from its seed. Raises `RecipeError`.

    Without the checkpoint it has the right shapes: enough where all weights come from a run's own.
    """
    torch.manual_seed(recipe.seed)
    settings = recipe.model if with_checkpoint else replace(recipe.model, checkpoint=None)
    try:
        model = create_model(settings.name, **settings.config)
    except (KeyError, TypeError, ValueError) as error:
        raise RecipeError(f"model: {error.args[0] if error.args else error}") from None
    for stage in recipe.stages:
        _check_stage(stage, model, settings.name)
    if settings.side is not None:
        return build_with_side(model, settings, settings.side).train()
    if settings.checkpoint is not None:
        _load_parameters(model, settings, settings.checkpoint)
    model.metric = recipe.chosen_stages[-1].loss.distortion
    return model.train()


def _check_stage(stage: StageSettings, model: BaseModel, name: str) -> None:
    """Raises `RecipeError` for what this network cannot be trained with."""
    weights = stage.loss.rate_weights
    if weights is not None and len(weights) != model.predictions:
        raise RecipeError(
            f"stages.{stage.name}.loss.rate_weights: found {len(weights)} weights; "
            f"{name} predicts y {model.predictions} times"
        )
    if stage.loss.distortion == "ms-ssim" and stage.objective != "rate-distortion":
        raise RecipeError(f"stages.{stage.name}.loss.distortion: found ms-ssim; side modules are trained with mse")
    if stage.loss.distortion == "ms-ssim" and stage.crop < MS_SSIM_MIN_SIDE:
        raise RecipeError(f"stages.{stage.name}.crop: found {stage.crop}; MS-SSIM takes {MS_SSIM_MIN_SIDE} and more")
    if stage.crop % model.stride:
        raise RecipeError(f"stages.{stage.name}.crop: found {stage.crop}; {name} takes multiples of {model.stride}")


def stage_network(model: BaseModel | BaseWithSide, stage: StageSettings) -> tuple[nn.Module, Objective]:
    """What a stage calls in a step, and what it minimizes; a side stage is both."""
    if stage.objective == "rate-distortion":
        objective = RateDistortion(stage.loss, model)
        if stage.refine_share:
            return RefinedShare(cast(BaseModel, model), objective, stage.refine_steps, stage.refine_share), objective
        return model, objective
    side = STAGES[stage.objective](cast(BaseWithSide, model), stage.loss, stage.refine_steps)
    return side, side


def initialize_latents(
    model: BaseModel | BaseWithSide, store: ImageStore, recipe: Recipe, device: torch.device
) -> None:
    """Fits a new network, or new side modules, to the first crops of the run, where it knows how."""
    goes_on = recipe.model.checkpoint is not None
    if goes_on and not isinstance(model, BaseWithSide):
        return
    resize = recipe.data.too_small == "resize"
    plan = CropPlan(recipe.seed, 0, recipe.chosen_stages[0].crop, INITIALIZATION_CROPS, resize)
    crops = to_batch(*CropSampler(store, plan).pixels(0), device)
    if isinstance(model, BaseWithSide):
        init_from_images(model, crops.images)
    else:
        model.init_from_images(crops.images)


def wrap(model: nn.Module, accelerator: Accelerator, compiled: bool) -> nn.Module:
    """The network as a step calls it: compiled, and with gradients, where it has any, averaged over processes.

    Refinement is not compiled: it differentiates, and each step has another number of crops for it.
    """
    network = model
    if compiled and isinstance(model, RefinedShare):
        model.forward_plain = torch.compile(model.forward_plain)
    elif compiled:
        network = cast(nn.Module, torch.compile(model))
    if accelerator.num_processes == 1 or not any(parameter.requires_grad for parameter in model.parameters()):
        return network
    devices = [accelerator.device] if accelerator.device.type == "cuda" else None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # `broadcast_buffers` has a new name, which older versions lack
        return nn.parallel.DistributedDataParallel(
            network,
            device_ids=devices,
            broadcast_buffers=False,
            # g_a has no gradient where every crop is refined; side modules need not all be used
            find_unused_parameters=isinstance(model, RefinedShare | SideStage),
        )


def export(model: BaseModel | BaseWithSide, path: Path, dtype: torch.dtype | None) -> None:
    """Writes the model as the codec takes it, with quantiles and integer tables that fit its weights.

    A frozen base keeps its own. Raises `SaveError`, or `FrozenBaseChanged`.
    """
    try:
        if isinstance(model, BaseWithSide):
            model.check_base()
            save_with_side_modules(model.base, model.side_modules(), path, dtype)
            return
        finished = copy.deepcopy(model).to("cpu").eval()
        finished.update_tables(fit_quantiles=True)
        write_atomic(path, checkpoint_bytes(finished, dtype))
    except (CheckpointError, FileError, ValueError) as error:  # the last of tables that cannot be
        raise SaveError(f"cannot export {path}: {error}") from None


def _load_parameters(model: BaseModel, settings: ModelSettings, checkpoint: str) -> None:
    """Every parameter of `model` from a checkpoint that has exactly these."""
    try:
        found = dict(load_checkpoint(checkpoint_path(checkpoint), settings.name).named_parameters())
    except (BadArgument, CheckpointError) as error:
        raise RecipeError(f"model.checkpoint: {error}") from None
    own = dict(model.named_parameters())
    for name in sorted(own.keys() | found.keys()):
        if name not in found or name not in own or own[name].shape != found[name].shape:
            raise RecipeError(f"model.checkpoint: {checkpoint} does not fit the recipe's model at {name}")
    with torch.no_grad():
        for name, parameter in own.items():
            parameter.copy_(found[name])

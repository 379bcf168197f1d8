"""Making the network of a run, and handing it over when the run is done."""

from __future__ import annotations

import copy
from pathlib import Path

import torch
from accelerate import Accelerator
from torch import nn

from base_models import CheckpointError, create_model, load_checkpoint, save_checkpoint
from tto.train.crops import CropPlan, CropSampler, to_batch
from tto.train.errors import RecipeError, SaveError
from tto.train.images import ImageStore
from tto.train.recipe import ModelSettings, Recipe

INITIALIZATION_CROPS = 96


def build_model(recipe: Recipe) -> nn.Module:
    """The recipe's network in training mode, from its checkpoint or else from its seed. Raises `RecipeError`."""
    torch.manual_seed(recipe.seed)
    settings = recipe.model
    try:
        model = create_model(settings.name, **settings.config)
    except (KeyError, TypeError, ValueError) as error:
        raise RecipeError(f"model: {error.args[0] if error.args else error}") from None
    if settings.checkpoint is not None:
        _load_parameters(model, settings)
    return model.train()


def initialize_latents(model: nn.Module, store: ImageStore, recipe: Recipe, device: torch.device) -> None:
    """Gives the latents of a new network their scale on the first crops of the run, where it knows how."""
    if recipe.model.checkpoint is not None or not hasattr(model, "init_from_images"):
        return
    resize = recipe.data.too_small == "resize"
    plan = CropPlan(recipe.seed, 0, recipe.chosen_stages[0].crop, INITIALIZATION_CROPS, resize)
    crops = to_batch(*CropSampler(store, plan).pixels(0), device)
    model.init_from_images(crops.images)


def wrap(model: nn.Module, accelerator: Accelerator, compiled: bool) -> nn.Module:
    """The network as a step calls it: compiled, and with gradients averaged over processes."""
    network = torch.compile(model) if compiled else model
    if accelerator.num_processes == 1:
        return network
    devices = [accelerator.device] if accelerator.device.type == "cuda" else None
    return nn.parallel.DistributedDataParallel(network, device_ids=devices, broadcast_buffers=False)


def export(model: nn.Module, path: Path, dtype: torch.dtype | None) -> None:
    """Writes the model as the codec takes it, with quantiles and integer tables that fit its weights.

    Raises `SaveError`.
    """
    finished = copy.deepcopy(model).to("cpu").eval()
    finished.update(force=True, update_quantiles=True)
    try:
        save_checkpoint(finished, path, dtype)
    except (CheckpointError, OSError) as error:
        raise SaveError(f"cannot export {path}: {error}") from None


def _load_parameters(model: nn.Module, settings: ModelSettings) -> None:
    """Every parameter of `model` from a checkpoint that has exactly these."""
    try:
        found = dict(load_checkpoint(settings.checkpoint, settings.name).named_parameters())
    except CheckpointError as error:
        raise RecipeError(f"model.checkpoint: {error}") from None
    own = dict(model.named_parameters())
    for name in sorted(own.keys() | found.keys()):
        if name not in found or name not in own or own[name].shape != found[name].shape:
            raise RecipeError(f"model.checkpoint: {settings.checkpoint} does not fit the recipe's model at {name}")
    with torch.no_grad():
        for name, parameter in own.items():
            parameter.copy_(found[name])

"""A frozen base model with the side modules that are trained beside it, as one network of a run."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from vector_quantize_pytorch import VectorQuantize

from base_models import BaseModel, CheckpointError, load_checkpoint
from base_models.checkpoints import digest
from base_models.tables import TOTAL
from tto.errors import BadArgument
from tto.models import checkpoint_path
from tto.side.compensation import integer_frequencies, start_linear
from tto.side.weights import SideConfig, SideModules, load_side_modules
from tto.train.errors import FrozenBaseChanged, RecipeError
from tto.train.recipe import ModelSettings, SideSettings

KMEANS_ITERATIONS = 20
CODEBOOK_DECAY = 0.9  # of the running means that a code follows
DEAD_BELOW = 1.0  # vectors per step, running mean: a code that gets fewer starts anew at one of them
USAGE_DECAY = 0.99
RARE = 0.1  # of the mean share, added to each
FIRST_CURVATURE = 22.0


class BaseWithSide(nn.Module):
    """`base` never changes; `ddt` and `msc` are what stages train; `quantizer` finds the first codebook."""

    usage: Tensor
    curvature: Tensor

    def __init__(self, base: BaseModel, side: SideModules, is_new: bool):
        super().__init__()
        self.base, self.is_new = base, is_new
        self.side_config = side.config
        self.ddt, self.msc = side.ddt, side.msc
        self.quantizer = VectorQuantize(
            dim=side.config.channels,
            codebook_size=side.config.codes,
            kmeans_init=True,
            kmeans_iters=KMEANS_ITERATIONS,
            decay=CODEBOOK_DECAY,
            threshold_ema_dead_code=DEAD_BELOW,  # pyright: ignore[reportArgumentType] (a part of one is as good)
            accept_image_fmap=True,
        )
        self.register_buffer("usage", side.msc.frequencies.float() / TOTAL)  # running share of each code
        self.register_buffer("curvature", torch.tensor(FIRST_CURVATURE))  # of distortion, bits per squared step
        self.registered_name, self.config = base.registered_name, base.config
        self.stride, self.qualities, self.lambda_at = base.stride, base.qualities, base.lambda_at
        self.remember_base()

    def train(self, mode: bool = True) -> BaseWithSide:
        """Training mode of everything but the base."""
        super().train(mode)
        self.base.eval()
        return self

    def side_modules(self) -> SideModules:
        """The trained modules, in eval mode on the CPU, as a codec takes them."""
        side = SideModules(self.side_config)
        own = self.state_dict()
        side.load_state_dict({name: own[name].cpu() for name in side.state_dict()})
        side.msc.frequencies = integer_frequencies(self.usage)
        return side.eval().requires_grad_(False)

    def count_codes(self, codes: Tensor) -> None:
        """Takes note of codes [n] that were in use, here and in the other processes."""
        counts = over_processes(torch.bincount(codes, minlength=len(self.usage)).to(self.usage))
        if counts.any():
            self.usage.lerp_(counts / counts.sum(), 1.0 - USAGE_DECAY)

    def code_bits(self) -> Tensor:
        """What codes cost in training, bits [K]; a code that is hardly used stays affordable."""
        return -(self.usage + RARE / len(self.usage)).log2()

    @torch.no_grad()
    def init_from_steps(self, steps: Tensor) -> None:
        """Starting point of new side modules: MSC passes on the strongest directions of these steps [B, M, h, w]."""
        self.ddt.decoder.start_linear()
        vectors = steps.permute(1, 0, 2, 3).flatten(1)
        directions = torch.linalg.eigh(vectors @ vectors.T)[1].T.flip(0)
        for network in (self.msc.encoder, self.msc.decoder):
            start_linear(network, directions[: self.msc.width // 2].cpu())

    def remember_base(self) -> None:
        """What `check_base` compares with is the base as it is now."""
        self._base_digest = digest(self.base.state_dict())

    def check_base(self) -> None:
        """Raises `FrozenBaseChanged` unless every tensor of the base is what was remembered."""
        if digest(self.base.state_dict()) != self._base_digest:
            raise FrozenBaseChanged("the frozen base model has changed in training; nothing was exported")


def over_processes(values: Tensor) -> Tensor:
    """The sum of what all processes have; each must call it."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.all_reduce(values)
    return values


def build_with_side(wanted: BaseModel, settings: ModelSettings, sizes: SideSettings) -> BaseWithSide:
    """The base of the recipe's checkpoint, of the size of `wanted`, with its side modules, or else new ones.

    Without a checkpoint the base is `wanted` itself: good enough to count parameters and measure time.
    Raises `RecipeError`.
    """
    side = SideModules(SideConfig(wanted.y_channels, sizes.codes, sizes.width))
    if settings.checkpoint is None:
        return BaseWithSide(wanted, side, is_new=True)
    try:
        path = checkpoint_path(settings.checkpoint)
        base = load_checkpoint(path, settings.name, **settings.config)
        known = load_side_modules(path)
    except (BadArgument, CheckpointError) as error:
        raise RecipeError(f"model.checkpoint: {error}") from None
    if base.config != wanted.config:
        raise RecipeError(f"model.checkpoint: {settings.checkpoint} does not fit the recipe's model.config")
    if known is None or known.config != side.config:
        return BaseWithSide(base, side, is_new=True)
    return BaseWithSide(base, known.requires_grad_(True), is_new=False)

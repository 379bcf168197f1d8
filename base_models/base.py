"""What tto asks of a base model: all of it, and nothing else.

Shapes: `B` batch, `H W` image size (multiples of `stride`), `M` channels of y, `h w` size of y, `N` channels of z,
`hz wz` size of z, `Q` qualities.

    x ─ analysis ─ y ─────────────────── walk: part by part ── y_hat ─ synthesis ─ x_hat
                   └─ hyper_analysis ─ z ─ z_hat ─┘ mu, sigma

A *part* is what is coded at once: a slice of channels, one pass of a checkerboard, a diagonal of a raster. Parts are
tensors [B, C_i, ...] whose trailing dimensions are positions; what they have in common with y only the model knows.
"""

from __future__ import annotations

import copy
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import count, takewhile
from typing import Any, ClassVar, Literal, NamedTuple, cast

import numpy as np
import torch
from torch import Tensor, nn

from .derived_tables import rescaled_tables, shifted_gaussian_tables
from .double import as_matrix_products
from .entropy_models import EntropyModel, FactorizedPrior, GaussianConditional
from .probe import Step
from .tables import IntegerTables
from .tiles import Findings, Maps, run_bounded, run_whole

Quality = float | Tensor
"""A number or a tensor [B] in 1…Q; a model of one quality ignores it."""
Memory = float | None
"""Bytes that a transform's activations may take at once; more go over tiles. None sets no bound."""
LAST_LAYERS = 10
"""How many convolutions of the synthesis a picture may change."""
CodePart = Callable[[int, Tensor, Tensor | None], Tensor]


class Walk(NamedTuple):
    """What one walk over the parts gives, each [B, M, h, w]; `sigma` is None for a factorized prior of y.

    `earlier`, in training alone: μ and σ of predictions that the last was made from.
    """

    y_hat: Tensor
    mu: Tensor
    sigma: Tensor | None
    earlier: tuple[tuple[Tensor, Tensor], ...] = ()


class LatentShapes(NamedTuple):
    """Channels, height and width of y and of z; a model without z has one without channels, of the size of y."""

    y: tuple[int, int, int]
    z: tuple[int, int, int]


class BaseModel(nn.Module, ABC):
    """A trained codec as a network of tensors.

    A subclass has a frozen configuration with the field `lambdas` (one rate–distortion weight per quality, ascending),
    and calls `register` for each of its named configurations. The names of its attributes are those of published
    checkpoints, or `rename_keys` knows what they are there.
    """

    registered_name: str
    """For `create_model`. A class has that of its default configuration."""
    stride: ClassVar[int] = 64
    """Image sides are padded to multiples of it."""
    y_stride: ClassVar[int] = 16
    """Pixels along a side of one position of y."""
    grid: ClassVar[Literal["mean", "integer"]] = "mean"
    """Where ŷ lies before residual prediction, Δ the step: round((y − μ)/Δ)·Δ + μ, or round(y/Δ)·Δ."""
    metric: str = "mse"
    """What it was trained for: mse, or ms-ssim."""
    predictions: int = 1
    """How many predictions of y a walk makes, each from the one before; the last is what y is coded by."""
    transforms: ClassVar[tuple[str, ...]] = ("g_a", "g_s", "h_a")
    """Submodules that a walk does not use."""
    not_matrices: ClassVar[tuple[str, ...]] = ()
    """Patterns of parameters that are no layer's linear map, whatever their shape; a module inside may have its own."""
    g_s: nn.Sequential
    """Whose last weights a picture may change."""

    def __init__(self, config: Any):
        super().__init__()
        self.config = config
        self._findings: dict[str, Findings] = {}

    # ---- the four verbs -------------------------------------------------------------------------------------

    @abstractmethod
    def analysis(self, x: Tensor, quality: Quality = 1.0, memory: Memory = None) -> Tensor:
        """Image [B, 3, H, W] in [0, 1] → y [B, M, h, w] in units of the quantization step.

        Raises `ValueError` unless H and W are multiples of `stride`.
        """

    @property
    def walk_bytes(self) -> float:
        """For each pixel of a picture, what transforms and a walk in float64 keep beside what `memory` bounds."""
        return 0.0

    @abstractmethod
    def hyper_analysis(self, y: Tensor, quality: Quality = 1.0, memory: Memory = None) -> Tensor:
        """y → z [B, N, hz, wz] in units of the quantization step; [B, 0, h, w] for a model without z."""

    @abstractmethod
    def walk(
        self,
        z_hat: Tensor,
        quality: Quality,
        code_part: CodePart,
        y_hat: Tensor | None = None,
        memory: Memory = None,
    ) -> Walk:
        """Goes through the parts of y in coding order; the only place that does.

        `code_part(i, mu, sigma)` returns ŷ of part i before residual prediction, in the shape of μ: an estimator rounds
        y, an encoder also writes its symbols, a decoder reads them. μ is what values are centred on: zero, or the
        medians of a factorized prior, for a model without means; σ may be below the smallest coded scale, and is None
        for a factorized prior, whose tables are by channel. `Walk.y_hat` is after residual prediction.

        `y_hat`, for models on the integer grid, is all of ŷ where the caller knows it: contexts are then computed in
        parallel. `code_part` is called for every part, in order, all the same.

        `memory` as for `bounded`; FTIC, and models whose parts are not slices of channels, keep it in hyper-synthesis
        only.
        """

    def code(
        self,
        z_hat: Tensor,
        quality: Quality,
        code_part: CodePart,
        y_hat: Tensor | None = None,
        memory: Memory = None,
    ) -> Tensor:
        """ŷ alone of a walk, for coders: a model may do it in less memory."""
        return self.walk(z_hat, quality, code_part, y_hat, memory).y_hat

    @abstractmethod
    def synthesis(self, y_hat: Tensor, quality: Quality = 1.0, memory: Memory = None) -> Tensor:
        """ŷ → x̂ [B, 3, H, W], not clamped."""

    def bounded(self, name: str, steps: Iterable[Step], inputs: Maps, memory: Memory) -> Maps:
        """A chain of steps applied to maps [B, C, H, W] of one size: over tiles where `memory` does not suffice.

        The result is that of the whole maps but for how sums round. `name` stands for these steps and no others.
        """
        if memory is None:
            return run_whole(steps, inputs)
        return run_bounded(steps, inputs, memory, self._findings.setdefault(name, Findings()))

    # ---- parts ----------------------------------------------------------------------------------------------

    @abstractmethod
    def split_y(self, y: Tensor) -> list[Tensor]:
        """Parts in coding order of y or of anything shaped like it; differentiable."""

    @abstractmethod
    def join_y(self, parts: Sequence[Tensor], size: tuple[int, int]) -> Tensor:
        """Inverse of `split_y`; `size` is height and width of y, which diagonals do not tell."""

    @property
    @abstractmethod
    def slices(self) -> int:
        """Groups of parts with a checksum, a list of indexes and a step of σ of their own in the file."""

    def slice_of(self, part: int) -> int:
        """The slice that a part belongs to; parts of one slice follow each other."""
        return part

    @abstractmethod
    def latent_shapes(self, height: int, width: int) -> LatentShapes:
        """For an image of any size, which is padded to multiples of `stride`."""

    @property
    def y_channels(self) -> int:
        return self.latent_shapes(self.stride, self.stride).y[0]

    # ---- entropy coding -------------------------------------------------------------------------------------

    @property
    @abstractmethod
    def z_prior(self) -> FactorizedPrior | None:
        """The entropy model of z."""

    @property
    @abstractmethod
    def y_prior(self) -> GaussianConditional | FactorizedPrior:
        """The entropy model of y: Gaussian, or factorized where `walk` gives no σ."""

    @property
    def scale_table(self) -> Tensor | None:
        """Ascending levels of σ, one for each table of y; None for a factorized prior."""
        return getattr(self.y_prior, "scale_table", None)

    def y_tables(self, step: float = 1.0, quality: float = 1.0) -> IntegerTables:
        """For each level of σ/Δ, on the integer grid times the places of μ's fraction (`derived_tables.FRACTIONS`).

        Under a factorized prior one for each channel of y: only there do step Δ and quality matter.
        """
        if self.scale_table is None:
            return rescaled_tables(self.y_prior.tables(), step)
        if self.grid == "integer":
            return shifted_gaussian_tables(self.scale_table.cpu().double().numpy())
        return self.y_prior.tables()

    def z_step(self, quality: float = 1.0) -> float:
        """Quantization step of z in units of its density, the same on every machine; z is in such steps."""
        return 1.0

    def z_tables(self, step: float = 1.0) -> IntegerTables:
        """For each channel of z, in steps as `z_step` gives them."""
        if self.z_prior is None:
            nothing = np.zeros(0, np.int32)
            return IntegerTables(nothing.reshape(0, 1), nothing, nothing)
        return self.z_prior.tables() if step == 1.0 else rescaled_tables(self.z_prior.tables(), step)

    def z_medians(self) -> Tensor:
        """What z is centred on before rounding, [1, N, 1, 1]."""
        if self.z_prior is None:
            return torch.zeros(1, 0, 1, 1, device=next(self.parameters()).device)
        return self.z_prior.medians()

    def entropy_models(self) -> list[EntropyModel]:
        return [module for module in self.modules() if isinstance(module, EntropyModel)]

    def factorized_priors(self) -> list[FactorizedPrior]:
        return [prior for prior in self.entropy_models() if isinstance(prior, FactorizedPrior)]

    def entropy_walker(self, dtype: torch.dtype = torch.float64) -> BaseModel:
        """A copy that can only `walk`, in another precision: everything that decides how a symbol is coded."""
        memo: dict[int, Any] = {
            id(getattr(self, name)): nn.Identity() for name in self.transforms if hasattr(self, name)
        }
        memo[id(self._findings)] = {}
        return as_matrix_products(copy.deepcopy(self, memo).to(dtype).eval().requires_grad_(False))

    @property
    def beside_weights(self) -> str:
        """What decoding depends on beside tensors; it goes into the fingerprint."""
        return ""

    # ---- one picture's own weights --------------------------------------------------------------------------

    def last_weights(self) -> dict[str, Tensor]:
        """Weights and biases of the last convolutions of the synthesis, by name, in the order of computing."""
        layers = [(name, layer) for name, layer in self.g_s.named_modules() if _is_dense(layer)][-LAST_LAYERS:]
        own = [(f"g_s.{name}.{kind}", getattr(layer, kind)) for name, layer in layers for kind in ("weight", "bias")]
        return {name: tensor for name, tensor in own if tensor is not None}

    def with_weights(self, weights: Mapping[str, Tensor]) -> BaseModel:
        """A copy that has these tensors in the synthesis, and shares everything else; gradients reach them."""
        memo: dict[int, Any] = {id(child): child for name, child in self.named_children() if name != "g_s"}
        memo |= {id(tensor): tensor for tensor in (*self.parameters(), *self.buffers())}
        memo[id(self._findings)] = self._findings
        changed = copy.deepcopy(self, memo)
        for name, tensor in weights.items():
            path, _, kind = name.rpartition(".")
            layer = changed.get_submodule(path)
            delattr(layer, kind)
            setattr(layer, kind, tensor)
        return changed

    @torch.no_grad()
    def held_at(self, y_hat: Tensor, quality: Quality = 1.0) -> BaseModel:
        """A network whose synthesis is that of this one ŷ, whatever it is given: layers before the first of
        `last_weights` are computed once. This one where there are no such layers.
        """
        first = min((int(name.split(".")[1]) for name in self.last_weights()), default=0)
        if first == 0:
            return self
        held = self.with_weights({})
        held.g_s = self.g_s[:first]
        maps = held.synthesis(y_hat, quality)
        held.g_s = nn.Sequential(*[nn.Identity()] * (first - 1), Held(maps), *self.g_s[first:])
        return held

    def lowered(self, dtype: torch.dtype) -> BaseModel:
        """A copy whose dense layers have their weights in `dtype`: what autocast makes of frozen ones at every call.

        It gives what this model gives under autocast to `dtype`, and shares everything else.
        """
        memo: dict[int, Any] = {id(tensor): tensor for tensor in (*self.parameters(), *self.buffers())}
        memo[id(self._findings)] = self._findings
        copied = copy.deepcopy(self, memo)
        for layer in copied.modules():
            if type(layer) in (nn.Conv2d, nn.ConvTranspose2d, nn.Linear):
                for kind, tensor in list(layer.named_parameters(recurse=False)):
                    setattr(layer, kind, nn.Parameter(tensor.detach().to(dtype), requires_grad=False))
        return copied

    # ---- rates ----------------------------------------------------------------------------------------------

    @property
    def qualities(self) -> int:
        """Qualities run from 1 to this; 1 for a model of one rate."""
        return len(self.config.lambdas)

    @property
    def middle_quality(self) -> float:
        return (self.qualities + 1) / 2

    def lambda_at(self, quality: Quality) -> Tensor:
        """Rate–distortion weight of a quality, float64, same shape as `quality`."""
        return interpolate_geometric(self.config.lambdas, quality)

    # ---- training and estimation ----------------------------------------------------------------------------

    def forward(self, x: Tensor, quality: Quality = 1.0) -> dict:
        """Reconstruction and likelihoods as CompressAI models give them.

        In training mode the likelihoods are those of noisy latents and rounding passes gradients straight through; a
        model of several predictions has those of y by the earlier ones, too, as `y1`, `y2` ….
        """
        y = self.analysis(x, quality)
        z = self.hyper_analysis(y, quality)
        medians = self.z_medians()
        walk = self._rounded_walk(y, round_through(z - medians) + medians, quality)
        likelihoods = {}
        with torch.autocast(x.device.type, enabled=False):
            if self.z_prior is not None:
                likelihoods["z"] = self.z_likelihood(z, quality)
            likelihoods["y"] = self.y_likelihood(y, walk, quality)
            for name, (mu, sigma) in zip(earlier_names(self.predictions), walk.earlier, strict=False):
                likelihoods[name] = self.y_likelihood(y, Walk(walk.y_hat, mu, sigma), quality)
        return {"x_hat": self.synthesis(walk.y_hat, quality), "likelihoods": likelihoods}

    def z_likelihood(self, z: Tensor, quality: Quality) -> Tensor:
        """Of each value of z, rounded or noisy, [B, N, hz, wz]."""
        assert self.z_prior is not None
        return self.z_prior.likelihood(z)

    def y_likelihood(self, y: Tensor, walk: Walk, quality: Quality) -> Tensor:
        """Of each value of y, rounded at μ or noisy, [B, M, h, w]."""
        prior = self.y_prior
        if isinstance(prior, FactorizedPrior) or walk.sigma is None:
            return cast(FactorizedPrior, prior).likelihood(y)
        return prior.likelihood(y, walk.sigma, walk.mu)

    def _rounded_walk(self, y: Tensor, z_hat: Tensor, quality: Quality) -> Walk:
        """A walk over rounded y, with the gradient of the identity."""
        if self.grid == "integer":
            y_hat = round_through(y)
            parts = self.split_y(y_hat)
            return self.walk(z_hat, quality, lambda i, mu, sigma: parts[i], y_hat)
        parts = self.split_y(y)
        return self.walk(z_hat, quality, lambda i, mu, sigma: round_through(parts[i] - mu) + mu)

    def aux_loss(self) -> Tensor:
        """What fits the quantiles of factorized priors to their densities; no data is needed."""
        return sum((prior.quantile_loss() for prior in self.factorized_priors()), torch.zeros(()))

    def update_tables(self, fit_quantiles: bool = False, missing: bool = False) -> None:
        """Builds integer tables, as one does after training: all anew, or only those that are `missing`."""
        for prior in self.entropy_models():
            if missing and prior.has_tables:
                continue
            if isinstance(prior, FactorizedPrior):
                prior.update_tables(fit_quantiles)
            elif isinstance(prior, GaussianConditional):
                prior.update_tables()

    def init_from_images(self, x: Tensor) -> None:
        """A starting point for training, fitted to crops x [B, 3, H, W]; by default what the constructor left."""

    # ---- for people -----------------------------------------------------------------------------------------

    def explanations(self, z_hat: Tensor, quality: Quality, y_hat: Tensor) -> dict[str, Tensor]:
        """What the network looked at, as maps [K, h, w] by name; by default nothing."""
        return {}

    @classmethod
    def rename_keys(cls, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """A published checkpoint's tensors by our names; the only place that knows the others."""
        return state

    @classmethod
    def recognize(cls, state: dict[str, Tensor]) -> tuple[str, dict[str, Any]] | None:
        """Name of the network that a published checkpoint's tensors are of, and what they tell of its configuration;
        None where they are of another class. Needed where checkpoints of other sizes than the registered ones are
        about, or keys tell more than `rename_keys` leaves of them.
        """
        return None

    def check_sides(self, x: Tensor) -> None:
        """Raises `ValueError` unless the sides of an image are multiples of `stride`."""
        if x.shape[-1] % self.stride or x.shape[-2] % self.stride:
            raise ValueError(f"image is {tuple(x.shape[-2:])}, expected multiples of {self.stride}")


class Held(nn.Module):
    """The same maps for everyone."""

    maps: Tensor

    def __init__(self, maps: Tensor):
        super().__init__()
        self.register_buffer("maps", maps, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.maps


def earlier_names(predictions: int) -> list[str]:
    """Likelihoods of y by all predictions but the last, as `BaseModel.forward` calls them."""
    return [f"y{k}" for k in range(1, predictions)]


def _is_dense(layer: nn.Module) -> bool:
    return isinstance(layer, nn.Conv2d | nn.ConvTranspose2d) and layer.groups == 1


def interpolate_geometric(values: Sequence[float] | Tensor, quality: Quality) -> Tensor:
    """Value at a quality 1…Q between `values`, one per quality; float64, same shape as `quality`."""
    logs = torch.as_tensor(values, dtype=torch.float64).log()
    position = (torch.as_tensor(quality, dtype=torch.float64) - 1).clamp(0, len(logs) - 1)
    low = position.floor().clamp(max=max(len(logs) - 2, 0)).long()
    high = (low + 1).clamp(max=len(logs) - 1)
    return (logs[low] + (logs[high] - logs[low]) * (position - low)).exp()


def rename(state: dict[str, Tensor], rules: Iterable[tuple[str, str]]) -> dict[str, Tensor]:
    """A state dict whose keys went through regular expressions and replacements, one after another."""
    renamed = {}
    for key, value in state.items():
        for pattern, replacement in rules:
            key = re.sub(pattern, replacement, key)
        renamed[key] = value
    return renamed


def numbered(state: Mapping[str, Tensor], name: str) -> list[Tensor]:
    """Tensors of a state dict that `name` is the format of, as many as there are without a gap from 0 on."""
    return [state[key] for key in takewhile(state.__contains__, map(name.format, count()))]


def round_through(x: Tensor) -> Tensor:
    """Rounding whose gradient is that of the identity."""
    return x + (x.round() - x).detach()


def full_precision(x: Tensor) -> Tensor:
    """At least float32: likelihoods and symbols need it also under autocast."""
    return x.float() if x.dtype in (torch.bfloat16, torch.float16) else x

"""A training recipe as frozen dataclasses: data, model, stages, and how the run is kept.

A recipe file is YAML with these names as keys; `tto.train.recipe_file` reads it. Lengths of time are minutes of wall
clock; a step is one update of the weights; a batch is the number of crops per step over all processes.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, model_validator
from pydantic.dataclasses import dataclass

from base_models.tables import TOTAL

STRICT = ConfigDict(extra="forbid")

Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
Positive = Annotated[float, Field(gt=0.0)]
Count = Annotated[int, Field(ge=1)]


@dataclass(frozen=True, config=STRICT)
class DataSettings:
    """Where images come from. An entry is a folder (searched to any depth), a text file with one path per line
    (relative to that file), a WebDataset shard `.tar`, or a pattern such as `shards/*.tar`."""

    train: tuple[str, ...] = ()
    val: tuple[str, ...] = ()
    half_size_copies: bool = False  # every image once more at half its size, bicubic (Kuang (CGOO), supplement §2)
    too_small: Literal["resize", "skip"] = "skip"  # images smaller than the crop
    zoom: Annotated[float, Field(ge=1.0, le=4.0)] = 1.0  # half of the crops are enlarged, bicubic, by up to this factor
    expected_images: Count | None = None  # of the published run; only for estimates while `train` is empty
    cache_gib: Annotated[float, Field(ge=0.0)] = 1.0  # memory for decoded images, per process
    workers: Count = 1  # threads that decode and crop


@dataclass(frozen=True, config=STRICT)
class SideSettings:
    """Side modules to train beside a frozen base: number of codes, and width of the MSC networks (None: in proportion
    to the published ones)."""

    codes: Annotated[int, Field(ge=2, le=TOTAL)] = 256
    width: Count | None = None


@dataclass(frozen=True, config=STRICT)
class ModelSettings:
    """Which network of `base_models`, which fields of its configuration change, and which weights it starts from.

    With `side` these weights stay as they are, and modules beside them are trained.
    """

    name: str
    config: dict[str, Any] = Field(default_factory=dict)
    checkpoint: str | None = None
    side: SideSettings | None = None


@dataclass(frozen=True, config=STRICT)
class LossSettings:
    """`R + λ·255²·MSE`, or `R + 1280·λ·(1 − MS-SSIM)`; R in bits per pixel, λ is the model's own.

    `rate_weights`: of the bits of y by each prediction of a model that makes several (Qian 2021, §5.1); without them
    only the last counts, which codes it.
    `quality_power`: a crop's loss is weighted by λ to minus this, over the mean of such weights: the higher, the more
    the low qualities count. Validation has 0.5 whatever a stage trains with.
    `balance`: rate and distortion fall at the same relative speed in every step (`tto.train.balance`).
    """

    distortion: Literal["mse", "ms-ssim"] = "mse"
    rate_weights: tuple[Fraction, ...] | None = None
    quality_power: Fraction = 0.5
    balance: bool = False


@dataclass(frozen=True, config=STRICT)
class OptimizerSettings:
    """`adam` for everything, or `muon` for matrices and convolutions with Adam for the rest."""

    name: Literal["adam", "muon"] = "adam"
    learning_rate: Positive = 1e-4
    muon_learning_rate: Positive = 1e-3
    aux_learning_rate: Positive = 1e-3  # quantiles of the entropy bottleneck
    betas: tuple[Fraction, Fraction] = (0.9, 0.999)
    clip_norm: Positive = 1.0


@dataclass(frozen=True, config=STRICT)
class ScheduleSettings:
    """Linear warm-up over `warmup_steps`, then the peak, then linear decay to 0 over the last part of the stage."""

    warmup_steps: Annotated[int, Field(ge=0)] = 0
    decay: Fraction = 0.0


@dataclass(frozen=True, config=STRICT)
class StageSettings:
    """One stage: what is trained, towards what, on which crops, and for how long.

    `epochs` or `steps` end it; `share` is its part of the minutes where a run is limited by time (without it the
    minutes are divided in proportion to steps).
    """

    name: str
    crop: Count  # pixels a side, a multiple of what the network takes
    batch: Count
    trainable: tuple[str, ...] = ("*",)  # patterns of parameter names
    loss: LossSettings = LossSettings()
    objective: Literal["rate-distortion", "ddt", "msc", "codebook-warm-up", "codebook"] = "rate-distortion"
    refine_steps: Annotated[int, Field(ge=0)] = 0  # of latents, before the stage trains on them
    refine_share: Fraction = 0.0  # of the crops that refinement is for; side modules always have all refined
    optimizer: OptimizerSettings = OptimizerSettings()
    schedule: ScheduleSettings = ScheduleSettings()
    epochs: Positive | None = None
    steps: Count | None = None
    share: Annotated[float, Field(gt=0.0, le=1.0)] | None = None
    micro_batch: Count | None = None  # crops per forward pass of one process; all of its share when not given

    @model_validator(mode="after")
    def has_one_length(self) -> StageSettings:
        if self.epochs is not None and self.steps is not None:
            raise ValueError("a stage has `epochs` or `steps`, not both")
        if self.epochs is None and self.steps is None and self.share is None:
            raise ValueError("a stage needs one of `epochs`, `steps`, `share`")
        return self

    @model_validator(mode="after")
    def refines_some_crops(self) -> StageSettings:
        is_base = self.objective == "rate-distortion"
        if self.refine_share and not is_base:
            raise ValueError(f"objective {self.objective!r} refines every crop; it has no `refine_share`")
        if is_base and (self.refine_steps > 0) != (self.refine_share > 0):
            raise ValueError("`refine_steps` and `refine_share` go together")
        return self

    @model_validator(mode="after")
    def balances_two_losses(self) -> StageSettings:
        if self.loss.balance and self.objective != "rate-distortion":
            raise ValueError(f"objective {self.objective!r} has no rate and distortion to `balance`")
        return self


@dataclass(frozen=True, config=STRICT)
class ValidationSettings:
    """How often the validation images are measured; 0 means only at the end of each stage."""

    every_minutes: Annotated[float, Field(ge=0.0)] = 10.0
    every_steps: Annotated[int, Field(ge=0)] = 0
    images: Count = 8
    samples: Annotated[int, Field(ge=0)] = 2  # reconstructions kept as PNG


@dataclass(frozen=True, config=STRICT)
class CheckpointSettings:
    """How often the run is saved, and how many checkpoints are kept; 0 means only at the end of each stage."""

    every_minutes: Annotated[float, Field(ge=0.0)] = 10.0
    every_steps: Annotated[int, Field(ge=0)] = 0
    keep: Count = 3


@dataclass(frozen=True, config=STRICT)
class Recipe:
    """A whole training run."""

    model: ModelSettings
    stages: Annotated[tuple[StageSettings, ...], Field(min_length=1)]
    data: DataSettings = DataSettings()
    seed: Annotated[int, Field(ge=0)] = 0
    minutes: Positive | None = None
    only: tuple[str, ...] = ()  # names of the stages to run; all when empty
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "fp32"  # auto: bf16 where the machine multiplies it, else fp32
    channels_last: bool = True
    compile: bool = False
    ema_decay: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0  # 0: no averaged weights
    export_dtype: Literal["fp32", "fp16"] = "fp16"
    log_every: Count = 50
    validation: ValidationSettings = ValidationSettings()
    checkpoints: CheckpointSettings = CheckpointSettings()
    trackers: tuple[str, ...] = ("tensorboard",)

    @model_validator(mode="after")
    def stages_fit_together(self) -> Recipe:
        names = [stage.name for stage in self.stages]
        if len(set(names)) != len(names):
            raise ValueError(f"stages have the same name: {', '.join(names)}")
        unknown = [name for name in self.only if name not in names]
        if unknown:
            raise ValueError(f"`only` names unknown stage {unknown[0]!r}; allowed: {', '.join(names)}")
        for stage in self.stages:
            if (stage.objective == "rate-distortion") != (self.model.side is None):
                raise ValueError(
                    f"stage {stage.name!r} has objective {stage.objective!r}, which is for models "
                    f"{'without' if self.model.side else 'with'} `side`"
                )
        if self.compile and any(stage.loss.balance for stage in self.chosen_stages):
            raise ValueError("`loss.balance` goes back twice through a network, which `compile` does not allow")
        shares = [stage.share for stage in self.chosen_stages]
        if any(share is None for share in shares) and any(share is not None for share in shares):
            raise ValueError("either every stage has a `share` of the minutes, or none has")
        if self.minutes is None and any(stage.epochs is None and stage.steps is None for stage in self.chosen_stages):
            raise ValueError("a stage without `epochs` or `steps` needs `minutes` (or --minutes)")
        return self

    @property
    def chosen_stages(self) -> tuple[StageSettings, ...]:
        """The stages this run goes through, in order."""
        return tuple(stage for stage in self.stages if not self.only or stage.name in self.only)

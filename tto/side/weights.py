"""The side modules of one base model, and how they lie in its weights file.

A weights file has the base's tensors, and below the prefix `side.` those of its side modules where it has any; its
metadata then says how large they are. The base is the same with and without them.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import nn

from base_models import BaseModel, CheckpointError, checkpoint_bytes
from base_models.checkpoints import SIDE_PREFIX, digest
from base_models.limits import check_ranges
from base_models.tables import TOTAL
from tto.container import MODULES_FINGERPRINT
from tto.files import write_atomic
from tto.side.compensation import MSC, scaled_width
from tto.side.transform import DDT

DECODER_SIDE = ("ddt.decoder.", "msc.decoder.", "msc.codebook", "msc.frequencies")


@dataclass(frozen=True)
class SideConfig:
    """Sizes: channels of y, codes, and the width of the MSC networks (None: in proportion to the published)."""

    channels: int = 320
    codes: int = 256
    width: int | None = None

    def __post_init__(self) -> None:
        """Raises `ValueError` naming a field that no side modules have."""
        check_ranges(self, channels=(1, 4096), codes=(2, 1 << 16))
        if self.width is not None:
            check_ranges(self, width=(1, 4096))


class SideModules(nn.Module):
    """DDT and MSC of one base model."""

    def __init__(self, config: SideConfig):
        super().__init__()
        self.config = config
        self.ddt = DDT()
        self.msc = MSC(config.channels, config.codes, config.width)

    @property
    def fingerprint(self) -> bytes:
        """First bytes of the SHA-256 of what a decoder uses."""
        return digest({k: v for k, v in self.state_dict().items() if k.startswith(DECODER_SIDE)})[:MODULES_FINGERPRINT]


def load_side_modules(path: str | Path) -> SideModules | None:
    """The side modules in a weights file, in eval mode, float32; None where it has none. Raises `CheckpointError`."""
    path = Path(path)
    if path.suffix != ".safetensors":
        return None
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            if "side" not in metadata:
                return None
            keys = [key for key in file.keys() if key.startswith(SIDE_PREFIX)]  # noqa: SIM118
            state = {key.removeprefix(SIDE_PREFIX): file.get_tensor(key) for key in keys}
        config = SideConfig(**json.loads(metadata["side"]))
        width = scaled_width(config.channels) if config.width is None else config.width
        shapes = tuple(state[f"msc.{name}"].shape for name in ("codebook", "decoder.0.weight"))
        if shapes != ((config.codes, config.channels), (width, config.channels, 1, 1)):
            raise ValueError("a tensor is not of the size that the file says")
        side = SideModules(config)
        side.load_state_dict({k: v.float() if v.is_floating_point() else v for k, v in state.items()})
    except FileNotFoundError:
        raise CheckpointError(f"{path} does not exist") from None
    except (OSError, SafetensorError, RuntimeError, KeyError, TypeError, ValueError):
        raise CheckpointError(f"{path}: its side modules are damaged") from None
    for name, value in side.state_dict().items():
        if value.is_floating_point() and not value.isfinite().all():
            raise CheckpointError(f"{path}: {SIDE_PREFIX}{name} holds values that are not finite")
    frequencies = side.msc.frequencies
    if int(frequencies.sum()) != TOTAL or int(frequencies.min()) < 1:
        raise CheckpointError(f"{path}: {SIDE_PREFIX}msc.frequencies do not sum to {TOTAL}")
    return side.eval().requires_grad_(False)


def save_with_side_modules(
    base: BaseModel, side: SideModules, path: str | Path, dtype: torch.dtype | None = None
) -> None:
    """Writes a base and its side modules as one file, atomically; weights in `dtype`, but those of the base only
    where that changes no value. Raises `FileError`, or `CheckpointError` where a weight is not finite in `dtype`.
    """
    tensors = {
        SIDE_PREFIX + key: value.to(dtype) if dtype is not None and value.is_floating_point() else value
        for key, value in side.state_dict().items()
    }
    config = {"side": json.dumps(asdict(side.config))}
    write_atomic(path, checkpoint_bytes(base, dtype, exact=True, extra=tensors, metadata=config))

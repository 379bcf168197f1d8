"""Between pictures and latents, the same for the codec, a refinement and an explanation.

pixels ─ pad ─ g_a ─ y ─ h_a ─ z                                           analyse
ŷ ─ side information ─ g_s ─ crop ─ gray ─┬─ side information ─ x̂          reconstruct
                                          └─ x̂ before that                 synthesise
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from base_models import BaseModel, Memory
from tto.padding import crop, pad_to_multiple, to_tensor
from tto.side.side import NO_SIDE, Side


@dataclass(frozen=True)
class Frame:
    """What a picture is cut to, in pixels; where it is gray its three channels are equal."""

    height: int
    width: int
    grayscale: bool = False

    def cut(self, x_hat: Tensor) -> Tensor:
        """What g_s gave → float32 [1, 3, height, width]."""
        x_hat = crop(x_hat, self.height, self.width).float()
        return x_hat.mean(1, keepdim=True).expand_as(x_hat) if self.grayscale else x_hat


@torch.inference_mode()
def analyse(model: BaseModel, rgb: np.ndarray, quality: float, memory: Memory = None) -> tuple[Tensor, Tensor]:
    """Latents y and z of uint8 pixels [H, W, 3], in units of the quantization step. `memory` as for the model's."""
    x = to_tensor(pad_to_multiple(rgb, model.stride)).to(model.z_medians().device)
    y = model.analysis(x, quality, memory)
    return y, model.hyper_analysis(y, quality, memory)


def synthesise(
    model: BaseModel,
    quality: float,
    y_hats: Sequence[Tensor],
    frames: Sequence[Frame],
    sides: Sequence[Side],
    memory: Memory = None,
) -> list[Tensor]:
    """ŷ of pictures that go through the network together → x̂ of each, before what side information does to pictures.

    ŷ [1, M, h, w] → [1, 3, H, W] float32, not clamped. `memory` as for the model's synthesis.
    """
    latents = [side.on_latent(y_hat) for side, y_hat in zip(sides, y_hats, strict=True)]
    networks = [side.on_network(model) for side in sides]
    if all(network is model for network in networks):
        x_hats = model.synthesis(latents[0] if len(latents) == 1 else torch.cat(latents), quality, memory).split(1)
    else:
        x_hats = [own.synthesis(y_hat, quality, memory) for own, y_hat in zip(networks, latents, strict=True)]
    return [frame.cut(x_hat) for frame, x_hat in zip(frames, x_hats, strict=True)]


def reconstruct(
    model: BaseModel, quality: float, y_hat: Tensor, frame: Frame, side: Side = NO_SIDE, memory: Memory = None
) -> Tensor:
    """ŷ [1, M, h, w] and side information → x̂ [1, 3, H, W], not clamped."""
    (x_hat,) = synthesise(model, quality, [y_hat], [frame], [side], memory)
    return side.on_picture(x_hat)

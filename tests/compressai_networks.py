"""Small networks of CompressAI's own classes, with random weights."""

from __future__ import annotations

import compressai.models
import torch


def small_network(seed: int) -> torch.nn.Module:
    """CompressAI's class with random weights whose latents are not all zero, tables built."""
    torch.manual_seed(seed)
    network = compressai.models.MeanScaleHyperprior(16, 16)
    with torch.no_grad():
        for layer in (network.g_a[-1], network.h_a[-1]):
            layer.weight *= 40
    network.update()
    return network.eval()


def variable_network() -> torch.nn.Module:
    """CompressAI's class with random weights and the step of z that published ones have, as they load it."""
    torch.manual_seed(7)
    network = compressai.models.MeanScaleHyperpriorVbr(16, 16, vr_entbttlnck=True)
    with torch.no_grad():
        for layer in (network.g_a[-1], network.h_a[-1]):
            layer.weight *= 100
    return network.eval()

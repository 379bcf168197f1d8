"""Distances between pictures by trained networks, differentiable: LPIPS and DISTS.

Networks and weights are those of the packages `lpips` and `piq`, which download weights when first used.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Mapping
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from functools import cache
from importlib import import_module
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tto.errors import NotInstalled
from tto.packages import require
from tto.padding import to_tensor

Distance = Callable[[Tensor, Tensor], Tensor]
"""Of (original, decoded), both [1, 3, H, W] in [0, 1], to one value: 0 for equal pictures."""


@dataclass(frozen=True)
class Network:
    """package: that has it; make: the network from the imported package; weights: files it downloads; options: of a
    call, after which it takes pictures in [0, 1].
    """

    package: str
    make: Callable[[ModuleType], nn.Module]
    weights: tuple[str, ...]
    options: Mapping[str, Any] = field(default_factory=dict)


NETWORKS = {
    # Zhang 2018, version 0.1 on AlexNet: what compression papers report.
    "lpips": Network(
        "lpips",
        lambda package: package.LPIPS(net="alex", verbose=False),
        ("alexnet-owt-7be5be79.pth",),
        {"normalize": True},
    ),
    # Ding 2020, on VGG16.
    "dists": Network("piq", lambda package: package.DISTS(), ("vgg16-397923af.pth", "dists_weights.pt")),
}


@cache
def load_distance(name: str) -> Distance:
    """A distance of `NETWORKS`, its network loaded once per process; it follows its arguments' device.

    Raises `NotInstalled` where the package is missing, or weights are and cannot be downloaded.
    """
    wanted = NETWORKS[name]
    require(wanted.package, "bench")
    try:
        # torchvision warns of the names that these packages call it by, and PyTorch tells of each download: where
        # figures are printed, and with a bar on stderr.
        with warnings.catch_warnings(), redirect_stderr(io.StringIO()), redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            network = wanted.make(import_module(wanted.package)).eval().requires_grad_(False)
    except OSError as error:  # urllib's errors are OSErrors
        place, files = torch.hub.get_dir() + "/checkpoints", " and ".join(wanted.weights)
        raise NotInstalled(f"{name}: weights cannot be downloaded ({error}); put {files} into {place}") from error

    def distance(original: Tensor, decoded: Tensor) -> Tensor:
        return network.to(decoded.device)(original, decoded, **wanted.options).squeeze()

    return distance


def score_pixels(distance: Distance, original: np.ndarray, decoded: np.ndarray) -> float:
    """The distance of two uint8 pictures [H, W, 3]."""
    with torch.no_grad():
        return float(distance(to_tensor(original), to_tensor(decoded)))

"""State dicts as earlier releases of CompressAI named their tensors."""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor


def of_2020(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """As the weights of its zoo have them: parameters of a bottleneck in lists, shortcuts called `downsample`."""
    renamed = {re.sub(r"\b(matrices|biases|factors)\.(\d)$", r"_\1.\2", key): state[key] for key in state}
    return {key.replace(".skip.", ".downsample."): value for key, value in renamed.items()}


def before_1_2_5(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """With a name for each parameter of a bottleneck."""
    singular = {"matrices": "_matrix", "biases": "_bias", "factors": "_factor"}
    return {
        re.sub(r"\b(matrices|biases|factors)\.(\d)$", lambda m: f"{singular[m[1]]}{m[2]}", key): value
        for key, value in state.items()
    }

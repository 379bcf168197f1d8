"""What makes a run the same run: a checkpoint is continued only by a recipe that agrees with it."""

from __future__ import annotations

from dataclasses import MISSING, fields, is_dataclass
from typing import Any

from tto.train.recipe import Recipe
from tto.train.recipe_file import plain

FREE = frozenset(
    {
        "minutes", "only", "compile", "export_dtype", "log_every", "validation", "checkpoints", "trackers",
        "data.train", "data.val", "data.cache_gib", "data.workers", "data.expected_images",
        "stages.steps", "stages.epochs", "stages.share",
        "precision", "stages.micro_batch", "stages.optimizer.learning_rate", "stages.optimizer.muon_learning_rate",
        "stages.optimizer.clip_norm",
    }
)  # fmt: skip


def run_identity(recipe: Recipe, images: int) -> dict[str, Any]:
    """Dotted keys of a recipe that decide its result, with their values; defaults are left out.

    `images` is the number of training images. Keys in `FREE` may change when a run is resumed: what a run is for, how
    long it is, and what it is told to change when it diverges or runs out of memory.
    """
    found: dict[str, Any] = {"number of training images": images}
    _collect(recipe, "", found)
    return found


def is_free(key: str) -> bool:
    """Whether a dotted key may change when a run is resumed; those of stages have the stage's name in the middle."""
    first, *others = key.split(".")
    return (".".join([first, *others[1:]]) if first == "stages" else key) in FREE


def _collect(node: Any, prefix: str, found: dict[str, Any]) -> None:
    for field in fields(node):
        key = f"{prefix}{field.name}"
        value = getattr(node, field.name)
        if is_free(key) or value == _default(field):
            continue
        if is_dataclass(value) and not isinstance(value, type):
            _collect(value, f"{key}.", found)
        elif isinstance(value, tuple) and value and is_dataclass(value[0]):
            for item in value:
                _collect(item, f"{key}.{item.name}.", found)
        else:
            found[key] = plain(value)


def _default(field: Any) -> Any:
    default = field.default
    if hasattr(default, "default"):  # pydantic keeps its constraints around it
        return default.get_default(call_default_factory=True)
    return field.default_factory() if field.default_factory is not MISSING else default

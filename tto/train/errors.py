"""What can go wrong in training for a reason a person can act on."""

from __future__ import annotations

from tto.errors import TTOError


class TrainingError(TTOError):
    """Base of every error of `tto.train`."""


class RecipeError(TrainingError):
    """A recipe, or an override of it, is wrong; the message names file, key, what was found and what is allowed."""


class DataError(TrainingError):
    """A folder, list or shard of images is missing or holds nothing usable."""


class ResumeError(TrainingError):
    """A checkpoint of a run is missing, damaged, or belongs to another recipe."""


class SaveError(TrainingError):
    """A checkpoint could not be written; the one before it is untouched."""


class OutOfMemory(TrainingError):
    """A step, or a validation, does not fit into memory."""


class Diverged(TrainingError):
    """Loss or gradients were not finite too many times in a row."""


class DeadHyperLatent(TrainingError):
    """The hyper-latent spends no bits: the model will not learn to adapt its scales to the image."""


class FrozenBaseChanged(TrainingError):
    """A base model that should have stayed as it was did not."""


class MissingModule(TrainingError):
    """A stage trains parameters that the model does not have."""

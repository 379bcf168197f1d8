"""CompressAI's own evaluation of a published DCAE checkpoint, as a second opinion on rates and PSNR.

    python scripts/compressai_eval.py checkpoint ../kodak -a tto-dcae -p dcae_0.013.pth.tar -d out

Arguments are those of `python -m compressai.utils.eval_model`; this program only makes `tto-dcae` known to it.
"""

from __future__ import annotations

import sys

import torch
from compressai.utils.eval_model import __main__ as evaluation

from base_models import load_weights, published
from base_models.dcae import DCAE

NAME = "tto-dcae"
"""CompressAI has, or will have, a "dcae" of its own."""


class EvaluatedDCAE(DCAE):
    """The network with the methods that CompressAI's evaluation calls."""

    @classmethod
    def from_state_dict(cls, state_dict: dict) -> EvaluatedDCAE:
        return load_weights(cls(), state_dict)

    def update(self, force: bool = False) -> None:
        if force:
            self.update_tables()

    def compress(self, x: torch.Tensor) -> dict:
        return published.compress(self, x)

    def decompress(self, strings: list, shape: tuple[int, int]) -> dict:
        return published.decompress(self, strings, shape)


def main() -> None:
    evaluation.architectures[NAME] = EvaluatedDCAE
    evaluation.pretrained_models[NAME] = EvaluatedDCAE  # the choices of -a
    evaluation.main(sys.argv[1:])


if __name__ == "__main__":
    main()

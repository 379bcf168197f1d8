"""CompressAI's own evaluation of a published DCAE checkpoint, as a second opinion on rates and PSNR.

    python scripts/compressai_eval.py checkpoint ../kodak -a dcae -p dcae_0.013.pth.tar -d out

Arguments are those of `python -m compressai.utils.eval_model`; this program only makes `dcae` known to it.
"""

from __future__ import annotations

import sys

from compressai.registry import MODELS
from compressai.utils.eval_model import __main__ as evaluation

import base_models  # noqa: F401  registers dcae


def main() -> None:
    evaluation.architectures["dcae"] = MODELS["dcae"]
    evaluation.pretrained_models["dcae"] = MODELS["dcae"]  # the choices of -a
    evaluation.main(sys.argv[1:])


if __name__ == "__main__":
    main()

"""Run in a process of its own: `python unchecked_worker.py CASES MODEL`.

Decodes the files of the folder CASES by one codec that takes every slice's checksum for right, so that damage reaches
the network. What each gave goes to CASES/outcomes.json: "decoded", or the error's name and message.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import tto.latent_coding
from tto.codec import Codec, load_codec
from tto.errors import TTOError

CHECKSUM = 0


def outcome(codec: Codec, data: bytes) -> str:
    try:
        codec.decompress(data)
    except TTOError as error:
        return f"refused: {error}"
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return "decoded"


if __name__ == "__main__":
    tto.latent_coding.checksum = lambda *indexes: CHECKSUM
    folder, codec = Path(sys.argv[1]), load_codec(sys.argv[2], device="cpu")
    outcomes = {case.stem: outcome(codec, case.read_bytes()) for case in sorted(folder.glob("*.tto"))}
    (folder / "outcomes.json").write_text(json.dumps(outcomes))

"""Downloads the image sets that the recipes and the benchmark name.

    python scripts/download.py div2k --to data
    python scripts/download.py kodak clic-valid --to data --mirror https://my.mirror/

Files are checked against known digests, a download that broke off goes on where it stopped, and mirrors are tried in
turn. Each set ends up in a folder of its own: data/div2k, data/kodak, … Kodak and CLIC's validation set are for
measuring only: never train on them.
"""

from __future__ import annotations

import argparse
import signal
import sys
from dataclasses import replace
from pathlib import Path

from tto.bench.datasets import load_dataset
from tto.bench.download import RemoteSet, images_in
from tto.errors import TTOError
from tto.formats import PICTURE_SUFFIXES
from tto.interruption import SHELL_OFFSET

ETH = "https://data.vision.ee.ethz.ch/cvl"
DIV2K = (f"{ETH}/DIV2K/", f"{ETH.replace('https', 'http')}/DIV2K/")
SETS = {
    "kodak": load_dataset("kodak").remote,
    "div2k": RemoteSet(
        DIV2K, {"DIV2K_train_HR.zip": "9d0b9c463f6e35b6c62cc6a930ee2224f670b34c1df841a57670f9acf0f6c335"}, 800
    ),
    "div2k-valid": RemoteSet(
        DIV2K, {"DIV2K_valid_HR.zip": "20dd31fd84d777bc1cf5d6b7654a3f569c0aec74458ae094122ad1d0489900fc"}, 100
    ),
    "clic-train": RemoteSet(
        (f"{ETH}/clic/",),
        {"professional_train_2020.zip": "54a2a684b5cbd0db91770a8695efb774fed1f612194fee68bceaf6b1c48e5d5f"},
        585,
    ),
    "clic-valid": load_dataset("clic-professional-valid").remote,
}


def download(name: str, images: RemoteSet, target: Path) -> Path:
    """Fills `target`/NAME with the images of a set, unless they are there; returns that folder.

    Raises `DownloadFailed` naming every mirror that was tried.
    """
    folder = target / name
    if len(images_in(folder, PICTURE_SUFFIXES)) < images.images:
        images.fill(folder, PICTURE_SUFFIXES)
    return folder


def main(arguments: list[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("sets", nargs="+", choices=sorted(SETS), metavar="SET", help=", ".join(SETS))
    parser.add_argument("--to", type=Path, default=Path("data"), help="folder for the sets (default: data)")
    parser.add_argument("--mirror", action="append", default=[], help="base address to try first; may be repeated")
    chosen = parser.parse_args(arguments)
    for name in chosen.sets:
        images = replace(SETS[name], mirrors=(*chosen.mirror, *SETS[name].mirrors))
        try:
            folder = download(name, images, chosen.to)
        except TTOError as error:
            print(f"download: {error}", file=sys.stderr)
            return 2
        except KeyboardInterrupt:
            print("download: stopped; the same command goes on from here", file=sys.stderr)
            return SHELL_OFFSET + signal.SIGINT
        print(f"{folder}: {len(images_in(folder, PICTURE_SUFFIXES))} images")
    return 0


if __name__ == "__main__":
    sys.exit(main())

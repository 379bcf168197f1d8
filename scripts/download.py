"""Downloads the image sets that the recipes and the benchmark name.

    python scripts/download.py div2k --to data
    python scripts/download.py kodak clic-valid --to data --mirror https://my.mirror/

Files are checked against known digests, a download that broke off goes on where it stopped, and mirrors are tried in
turn. Each set ends up in a folder of its own: data/div2k, data/kodak, … Kodak and CLIC's validation set are for
measuring only: never train on them.
"""

from __future__ import annotations

import argparse
import os
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from tto.bench.datasets import KODAK_SHA256
from tto.bench.download import DownloadFailed, fetch
from tto.errors import TTOError

IMAGES = frozenset({".png", ".jpg", ".jpeg"})


@dataclass(frozen=True)
class RemoteFile:
    """A file below every mirror of its set; `sha256` in hexadecimal. A `.zip` is unpacked."""

    name: str
    sha256: str


@dataclass(frozen=True)
class ImageSet:
    """Files of one set, the base addresses that have them, and the images they must come to."""

    name: str
    mirrors: tuple[str, ...]
    files: tuple[RemoteFile, ...]
    images: int


ETH = "https://data.vision.ee.ethz.ch/cvl"
SETS = (
    ImageSet(
        "kodak",
        (
            "https://r0k.us/graphics/kodak/kodak/",
            "https://raw.githubusercontent.com/BinomialLLC/basis_universal/master/test_files/",
        ),
        tuple(RemoteFile(f"kodim{number:02}.png", digest) for number, digest in enumerate(KODAK_SHA256, 1)),
        24,
    ),
    ImageSet(
        "div2k",
        (f"{ETH}/DIV2K/", f"{ETH.replace('https', 'http')}/DIV2K/"),
        (RemoteFile("DIV2K_train_HR.zip", "9d0b9c463f6e35b6c62cc6a930ee2224f670b34c1df841a57670f9acf0f6c335"),),
        800,
    ),
    ImageSet(
        "div2k-valid",
        (f"{ETH}/DIV2K/", f"{ETH.replace('https', 'http')}/DIV2K/"),
        (RemoteFile("DIV2K_valid_HR.zip", "20dd31fd84d777bc1cf5d6b7654a3f569c0aec74458ae094122ad1d0489900fc"),),
        100,
    ),
    ImageSet(
        "clic-train",
        (f"{ETH}/clic/",),
        (
            RemoteFile(
                "professional_train_2020.zip", "54a2a684b5cbd0db91770a8695efb774fed1f612194fee68bceaf6b1c48e5d5f"
            ),
        ),
        585,
    ),
    ImageSet(
        "clic-valid",
        (f"{ETH}/clic/",),
        (
            RemoteFile(
                "professional_valid_2020.zip", "00be38092ade2ab5163b65f7f6523d46c7bca147007f559adbb02c0afc236b7d"
            ),
        ),
        41,
    ),
)


def download(images: ImageSet, target: Path) -> Path:
    """Fills `target`/NAME with the images of a set, unless they are there; returns that folder.

    Raises `DownloadFailed` naming every mirror that was tried.
    """
    folder = target / images.name
    if count_images(folder) >= images.images:
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    for file in images.files:
        fetch_from_any(images.mirrors, file, folder / file.name)
        if file.name.endswith(".zip"):
            unpack(folder / file.name, folder)
    found = count_images(folder)
    if found != images.images:
        raise DownloadFailed(f"{folder} holds {found} images, expected {images.images}")
    return folder


def fetch_from_any(mirrors: tuple[str, ...], file: RemoteFile, path: Path) -> None:
    """Downloads a file from the first mirror that gives the right one. Raises `DownloadFailed`."""
    problems = []
    for mirror in mirrors:
        try:
            return fetch(f"{mirror.rstrip('/')}/{file.name}", path, file.sha256)
        except DownloadFailed as error:
            problems.append(str(error))
    raise DownloadFailed("; ".join(problems))


def unpack(archive: Path, folder: Path) -> None:
    """Puts the images of a zip archive into `folder`, without its own folders, and removes the archive."""
    try:
        with zipfile.ZipFile(archive) as content:
            for member in content.infolist():
                name = PurePosixPath(member.filename).name  # never a path out of the folder
                if PurePosixPath(name).suffix.lower() in IMAGES and not name.startswith("."):
                    unfinished = folder / f"{name}.part"
                    unfinished.write_bytes(content.read(member))
                    os.replace(unfinished, folder / name)
    except (zipfile.BadZipFile, OSError) as error:
        raise DownloadFailed(f"cannot unpack {archive}: {error}") from error
    archive.unlink()


def count_images(folder: Path) -> int:
    """Images that lie in a folder; 0 where there is none."""
    return sum(path.suffix.lower() in IMAGES for path in folder.iterdir()) if folder.is_dir() else 0


def main(arguments: list[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    known = {images.name: images for images in SETS}
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("sets", nargs="+", choices=sorted(known), metavar="SET", help=", ".join(known))
    parser.add_argument("--to", type=Path, default=Path("data"), help="folder for the sets (default: data)")
    parser.add_argument("--mirror", action="append", default=[], help="base address to try first; may be repeated")
    chosen = parser.parse_args(arguments)
    for name in chosen.sets:
        images = known[name]
        mirrors = (*chosen.mirror, *images.mirrors)
        try:
            folder = download(ImageSet(images.name, mirrors, images.files, images.images), chosen.to)
        except TTOError as error:
            print(f"download: {error}", file=sys.stderr)
            return 2
        print(f"{folder}: {count_images(folder)} images")
    return 0


if __name__ == "__main__":
    sys.exit(main())

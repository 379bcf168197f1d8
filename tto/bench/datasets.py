"""Sets of test images: those that the field reports on, by name, or any folder.

A named set is one file, `data/NAME.json`: where its images are to be had, under which licence, and the curves published
for it. Its images lie in the cache folder (`tto.files.cache_folder`), under its own name; what is missing is
downloaded. None of them may be used for training or tuning.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from tto.bench.download import DownloadFailed, RemoteSet, file_digest, images_in
from tto.bench.text import printable
from tto.errors import BadArgument
from tto.files import cache_folder
from tto.formats import PICTURE_SUFFIXES


@dataclass(frozen=True)
class Dataset:
    """A named set. source: page that says more; published: curves by codec, as `tto.bench.published` reads them."""

    name: str
    title: str
    source: str
    licence: str
    remote: RemoteSet
    published: Mapping[str, Mapping[str, Any]]

    @property
    def image_digests(self) -> frozenset[str]:
        """SHA-256 of every image, or nothing where only an archive's is known."""
        pictures = all(Path(name).suffix.lower() in PICTURE_SUFFIXES for name in self.remote.files)
        return frozenset(filter(None, self.remote.files.values() if pictures else ()))

    def about(self) -> str:
        """What a reader of a table should know of the images."""
        checked = all(self.remote.files.values())
        sums = "SHA-256 of every download is checked" if checked else "nobody has published a checksum of the download"
        return f"{self.title}, {self.remote.images} images, {self.source}; licence: {self.licence}; {sums}"


@dataclass(frozen=True)
class ImageSet:
    """Images to measure. name: of the set or the folder; complete: whether they are all of a named set."""

    name: str
    title: str
    paths: tuple[Path, ...]
    complete: bool
    about: str = ""


def dataset_names() -> tuple[str, ...]:
    """Names that `load_dataset` takes."""
    files = resources.files("tto.bench").joinpath("data").iterdir()
    return tuple(sorted(file.name.removesuffix(".json") for file in files if file.name.endswith(".json")))


def load_dataset(name: str) -> Dataset:
    """A named set. Raises `BadArgument` for an unknown name."""
    if name not in dataset_names():
        raise BadArgument(f"no data set {name!r}: there are {', '.join(dataset_names())}")
    entry = json.loads(resources.files("tto.bench").joinpath("data", f"{name}.json").read_text(encoding="utf-8"))
    remote = RemoteSet(tuple(entry["mirrors"]), entry["files"], entry["images"], entry.get("part", ""))
    published = entry["published"]["codecs"]
    return Dataset(name, entry["title"], entry["source"], entry["licence"], remote, published)


def open_dataset(name: str) -> ImageSet:
    """A folder of images if there is one of that name, else a named set, downloaded where it is missing.

    A folder that holds just the images of a named set whose digests are known is recognised. Raises `BadArgument` for
    neither folder nor set and for a folder without images, and `DownloadFailed` naming the folder to fill by hand.
    """
    if Path(name).is_dir():
        return _open_folder(Path(name))
    if name.lower() not in dataset_names():
        raise BadArgument(f"{name} is neither a folder nor a data set ({', '.join(dataset_names())})")
    dataset = load_dataset(name.lower())
    folder = cache_folder() / dataset.name
    if len(images_in(folder, PICTURE_SUFFIXES)) != dataset.remote.images:
        try:
            dataset.remote.fill(folder, PICTURE_SUFFIXES)
        except DownloadFailed as error:
            raise DownloadFailed(
                f"{error}. To do without, put the {dataset.remote.images} images of {dataset.title} "
                f"({dataset.source}) into {folder}"
            ) from error
    paths = images_in(folder, PICTURE_SUFFIXES)
    if dataset.image_digests and {file_digest(path) for path in paths} != dataset.image_digests:
        raise BadArgument(f"{folder} holds other images than those of {dataset.title}: empty it to download them again")
    return ImageSet(dataset.name, dataset.title, paths, True, dataset.about())


def _open_folder(folder: Path) -> ImageSet:
    paths = images_in(folder, PICTURE_SUFFIXES)
    if not paths:
        raise BadArgument(f"no images in the folder {folder}")
    candidates = [load_dataset(name) for name in dataset_names()]
    candidates = [one for one in candidates if len(one.image_digests) == len(paths)]
    digests = {file_digest(path) for path in paths} if candidates else set()
    for dataset in candidates:
        if digests == dataset.image_digests:
            return ImageSet(dataset.name, dataset.title, paths, True, dataset.about())
    name = printable(folder.resolve().name)
    return ImageSet(name, name, paths, complete=False)

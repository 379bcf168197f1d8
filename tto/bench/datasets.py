"""Sets of test images: three that the field reports on, by name, or any folder.

A named set lies in the cache folder, `$TTO_CACHE` or `~/.cache/tto`, under its own name; what is missing is
downloaded. None of them may be used for training or tuning.
"""

from __future__ import annotations

import os
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tto.bench.download import DownloadFailed, fetch, file_digest
from tto.bench.measure import Source
from tto.errors import BadArgument
from tto.formats import PICTURE_SUFFIXES

KODAK_SHA256 = (
    "a56e27cbf5f843c048b6af1d6e090760e9c92fadba88b7dee0205918a37523bd",
    "4f4b74a79237e311d72cad958237b5f7088d8bce1c82305ebefe1a70e3022dfd",
    "e25ca1ff2f0c0cb5fdfd5f9b0a0bb21ac4c3de3c84a67f35b09a85d3306249db",
    "e3b946107c5d3441c022f678d0c3caf1e224d81b1604ba840a4f88e562de61aa",
    "10349e963c5c813d327852f82c1795fa4148d69fedffc4c589bee458e3ac3d53",
    "363510303b715d4cbc384e1ce227e466b613a09e1b71ae985882bf8e7fbd9b18",
    "b77d3f006f42414bb242222e0482e750c0fb9e5ee8d4bed2f6f11c5605fe54a4",
    "ba23983c76b4832ee0e8af0592664756841a16779acd69f792e268fb6d13d6e7",
    "6a4361c2fc194feb4edaa9f9a4a0620fb9943e460ac7fdf037fb0f6dd6607a7d",
    "9dfb70f5867c29ff9ed6313683f19b3d867849e40fbc0c4c54a4a89df341cf23",
    "7936814b58b5387fce2e4e2488b4ec830dadd95fa9520f358ddb30990b50f2b6",
    "d78c37c2f04f23761ed2367dd77e2db584ddd4c3950833fecf89f199a8126980",
    "bc34a3ce58dea09dce1704c997171602de90cb34d0c8503a988b77f473d39b08",
    "55a94550ff18f3246c4074fd32b77b0c74447c26b6ad274d564d999c0450ba6e",
    "7538cbb80cb9103606c48b806eae57d56c885c7f90b9b3be70a41160f9cbb683",
    "a89c7268ccd4718ba424a99fc4643c572cf692ca6eae887185ceb4e9f11d2e54",
    "37afcc89fbdcb76d9518e04b2fc011027e2f4cd14b3b2f83cefd721641a47c5b",
    "1a9258c365988961d87a0598725b609139c303ad48a5aad6c503c3b1a87849aa",
    "b7450b264b1b0a411390d8931b112c27905a992520fc90569dc4b920aa32bbdc",
    "3b46c71e3b92a563820ba32936be8330c586c41f938efd94be938386aae4328a",
    "ac958597c82073f6bb65129c68f72b651db5b9efd82e11547d07350214bc268b",
    "1cee58eb1f2d9c7ebb254d208a03c783ce6cf2c4d8c2cf45e235dd23b4ce1b29",
    "e3111a2fd4da24af15d6459ef9eacfe54106b38e27b4a21821b75c3f5d2d5baf",
    "1071c68372cc5a01435c2c225a5cf7d4bb803846ec08bb6b3d6721b156d7cb96",
)
"""Digests of kodim01.png … kodim24.png as Kodak's suite has been passed on since 1999."""


@dataclass(frozen=True)
class Dataset:
    """A named set. source: page that says more; count: number of images; download: fills a folder."""

    name: str
    title: str
    source: str
    count: int
    download: Callable[[Path], None]


@dataclass(frozen=True)
class ImageSet:
    """Images to measure. name: of the set or the folder; complete: whether they are all of a named set."""

    name: str
    title: str
    paths: tuple[Path, ...]
    complete: bool

    def sources(self, limit: int = 0, crop: int = 0) -> list[Source]:
        """The first `limit` images (0: all), or their central squares of `crop` pixels (0: whole images)."""
        label = f"{self.name}, centre {crop}x{crop}" if crop else self.name
        return [Source(label, path, crop) for path in self.paths[: limit or None]]


def open_dataset(name: str) -> ImageSet:
    """A folder of images if there is one of that name, else a named set, downloaded where it is missing.

    A folder that holds the 24 Kodak images and nothing else is recognised as Kodak. Raises `BadArgument` for
    neither folder nor set and for a folder without images, and `DownloadFailed` naming the folder to fill by
    hand.
    """
    if Path(name).is_dir():
        return _open_folder(Path(name))
    dataset = DATASETS.get(name.lower())
    if dataset is None:
        raise BadArgument(f"{name} is neither a folder nor a data set ({', '.join(DATASETS)})")
    folder = cache_folder() / dataset.name
    paths = _images_in(folder)
    if len(paths) != dataset.count:
        try:
            dataset.download(folder)
        except DownloadFailed as error:
            raise DownloadFailed(
                f"{error}. To do without, put the {dataset.count} images of {dataset.title} "
                f"({dataset.source}) into {folder}"
            ) from error
        paths = _images_in(folder)
    if len(paths) != dataset.count:
        raise BadArgument(f"{folder} should hold {dataset.count} images of {dataset.title}, not {len(paths)}")
    return ImageSet(dataset.name, dataset.title, paths, complete=True)


def cache_folder() -> Path:
    """Where downloaded sets are kept."""
    return Path(os.environ.get("TTO_CACHE") or Path.home() / ".cache" / "tto")


def _open_folder(folder: Path) -> ImageSet:
    paths = _images_in(folder)
    if not paths:
        raise BadArgument(f"no images in the folder {folder}")
    if len(paths) == len(KODAK_SHA256) and {file_digest(path) for path in paths} == set(KODAK_SHA256):
        return ImageSet("kodak", DATASETS["kodak"].title, paths, complete=True)
    name = folder.resolve().name
    return ImageSet(name, name, paths, complete=False)


def _images_in(folder: Path) -> tuple[Path, ...]:
    if not folder.is_dir():
        return ()
    return tuple(sorted(path for path in folder.iterdir() if path.suffix.lower() in PICTURE_SUFFIXES))


# --- downloads -------------------------------------------------------------------------------------


def _download_kodak(folder: Path) -> None:
    for number, digest in enumerate(KODAK_SHA256, 1):
        name = f"kodim{number:02d}.png"
        fetch(f"https://r0k.us/graphics/kodak/kodak/{name}", folder / name, digest)


def _download_clic(folder: Path) -> None:
    url = "https://data.vision.ee.ethz.ch/cvl/clic/professional_valid_2020.zip"
    digest = "00be38092ade2ab5163b65f7f6523d46c7bca147007f559adbb02c0afc236b7d"
    _download_archive(url, digest, folder, "")


def _download_tecnick(folder: Path) -> None:
    # Nobody has published a digest of this archive; its own checksums and the number of images must do.
    url = "https://downloads.sourceforge.net/project/testimages/OLD/OLD_SAMPLING/testimages.zip"
    _download_archive(url, None, folder, "RGB_OR_1200x1200/")


def _download_archive(url: str, digest: str | None, folder: Path, part: str) -> None:
    """Unpack the images of an archive whose path in it contains `part`; then the archive goes."""
    archive = folder.with_name(f"{folder.name}.zip")
    fetch(url, archive, digest)
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with zipfile.ZipFile(archive) as content:
            for member in content.infolist():
                name = Path(member.filename).name  # never a path out of the folder
                if part in member.filename and Path(name).suffix.lower() in PICTURE_SUFFIXES and name[0] != ".":
                    unfinished = folder / f"{name}.part"
                    unfinished.write_bytes(content.read(member))
                    os.replace(unfinished, folder / name)
    except (zipfile.BadZipFile, OSError) as error:
        archive.unlink(missing_ok=True)
        raise DownloadFailed(f"cannot unpack {url}: {error}") from error
    archive.unlink()


DATASETS = {
    dataset.name: dataset
    for dataset in (
        Dataset("kodak", "Kodak", "https://r0k.us/graphics/kodak/", 24, _download_kodak),
        Dataset(
            "clic-professional-valid",
            "CLIC 2020 professional validation",
            "https://archive.compression.cc/2020/tasks/",
            41,
            _download_clic,
        ),
        Dataset("tecnick", "Tecnick TESTIMAGES 1200x1200 RGB", "https://testimages.org/", 100, _download_tecnick),
    )
}
"""Every named set."""

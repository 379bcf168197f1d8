"""Finding and decoding training images: folders, lists, WebDataset shards; a cache of decoded pixels."""

from __future__ import annotations

import glob
import io
import os
import tarfile
import threading
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from tto.formats import PICTURE_SUFFIXES, open_image
from tto.train.errors import DataError


@dataclass(frozen=True)
class ImageSource:
    """One image: a file, or `size` bytes at `offset` of a shard; `half` asks for it at half its size."""

    path: Path
    offset: int = 0
    size: int | None = None
    half: bool = False
    name: str = ""

    def __str__(self) -> str:
        return f"{self.path}{':' + self.name if self.name else ''}{' (half size)' if self.half else ''}"


def find_images(entries: tuple[str, ...], half_size_copies: bool = False) -> list[ImageSource]:
    """Every image under the entries of a recipe, in a fixed order. Raises `DataError`."""
    sources = [source for entry in entries for source in _expand(entry)]
    if not sources:
        raise DataError(f"no images found in {', '.join(entries) or 'nothing'}")
    if half_size_copies:
        sources += [ImageSource(s.path, s.offset, s.size, True, s.name) for s in sources]
    return sources


def decode(source: ImageSource) -> np.ndarray:
    """Pixels of an image, uint8 [H, W, 3]. Raises `DataError` naming the image."""
    try:
        with open(source.path, "rb") as file:
            file.seek(source.offset)
            data = file.read(-1 if source.size is None else source.size)
        with open_image(io.BytesIO(data)) as image:
            if image.mode.startswith(("I", "F")):
                raise DataError(f"{source}: more than 8 bits per channel")
            image = image.convert("RGB")
        if source.half:
            size = max(1, image.width // 2), max(1, image.height // 2)
            image = image.resize(size, Image.Resampling.BICUBIC)
        return np.asarray(image)
    except DataError:
        raise
    except Exception as error:  # Pillow's decoders raise many types
        raise DataError(f"{source}: {error or type(error).__name__}") from None


class ImageStore:
    """Images by number, decoded when first asked for and kept while memory allows. Safe to use from several threads.

    `skipped` says of each image that could not be used, by number, why.
    """

    def __init__(self, sources: list[ImageSource], cache_bytes: int):
        self.sources = sources
        self.skipped: dict[int, str] = {}
        self._reported = 0
        self._unreadable: set[int] = set()
        self._cache: dict[int, np.ndarray] = {}
        self._free = cache_bytes
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self.sources)

    def get(self, index: int, min_side: int = 1) -> np.ndarray | None:
        """Pixels of image `index`, uint8 [H, W, 3]; `None` if it is unreadable or a side is below `min_side`."""
        pixels = self._cache.get(index)
        if pixels is None:
            pixels = self._decode(index)
        if pixels is None or min(pixels.shape[:2]) >= min_side:
            return pixels
        height, width = pixels.shape[:2]
        self._skip(index, f"{self.sources[index]}: {width}×{height} is smaller than {min_side}")
        return None

    def newly_skipped(self) -> list[str]:
        """Reasons that were added to `skipped` since the last call."""
        with self._lock:
            reasons = list(self.skipped.values())[self._reported :]
            self._reported += len(reasons)
        return reasons

    def _decode(self, index: int) -> np.ndarray | None:
        if index in self._unreadable:
            return None
        try:
            pixels = decode(self.sources[index])
        except DataError as error:
            self._unreadable.add(index)
            self._skip(index, str(error))
            return None
        with self._lock:
            if pixels.nbytes <= self._free and index not in self._cache:
                self._cache[index] = pixels
                self._free -= pixels.nbytes
        return pixels

    def _skip(self, index: int, reason: str) -> None:
        with self._lock:
            self.skipped.setdefault(index, reason)


def _expand(entry: str) -> list[ImageSource]:
    if any(character in entry for character in "*?[") and not os.path.exists(entry):
        matches = sorted(glob.glob(entry, recursive=True))
        if not matches:
            raise DataError(f"nothing matches {entry}")
        return [source for match in matches for source in _expand_path(Path(match))]
    return _expand_path(Path(entry))


def _expand_path(path: Path) -> list[ImageSource]:
    if path.is_dir():
        return [ImageSource(file) for file in sorted(path.rglob("*")) if file.suffix.lower() in PICTURE_SUFFIXES]
    if not path.is_file():
        raise DataError(f"{path} does not exist")
    if path.suffix.lower() == ".tar":
        return _shard(path)
    if path.suffix.lower() in PICTURE_SUFFIXES:
        return [ImageSource(path)]
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        raise DataError(f"{path} is neither a folder, an image, a .tar shard nor a list of paths") from None
    return [ImageSource(path.parent / line.strip()) for line in lines if line.strip()]


def _shard(path: Path) -> list[ImageSource]:
    """Images of a WebDataset shard, where they lie in the file: any of them can be read without the others."""
    try:
        with tarfile.open(path, "r:") as shard:
            return [
                ImageSource(path, member.offset_data, member.size, name=member.name)
                for member in shard
                if member.isfile() and Path(member.name).suffix.lower() in PICTURE_SUFFIXES
            ]
    except (tarfile.TarError, OSError) as error:
        raise DataError(f"{path} is no uncompressed tar shard: {error}") from None

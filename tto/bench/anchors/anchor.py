"""What every anchor says of itself and can do."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

from PIL import Image

from tto.bench.encoded import Encoded


@dataclass(frozen=True)
class Anchor(ABC):
    """A classical codec with fixed settings and a ladder of qualities.

    suffix: of the files; container: what the bytes are that count.
    chroma: its subsampling, which costs PSNR on RGB at high rates and stands beside the figures in tables.
    settings: what else a person must know to repeat it.
    ladder: qualities that cover about 0.1…1.5 bpp on photographs of 768×512, as far as the format can.
    """

    name: str
    suffix: str
    chroma: str
    settings: str
    container: str
    ladder: tuple[float, ...]

    @property
    def device(self) -> str:
        return "cpu"

    @abstractmethod
    def encode(self, image: Image.Image, quality: float) -> Encoded:
        """A file with the image's colours and nothing else."""

    @abstractmethod
    def decode(self, data: bytes) -> Image.Image:
        """Pixels of a file made by `encode`, mode RGB."""

    @abstractmethod
    def version(self) -> str:
        """Versions that decide the bytes, for example `Pillow 12.0.0, webp 1.6.0`."""

    @abstractmethod
    def missing(self) -> str:
        """What this machine lacks for it, in one line; empty where it is there."""

    def described(self) -> str:
        """Chroma, settings and container, for people."""
        return f"{self.chroma}, {self.settings}; bytes of {self.container}"


def at_least(anchor: Anchor, image: Image.Image, size: int) -> bytes:
    """The smallest file of at least `size` bytes, so that nobody can say the anchor was given fewer; the largest where
    none is. Qualities are the whole numbers between the ends of the ladder; size grows with them, or nearly so.
    """
    low, high, highest = int(anchor.ladder[0]), int(anchor.ladder[-1]), int(anchor.ladder[-1])
    while low < high:
        middle = (low + high) // 2
        if len(anchor.encode(image, middle).data) >= size:
            high = middle
        else:
            low = middle + 1
    files = (anchor.encode(image, quality).data for quality in range(low, highest + 1))
    return next((data for data in files if len(data) >= size), anchor.encode(image, highest).data)

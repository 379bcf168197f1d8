"""tto in one line: `compress` what is at hand, `decompress` what was made. Models are loaded once."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from tto.codec import AnyCodec, Codec, Result, load_codec
from tto.container import MAX_PIXELS, read
from tto.errors import WrongModel
from tto.files import read_bytes
from tto.hub import pulled_models
from tto.image import load_picture
from tto.models import DEFAULT_MODEL, checkpoint_path, how_to_get, shipped_models
from tto.zoo import Family, FamilyCodec, find_family, find_network

if TYPE_CHECKING:
    from PIL import Image

    from tto.image import PictureLike

LOG = logging.getLogger(__name__)
CODECS_KEPT = 4


def compress(
    image: PictureLike,
    quality: float | None = None,
    *,
    model: str = DEFAULT_MODEL,
    device: str = "auto",
    convert: bool = False,
    **options: Any,
) -> Result:
    """A picture → `Result`, whose `data` is the file.

    `image` is a path, a file, an encoded picture's bytes, a PIL image, an array uint8 [H, W, 3], or a tensor [3, H, W]
    (uint8, or floats in [0, 1]). `quality` is 1 (small) to 8 (good), by default 4, or the model's highest if that is
    lower. `model` is as for `tto.load_codec`, by name or path; `device` as for `tto.load_codec`; `convert` lets
    16-bit and CMYK pictures become 8-bit RGB (`tto.conversion`). `options` are those of `Codec.compress`:
    `effort="fast"`, `target_bpp=0.25`, `roi=mask`, … Raises `TTOError` subclasses.
    """
    return cached_codec(model, device).compress(load_picture(image, convert), quality, **options)


def decompress(
    source: str | os.PathLike | IO[bytes] | bytes,
    *,
    models: Sequence[str] = (),
    device: str = "auto",
    max_pixels: int | None = MAX_PIXELS,
) -> Image.Image:
    """The picture in a .tto file (a path, an open file or its bytes), with its metadata in `info`.

    It is decoded with whichever of `models` (names or paths), or the shipped, pulled or CompressAI's downloaded ones,
    made it. Raises `WrongModel` where
    none of them did, or another `TTOError`.
    """
    if isinstance(source, (str, os.PathLike)):
        data = read_bytes(source)
    else:
        data = bytes(source) if isinstance(source, (bytes, bytearray, memoryview)) else source.read()
    return codec_for(data, models, device, max_pixels).decompress(data, max_pixels=max_pixels)


def codec_for(
    data: bytes, models: Sequence[str] = (), device: str = "auto", max_pixels: int | None = MAX_PIXELS
) -> Codec:
    """The codec that made a .tto file, of `models` and the shipped and pulled ones. A damaged file is refused before
    one is loaded, and CompressAI's weights are downloaded where none that are here made it. Raises `WrongModel` or
    another `TTOError`."""
    header = read(data, max_pixels=max_pixels).header
    fingerprint = header.fingerprint
    pulled = pulled_models().get(fingerprint.hex())
    named = [model for model in models if find_family(model) is None]
    for codec in _codecs((*named, *shipped_models(), *filter(None, [pulled])), device):
        if isinstance(codec, Codec) and codec.fingerprint == fingerprint:
            return codec
    asked = [_load_family(family, device) for family in filter(None, map(find_family, models))]
    for family_codec in asked:
        if (codec := family_codec.among_those_here(header)) is not None:
            return codec
    if (found := find_network(fingerprint)) is not None:
        family, quality = found
        return _load_family(family, device).trained(quality)
    for family_codec in asked:
        with suppress(WrongModel):
            return family_codec.for_file(data, max_pixels)
    raise WrongModel(
        f"the file was made with a model that is not here (fingerprint {fingerprint.hex()}): {how_to_get(fingerprint)}"
    )


def _codecs(models: Sequence[str], device: str) -> Iterator[AnyCodec]:
    return (cached_codec(model, device) for model in models)


def cached_codec(model: str, device: str = "auto") -> AnyCodec:
    """`load_codec`, which keeps what it loaded until the file changes."""
    if (family := find_family(model)) is not None:
        return _load_family(family, device)
    path = Path(checkpoint_path(model))
    return _load(str(path), path.stat().st_mtime_ns, device)


@lru_cache(maxsize=CODECS_KEPT)
def _load_family(family: Family, device: str) -> FamilyCodec:
    return FamilyCodec(family, device)


@lru_cache(maxsize=CODECS_KEPT)
def _load(path: str, modified: int, device: str) -> AnyCodec:
    start = time.perf_counter()
    codec = load_codec(path, device)
    LOG.info("%s loaded in %.1f s, on %s", path, time.perf_counter() - start, codec.device)
    return codec

"""Picture files in and out: the one place that knows Pillow's modes and metadata.

file, path or PIL image -> load_picture -> Picture -> save_picture -> file
"""

from __future__ import annotations

import io
import os
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np
from PIL import Image, PngImagePlugin

from tto.container import check_size
from tto.errors import BadArgument, FileError, LimitExceeded, TTOError, UnreadableImage, UnsupportedImage
from tto.files import write_atomic

GRAY_MODES = ("1", "L", "LA")
COLOR_MODES = ("P", "RGB", "RGBA")
TIFF_XMP_TAG = 700
# Tags of a TIFF file that speak of the scene and not of how this file stores its pixels.
TIFF_DESCRIPTIVE_TAGS = (270, 271, 272, 274, 305, 306, 315, 33432)
SUB_DIRECTORIES = (0x8769, 0x8825)  # Exif and GPS


@dataclass(frozen=True)
class Picture:
    """An 8-bit picture with its metadata.

    `rgb` is uint8 [H, W, 3], its three channels equal if `grayscale`; `alpha` is uint8 [H, W].
    `exif` begins with "Exif\\0\\0"; its orientation has not been applied to the pixels.
    """

    rgb: np.ndarray = field(repr=False)
    grayscale: bool = False
    alpha: np.ndarray | None = field(default=None, repr=False)
    icc: bytes | None = field(default=None, repr=False)
    exif: bytes | None = field(default=None, repr=False)
    xmp: bytes | None = field(default=None, repr=False)

    @property
    def width(self) -> int:
        return self.rgb.shape[1]

    @property
    def height(self) -> int:
        return self.rgb.shape[0]

    def to_pil(self) -> Image.Image:
        """PIL image of mode L, LA, RGB or RGBA; metadata is in its `info` under Pillow's names."""
        image = Image.fromarray(np.ascontiguousarray(self.rgb[..., 0] if self.grayscale else self.rgb))
        if self.alpha is not None:
            image.putalpha(Image.fromarray(np.ascontiguousarray(self.alpha)))
        metadata = {"icc_profile": self.icc, "exif": self.exif, "xmp": self.xmp}
        image.info.update({key: data for key, data in metadata.items() if data})
        return image


# --- in --------------------------------------------------------------------------------------------


def central(pixels: np.ndarray, side: int) -> np.ndarray:
    """The middle `side` by `side` of pixels [H, W, ...], or less where there is less; all of them for 0."""
    if not side:
        return pixels
    top, left = (max(0, (length - side) // 2) for length in pixels.shape[:2])
    return np.ascontiguousarray(pixels[top : top + side, left : left + side])


def load_picture(source: str | os.PathLike | IO[bytes] | Image.Image) -> Picture:
    """Read a picture of 8-bit gray, palette or RGB, with or without alpha.

    Pillow's own limit on pixels holds (for more, raise `PIL.Image.MAX_IMAGE_PIXELS`). A PIL image stays open.
    Raises `FileError`, `UnreadableImage`, `UnsupportedImage` or `LimitExceeded`.
    """
    name = str(source) if isinstance(source, (str, os.PathLike)) else getattr(source, "filename", "the image")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow warns of bombs it then opens, and of odd metadata
        try:
            if isinstance(source, Image.Image):
                return _from_pil(source)
            with Image.open(source) as image:
                return _from_pil(image)
        except TTOError as error:
            raise type(error)(f"{name}: {error}") from error
        except Image.DecompressionBombError as error:
            raise LimitExceeded(f"{name}: more pixels than Pillow's limit allows") from error
        except Image.UnidentifiedImageError as error:
            raise UnreadableImage(f"{name}: not a picture that Pillow can read") from error
        except (FileNotFoundError, PermissionError, IsADirectoryError) as error:
            raise FileError(f"cannot read {name}: {error.strerror}") from error
        except MemoryError as error:
            raise LimitExceeded(f"{name}: too large for the memory of this machine") from error
        except Exception as error:  # Pillow's plugins raise almost anything on damaged files
            raise UnreadableImage(f"{name}: damaged or truncated picture ({error})") from error


def _from_pil(image: Image.Image) -> Picture:
    check_size(image.width, image.height, None)
    if image.mode not in GRAY_MODES + COLOR_MODES:
        raise UnsupportedImage(f"mode {image.mode} is not supported; convert it to 8-bit gray or RGB")
    if _is_deep(image):
        raise UnsupportedImage("16-bit pictures are not supported; convert it to 8 bits")
    if getattr(image, "n_frames", 1) > 1 and image.format != "MPO":  # MPO: a photograph and its previews
        raise UnsupportedImage("animated and multi-page pictures are not supported")
    image.load()
    has_alpha = image.mode in ("LA", "RGBA") or "transparency" in image.info
    grayscale = image.mode in GRAY_MODES
    if grayscale and "transparency" not in image.info:
        planes = np.asarray(image.convert("LA" if has_alpha else "L"))
    else:
        planes = np.asarray(image.convert("RGBA" if has_alpha else "RGB"))
    channels = planes.reshape(image.height, image.width, -1)
    colors = channels.shape[2] - has_alpha
    return Picture(
        rgb=np.ascontiguousarray(np.broadcast_to(channels[..., :colors], (image.height, image.width, 3))),
        grayscale=grayscale,
        alpha=np.ascontiguousarray(channels[..., -1]) if has_alpha else None,
        icc=image.info.get("icc_profile") or None,
        exif=_exif(image),
        xmp=_xmp(image),
    )


def _is_deep(image: Image.Image) -> bool:
    """Whether the file has 16 bits per sample that Pillow would silently cut to 8."""
    raw_modes = (part for tile in getattr(image, "tile", ()) for part in np.atleast_1d(tile[3]).tolist())
    return any(isinstance(part, str) and ";16" in part for part in raw_modes)


def _exif(image: Image.Image) -> bytes | None:
    raw = image.info.get("exif")
    if isinstance(raw, bytes) and raw:
        return raw if raw.startswith(b"Exif\0\0") else b"Exif\0\0" + raw
    source = image.getexif()
    kept = Image.Exif()
    if image.format == "TIFF":
        kept.update({tag: source[tag] for tag in TIFF_DESCRIPTIVE_TAGS if tag in source})
        for directory in SUB_DIRECTORIES:
            if entries := source.get_ifd(directory):
                kept.get_ifd(directory).update(entries)
                kept[directory] = kept.get_ifd(directory)
    else:
        kept.update(source)
    return kept.tobytes() if len(kept) else None


def _xmp(image: Image.Image) -> bytes | None:
    xmp = image.info.get("xmp")
    if isinstance(xmp, str):
        xmp = xmp.encode()
    return xmp if isinstance(xmp, bytes) and xmp else None


# --- out -------------------------------------------------------------------------------------------


def save_picture(image: Image.Image, path: str | os.PathLike) -> None:
    """Write a PIL image in the format of the path's suffix, with the metadata in its `info`, atomically.

    Raises `BadArgument` for a suffix or a combination of format and mode that Pillow cannot write.
    """
    write_atomic(path, encode_picture(image, path))


def encode_picture(image: Image.Image, path: str | os.PathLike) -> bytes:
    """The file that `save_picture` writes."""
    kind = writable_format(path)
    buffer = io.BytesIO()
    try:
        image.save(buffer, kind, **_save_options(image, kind))
    except (OSError, ValueError, KeyError) as error:
        raise BadArgument(f"{path}: {kind} cannot hold a picture of mode {image.mode} ({error})") from error
    return buffer.getvalue()


def writable_format(path: str | os.PathLike) -> str:
    """Pillow's name of the format that the path's suffix stands for. Raises `BadArgument`."""
    suffix = Path(path).suffix.lower()
    kind = Image.registered_extensions().get(suffix)
    if kind is None or kind not in Image.SAVE:
        raise BadArgument(f"{path}: no picture format is written with the suffix '{suffix}'")
    return kind


def _save_options(image: Image.Image, kind: str) -> dict[str, Any]:
    """Metadata as Pillow wants it, and settings of the best quality where the format is lossy."""
    icc, exif, xmp = (image.info.get(key) for key in ("icc_profile", "exif", "xmp"))
    options: dict[str, Any] = {"icc_profile": icc} if icc else {}
    if kind == "PNG":
        info = PngImagePlugin.PngInfo()
        if xmp:
            info.add_itxt("XML:com.adobe.xmp", xmp.decode("utf-8", "replace"))
        return options | {"pnginfo": info} | ({"exif": exif} if exif else {})
    if kind == "TIFF":
        tags = Image.Exif()
        if exif:
            tags.load(exif)
        if xmp:
            tags[TIFF_XMP_TAG] = xmp
        return options | {"exif": tags}  # uncompressed: Pillow writes sub-directories of EXIF only so
    if kind in ("JPEG", "WEBP", "AVIF"):
        settings = {
            "JPEG": {"quality": 95, "subsampling": 0},
            "WEBP": {"lossless": True, "exact": True},
            "AVIF": {"quality": 95},
        }[kind]
        return options | settings | ({"exif": exif} if exif else {}) | ({"xmp": xmp} if xmp else {})
    return options

"""Picture files in and out: the one place that knows Pillow's modes and metadata.

file, path or PIL image -> load_picture -> Picture -> encode_picture -> bytes
"""

from __future__ import annotations

import io
import logging
import os
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, TypeAlias, cast

import numpy as np
from PIL import Image, PngImagePlugin

from tto.container import check_size
from tto.conversion import to_eight_bits
from tto.errors import BadArgument, FileError, LimitExceeded, TTOError, UnreadableImage, UnsupportedImage
from tto.formats import PICTURE_SUFFIXES, open_image

if TYPE_CHECKING:
    import torch

    PictureLike: TypeAlias = "str | os.PathLike | IO[bytes] | bytes | Image.Image | np.ndarray | torch.Tensor | Picture"

LOG = logging.getLogger(__name__)
GRAY_MODES = ("1", "L", "LA")
COLOR_MODES = ("P", "RGB", "RGBA")
FORMATS_WITH_PREVIEWS = ("MPO", "HEIF")
"""A photograph is the first of their pictures."""
METADATA = {"icc_profile": "ICC profile", "exif": "EXIF with the orientation", "xmp": "XMP"}
PLAIN_FORMATS = ("BMP", "PPM", "JPEG2000")
"""Pillow writes no metadata into them."""
OPAQUE_FORMATS = ("BMP", "PPM")
"""Alpha that is written into them nobody reads."""
SHALLOW_GRAYS = {"L;2": 2, "L;4": 4}
"""Bits of gray PNGs whose pixels Pillow widens to 8 bits, but not the level that is transparent."""
HEADER = 1 << 20  # bytes in which a file says its depth
TIFF_XMP_TAG = 700
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


def load_square(path: Path, side: int, convert: bool = False) -> Picture:
    """The colours of the middle `side` by `side` of a picture, of all of it for 0.

    Raises as `load_picture`, and `BadArgument` for a picture that is smaller.
    """
    picture = load_picture(path, convert)
    if min(picture.height, picture.width) < side:
        raise BadArgument(f"{path} has {picture.width}x{picture.height} pixels: no square of {side}")
    return Picture(central(picture.rgb, side), picture.grayscale)


def load_picture(source: PictureLike, convert: bool = False) -> Picture:
    """A picture of 8-bit gray, palette or RGB, with or without alpha.

    `source` is a path, a file, an encoded picture's bytes, a PIL image (which stays open), an array uint8 [H, W, 3]
    ([H, W] is gray, [H, W, 4] has alpha), or a tensor [3, H, W] of uint8, or of floats in [0, 1]; or a `Picture`, which
    is what it is. `convert`: other pictures are made into such as `tto.conversion` says.

    Pillow's own limit on pixels holds (for more, raise `PIL.Image.MAX_IMAGE_PIXELS`).
    Raises `BadArgument`, `FileError`, `UnreadableImage`, `UnsupportedImage` or `LimitExceeded`.
    """
    if isinstance(source, Picture):
        return source
    about = _name_before(source)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow warns of bombs it then opens, and of odd metadata
        try:
            if isinstance(source, Image.Image):
                return _from_pil(source, convert)
            with _opened(source) as image:
                return _from_pil(image, convert)
        except TTOError as error:
            raise type(error)(f"{about}{error}") from error
        except Image.DecompressionBombError as error:
            raise LimitExceeded(f"{about}more pixels than Pillow's limit allows") from error
        except Image.UnidentifiedImageError as error:
            raise UnreadableImage(f"{about}not a picture that Pillow can read") from error
        except (FileNotFoundError, PermissionError, IsADirectoryError) as error:
            raise FileError(f"cannot read {source}: {error.strerror}") from error
        except MemoryError as error:
            raise LimitExceeded(f"{about}too large for the memory of this machine") from error
        except Exception as error:  # Pillow's plugins raise almost anything on damaged files
            raise UnreadableImage(f"{about}damaged or truncated picture ({error})") from error


def _name_before(source: object) -> str:
    """What a message begins with: the name of a file that has one."""
    name = source if isinstance(source, (str, os.PathLike)) else getattr(source, "filename", None)
    return f"{os.fspath(name)}: " if name else ""


def _opened(source: PictureLike) -> Image.Image:
    """Raises `BadArgument` where that is nothing to open."""
    if isinstance(source, (bytes, bytearray, memoryview)):
        return open_image(io.BytesIO(source))
    if isinstance(source, (str, os.PathLike)) or hasattr(source, "read"):
        return open_image(cast("str | os.PathLike | IO[bytes]", source))
    if hasattr(source, "detach"):  # a tensor; torch need not be there
        return Image.fromarray(_pixels_of_array(_channels_last(cast("torch.Tensor", source).detach().cpu().numpy())))
    if isinstance(source, np.ndarray):
        return Image.fromarray(_pixels_of_array(source))
    kind = type(source).__name__
    raise BadArgument(f"a picture is a path, a file, bytes, a PIL image, an array or a tensor, not {kind}")


def _channels_last(values: np.ndarray) -> np.ndarray:
    """[C, H, W] of uint8, or of floats in [0, 1] → uint8 [H, W, C]. Raises `BadArgument`."""
    if values.ndim != 3 or values.shape[0] not in (1, 3, 4):
        raise BadArgument(f"a tensor is [3, H, W] (or [1, H, W], [4, H, W]), not {list(values.shape)}")
    if np.issubdtype(values.dtype, np.floating):
        if not (values.size == 0 or (values.min() >= 0 and values.max() <= 1)):
            raise BadArgument("a tensor of floats has values in [0, 1]")
        values = np.rint(255 * values.astype(np.float64)).astype(np.uint8)
    return values[0] if values.shape[0] == 1 else values.transpose(1, 2, 0)


def _pixels_of_array(values: np.ndarray) -> np.ndarray:
    """Raises `BadArgument` for what is not uint8 [H, W], [H, W, 3] or [H, W, 4]."""
    if values.dtype != np.uint8 or not (values.ndim == 2 or (values.ndim == 3 and values.shape[2] in (3, 4))):
        shape = list(values.shape)
        raise BadArgument(f"an array is uint8 [H, W, 3] (or [H, W], [H, W, 4]), not {values.dtype} {shape}")
    return np.ascontiguousarray(values)


def _from_pil(image: Image.Image, convert: bool) -> Picture:
    check_size(image.width, image.height, None)
    if getattr(image, "n_frames", 1) > 1 and image.format not in FORMATS_WITH_PREVIEWS:
        raise UnsupportedImage("animated and multi-page pictures are not supported")
    if _is_deep(image) and not convert:
        raise UnsupportedImage("more than 8 bits a sample are cut to 8 only with --convert (convert=True)")
    _widen_transparency(image)
    image.load()
    eight = to_eight_bits(image) if convert else image
    if eight.mode not in GRAY_MODES + COLOR_MODES:
        how = "is not supported" if convert else "becomes 8-bit gray or RGB only with --convert (convert=True)"
        raise UnsupportedImage(f"mode {eight.mode} {how}")
    has_alpha = eight.has_transparency_data
    grayscale = eight.mode in GRAY_MODES
    if grayscale and "transparency" not in eight.info:
        planes = np.asarray(eight.convert("LA" if has_alpha else "L"))
    else:
        planes = np.asarray(eight.convert("RGBA" if has_alpha else "RGB"))
    channels = planes.reshape(eight.height, eight.width, -1)
    colors = channels.shape[2] - has_alpha
    return Picture(
        rgb=np.ascontiguousarray(np.broadcast_to(channels[..., :colors], (eight.height, eight.width, 3))),
        grayscale=grayscale,
        alpha=np.ascontiguousarray(channels[..., -1]) if has_alpha else None,
        icc=eight.info.get("icc_profile") or None,
        exif=_exif(image),
        xmp=_xmp(image),
    )


def _is_deep(image: Image.Image) -> bool:
    """Whether the file has more than 8 bits per sample, which Pillow would silently cut to 8."""
    if image.info.get("bit_depth", 8) > 8 or _depth_in_header(image) > 8:  # the first is HEIF's
        return True
    return any(
        (";16" in str(part) and part != "BGR;16")  # that has 5, 6 and 5 bits
        or tile[0] == "SGI16"
        or (tile[0].startswith("ppm") and isinstance(part, int) and part > 255)
        for tile in getattr(image, "tile", ())
        for part in (tile[3] if isinstance(tile[3], tuple) else (tile[3],))
    )


def _widen_transparency(image: Image.Image) -> None:
    """Gives the transparent level of a gray PNG as many bits as its pixels will have."""
    level = image.info.get("transparency")
    bits = next((SHALLOW_GRAYS[tile[3]] for tile in getattr(image, "tile", ()) if tile[3] in SHALLOW_GRAYS), 8)
    if image.format == "PNG" and isinstance(level, int) and level < 1 << bits:
        image.info["transparency"] = level * 255 // ((1 << bits) - 1)


def _depth_in_header(image: Image.Image) -> int:
    """Bits of a sample that a JPEG 2000 or AVIF file says to have; 8 of what says nothing."""
    file = getattr(image, "fp", None)
    if file is None or image.format not in ("JPEG2000", "AVIF"):
        return 8
    position = file.tell()
    file.seek(0)
    head = file.read(HEADER)
    file.seek(position)
    if image.format == "AVIF":
        flags = head[head.find(b"av1C") + 6 :][:1]  # of the first stream
        return 10 if b"av1C" in head and flags and flags[0] & 0x40 else 8
    _, found, size = head.partition(b"\xff\x4f\xff\x51")  # beginning of the codestream, and of its sizes
    depths = size[38::3][: int.from_bytes(size[36:38], "big")] if found else b""
    return max(((depth & 0x7F) + 1 for depth in depths), default=8)


def _exif(image: Image.Image) -> bytes | None:
    raw = image.info.get("exif")
    if isinstance(raw, bytes) and raw:
        return raw if raw.startswith(b"Exif\0\0") else b"Exif\0\0" + raw
    try:
        source = image.getexif()
        kept = _descriptive(source) if image.format == "TIFF" else source
        return kept.tobytes() if len(kept) else None
    except Exception:  # Pillow raises almost anything
        LOG.warning("the picture's EXIF is damaged: it is left out")
        return None


def _descriptive(source: Image.Exif) -> Image.Exif:
    """What speaks of the scene and not of how a file stores its pixels."""
    kept = Image.Exif()
    kept.update({tag: source[tag] for tag in TIFF_DESCRIPTIVE_TAGS if tag in source})
    for directory in SUB_DIRECTORIES:
        if entries := source.get_ifd(directory):
            kept.get_ifd(directory).update(entries)
            kept[directory] = kept.get_ifd(directory)
    return kept


def _xmp(image: Image.Image) -> bytes | None:
    xmp = image.info.get("xmp")
    if isinstance(xmp, str):
        xmp = xmp.encode()
    return xmp if isinstance(xmp, bytes) and xmp else None


# --- out -------------------------------------------------------------------------------------------


def encode_picture(image: Image.Image, path: str | os.PathLike) -> bytes:
    """A PIL image as a file in the format of the path's suffix, with the metadata in its `info`.

    Warns of what the format leaves out. Raises `BadArgument` for a suffix or a combination of format and mode that
    Pillow cannot write, alpha among it.
    """
    kind = writable_format(path)
    buffer = io.BytesIO()
    if kind in OPAQUE_FORMATS and image.has_transparency_data:
        raise BadArgument(f"{path}: {kind} cannot hold alpha")
    lost = [name for key, name in METADATA.items() if image.info.get(key)] if kind in PLAIN_FORMATS else []
    if lost:
        LOG.warning("%s: %s holds no metadata, %s left out", path, kind, " and ".join(lost))
    if kind in ("TIFF", "AVIF") and not _is_readable(image.info.get("exif")):
        LOG.warning("%s: the picture's EXIF is damaged, and %s cannot hold it: it is left out", path, kind)
        image = image.copy()
        del image.info["exif"]
    try:
        image.save(buffer, kind, **_save_options(image, kind))
    except (OSError, ValueError, KeyError) as error:
        raise BadArgument(f"{path}: {kind} cannot hold a picture of mode {image.mode} ({error})") from error
    return buffer.getvalue()


def _is_readable(exif: bytes | None) -> bool:
    """Whether Pillow understands it all."""
    try:
        entries = Image.Exif()
        entries.load(exif or b"")
        entries.tobytes()
    except Exception:  # it raises almost anything
        return False
    return True


def writable_format(path: str | os.PathLike) -> str:
    """Pillow's name of the format that the path's suffix stands for, if it keeps a photograph's size and colours.

    Raises `BadArgument`.
    """
    suffix = Path(path).suffix.lower()
    kind = Image.registered_extensions().get(suffix)
    if kind not in Image.SAVE or suffix not in PICTURE_SUFFIXES or kind == "GIF":
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
        tags.load(exif or b"")
        tags = _descriptive(tags)
        if xmp:
            tags[TIFF_XMP_TAG] = xmp
        return options | {"exif": tags}  # uncompressed: Pillow writes sub-directories of EXIF only so
    if kind in ("JPEG", "WEBP", "AVIF"):
        settings = {
            "JPEG": {"quality": 95, "subsampling": 0},
            "WEBP": {"lossless": True, "exact": True},
            "AVIF": {"quality": 95, "subsampling": "4:4:4"},
        }[kind]
        return options | settings | ({"exif": exif} if exif else {}) | ({"xmp": xmp} if xmp else {})
    return options

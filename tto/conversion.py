"""Pictures that are not 8-bit gray or RGB, made so for whoever asks for it.

Levels of 12 and 16 bits are rounded to 8 (of colour pictures Pillow gives the upper 8). CMYK and Lab become sRGB: by
the picture's ICC profile where it has one that can be used, CMYK otherwise by Pillow's formula. YCbCr and HSV become
RGB.
"""

from __future__ import annotations

import io
from typing import cast

import numpy as np
from PIL import Image, ImageCms

from tto.errors import UnsupportedImage

DEEP_GRAY_MODES = ("I", "I;16", "I;16B", "I;16L", "I;16N")
PROFILED_MODES = ("CMYK", "LAB")
PLAIN_MODES = ("YCbCr", "HSV", "RGBX", "La", "RGBa", "PA")
TIFF_BITS_PER_SAMPLE = 258


def to_eight_bits(image: Image.Image) -> Image.Image:
    """An image of mode L, LA, RGB or RGBA; the same one where nothing is to be done.

    `info` travels along, without a profile that no longer fits. Raises `UnsupportedImage`.
    """
    if image.mode in DEEP_GRAY_MODES:
        converted, lost = _rounded(image), "transparency"
    elif image.mode in PROFILED_MODES:
        converted, lost = _to_srgb(image), "icc_profile"
    elif image.mode in PLAIN_MODES:
        target = {"La": "LA", "RGBa": "RGBA", "PA": "RGBA"}.get(image.mode, "RGB")
        converted, lost = image.convert(target), None
    else:
        return image
    converted.info = {key: value for key, value in image.info.items() if key != lost}
    return converted


def _rounded(image: Image.Image) -> Image.Image:
    """Gray of 12 or 16 bits → 8 bits, its transparent level if any → alpha."""
    levels = np.asarray(image).astype(np.int64)
    bits = 12 if getattr(image, "tag_v2", {}).get(TIFF_BITS_PER_SAMPLE) == (12,) else 16
    highest = 2**bits - 1
    if levels.min() < 0 or levels.max() > highest:
        raise UnsupportedImage("its levels are not of 16 bits")
    gray = Image.fromarray(np.rint(255 * levels / highest).astype(np.uint8))
    if isinstance(transparent := image.info.get("transparency"), int):
        gray.putalpha(Image.fromarray(np.where(levels == transparent, 0, 255).astype(np.uint8)))
    return gray


def _to_srgb(image: Image.Image) -> Image.Image:
    profile = image.info.get("icc_profile")
    try:
        if image.mode == "LAB":
            source = ImageCms.createProfile("LAB")
        elif profile:
            source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        else:
            return image.convert("RGB")
        converted = ImageCms.profileToProfile(
            image,
            source,
            ImageCms.createProfile("sRGB"),
            renderingIntent=ImageCms.Intent.RELATIVE_COLORIMETRIC,
            outputMode="RGB",
            flags=ImageCms.Flags.BLACKPOINTCOMPENSATION,
        )
        return cast(Image.Image, converted)  # None only when it is done in place
    except (ImageCms.PyCMSError, OSError) as error:
        if image.mode == "CMYK":  # a profile that is damaged, or of something else
            return image.convert("RGB")
        raise UnsupportedImage(f"mode {image.mode} cannot be converted ({error})") from error

"""tto: online test-time optimization for learned image compression.

    import tto
    codec = tto.load_codec("dcae-small")
    result = codec.compress("photo.png", quality=4)
    image = tto.decompress(result.data)

Names load on first use, so that importing the package costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_HOMES = {
    "Codec": "tto.codec",
    "Result": "tto.codec",
    "decompress": "tto.codec",
    "load_codec": "tto.codec",
    "register_pillow": "tto.pillow_plugin",
    "TTOError": "tto.errors",
}
__all__ = ["__version__", *_HOMES]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'tto' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)

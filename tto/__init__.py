"""tto: online test-time optimization for learned image compression.

    import tto
    result = tto.compress("photo.png", quality=4, effort="fast")
    image = tto.decompress(result.data)

Names load on first use, so that importing the package costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tto.api import compress, decompress
    from tto.codec import Codec, Result, load_codec
    from tto.errors import TTOError
    from tto.pillow_plugin import register_pillow
    from tto.refine.state import Callbacks, Progress
    from tto.request import Request

__version__ = "0.1.0"

_HOMES = {
    "Callbacks": "tto.refine.state",
    "Codec": "tto.codec",
    "Progress": "tto.refine.state",
    "Request": "tto.request",
    "Result": "tto.codec",
    "TTOError": "tto.errors",
    "compress": "tto.api",
    "decompress": "tto.api",
    "load_codec": "tto.codec",
    "register_pillow": "tto.pillow_plugin",
}
__all__ = [
    "Callbacks",
    "Codec",
    "Progress",
    "Request",
    "Result",
    "TTOError",
    "__version__",
    "compress",
    "decompress",
    "load_codec",
    "register_pillow",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'tto' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})

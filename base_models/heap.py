"""The C library's heap, from which activations on a processor come."""

from __future__ import annotations

import ctypes
from contextlib import suppress


def return_freed() -> None:
    """What was freed goes back to the system, also from between blocks that are in use, where the C library can be told
    so.
    """
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)  # of the GNU C library

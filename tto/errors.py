"""Everything that can go wrong for a reason a person can act on.

Each cause is one subclass of `TTOError`; the message is one plain line, ready to be printed.
This module imports nothing, so that `tto info` and every other module can use it for free.
"""

from __future__ import annotations


class TTOError(Exception):
    """Base of every error that tto raises on purpose."""


class BadArgument(TTOError):
    """An argument (of the command line or of a function) has no meaning."""


class NotInstalled(TTOError):
    """A package, a program or weights that an option needs are not on this machine."""


class FileError(TTOError):
    """A file is missing, or may not be read or written."""


class LimitExceeded(TTOError):
    """Something is larger than this program is willing to take memory for."""


# --- pictures --------------------------------------------------------------------------------------


class UnreadableImage(TTOError):
    """A picture file is damaged, truncated, or of a format that Pillow does not know."""


class UnsupportedImage(TTOError):
    """A picture is readable, but is not 8-bit gray or RGB with or without alpha, or is animated."""


# --- .tto files ------------------------------------------------------------------------------------


class NotATTOFile(TTOError):
    """The data does not begin with the magic bytes of a .tto file."""


class UnsupportedVersion(TTOError):
    """The file has a format version that this program does not know."""


class UnsupportedSection(TTOError):
    """The file has a mandatory section that this program does not know."""


class CorruptFile(TTOError):
    """The file is not as it was written, or was never one; `section` says where. Raised itself for a wrong value."""

    def __init__(self, section: str, reason: str) -> None:
        super().__init__(f"corrupt file: {section}: {reason}")
        self.section = section


class WrongChecksum(CorruptFile):
    """The header or a section is not what its CRC-32 was taken of."""

    def __init__(self, section: str) -> None:
        super().__init__(section, "wrong checksum")


class WrongLength(CorruptFile):
    """The file or a section ends too early, or goes on after its end."""


class IndexMismatch(CorruptFile):
    """The entropy model of this machine does not reproduce the encoder's scale indexes of one slice."""

    def __init__(self, slice_index: int) -> None:
        super().__init__(f"slice {slice_index}", "the decoder's scale indexes differ from the encoder's")
        self.slice_index = slice_index


class VerificationFailed(TTOError):
    """The file just made does not decode to what the encoder intended; nothing was written."""


class NotEnoughMemory(TTOError):
    """A picture is too large to be coded, refined or decoded on this machine."""


class TargetMissed(TTOError):
    """No file of the wanted size or quality was found; `is_below` says whether the nearest has less than was wanted."""

    def __init__(self, message: str, is_below: bool = False) -> None:
        super().__init__(message)
        self.is_below = is_below


# --- models ----------------------------------------------------------------------------------------


class WrongModel(TTOError):
    """The file was made with a model that is not the one at hand."""


class BadCheckpoint(TTOError):
    """A checkpoint is damaged, has unexpected tensors, or has values that are not finite."""


class HubError(TTOError):
    """Weights could not be had from a hub, or given to it."""

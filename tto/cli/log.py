"""What is said on stderr besides results: errors and remarks, one line each. `-v` and `--quiet` decide how much."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager

LOGGER = logging.getLogger("tto")
LEVELS = (logging.WARNING, logging.INFO, logging.DEBUG)


class _Stderr(logging.Handler):
    """Whatever stderr is at the time: a bar takes its place while it is shown."""

    def emit(self, record: logging.LogRecord) -> None:
        print_line(self.format(record))


@contextmanager
def logging_to_stderr() -> Iterator[None]:
    """Inside, what tto logs is printed, warnings only unless `set_level` says otherwise."""
    handler, before = _Stderr(), LOGGER.level
    LOGGER.addHandler(handler)
    LOGGER.setLevel(logging.WARNING)
    try:
        yield
    finally:
        LOGGER.removeHandler(handler)
        LOGGER.setLevel(before)


def set_level(verbose: int, quiet: bool) -> None:
    """`verbose` is how often -v was given."""
    if quiet:
        LOGGER.setLevel(logging.ERROR)
    elif verbose:
        LOGGER.setLevel(LEVELS[min(verbose, len(LEVELS) - 1)])


def is_quiet() -> bool:
    return not LOGGER.isEnabledFor(logging.WARNING)


def print_line(message: str) -> None:
    print("tto: " + " ".join(message.split()), file=sys.stderr)

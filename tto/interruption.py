"""Ctrl-C and SIGTERM in the middle of long work: the first lets a step end, a second acts as usual.

A launcher of several processes passes a SIGTERM on to them that its system may have sent to each of them, too: two at
about the same time are one.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from tto.errors import TTOError

SIGNALS = (signal.SIGINT, signal.SIGTERM)
SAME_SECONDS = 2.0
SHELL_OFFSET = 128
"""Shells say so much more than the number of the signal that ended a program."""


class Interrupted(TTOError):
    """Work ended before its time because a signal asked for it; the message says what was kept."""

    def __init__(self, message: str, number: int = signal.SIGINT) -> None:
        super().__init__(f"interrupted: {message}")
        self.exit_code = SHELL_OFFSET + number


class Terminated(KeyboardInterrupt):
    """SIGTERM, where it is to end work as Ctrl-C does."""

    number = signal.SIGTERM


@contextmanager
def _handled(handler: Callable[[int, Any], None], *numbers: int) -> Iterator[Callable[[], None]]:
    """Inside, these signals go to `handler`, or until what is yielded is called.

    Only the main thread gets signals; in another one this does nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda: None
        return
    before = {number: signal.signal(number, handler) for number in numbers}

    def restore() -> None:
        for number, earlier in before.items():  # None: it was not set from Python
            signal.signal(number, signal.SIG_DFL if earlier is None else earlier)

    try:
        yield restore
    finally:
        restore()


@contextmanager
def termination_raised() -> Iterator[None]:
    """Inside, SIGTERM raises `Terminated` in the main thread, so that workers can be ended."""

    def end(number, frame):
        raise Terminated

    with _handled(end, signal.SIGTERM):
        yield


@contextmanager
def held_back() -> Iterator[None]:
    """Inside, signals wait, to act at the end: what must not be left half done is done whole."""
    held: list[int] = []
    try:
        with _handled(lambda number, frame: held.append(number), *SIGNALS):
            yield
    finally:
        for number in held:
            signal.raise_signal(number)


class Interruption:
    """Whether a person, or the system, has asked for an end. `number` of the signal stays once it is there."""

    def __init__(self):
        self.number: int | None = None

    def asked(self) -> bool:
        return self.number is not None

    @contextmanager
    def caught(self, until: str = "finishing the step") -> Iterator[None]:
        """Inside, the first signal is only noted, and `until` is said to whoever waits; a second acts as usual."""

        began = 0.0

        def note(number, frame):
            nonlocal began
            if self.number is None:
                self.number, began = number, time.monotonic()
                tell(f"tto: {until}; again to abort")
            elif number != signal.SIGTERM or time.monotonic() - began > SAME_SECONDS:
                restore()
                signal.raise_signal(number)

        with _handled(note, *SIGNALS) as restore:
            yield


def tell(line: str) -> None:
    """One line on stderr from within a signal handler, which may have come in the middle of another line there."""
    if sys.__stderr__ is None:  # without a console
        return
    with contextlib.suppress(OSError, ValueError):
        descriptor = sys.__stderr__.fileno()
        os.write(descriptor, f"{chr(10) * os.isatty(descriptor)}{line}\n".encode())

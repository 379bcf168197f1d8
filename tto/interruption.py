"""Ctrl-C and SIGTERM in the middle of long work: the first lets a step end, a second acts as usual."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from tto.errors import TTOError

SIGNALS = (signal.SIGINT, signal.SIGTERM)
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
def termination_raised() -> Iterator[None]:
    """Inside, SIGTERM raises `Terminated` in the main thread, so that workers can be ended."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(number, frame):
        raise Terminated

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL if before is None else before)


@contextmanager
def held_back() -> Iterator[None]:
    """Inside, signals wait, to be heard at the end: what must not be left half done is done whole.

    Only the main thread hears of signals; in another one this does nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    held: list[int] = []
    before = {number: signal.signal(number, lambda number, frame: held.append(number)) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
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
        """Inside, the first signal is only noted, and `until` is said to whoever waits; a second acts as usual.

        Only the main thread hears of signals; in another one this does nothing.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.getsignal(number) for number in SIGNALS}

        def note(number, frame):
            self.number = number
            for each, handler in before.items():
                signal.signal(each, handler)
            tell(f"tto: {until}; again to abort")

        for number in SIGNALS:
            signal.signal(number, note)
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def tell(line: str) -> None:
    """One line on stderr from within a signal handler, which may have come in the middle of another line there."""
    if sys.__stderr__ is None:  # without a console
        return
    with contextlib.suppress(OSError, ValueError):
        descriptor = sys.__stderr__.fileno()
        os.write(descriptor, f"{chr(10) * os.isatty(descriptor)}{line}\n".encode())

"""Watching refinements from the command line: what a bar says of one, and signals that end them early."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING

from tto.cli import print_error
from tto.cli.bars import Row

if TYPE_CHECKING:
    from tto.refine.engine import Progress

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interruption:
    """Whether a person, or the system, has asked for an end. `asked` stays true."""

    def __init__(self):
        self.asked = False

    @contextmanager
    def caught(self) -> Iterator[None]:
        """Inside, the first Ctrl-C or SIGTERM is only noted; a second one acts as usual."""
        before = {number: signal.getsignal(number) for number in SIGNALS}

        def note(number, frame):
            self.asked = True
            for each, handler in before.items():
                signal.signal(each, handler)

        for number in SIGNALS:
            signal.signal(number, note)
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


@contextmanager
def watching(long: bool) -> Iterator[Callable[[], bool]]:
    """Around work on files: what to ask whether a person wants it to end, which then leaves the best so far.

    Where nothing is refined or searched for there is nothing to keep of a half-done work, and signals act as usual.
    """
    interruption = Interruption()
    with interruption.caught() if long else nullcontext():
        yield lambda: interruption.asked
    if interruption.asked:
        print_error("interrupted: the best so far was written")


def row_of(progress: Progress) -> Row:
    """What a bar says about a refinement."""
    change = 100 * (progress.J / progress.base_J - 1)
    figures = f"{progress.bpp:.3f} bpp, {progress.psnr:.2f} dB, J {progress.J:.3f} ({change:+.1f} %)"
    total = max(progress.steps, progress.step)
    return Row(progress.step, total, figures, f"{progress.seconds_left:.0f} s left")

"""Watching a refinement from the command line: a bar on a terminal, and signals that end it early."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from tto.cli import print_error

if TYPE_CHECKING:
    from tto.refine.engine import Progress, Watch

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
def watched(interruption: Interruption, long: bool) -> Iterator[Watch]:
    """What `Codec.compress` takes: progress goes to a bar where there is a terminal, and nowhere elsewhere.

    Where nothing is refined or searched for there is nothing to keep of a half-done work, and signals act as usual.
    """
    from tto.refine.engine import Watch

    if not long:
        yield Watch()
        return
    with interruption.caught(), _bar() as on_progress:
        yield Watch(on_progress, lambda: interruption.asked)
    if interruption.asked:
        print_error("interrupted: the best so far was written")


@contextmanager
def _bar() -> Iterator[Callable[[Progress], None]]:
    if not sys.stderr.isatty():
        yield lambda progress: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
    from rich.progress import Progress as Bar

    figures_and_time = (TextColumn("{task.description}"), TextColumn("{task.fields[left]}"))
    columns = (BarColumn(), MofNCompleteColumn(), "steps", *figures_and_time)
    with Bar(*columns, console=Console(stderr=True), transient=True, redirect_stdout=sys.stdout.isatty()) as bar:
        task = bar.add_task("", total=None, left="")

        def show(progress: Progress) -> None:
            change = 100 * (progress.J / progress.base_J - 1)
            figures = f"{progress.bpp:.3f} bpp, {progress.psnr:.2f} dB, J {progress.J:.3f} ({change:+.1f} %)"
            total = max(progress.steps, progress.step)
            left = f"{progress.seconds_left:.0f} s left"
            bar.update(task, total=total, completed=progress.step, description=figures, left=left)

        yield show

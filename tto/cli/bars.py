"""Progress on a terminal: a bar over the files, one over the steps of each that takes many, and what is waited for."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from time import monotonic
from typing import NamedTuple


class Row(NamedTuple):
    """Where one file's work stands."""

    step: int
    steps: int
    figures: str
    left: str


@contextmanager
def waiting(text: str) -> Iterator[None]:
    """Says what takes its time before there is anything to count."""
    if not sys.stderr.isatty():
        yield
        return
    from rich.console import Console
    from rich.text import Text

    with Console(stderr=True).status(Text(text)):
        yield


class Bars:
    """`with Bars(files) as bars:` shows nothing where there is no terminal. Threads may use it.

    Of several files it says how many are done and how long the rest will take, and `first` until one is.
    """

    def __init__(self, files: int, first: str = ""):
        self._files, self._first = files, first
        self._shown = None

    def __enter__(self) -> Bars:
        if not sys.stderr.isatty():
            return self
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn

        texts = [TextColumn("{task.fields[" + name + "]}", markup=False) for name in ("count", "figures", "left")]
        self._shown = Progress(
            BarColumn(),
            *texts,
            console=Console(stderr=True),
            transient=True,
            redirect_stdout=sys.stdout.isatty(),  # else what is printed must stay on stdout
        )
        self._shown.start()
        if self._files > 1:
            self._begun = monotonic()
            self._all = self._shown.add_task("", total=self._files, count=self._count(0), figures=self._first, left="")
        return self

    def __exit__(self, *exception: object) -> None:
        if self._shown is not None:
            self._shown.stop()

    def file_done(self) -> None:
        if self._shown is not None and self._files > 1:
            self._shown.advance(self._all)
            done = next(task for task in self._shown.tasks if task.id == self._all).completed
            seconds = (monotonic() - self._begun) * (self._files - done) / done
            left = f"{timedelta(seconds=round(seconds))} left"
            self._shown.update(self._all, count=self._count(done), figures="", left=left)

    def _count(self, done: float) -> str:
        return f"{done:.0f}/{self._files} files"

    @contextmanager
    def steps(self, text: str = "") -> Iterator[Callable[[Row], None]]:
        """A bar for one file, which says `text` until its first step; yields what is to be told of steps."""
        shown = self._shown
        if shown is None:
            yield lambda row: None
            return
        task = shown.add_task("", total=None, count="", figures=text, left="")

        def show(row: Row) -> None:
            count = f"{row.step}/{row.steps} steps"
            shown.update(task, total=row.steps, completed=row.step, count=count, figures=row.figures, left=row.left)

        try:
            yield show
        finally:
            shown.remove_task(task)

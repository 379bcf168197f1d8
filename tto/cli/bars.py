"""Progress on a terminal: a bar over the files, and one over the steps of each that takes many."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple


class Row(NamedTuple):
    """Where one file's work stands."""

    step: int
    steps: int
    figures: str
    left: str


class Bars:
    """`with Bars(files) as bars:` shows nothing where there is no terminal. Threads may use it."""

    def __init__(self, files: int):
        self._files = files
        self._shown = None

    def __enter__(self) -> Bars:
        if not sys.stderr.isatty():
            return self
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

        texts = [TextColumn("{task.fields[" + name + "]}") for name in ("unit", "figures", "left")]
        self._shown = Progress(
            BarColumn(),
            MofNCompleteColumn(),
            *texts,
            console=Console(stderr=True),
            transient=True,
            redirect_stdout=sys.stdout.isatty(),  # else what is printed must stay on stdout
        )
        self._shown.start()
        if self._files > 1:
            self._all = self._shown.add_task("", total=self._files, unit="files", figures="", left="")
        return self

    def __exit__(self, *exception: object) -> None:
        if self._shown is not None:
            self._shown.stop()

    def file_done(self) -> None:
        if self._shown is not None and self._files > 1:
            self._shown.advance(self._all)

    @contextmanager
    def steps(self) -> Iterator[Callable[[Row], None]]:
        """A bar for one file while its steps are done; yields what is to be told of them."""
        if self._shown is None:
            yield lambda row: None
            return
        task = self._shown.add_task("", total=None, unit="steps", figures="", left="", visible=False)

        def show(row: Row) -> None:
            self._shown.update(
                task, total=row.steps, completed=row.step, figures=row.figures, left=row.left, visible=True
            )

        try:
            yield show
        finally:
            self._shown.remove_task(task)

"""Lines for a person; on a terminal a progress bar below them, and nothing but the lines when piped."""

from __future__ import annotations

import sys
from typing import TextIO

from rich.console import Console as RichConsole
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn


class Console:
    """Where a run reports. `quiet` is for processes other than the main one."""

    def __init__(self, quiet: bool = False, stream: TextIO | None = None):
        self.quiet = quiet
        self.stream = stream or sys.stdout
        self._bar: Progress | None = None
        if self.stream.isatty() and not quiet:
            columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:.1f} %"))
            rich = RichConsole(file=self.stream)
            self._bar = Progress(*columns, TimeElapsedColumn(), TextColumn("{task.fields[left]}"), console=rich)
            self._task = self._bar.add_task("", total=1.0, left="")
            self._bar.start()

    def say(self, line: str) -> None:
        """One line."""
        if self.quiet:
            return
        if self._bar is not None:
            self._bar.console.print(line, markup=False, highlight=False)
        else:
            print(line, file=self.stream, flush=True)

    def show(self, stage: str, done: float, seconds_left: float | None) -> None:
        """Moves the bar to `done`, 0…1 of a stage."""
        if self._bar is not None:
            left = "" if seconds_left is None else f"left {duration(seconds_left)}"
            self._bar.update(self._task, completed=done, description=stage, left=left)

    def close(self) -> None:
        """Takes the bar away."""
        if self._bar is not None:
            self._bar.stop()


def duration(seconds: float) -> str:
    """Seconds as `1:02:03` or `2:03`; days from two days on."""
    if seconds >= 172800:
        return f"{seconds / 86400:.1f} days"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"

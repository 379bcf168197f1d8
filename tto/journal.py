"""A file of JSON lines that only grows: what a killed program had finished is there for the next one."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tto.errors import FileError
from tto.files import lock


def parse(content: bytes) -> list[Any]:
    """What the finished lines of a journal say. Raises ValueError."""
    try:
        return [json.loads(line) for line in content[: content.rfind(b"\n") + 1].splitlines()]
    except RecursionError as error:
        raise ValueError("a line is nested too deeply") from error


class Journal:
    """Each line is on the disk before the next is begun.

    A process that is killed leaves at most one unfinished line, which the next one cuts off. The file is locked, so
    that two runs cannot do the same thing. Use it as a context manager.
    """

    def __init__(self, path: Path, advice: str) -> None:
        """Opens or creates the file. advice: what to do where another run uses it. Raises `FileError`."""
        self.path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = open(path, "a+b")  # noqa: SIM115 closed by __exit__
        except OSError as error:
            raise FileError(f"cannot open {path}: {error.strerror}") from error
        try:
            lock(self._file, path, advice)
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *exception: object) -> None:
        self._file.close()

    def read(self) -> list[Any]:
        """What its lines say; an unfinished last one is removed from the file. Raises ValueError."""
        self._file.seek(0)
        content = self._file.read()
        self._file.truncate(content.rfind(b"\n") + 1)
        return parse(content)

    def append(self, record: Mapping[str, Any]) -> None:
        """Write one line and wait until the disk has it. Raises `FileError`."""
        try:
            self._file.write((json.dumps(record) + "\n").encode())
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError as error:
            raise FileError(f"cannot write {self.path}: {error.strerror}") from error

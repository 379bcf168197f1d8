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
        return [json.loads(line) for line in _finished(content).splitlines()]
    except RecursionError as error:
        raise ValueError("a line is nested too deeply") from error


def _finished(content: bytes) -> bytes:
    """Without an unfinished last line; one that lacks its end alone gets it."""
    end = content.rfind(b"\n") + 1
    try:
        json.loads(content[end:])
    except (ValueError, RecursionError):
        return content[:end]
    return content + b"\n"


class Journal:
    """Each line is on the disk before the next is begun.

    A process that is killed leaves at most one unfinished line, which is cut off before the next one's first. The file
    is locked, so that two runs cannot do the same thing. Use it as a context manager.
    """

    def __init__(self, path: Path, advice: str) -> None:
        """Opens or creates the file. advice: what to do where another run uses it. Raises `FileError`."""
        self.path, self.is_empty = path, True
        self._surplus = 0  # bytes of an unfinished line; −1 where only its end lacks
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
        """What its finished lines say; `is_empty` where there are none. Raises ValueError."""
        self._file.seek(0)
        content = self._file.read()
        whole = _finished(content)
        self._surplus, self.is_empty = len(content) - len(whole), not whole
        return parse(content)

    def append(self, record: Mapping[str, Any]) -> None:
        """Write one line and wait until the disk has it. Raises `FileError`."""
        before, surplus, self._surplus = b"\n" * (self._surplus < 0), self._surplus, 0
        try:
            if surplus > 0:
                self._file.truncate(os.fstat(self._file.fileno()).st_size - surplus)
            self._file.write(before + json.dumps(record).encode() + b"\n")
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError as error:
            raise FileError(f"cannot write {self.path}: {error.strerror}") from error

"""A list beside outputs of what each was made from, so that a second run knows what is done.

One line of JSON for each output, the last one counts; the first line says the version. A line is written before its
output is: it holds where the output's digest is the one it tells of.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from hashlib import sha256
from pathlib import Path
from typing import Any

from tto.cli.jobs import Made, Parcel, modified
from tto.cli.naming import STREAM, Job
from tto.errors import FileError
from tto.files import read_bytes, require_writable
from tto.journal import Journal, parse

LOG = logging.getLogger(__name__)
MANIFEST = "tto-manifest.jsonl"
VERSION = 1
HEADER = {"tto_manifest": VERSION}


@dataclass(frozen=True)
class Entry:
    """Where one output came from.

    output: path below the manifest's folder; input: absolute path; …_bytes, …_sha256: of the content; model:
    fingerprint in hexadecimal, empty for a decoder's; settings: what else was asked for.
    """

    output: str
    output_bytes: int
    output_sha256: str
    input: str
    input_bytes: int
    input_mtime_ns: int
    input_sha256: str
    model: str
    settings: Mapping[str, Any]

    @classmethod
    def from_record(cls, record: Any) -> Entry:
        """Raises KeyError, TypeError or ValueError."""
        entry = cls(**{field.name: record[field.name] for field in fields(cls)})
        texts = (entry.output, entry.output_sha256, entry.input, entry.input_sha256, entry.model)
        numbers = (entry.output_bytes, entry.input_bytes, entry.input_mtime_ns)
        if not all(isinstance(text, str) for text in texts) or not all(isinstance(number, int) for number in numbers):
            raise ValueError("a value of another kind")
        return entry


@dataclass(frozen=True)
class Making:
    """How outputs are made: the model's fingerprint in hexadecimal, and what else was asked for, as JSON has it."""

    model: str
    settings: Mapping[str, Any]


class Manifest:
    """Of one folder of outputs; where there is no folder, it knows nothing. A context manager.

    A file that must be there is made at once, so that no other run begins the same, and is gone again where it got no
    entry.
    """

    def __init__(self, folder: Path | None, grows: bool) -> None:
        """grows: whether there must be a file; one that is there is kept up to date if it can be. Raises `FileError`
        where it is damaged, of another version, or must grow and cannot, as it is in use or may not be written.
        """
        self._knows = folder is not None
        self._folder = folder or Path()
        self._path = self._folder / MANIFEST
        self._journal: Journal | None = None
        self._made: list[Path] = []
        self._is_new = False
        self._entries: dict[str, Entry] = {}
        self._others: dict[Path, dict[str, Entry]] = {}
        if self._knows and self._path.exists():
            try:
                self._open()
            except FileError:
                if grows:
                    raise
                self._entries = _read(self._path)
        elif self._knows and grows:
            require_writable(self._path)
            folders = (self._folder, *self._folder.parents)
            self._made = [folder for folder in folders if not folder.exists()]
            self._open()
            self._is_new = True

    def __enter__(self) -> Manifest:
        return self

    def __exit__(self, *exception: object) -> None:
        if self._journal is None:
            return
        if self._is_new and not self._entries:
            with suppress(OSError):  # of a folder that is not empty; Windows keeps files that are open
                self._path.unlink()
                for folder in self._made:
                    folder.rmdir()
        self._journal.__exit__(*exception)

    @property
    def has_entries(self) -> bool:
        return bool(self._entries)

    def entries(self, job: Job) -> list[Entry]:
        """What is known about a job's output, here and in the other folders that it lies in: where a manifest lies
        depends on what else a run had to do. Raises `FileError`.
        """
        if not self._knows:
            return []
        target = Path(os.path.abspath(job.target))
        found = [self._of(folder).get(os.path.relpath(target, folder)) for folder in target.parents]
        return [entry for entry in found if entry is not None]

    def append(self, parcel: Parcel, output: bytes, making: Making) -> None:
        """Tell of an output that is about to be written. Raises `FileError`."""
        if self._journal is None:
            return
        job = parcel.job
        entry = Entry(
            os.path.relpath(job.target, self._folder), len(output), _digest(output),
            os.path.abspath(job.input), len(parcel.data), parcel.modified_ns, _digest(parcel.data),
            making.model, making.settings,
        )  # fmt: skip
        self._journal.append(asdict(entry))
        self._entries[entry.output] = entry

    def _of(self, folder: Path) -> Mapping[str, Entry]:
        """Entries of the manifest in a folder, by their outputs."""
        if folder == Path(os.path.abspath(self._folder)):
            return self._entries
        if folder not in self._others:
            path = folder / MANIFEST
            self._others[folder] = _read(path) if os.path.exists(path) else {}
        return self._others[folder]

    def _open(self) -> None:
        journal = Journal(self._path, "wait for its end, or name another folder with -o")
        try:
            self._entries = _understood(self._path, journal.read)
            if journal.is_empty:
                journal.append(HEADER)
        except BaseException:
            journal.__exit__()
            raise
        self._journal = journal


def _read(path: Path) -> dict[str, Entry]:
    return _understood(path, lambda: parse(read_bytes(path)))


def _understood(path: Path, read: Callable[[], list[Any]]) -> dict[str, Entry]:
    """Entries by their outputs."""
    try:
        lines = read()
        if lines and lines[0] != HEADER:
            version = lines[0]["tto_manifest"]
            raise FileError(f"{path} is of version {version}, and this tto knows version {VERSION}: move it")
        entries = [Entry.from_record(line) for line in lines[1:]]
    except (ValueError, KeyError, TypeError) as error:
        raise FileError(f"{path} is damaged, or no manifest of tto: move it to begin a new one") from error
    return {entry.output: entry for entry in entries}


def is_current(entry: Entry, job: Job, making: Making) -> bool:
    """Whether a job's output is the one that an entry tells of, made so, and from what the input still is."""
    return (
        (entry.model, entry.settings) == (making.model, making.settings)
        and _is_input(entry, job.input)
        and job.target.stat().st_size == entry.output_bytes
        and _digest(read_bytes(job.target)) == entry.output_sha256
    )


def _is_input(entry: Entry, path: Path) -> bool:
    """Of the same size and, if it was touched since or lies elsewhere, the same content."""
    if not path.is_file() or path.stat().st_size != entry.input_bytes:
        return False
    untouched = os.path.abspath(path) == entry.input and modified(path) == entry.input_mtime_ns
    return untouched or _digest(read_bytes(path)) == entry.input_sha256


def folder_of(jobs: Sequence[Job], output: str | None) -> Path | None:
    """Where the manifest of jobs lies: in the folder -o, or in the one that holds all outputs; None where there are no
    files, or nothing but the root of all folders holds them.
    """
    targets = [job.target for job in jobs if STREAM not in (job.input, job.output)]
    if not targets:
        return None
    if output is not None and Path(output) not in targets:
        return Path(output)
    folders = [os.path.abspath(target.parent) for target in targets]
    if len({os.path.splitdrive(folder)[0] for folder in folders}) > 1:
        return None
    common = Path(os.path.commonpath(folders))
    return None if common == common.parent else common


def _digest(data: bytes) -> str:
    return sha256(data).hexdigest()


def finished(manifest: Manifest, making: Callable[[], Making]) -> Callable[[Job], bool]:
    """What says whether a job's output is there: any, where nothing is known about it, and else the current one."""

    def is_done(job: Job) -> bool:
        if not job.target.exists():
            return False
        entries = manifest.entries(job)
        if not entries or any(is_current(entry, job, making()) for entry in entries):
            return True
        LOG.info("%s is made anew: its input, the model or the settings changed", job.output)
        return False

    return is_done


def noting(manifest: Manifest, making: Making) -> Callable[[Parcel, Made], None]:
    """What tells a manifest of an output before it is written."""
    return lambda parcel, made: manifest.append(parcel, made.files[parcel.job.target], making)

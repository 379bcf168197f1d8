"""Which outputs belong to which inputs: decided, and refused where it cannot be, before any work."""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tto.errors import BadArgument, FileError
from tto.formats import PICTURE_SUFFIXES

LOG = logging.getLogger(__name__)
STREAM = Path("-")
"""Standard input or output."""
STREAM_NAMES = ("-", "/dev/stdout")
TTO_SUFFIX = ".tto"
BIN_SUFFIX = ".bin"  # of the published DCAE code


@dataclass(frozen=True)
class Job:
    """`output` is None for a command that writes nothing."""

    input: Path
    output: Path | None = None

    @property
    def target(self) -> Path:
        """The output of a job that has one."""
        assert self.output is not None
        return self.output


@dataclass(frozen=True)
class Kind:
    """What a command makes of what, by suffixes: `inputs` are those it takes from folders, `default` is an output's
    unless -o says another."""

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    default: str


COMPRESSION = Kind(PICTURE_SUFFIXES, (TTO_SUFFIX, BIN_SUFFIX), TTO_SUFFIX)
DECOMPRESSION = Kind((TTO_SUFFIX,), PICTURE_SUFFIXES, ".png")


@dataclass(frozen=True)
class Found:
    """A file, and where it belongs below the folder of outputs: its path there, with its own suffix."""

    file: Path
    place: Path


def plan_jobs(inputs: Sequence[Path], output: str | None, kind: Kind, recursive: bool = False) -> list[Job]:
    """One job per input file; a folder stands for the files in it that `kind` takes, sorted.

    Without `output`, an output lies beside its input; that of `-` is `-`. `output` is the file to write where there is
    one input file, and otherwise (or where it is a folder, or ends with a slash) the folder to write to, in which those
    of a folder keep their places. Names that would be the same keep their suffix. Raises `BadArgument` or `FileError`.
    """
    if output is None:
        _refuse_forgotten_option(inputs, kind)
    found = find_files(inputs, kind.inputs, recursive)
    if output in STREAM_NAMES or (output is None and STREAM in inputs):
        jobs = [Job(each.file, STREAM) for each in found]
    elif output is None:
        for each in found:
            _refuse_nameless(each.file)
        jobs = _named({each.file: each.file for each in found}, kind)
    elif _means_a_file(output) and len(inputs) == 1 and not _is_folder(inputs[0]):
        _refuse_other_formats(output, kind)
        jobs = [Job(inputs[0], Path(output))]
    else:
        _refuse_a_file_for_many(output, kind)
        jobs = _named({each.file: Path(output) / each.place for each in found}, kind)
    if len(jobs) > 1 and any(STREAM in (job.input, job.output) for job in jobs):
        raise BadArgument("standard input and output are for one picture")
    _refuse_collisions(jobs)
    return jobs


def find_files(inputs: Sequence[Path], suffixes: Sequence[str], recursive: bool = False) -> list[Found]:
    """The files that inputs stand for. Raises `BadArgument` for a folder without any, `FileError` for a closed one."""
    folders = {source: None for source in inputs if _is_folder(source)}  # a set that keeps its order
    names = Counter(source.name for source in inputs if source not in folders)
    above = _common_folder(list(folders)) if len(folders) > 1 else None
    above_files = _common_folder([source.parent for source in inputs if names[source.name] > 1]) or ""
    found = []
    for source in inputs:
        if source in folders:
            found += [
                Found(file, file.relative_to(source) if above is None else _below(file, above))
                for file in _files_in(source, suffixes, recursive)
            ]
        else:
            found.append(Found(source, Path(source.name) if names[source.name] == 1 else _below(source, above_files)))
    return found


def _common_folder(folders: Sequence[Path]) -> str | None:
    return os.path.commonpath([os.path.abspath(folder) for folder in folders]) if folders else None


def _below(file: Path, folder: str | None) -> Path:
    return Path(os.path.relpath(os.path.abspath(file), folder))


def _files_in(folder: Path, suffixes: Sequence[str], recursive: bool) -> list[Path]:
    """Sorted, without hidden ones."""
    files, folders_left = [], 0
    for place, inner, names in os.walk(folder, onerror=_refuse_unreadable):
        inner[:] = sorted(name for name in inner if not name.startswith("."))
        files += (Path(place, name) for name in sorted(names) if not name.startswith("."))
        if not recursive:
            folders_left = len(inner)
            break
    files = [file for file in files if file.suffix.lower() in suffixes and not os.path.isdir(file)]
    left = f" (its {folders_left} folders are left out; -r takes them)" if folders_left else ""
    if not files:
        raise BadArgument(f"no files to work on in the folder {folder}{left}")
    if left:
        LOG.warning("%s: only the files in the folder itself%s", folder, left)
    return files


def _named(places: dict[Path, Path], kind: Kind) -> list[Job]:
    """Jobs from inputs to their places, with the suffix of outputs in place of their own, or behind it where two would
    have one name otherwise."""
    short = {file: place.with_suffix(kind.default) for file, place in places.items()}
    times = Counter(map(os.path.realpath, short.values()))
    return [
        Job(file, name if times[os.path.realpath(name)] == 1 else name.with_name(places[file].name + kind.default))
        for file, name in short.items()
    ]


def _means_a_file(output: str) -> bool:
    return not output.endswith(("/", os.sep)) and not Path(output).is_dir()


def _is_folder(path: Path) -> bool:
    return path != STREAM and os.path.isdir(path)


def _refuse_unreadable(error: OSError) -> None:
    raise FileError(f"cannot read the folder {error.filename}: {error.strerror}") from error


def _refuse_forgotten_option(inputs: Sequence[Path], kind: Kind) -> None:
    """`tto compress photo.png photo.tto`, as other programs have it."""
    suffixes = [source.suffix.lower() for source in inputs]
    if len(inputs) == 2 and suffixes[1] in kind.outputs and suffixes[0] not in kind.outputs:
        raise BadArgument(f"{inputs[1]} would be an input: did you mean -o {inputs[1]}?")


def _refuse_other_formats(output: str, kind: Kind) -> None:
    if Path(output).suffix.lower() in kind.inputs:
        raise BadArgument(f"{output} has the suffix of what goes in: an output ends with {kind.default}, for example")


def _refuse_a_file_for_many(output: str, kind: Kind) -> None:
    if _means_a_file(output) and Path(output).suffix.lower() in kind.inputs + kind.outputs:
        raise BadArgument(f"{output} is the name of one file: for several -o is a folder ({output}/ would be one)")


def _refuse_nameless(file: Path) -> None:
    if os.path.exists(file) and not os.path.isfile(file):
        raise BadArgument(f"{file} is no regular file: say with -o where its output goes")


def _refuse_collisions(jobs: Sequence[Job]) -> None:
    sources = {os.path.realpath(job.input): job.input for job in jobs if job.input != STREAM}
    writers: dict[str, Path] = {}
    for job in jobs:
        if job.output == STREAM:
            continue
        target = os.path.realpath(job.target)
        if target in sources:
            raise BadArgument(f"{job.output} is an input: give another name with -o")
        if target in writers:
            raise BadArgument(f"{writers[target]} and {job.input} would both be written to {job.output}")
        writers[target] = job.input

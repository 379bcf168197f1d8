"""The program ffmpeg, as the package `imageio-ffmpeg` brings it: codecs and filters that Python has no package for."""

from __future__ import annotations

import math
import re
import subprocess
import tempfile
import time
from collections.abc import Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from tto.errors import NotInstalled, TTOError

POLL_SECONDS = 0.005


class ProgramFailed(TTOError):
    """A program that was called ended with an error."""


@cache
def ffmpeg_program() -> str:
    """Its path. Raises `NotInstalled`."""
    if find_spec("imageio_ffmpeg") is None:
        raise NotInstalled("the package imageio-ffmpeg is not installed: pip install 'tto[bench]'")
    import imageio_ffmpeg

    try:
        return imageio_ffmpeg.get_ffmpeg_exe()
    except RuntimeError as error:
        raise NotInstalled("imageio-ffmpeg has no program for this system; install ffmpeg") from error


@cache
def ffmpeg_version() -> str:
    """For example `ffmpeg n9.0.2`."""
    first = _text(["-version"]).partition("\n")[0]
    return "ffmpeg " + first.split()[2].split("-")[0]


@cache
def encoder_version(encoder: str) -> str:
    """What a library says of itself when it codes a picture, for example `libx265 4.3`. Raises `ProgramFailed`."""
    picture = ("-f", "lavfi", "-i", "color=s=64x64", "-frames:v", "1")
    said, _ = run_ffmpeg([*picture, "-c:v", encoder, "-f", "null", "-"])
    found = re.search(r"version:? (\d[\d.]*)", said)
    return f"{encoder} {found[1]}" if found else encoder


def missing(kind: str, name: str) -> str:
    """What is not there, in one line, or nothing. kind: encoders, decoders or filters; name: of one."""
    try:
        listed = _listed(kind)
    except TTOError as error:
        return str(error)
    return "" if name in listed else f"this ffmpeg was built without {name}"


@cache
def _listed(kind: str) -> frozenset[str]:
    return frozenset(re.findall(r"^ \S+ +(\S+)", _text([f"-{kind}"]), re.MULTILINE))


def _text(arguments: Sequence[str]) -> str:
    command = [ffmpeg_program(), "-hide_banner", *arguments]
    return subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL).stdout


def run_ffmpeg(arguments: Sequence[str | Path]) -> tuple[str, float]:
    """What it says, and the megabytes (10⁶) that it took at most, `nan` where the system does not tell.

    Raises `ProgramFailed` with the first error that it tells of.
    """
    options = ["-hide_banner", "-nostdin", "-nostats", "-y", "-loglevel", "level+info"]
    command, nowhere = [ffmpeg_program(), *options, *map(str, arguments)], subprocess.DEVNULL
    with tempfile.TemporaryFile("w+", errors="replace") as remarks:  # a pipe holds up what fills it
        with subprocess.Popen(command, stdin=nowhere, stdout=nowhere, stderr=remarks) as process:
            peak = _follow(process)
        remarks.seek(0)
        said = remarks.read()
    if process.returncode:
        error = re.search(r"\[(?:error|fatal)\] (.+)", said)
        raise ProgramFailed(f"ffmpeg failed: {error[1] if error else 'no reason given'}")
    return said, peak


def _follow(process: subprocess.Popen) -> float:
    """Waits for the end; the largest resident memory seen, which the system counts and takes along when it ends."""
    status, peak = Path(f"/proc/{process.pid}/status"), math.nan
    while process.poll() is None:
        try:
            found = re.search(r"VmHWM:\s+(\d+) kB", status.read_text())
        except OSError:
            found = None
        if found:
            peak = int(found[1]) * 1024 / 1e6
        time.sleep(POLL_SECONDS)
    return peak

"""Fetching files and sets of images: resumed where it broke off, checked against digests, and never half there."""

from __future__ import annotations

import hashlib
import http.client
import os
import urllib.error
import urllib.request
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from tto.errors import TTOError
from tto.files import locked_folder

BLOCK = 1 << 20
TIMEOUT_SECONDS = 30
PARTIAL_CONTENT = 206
RANGE_NOT_SATISFIABLE = 416


class DownloadFailed(TTOError):
    """A file could not be fetched, or is not the one that was expected."""


@dataclass(frozen=True)
class RemoteSet:
    """A set of images elsewhere.

    mirrors: base addresses that have its files; files: name → SHA-256 in hexadecimal, None where nobody has published
    one; part: what the path of an image within a `.zip` contains; images: how many they must come to.
    """

    mirrors: tuple[str, ...]
    files: Mapping[str, str | None]
    images: int
    part: str = ""

    def fill(self, folder: Path, suffixes: tuple[str, ...]) -> None:
        """Downloads what is missing in `folder` and unpacks archives.

        Raises `DownloadFailed` naming what was tried, or `FileError` where the folder cannot be made or is in use.
        """
        with locked_folder(folder, "wait for its end"):
            for name, digest in self.files.items():
                self._fetch_from_any(name, digest, folder / name)
                if name.endswith(".zip"):
                    unpack(folder / name, folder, self.part, suffixes)
        found = len(images_in(folder, suffixes))
        if found != self.images:
            raise DownloadFailed(f"{folder} holds {found} images, expected {self.images}")

    def _fetch_from_any(self, name: str, digest: str | None, path: Path) -> None:
        problems = []
        for mirror in self.mirrors:
            try:
                return fetch(f"{mirror.rstrip('/')}/{name}", path, digest)
            except DownloadFailed as error:
                problems.append(str(error))
        raise DownloadFailed("; ".join(problems))


def images_in(folder: Path, suffixes: tuple[str, ...]) -> tuple[Path, ...]:
    """Files with one of these suffixes, sorted, without hidden ones; none where there is no folder."""
    if not folder.is_dir():
        return ()
    found = (path for path in folder.iterdir() if path.suffix.lower() in suffixes and not path.name.startswith("."))
    return tuple(sorted(path for path in found if path.is_file()))


def unpack(archive: Path, folder: Path, part: str, suffixes: tuple[str, ...]) -> None:
    """Puts the images of a zip archive into `folder`, without its own folders, and removes the archive.

    Raises `DownloadFailed`. A damaged archive is removed, too, so that it will be fetched anew; one that could not be
    unpacked for another reason stays for the next time.
    """
    try:
        with zipfile.ZipFile(archive) as content:
            for member in content.infolist():
                name = PurePosixPath(member.filename).name  # never a path out of the folder
                wanted = part in member.filename and PurePosixPath(name).suffix.lower() in suffixes
                if wanted and not name.startswith("."):
                    unfinished = folder / f"{name}.part"
                    unfinished.write_bytes(content.read(member))
                    os.replace(unfinished, folder / name)
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        archive.unlink()
        raise DownloadFailed(f"cannot unpack {archive.name}: {_reason(error)}") from error
    except OSError as error:
        raise DownloadFailed(f"cannot unpack {archive.name}: {_reason(error)}") from error
    archive.unlink()


def fetch(url: str, path: Path, sha256: str | None) -> None:
    """Downloads `url` to `path` unless it is there.

    An unfinished download stays beside it as `….part`, and the next call goes on from there. `sha256` is the
    expected digest in hexadecimal, None where nobody has published one. Raises `DownloadFailed`.
    """
    if path.exists():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    try:
        _download(url, part)
    except (OSError, http.client.HTTPException, ValueError) as error:  # urllib's are OSErrors, or of a bad address
        raise DownloadFailed(f"cannot download {url}: {_reason(error)}") from error
    if sha256 is not None and file_digest(part) != sha256:
        part.unlink()
        raise DownloadFailed(f"{url} is not the expected file: its SHA-256 is not {sha256}")
    os.replace(part, path)


def file_digest(path: Path) -> str:
    """SHA-256 of a file in hexadecimal."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(BLOCK):
            digest.update(block)
    return digest.hexdigest()


def _download(url: str, part: Path) -> None:
    done = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={"User-Agent": "tto", "Range": f"bytes={done}-"})
    try:
        response = urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS)
    except urllib.error.HTTPError as error:
        if error.code == RANGE_NOT_SATISFIABLE and done:
            return  # everything was there already; the digest decides
        raise
    with response, open(part, "ab") as file:
        if response.status != PARTIAL_CONTENT:  # a server that cannot resume sends all of it
            file.truncate(0)
        expected = response.length
        received = 0
        while block := response.read(BLOCK):
            file.write(block)
            received += len(block)
        file.flush()
        os.fsync(file.fileno())
    if expected is not None and received < expected:
        raise ConnectionError("the connection broke off; try again to go on from there")


def _reason(error: Exception) -> str:
    return str(getattr(error, "reason", None) or error) or type(error).__name__

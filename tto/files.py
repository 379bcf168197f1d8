"""Files appear whole or not at all, and one run at a time has them."""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from tto.errors import FileError

try:
    import fcntl
except ImportError:  # Windows has no such locks; there one person must not start two runs on one folder
    fcntl = None


def cache_folder() -> Path:
    """Where tto keeps what it can download or make again: `$TTO_CACHE`, `$XDG_CACHE_HOME/tto` or `~/.cache/tto`."""
    own, shared = os.environ.get("TTO_CACHE"), os.environ.get("XDG_CACHE_HOME")
    return Path(own) if own else (Path(shared) if shared else Path.home() / ".cache") / "tto"


def lock(file: IO[bytes] | int, path: Path, advice: str) -> None:
    """Keep an open file or folder from other runs until it is closed, however its process ends.

    `path` is what one of them says is in use, `advice` what to do then. Raises `FileError`. A file system without locks
    keeps nothing from anyone.
    """
    if fcntl is None:
        return
    with contextlib.suppress(OSError):
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise FileError(f"{path} is in use by another run; {advice}") from error


@contextlib.contextmanager
def locked_folder(folder: Path, advice: str) -> Iterator[None]:
    """The same for a folder, made where it is not there; removed in the end if nothing is in it. Raises `FileError`."""
    make_folder(folder)
    with contextlib.ExitStack() as held:
        if fcntl is not None:
            descriptor = os.open(folder, os.O_RDONLY)
            held.callback(os.close, descriptor)
            lock(descriptor, folder, advice)
        held.callback(_remove_empty, folder)
        yield


def _remove_empty(folder: Path) -> None:
    with contextlib.suppress(OSError):
        folder.rmdir()


def read_bytes(path: str | os.PathLike) -> bytes:
    """The content of a file. Raises `FileError` when it is missing or may not be read."""
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise FileError(f"cannot read {path}: {_reason(error)}") from error


def require_writable(path: str | os.PathLike) -> None:
    """Refuse before the work what would fail after it: a file that cannot be written. Raises `FileError`."""
    target = Path(path)
    mode = _mode_of(path)
    if mode is not None and stat.S_ISDIR(mode):
        raise FileError(f"cannot write {path}: Is a directory")
    if mode is not None and not stat.S_ISREG(mode):
        if not os.access(target, os.W_OK):
            raise FileError(f"cannot write {path}: Permission denied")
        return
    folder = Path(os.path.realpath(path)).parent
    while not os.path.exists(folder):  # the nearest that is there, below which folders can be made
        folder = folder.parent
    if not folder.is_dir():
        raise FileError(f"cannot make the folder {target.parent}: {folder} is no folder")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise FileError(f"cannot write to the folder {folder}")


def make_folder(folder: Path) -> None:
    """Make a folder, unless it is there, and those above it. Raises `FileError`, also where nothing can be written."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FileError(f"cannot make the folder {folder}: {_reason(error)}") from error
    if not os.access(folder, os.W_OK):
        raise FileError(f"cannot write to the folder {folder}")


def write_atomic(path: str | os.PathLike, data: bytes) -> None:
    """Write `data` to `path` so that a reader sees the old content or the new one, never a part.

    The bytes go to a temporary file in the same folder, which has no name until it is whole where the system can do
    that, are flushed to the disk, and are renamed into place. An existing file keeps its permissions, which the
    temporary file has from its first byte; a new one gets the ordinary ones (0666 less the umask). A symbolic link is
    followed. What is no regular file (a FIFO, a device) is written into, never replaced. On any failure the temporary
    file is removed. Raises `FileError`.
    """
    target = Path(os.path.realpath(path))
    try:
        mode = _mode_of(path)
        if mode is None or stat.S_ISREG(mode):
            _replace(target, data, None if mode is None else stat.S_IMODE(mode))
        else:
            with open(path, "wb") as file:
                file.write(data)
    except OSError as error:
        raise FileError(f"cannot write {path}: {_reason(error)}") from error


def _mode_of(path: str | os.PathLike) -> int | None:
    """Kind and permissions of what a path leads to, or None where nothing is there."""
    try:
        return os.stat(path).st_mode
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return None


def _replace(target: Path, data: bytes, permissions: int | None) -> None:
    """A whole new file in the place of `target`, with `permissions` or else those of a new file."""
    temporary = target.parent / f".tto-{secrets.token_hex(8)}.tmp"
    nameless = _open_nameless(target.parent)
    try:
        with open(_open_new(temporary) if nameless is None else nameless, "wb") as file:
            if permissions is not None:
                os.chmod(temporary if nameless is None else nameless, permissions)
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
            if nameless is not None:
                _name(nameless, temporary)
        os.replace(temporary, target)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
    _sync_folder(target.parent)


def _open_new(path: Path) -> int:
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o666)


def _open_nameless(folder: Path) -> int | None:
    """Descriptor of a new file in `folder` that is gone when its process is killed, or None where none can be."""
    if hasattr(os, "O_TMPFILE") and os.path.isdir("/proc/self/fd"):
        with contextlib.suppress(OSError):  # not every file system has them
            return os.open(folder, os.O_WRONLY | os.O_TMPFILE, 0o666)
    return None


def _name(descriptor: int, path: Path) -> None:
    """Give a file without a name this one."""
    # With a folder's descriptor, which an absolute path ignores, Python follows the link as it is told to.
    os.link(f"/proc/self/fd/{descriptor}", path, src_dir_fd=descriptor, follow_symlinks=True)


def _sync_folder(folder: Path) -> None:
    """Make the rename itself durable, where the system allows it."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _reason(error: OSError) -> str:
    return error.strerror or type(error).__name__

"""A written file is whole or is not there."""

from __future__ import annotations

import os
import signal
import stat
import threading

import pytest

from tto.errors import FileError
from tto.files import cache_folder, locked_folder, read_bytes, write_atomic


def test_content_is_written_and_nothing_else_is_left(tmp_path):
    write_atomic(tmp_path / "a", b"content")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"a": b"content"}


def test_a_name_as_long_as_the_system_takes_is_written(tmp_path):
    name = "写" * 83 + ".tto"
    assert len(name.encode()) == 253
    write_atomic(tmp_path / name, b"content")
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_failure_keeps_the_old_content_and_leaves_no_temporary_file(tmp_path, monkeypatch):
    (tmp_path / "a").write_bytes(b"old")

    def fail(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(FileError, match="No space left on device"):
        write_atomic(tmp_path / "a", b"new")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"a": b"old"}


def test_interruption_leaves_no_temporary_file(tmp_path, monkeypatch):
    def interrupt(source, target):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_atomic(tmp_path / "a", b"new")
    assert list(tmp_path.iterdir()) == []


def test_existing_file_keeps_its_permissions(tmp_path):
    target = tmp_path / "a"
    target.write_bytes(b"old")
    target.chmod(0o640)
    write_atomic(target, b"new")
    assert stat.S_IMODE(target.stat().st_mode) == 0o640
    assert target.read_bytes() == b"new"


def test_new_file_has_the_permissions_of_the_umask(tmp_path):
    old = os.umask(0o027)
    try:
        write_atomic(tmp_path / "a", b"")
    finally:
        os.umask(old)
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o640


def test_symbolic_link_is_followed(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "real")
    write_atomic(tmp_path / "link", b"content")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_bytes() == b"content"


def test_a_device_or_fifo_is_written_into_and_stays_what_it_is(tmp_path):
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    received = []
    reader = threading.Thread(target=lambda: received.append(fifo.read_bytes()), daemon=True)
    reader.start()
    write_atomic(fifo, b"content")
    reader.join(500)
    assert received == [b"content"]
    assert stat.S_ISFIFO(fifo.stat().st_mode)
    (tmp_path / "null").symlink_to(os.devnull)
    write_atomic(tmp_path / "null", b"content")
    assert stat.S_ISCHR(os.stat(os.devnull).st_mode)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs Linux")
def test_a_full_device_is_a_file_error():
    with pytest.raises(FileError, match="No space left"):
        write_atomic("/dev/full", b"content")


@pytest.mark.parametrize("has_nameless_files", [True, False])
def test_content_is_never_readable_by_more_than_the_target_is(tmp_path, monkeypatch, has_nameless_files):
    if not has_nameless_files:
        monkeypatch.delattr(os, "O_TMPFILE", raising=False)
    target = tmp_path / "a"
    target.write_bytes(b"old")
    target.chmod(0o600)
    synced, sync = [], os.fsync

    def note(descriptor):
        synced.append(os.fstat(descriptor))
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", note)
    write_atomic(target, b"new content")
    assert (stat.S_IMODE(synced[0].st_mode), synced[0].st_size) == (0o600, 11)
    assert target.read_bytes() == b"new content"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


@pytest.mark.skipif(not hasattr(os, "O_TMPFILE"), reason="needs Linux")
def test_a_kill_while_writing_leaves_the_old_content_and_no_temporary_file(tmp_path):
    (tmp_path / "a").write_bytes(b"old")
    if (child := os.fork()) == 0:
        os.fsync = lambda descriptor: os._exit(9)
        write_atomic(tmp_path / "a", b"new")
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"a": b"old"}


def test_long_names_are_written(tmp_path):
    write_atomic(tmp_path / ("x" * 250), b"content")
    assert (tmp_path / ("x" * 250)).read_bytes() == b"content"


@pytest.mark.parametrize("name", ["missing/a", "."])
def test_impossible_target_is_a_file_error(tmp_path, name):
    with pytest.raises(FileError, match="cannot write"):
        write_atomic(tmp_path / name, b"")


def test_missing_input_is_a_file_error_of_one_line(tmp_path):
    with pytest.raises(FileError) as caught:
        read_bytes(tmp_path / "missing")
    assert str(caught.value) == f"cannot read {tmp_path / 'missing'}: No such file or directory"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs POSIX")
def test_ten_kills_in_the_middle_of_writing_leave_whole_files(tmp_path):
    """A child writes one content after the other and is killed somewhere in it: what is there is one of them."""
    target = tmp_path / "a"
    whole = [bytes([value]) * 300_000 for value in range(7)]
    for kill in range(10):
        told, tell = os.pipe()
        if (child := os.fork()) == 0:
            while True:
                for content in whole:
                    write_atomic(target, content)
                    os.write(tell, b".")
        for _ in range(3 + kill):  # so many times the file has been written
            os.read(told, 1)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.close(told)
        os.close(tell)
        assert target.read_bytes() in whole


def test_what_can_be_made_again_lies_in_one_folder(tmp_path, monkeypatch):
    monkeypatch.delenv("TTO_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "shared"))
    assert cache_folder() == tmp_path / "shared" / "tto"
    monkeypatch.setenv("TTO_CACHE", str(tmp_path / "own"))
    assert cache_folder() == tmp_path / "own"


def test_a_folder_is_one_runs_at_a_time_and_stays_if_anything_is_in_it(tmp_path):
    folder = tmp_path / "a" / "run"
    for _ in range(2):
        with locked_folder(folder, ""):
            with pytest.raises(FileError, match="run is in use by another run; wait"), locked_folder(folder, "wait"):
                pass
            assert folder.is_dir()
        assert not folder.exists()
    with locked_folder(folder, ""):
        (folder / "kept").touch()
    assert (folder / "kept").exists()

"""Lines that outlive whoever wrote them."""

from __future__ import annotations

import pytest

from tto.errors import FileError
from tto.journal import Journal, parse


def test_what_was_appended_is_there_for_the_next(tmp_path):
    path = tmp_path / "new" / "lines.jsonl"
    with Journal(path, "") as journal:
        assert journal.read() == []
        journal.append({"a": 1})
        assert path.read_text() == '{"a": 1}\n'
        journal.append({"b": "ü"})
    with Journal(path, "") as journal:
        assert journal.read() == [{"a": 1}, {"b": "ü"}]


def test_an_unfinished_line_is_cut_off_before_the_next_is_written(tmp_path):
    path = tmp_path / "lines.jsonl"
    path.write_text('{"a": 1}\n{"b": ')
    assert parse(path.read_bytes()) == [{"a": 1}]
    with Journal(path, "") as journal:
        assert journal.read() == [{"a": 1}]
        assert path.read_text() == '{"a": 1}\n{"b": '  # it may be somebody else's
        journal.append({"c": 3})
        journal.append({"d": 4})
    assert path.read_text() == '{"a": 1}\n{"c": 3}\n{"d": 4}\n'


def test_a_whole_line_that_lost_its_end_is_kept(tmp_path):
    path = tmp_path / "lines.jsonl"
    path.write_text('{"a": 1}\n{"b": 2}')
    with Journal(path, "") as journal:
        assert journal.read() == [{"a": 1}, {"b": 2}] and not journal.is_empty
        journal.append({"c": 3})
        journal.append({"d": 4})
    assert path.read_text() == '{"a": 1}\n{"b": 2}\n{"c": 3}\n{"d": 4}\n'


def test_a_damaged_line_is_an_error(tmp_path):
    for damage in (b'{"b": ', b"[" * 100_000):
        with pytest.raises(ValueError):
            parse(b'{"a": 1}\n' + damage + b'\n{"c": 3}\n')


def test_one_run_at_a_time(tmp_path):
    path = tmp_path / "lines.jsonl"
    with Journal(path, ""), pytest.raises(FileError, match="in use by another run; wait"):
        Journal(path, "wait")
    with pytest.raises(FileError, match="cannot open"):
        Journal(tmp_path, "")


def test_a_full_disk_is_one_error(tmp_path, monkeypatch):
    def fail(descriptor):
        raise OSError(28, "No space left on device")

    with Journal(tmp_path / "lines", "") as journal:
        monkeypatch.setattr("os.fsync", fail)
        with pytest.raises(FileError, match="cannot write .*lines: No space left"):
            journal.append({"a": 1})

"""Which output belongs to which input."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tto.cli.jobs import Job, plan_jobs, progress, to_json, write_output
from tto.errors import BadArgument, FileError


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("b.png", "a.JPG", "notes.txt", "c.tto"):
        Path(name).write_bytes(b"")
    Path("sub.png").mkdir()
    return tmp_path


def outputs(*inputs: str, output: str | None = None) -> list[tuple[str, str]]:
    jobs = plan_jobs([Path(name) for name in inputs], output, (".png", ".jpg"), ".tto")
    return [(str(job.input), str(job.output)) for job in jobs]


def test_output_lies_beside_its_input(folder):
    assert outputs("b.png", "elsewhere/d.png") == [("b.png", "b.tto"), ("elsewhere/d.png", "elsewhere/d.tto")]


def test_folder_stands_for_its_pictures_in_order(folder):
    assert outputs(".") == [("a.JPG", "a.tto"), ("b.png", "b.tto")]


def test_output_of_one_file_is_a_file_unless_it_is_or_looks_like_a_folder(folder):
    assert outputs("b.png", output="new/x.bin") == [("b.png", "new/x.bin")]
    assert outputs("b.png", output="sub.png") == [("b.png", "sub.png/b.tto")]
    assert outputs("b.png", output="other/") == [("b.png", "other/b.tto")]


def test_output_of_several_files_or_of_a_folder_is_a_folder(folder):
    assert outputs("b.png", "a.JPG", output="out") == [("b.png", "out/b.tto"), ("a.JPG", "out/a.tto")]
    assert outputs(".", output="out2") == [("a.JPG", "out2/a.tto"), ("b.png", "out2/b.tto")]


def test_collisions_are_refused(folder):
    with pytest.raises(BadArgument, match=r"b\.png and b\.jpg would both be written to b\.tto"):
        outputs("b.png", "b.jpg")
    with pytest.raises(BadArgument, match="both be written"):
        outputs("b.png", "b.png")
    Path("link.tto").symlink_to("b.png")
    with pytest.raises(BadArgument, match="link.tto is an input"):
        outputs("b.png", output="link.tto")
    with pytest.raises(BadArgument, match="b.png is an input"):
        outputs("b.png", output="./b.png")


def test_folder_without_pictures_is_refused(folder):
    with pytest.raises(BadArgument, match="no files"):
        outputs("sub.png")


def test_folder_of_an_output_is_made_when_it_is_written(folder):
    write_output(Path("one/two/x.tto"), b"content")
    assert Path("one/two/x.tto").read_bytes() == b"content"
    with pytest.raises(FileError, match="cannot make the folder notes.txt"):
        write_output(Path("notes.txt/x.tto"), b"content")


def test_json_has_null_for_numbers_it_cannot_write():
    record = {"psnr": float("inf"), "J": float("nan"), "bpp": 0.5, "bytes": 3, "input": "ü"}
    assert json.loads(to_json(record)) == {"psnr": None, "J": None, "bpp": 0.5, "bytes": 3, "input": "ü"}


def test_progress_is_silent_where_there_is_no_terminal(capsys):
    with progress(5) as advance:
        advance()
    assert capsys.readouterr() == ("", "")


def test_jobs_are_values():
    assert Job(Path("a"), Path("b")) == Job(Path("a"), Path("b"))

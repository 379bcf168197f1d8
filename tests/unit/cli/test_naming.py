"""Which output belongs to which input."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tto.cli.naming import COMPRESSION, DECOMPRESSION, Job, plan_jobs
from tto.errors import BadArgument, FileError


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in (
        "b.png",
        "a.JPG",
        "notes.txt",
        "c.tto",
        ".hidden.png",
        "one/x.png",
        "two/x.png",
        "two/in/y.webp",
        "two/.git/z.png",
    ):
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).write_bytes(b"")
    Path("sub.png").mkdir()
    return tmp_path


def outputs(
    *inputs: str, output: str | None = None, recursive: bool = False, kind=COMPRESSION
) -> list[tuple[str, str]]:
    jobs = plan_jobs([Path(name) for name in inputs], output, kind, recursive)
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


def test_files_below_a_folder_keep_their_places(folder):
    found = [("two/x.png", "out/x.tto"), ("two/in/y.webp", "out/in/y.tto")]
    assert outputs("two", output="out", recursive=True) == found
    assert outputs("two", recursive=True) == [("two/x.png", "two/x.tto"), ("two/in/y.webp", "two/in/y.tto")]


def test_folders_that_are_left_out_are_mentioned(folder, caplog):
    assert outputs("two", output="out") == [("two/x.png", "out/x.tto")]
    assert "1 folders are left out; -r takes them" in caplog.text
    Path("empty/in").mkdir(parents=True)
    with pytest.raises(BadArgument, match="no files.*empty.*-r takes them"):
        outputs("empty")


def test_several_folders_keep_their_names(folder):
    assert outputs("one", "two", output="out") == [("one/x.png", "out/one/x.tto"), ("two/x.png", "out/two/x.tto")]
    assert outputs("one/x.png", "two/x.png", "b.png", output="out") == [
        ("one/x.png", "out/one/x.tto"),
        ("two/x.png", "out/two/x.tto"),
        ("b.png", "out/b.tto"),
    ]


def test_names_that_would_be_the_same_keep_their_suffix(folder):
    assert outputs("b.png", "b.jpg", "d.png") == [("b.png", "b.png.tto"), ("b.jpg", "b.jpg.tto"), ("d.png", "d.tto")]
    assert outputs("b.png", "b.jpg", output="out") == [("b.png", "out/b.png.tto"), ("b.jpg", "out/b.jpg.tto")]


def test_a_file_that_is_given_twice_is_done_once(folder):
    assert outputs("b.png", "b.png") == [("b.png", "b.tto")]


def test_collisions_are_refused(folder):
    with pytest.raises(BadArgument, match="both be written"):
        outputs("b.png", "./one/../b.png")
    Path("link.tto").symlink_to("b.png")
    with pytest.raises(BadArgument, match=r"link\.tto is an input"):
        outputs("b.png", output="link.tto")
    with pytest.raises(BadArgument, match=r"c\.tto is an input"):
        outputs("c.tto")


def test_names_of_other_formats_are_refused(folder):
    with pytest.raises(BadArgument, match=r"family\.jpg has the suffix of what goes in"):
        outputs("b.png", output="family.jpg")
    with pytest.raises(BadArgument, match=r"d\.tto has the suffix"):
        outputs("c.tto", output="d.tto", kind=DECOMPRESSION)


def test_a_file_for_many_is_refused(folder):
    for inputs in (("b.png", "a.JPG"), (".",)):
        with pytest.raises(BadArgument, match=r"x\.tto is the name of one file"):
            outputs(*inputs, output="x.tto")


def test_a_forgotten_option_is_guessed(folder):
    with pytest.raises(BadArgument, match="did you mean -o out.tto?"):
        outputs("b.png", "out.tto")
    with pytest.raises(BadArgument, match="did you mean -o back.webp?"):
        outputs("c.tto", "back.webp", kind=DECOMPRESSION)


def test_folder_without_pictures_is_refused(folder):
    with pytest.raises(BadArgument, match="no files"):
        outputs("sub.png")


def test_standard_input_goes_to_standard_output_unless_told(folder):
    assert outputs("-") == [("-", "-")]
    assert outputs("-", output="x.tto") == [("-", "x.tto")]
    assert outputs("b.png", output="-") == outputs("b.png", output="/dev/stdout") == [("b.png", "-")]
    for inputs, output in ((("-", "b.png"), None), ((".",), "-")):
        with pytest.raises(BadArgument, match="for one picture"):
            outputs(*inputs, output=output)


def test_a_pipe_needs_a_name_for_its_output(folder):
    os.mkfifo("pipe")
    with pytest.raises(BadArgument, match="pipe is no regular file: say with -o"):
        outputs("pipe")
    assert outputs("pipe", output="x.tto") == [("pipe", "x.tto")]


def test_jobs_are_values():
    assert Job(Path("a"), Path("b")) == Job(Path("a"), Path("b"))


def test_a_folder_that_cannot_be_read_is_not_passed_over(folder, monkeypatch):
    scandir = os.scandir

    def look(place):
        if Path(place).name == "two":
            raise PermissionError(13, "Permission denied", str(place))
        return scandir(place)

    monkeypatch.setattr(os, "scandir", look)
    with pytest.raises(FileError, match="cannot read the folder .*two: Permission denied"):
        plan_jobs([Path(".")], "out/", COMPRESSION, recursive=True)

"""What a second run knows of the first."""

from __future__ import annotations

import json
import os
from hashlib import sha256
from pathlib import Path

import pytest
from PIL import Image

from tto.cli.jobs import Made, Parcel, read_parcel
from tto.cli.manifest import MANIFEST, Making, Manifest, finished, folder_of, noting
from tto.cli.naming import STREAM, Job
from tto.errors import FileError

MAKING = Making("00ff", {"quality": 4.0, "roi": None})


@pytest.fixture
def job(tmp_path, monkeypatch):
    """The first of two, done and noted."""
    monkeypatch.chdir(tmp_path)
    Path("in").mkdir()
    Path("in/a.png").write_bytes(b"picture")
    done = Job(Path("in/a.png"), Path("out/sub/a.tto"))
    with Manifest(Path("out"), grows=True) as manifest:
        made = Made({}, {done.target: b"bytes"})
        noting(manifest, MAKING)(Parcel(0, done, b"picture"), made)
    return done


def is_done(job: Job, making: Making = MAKING, grows: bool = True) -> bool:
    with Manifest(Path("out"), grows) as manifest:
        return finished(manifest, lambda: making)(job)


def write(job: Job, data: bytes = b"bytes") -> None:
    job.target.parent.mkdir(parents=True, exist_ok=True)
    job.target.write_bytes(data)


def test_a_line_tells_where_an_output_came_from(job):
    header, line = map(json.loads, Path("out", MANIFEST).read_text().splitlines())
    assert header == {"tto_manifest": 1}
    assert (line["output"], line["output_bytes"], line["input_bytes"]) == (os.path.join("sub", "a.tto"), 5, 7)
    assert line["input"] == os.path.abspath("in/a.png")
    assert line["input_sha256"] == sha256(b"picture").hexdigest()
    assert line["output_sha256"] == sha256(b"bytes").hexdigest()
    assert (line["model"], line["settings"]) == ("00ff", {"quality": 4.0, "roi": None})


@pytest.mark.parametrize("grows", [True, False])
def test_an_output_is_done_when_it_is_the_one_that_was_noted(job, grows):
    assert not is_done(job, grows=grows)  # noted, and not written: the run was killed between
    write(job, b"other")
    assert not is_done(job, grows=grows)
    write(job)
    assert is_done(job, grows=grows)


def test_another_model_or_setting_is_not_done(job):
    write(job)
    assert not is_done(job, Making("0000", MAKING.settings))
    assert not is_done(job, Making(MAKING.model, {"quality": 5.0, "roi": None}))


def test_an_input_is_known_by_its_content(job):
    write(job)
    os.utime("in/a.png", ns=(0, 0))
    assert is_done(job)
    Path("in/a.png").write_bytes(b"changed")
    assert not is_done(job)
    Path("in/b.png").write_bytes(b"picture")
    assert is_done(Job(Path("in/b.png"), job.output))


def test_times_tell_only_of_the_file_itself(job):
    write(job)
    other = Path("in/other.png")
    other.write_bytes(b"erutcip")
    modified = Path("in/a.png").stat().st_mtime_ns
    os.utime(other, ns=(modified, modified))
    assert not is_done(Job(other, job.output))


def test_an_output_nothing_is_known_of_is_done_when_it_is_there(job):
    other = Job(job.input, Path("out/b.tto"))
    assert not is_done(other)
    write(other)
    assert is_done(other)


def test_an_input_that_changes_while_it_is_worked_on_is_not_done(job, monkeypatch):
    def read(path):
        data = path.read_bytes()
        path.write_bytes(b"changed")
        os.utime(path, ns=(1, 1))
        return data

    monkeypatch.setattr("tto.cli.jobs.read_input", read)
    with Manifest(Path("out"), grows=True) as manifest:
        noting(manifest, MAKING)(read_parcel(0, job), Made({}, {job.target: b"bytes"}))
    write(job)
    assert not is_done(job)


@pytest.mark.parametrize("folders", [("out", "out/sub"), ("out/sub", "out")])
def test_what_a_run_with_other_outputs_noted_elsewhere_is_known(job, folders):
    """A manifest lies in the folder of all outputs of its run."""
    write(job)
    Path("out", MANIFEST).unlink()
    newer, noted = Making("0001", {}), Parcel(0, job, b"picture")
    before, now = map(Path, folders)
    with Manifest(before, grows=True) as manifest:
        manifest.append(noted, b"bytes", MAKING)
    with Manifest(now, grows=True) as manifest:
        assert finished(manifest, lambda: MAKING)(job)
        assert not finished(manifest, lambda: newer)(job)
        manifest.append(noted, b"newer", newer)
    write(job, b"newer")
    for folder in folders:
        with Manifest(Path(folder), grows=True) as manifest:
            assert finished(manifest, lambda: newer)(job)
            assert not finished(manifest, lambda: MAKING)(job)


def test_the_last_line_counts(job):
    with Manifest(Path("out"), grows=True) as manifest:
        manifest.append(Parcel(0, job, b"picture"), b"newer", Making("0001", {}))
    write(job, b"newer")
    assert is_done(job, Making("0001", {})) and not is_done(job)


@pytest.mark.parametrize("grows", [True, False])
@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"tto_manifest": 2}\n', "is of version 2, and this tto knows version 1"),
        ('{"other": 2}\n', "damaged"),
        ("shopping list\n", "damaged"),
        ("3\n", "damaged"),
        ('{"tto_manifest": 1}\n{"output": "a"}\n', "damaged"),
        ('{"tto_manifest": 1}\n{"output": \n{}\n', "damaged"),
    ],
)
def test_a_damaged_or_foreign_manifest_is_refused_and_left_alone(tmp_path, text, message, grows):
    (tmp_path / MANIFEST).write_text(text)
    with pytest.raises(FileError, match=message):
        Manifest(tmp_path, grows)
    assert (tmp_path / MANIFEST).read_text() == text


def test_values_of_another_kind_are_damage(job):
    path = Path("out", MANIFEST)
    path.write_text(path.read_text().replace('"input_bytes": 7', '"input_bytes": "7"'))
    with pytest.raises(FileError, match="damaged"):
        Manifest(Path("out"), True)


def test_a_manifest_in_use_is_read_where_it_need_not_grow(job):
    content = Path("out", MANIFEST).read_bytes()
    with Manifest(Path("out"), True), Manifest(Path("out"), False) as reader:
        reader.append(Parcel(0, job, b""), b"", MAKING)
    with Manifest(None, True) as nowhere:
        nowhere.append(Parcel(0, job, b""), b"", MAKING)
    assert Path("out", MANIFEST).read_bytes() == content
    with Manifest(Path("out"), True), pytest.raises(FileError, match="in use"):
        Manifest(Path("out"), True)


def test_a_manifest_lies_in_the_folder_of_all_outputs(tmp_path):
    here = [Job(Path("a/x.png"), Path("a/x.tto")), Job(Path("a/b/y.png"), Path("a/b/y.tto"))]
    assert folder_of(here, None) == Path("a").absolute()
    assert folder_of(here[:1], "a/") == Path("a/")
    assert folder_of(here[:1], "a/x.tto") == Path("a").absolute()
    assert folder_of([Job(STREAM, Path("x.tto")), Job(Path("x"), STREAM)], None) is None
    apart = [Job(Path("x.png"), tmp_path / "x.tto"), Job(Path("y.png"), Path("/elsewhere/y.tto"))]
    assert folder_of(apart, None) is None


def test_a_manifest_that_is_there_is_kept_up_to_date(job):
    with Manifest(Path("out"), grows=False) as manifest:
        noting(manifest, Making("00ff", {"quality": 5.0}))(Parcel(0, job, b"picture"), Made({}, {job.target: b"bytes"}))
    write(job)
    assert is_done(job, Making("00ff", {"quality": 5.0}), grows=False) and not is_done(job)


def test_a_new_one_is_nobody_elses_from_the_start_and_leaves_nothing_without_entries(tmp_path):
    folder = tmp_path / "new" / "out"
    with Manifest(folder, grows=True), pytest.raises(FileError, match="in use by another run"):
        Manifest(folder, grows=True)
    assert list(tmp_path.iterdir()) == []


def test_none_is_begun_that_nobody_asked_for(tmp_path):
    job = Job(tmp_path / "a.png", tmp_path / "a.tto")
    with Manifest(tmp_path, grows=False) as manifest:
        manifest.append(Parcel(0, job, b"picture"), b"bytes", MAKING)
    assert not (tmp_path / MANIFEST).exists()


def test_a_folder_that_cannot_hold_a_manifest_is_refused_first(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(FileError, match="file is no folder"):
        Manifest(tmp_path / "file", grows=True)


@pytest.fixture
def compress(tmp_path, photograph, tiny_checkpoint, capsys):
    """`tto compress pictures -o out --jobs 1` with more arguments: exit code, outputs that were printed, stderr."""
    from tto.cli import main

    for index, place in enumerate(("a.png", "in/b.png")):
        path = tmp_path / "pictures" / place
        path.parent.mkdir(parents=True, exist_ok=True)
        photograph(40, 30, index).save(path)

    def run(*more: str) -> tuple[int, list[str], str]:
        places = ("-r", str(tmp_path / "pictures"), "-o", str(tmp_path / "out"))
        with pytest.raises(SystemExit) as ended:
            main(["compress", *places, "-m", str(tiny_checkpoint), "--jobs", "1", *more])
        said = capsys.readouterr()
        return ended.value.code, [Path(line.partition(":")[0]).name for line in said.out.splitlines()], said.err

    return run


def test_a_second_run_does_what_is_new_changed_or_missing(tmp_path, compress, photograph):
    assert compress("--skip-existing") == (0, ["a.tto", "b.tto"], "")
    assert compress("--skip-existing")[1] == []
    photograph(40, 30, 7).save(tmp_path / "pictures" / "a.png")
    assert compress("--skip-existing")[1] == ["a.tto"]
    (tmp_path / "out" / "in" / "b.tto").unlink()
    assert compress("--skip-existing")[1] == ["b.tto"]
    assert compress("--skip-existing", "-q", "9") == (
        2,
        [],
        "tto: quality must be between 1 and 8 for this model, got 9\n",
    )
    assert compress("--skip-existing", "-q", "3")[1] == ["a.tto", "b.tto"]
    assert compress("--skip-existing", "-q", "3", "--convert")[1] == ["a.tto", "b.tto"]
    mask = tmp_path / "mask.png"
    Image.new("L", (40, 30), 255).save(mask)
    region = ("--skip-existing", "--roi", str(mask), "--steps", "1")
    assert compress(*region)[1] == ["a.tto", "b.tto"]
    assert compress(*region)[1] == []
    Image.new("L", (40, 30), 128).save(mask)
    assert compress(*region)[1] == ["a.tto", "b.tto"]
    assert compress()[1] == ["a.tto", "b.tto"]


def test_a_damaged_manifest_is_one_line_and_nothing_is_done(tmp_path, compress):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / MANIFEST).write_text("{}\n")
    code, out, err = compress()
    assert (code, out, err.count("\n")) == (2, [], 1) and "damaged" in err
    assert [path.name for path in (tmp_path / "out").iterdir()] == [MANIFEST]

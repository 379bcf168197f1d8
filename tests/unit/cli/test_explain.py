"""`tto compress --explain`: drawings beside nothing half-written."""

from __future__ import annotations

import os
import sys
from dataclasses import replace

import pytest

from tto.cli import main
from tto.codec import Codec
from tto.errors import NotEnoughMemory


def call(*args) -> int:
    with pytest.raises(SystemExit) as stop:
        main([str(arg) for arg in args])
    return stop.value.code


@pytest.fixture
def photo(tmp_path, photograph):
    path = tmp_path / "photo.png"
    photograph(40, 30).save(path)
    return path


def test_drawings_are_named_after_the_output(tmp_path, photo, tiny_checkpoint):
    assert call("compress", photo, "-m", tiny_checkpoint, "--explain", tmp_path / "why" / "so") == 0
    names = sorted(path.name for path in (tmp_path / "why" / "so").iterdir())
    assert names == ["photo-bits.png", "photo-dictionary.png", "photo-error.png"]


def test_what_is_drawn_beside_a_file_begins_with_the_step_that_its_search_began_with(
    tmp_path, photo, tiny_checkpoint, monkeypatch
):
    began, compress = [], Codec.compress
    monkeypatch.setattr("tto.explain.explain", lambda codec, picture, data, base_qp: began.append(base_qp) or {})
    monkeypatch.setattr(Codec, "compress", lambda *given, **more: replace(compress(*given, **more), base_qp=150))
    assert call("compress", photo, "-m", tiny_checkpoint, "--explain", tmp_path / "why") == 0
    assert began == [150]


def test_a_file_that_is_made_is_kept_where_memory_does_not_suffice_to_draw_it(
    tmp_path, photo, tiny_checkpoint, caplog, monkeypatch
):
    def too_large(*_):
        raise NotEnoughMemory("too large")

    monkeypatch.setattr("tto.explain.memory_for", too_large)
    assert call("compress", photo, "-m", tiny_checkpoint, "--explain", tmp_path / "why") == 0
    assert "photo.png: no drawings: too large" in caplog.text
    assert photo.with_suffix(".tto").is_file() and not list((tmp_path / "why").iterdir())


def test_a_folder_that_cannot_be_is_one_line_and_nothing_is_written(tmp_path, photo, tiny_checkpoint, capsys):
    (tmp_path / "file").write_text("")
    assert call("compress", photo, "-m", tiny_checkpoint, "--explain", tmp_path / "file" / "why") == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert not photo.with_suffix(".tto").exists()


def test_a_folder_that_may_not_be_written_is_refused_first(tmp_path, photo, tiny_checkpoint, capsys, monkeypatch):
    locked, access = tmp_path / "locked", os.access
    locked.mkdir()
    denied = (str(locked), os.W_OK)  # root may write everywhere
    monkeypatch.setattr(os, "access", lambda path, mode: (str(path), mode) != denied and access(path, mode))
    assert call("compress", photo, "-m", tiny_checkpoint, "--explain", locked) == 2
    assert f"cannot write to the folder {locked}" in capsys.readouterr().err
    assert not photo.with_suffix(".tto").exists()


def test_without_matplotlib_one_line_says_so_first(tmp_path, photo, tiny_checkpoint, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert call("compress", photo, "-m", tiny_checkpoint, "--explain", tmp_path / "why") == 2
    assert "matplotlib" in capsys.readouterr().err
    assert not photo.with_suffix(".tto").exists()


@pytest.mark.parametrize("options", [("photo-error.png",), ("--roi", "photo-error.png")])
def test_no_drawing_replaces_an_input(tmp_path, photo, tiny_checkpoint, capsys, monkeypatch, options):
    monkeypatch.chdir(tmp_path)
    photo.with_name("photo-error.png").write_bytes(photo.read_bytes())
    assert call("compress", photo, *options, "-m", tiny_checkpoint, "--effort", "none", "--explain", ".") == 2
    assert "photo-error.png is an input: give another folder with --explain\n" in capsys.readouterr().err
    assert photo.with_name("photo-error.png").read_bytes() == photo.read_bytes()
    assert not photo.with_suffix(".tto").exists()


def test_no_overwrite_holds_for_drawings(tmp_path, photo, tiny_checkpoint, capsys):
    (tmp_path / "photo-bits.png").write_bytes(b"precious")
    assert call("compress", photo, "-m", tiny_checkpoint, "--explain", tmp_path, "--no-overwrite") == 2
    assert "photo-bits.png exists and --no-overwrite is given" in capsys.readouterr().err
    assert (tmp_path / "photo-bits.png").read_bytes() == b"precious"
    assert not photo.with_suffix(".tto").exists()


def test_drawings_keep_the_places_of_their_outputs(tmp_path, photo, tiny_checkpoint):
    for place in ("in/a/x.png", "in/b/x.png"):
        (tmp_path / place).parent.mkdir(parents=True)
        (tmp_path / place).write_bytes(photo.read_bytes())
    options = ("-m", tiny_checkpoint, "--explain", tmp_path / "why")
    assert call("compress", "-r", tmp_path / "in", "-o", tmp_path / "out", *options) == 0
    names = [f"{folder}/x-{kind}.png" for folder in "ab" for kind in ("bits", "dictionary", "error")]
    assert sorted(str(path.relative_to(tmp_path / "why")) for path in (tmp_path / "why").rglob("*.png")) == names

"""What `tto info` says of side information, without a model."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import numpy as np
import pytest
import typer

import tto
from tto.cli.info import contents, info
from tto.container import Container, Header, SectionType, write
from tto.errors import CorruptFile, WrongModel
from tto.models import DEFAULT_MODEL, listed_models
from tto.side.codes import NO_CODE, encode_codes
from tto.side.transform import Syntax, encode_syntax

FINGERPRINT = b"side"


def file_with(folder, compensation: bytes, model: str | None = DEFAULT_MODEL):
    """A file of a shipped model, or of another."""
    sections = {
        SectionType.Z: b"zz",
        SectionType.Y: b"yyy",
        SectionType.COMPENSATION: FINGERPRINT + compensation,
        SectionType.SYNTAX: FINGERPRINT + encode_syntax(Syntax((0,) * 9, 4)),
    }
    path = folder / "photo.tto"
    made = b"12345678" if model is None else bytes.fromhex(listed_models()[model].fingerprint)
    path.write_bytes(write(Container(Header(100, 50, made, 4.0), sections)))
    return path


def test_mask_codes_and_syntax_are_shown(tmp_path, capsys):
    codes = np.full((4, 8), NO_CODE)  # 100x50 pixels are padded to 128x64
    codes[1, 2:6] = 3
    path = file_with(tmp_path, encode_codes(codes, np.full(16, 4096)))
    info([path])
    shown = capsys.readouterr().out
    assert "mask        12.5 % of positions, 4 codes" in shown
    assert "syntax      7 bytes" in shown
    info([path], as_json=True)
    record = json.loads(capsys.readouterr().out)
    assert (record["mask_share"], record["codes"]) == (0.125, 4)


def test_a_mask_is_read_where_the_size_of_the_latent_is_known(tmp_path):
    """Other networks have latents of other sizes, and a mask that is read in a wrong one is nonsense."""
    codes = np.full((4, 8), NO_CODE)
    codes[1, 2:6] = 3
    assert "codes" not in contents(file_with(tmp_path, encode_codes(codes, np.full(16, 4096)), model=None).read_bytes())


def test_the_size_of_a_latent_is_that_of_the_model_that_made_the_file(tmp_path, monkeypatch):
    codes = np.full((8, 16), NO_CODE)  # 100x50 pixels are padded to 128x64, with a position for 8
    codes[1, 2:6] = 3
    path = file_with(tmp_path, encode_codes(codes, np.full(16, 4096)))
    finer = {DEFAULT_MODEL: replace(listed_models()[DEFAULT_MODEL], y_stride=8)}
    monkeypatch.setattr("tto.cli.info.listed_models", lambda: finer)
    assert contents(path.read_bytes())["mask_share"] == 4 / 128


def test_a_file_of_earlier_weights_says_where_they_are(tmp_path, capsys):
    first = "c9a7a3e6b180fa04"
    assert all(first != known.fingerprint for known in listed_models().values())
    data = write(Container(Header(100, 50, bytes.fromhex(first), 4.0), {SectionType.Z: b"zz", SectionType.Y: b"yyy"}))
    (tmp_path / "photo.tto").write_bytes(data)
    info([tmp_path / "photo.tto"])
    where = "its weights are dcae-small as first shipped, .* base_models/weights/README.md has the command; .* -m FILE"
    assert re.search(rf"model       {first} \(not here; {where}\)", capsys.readouterr().out)
    with pytest.raises(WrongModel, match=rf"\(fingerprint {first}\): {where}"):
        tto.decompress(data, device="cpu")


def test_a_mask_that_cannot_be_is_refused(tmp_path):
    empty = encode_codes(np.full((4, 8), NO_CODE), np.full(16, 4096))
    with pytest.raises(CorruptFile, match="section compensation"):
        contents(file_with(tmp_path, empty).read_bytes())


def test_many_files_and_folders_are_read_and_bad_ones_named(tmp_path, capsys):
    codes = np.full((4, 8), NO_CODE)
    codes[0, 0] = 0
    good = file_with(tmp_path, encode_codes(codes, np.full(16, 4096)))
    (tmp_path / "in").mkdir()
    good.rename(tmp_path / "in" / "good.tto")
    (tmp_path / "bad.tto").write_bytes(b"bad")
    with pytest.raises(typer.Exit) as ended:
        info([tmp_path, tmp_path / "none.tto"], recursive=True, as_json=True)
    assert ended.value.exit_code == 2
    out, err = capsys.readouterr()
    assert [json.loads(line)["input"] for line in out.splitlines()] == [str(tmp_path / "in" / "good.tto")]
    assert err.splitlines() == [
        f"tto: cannot read {tmp_path / 'none.tto'}: no such file",
        f"tto: {tmp_path / 'bad.tto'}: not a .tto file",
    ]

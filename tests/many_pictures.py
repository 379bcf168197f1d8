"""A tree of pictures, and what every way of working on it must give."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from tto.cli import main
from tto.cli.manifest import MANIFEST
from tto.workers import Workforce

PICTURES = ("a.png", "b.png", "in/c.png", "in/deep/d.png", "broken.png", "z.png")


def make_pictures(folder: Path, photograph) -> Path:
    """A tree, one of whose pictures is none."""
    for index, name in enumerate(PICTURES):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        photograph(40 + index, 30).save(path)
    (folder / "broken.png").write_text("no picture")
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    """Without the manifest."""
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != MANIFEST)
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def call(capsys, *args) -> tuple[int, list[dict], list[str]]:
    """The command line in this process: exit code, records without seconds, lines of stderr."""
    with pytest.raises(SystemExit) as caught:
        main([*map(str, args), "--json"])
    captured = capsys.readouterr()
    records = [json.loads(line) for line in captured.out.splitlines()]
    for record in records:
        record.pop("seconds", None)
    return caught.value.code, records, captured.err.splitlines()


def preparations(monkeypatch, kind: type[Workforce]) -> list[Workforce]:
    """Those of this kind that are prepared from now on."""
    prepared, prepare = [], kind.prepare
    monkeypatch.setattr(kind, "prepare", lambda force, start: prepared.append(force) or prepare(force, start))
    return prepared


def check_all_commands(capsys, prepared: list, pictures: Path, model: Path, *workers: str) -> None:
    """Compresses, decompresses and verifies by one process and by `workers`, which must not be told apart; outputs go
    to the current folder. The latter are found in `prepared`, once for a command.
    """

    def twice(command: str, source: Path, output: str, *more) -> None:
        found = []
        for way in ((), workers):
            out = ("-o", output) if output else ()
            prepared.clear()
            told = call(capsys, command, "-r", source, *out, "-m", model, *more, *way)
            assert len(prepared) == bool(way)
            found.append((told, contents(Path(output)) if output else None))
            if output:
                os.rename(output, f"{output}-{len(way)}")
        assert found[0] == found[1]
        assert found[0][0][:1] == (2,) and found[0][0][1]

    twice("compress", pictures, "packed", "--steps", "2")
    Path("packed-0", "broken.tto").write_bytes(b"no file")
    twice("decompress", Path("packed-0"), "back")
    twice("verify", Path("packed-0"), "", "--against", pictures)
    lines = [json.loads(line) for line in Path(f"packed-{len(workers)}", MANIFEST).read_text().splitlines()]
    assert sorted(line["output"] for line in lines[1:]) == sorted(
        str(Path(name).with_suffix(".tto")) for name in PICTURES if name != "broken.png"
    )

"""Damaged files through the whole decoder, in a process whose crash or hang would be noticed.

Whatever is wrong: exit code 2, one line, no output file.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.fuzz.decode_worker import outcome
from tto.container import Container, SectionType, join_y, read, split_y, write
from tto.errors import BadCheckpoint
from tto.image import Picture

WORKER = Path(__file__).with_name("decode_worker.py")
UNCHECKED = Path(__file__).with_name("unchecked_worker.py")
CHECKSUM = 0  # as that worker expects
SECONDS = 500  # a hang, not a slow machine


@pytest.fixture(scope="module")
def codec(tiny_checkpoint):
    from tto.codec import load_codec

    return load_codec(str(tiny_checkpoint))


@pytest.fixture(scope="module")
def small(codec) -> bytes:
    """A file of about two hundred bytes with several sections."""
    rows, columns = np.mgrid[0:9, 0:13].astype(np.uint8)
    rgb = np.stack([20 * rows, 15 * columns, 7 * rows + columns], axis=2)
    picture = Picture(rgb, alpha=rows * 20, exif=b"Exif\0\0II*\0\x08\0\0\0\0\0", xmp=b"<x/>")
    return codec.compress(picture.to_pil(), quality=8).data


def decode_all(cases: dict[str, bytes], folder: Path, model: Path, worker: Path = WORKER) -> dict[str, dict]:
    for name, data in cases.items():
        (folder / f"{name}.tto").write_bytes(data)
    environment = {**os.environ, "PYTHONPATH": os.getcwd(), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(worker), str(folder), str(model)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=SECONDS)
    assert done.returncode == 0, f"the decoder's process died with {done.returncode}: {done.stderr[-500:]}"
    return json.loads((folder / "outcomes.json").read_text())


def is_clean_refusal(outcome: dict) -> bool:
    one_line = len(outcome["lines"]) == 1 and "internal error" not in outcome["lines"][0]
    return outcome["code"] == 2 and one_line and not outcome["wrote"]


def assert_all_refused(cases: dict[str, bytes], folder: Path, model: Path) -> dict[str, dict]:
    outcomes = decode_all(cases, folder, model)
    bad = {name: outcome for name, outcome in outcomes.items() if not is_clean_refusal(outcome)}
    assert not bad and len(outcomes) == len(cases)
    return outcomes


def test_truncation_flipped_bits_and_foreign_files_are_refused(tmp_path, small, tiny_checkpoint):
    generator = random.Random(0)
    cases = {f"cut-{length:04}": small[:length] for length in range(len(small))}
    for number in range(500):
        damaged = bytearray(small)
        damaged[generator.randrange(len(small))] ^= 1 << generator.randrange(8)
        cases[f"flip-{number:04}"] = bytes(damaged)
    container = read(small)
    headers = {
        "wrong-model": replace(container.header, fingerprint=b"another!"),
        "huge": replace(container.header, width=60_000, height=60_000),
    }
    cases |= {name: write(replace(container, header=header)) for name, header in headers.items()}
    cases["wrong-version"] = small[:4] + b"\x07" + small[5:]
    cases["text"] = b"A text file.\nWith two lines.\n"
    cases["png"] = b"\x89PNG\r\n\x1a\n" + bytes(100)
    cases["noise"] = generator.randbytes(5000)
    outcomes = assert_all_refused(cases, tmp_path, tiny_checkpoint)
    expected = {
        "wrong-model": b"another!".hex(),
        "huge": "60000x60000",
        "wrong-version": "version 7",
        "text": "not a .tto file",
        "cut-0030": "corrupt file",
    }
    for name, words in expected.items():
        assert words in outcomes[name]["lines"][0]


def test_damage_behind_valid_checksums_never_crashes_or_hangs(tmp_path, small, tiny_checkpoint):
    """A hostile file has right checksums: then a decoder may see nothing wrong, but must stay whole."""
    generator = random.Random(1)
    container = read(small)
    cases = {"whole": small}
    for number in range(120):
        sections = dict(container.sections)
        kind = generator.choice(list(sections))
        sections[kind] = _damaged(sections[kind], generator)
        cases[f"damage-{number:03}"] = write(Container(container.header, sections))
    changes = {"wider": {"width": 200}, "higher": {"height": 200}, "better": {"quality": 60.0}}
    for name, change in changes.items():
        cases[name] = write(replace(container, header=replace(container.header, **change)))
    for qp in (0, 255):
        cases[f"qp-{qp}"] = write(replace(container, header=replace(container.header, qp=qp)))
    for number in range(20):
        filtered = {**container.sections, SectionType.FILTER: generator.randbytes(generator.randrange(60))}
        cases[f"filter-{number}"] = write(Container(container.header, filtered))
        adapted = {**container.sections, SectionType.ADAPTATION: generator.randbytes(generator.randrange(60))}
        cases[f"adaptation-{number}"] = write(Container(container.header, adapted))
    listed = {**container.sections, SectionType.INDEX_LIST: b"\x01\xff\xff\xff\xff\x0f\x3f\x00"}
    cases["index-list"] = write(Container(container.header, listed))
    outcomes = decode_all(cases, tmp_path, tiny_checkpoint)
    decoded = {"code": 0, "lines": [], "wrote": True}
    assert outcomes["whole"] == decoded
    strange = {name: o for name, o in outcomes.items() if o != decoded and not is_clean_refusal(o)}
    assert strange == {}
    assert is_clean_refusal(outcomes["wider"]) and is_clean_refusal(outcomes["index-list"])


def _damaged(body: bytes, generator: random.Random) -> bytes:
    """`body` with a bit flipped, cut, lengthened, or replaced by noise."""
    way = generator.randrange(4)
    if way == 0 and body:
        damaged = bytearray(body)
        damaged[generator.randrange(len(body))] ^= 1 << generator.randrange(8)
        return bytes(damaged)
    if way == 1:
        return body[: generator.randrange(len(body) + 1)]
    if way == 2:
        return body + generator.randbytes(generator.randrange(1, 20))
    return generator.randbytes(len(body))


def test_damaged_side_information_never_crashes_and_is_named(
    tmp_path, small, tiny_checkpoint, make_side_modules, side_of
):
    """Damage behind valid checksums, in the sections of mask and codes and of the syntax."""
    from base_models import load_checkpoint
    from tto.side.coder import SideCoder
    from tto.side.codes import NO_CODE
    from tto.side.transform import Syntax
    from tto.side.weights import save_with_side_modules

    model = load_checkpoint(tiny_checkpoint)
    modules = make_side_modules(model.config.M)
    with_side = tmp_path / "with-side.safetensors"
    save_with_side_modules(model, modules, with_side)
    codes = np.random.default_rng(0).integers(NO_CODE, 16, (4, 4))
    side = side_of(SideCoder(modules), codes, Syntax((1, -2, 3, 0, 0, 1, 4, -3, 2), 4))
    container = read(small)

    def cases() -> dict[str, bytes]:
        generator = random.Random(2)
        made = {"whole": {}}
        for kind, body in side.sections.items():
            name = kind.name.lower()
            made |= {f"{name}-cut-{length:02}": {kind: body[:length]} for length in range(len(body))}
            made |= {f"{name}-damage-{n:02}": {kind: _damaged(body, generator)} for n in range(60)}
        whole = {**container.sections, **side.sections}
        return {name: write(Container(container.header, {**whole, **change})) for name, change in made.items()}

    folder = tmp_path / "cases"
    folder.mkdir()
    outcomes = decode_all(cases(), folder, with_side)
    decoded = {"code": 0, "lines": [], "wrote": True}
    assert outcomes["whole"] == decoded
    assert {name: o for name, o in outcomes.items() if o != decoded and not is_clean_refusal(o)} == {}
    for name in ("compensation", "syntax"):
        assert f"section {name}" in outcomes[f"{name}-cut-03"]["lines"][0]
    bare = tmp_path / "bare"
    bare.mkdir()
    shutil.copy(folder / "whole.tto", bare)
    refused = outcome(bare / "whole.tto", str(tiny_checkpoint))
    assert is_clean_refusal(refused) and "side modules" in refused["lines"][0]


def test_weights_that_are_not_numbers_are_refused(tiny_checkpoint):
    import torch

    from tto.codec import load_codec

    codec = load_codec(str(tiny_checkpoint))
    with torch.no_grad():
        for parameter in codec.model.g_a.parameters():
            parameter.fill_(float("nan"))
    with pytest.raises(BadCheckpoint, match="not finite"):
        codec.compress(Picture(np.zeros((8, 8, 3), np.uint8)).to_pil())


def test_checkpoint_with_weights_that_are_not_numbers_is_refused(tmp_path, tiny_checkpoint):
    from safetensors import safe_open
    from safetensors.torch import save_file

    from tto.codec import load_codec

    with safe_open(tiny_checkpoint, "pt") as file:
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (it is no dictionary)
        metadata = file.metadata()
    key = next(key for key, tensor in tensors.items() if tensor.is_floating_point() and tensor.dim() == 4)
    tensors[key].view(-1)[0] = float("nan")
    save_file(tensors, tmp_path / "nan.safetensors", metadata)
    with pytest.raises(BadCheckpoint, match=f"{key} holds values that are not finite"):
        load_codec(str(tmp_path / "nan.safetensors"))


def test_damage_that_no_checksum_stops_never_crashes_the_network(tmp_path, small, codec, tiny_checkpoint):
    """Symbols without sense: huge ones, or tables that were not meant for them."""
    generator = random.Random(3)
    container = read(small)
    slices = codec.latent_coder.num_slices
    unchecked = [CHECKSUM] * slices
    _, payload = split_y(container.sections[SectionType.Y], slices)
    sections = {**container.sections, SectionType.Y: join_y(unchecked, payload)}
    cases = {"whole": write(Container(container.header, sections))}
    kinds = (SectionType.Y, SectionType.Y, SectionType.Z, SectionType.INDEX_LIST, SectionType.SCALE_QP)
    for number in range(300):
        kind = generator.choice(kinds)
        if kind is SectionType.Y:
            body = join_y(unchecked, _damaged(payload, generator))
        else:
            body = _damaged(sections.get(kind, generator.randbytes(slices)), generator)
        changes = generator.choice(({}, {}, {"qp": generator.randrange(256)}, {"quality": 1.0}))
        damaged = Container(replace(container.header, **changes), {**sections, kind: body})
        cases[f"damage-{number:03}"] = write(damaged)
    outcomes = decode_all(cases, tmp_path, tiny_checkpoint, UNCHECKED)
    assert len(outcomes) == len(cases) and outcomes["whole"] == "decoded"
    strange = {name: o for name, o in outcomes.items() if o != "decoded" and not o.startswith("refused: ")}
    assert strange == {}
    assert sum(outcome == "decoded" for outcome in outcomes.values()) > 100

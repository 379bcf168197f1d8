"""What is free, and what happens where it is too little."""

from __future__ import annotations

import pytest
import torch

from base_models import create_model
from tto import memory
from tto.errors import NotEnoughMemory

CPU = torch.device("cpu")


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """`machine(available, limit, used, cache)`: a machine and a container with so many bytes, None where it does not
    say; `version` is that of its control groups.
    """

    def make(
        available: int | None, limit: int | str | None = None, used: int = 0, cache: int = 0, version: int = 2
    ) -> None:
        monkeypatch.setattr(memory, "MACHINE", tmp_path / "machine")
        monkeypatch.setattr(memory, "GROUP", tmp_path)
        if available is not None:
            (tmp_path / "machine").write_text(f"MemTotal: 999 kB\nMemAvailable:  {available // 1024} kB\n")
        if limit is not None:
            (tmp_path / "memory").mkdir(exist_ok=True)
            names = memory.GROUP_FILES[2 - version]
            texts = (f"{limit}\n", f"{used}\n", f"anon 1\n{names[3]} {cache}\n")
            for name, text in zip(names, texts, strict=False):
                (tmp_path / name).write_text(text)

    return make


def test_free_is_the_least_of_what_machine_and_container_leave(machine):
    machine(10 << 20)
    assert memory.free_memory(CPU) == 10 << 20
    machine(10 << 20, 8 << 20, 2 << 20)
    assert memory.free_memory(CPU) == 6 << 20
    machine(10 << 20, "max")
    assert memory.free_memory(CPU) == 10 << 20


@pytest.mark.parametrize("version", [1, 2])
def test_files_that_a_container_has_in_its_cache_are_not_in_use(machine, version):
    machine(10 << 20, 8 << 20, 8 << 20, cache=5 << 20, version=version)
    assert memory.free_memory(CPU) == 5 << 20


def test_memory_that_pytorch_keeps_on_a_gpu_is_free(monkeypatch):
    for name, value in (("mem_get_info", (100, 500)), ("memory_reserved", 50), ("memory_allocated", 20)):
        monkeypatch.setattr(torch.cuda, name, lambda device, value=value: value)
    assert memory.free_memory(torch.device("cuda", 0)) == 130


def test_a_system_that_does_not_say_sets_no_limit(machine):
    machine(None)
    assert memory.free_memory(CPU) is None
    with memory.memory_for(60_000, 60_000, CPU):
        pass


def test_a_picture_that_cannot_fit_is_refused_before_the_work_begins(machine):
    machine(1000 * 500 * memory.BYTES_PER_PIXEL)
    with memory.memory_for(1000, 499, CPU):
        began = True
    assert began
    with (
        pytest.raises(NotEnoughMemory, match="1000x502 takes 0.1 GB of memory; 0.1 GB are free"),
        memory.memory_for(1000, 502, CPU),
    ):
        pytest.fail("it has begun")


def test_what_a_network_keeps_beside_tiles_counts(machine):
    """Of the published FTIC 960 bytes for each pixel."""
    with torch.device("meta"):
        kept = create_model("ftic").walk_bytes
    assert kept == 960
    machine(1000 * 500 * int(memory.BYTES_PER_PIXEL + kept))
    with memory.memory_for(1000, 499, CPU, walk_bytes=kept):
        pass
    with pytest.raises(NotEnoughMemory), memory.memory_for(1000, 502, CPU, walk_bytes=kept):
        pytest.fail("it has begun")


@pytest.mark.parametrize(
    "error",
    [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), RuntimeError("bad_alloc")],
)
def test_memory_that_runs_out_is_an_error_of_ours(error):
    with pytest.raises(NotEnoughMemory, match="for a picture of 30x20"), memory.memory_for(30, 20, CPU):
        raise error


def test_other_errors_pass():
    with pytest.raises(RuntimeError, match="shapes"), memory.memory_for(30, 20, CPU):
        raise RuntimeError("shapes do not match")


def test_small_pictures_are_computed_whole_and_large_ones_in_part_of_what_is_free(machine):
    machine(500 << 20)
    room = memory.Room.on(CPU)
    assert room.bytes == (500 << 20) / 8
    assert room.for_picture(1024, 1024) is None and room.for_picture(1024, 1025) == room.bytes
    machine(64 << 30)
    assert memory.Room.on(CPU).bytes == memory.Room.on(CPU, weights=20e6).bytes == memory.MOST_ACTIVATIONS
    assert memory.Room.on(CPU, weights=500e6).bytes == 1e9
    machine(1 << 20)
    assert memory.Room.on(CPU).bytes == memory.LEAST_ACTIVATIONS


def test_what_a_large_picture_frees_is_given_back(monkeypatch):
    returned = []
    monkeypatch.setattr(memory, "return_freed", lambda: returned.append(True))
    room = memory.Room(5.0)
    with room.lent(1024, 1024) as lent:
        assert lent is None
    assert not returned
    with room.lent(1024, 1025) as lent:
        assert lent == 5.0 and not returned
    assert returned

from __future__ import annotations

import pytest

from tto.bench.memory import peak_mb, reset_peak


@pytest.mark.parametrize("device", ["cuda", "cuda:1"])
def test_of_several_gpus_the_one_that_works_is_asked(monkeypatch, device):
    asked = []
    for name in ("reset_peak_memory_stats", "memory_allocated", "max_memory_allocated"):
        monkeypatch.setattr(f"torch.cuda.{name}", lambda place: asked.append(place) or 3_000_000)
    assert reset_peak(device) == peak_mb(device) == 3
    assert asked == [device] * 3

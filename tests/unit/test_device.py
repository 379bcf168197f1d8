"""A device that is not there is refused by its name."""

from __future__ import annotations

import pytest
import torch

from tto.device import descends_in_bfloat16, has_float64, make_repeatable, pick_device, use_gpu
from tto.errors import BadArgument


def test_devices_have_pytorchs_names(monkeypatch):
    monkeypatch.setattr("tto.device._count", lambda kind: 2)
    assert pick_device("cpu") == torch.device("cpu")
    assert pick_device("cuda:1") == torch.device("cuda", 1)
    with pytest.raises(BadArgument, match="no cuda:2 on this machine"):
        pick_device("cuda:2")


def test_a_gpu_has_the_number_that_this_thread_means(monkeypatch):
    monkeypatch.setattr("tto.device._count", lambda kind: 2)
    monkeypatch.setattr("torch.cuda.current_device", lambda: 1)
    assert pick_device("cuda") == torch.device("cuda", 1)


def test_workers_share_the_gpus_out_and_touch_none_before_they_need_one(monkeypatch):
    chosen = []
    monkeypatch.setattr("tto.device._count", lambda kind: 2)
    monkeypatch.setattr("tto.device._place", None)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    monkeypatch.setattr("torch.cuda.set_device", chosen.append)
    monkeypatch.setattr("torch.cuda.current_device", lambda: chosen[-1])
    use_gpu(3)
    assert pick_device("cpu").type == "cpu" and pick_device("cuda:0").index == 0 and chosen == []
    assert pick_device("cuda") == torch.device("cuda", 1) and chosen == [1]


@pytest.mark.parametrize(("capability", "worth"), [((7, 5), False), ((8, 0), True), ((9, 0), True)])
def test_bfloat16_needs_a_gpu_that_multiplies_it(monkeypatch, capability, worth):
    monkeypatch.setattr("torch.cuda.get_device_capability", lambda device: capability)
    assert descends_in_bfloat16(torch.device("cuda", 0)) is worth


def test_convolutions_on_a_gpu_are_made_repeatable(monkeypatch):
    flags = {"deterministic": True, "benchmark": False, "allow_tf32": False}
    for name, value in flags.items():
        monkeypatch.setattr(torch.backends.cudnn, name, not value)
    make_repeatable(torch.device("cpu"))
    assert all(getattr(torch.backends.cudnn, name) is not value for name, value in flags.items())
    make_repeatable(torch.device("cuda", 0))
    assert {name: getattr(torch.backends.cudnn, name) for name in flags} == flags


def test_a_device_without_float64_is_taken(monkeypatch):
    """What needs it is computed on the CPU (`tto.latent_coding`)."""
    monkeypatch.setattr("tto.device._count", lambda kind: 1)
    assert pick_device("mps") == torch.device("mps")
    assert not has_float64(torch.device("mps")) and has_float64(torch.device("cpu"))


@pytest.mark.parametrize("name", ["abacus", "meta", "", "cuda:x"])
def test_other_names_are_refused(name):
    with pytest.raises(BadArgument, match="unknown device"):
        pick_device(name)


@pytest.mark.parametrize(
    ("multiplies", "kernels", "worth"), [(True, "AVX512", True), (True, "DEFAULT", False), (False, "AVX512", False)]
)
def test_bfloat16_needs_a_processor_that_multiplies_it_and_kernels_for_it(monkeypatch, multiplies, kernels, worth):
    monkeypatch.setattr("torch.cpu._is_avx512_bf16_supported", lambda: multiplies)
    monkeypatch.setattr("torch.backends.cpu.get_cpu_capability", lambda: kernels)
    assert descends_in_bfloat16(torch.device("cpu")) is worth

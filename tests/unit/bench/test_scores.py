from __future__ import annotations

import math
import os
import re
import subprocess
import sys

import numpy as np
import pytest

from tto.bench import vmaf as vmaf_module
from tto.bench.ffmpeg import ProgramFailed, ffmpeg_program, missing, run_ffmpeg
from tto.bench.scores import METRICS, check_metrics, load_score
from tto.bench.vmaf import luma
from tto.errors import BadArgument, NotInstalled


@pytest.fixture(scope="module")
def pair() -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(0)
    original = np.kron(random.integers(20, 236, (12, 12, 3)), np.ones((16, 16, 1))).astype(np.uint8)
    decoded = np.clip(original + random.normal(0, 9, original.shape), 0, 255).astype(np.uint8)
    return original, decoded


def test_psnr_and_ms_ssim_are_always_measured_and_others_on_request():
    assert check_metrics([]) == ("psnr", "ms_ssim")
    assert check_metrics(["vmaf", "psnr"]) == ("psnr", "ms_ssim", "vmaf")
    with pytest.raises(BadArgument, match="unknown metric 'beauty': ssimulacra2, vmaf, lpips, dists"):
        check_metrics(["beauty"])


@pytest.mark.parametrize("name", ["lpips", "dists", "ms_ssim"])
def test_axes_rise_with_quality(name):
    worse, better = (0.9, 0.99) if name == "ms_ssim" else (0.2, 0.1)
    assert METRICS[name].on_axis(worse) < METRICS[name].on_axis(better)
    assert METRICS[name].on_axis(better) == pytest.approx(20 if name == "ms_ssim" else 10)
    assert math.isnan(METRICS[name].on_axis(math.nan))


def test_vmaf_falls_with_noise_and_is_what_ffmpegs_filter_says_of_y4m_files(pair, tmp_path):
    original, decoded = pair
    score = load_score("vmaf")
    assert score(original, original) > 95 > score(original, decoded)
    for name, pixels in (("original", original), ("decoded", decoded)):
        plane = luma(pixels)
        header = f"YUV4MPEG2 W{plane.shape[1]} H{plane.shape[0]} F1:1 C444\nFRAME\n".encode()
        (tmp_path / f"{name}.y4m").write_bytes(header + plane.tobytes() + bytes([128]) * (2 * plane.size))
    command = [ffmpeg_program(), "-i", tmp_path / "decoded.y4m", "-i", tmp_path / "original.y4m"]
    said = subprocess.run([*command, "-lavfi", "libvmaf", "-f", "null", "-"], capture_output=True, text=True).stderr
    assert score(original, decoded) == float(re.search(r"VMAF score: ([\d.]+)", said)[1])


def test_luma_is_bt709_in_limited_range():
    colours = np.array([[[0, 0, 0], [255, 255, 255], [0, 255, 0]]], np.uint8)
    assert luma(colours).tolist() == [[16, 235, round(16 + 219 * 0.7152)]]


def test_a_program_without_vmaf_is_one_line(monkeypatch):
    monkeypatch.setattr(vmaf_module, "missing", lambda kind, name: "this ffmpeg was built without libvmaf")
    with pytest.raises(NotInstalled, match="vmaf: this ffmpeg was built without libvmaf"):
        vmaf_module.load_vmaf()


@pytest.mark.skipif(os.name != "posix", reason="needs pipes that do not block")
def test_a_program_that_says_much_is_not_held_up(tmp_path, monkeypatch):
    program = tmp_path / "ffmpeg"
    says = "os.set_blocking(2, False); [os.write(2, b' '.join(map(os.fsencode, sys.argv)) * 1000) for _ in range(99)]"
    program.write_text(f"#!{sys.executable}\nimport os, sys\n{says}\n")
    program.chmod(0o755)
    monkeypatch.setattr("tto.bench.ffmpeg.ffmpeg_program", lambda: str(program))
    said, _ = run_ffmpeg(["in"])
    assert said.count(" in") == 99_000 and "-nostats" in said


def test_ffmpeg_says_what_it_has_and_what_went_wrong(tmp_path):
    assert missing("encoders", "libx265") == ""
    assert missing("encoders", "nonsense") == "this ffmpeg was built without nonsense"
    with pytest.raises(ProgramFailed, match="ffmpeg failed: .*No such file"):
        run_ffmpeg(["-i", tmp_path / "nothing.png", tmp_path / "out.png"])
    _, memory = run_ffmpeg(["-f", "lavfi", "-i", "testsrc=d=1", "-f", "null", "-"])
    assert memory > 5

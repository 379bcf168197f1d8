"""The comparison of speed, on a picture of a few pixels."""

import importlib.util
import sys
from pathlib import Path

import pytest

PATH = Path(__file__).parents[3] / "scripts" / "compare_speed.py"


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("tto_compare_speed_script", PATH)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


def test_a_family_is_timed_beside_compressais_own_coder(script, photograph, tmp_path):
    photograph(70, 50).save(tmp_path / "a.png")
    rows = script.measure_families(["bmshj2018-factorized"], tmp_path / "a.png", 1, runs=1)
    assert list(rows) == [f"bmshj2018-factorized, {coder}" for coder in ("CompressAI", "native", "portable")]
    for timing, base in rows.values():
        assert base is rows["bmshj2018-factorized, CompressAI"][0]
        assert len(timing.encode) == len(timing.decode) == 1 and min(timing.encode + timing.decode) > 0

"""The comparison of speed, on a picture of a few pixels."""


def test_a_family_is_timed_beside_compressais_own_coder(script, photograph, tmp_path):
    photograph(70, 50).save(tmp_path / "a.png")
    rows = script.measure_families(["bmshj2018-factorized"], tmp_path / "a.png", 1, runs=1)
    assert list(rows) == [f"bmshj2018-factorized, {coder}" for coder in ("CompressAI", "native", "portable")]
    for timing, base in rows.values():
        assert base is rows["bmshj2018-factorized, CompressAI"][0]
        assert len(timing.encode) == len(timing.decode) == 1 and min(timing.encode + timing.decode) > 0

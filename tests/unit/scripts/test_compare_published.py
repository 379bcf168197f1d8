from __future__ import annotations

import pytest


def test_every_folder_of_checkpoints_is_a_codec_and_every_one_beside_them(script, tmp_path):
    for name in ("tcm/1.safetensors", "tcm/2.safetensors", "dcae/1.safetensors", "notes/readme.txt", "own.safetensors"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    arguments = script.bench_arguments(tmp_path, "kodak")
    assert arguments[:4] == [
        "bench",
        "kodak",
        "-m",
        f"{tmp_path / 'dcae'},{tmp_path / 'own.safetensors'},{tmp_path / 'tcm'}",
    ]
    assert arguments[4:8] == ["--effort", "none,best", "-q", "all"]


def test_a_folder_without_checkpoints_is_one_line(script, tmp_path, capsys):
    with pytest.raises(SystemExit) as ended:
        script.bench_arguments(tmp_path, "kodak")
    assert ended.value.code == 2
    said = f"no .safetensors checkpoints in {tmp_path}: make some with 'tto models convert'\n"
    assert capsys.readouterr().err == said

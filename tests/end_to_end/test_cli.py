"""The command line as a person uses it: processes, files, exit codes, one line for each error."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from base_models import create_model
from tto import __version__, api
from tto.cli import main
from tto.image import Picture, encode_picture, load_picture

RANDOM = np.random.default_rng(0)


def gradient(width: int, height: int) -> np.ndarray:
    """A smooth picture, uint8 [height, width, 3]."""
    rows, columns = np.mgrid[0:height, 0:width]
    return np.stack([rows % 256, columns % 256, (rows + columns) // 2 % 256], axis=2).astype(np.uint8)


def exif_bytes() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    exif[0x010F] = "Maker"
    return exif.tobytes()


ENVIRONMENT = {**os.environ, "PYTHONPATH": os.getcwd(), "OMP_NUM_THREADS": "1"}


def tto(*args, cwd=None) -> subprocess.CompletedProcess:
    """A separate process of the command line."""
    command = [sys.executable, "-m", "tto", *map(str, args)]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, env=ENVIRONMENT, timeout=500)


@pytest.fixture
def call(capsys):
    """The command line in this process: exit code, lines of stdout, lines of stderr."""

    def run(*args) -> tuple[int, list[str], list[str]]:
        with pytest.raises(SystemExit) as caught:
            main([str(arg) for arg in args])
        captured = capsys.readouterr()
        return caught.value.code, captured.out.splitlines(), captured.err.splitlines()

    return run


@pytest.fixture
def photo(tmp_path):
    path = tmp_path / "photo.png"
    Picture(gradient(40, 30)).to_pil().save(path)
    return path


def names(folder) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


# --- separate processes ----------------------------------------------------------------------------

PICTURES = {
    "1x1": Picture(gradient(1, 1)),
    "1x4000": Picture(gradient(1, 4000)),
    "4000x1": Picture(gradient(4000, 1)),
    "63x65": Picture(gradient(63, 65)),
    "127x129": Picture(gradient(127, 129)),
    "alpha": Picture(gradient(33, 20), alpha=RANDOM.integers(0, 256, (20, 33), dtype=np.uint8)),
    "gray": Picture(gradient(33, 20)[..., [0, 0, 0]], grayscale=True),
    "gray-alpha": Picture(gradient(33, 20)[..., [0, 0, 0]], True, alpha=gradient(33, 20)[..., 1]),
    "rotated": Picture(gradient(33, 20), exif=exif_bytes(), xmp=b"<x:xmpmeta/>"),
    "profile": Picture(gradient(33, 20), icc=RANDOM.bytes(500)),
    "noise": Picture(RANDOM.integers(0, 256, (70, 90, 3), dtype=np.uint8)),
}


def test_every_size_mode_and_metadata_survives_two_processes(tmp_path, tiny_checkpoint):
    from tto.codec import load_codec

    source = tmp_path / "pictures"
    source.mkdir()
    for name, picture in PICTURES.items():
        path = source / f"{name}.png"
        path.write_bytes(encode_picture(picture.to_pil(), path))
    Image.fromarray(gradient(33, 20)).quantize(16).save(source / "palette.png")

    packed = tto("compress", source, "-o", tmp_path / "packed", "-m", tiny_checkpoint, "--json")
    assert (packed.returncode, packed.stderr) == (0, "")
    unpacked = tto("decompress", tmp_path / "packed", "-o", tmp_path / "back", "-m", tiny_checkpoint)
    assert (unpacked.returncode, unpacked.stderr) == (0, "")

    expected = {**PICTURES, "palette": load_picture(source / "palette.png")}
    lines = map(json.loads, packed.stdout.splitlines())
    records = {os.path.basename(record["input"]): record for record in lines}
    assert list(records) == sorted(f"{name}.png" for name in expected)
    for name, original in expected.items():
        record, back = records[f"{name}.png"], load_picture(tmp_path / "back" / f"{name}.png")
        assert back.rgb.shape == original.rgb.shape
        assert back.grayscale == original.grayscale
        assert (back.exif, back.xmp, back.icc) == (original.exif, original.xmp, original.icc)
        assert (original.alpha is None) == (back.alpha is None)
        assert original.alpha is None or np.array_equal(back.alpha, original.alpha)
        size = (tmp_path / "packed" / f"{name}.tto").stat().st_size
        assert record["bytes"] == size
        assert record["bpp"] == pytest.approx(8 * size / (original.width * original.height), rel=1e-12)
        error = np.mean((original.rgb.astype(float) - back.rgb) ** 2)
        assert record["psnr"] == pytest.approx(10 * np.log10(255**2 / error), abs=1e-6)
    result = load_codec(str(tiny_checkpoint)).compress(source / "noise.png")  # the encoder's own pixels
    assert Image.open(tmp_path / "back" / "noise.png").tobytes() == result.image.tobytes()
    assert (tmp_path / "packed" / "noise.tto").read_bytes() == result.data


def test_errors_of_a_process_are_one_line_and_exit_code_2(tmp_path):
    (tmp_path / "text.tto").write_text("some text")
    done = tto("decompress", "text.tto", cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (2, "", "tto: text.tto: not a .tto file\n")
    assert names(tmp_path) == {"text.tto"}


def test_info_starts_without_what_it_does_not_need(tmp_path, photo, tiny_checkpoint, call):
    assert call("compress", photo, "-m", tiny_checkpoint)[0] == 0
    code = (
        "import sys; from tto.cli import main\n"
        f"try: main(['info', {str(tmp_path / 'photo.tto')!r}])\n"
        "finally: print(sorted({'torch', 'numpy', 'PIL', 'rich', 'constriction'} & set(sys.modules)))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.splitlines()[-1] == "[]"


# --- names -----------------------------------------------------------------------------------------


def test_default_names_lie_beside_the_input(tmp_path, photo, tiny_checkpoint, call):
    code, out, err = call("compress", photo, "-m", tiny_checkpoint)
    assert (code, err, len(out)) == (0, [], 1)
    assert out[0].startswith(f"{tmp_path / 'photo.tto'}: 40x30, ")
    photo.unlink()
    assert call("decompress", tmp_path / "photo.tto", "-m", tiny_checkpoint)[0] == 0
    assert names(tmp_path) == {"photo.png", "photo.tto"}


def test_output_file_folder_and_format_are_chosen_by_o(tmp_path, photo, tiny_checkpoint, call):
    model = ("-m", tiny_checkpoint)
    assert call("compress", photo, "-o", tmp_path / "new" / "a.tto", *model)[0] == 0
    assert call("compress", photo, "-o", f"{tmp_path}/folder/", *model)[0] == 0
    assert call("decompress", tmp_path / "new" / "a.tto", "-o", tmp_path / "b.webp", *model)[0] == 0
    assert names(tmp_path) == {"photo.png", "new/a.tto", "folder/photo.tto", "b.webp"}
    assert Image.open(tmp_path / "b.webp").format == "WEBP"


def test_colliding_outputs_keep_their_suffixes(tmp_path, photo, tiny_checkpoint, call):
    Image.open(photo).save(tmp_path / "photo.jpg")
    assert call("compress", tmp_path, "-m", tiny_checkpoint)[0] == 0
    assert names(tmp_path) == {"photo.png", "photo.jpg", "photo.png.tto", "photo.jpg.tto"}


def test_a_tree_is_kept_and_what_is_there_is_skipped(tmp_path, photo, tiny_checkpoint, call):
    inner = tmp_path / "photos" / "in"
    inner.mkdir(parents=True)
    photo.rename(inner / "photo.png")
    arguments = ("compress", "-r", tmp_path / "photos", "-o", tmp_path / "small", "-m", tiny_checkpoint)
    assert call(*arguments)[0] == 0
    assert names(tmp_path / "small") == {"in/photo.tto"}
    written = (tmp_path / "small" / "in" / "photo.tto").stat().st_mtime_ns
    assert call(*arguments, "--skip-existing") == (0, [], ["tto: 1 of 1 exist and are skipped"])
    assert (tmp_path / "small" / "in" / "photo.tto").stat().st_mtime_ns == written


def test_input_is_never_overwritten(tmp_path, photo, call):
    before = photo.read_bytes()
    for output in (photo, tmp_path / "family.jpg"):
        code, _, err = call("compress", photo, "-o", output)
        assert code == 2 and len(err) == 1
    assert photo.read_bytes() == before


def test_pictures_go_through_pipes(photo, tiny_checkpoint, monkeypatch, capsysbinary):
    def pipe(data: bytes, *args) -> bytes:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))
        with pytest.raises(SystemExit) as ended:
            main([*args, "-", "-m", str(tiny_checkpoint)])
        assert ended.value.code == 0
        return capsysbinary.readouterr().out

    packed = pipe(photo.read_bytes(), "compress")
    assert b'"input": "-"' in pipe(packed, "verify", "--json")
    back = Image.open(io.BytesIO(pipe(packed, "decompress")))
    assert (back.format, back.size) == ("PNG", (40, 30))


@pytest.mark.parametrize("asked", [f"info {'photo.tto ' * 2000}", "decompress photo.tto -o - -m {model}"])
def test_a_closed_pipe_is_no_error_of_ours(tmp_path, photo, tiny_checkpoint, call, asked):
    assert call("compress", photo, "-m", tiny_checkpoint)[0] == 0
    command = f"{sys.executable} -m tto {asked.format(model=tiny_checkpoint)} | true; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, cwd=tmp_path, env=ENVIRONMENT)
    assert (done.returncode, done.stderr) == (141, "")


def test_no_overwrite_keeps_what_is_there(tmp_path, photo, tiny_checkpoint, call):
    (tmp_path / "photo.tto").write_bytes(b"precious")
    code, out, err = call("compress", photo, "-m", tiny_checkpoint, "--no-overwrite")
    assert (code, out, len(err)) == (2, [], 1)
    assert (tmp_path / "photo.tto").read_bytes() == b"precious"


# --- errors ----------------------------------------------------------------------------------------


def test_bad_inputs_are_reported_and_the_others_done(tmp_path, photo, tiny_checkpoint, call):
    (tmp_path / "text.png").write_text("no picture")
    (tmp_path / "cut.png").write_bytes(photo.read_bytes()[:-40])
    Image.new("CMYK", (4, 4)).save(tmp_path / "cmyk.jpg")
    Image.new("I;16", (4, 4)).save(tmp_path / "deep.png")
    bad = [tmp_path / name for name in ("text.png", "cut.png", "cmyk.jpg", "deep.png", "missing.png")]
    code, out, err = call("compress", *bad, photo, "-m", tiny_checkpoint, "--json")
    assert code == 2
    assert [json.loads(line)["input"] for line in out] == [str(photo)]
    assert len(err) == 5 and all(line.startswith("tto: ") for line in err)
    for path in bad:
        assert sum(str(path) in line for line in err) == 1
    assert {name for name in names(tmp_path) if name.endswith(".tto")} == {"photo.tto"}


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["compress", "{photo}", "-q", "9", "-m", "{model}"], "quality must be between 1 and 8"),
        (["compress", "{photo}", "-q", "0.5", "-m", "{model}"], "quality must be between 1 and 8"),
        (["compress", "{photo}", "-q", "nan", "-m", "{model}"], "quality must be"),
        (["compress", "{photo}", "-q", "good"], "-q"),
        (["compress", "{photo}", "--lambda", "-1", "-m", "{model}"], "lambda"),
        (["compress", "{photo}", "-m", "nothing"], "no model"),
        (["compress", "{photo}", "-m", "{photo}"], "no checkpoint"),
        (["compress", "{photo}", "-m", "{model}", "--device", "abacus"], "unknown device"),
        (["compress", "{photo}", "-m", "{model}", "-o", "/dev/null/x.tto"], "/dev/null"),
        (["compress", "{photo}", "{photo}x", "-m", "nothing", "--quiet"], "no model"),
        (["compress", "{photo}", "--effort", "slow"], "'slow' is not one of"),
        (["compress", "{photo}", "--metric", "vmaf"], "'vmaf' is not one of"),
        (["compress", "{photo}", "-m", "{model}", "--effort", "none", "--roi", "{photo}"], "effort none"),
        (["compress", "{photo}", "-m", "{model}", "--steps", "3", "--budget", "3"], "not both"),
        (["compress", "{photo}", "out.tto"], "did you mean -o out.tto"),
        (["compress"], "Missing argument"),
        (["compress", "{empty}"], "no files"),
        (["decompress", "{photo}"], "is an input"),
        (["decompress", "{photo}", "-o", "x.png"], "not a .tto file"),
        (["info", "{photo}"], "not a .tto file"),
        (["info", "missing.tto"], "missing.tto"),
        (["verify", "{photo}"], "not a .tto file"),
        (["models", "show", "nothing"], "no model"),
        (["models", "show", "mbt2018-mean", "-q", "99"], "quality must be between 1 and 8"),
        (["models", "convert", "{model}", "weights.pt"], "ends with .safetensors"),
        (["models", "convert", "{model}", "weights.safetensors", "--lambda", "0.5"], "says itself what it is"),
        (["models", "convert", "{model}", "{model}"], "the checkpoint itself"),
        (["nonsense"], "nonsense"),
        (["--nonsense"], "nonsense"),
    ],
)
def test_wrong_arguments_are_one_line_and_exit_code_2(
    tmp_path, photo, tiny_checkpoint, call, monkeypatch, args, message
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    places = {"photo": photo, "model": tiny_checkpoint, "empty": tmp_path / "empty"}
    code, out, err = call(*(arg.format(**places) for arg in args))
    assert (code, out, len(err)) == (2, [], 1)
    assert message in err[0]
    assert names(tmp_path) == {"photo.png"}


@pytest.mark.parametrize(
    "error", [MemoryError(), RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory")]
)
def test_want_of_memory_is_one_line_and_exit_code_2(tmp_path, photo, tiny_checkpoint, call, monkeypatch, error):
    assert call("compress", photo, "-m", tiny_checkpoint)[0] == 0

    def fail(*_):
        raise error

    monkeypatch.setattr("tto.metrics.ms_ssim", fail)
    code, out, err = call("verify", tmp_path / "photo.tto", "--against", photo, "-m", tiny_checkpoint)
    assert (code, out) == (2, []) and len(err) == 1 and err[0].endswith("photo.tto: out of memory")


def test_a_file_whose_name_is_a_word_of_the_message_is_named(tmp_path, call, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("a", "zz"):
        (tmp_path / name).write_text("junk")
    assert call("info", "a", "zz") == (2, [], ["tto: a: not a .tto file", "tto: zz: not a .tto file"])


def test_a_lambda_for_a_network_that_says_its_rates_is_refused(tmp_path, call):
    network = create_model("mbt2018-mean-vbr", N=16, M=16)
    torch.save(network.state_dict(), tmp_path / "vbr.pth")
    code, _, err = call("models", "convert", tmp_path / "vbr.pth", tmp_path / "a.safetensors", "--lambda", 0.5)
    assert code == 2 and len(err) == 1 and "says its rates itself" in err[0]
    assert names(tmp_path) == {"vbr.pth"}


def test_unwritable_format_is_refused_before_decoding(tmp_path, photo, tiny_checkpoint, call):
    assert call("compress", photo, "-m", tiny_checkpoint)[0] == 0
    for suffix in (".xyz", ".ico", ".gif"):  # nothing, another size, and 256 colours
        code, _, err = call("decompress", tmp_path / "photo.tto", "-o", tmp_path / f"photo{suffix}")
        assert code == 2 and f"written with the suffix '{suffix}'" in err[0]


def test_file_of_another_model_is_refused(tmp_path, photo, tiny_checkpoint, call):
    assert call("compress", photo, "-m", tiny_checkpoint)[0] == 0
    data = bytearray((tmp_path / "photo.tto").read_bytes())
    from dataclasses import replace

    from tto.container import read, write

    container = read(bytes(data))
    other = replace(container, header=replace(container.header, fingerprint=b"another!"))
    (tmp_path / "photo.tto").write_bytes(write(other))
    photo.unlink()
    for model in ((), ("-m", tiny_checkpoint)):
        code, out, err = call("decompress", tmp_path / "photo.tto", *model)
        assert (code, out, len(err)) == (2, [], 1) and b"another!".hex() in err[0]
    assert names(tmp_path) == {"photo.tto"}


def test_interruption_is_one_line_and_no_file(tmp_path, photo, tiny_checkpoint, call, monkeypatch):
    from tto.codec import Codec

    def interrupt(*args, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(Codec, "compress", interrupt)
    assert call("compress", photo, "-m", tiny_checkpoint) == (130, [], ["tto: interrupted: 0 of 1 written"])
    assert names(tmp_path) == {"photo.png"}


def test_interruption_while_starting_is_one_line(call, photo, monkeypatch):
    def interrupt(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr("tto.cli.compress.plan_jobs", interrupt)
    code, out, err = call("compress", photo, "--effort", "best")
    assert (code, out, [line for line in err if line]) == (130, [], ["tto: interrupted"])


# --- the other commands ----------------------------------------------------------------------------


def test_info_tells_what_the_header_holds(tmp_path, photo, tiny_checkpoint, call):
    assert call("compress", photo, "-q", "2.25", "-m", tiny_checkpoint)[0] == 0
    code, out, err = call("info", tmp_path / "photo.tto", "--json")
    record = json.loads(out[0])
    size = (tmp_path / "photo.tto").stat().st_size
    assert (code, err) == (0, [])
    assert (record["width"], record["height"], record["bytes"], record["quality"]) == (40, 30, size, 2.25)
    assert record["bpp"] == pytest.approx(8 * size / 1200)
    assert set(record["sections"]) == {"z", "y"}
    assert any("40x30, RGB" in line for line in call("info", tmp_path / "photo.tto")[1])


def test_verify_measures_against_the_original(tmp_path, photo, tiny_checkpoint, call):
    record = json.loads(call("compress", photo, "-m", tiny_checkpoint, "--json")[1][0])
    verify = ("verify", tmp_path / "photo.tto", "-m", tiny_checkpoint, "--against")
    code, out, _ = call(*verify, photo)
    assert code == 0
    assert f"ok, 40x30, RGB, {record['psnr']:.2f} dB" in out[0]
    Picture(gradient(5, 5)).to_pil().save(tmp_path / "other.png")
    code, _, err = call(*verify, tmp_path / "other.png")
    assert code == 2 and "differ in size" in err[0]


def test_one_rate_model_needs_no_quality(tmp_path, photo, tiny_sizes, call):
    from base_models import create_model, save_checkpoint

    model = create_model("dcae-small", **tiny_sizes, lambdas=(0.013,))
    model.update_tables()
    save_checkpoint(model.eval(), tmp_path / "one-rate.safetensors")
    assert call("compress", photo, "-m", tmp_path / "one-rate.safetensors")[0] == 0


def test_converted_checkpoint_is_the_same_model(tmp_path, tiny_checkpoint, call):
    copy = tmp_path / "new" / "copy.safetensors"
    code, out, err = call("models", "convert", tiny_checkpoint, copy)
    assert (code, err) == (0, [])
    shown = call("models", "show", tiny_checkpoint)[1]
    assert shown == call("models", "show", copy)[1]
    assert shown[0].split()[1] in out[0]


def test_version_and_help_are_printed(call):
    assert call("--version")[1] == call("-V")[1] == [f"tto {__version__}"]
    code, out, err = call()
    assert (code, err) == (0, []) and any("compress" in line for line in out)


@pytest.mark.parametrize("command", ["compress", "decompress", "info", "verify", "models", "bench", "train", "demo"])
def test_every_command_has_short_help_with_examples_and_exit_codes(call, command):
    code, out, err = call(command, "-h")
    assert (code, err) == (0, [])
    text = " ".join(out)
    assert f"tto {command}" in text and "Exit codes:" in text and "Examples:" in text


def test_commands_say_more_or_less_on_request(tmp_path, photo, tiny_checkpoint, call):
    api._load.cache_clear()
    code, out, err = call("compress", photo, "-m", tiny_checkpoint, "-v")
    assert (code, len(out)) == (0, 1) and any("loaded in" in line for line in err)
    assert call("compress", photo, "-m", tiny_checkpoint, "--quiet") == (0, [], [])
    assert call("-q", "compress", photo, "-m", tiny_checkpoint) == (0, [], [])
    assert call("--quiet", "info", tmp_path / "photo.tto", "--json")[1][0].startswith("{")


def test_loading_a_model_is_not_counted_as_decoding(tmp_path, photo, tiny_checkpoint, call, monkeypatch):
    assert call("compress", photo, "-m", tiny_checkpoint)[0] == 0
    clock = [0.0]
    load = api.codec_for

    def slow(*args):
        clock[0] += 100
        return load(*args)

    monkeypatch.setattr(api, "codec_for", slow)
    monkeypatch.setattr("tto.cli.decompress.time.perf_counter", lambda: clock[0])
    out = call("decompress", tmp_path / "photo.tto", "-o", tmp_path / "a.png", "-m", tiny_checkpoint, "--json")[1]
    assert json.loads(out[0])["seconds"] == 0 and clock[0] == 100


def test_threads_are_as_many_as_told(photo, tiny_checkpoint, call):
    before = torch.get_num_threads()
    try:
        assert call("compress", photo, "-m", tiny_checkpoint, "--threads", before + 1)[0] == 0
        assert torch.get_num_threads() == before + 1
    finally:
        torch.set_num_threads(before)


def test_completion_knows_commands_and_options(monkeypatch, call):
    monkeypatch.setenv("_TTO_COMPLETE", "complete_bash")
    for typed, expected in (("tto comp", "compress"), ("tto compress --eff", "--effort")):
        monkeypatch.setenv("COMP_WORDS", typed)
        monkeypatch.setenv("COMP_CWORD", str(len(typed.split()) - 1))
        assert expected in call()[1]


def test_an_original_is_found_whatever_the_case_of_its_suffix(tmp_path, photo, tiny_checkpoint, call):
    (tmp_path / "up").mkdir()
    photo.rename(tmp_path / "up" / "IMG_1.PNG")
    assert call("compress", tmp_path / "up" / "IMG_1.PNG", "-m", tiny_checkpoint, "-o", tmp_path / "a.tto")[0] == 0
    (tmp_path / "a.tto").rename(tmp_path / "IMG_1.tto")
    options = ("-m", tiny_checkpoint, "--against", tmp_path / "up", "--json")
    code, out, _ = call("verify", tmp_path / "IMG_1.tto", *options)
    assert code == 0 and json.loads(out[0])["against"] == str(tmp_path / "up" / "IMG_1.PNG")


def test_a_closed_stream_does_not_take_errors_elsewhere(tmp_path):
    command = [sys.executable, "-m", "tto", "info", "none.tto"]
    closed = subprocess.run(
        command, cwd=tmp_path, env=ENVIRONMENT, preexec_fn=lambda: os.close(2), stdout=subprocess.PIPE, check=False
    )
    assert (closed.returncode, closed.stdout) == (2, b"")


def test_a_name_that_cannot_be_printed_does_not_end_the_run(tmp_path, photo, tiny_checkpoint, call):
    assert call("compress", photo, "-m", tiny_checkpoint)[0] == 0
    name = os.fsdecode(b"caf\xe9.tto")
    (tmp_path / "photo.tto").rename(tmp_path / name)
    command = [sys.executable, "-m", "tto", "info", name]
    environment = ENVIRONMENT | {"PYTHONIOENCODING": "utf-8"}
    shown = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, check=False)
    assert shown.returncode == 0 and rb"caf\udce9.tto" in shown.stdout

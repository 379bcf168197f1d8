"""CompressAI's families by name: download, cache, codecs, and who made a file. The server is a local one."""

from __future__ import annotations

import hashlib
import io
import json
import socket
import time
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from compressai.zoo import image as compressai_zoo
from compressai.zoo import image_vbr

import tto
from tests.compressai_networks import small_network, variable_network
from tto import api, zoo
from tto.cli import main
from tto.container import read
from tto.errors import BadArgument, BadCheckpoint, NotInstalled, TargetMissed, WrongModel
from tto.files import cache_folder
from tto.metrics import ms_ssim
from tto.models import known_model
from tto.refine.state import Callbacks
from tto.zoo import FamilyCodec, fetch_weights, find_family, load_network

FAMILY = find_family("mbt2018-mean")


class Handler(BaseHTTPRequestHandler):
    """Serves `files` by name, `cut` bytes missing at the end, or `answer`, whatever is asked; after `delay` seconds."""

    files: dict[str, bytes] = {}
    cut = 0
    answer: bytes | None = None
    delay = 0.0
    asked: list[str] = []

    def do_GET(self):
        name = self.path.rpartition("/")[2]
        self.asked.append(name)
        time.sleep(self.delay)
        if self.answer is not None:
            self.wfile.write(self.answer)
            return
        data = self.files[name]
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data[: len(data) - self.cut])

    def log_message(self, *arguments):
        pass


def run(capsys, *arguments) -> str:
    with pytest.raises(SystemExit) as end:
        main([str(argument) for argument in arguments])
    assert not end.value.code
    return capsys.readouterr().out


@pytest.fixture
def server(monkeypatch, tmp_path):
    """Weights of qualities 2 and 3, named as the published ones, where CompressAI asks for them; empty caches."""
    from tests.checkpoint_layouts import of_2020

    httpd = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    Thread(target=httpd.serve_forever, args=(0.01,), daemon=True).start()
    urls = {}
    for quality in (2, 3):
        buffer = io.BytesIO()
        torch.save(of_2020(small_network(quality).state_dict()), buffer)
        name = f"mbt2018-mean-{quality}-{hashlib.sha256(buffer.getvalue()).hexdigest()[:8]}.pth.tar"
        Handler.files[name] = buffer.getvalue()
        urls[quality] = f"http://127.0.0.1:{httpd.server_port}/{name}"
    addresses = {
        quality: urls.get(quality, f"http://127.0.0.1:9/m-{quality}-00000000.pth.tar") for quality in range(1, 9)
    }
    monkeypatch.setitem(compressai_zoo.model_urls, "mbt2018-mean", {"mse": addresses, "ms-ssim": addresses})
    monkeypatch.setattr(Handler, "cut", 0)
    monkeypatch.setattr(Handler, "answer", None)
    monkeypatch.setattr(Handler, "delay", 0.0)
    monkeypatch.setattr(Handler, "asked", [])
    monkeypatch.delenv("TTO_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    api._load_family.cache_clear()
    yield httpd
    httpd.shutdown()
    httpd.server_close()


def test_a_network_is_downloaded_once_and_is_compressais(server, photograph):
    model = load_network(FAMILY, 2)
    assert model.registered_name == "mbt2018-mean" and model.config.trained_quality == 2
    x = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(model(x, 2.0)["x_hat"], small_network(2)(x)["x_hat"])
    load_network(FAMILY, 2)
    assert len(Handler.asked) == 1
    assert FAMILY.cached() == (2,)


NO_ANSWERS = {
    "no http": b"what?\r\n\r\n",
    "breaks off": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nff\r\na",
}


@pytest.mark.parametrize("fault", ["hash", "cut", "absent", *NO_ANSWERS])
def test_what_is_not_the_published_file_is_one_line_and_leaves_nothing(server, monkeypatch, fault):
    quality = 1 if fault == "absent" else 2
    if fault == "cut":
        monkeypatch.setattr(Handler, "cut", 100)
    monkeypatch.setattr(Handler, "answer", NO_ANSWERS.get(fault))
    if fault == "hash":
        name = FAMILY.weights(2).name
        monkeypatch.setitem(Handler.files, name, Handler.files[name][:-1] + b"x")
    with pytest.raises(NotInstalled) as error:
        fetch_weights(FAMILY, quality)
    message, path = str(error.value), FAMILY.weights(quality)
    assert FAMILY.url(quality) in message and f"put {path.name} into {path.parent}" in message and "\n" not in message
    assert list(path.parent.iterdir()) == []


def test_a_server_that_is_silent_is_given_up(server, monkeypatch):
    monkeypatch.setattr(zoo, "TIMEOUT", 0.2)
    monkeypatch.setattr(Handler, "delay", 1.5)
    before = socket.getdefaulttimeout()
    with pytest.raises(NotInstalled, match="timed out"):
        fetch_weights(FAMILY, 2)
    assert socket.getdefaulttimeout() == before


def test_weights_put_in_by_hand_are_compared_with_their_name_once(server, monkeypatch):
    path = FAMILY.weights(2)
    path.parent.mkdir(parents=True)
    path.write_bytes(Handler.files[FAMILY.weights(3).name])
    with pytest.raises(BadCheckpoint) as error:
        load_network(FAMILY, 2)
    assert str(path) in str(error.value) and "SHA-256" in str(error.value) and "\n" not in str(error.value)
    path.write_bytes(Handler.files[path.name])
    load_network(FAMILY, 2)
    monkeypatch.setattr(zoo, "_check_hash", lambda path: pytest.fail("compared again"))
    load_network(FAMILY, 2)


def test_qualities_between_are_served_by_the_nearest_network(server, photograph):
    codec = tto.load_codec("mbt2018-mean", "cpu")
    assert isinstance(codec, FamilyCodec) and codec.qualities == 8
    image = photograph(64, 64)
    lower, upper = (codec.compress(image, quality) for quality in (2.4, 2.5))
    assert read(lower.data).header.fingerprint == codec.trained(2).fingerprint
    assert read(upper.data).header.fingerprint == codec.trained(3).fingerprint
    assert codec.compress(image, 2.0).bytes < lower.bytes and upper.bytes < codec.compress(image, 3.0).bytes
    for result in (lower, upper):
        assert np.array_equal(np.asarray(codec.decompress(result.data)), np.asarray(result.image))
    with pytest.raises(BadArgument, match="between 1 and 8"):
        codec.compress(image, 9)


def missing(is_below):
    def miss(*arguments, **options):
        raise TargetMissed("the nearest has 0.4 bpp", is_below)

    return SimpleNamespace(compress=miss)


@dataclass(frozen=True)
class Found:
    """What a network's search gives."""

    network: int
    reached: float | None = 0.5
    seconds: float = 0.0
    data: bytes = b""


@pytest.fixture
def searched(monkeypatch):
    """A family whose networks of qualities 2 and 3 were loaded: the first finds a target at quality 3."""
    monkeypatch.setattr("tto.zoo.read", lambda data, max_pixels: SimpleNamespace(header=SimpleNamespace(quality=3.0)))
    family = FamilyCodec(FAMILY, "cpu")
    for quality in (2, 3):
        family._codecs[quality] = SimpleNamespace(
            compress=lambda *_, network=quality, target_bpp=None, **options: Found(network, target_bpp)
        )
    return family


def test_a_target_is_searched_for_again_from_the_nearer_network(searched):
    assert searched.compress("a.png", 2, target_bpp=0.5).network == 3
    assert searched.compress("a.png", 2, target_bpp=None).network == 2


def test_a_target_that_was_hit_is_kept_where_a_nearer_network_misses_it(searched):
    searched._codecs[3] = missing(True)
    assert searched.compress("a.png", 2, target_bpp=0.5).network == 2


@pytest.mark.parametrize(("is_below", "end"), [(True, 8), (False, 1)])
def test_a_target_beyond_a_network_is_searched_for_from_the_end_of_the_family(searched, is_below, end):
    searched._codecs[2] = searched._codecs[9 - end] = missing(is_below)
    asked = []
    searched._codecs[end] = SimpleNamespace(compress=lambda image, quality, **_: asked.append(quality) or Found(end))
    assert searched.compress("a.png", 2, target_bpp=0.5).network == 3  # which is nearest to what the end found
    assert asked == [end]
    searched._codecs[3] = missing(is_below)
    assert searched.compress("a.png", 2, target_bpp=0.5).network == end
    searched._codecs[end] = missing(is_below)
    with pytest.raises(TargetMissed):
        searched.compress("a.png", 2, target_bpp=0.5)


def test_whoever_stops_the_first_search_gets_no_second_one(searched):
    callbacks = Callbacks(should_stop=lambda: True)
    assert searched.compress("a.png", 2, target_bpp=0.5, callbacks=callbacks).network == 2


def test_whoever_stops_the_second_search_keeps_what_the_first_found(searched):
    stopped = iter([False, True])
    callbacks = Callbacks(should_stop=lambda: next(stopped))
    assert searched.compress("a.png", 2, target_bpp=0.5, callbacks=callbacks).network == 2


def test_seconds_are_those_of_both_searches(searched):
    for network in (2, 3):
        searched._codecs[network] = SimpleNamespace(
            compress=lambda *_, n=network, **options: time.sleep(0.1) or Found(n)
        )
    result = searched.compress("a.png", 2, target_bpp=0.5)
    assert result.network == 3 and result.seconds >= 0.2


def test_a_rate_is_met_by_the_network_that_is_nearest_to_it(server, photograph):
    """The search begins with one network and ends with another."""
    codec, image = tto.load_codec("mbt2018-mean", "cpu"), photograph(64, 64)
    wanted = codec.compress(image, 3.4, effort="none").bpp
    result = codec.compress(image, 2, target_bpp=wanted, effort="none")
    header = read(result.data).header
    assert header.quality >= 2.5 and header.fingerprint == codec.trained(3).fingerprint
    assert result.bpp == pytest.approx(wanted, rel=0.05)
    assert np.array_equal(np.asarray(codec.decompress(result.data)), np.asarray(result.image))


def test_networks_for_ms_ssim_are_judged_by_it_in_python_and_on_the_command_line(server, photograph, tmp_path, capsys):
    picture = photograph(161, 161)
    picture.save(tmp_path / "a.png")
    codec = tto.load_codec("mbt2018-mean-ms-ssim", "cpu")
    by_ms_ssim, by_mse = (codec.compress(picture, 2, effort="none", **asked) for asked in ({}, {"metric": "mse"}))
    assert by_ms_ssim.steps == 0 and by_ms_ssim.data == by_mse.data and by_ms_ssim.J != by_mse.J
    options = ("-m", "mbt2018-mean-ms-ssim", "-q", 2, "--device", "cpu", "--json")
    row = run(capsys, "compress", tmp_path / "a.png", *options)
    assert json.loads(row)["J"] == pytest.approx(by_ms_ssim.J)
    assert (by_ms_ssim.metric, by_mse.metric) == ("ms-ssim", "mse")
    measured = ms_ssim(np.asarray(picture), by_ms_ssim.array)
    assert json.loads(row)["ms_ssim"] == pytest.approx(measured)
    assert f"MS-SSIM {measured:.4f}" in run(capsys, "compress", tmp_path / "a.png", *options[:-1])
    assert "MS-SSIM" not in run(capsys, "compress", tmp_path / "a.png", *options[:-1], "--metric", "mse")
    codec.compress(photograph(64, 64), 2)  # MS-SSIM is of larger pictures only


def test_a_file_finds_the_network_that_made_it(server, photograph):
    result = tto.compress(photograph(64, 64), 3, model="mbt2018-mean", device="cpu")
    assert known_model(read(result.data).header.fingerprint) == "mbt2018-mean"
    for forget in (False, True):
        if forget:
            (cache_folder() / "networks.json").unlink()
        api._load_family.cache_clear()
        assert np.array_equal(np.asarray(tto.decompress(result.data, device="cpu")), np.asarray(result.image))
    FAMILY.weights(3).unlink()
    api._load_family.cache_clear()
    with pytest.raises(WrongModel, match="not here"):
        tto.decompress(result.data, device="cpu")


def decoded(data: bytes, *models: str) -> np.ndarray:
    """Its pixels, by a program that has just started."""
    api._load_family.cache_clear()
    return np.asarray(tto.decompress(data, models=models, device="cpu"))


def test_networks_that_are_here_are_tried_before_one_is_downloaded(server, photograph):
    """A search may leave a file of a quality that another network serves."""
    result = FamilyCodec(FAMILY, "cpu").trained(2).compress(photograph(64, 64), 5.0)
    FAMILY.weights(4).write_bytes(b"damaged")
    Handler.asked.clear()
    (cache_folder() / "networks.json").unlink()
    assert np.array_equal(np.asarray(FamilyCodec(FAMILY, "cpu").decompress(result.data)), result.array)
    assert Handler.asked == []
    FAMILY.weights(2).unlink()
    assert np.array_equal(decoded(result.data, "mbt2018-mean"), result.array)  # it is known which to download
    assert Handler.asked == [FAMILY.weights(2).name]


def test_a_file_of_another_family_that_is_here_needs_no_download(server, monkeypatch, photograph):
    nowhere = {quality: f"http://127.0.0.1:9/n-{quality}-00000000.pth.tar" for quality in range(1, 9)}
    monkeypatch.setitem(compressai_zoo.model_urls, "mbt2018", {"mse": nowhere, "ms-ssim": nowhere})
    result = tto.compress(photograph(64, 64), 3, model="mbt2018-mean", device="cpu")
    assert np.array_equal(decoded(result.data, "mbt2018"), result.array)


def test_a_network_is_found_where_the_cache_cannot_be_written(server, monkeypatch, photograph, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    result = tto.compress(photograph(64, 64), 3, model="mbt2018-mean", device="cpu")
    assert np.array_equal(decoded(result.data), result.array)


def test_a_network_is_found_by_a_version_that_takes_other_fingerprints(server, photograph):
    result = tto.compress(photograph(64, 64), 3, model="mbt2018-mean", device="cpu")
    networks = {"0102030405060708": ["mbt2018-mean", 3], "0908070605040302": ["mbt2018-mean-ms-ssim", 3]}
    stale = {"version": "0.0.9", "networks": networks}
    for content in (stale, networks):
        (cache_folder() / "networks.json").write_text(json.dumps(content))
        assert np.array_equal(decoded(result.data), result.array)
    assert known_model(bytes(range(1, 9))) is None


def test_a_file_whose_network_is_not_here_says_how_to_get_it(server, photograph):
    result = tto.compress(photograph(64, 64), 3, model="mbt2018-mean", device="cpu")
    FAMILY.weights(3).unlink()
    with pytest.raises(WrongModel, match=r"it is mbt2018-mean, which -m mbt2018-mean \(models=.* downloads$"):
        decoded(result.data)
    (cache_folder() / "networks.json").unlink()
    with pytest.raises(WrongModel, match=r"'tto models list'\), -m NAME downloads it$"):
        decoded(result.data)
    assert np.array_equal(decoded(result.data, "mbt2018-mean"), result.array)


def test_a_folder_named_like_a_model_changes_nothing(server, photograph, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mbt2018-mean").mkdir()
    photograph(64, 64).save("a.png")
    options = ("-m", "mbt2018-mean", "--device", "cpu")
    run(capsys, "compress", "a.png", "-q", 2, *options)
    run(capsys, "decompress", "a.tto", "-o", "b.png", *options)
    assert "ok, 64x64" in run(capsys, "verify", "a.tto", *options)


VARIABLE = find_family("mbt2018-mean-vbr")


def test_one_network_of_variable_rate_serves_all_qualities(server, monkeypatch, photograph):
    buffer = io.BytesIO()
    torch.save(variable_network().state_dict(), buffer)
    name = f"mbt2018-mean-vbr-{hashlib.sha256(buffer.getvalue()).hexdigest()[:8]}.pth.tar"
    Handler.files[name] = buffer.getvalue()
    monkeypatch.setitem(
        image_vbr.model_urls, "mbt2018-mean-vbr", {"mse": f"http://127.0.0.1:{server.server_port}/{name}"}
    )
    image, codec = photograph(64, 64), tto.load_codec("mbt2018-mean-vbr", "cpu")
    results = [codec.compress(image, quality) for quality in (2, 4.5, 8)]
    assert results[0].bytes < results[1].bytes < results[2].bytes
    assert len({read(result.data).header.fingerprint for result in results}) == 1 and Handler.asked == [name]
    assert VARIABLE.cached() == tuple(range(1, 9)) and find_family("mbt2018-mean-vbr-ms-ssim") is None
    (cache_folder() / "networks.json").unlink()
    api._load_family.cache_clear()
    for result in results:
        assert np.array_equal(np.asarray(tto.decompress(result.data, device="cpu")), np.asarray(result.image))
    assert known_model(read(results[0].data).header.fingerprint) == "mbt2018-mean-vbr"


def test_unknown_names_get_the_nearest_ones():
    with pytest.raises(BadArgument, match="did you mean mbt2018-mean"):
        tto.load_codec("mbt2018-meen")
    with pytest.raises(BadArgument, match="there are dcae-small, .*cheng2020-attn"):
        tto.load_codec("nothing-like-it")
    with pytest.raises(BadArgument, match="elic is a network without weights here: give a checkpoint's path"):
        tto.load_codec("elic")


def test_the_list_says_what_is_here(server, capsys):
    fetch_weights(FAMILY, 3)
    lines = run(capsys, "models", "list").splitlines()
    assert any(line.startswith("dcae-small") for line in lines)
    (line,) = [line for line in lines if line.startswith("mbt2018-mean ")]
    assert "qualities 1 to 8; here are 3" in line
    assert ", elic, " in lines[-1] and "tcm-n128" in lines[-1] and "mbt2018" not in lines[-1]


def test_info_names_a_network_that_was_loaded_here(server, photograph, tmp_path, capsys):
    result = tto.compress(photograph(64, 64), 3, model="mbt2018-mean", device="cpu")
    (tmp_path / "a.tto").write_bytes(result.data)
    with pytest.raises(SystemExit):
        main(["info", str(tmp_path / "a.tto")])
    assert f"{read(result.data).header.fingerprint.hex()} (mbt2018-mean)" in capsys.readouterr().out

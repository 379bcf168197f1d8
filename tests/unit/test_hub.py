"""Shared weights against a server on this machine that speaks what `huggingface_hub` asks for."""

from __future__ import annotations

import base64
import hashlib
import http.server
import json
import re
import threading

import huggingface_hub.constants
import pytest
from PIL import Image

import tto
from base_models import fingerprint, load_checkpoint
from tto import hub
from tto.bench.rows import Row, write_csv
from tto.cli import main
from tto.errors import BadArgument, HubError, NotInstalled, WrongModel
from tto.hub import Address, model_card, parse_address, pull, pulled_models, push, where_to_look
from tto.models import checkpoint_path, known_model

FILE = re.compile(r"/([\w.-]+/[\w.-]+)/resolve/([\w.-]+)/(.+)")


class Handler(http.server.BaseHTTPRequestHandler):
    """Repositories as {repo: [{path: content} of each commit]}; revisions are `main`, or a commit's name."""

    repositories: dict[str, list[dict[str, bytes]]] = {}
    asked: list[str] = []

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        Handler.asked.append(f"{self.command} {self.path}")
        match = FILE.fullmatch(self.path)
        commits = Handler.repositories.get(match[1]) if match else None
        if not commits:
            return self.refuse(404, "RepoNotFound")
        names = [commit_name(number) for number in range(len(commits))]
        number = names.index(match[2]) if match[2] in names else len(commits) - 1 if match[2] == "main" else None
        if number is None:
            return self.refuse(404, "RevisionNotFound")
        content = commits[number].get(match[3])
        if content is None:
            return self.refuse(404, "EntryNotFound", names[number])
        etag = {"ETag": f'"{hashlib.sha1(content).hexdigest()}"', "X-Repo-Commit": names[number]}
        self.answer(200, content, etag)

    def do_POST(self):
        Handler.asked.append(f"POST {self.path}")
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.headers.get("Authorization") != "Bearer secret":
            return self.refuse(401, "Unauthorized")
        if self.path == "/api/repos/create":
            request = json.loads(body)
            repo = f"{request['organization']}/{request['name']}"
            Handler.repositories.setdefault(repo, [])
            return self.answer(200, json.dumps({"url": f"http://{self.headers['Host']}/{repo}", "name": repo}).encode())
        if "/preupload/" in self.path:
            files = [{**file, "uploadMode": "regular", "shouldIgnore": False} for file in json.loads(body)["files"]]
            return self.answer(200, json.dumps({"files": files}).encode())
        if "/commit/" in self.path:
            lines = [json.loads(line) for line in body.splitlines()]
            files = {line["value"]["path"]: line["value"]["content"] for line in lines if line["key"] == "file"}
            repo = self.path.split("/api/models/")[1].split("/commit/")[0]
            Handler.repositories[repo].append({name: base64.b64decode(text) for name, text in files.items()})
            name = commit_name(len(Handler.repositories[repo]) - 1)
            url = f"http://{self.headers['Host']}/{repo}/commit/{name}"
            return self.answer(200, json.dumps({"commitOid": name, "commitUrl": url, "success": True}).encode())
        return self.answer(200, b"{}")  # validation of the card

    def refuse(self, status: int, code: str, commit: str = "") -> None:
        self.answer(status, b"{}", {"X-Error-Code": code, "X-Error-Message": f"{code} here", "X-Repo-Commit": commit})

    def answer(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in ({"Content-Type": "application/json"} | (headers or {})).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *message):
        pass


def commit_name(number: int) -> str:
    return f"{number:040x}"


@pytest.fixture
def server(monkeypatch, tmp_path):
    """A hub with nothing in it, and an empty cache."""
    monkeypatch.setattr(Handler, "repositories", {})
    monkeypatch.setattr(Handler, "asked", [])
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        threading.Thread(target=running.serve_forever, args=(0.01,), daemon=True).start()
        use(monkeypatch, f"http://127.0.0.1:{running.server_port}", tmp_path)
        yield Handler
        running.shutdown()


def use(monkeypatch, endpoint: str, tmp_path) -> None:
    template = endpoint + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", endpoint)
    monkeypatch.setattr(huggingface_hub.constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setenv("HF_TOKEN", "secret")


@pytest.fixture
def shared(server, tiny_checkpoint):
    """somebody/tiny holds the tiny model."""
    push(tiny_checkpoint, load_checkpoint(tiny_checkpoint), Address("somebody/tiny"), "| a | table |")
    return tiny_checkpoint


@pytest.fixture
def offline(monkeypatch, tmp_path):
    """A function after which nobody answers, however often one asks."""

    def cut() -> None:
        use(monkeypatch, "http://127.0.0.1:9", tmp_path)
        monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda seconds: None)

    return cut


def test_what_is_pushed_is_weights_and_a_card_that_says_what_they_are(shared, server):
    (files,) = server.repositories["somebody/tiny"]
    made = fingerprint(load_checkpoint(shared)).hex()
    assert set(files) == {"model.safetensors", "README.md"}
    assert files["model.safetensors"] == shared.read_bytes()
    card = files["README.md"].decode()
    assert f"\n- tto-{made}\n" in card and "library_name: tto" in card
    assert "tto models pull somebody/tiny" in card and "| a | table |" in card


def test_what_was_pulled_is_used_without_asking_again(shared, server, offline):
    path = pull(Address("somebody/tiny"))
    assert path.read_bytes() == shared.read_bytes()
    offline()
    assert checkpoint_path("hf://somebody/tiny") == path
    codec = tto.Codec.from_pretrained("somebody/tiny", "cpu")
    assert codec.fingerprint == fingerprint(load_checkpoint(shared))


def test_an_address_pulls_by_itself_the_first_time(shared, server):
    assert checkpoint_path("hf://somebody/tiny").read_bytes() == shared.read_bytes()
    asked = len(server.asked)
    assert checkpoint_path("hf://somebody/tiny").is_file()
    assert len(server.asked) == asked


def test_a_revision_stays_and_pull_brings_what_is_new(shared, server):
    first = pull(Address("somebody/tiny", commit_name(0)))
    server.repositories["somebody/tiny"].append({"model.safetensors": b"newer", "README.md": b"newer"})
    assert pull(Address("somebody/tiny")).read_bytes() == b"newer"
    assert checkpoint_path("hf://somebody/tiny").read_bytes() == b"newer"
    assert checkpoint_path(f"hf://somebody/tiny@{commit_name(0)}") == first
    assert first.read_bytes() == shared.read_bytes()


def test_pickles_are_not_asked_for(server):
    server.repositories["somebody/old"] = [{"README.md": b"# old", "pytorch_model.bin": b"cos\nsystem\n"}]
    with pytest.raises(HubError, match="Pickled checkpoints are not loaded from a hub: .* 'tto models convert'"):
        pull(Address("somebody/old"))
    assert not any("pytorch_model" in request for request in server.asked)


def test_only_ttos_own_files_are_pushed(server, tmp_path, tiny_checkpoint):
    with pytest.raises(BadArgument, match="convert it"):
        push(tmp_path / "x.pth.tar", load_checkpoint(tiny_checkpoint), Address("somebody/tiny"))
    assert server.asked == []


@pytest.mark.parametrize(
    "address, message",
    [
        (Address("nobody/nothing"), "cannot pull hf://nobody/nothing: 404 RepoNotFound here"),
        (Address("somebody/tiny", "v9"), "cannot pull hf://somebody/tiny@v9: 404 RevisionNotFound here"),
    ],
)
def test_what_is_not_there_is_one_line(shared, address, message):
    with pytest.raises(HubError) as refused:
        pull(address)
    assert str(refused.value) == message


def test_never_pulled_and_no_network_is_one_line(server, offline, capfd):
    offline()
    with pytest.raises(HubError, match="^hf://somebody/tiny is not here, and the hub cannot be reached$"):
        checkpoint_path("hf://somebody/tiny")
    assert capfd.readouterr().err == ""


def test_without_a_token_nothing_is_pushed(server, tiny_checkpoint, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "wrong")
    with pytest.raises(HubError, match="^cannot push to hf://somebody/tiny: 401"):
        push(tiny_checkpoint, load_checkpoint(tiny_checkpoint), Address("somebody/tiny"))


def test_a_hub_that_cannot_be_reached_is_one_line_when_pushing(server, offline, tiny_checkpoint):
    offline()
    with pytest.raises(HubError, match="^cannot push to hf://somebody/tiny: .*refused"):
        push(tiny_checkpoint, load_checkpoint(tiny_checkpoint), Address("somebody/tiny"))


def test_a_file_finds_the_pulled_model_that_made_it_and_says_where_to_look_before(shared, server):
    codec = tto.load_codec(str(shared), "cpu")
    data = codec.compress(Image.new("RGB", (40, 30), "teal"), codec.default_quality).data
    with pytest.raises(
        WrongModel, match=f"models\\?other=tto-{codec.fingerprint.hex()} .*'tto models pull OWNER/NAME'"
    ):
        tto.decompress(data, device="cpu")
    assert known_model(codec.fingerprint) is None
    pull(Address("somebody/tiny"))
    assert pulled_models() == {codec.fingerprint.hex(): f"hf://somebody/tiny@{commit_name(0)}"}
    assert tto.decompress(data, device="cpu").size == (40, 30)


def test_addresses():
    assert parse_address("hf://a-b/c.d_e@refs/pr/1") == Address("a-b/c.d_e", "refs/pr/1")
    assert parse_address("a/b") == Address("a/b") and str(Address("a/b", "v1")) == "hf://a/b@v1"
    for text in ("b", "hf://a", "a/b/c", "a/b@", "../x y"):
        with pytest.raises(BadArgument, match="is no address"):
            parse_address(text)


def test_a_hub_of_ones_own_is_where_to_look(monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "https://hub.example/")
    assert "https://hub.example/models?other=tto-0102030405060708" in where_to_look(bytes(range(1, 9)))


def test_a_card_without_figures_says_so(tiny_checkpoint):
    assert "None were given" in model_card(load_checkpoint(tiny_checkpoint), Address("a/b"))


def test_without_the_package_it_is_named(monkeypatch):
    monkeypatch.setattr("tto.packages.find_spec", lambda name: None)
    with pytest.raises(NotInstalled, match=r"huggingface_hub: pip install 'tto\[hub\]'"):
        hub.weights_path(Address("a/b"))


def test_the_list_of_shipped_fingerprints_is_right():
    from tto.models import listed_models, shipped_models

    assert tuple(listed_models()) == shipped_models()
    for name, listed in listed_models().items():
        model = load_checkpoint(checkpoint_path(name))
        assert known_model(fingerprint(model)) == name
        assert (listed.stride, listed.y_stride) == (model.stride, model.y_stride)


def tto_command(*arguments: object) -> int:
    with pytest.raises(SystemExit) as stopped:
        main([str(argument) for argument in arguments])
    return stopped.value.code


def test_the_command_pushes_with_figures_pulls_and_lists(server, tiny_checkpoint, tmp_path, capsys):
    row = dict(dataset="kodak", image="a.png", content="0", width=8, height=8, codec="tiny", effort="none", quality=2.0)
    made = fingerprint(load_checkpoint(tiny_checkpoint)).hex()
    row |= dict(
        settings="",
        version=f"tto 1, weights {made}",
        jobs=1,
        threads=1,
        file="",
        bytes=8,
        bpp=1.0,
        J=2.0,
        base_bytes=8.0,
    )
    row |= dict(base_psnr=30.0, base_J=2.0, steps=0, encode_seconds=1.0, decode_seconds=1.0, peak_memory_mb=9.0)
    write_csv(tmp_path / "results.csv", [Row(**row, parameters=7, scores={"psnr": 31.25})])
    assert tto_command("models", "push", tiny_checkpoint, "somebody/tiny", "--figures", tmp_path) == 0
    card = server.repositories["somebody/tiny"][0]["README.md"].decode()
    assert "kodak, 1 images" in card and "| tiny (none) |       2 | 1.0000 |   31.25 |" in card
    assert tto_command("models", "pull", "somebody/tiny") == 0
    assert f"fingerprint {made}; use it with -m hf://somebody/tiny\n" in capsys.readouterr().out
    assert tto_command("models") == 0
    assert f"hf://somebody/tiny@{commit_name(0)}  1." in capsys.readouterr().out
    older = Row(**row | {"version": "tto 1, weights 0011"}, parameters=7, scores={"psnr": 31.25})
    write_csv(tmp_path / "results.csv", [older])
    assert tto_command("models", "push", tiny_checkpoint, "somebody/tiny", "--figures", tmp_path) == 2
    assert f"with these weights ({made})" in capsys.readouterr().err and len(server.repositories["somebody/tiny"]) == 1


def test_figures_of_another_model_are_refused(server, tiny_checkpoint, tmp_path, capsys):
    write_csv(tmp_path / "results.csv", [])
    assert tto_command("models", "push", tiny_checkpoint, "somebody/tiny", "--figures", tmp_path) == 2
    assert "has no figures of" in capsys.readouterr().err and server.asked == []


def test_info_names_the_model_or_says_where_to_look(shared, server, tmp_path, capsys):
    codec = tto.load_codec(str(shared), "cpu")
    path = tmp_path / "a.tto"
    path.write_bytes(codec.compress(Image.new("RGB", (40, 30), "teal"), 1.0).data)
    assert tto_command("info", path) == 0
    assert "(not here; give its weights with -m FILE (models=[FILE]), or look for" in capsys.readouterr().out
    pull(Address("somebody/tiny"))
    assert tto_command("info", path) == 0
    assert f"{codec.fingerprint.hex()} (hf://somebody/tiny@{commit_name(0)})" in capsys.readouterr().out

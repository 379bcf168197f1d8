from __future__ import annotations

import hashlib
import http.server
import io
import json
import threading
import zipfile
import zlib
from importlib import resources
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tto.bench import datasets, download
from tto.bench.datasets import Dataset, dataset_names, load_dataset, open_dataset
from tto.bench.download import DownloadFailed, RemoteSet, fetch, file_digest
from tto.bench.measure import sources
from tto.bench.published import published_curves
from tto.errors import BadArgument

CONTENT = np.random.default_rng(0).bytes(100_000)
DIGEST = hashlib.sha256(CONTENT).hexdigest()


class Handler(http.server.BaseHTTPRequestHandler):
    """/file resumes and breaks off when told to; /plain knows no ranges; everything else is missing."""

    break_after: int | None = None
    ranges: list[str | None] = []

    def do_GET(self):
        wanted = self.headers["Range"]
        Handler.ranges.append(wanted)
        if self.path not in ("/file", "/plain"):
            return self.send_error(404)
        start = int(wanted.removeprefix("bytes=").rstrip("-")) if self.path == "/file" else 0
        if start >= len(CONTENT):
            return self.send_error(416)
        body = CONTENT[start:]
        self.send_response(206 if self.path == "/file" else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: Handler.break_after])
        self.close_connection = True

    def log_message(self, *message):
        pass


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(Handler, "break_after", None)
    monkeypatch.setattr(Handler, "ranges", [])
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        threading.Thread(target=running.serve_forever, args=(0.01,), daemon=True).start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()


def test_a_download_is_checked_and_happens_once(server, tmp_path):
    fetch(f"{server}/file", tmp_path / "new" / "file", DIGEST)
    fetch(f"{server}/file", tmp_path / "new" / "file", DIGEST)
    assert (tmp_path / "new" / "file").read_bytes() == CONTENT
    assert len(Handler.ranges) == 1


def test_a_download_that_broke_off_goes_on_from_there(server, tmp_path):
    Handler.break_after = 40_000
    with pytest.raises(DownloadFailed, match="broke off|IncompleteRead"):
        fetch(f"{server}/file", tmp_path / "file", DIGEST)
    assert not (tmp_path / "file").exists()
    Handler.break_after = None
    fetch(f"{server}/file", tmp_path / "file", DIGEST)
    assert Handler.ranges == ["bytes=0-", "bytes=40000-"]
    assert file_digest(tmp_path / "file") == DIGEST


def test_a_complete_part_is_not_fetched_again(server, tmp_path):
    (tmp_path / "file.part").write_bytes(CONTENT)
    fetch(f"{server}/file", tmp_path / "file", DIGEST)
    assert (tmp_path / "file").read_bytes() == CONTENT


def test_a_server_that_cannot_resume_sends_everything(server, tmp_path):
    (tmp_path / "file.part").write_bytes(b"old")
    fetch(f"{server}/plain", tmp_path / "file", DIGEST)
    assert (tmp_path / "file").read_bytes() == CONTENT


def test_the_wrong_file_is_refused_and_removed(server, tmp_path):
    with pytest.raises(DownloadFailed, match="not the expected file"):
        fetch(f"{server}/file", tmp_path / "file", "0" * 64)
    assert list(tmp_path.iterdir()) == []


def test_a_missing_file_is_one_line(server, tmp_path):
    with pytest.raises(DownloadFailed, match="cannot download .*: .*Not Found"):
        fetch(f"{server}/nowhere", tmp_path / "file", None)


def test_offline_names_the_folder_to_fill(tmp_path, monkeypatch):
    monkeypatch.setenv("TTO_CACHE", str(tmp_path))

    def unreachable(url, path, digest):
        raise DownloadFailed(f"cannot download {url}: no route to host")

    monkeypatch.setattr(download, "fetch", unreachable)
    for name in dataset_names():
        with pytest.raises(DownloadFailed) as caught:
            open_dataset(name)
        assert str(tmp_path / name) in str(caught.value)
        assert f"the {load_dataset(name).remote.images} images of" in str(caught.value)


def test_a_filled_cache_needs_no_network(tmp_path, monkeypatch):
    monkeypatch.setenv("TTO_CACHE", str(tmp_path))
    folder = tmp_path / "tecnick"
    folder.mkdir()
    for number in range(100):
        (folder / f"{number:03d}.png").write_bytes(b"")
    images = open_dataset("Tecnick")
    assert (images.name, len(images.paths), images.complete) == ("tecnick", 100, True)


def test_an_archive_gives_its_images_and_goes(tmp_path, monkeypatch):
    picture = io.BytesIO()
    Image.new("RGB", (3, 2)).save(picture, "PNG")
    members = ["wanted/a.png", "wanted/../../b.png", "other/c.png", "wanted/readme.txt", "wanted/._a.png"]

    def pretend(url, path, digest):
        with zipfile.ZipFile(path, "w") as archive:
            for member in members:
                archive.writestr(member, picture.getvalue())

    monkeypatch.setenv("TTO_CACHE", str(tmp_path))
    monkeypatch.setattr(download, "fetch", pretend)
    remote = RemoteSet(("https://x/",), {"tiny.zip": None}, 2, "wanted/")
    tiny = Dataset("kodak", "Tiny", "https://x", "none", remote, {})
    monkeypatch.setattr(datasets, "load_dataset", lambda name: tiny)
    images = open_dataset("kodak")
    assert [path.relative_to(tmp_path) for path in images.paths] == [Path("kodak/a.png"), Path("kodak/b.png")]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["kodak"]  # nothing outside
    assert sorted(path.name for path in (tmp_path / "kodak").iterdir()) == ["a.png", "b.png"]  # no archive


def test_a_broken_archive_is_fetched_anew_next_time(tmp_path, monkeypatch):
    monkeypatch.setenv("TTO_CACHE", str(tmp_path))
    monkeypatch.setattr(download, "fetch", lambda url, path, digest: path.write_bytes(b"no archive"))
    with pytest.raises(DownloadFailed, match="cannot unpack"):
        open_dataset("tecnick")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "error, raised, is_kept",
    [
        (zipfile.BadZipFile("bad CRC-32"), DownloadFailed, False),
        (zlib.error("invalid block type"), DownloadFailed, False),
        (EOFError(), DownloadFailed, False),
        (OSError("No space left on device"), DownloadFailed, True),
        (KeyboardInterrupt(), KeyboardInterrupt, True),
    ],
)
def test_an_archive_is_kept_unless_it_is_damaged(tmp_path, monkeypatch, error, raised, is_kept):
    def read(archive, member):
        raise error

    archive = tmp_path / "images.zip"
    with zipfile.ZipFile(archive, "w") as content:
        content.writestr("a.png", b"pixels")
    monkeypatch.setattr(zipfile.ZipFile, "read", read)
    with pytest.raises(raised):
        download.unpack(archive, tmp_path, "", (".png",))
    assert archive.exists() == is_kept


def test_a_folder_is_a_data_set(pictures):
    (pictures / ".a.png").write_bytes(b"of another system")
    (pictures / "folder.png").mkdir()
    images = open_dataset(str(pictures))
    assert (images.name, images.complete) == ("pictures", False)
    assert [source.path.name for source in sources(images, limit=2)] == ["a.png", "b.png"]


def test_neither_folder_nor_name_nor_images(tmp_path):
    with pytest.raises(BadArgument, match="neither a folder nor a data set"):
        open_dataset("kodac")
    with pytest.raises(BadArgument, match="no images"):
        open_dataset(str(tmp_path))


def test_kodak_is_recognised_by_its_files(tmp_path, monkeypatch):
    for number in range(24):
        (tmp_path / f"{number}.png").write_bytes(b"%d" % number)
    known = sorted(load_dataset("kodak").image_digests)
    assert len(known) == 24
    digests = {path: digest for path, digest in zip(sorted(tmp_path.iterdir()), known, strict=True)}
    assert open_dataset(str(tmp_path)).complete is False
    monkeypatch.setattr(datasets, "file_digest", digests.__getitem__)
    images = open_dataset(str(tmp_path))
    assert (images.name, images.complete) == ("kodak", True)
    assert "24 images" in images.about and "unrestricted use" in images.about


def test_other_images_in_the_place_of_a_named_set_are_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("TTO_CACHE", str(tmp_path))
    (tmp_path / "kodak").mkdir()
    for number in range(24):
        (tmp_path / "kodak" / f"kodim{number + 1:02d}.png").write_bytes(b"something else")
    with pytest.raises(BadArgument, match="holds other images than those of Kodak"):
        open_dataset("kodak")


@pytest.mark.parametrize("name", dataset_names())
def test_an_entry_says_licence_and_checksum_and_has_curves(name):
    dataset = load_dataset(name)
    assert dataset.licence in dataset.about() and f"{dataset.remote.images} images" in dataset.about()
    assert "SHA-256 of every download is checked" in dataset.about() or name == "tecnick"
    assert all(digest is None or len(bytes.fromhex(digest)) == 32 for digest in dataset.remote.files.values())
    assert any(curve.codec == "vtm-9.1" for curve in published_curves(name))


def test_a_further_set_is_one_file(tmp_path, monkeypatch):
    entry = json.loads((resources.files("tto.bench") / "data" / "tecnick.json").read_text())
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "holiday.json").write_text(json.dumps(entry | {"title": "Holiday", "images": 3}))
    monkeypatch.setattr(datasets.resources, "files", lambda package: tmp_path)
    assert dataset_names() == ("holiday",)
    assert load_dataset("holiday").remote.images == 3
    assert [curve.codec for curve in published_curves("holiday")][0] == "vtm-9.1"


@pytest.mark.parametrize("name", ["\x1b[31mred", "a\tb"])
def test_a_folders_name_is_printable(tmp_path, name):
    (tmp_path / name).mkdir()
    Image.new("RGB", (3, 2)).save(tmp_path / name / "a.png")
    assert open_dataset(str(tmp_path / name)).title.isprintable()

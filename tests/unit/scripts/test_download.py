"""The download script against a server on this machine."""

from __future__ import annotations

import hashlib
import http.server
import io
import threading
import zipfile

import pytest
from PIL import Image

from tto.bench.download import DownloadFailed, RemoteSet
from tto.errors import FileError
from tto.files import locked_folder


def png(level: int) -> bytes:
    stream = io.BytesIO()
    Image.new("L", (9, 7), level).save(stream, "png")
    return stream.getvalue()


def archive() -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as content:
        content.writestr("set/0001.png", png(1))
        content.writestr("set/0002.PNG", png(2))
        content.writestr("../../0003.png", png(3))
        content.writestr("__MACOSX/._0001.png", b"x")
        content.writestr("set/readme.txt", b"x")
    return stream.getvalue()


FILES = {"/good/a.png": png(7), "/good/set.zip": archive(), "/wrong/a.png": b"something else"}


@pytest.fixture
def server():
    """Base address of a server that knows ranges, and the list of what it was asked for."""
    asked: list[tuple[str, str]] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append((self.path, self.headers["Range"]))
            if self.path not in FILES:
                return self.send_error(404)
            body = FILES[self.path][int(self.headers["Range"].removeprefix("bytes=").rstrip("-")) :]
            self.send_response(206)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *message):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        threading.Thread(target=running.serve_forever, args=(0.01,), daemon=True).start()
        yield f"http://127.0.0.1:{running.server_port}", asked
        running.shutdown()


def image_set(server: str, name: str, mirrors: tuple[str, ...], images: int):
    digest = hashlib.sha256(FILES[f"/good/{name}"]).hexdigest()
    return RemoteSet(tuple(f"{server}/{mirror}" for mirror in mirrors), {name: digest}, images)


def test_mirrors_are_tried_until_the_right_file_comes(script, server, tmp_path):
    address, asked = server
    folder = script.download("try", image_set(address, "a.png", ("absent", "wrong/", "good/"), 1), tmp_path)
    assert [path for path, _ in asked] == ["/absent/a.png", "/wrong/a.png", "/good/a.png"]
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == {"a.png": FILES["/good/a.png"]}


def test_what_is_there_is_not_downloaded_again(script, server, tmp_path):
    address, asked = server
    for _ in range(2):
        script.download("try", image_set(address, "a.png", ("good",), 1), tmp_path)
    assert len(asked) == 1


def test_a_download_that_broke_off_goes_on_where_it_stopped(script, server, tmp_path):
    address, asked = server
    (tmp_path / "try").mkdir()
    (tmp_path / "try" / "a.png.part").write_bytes(FILES["/good/a.png"][:20])
    script.download("try", image_set(address, "a.png", ("good",), 1), tmp_path)
    assert asked == [("/good/a.png", "bytes=20-")]


def test_archive_is_unpacked_flat_and_only_its_images(script, server, tmp_path):
    address, _ = server
    folder = script.download("try", image_set(address, "set.zip", ("good",), 3), tmp_path / "data")
    assert sorted(path.name for path in folder.iterdir()) == ["0001.png", "0002.PNG", "0003.png"]
    assert list(tmp_path.iterdir()) == [tmp_path / "data"]


def test_failure_names_every_mirror_and_leaves_no_file(script, server, tmp_path):
    address, _ = server
    with pytest.raises(DownloadFailed, match="absent/a.png.*wrong/a.png is not the expected file"):
        script.download("try", image_set(address, "a.png", ("absent", "wrong"), 1), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_set_that_another_run_fetches_is_left_alone(script, server, tmp_path):
    address, asked = server
    with locked_folder(tmp_path / "try", ""), pytest.raises(FileError, match="in use by another run; wait for its end"):
        script.download("try", image_set(address, "a.png", ("good",), 1), tmp_path)
    assert not asked


def test_an_address_that_is_none_is_one_line(script, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(script, "SETS", {"try": RemoteSet((), {"a.png": None}, 1)})
    assert script.main(["try", "--to", str(tmp_path), "--mirror", "my.mirror/"]) == 2
    assert "cannot download my.mirror/a.png: unknown url type" in capsys.readouterr().err


def test_stopping_is_one_line(script, tmp_path, monkeypatch, capsys):
    def stopped(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(script, "download", stopped)
    assert script.main(["kodak", "--to", str(tmp_path)]) == 130
    assert capsys.readouterr().err.count("\n") == 1


def test_wrong_number_of_images_is_said(script, server, tmp_path):
    address, _ = server
    with pytest.raises(DownloadFailed, match="holds 3 images, expected 800"):
        script.download("try", image_set(address, "set.zip", ("good",), 800), tmp_path)


def test_command_line_takes_a_mirror_and_says_what_went_wrong(script, server, tmp_path, monkeypatch, capsys):
    address, _ = server
    images = image_set(address, "a.png", ("absent",), 1)
    monkeypatch.setattr(script, "SETS", {"try": images})
    assert script.main(["try", "--to", str(tmp_path)]) == 2
    assert "absent/a.png" in capsys.readouterr().err
    assert script.main(["try", "--to", str(tmp_path), "--mirror", f"{address}/good/"]) == 0
    assert "try: 1 images" in capsys.readouterr().out


def test_a_folder_that_cannot_be_made_is_one_line(script, tmp_path, capsys):
    (tmp_path / "file").touch()
    assert script.main(["kodak", "--to", str(tmp_path / "file")]) == 2
    said = capsys.readouterr().err
    assert "cannot make the folder" in said and said.count("\n") == 1


def test_every_set_has_a_digest_for_every_file(script):
    for images in script.SETS.values():
        assert all(len(bytes.fromhex(digest)) == 32 for digest in images.files.values())
        assert all(mirror.startswith("http") and mirror.endswith("/") for mirror in images.mirrors)

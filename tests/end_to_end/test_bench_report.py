"""The whole way: measure a real codec on a folder from the command line, and open the page in a browser.

The browser is Chromium (Debian: `apt-get install chromium`), driven through its DevTools protocol over a
pipe, which needs no driver, no package and no port.
"""

from __future__ import annotations

import json
import os
import select
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
TIMEOUT_SECONDS = 500
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed (apt-get install chromium)")


def bench(*arguments: object) -> str:
    """Run `tto bench` in a process of its own; what it prints."""
    command = [sys.executable, "-m", "tto", "bench", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def folder(tmp_path_factory, tiny_checkpoint) -> Path:
    """The outcome of a run over two pictures with an untrained model and two anchors."""
    pictures = tmp_path_factory.mktemp("pictures")
    for seed, (name, size) in enumerate({"land": (200, 164), "tower": (164, 192)}.items()):
        random = np.random.default_rng(seed)
        coarse = random.integers(20, 236, (12, 12, 1)) + random.integers(-20, 20, (12, 12, 3))
        Image.fromarray(coarse.astype(np.uint8)).resize(size, Image.Resampling.BICUBIC).save(pictures / f"{name}.png")
    out = tmp_path_factory.mktemp("out")
    options = ["-m", tiny_checkpoint, "-q", "2,6", "--anchors", "jpeg,webp", "--threads", 1, "--out", out]
    assert bench(pictures, *options).endswith("report.html shows all of it\n")
    return out


def test_every_file_decodes_to_the_pixels_that_were_measured(folder, tiny_checkpoint):
    from tto import load_codec
    from tto.bench.rows import read_csv

    codec = load_codec(str(tiny_checkpoint), "cpu")
    rows = [row for row in read_csv(folder / "results.csv") if row.codec == "tiny"]
    assert [(row.image, row.quality, row.effort) for row in rows] == [
        ("land.png", 2, "none"), ("land.png", 6, "none"), ("tower.png", 2, "none"), ("tower.png", 6, "none"),
    ]  # fmt: skip
    for row in rows:
        data = (folder / row.file).read_bytes()
        assert len(data) == row.bytes == row.base_bytes
        assert codec.decompress(data).size == (row.width, row.height)
        assert row.scores["psnr"] == pytest.approx(row.base_psnr) and row.scores["psnr"] > 0
        assert row.J > row.bpp > 0


class Browser:
    """One page. `events` holds everything that Chromium reported, in order. Use it as a context manager."""

    def __init__(self, program: str, profile: Path) -> None:
        commands_out, self._commands = os.pipe()
        self._answers, answers_in = os.pipe()
        # Chromium reads commands from file descriptor 3 and answers on 4.
        line = (
            f'exec "$0" --headless --no-sandbox --disable-gpu --disable-dev-shm-usage --hide-scrollbars '
            f'--no-first-run --user-data-dir="{profile}" --remote-debugging-pipe about:blank '
            f"3<&{commands_out} 4>&{answers_in}"
        )
        self._process = subprocess.Popen(
            ["bash", "-c", line, program],
            pass_fds=(commands_out, answers_in),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(commands_out)
        os.close(answers_in)
        self.events: list[dict[str, Any]] = []
        self._buffer = b""
        self._number = 0
        self._session = None
        targets = self.call("Target.getTargets")["targetInfos"]
        page = next(target for target in targets if target["type"] == "page")
        attached = self.call("Target.attachToTarget", targetId=page["targetId"], flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def __enter__(self) -> Browser:
        return self

    def __exit__(self, *exception: object) -> None:
        self._process.terminate()
        self._process.wait(TIMEOUT_SECONDS)
        os.close(self._commands)
        os.close(self._answers)

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """One DevTools command and its result."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._commands, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next_message()
            if answer.get("id") == self._number:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']['message']}")
                return answer["result"]
            self.events.append(answer)

    def open(self, path: Path, width: int, height: int, dark: bool = False) -> None:
        """Load a file in a window of so many CSS pixels and wait until it stands."""
        phone = width < 600
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=2 if phone else 1,
            mobile=phone,
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])
        self.call("Page.navigate", url=path.resolve().as_uri())
        deadline = time.monotonic() + TIMEOUT_SECONDS
        while self.evaluate("document.readyState") != "complete":
            if time.monotonic() > deadline:
                raise TimeoutError(f"{path} does not finish loading")
            time.sleep(0.05)

    def evaluate(self, expression: str) -> Any:
        """The value of a JavaScript expression (promises are awaited). An exception there is one here."""
        result = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in result:
            raise RuntimeError(result["exceptionDetails"].get("exception", {}).get("description", "error"))
        return result["result"].get("value")

    def drag(self, start: tuple[float, float], end: tuple[float, float]) -> None:
        """Press the left button at `start`, move to `end`, let go. CSS pixels of the window."""
        for kind, (x, y) in (("mousePressed", start), ("mouseMoved", end), ("mouseReleased", end)):
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", buttons=1, clickCount=1)

    def problems(self) -> list[str]:
        """Errors and warnings of the console, and uncaught exceptions."""
        found = []
        for event in self.events:
            details = event.get("params", {})
            if event["method"] == "Runtime.exceptionThrown":
                found.append(str(details["exceptionDetails"]))
            if event["method"] == "Runtime.consoleAPICalled" and details["type"] in ("error", "warning"):
                found.append(str(details["args"]))
            if event["method"] == "Log.entryAdded" and details["entry"]["level"] in ("error", "warning"):
                found.append(details["entry"]["text"])
        return found

    def requests(self) -> list[str]:
        """Addresses of everything that was asked for, data inside the page left out."""
        addresses = [
            event["params"]["request"]["url"] for event in self.events if event["method"] == "Network.requestWillBeSent"
        ]
        return [address for address in addresses if not address.startswith("data:")]

    def _next_message(self) -> dict[str, Any]:
        deadline = time.monotonic() + TIMEOUT_SECONDS
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._answers], [], [], max(0, deadline - time.monotonic()))
            received = os.read(self._answers, 1 << 16) if ready else b""
            if not received:
                raise TimeoutError("Chromium does not answer")
            self._buffer += received
        message, _, self._buffer = self._buffer.partition(b"\0")
        return json.loads(message)


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with Browser(CHROMIUM, tmp_path_factory.mktemp("profile")) as running:
        yield running


@needs_chromium
@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width, height", [(1280, 900), (390, 844)])
def test_the_page_loads_without_errors_or_requests_and_fits(folder, browser, width, height, dark):
    browser.open(folder / "report.html", width, height, dark)
    assert browser.problems() == []
    assert set(browser.requests()) == {(folder / "report.html").as_uri()}
    assert browser.evaluate("document.documentElement.scrollWidth") == width
    assert browser.evaluate("document.documentElement.dataset.theme") == ("dark" if dark else "light")
    assert browser.evaluate("document.querySelectorAll('#chart-psnr path').length") == 3
    assert browser.evaluate("document.querySelectorAll('#chart-ms_ssim path').length") == 3


@needs_chromium
def test_the_divider_follows_the_range_and_the_mouse(folder, browser):
    browser.open(folder / "report.html", 1280, 900)
    place = "[parseFloat(part('handle').style.left), part('right-image').style.clipPath, part('split').value]"
    browser.evaluate("part('split').value = 25; part('split').dispatchEvent(new Event('input'))")
    width = browser.evaluate("part('viewer').clientWidth")
    left, clip, _ = browser.evaluate(place)
    assert left == pytest.approx(width / 4, abs=1)
    assert clip == f"inset(0px 0px 0px {left:g}px)"
    browser.evaluate("part('viewer').scrollIntoView({block: 'center'})")
    frame = browser.evaluate("(({left, top, width}) => [left, top, width])(part('viewer').getBoundingClientRect())")
    middle = frame[1] + 60
    browser.drag((frame[0] + frame[2] / 4, middle), (frame[0] + frame[2] * 0.75, middle))
    left, _, value = browser.evaluate(place)
    assert left == pytest.approx(width * 0.75, abs=2)
    assert float(value) == pytest.approx(75, abs=0.5)


@needs_chromium
def test_zoom_pans_and_keeps_the_divider_on_the_screen(folder, browser):
    browser.open(folder / "report.html", 390, 844)
    browser.evaluate("[...part('zoom').children].find((b) => b.textContent === '4×').click()")
    assert browser.evaluate("part('stage').getBoundingClientRect().width") == pytest.approx(4 * 164, abs=1) or (
        browser.evaluate("part('stage').getBoundingClientRect().width") == pytest.approx(4 * 200, abs=1)
    )
    assert browser.evaluate("getComputedStyle(part('left-image')).imageRendering") == "pixelated"
    browser.evaluate("new Promise((done) => { part('viewer').scrollLeft = 200; setTimeout(done, 100) })")
    shown = browser.evaluate(
        "part('handle').getBoundingClientRect().left + 22 - part('viewer').getBoundingClientRect().left"
    )
    assert shown == pytest.approx(browser.evaluate("part('viewer').clientWidth") / 2, abs=1)


@needs_chromium
def test_difference_and_bits_replace_the_divider(folder, browser):
    browser.open(folder / "report.html", 1280, 900)
    choose = "part('{}').value = {!r}; part('{}').dispatchEvent(new Event('change'))"
    browser.evaluate(choose.format("mode", "16", "mode"))
    assert browser.evaluate("getComputedStyle(part('right-image')).mixBlendMode") == "difference"
    assert browser.evaluate("part('stage').style.filter") == "brightness(16)"
    assert browser.evaluate("part('handle').hidden && part('split').disabled")
    browser.evaluate(choose.format("mode", "bits", "mode"))
    assert browser.evaluate("part('right').selectedOptions[0].textContent") == "tiny (none)"
    assert browser.evaluate("!part('bits-image').hidden && part('bits-image').naturalWidth > 0")
    browser.evaluate(choose.format("right", "0", "right"))
    assert browser.evaluate("part('bits-image').hidden")
    assert browser.evaluate("part('right-caption').textContent").startswith("original: 24 bpp")


@needs_chromium
def test_the_table_sorts_both_ways_and_filters(folder, browser):
    browser.open(folder / "report.html", 1280, 900)
    cells = "[...document.querySelectorAll('#rows tbody tr')].map((line) => line.cells[{}].textContent)"
    choose = "part('filter-codec').value = {!r}; part('filter-codec').dispatchEvent(new Event('change'))"
    assert set(browser.evaluate(cells.format(1))) == {"tiny (none)"}
    browser.evaluate(choose.format("all"))
    everything = browser.evaluate(cells.format(1))
    assert set(everything) == {"tiny (none)", "jpeg", "webp"}
    for direction in ("ascending", "descending"):
        browser.evaluate("document.querySelectorAll('#rows th button')[3].click()")
        sizes = [int(text) for text in browser.evaluate(cells.format(3))]
        assert len(sizes) == len(everything)
        assert sizes == sorted(sizes, reverse=direction == "descending")
        assert browser.evaluate("document.querySelectorAll('#rows th')[3].ariaSort") == direction
    browser.evaluate("part('filter-quality').value = '2'; part('filter-quality').dispatchEvent(new Event('change'))")
    assert browser.evaluate(cells.format(2)) == ["2", "2"]


@needs_chromium
def test_a_curve_can_be_hidden_and_a_point_says_what_it_is(folder, browser):
    browser.open(folder / "report.html", 1280, 900)
    browser.evaluate("[...document.querySelectorAll('#legend button')].find((b) => b.textContent === 'jpeg').click()")
    assert browser.evaluate("document.querySelectorAll('#chart-psnr path').length") == 2
    browser.evaluate("document.querySelector('#chart-psnr').scrollIntoView({block: 'center'})")
    at = browser.evaluate(
        "(({x, y}) => [x + 3, y + 3])(document.querySelector('#chart-psnr circle').getBoundingClientRect())"
    )
    browser.call("Input.dispatchMouseEvent", type="mouseMoved", x=at[0], y=at[1])
    assert " bpp, " in browser.evaluate("document.getElementById('tip').textContent")
    assert not browser.evaluate("document.getElementById('tip').hidden")
    assert browser.problems() == []

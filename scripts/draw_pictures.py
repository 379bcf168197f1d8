"""Draws 24 pictures that are no photographs: pages, editors, tables, charts, maps, drawings, a game.

    python scripts/draw_pictures.py scripts/pictures

Twelve kinds, two pictures of each: those that end with `-a` may be looked at while something is chosen, those that end
with `-b` are kept for measuring. The files in `scripts/pictures` are the test set; other versions of Chromium,
Matplotlib or Pillow draw slightly others. They are CC0.
"""

from __future__ import annotations

import argparse
import io
import math
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from random import Random

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont

matplotlib.use("Agg")
from matplotlib import font_manager, pyplot  # noqa: E402

SIZE = WIDTH, HEIGHT = 512, 384
SCALE = 4
"""Drawings are made so many times as large, and reduced for smooth edges."""
WORDS = re.findall(
    r"\w+",
    """
the of river light under stone table number garden morning paper north window signal result small great
copper line market season engine letter bridge colour winter method silver report value change path open field music
slow winding carried because between without another harbour measure question answer always never often
""",
)
NAMES = re.findall(r"\w+", "Amara Bruno Chiyo Dmitri Elif Farid Greta Hugo Ines Jonas Kavya Lotte Mateo Noor Oskar")

Drawing = Callable[[Random, bool], Image.Image]
"""A picture from a generator, and whether it is the second of its kind, which looks different."""


def font(size: int, family: str = "DejaVu Sans", weight: str = "normal") -> ImageFont.FreeTypeFont:
    """Of the fonts that Matplotlib brings."""
    properties = font_manager.FontProperties(family=family, weight=weight)
    return ImageFont.truetype(font_manager.findfont(properties), size)


def sentence(random: Random, words: int) -> str:
    return " ".join(random.choice(WORDS) for _ in range(words)).capitalize() + "."


def paragraph(random: Random, sentences: int) -> str:
    return " ".join(sentence(random, random.randint(6, 14)) for _ in range(sentences))


# --- pages, drawn by Chromium --------------------------------------------------------------------------------------


def page(body: str, style: str, rules: str = "") -> Image.Image:
    """A window of HTML: `style` of its body, and further rules."""
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        raise SystemExit("Chromium is not installed: it draws the pages")
    html = f"<meta charset=utf-8><style>body{{margin:0;font-family:DejaVu Sans;{style}}}{rules}</style>{body}"
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "page.html", Path(folder) / "page.png"
        source.write_text(html, encoding="utf-8")
        options = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", f"--screenshot={target}"]
        subprocess.run(
            [chromium, *options, f"--window-size={WIDTH},{HEIGHT + 200}", str(source)],
            check=True,
            capture_output=True,
            timeout=120,
        )
        return Image.open(target).convert("RGB").crop((0, 0, *SIZE))


def article(random: Random, second: bool) -> Image.Image:
    accent, ground = ("#0b57d0", "#fff") if not second else ("#7a1f5c", "#fbf7ef")
    family = "DejaVu Sans" if not second else "DejaVu Serif"
    text = "".join(f"<p>{paragraph(random, 3)}</p>" for _ in range(4))
    return page(
        f"<div style='background:{accent};color:#fff;padding:9px 16px;font-size:13px'>Field notes "
        f"&nbsp; <u>Archive</u> &nbsp; About</div><div style='padding:8px 18px'>"
        f"<h1 style='font-size:22px;margin:6px 0'>{sentence(random, 5)}"
        f"</h1><div style='color:#666;font-size:11px'>{random.choice(NAMES)} · 14 March</div>{text}</div>",
        f"font-family:{family};font-size:13px;line-height:1.45;background:{ground};color:#1c1c1c",
    )


def editor(random: Random, second: bool) -> Image.Image:
    colours = (
        ["#569cd6", "#dcdcaa", "#ce9178", "#9cdcfe"] if not second else ["#0033b3", "#871094", "#067d17", "#1750eb"]
    )
    ground, plain = ("#1e1e1e", "#d4d4d4") if not second else ("#ffffff", "#080808")
    lines = []
    for number in range(1, 27):
        depth = random.choice([0, 1, 1, 2, 2, 3])
        tokens = [
            f"<span style='color:{random.choice([*colours, plain])}'>{random.choice(WORDS)}</span>"
            + random.choice(["(", ")", " = ", ".", ", ", ": ", " + "])
            for _ in range(random.randint(1, 6))
        ]
        lines.append(f"<span style='color:#888'>{number:3}</span>  {'    ' * depth}{''.join(tokens)}")
    return page(
        f"<pre style='margin:6px;font:12px/14.5px DejaVu Sans Mono'>{'<br>'.join(lines)}</pre>",
        f"background:{ground};color:{plain}",
    )


def table(random: Random, second: bool) -> Image.Image:
    columns = ["Item", "Region", "Units", "Price", "Total"]
    rows = []
    for number in range(17):
        units, price = random.randint(1, 900), random.uniform(0.5, 99)
        cells = [random.choice(WORDS), random.choice(NAMES), f"{units}", f"{price:.2f}", f"{units * price:,.2f}"]
        ground = "#fff" if number % 2 or second else "#f0f4fa"
        rows.append(f"<tr style='background:{ground}'>" + "".join(f"<td>{cell}" for cell in cells))
    head = "".join(f"<th>{column}" for column in columns)
    line = "#c8d2e0" if not second else "#222"
    cells = f"td,th{{border:1px solid {line};padding:2px 6px;text-align:right}}"
    return page(
        f"<table style='border-collapse:collapse;width:100%'><tr style='background:#dfe7f3'>{head}"
        f"{''.join(rows)}</table>",
        "font-size:12px",
        cells,
    )


def messages(random: Random, second: bool) -> Image.Image:
    ground, own, other = ("#e5ddd5", "#dcf8c6", "#fff") if not second else ("#0e1621", "#2b5278", "#182533")
    ink = "#111" if not second else "#eee"
    bubbles = []
    for number in range(9):
        side, colour = ("right", own) if random.random() < 0.5 else ("left", other)
        said = sentence(random, random.randint(2, 14))
        bubbles.append(
            f"<div style='text-align:{side};margin:5px 10px'><span style='display:inline-block;max-width:70%;"
            f"background:{colour};border-radius:9px;padding:5px 9px;text-align:left'>{said}"
            f"<small style='opacity:.55'> 1{number % 3}:{random.randint(10, 59)}</small></span></div>"
        )
    return page("".join(bubbles), f"background:{ground};color:{ink};font-size:13px")


# --- charts, drawn by Matplotlib -----------------------------------------------------------------------------------


def figure(draw: Callable[[pyplot.Figure], None], style: str = "default") -> Image.Image:
    with pyplot.style.context(style):
        drawn = pyplot.figure(figsize=(WIDTH / 100, HEIGHT / 100), dpi=100, layout="constrained")
        draw(drawn)
        buffer = io.BytesIO()
        drawn.savefig(buffer, format="png")
        pyplot.close(drawn)
    return Image.open(buffer).convert("RGB")


def curves(random: Random, second: bool) -> Image.Image:
    generator = np.random.default_rng(random.randint(0, 10**6))

    def draw(drawn: pyplot.Figure) -> None:
        axes = drawn.add_subplot()
        for number in range(5):
            x = np.linspace(0, 10, 60)
            y = np.cumsum(generator.normal(0.2, 1, 60)) + 3 * number
            axes.plot(
                x, y, "o-" if second else "-", markersize=3, linewidth=1.4, label=f"{random.choice(WORDS)} {number}"
            )
        axes.set(title=sentence(random, 4), xlabel="time [s]", ylabel="value")
        axes.grid(True, alpha=0.4)
        axes.legend(fontsize=7)

    return figure(draw, "ggplot" if second else "default")


def bars(random: Random, second: bool) -> Image.Image:
    generator = np.random.default_rng(random.randint(0, 10**6))

    def draw(drawn: pyplot.Figure) -> None:
        if second:
            axes = drawn.add_subplot()
            values = generator.random((9, 11))
            axes.imshow(values, cmap="viridis", aspect="auto")
            for (row, column), value in np.ndenumerate(values):
                axes.text(column, row, f"{value:.2f}", ha="center", va="center", fontsize=6, color="white")
            axes.set_xticks(range(11), [random.choice(WORDS)[:5] for _ in range(11)], rotation=60, fontsize=7)
            axes.set_yticks(range(9), [random.choice(NAMES) for _ in range(9)], fontsize=7)
            return
        left, right = drawn.subplots(1, 2)
        places = np.arange(6)
        for group in range(3):
            left.bar(places + 0.27 * group, generator.uniform(1, 9, 6), 0.25, label=random.choice(NAMES))
        left.legend(fontsize=7)
        left.set_xticks(places + 0.27, [random.choice(WORDS)[:5] for _ in places], fontsize=7, rotation=45)
        right.pie(
            generator.uniform(1, 5, 6), labels=[random.choice(NAMES) for _ in range(6)], textprops={"fontsize": 7}
        )

    return figure(draw)


def relief(random: Random, second: bool) -> Image.Image:
    generator = np.random.default_rng(random.randint(0, 10**6))
    y, x = np.mgrid[0:3:160j, 0:4:220j]
    height = sum(
        a * np.exp(-((x - cx) ** 2 + (y - cy) ** 2) / s)
        for a, cx, cy, s in zip(
            generator.uniform(-1, 2, 14), generator.uniform(0, 4, 14), generator.uniform(0, 3, 14),
            generator.uniform(0.05, 0.6, 14), strict=True,
        )
    )  # fmt: skip

    def draw(drawn: pyplot.Figure) -> None:
        drawn.set_layout_engine("none")
        axes = drawn.add_axes((0, 0, 1, 1))
        if not second:
            axes.contourf(x, y, height, 14, cmap="terrain")
        lines = axes.contour(x, y, height, 14, colors="#5a3d1e" if not second else "#222", linewidths=0.7)
        axes.clabel(lines, fontsize=6)
        axes.axis("off")

    return figure(draw)


# --- drawings ------------------------------------------------------------------------------------------------------


def smooth(draw: Callable[[ImageDraw.ImageDraw], None], ground: str) -> Image.Image:
    """A drawing in coordinates that are `SCALE` times as large."""
    large = Image.new("RGB", (WIDTH * SCALE, HEIGHT * SCALE), ground)
    draw(ImageDraw.Draw(large))
    return large.resize(SIZE, Image.Resampling.BOX)


def streets(random: Random, second: bool) -> Image.Image:
    ground, green, water, road, large = (
        ("#f2efe9", "#cdebb0", "#aad3df", "#ffffff", "#fcd6a4")
        if not second
        else ("#242f3e", "#263c3f", "#17263c", "#38414e", "#746855")
    )

    def draw(pen: ImageDraw.ImageDraw) -> None:
        w, h = WIDTH * SCALE, HEIGHT * SCALE
        for _ in range(7):
            x, y, a, b = random.randrange(w), random.randrange(h), random.randrange(100, 420), random.randrange(80, 300)
            pen.rectangle((x, y, x + a, y + b), green)
        river = [(x, h * (0.62 + 0.12 * math.sin(x / 300 + random.random() / 9))) for x in range(-40, w + 80, 40)]
        pen.line(river, water, 110, joint="curve")
        tilt = random.uniform(-0.25, 0.25)
        for width, colour, gap in ((14, road, 120), (34, large, 520)):
            for place in range(-h, w + h, gap):
                shift = random.randint(-20, 20)
                pen.line((place + shift, -9, place + shift + tilt * h, h + 9), colour, width)
                pen.line((-9, place + shift, w + 9, place + shift - tilt * w), colour, width)
        for _ in range(26):
            place = random.randrange(w), random.randrange(h)
            ink = "#444" if not second else "#d59563"
            pen.text(place, random.choice(WORDS).title(), ink, font(random.choice([40, 44, 56])))

    return smooth(draw, ground)


def plan(random: Random, second: bool) -> Image.Image:
    ink, ground = ("#111", "#fff") if not second else ("#e8f0ff", "#1b3a6b")

    def draw(pen: ImageDraw.ImageDraw) -> None:
        for _ in range(16):
            x, y = random.randrange(60, 1700), random.randrange(60, 1200)
            a, b = random.randrange(80, 460), random.randrange(80, 380)
            shape = random.choice([pen.rectangle, pen.ellipse])
            shape((x, y, x + a, y + b), outline=ink, width=random.choice([4, 6, 9]))
            pen.line((x, y + b + 40, x + a, y + b + 40), ink, 3)
            for end in (x, x + a):
                pen.line((end, y + b + 25, end, y + b + 55), ink, 3)
            pen.text((x + a / 2 - 40, y + b + 46), f"{a / 4:.1f}", ink, font(38, "DejaVu Sans Mono"))
        for y in range(1210, 1500, 26):
            pen.line((1300, y, 1300 + 700, y - 190), ink, 3)

    return smooth(draw, ground)


def letterpress(random: Random, second: bool) -> Image.Image:
    """Printed text as a scanner sees it: slightly turned, gray, with grain."""
    sheet = Image.new("L", (WIDTH * 2, HEIGHT * 2), 246)
    pen = ImageDraw.Draw(sheet)
    face = font(25 if not second else 21, "DejaVu Serif")
    y, line = 24, ""
    words = paragraph(random, 60).split()
    for word in words:
        if pen.textlength(f"{line} {word}", face) > WIDTH * 2 - 90:
            pen.text((44, y), line, 38, face)
            y, line = y + (34 if not second else 28), word
        else:
            line = f"{line} {word}".strip()
    turned = sheet.rotate(random.uniform(-0.8, 0.8), Image.Resampling.BICUBIC, fillcolor=246).resize(
        SIZE, Image.Resampling.BOX
    )
    grain = np.random.default_rng(random.randint(0, 10**6)).normal(0, 1.5, (HEIGHT, WIDTH))
    levels = np.clip(np.asarray(turned) + grain, 0, 255)
    tint = np.array([1.0, 0.985, 0.95]) if second else np.ones(3)
    return Image.fromarray((levels[..., None] * tint).round().astype(np.uint8))


def game(random: Random, second: bool) -> Image.Image:
    """A screen of square tiles of 8 × 8 points, three pixels a point or two."""
    point = 2 if second else 3
    columns, rows = WIDTH // (8 * point) + 1, HEIGHT // (8 * point) + 1
    colours = [tuple(random.randrange(30, 240) for _ in range(3)) for _ in range(12)]
    tiles = []
    for _ in range(9):
        pattern = np.array([[random.choice([0, 0, 1, 2]) for _ in range(4)] for _ in range(8)])
        palette = np.array(random.sample(colours, 3), np.uint8)
        tiles.append(palette[np.concatenate([pattern, pattern[:, ::-1]], 1)])
    sky = np.full((8, 8, 3), (92, 148, 252) if not second else (12, 8, 30), np.uint8)
    screen = [
        [tiles[random.randrange(9)] if random.random() < row / rows * 0.9 else sky for _ in range(columns)]
        for row in range(rows)
    ]
    pixels = np.concatenate([np.concatenate(line, 1) for line in screen])
    return Image.fromarray(pixels.repeat(point, 0).repeat(point, 1)[:HEIGHT, :WIDTH])


def illustration(random: Random, second: bool) -> Image.Image:
    """Flat shapes over a gradient, some with an outline."""
    top, bottom = (np.array([random.randrange(256) for _ in range(3)], float) for _ in range(2))
    ramp = np.linspace(0, 1, HEIGHT * SCALE)[:, None, None]
    ground = np.broadcast_to(top * (1 - ramp) + bottom * ramp, (HEIGHT * SCALE, WIDTH * SCALE, 3))
    large = Image.fromarray(ground.round().astype(np.uint8))
    pen = ImageDraw.Draw(large)
    for _ in range(26):
        colour = tuple(random.randrange(256) for _ in range(3))
        x, y, r = random.randrange(WIDTH * SCALE), random.randrange(HEIGHT * SCALE), random.randrange(60, 420)
        outline, width = ("black", 10) if second else (None, 0)
        if random.random() < 0.5:
            pen.ellipse((x - r, y - r, x + r, y + 0.7 * r), colour, outline, width)
        else:
            points = [
                (x + r * math.cos(t), y + r * math.sin(t)) for t in sorted(random.uniform(0, 6.28) for _ in range(5))
            ]
            pen.polygon(points, colour, outline, width)
    return large.resize(SIZE, Image.Resampling.BOX)


KINDS: dict[str, Drawing] = {
    "article": article,
    "bars": bars,
    "curves": curves,
    "editor": editor,
    "game": game,
    "illustration": illustration,
    "letterpress": letterpress,
    "messages": messages,
    "plan": plan,
    "relief": relief,
    "streets": streets,
    "table": table,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="where the PNGs go")
    folder = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    for kind, draw in KINDS.items():
        for which in "ab":
            draw(Random(f"{kind}-{which}"), which == "b").save(folder / f"{kind}-{which}.png", optimize=True)


if __name__ == "__main__":
    main()

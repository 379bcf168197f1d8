"""Pictures of what is in a .tto file: where its bits went, what refinement changed, mask, codes, filter, adaptation,
dictionary, tokens, references.

Drawn from the file as its decoder reads it; what the network looked at is computed anew, in float32. Needs matplotlib.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from base_models.tables import TOTAL
from tto.codec import AnyCodec, Codec, frame_of
from tto.container import NEUTRAL_QP, Container, Header, read
from tto.image import Picture
from tto.memory import memory_for
from tto.metrics import psnr
from tto.reconstruction import synthesise
from tto.side.adaptation import Adaptation
from tto.side.codes import NO_CODE
from tto.side.compensation import Compensation, CompensationCoder
from tto.side.filter import BLOCK, CLASSES, DIRECTIONS, Filter, apply_filter, block_classes, luma_of
from tto.side.side import Side

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap
    from matplotlib.figure import Figure

DRAWINGS = ("bits", "error", "mask", "codes", "filter", "adaptation", "dictionary", "tokens", "reference")
"""All that there can be of a file."""
HEAT = "inferno"
DPI = 130
WIDTH = 7.0  # inches of one picture
ERROR_BLOCK = 8
ENTRIES = 8
MOST_CODES = 40
FULL_SCALE = 99.5  # percentile that a colour scale ends at


@dataclass(frozen=True)
class Contents:
    """A file taken apart: `bits` [h, w] of y at each position, `y_block` pixels a side; `maps` [K, h, w] of what the
    network looked at, by name; `rgb` uint8 [H, W, 3]. `y_hat` is after LRP.
    """

    header: Header
    y_block: int
    bits: np.ndarray
    maps: dict[str, np.ndarray]
    side: Side
    rgb: np.ndarray
    y_hat: torch.Tensor
    size: int


def explain(codec: AnyCodec, picture: Picture, data: bytes, base_qp: int = NEUTRAL_QP) -> dict[str, bytes]:
    """PNG files by name, of `DRAWINGS`, for a file that `codec` made of `picture`; `base_qp` as in `Result`."""
    codec = codec.for_file(data)
    contents = open_file(codec, data)
    header = contents.header
    latents = codec.analyse(picture.rgb, header.quality)
    before = open_file(codec, codec.pack(picture, *latents, header.quality, base_qp, header.native).data)
    figures = {
        "bits": draw_bits(picture, contents),
        "error": draw_errors(picture, before, contents),
    }
    compensation, of_filter = contents.side.get(Compensation), contents.side.get(Filter)
    adaptation = contents.side.get(Adaptation)
    if compensation is not None:
        figures["mask"] = draw_mask(picture, compensation.codes, contents.y_block)
        figures["codes"] = draw_codes(compensation.codes, codec.side_coder[CompensationCoder].frequencies)
    if of_filter is not None:
        figures["filter"] = draw_filter(picture, unfiltered(codec, contents), of_filter.coefficients)
    if adaptation is not None:
        sides = contents.side.without(Adaptation), contents.side
        plain, adapted = (synthesised(codec, contents, side) for side in sides)
        sizes = sizes_of_changes(codec, adaptation)
        figures["adaptation"] = draw_adaptation(picture, plain, adapted, sizes, len(adaptation.body))
    if "dictionary" in contents.maps:
        figures["dictionary"] = draw_attention(picture, contents.maps["dictionary"], contents.y_block)
    elif "tokens" in contents.maps:
        figures["tokens"] = draw_attention(
            picture, contents.maps["tokens"], contents.y_block, "Tokens of this picture", "token"
        )
    if "saved" in contents.maps:
        figures["reference"] = draw_reference(picture, contents.maps, contents.y_block)
    return {f"{name}.png": _png(figures[name]) for name in DRAWINGS if name in figures}


@torch.inference_mode()
def open_file(codec: Codec, data: bytes) -> Contents:
    """Decodes a file and looks on. Raises `NotEnoughMemory`: what the network looked at is computed for whole maps."""
    container = read(data, max_pixels=None)
    header = container.header
    with memory_for(header.width, header.height, codec.device, codec.model.stride, codec.model.walk_bytes):
        return _opened(codec, container, len(data))


def _opened(codec: Codec, container: Container, size: int) -> Contents:
    header = container.header
    shapes, bits = codec.latent_shapes(header), []
    y_hat = codec.latent_coder.decode(container.sections, shapes, header.quality, header.qp, header.native, bits.append)
    z_hat = codec.latent_coder.decode_z(container.sections, shapes, header.quality)
    maps = codec.model.explanations(z_hat, header.quality, y_hat.to(codec.device))
    side = codec.read_side(container)
    return Contents(
        header,
        codec.model.y_stride,
        codec.model.join_y(bits, shapes.y[1:]).sum((0, 1)).cpu().numpy(),
        {name: values.cpu().numpy() for name, values in maps.items()},
        side,
        codec.pixels(y_hat, header.quality, frame_of(header), side),
        y_hat,
        size,
    )


@torch.inference_mode()
def synthesised(codec: Codec, contents: Contents, side: Side) -> torch.Tensor:
    """What g_s gives with this side information, [1, 3, H, W], not clamped; none of it has acted on the picture yet."""
    header, y_hat = contents.header, contents.y_hat.to(codec.device)
    memory = codec.room.for_picture(header.height, header.width)
    return synthesise(codec.model, header.quality, [y_hat], [frame_of(header)], [side], memory)[0]


@torch.inference_mode()
def unfiltered(codec: Codec, contents: Contents) -> torch.Tensor:
    """What the filter is given, [1, 3, H, W]."""
    return contents.side.before(Filter).on_picture(synthesised(codec, contents, contents.side))


def sizes_of_changes(codec: Codec, adaptation: Adaptation) -> dict[str, float]:
    """Norm of each changed tensor's change over the tensor's own, by name, in the order of computing."""
    before, after = codec.model.last_weights(), adaptation.on_network(codec.model).last_weights()
    return {
        name: float((after[name] - tensor).norm() / tensor.norm())
        for name, tensor in before.items()
        if not torch.equal(after[name], tensor)
    }


# --- figures -----------------------------------------------------------------------------------------------------


def draw_bits(picture: Picture, contents: Contents) -> Figure:
    """Bits of each position of y by its entropy model, over the picture."""
    figure, (axes,) = _figure(picture, 1, "Where the bits went")
    bits = contents.bits
    _backdrop(axes, picture)
    image = _over(axes, picture, bits, contents.y_block, cmap=HEAT, vmin=0, vmax=_full_scale(bits), alpha=0.75)
    axes.set_title(f"{contents.size} bytes; main latent: {bits.sum() / 8:.0f} bytes by its entropy model", fontsize=9)
    figure.colorbar(
        image, ax=axes, label=f"bits per position ({contents.y_block}×{contents.y_block} pixels)", shrink=0.8
    )
    return figure


def draw_errors(picture: Picture, before: Contents, after: Contents) -> Figure:
    """Error of each block without refinement and in this file, in levels of 255, and the change between them."""
    figure, (*panels, last) = _figure(picture, 3, "Error of the decoded picture")
    errors = [_block_errors(picture, contents) for contents in (before, after)]
    highest, drawn = _full_scale(errors[0]), []
    for axes, name, contents, error in zip(
        panels, ("without refinement", "this file"), (before, after), errors, strict=True
    ):
        drawn.append(_over(axes, picture, error, ERROR_BLOCK, cmap=HEAT, vmin=0, vmax=highest))
        axes.set_title(f"{name}: {contents.size} bytes, {psnr(picture.rgb, contents.rgb):.2f} dB", fontsize=9)
    figure.colorbar(
        drawn[-1], ax=panels, label=f"RMS in {ERROR_BLOCK}×{ERROR_BLOCK} pixels (levels of 255)", shrink=0.8
    )
    change = errors[1] - errors[0]
    most = _full_scale(np.abs(change))
    image = _over(last, picture, change, ERROR_BLOCK, cmap="RdBu_r", vmin=-most, vmax=most)
    last.set_title("change: blue has become better", fontsize=9)
    figure.colorbar(image, ax=last, label="change of RMS (levels of 255)", shrink=0.8)
    return figure


def draw_mask(picture: Picture, codes: np.ndarray, y_block: int) -> Figure:
    """Positions of y that a code compensates; `codes` [h, w]."""
    figure, (axes,) = _figure(picture, 1, "Where compensation is on")
    mask = codes != NO_CODE
    _backdrop(axes, picture)
    _over(axes, picture, np.where(mask, 1.0, np.nan), y_block, cmap="autumn", vmin=0, vmax=1, alpha=0.55)
    axes.set_title(f"{mask.sum()} of {mask.size} positions ({100 * mask.mean():.1f} %), in colour", fontsize=9)
    return figure


def draw_codes(codes: np.ndarray, frequencies: np.ndarray) -> Figure:
    """How often each code of `codes` [h, w] is used, beside what is expected by `frequencies`, which sum to 2¹⁶."""
    from matplotlib.figure import Figure

    used, counts = np.unique(codes[codes != NO_CODE], return_counts=True)
    order = np.argsort(-counts, kind="stable")[:MOST_CODES]
    expected = counts.sum() * frequencies[used[order]] / TOTAL
    figure = Figure(figsize=(1.3 * WIDTH, 3.4), layout="constrained")
    axes = figure.subplots()
    places = np.arange(len(order))
    axes.bar(places, counts[order], color="tab:orange", label="this picture")
    axes.plot(places, expected, "_", color="black", markersize=9, label="expected by the model")
    axes.set_xticks(places, used[order], fontsize=7, rotation=90)
    axes.set(xlabel="code", ylabel="positions")
    shown = f"; the {len(order)} most frequent" if len(used) > len(order) else ""
    axes.set_title(f"Codes used: {len(used)} of {len(frequencies)}{shown}")
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def draw_filter(picture: Picture, unfiltered: torch.Tensor, coefficients: torch.Tensor) -> Figure:
    """Classes of blocks, and what the filter changes of x̂ [1, 3, H, W]; coefficients as for `apply_filter`."""
    figure, (left, right) = _figure(picture, 2, "The filter of this picture")
    classes = block_classes(luma_of(unfiltered)).cpu().numpy()
    _backdrop(left, picture)
    image = _over(left, picture, classes, BLOCK, cmap=_class_colors(), vmin=-0.5, vmax=CLASSES - 0.5, alpha=0.75)
    left.set_title("class of each block: brighter is busier, hue is direction", fontsize=9)
    figure.colorbar(image, ax=left, ticks=range(CLASSES), label="class: 5 · activity + direction", shrink=0.8)
    change = apply_filter(unfiltered, coefficients.to(unfiltered)) - unfiltered
    _draw_change(figure, right, picture, change, "what it adds to luma")
    return figure


def draw_adaptation(
    picture: Picture, before: torch.Tensor, after: torch.Tensor, sizes: dict[str, float], num_bytes: int
) -> Figure:
    """`before` and `after`: what g_s gives with the network's own weights and with the picture's [1, 3, H, W];
    `sizes` as from `sizes_of_changes`; `num_bytes` of the section.
    """
    figure, (left, right) = _figure(picture, 2, f"Last weights of g_s, changed for this picture: {num_bytes} bytes")
    _draw_change(figure, left, picture, after - before, "what they change in luma, before the filter")
    right.set_axis_on()
    names = [name.removeprefix("g_s.") for name in sizes]
    right.barh(names, [100 * size for size in sizes.values()], color="tab:orange")
    right.invert_yaxis()
    right.tick_params(labelsize=7)
    right.set_title("changed tensors, from first to last", fontsize=9)
    right.set_xlabel("norm of the change (% of the tensor's)", fontsize=9)
    right.spines[["top", "right"]].set_visible(False)
    return figure


def _draw_change(figure: Figure, axes: Axes, picture: Picture, change: torch.Tensor, title: str) -> None:
    """Of luma, pixel by pixel; `change` [1, 3, H, W] of pixels in [0, 1]."""
    levels = 255 * luma_of(change)[0, 0].cpu().numpy()
    most = _full_scale(np.abs(levels))
    image = _over(axes, picture, levels, 1, cmap="RdBu_r", vmin=-most, vmax=most)
    axes.set_title(title, fontsize=9)
    figure.colorbar(image, ax=axes, label="levels of 255", shrink=0.8)


def _class_colors() -> Colormap:
    """No gray among them: they stand on a gray picture."""
    from matplotlib.colors import ListedColormap, hsv_to_rgb

    activities = CLASSES // DIRECTIONS
    shades = [0.45 + 0.55 * activity / (activities - 1) for activity in range(activities)]
    return ListedColormap([hsv_to_rgb((i / DIRECTIONS, 0.9, shade)) for shade in shades for i in range(DIRECTIONS)])


def draw_attention(
    picture: Picture, attention: np.ndarray, y_block: int, what: str = "Dictionary entries", each: str = "entry"
) -> Figure:
    """As Lu 2025, Fig. 8: the entries whose use varies most over the picture."""
    chosen = np.argsort(-attention.std((1, 2)), kind="stable")[:ENTRIES]
    figure, panels = _figure(picture, len(chosen) + 1, f"{what} and where they are used")
    panels[0].imshow(picture.rgb)
    panels[0].set_title("picture", fontsize=9)
    highest, drawn = _full_scale(attention[chosen]), []
    for axes, entry in zip(panels[1:], chosen, strict=True):
        drawn.append(_over(axes, picture, attention[entry], y_block, cmap="viridis", vmin=0, vmax=highest))
        axes.set_title(f"{each} {entry}, mean {100 * attention[entry].mean():.1f} %", fontsize=9)
    figure.colorbar(drawn[-1], ax=panels, label="attention, mean over heads, last slice", shrink=0.8)
    return figure


def draw_reference(picture: Picture, maps: dict[str, np.ndarray], y_block: int) -> Figure:
    """As Qian 2021, Fig. 10, and what each prediction saves over the one before (Fig. 9)."""
    titles = {
        "similarity": "S: similarity of the reference",
        "confidence": "U: probability of what was decoded there",
    }
    shown = {name: title for name, title in titles.items() if name in maps}
    predictions = ["the hyperprior", "the reference"][: len(maps["saved"])][::-1]
    figure, panels = _figure(picture, len(shown) + len(predictions), "Predictions from what was decoded before")
    for axes, (name, title) in zip(panels, shown.items(), strict=False):
        image = _over(axes, picture, maps[name][0], y_block, cmap="viridis", vmin=0, vmax=1)
        axes.set_title(title, fontsize=9)
        figure.colorbar(image, ax=axes, shrink=0.8)
    for axes, of, saved in zip(panels[len(shown) :], predictions, maps["saved"], strict=True):
        most = _full_scale(np.abs(saved))
        image = _over(axes, picture, saved, y_block, cmap="RdBu_r", vmin=-most, vmax=most)
        axes.set_title(f"saved with {of}: {saved.sum() / 8:+.0f} bytes at a step of 1", fontsize=9)
        figure.colorbar(image, ax=axes, label="bits per position", shrink=0.8)
    return figure


def _figure(picture: Picture, count: int, title: str) -> tuple[Figure, list[Axes]]:
    """A figure with `count` panels of the picture's shape, without ticks."""
    from matplotlib.figure import Figure

    columns = 2 if count == 4 else min(count, 3)
    rows = -(-count // columns)
    width = WIDTH if count == 1 else WIDTH / 1.6
    height = width * min(max(picture.height / picture.width, 0.3), 2.5)
    figure = Figure(figsize=(columns * width + 1.2, rows * (height + 0.3) + 0.5), layout="constrained")
    figure.suptitle(title, fontsize=12)
    panels = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axes in panels:
        axes.set_axis_off()
    return figure, panels[:count]


def _backdrop(axes: Axes, picture: Picture) -> None:
    axes.imshow(picture.rgb.mean(2), cmap="gray", vmin=0, vmax=255)


def _over(axes: Axes, picture: Picture, values: np.ndarray, block: int, **style):
    """Values [h, w], one for each block of so many pixels a side, over the picture; the padding is cut off."""
    image = axes.imshow(values, extent=(0, block * values.shape[1], block * values.shape[0], 0), **style)
    axes.set(xlim=(0, picture.width), ylim=(picture.height, 0))
    return image


def _block_errors(picture: Picture, contents: Contents) -> np.ndarray:
    """Root of the mean squared error of each block; those at the right and bottom may be smaller."""
    squares = np.mean((picture.rgb.astype(np.float64) - contents.rgb) ** 2, axis=2)
    rows, columns = (np.arange(0, side, ERROR_BLOCK) for side in squares.shape)
    sums, counts = (
        np.add.reduceat(np.add.reduceat(values, rows, axis=0), columns, axis=1)
        for values in (squares, np.ones_like(squares))
    )
    return np.sqrt(sums / counts)


def _full_scale(values: np.ndarray) -> float:
    return max(float(np.percentile(values, FULL_SCALE)), 1e-9)


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DPI)
    return buffer.getvalue()

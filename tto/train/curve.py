"""The curve of a run: losses over steps, and rate against PSNR of the validation images."""

from __future__ import annotations

import io

from tto.files import write_atomic
from tto.train.run_folder import RunFolder, read_metrics


def draw_curve(folder: RunFolder) -> None:
    """Writes `curve.png` from the metrics of a run; does nothing while there are none."""
    if not folder.writes or not folder.metrics.is_file():
        return
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    records = read_metrics(folder.metrics)
    training = [r for r in records if r["kind"] == "train" and "loss" in r]
    validation = [r for r in records if r["kind"] == "validation"]
    figure = Figure(figsize=(11, 4.2), layout="constrained")
    losses, rates = figure.subplots(1, 2)
    for name, rows, marker in (("training", training, "-"), ("validation", validation, "o-")):
        if rows:
            losses.plot([r["total_steps"] for r in rows], [r["loss"] for r in rows], marker, label=name)
    losses.set(xlabel="step", ylabel="loss", yscale="log", title="weighted rate–distortion loss")
    last = len(validation) - 1
    for record in (validation[i] for i in sorted({*range(0, last, max(1, last // 4)), last} - {-1})):
        rates.plot(record["bpp"], record["psnr"], ".-", label=f"step {record['total_steps']}")
    rates.set(xlabel="bits per pixel (estimated)", ylabel="PSNR, dB", title="validation images")
    for axes in (losses, rates):
        axes.grid(alpha=0.3)
        if axes.get_legend_handles_labels()[0]:
            axes.legend(fontsize=8)
    picture = io.BytesIO()
    FigureCanvasAgg(figure).print_png(picture)
    write_atomic(folder.path / "curve.png", picture.getvalue())

"""What a run says about itself: log lines, metrics, trackers, samples, the curve."""

from __future__ import annotations

from accelerate import Accelerator

from tto.train.checkpoints import Progress
from tto.train.console import Console, duration
from tto.train.curve import draw_curve
from tto.train.images import ImageStore
from tto.train.run_folder import RunFolder
from tto.train.validation import ValidationResult

SKIPPED_LINES = 10
TOLD = {
    "bpp_y": "y {:.4f}",
    "bpp_z": "z {:.4f} bpp",
    "psnr": "{:.2f} dB",
    "gained_db": "gained {:.3f} dB",
    "explained": "explained {:.1%}",
}
"""Values of a step that a log line shows, in its order."""


class Report:
    """Takes what happened and passes it on to person, file and tracker."""

    def __init__(self, folder: RunFolder, accelerator: Accelerator, console: Console):
        self.folder = folder
        self.accelerator = accelerator
        self.console = console
        self._skipped_lines = 0

    def training(self, progress: Progress, means: dict[str, float], done: float, rates: list[float]) -> None:
        """Means over the last steps; `done` is the part of the stage that is over, `rates` the learning rates."""
        means = {**means, "done": done, "skipped_steps": float(progress.skipped_steps)}
        means |= {f"learning_rate_{number}": rate for number, rate in enumerate(rates)}
        self._record("train", progress, means)
        if "loss" not in means:
            return
        left = progress.stage_seconds * (1 - done) / done if done > 0 else None
        told = "  ".join(form.format(means[name]) for name, form in TOLD.items() if name in means)
        self.console.say(
            f"{progress.stage} {progress.step:6d} {done:6.1%}  loss {means['loss']:.4f}  {told}  "
            f"grad {means['gradient_norm']:.2g}  lr {'/'.join(f'{rate:.1e}' for rate in rates)}  "
            f"{means['steps_per_second']:.2f} steps/s{'' if left is None else f'  left {duration(left)}'}"
        )

    def position(self, progress: Progress, done: float) -> None:
        """Moves the progress bar."""
        left = progress.stage_seconds * (1 - done) / done if done > 0 else None
        self.console.show(progress.stage, done, left)

    def validation(self, progress: Progress, result: ValidationResult) -> None:
        """A validation, with samples and a new curve."""
        lists = {"bpp": list(result.bpp), "bpp_z": list(result.bpp_z), "psnr": list(result.psnr)}
        self._record("validation", progress, {"loss": result.loss, **lists})
        for number, picture in enumerate(result.samples):
            self.folder.save_sample(f"step-{progress.total_steps:08d}-{number}", picture)
        draw_curve(self.folder)
        points = "  ".join(f"{bpp:.3f}/{psnr:.2f}" for bpp, psnr in zip(result.bpp, result.psnr, strict=True))
        z = sum(result.bpp_z) / len(result.bpp_z)
        self.console.say(f"validation: loss {result.loss:.4f}  z {z:.4f} bpp  bpp/dB per quality: {points}")

    def figures(self, progress: Progress, figures: dict[str, float | list[float]]) -> None:
        """What a side stage is judged by."""
        self._record("figures", progress, figures)
        texts = (
            f"{name} {' '.join(f'{item:.3g}' for item in (value if isinstance(value, list) else [value]))}"
            for name, value in figures.items()
        )
        self.console.say(f"{progress.stage}: {'; '.join(texts)}")

    def skipped_images(self, store: ImageStore) -> None:
        """Names images that could not be used, the first of them each on a line, and counts them."""
        reasons = store.newly_skipped()
        room = max(0, SKIPPED_LINES - self._skipped_lines)
        for reason in reasons[:room]:
            self.console.say(f"skipped image: {reason}")
        self._skipped_lines += len(reasons[:room])
        if reasons:
            self.console.say(f"{len(store.skipped)} of {len(store)} images skipped so far")

    def _record(self, kind: str, progress: Progress, values: dict) -> None:
        place = {"stage": progress.stage, "step": progress.step, "total_steps": progress.total_steps}
        self.folder.log({"kind": kind, **place, "seconds": round(progress.total_seconds, 1), **values})
        numbers = {f"{kind}/{name}": value for name, value in values.items() if isinstance(value, float)}
        self.accelerator.log(numbers, step=progress.total_steps)

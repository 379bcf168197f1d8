"""What a bar says of a refinement."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tto.cli.bars import Row

if TYPE_CHECKING:
    from tto.refine.state import Progress


def row_of(progress: Progress) -> Row:
    """What a bar says about a refinement."""
    change = 100 * (progress.J / progress.base_J - 1)
    figures = f"{progress.bpp:.3f} bpp, {progress.psnr:.2f} dB, J {progress.J:.3f} ({change:+.1f} %)"
    total = max(progress.steps, progress.step)
    return Row(progress.step, total, figures, f"{progress.seconds_left:.0f} s left")

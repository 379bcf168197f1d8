"""tto info: what a file says about itself, without decoding it."""

from __future__ import annotations

import typer

from tto.cli.jobs import to_json
from tto.cli.options import Json, TTOFile
from tto.container import MODULES_FINGERPRINT, VERSION, Container, SectionType, read, section_name
from tto.files import read_bytes

BLOCK, LATENTS_PER_BLOCK = 64, 4
"""Pixels a side that pictures are padded to multiples of, and positions of y along that."""
MOST_POSITIONS = 1 << 16
"""Of a mask that is read, 16 million pixels: more would take over a second."""


def info(file: TTOFile, as_json: Json = False) -> None:
    """Print what a .tto file contains; no model is needed."""
    data = read_bytes(file)
    container = read(data, max_pixels=None)
    header = container.header
    sections = {kind.name.lower(): len(body) for kind, body in container.sections.items()}
    sections |= {section_name(kind): len(body) for kind, body in container.unknown.items()}
    record = {
        "input": str(file),
        "format_version": VERSION,
        "width": header.width,
        "height": header.height,
        "grayscale": header.grayscale,
        "alpha": "alpha" in sections,
        "bytes": len(data),
        "bpp": 8 * len(data) / (header.width * header.height),
        "model_fingerprint": header.fingerprint.hex(),
        "quality": header.quality,
        "step_size": header.step_size,
        "native": header.native,
        "sections": sections,
    }
    if SectionType.COMPENSATION in container.sections:
        record |= _compensation(container)
    if as_json:
        typer.echo(to_json(record))
        return
    channels = ("gray" if header.grayscale else "RGB") + (" with alpha" if record["alpha"] else "")
    typer.echo(f"{file}: {header.width}x{header.height}, {channels}")
    typer.echo(f"  size        {len(data)} bytes, {record['bpp']:.4f} bpp")
    typer.echo(f"  quality     {header.quality:g}, step size {header.step_size:.4g}")
    typer.echo(f"  model       {header.fingerprint.hex()}")
    typer.echo(f"  arithmetic  {'native (this file is not portable)' if header.native else 'portable'}")
    for name, length in sections.items():
        typer.echo(f"  {name:<11} {length} bytes")
    if "codes" in record:
        typer.echo(f"  mask        {100 * record['mask_share']:.1f} % of positions, {record['codes']} codes")


def _compensation(container: Container) -> dict[str, float]:
    """How many positions of the latent have a code: `codes`, and `mask_share` of all; nothing for a large picture."""
    from tto.side.codes import decode_mask

    header = container.header
    size = tuple(LATENTS_PER_BLOCK * -(-side // BLOCK) for side in (header.height, header.width))
    if size[0] * size[1] > MOST_POSITIONS:
        return {}
    mask = decode_mask(container.sections[SectionType.COMPENSATION][MODULES_FINGERPRINT:], size)
    return {"mask_share": float(mask.mean()), "codes": int(mask.sum())}
